"""The section on repeats: how many documents and tokens are read how often, and the curve of each group."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from jobs.report.repeat_section import repeats
from stages.classify.upsample import Share, Upsample
from tests.contract.running import met
from tests.toy import documents

PASSES = [[100, 5000], [40, 1500], [40, 1500], [3, 20]]


def about(**options):
    docs = documents("a", ["word " * (1 + n % 9) for n in range(400)])
    docs = docs.append_column("quality", pa.array(np.arange(400) / 400))
    docs = docs.append_column("topic", pa.array(["<math>", None] * 200, pa.string()))
    model = met(Upsample(score="quality", budget=Share(share=1.25), weight="bytes", **options), [[docs]])
    return json.loads(model.schema.metadata[b"about"])


def test_counts_are_those_of_the_passes():
    found = repeats({"tokens": 5000, "repeats": {"passes": PASSES, "tokens": 8020, "about": {}}})
    assert found is not None
    for value in (60, 3500, 37, 1480, 4440, 3, 20, 80, 8020):
        assert f'<data value="{value}">' in found
    assert "1.604 times on average" in found
    rows = found.count("<tr>")
    assert rows == 4, "a head, and a row for 1, 3 and 4: nothing is read twice"


@pytest.mark.parametrize("best", ["high", "low"])
def test_a_curve_a_group(best):
    noted = about(by="topic", best=best)
    found = repeats({"tokens": 5000, "repeats": {"passes": PASSES, "tokens": 8020, "about": noted}})
    assert found is not None and "<math>" not in found and "&lt;math&gt;" in found and ">none<" in found
    for group in noted["groups"].values():
        assert f'<data value="{group["read"]}">' in found
        for level in group["levels"]:
            assert f'<data value="{level["documents"]}">' in found
    assert ("from 0." in found) == (best == "high") and ("up to 0." in found) == (best == "low")
    assert "Nothing is read below the percentile 0.4." in found


def test_a_build_that_is_read_once_has_no_section():
    assert repeats({"tokens": 5000}) is None
