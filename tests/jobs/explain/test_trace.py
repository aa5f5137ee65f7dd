"""A document on its way through the stages again, from the raw record on: no build is needed for what a source decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.errors import UserError
from gristmill.storage.local import LocalStore
from jobs.explain.trace import Found, Trace, _explanation
from pipeline.finding import Finding, Limit
from pipeline.lineage import BuildInput
from pipeline.records import RunRecord
from pipeline.schema import document_id
from tests.toy import Upper

CONFIG = {
    "name": "lines",
    "output": "out",
    "source": {"jsonl": {"paths": "lines.jsonl", "max_line_bytes": 30}},
    "stages": [{"documents": {}}],
}


def test_a_source_tells_the_numbers_that_it_dropped_for(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "short"}\n{"text": "%s"}\n' % ("long " * 9))
    inputs = (BuildInput(path.name, str(path), path.stat().st_size),)
    record = RunRecord(build="", manifest="", name="lines", inputs=inputs, stages=(), run={"config": CONFIG}, steps=())
    trace = Trace(LocalStore(str(tmp_path / "out")), record)
    found = Found(document_id(path.name, 18), None, path.name, 18, 57)
    (decision,) = trace.decisions(found)
    limit = Limit("max_line_bytes", 30, "above", broken=True)
    assert decision.verdict == "dropped: too_long"
    assert decision.findings[0] == Finding("bytes", "57 or more", (limit,), decisive=True)


def test_a_stage_of_the_users_own_that_cannot_explain_is_told_with_the_line() -> None:
    with pytest.raises(
        UserError, match=rf"stage Upper: its explain\(\) raised ZeroDivisionError: .* \({__file__}:\d+\); mend it"
    ):
        _explanation(Upper(), "explain", lambda: 1 / 0)
    with pytest.raises(
        UserError, match=r"stage Upper: its explain\(\) returns \{'words': 3\}, expected a tuple of pipeline.finding"
    ):
        _explanation(Upper(), "explain", lambda: {"words": 3})
