"""Samples of dropped documents: those with the smallest ids, however rows and units lie, with their language and scores."""

from __future__ import annotations

import json
import random

import pyarrow as pa
import pytest

from jobs.report.sections import samples as section
from pipeline.builds.summary import SAMPLES as SHOWN
from pipeline.builds.summary import _samples
from pipeline.records import UnitRecord
from pipeline.schema import document_id
from pipeline.units.ledger import SAMPLES, Tally


def rows(file: str, count: int, **columns: pa.Array) -> pa.Table:
    plain = {
        "id": [document_id(file, row) for row in range(count)],
        "url": [f"http://{file}/{row}" for row in range(count)],
        "file": [file] * count,
        "offset": list(range(count)),
        "text": ["x" * row for row in range(count)],
    }
    return pa.table({**plain, **columns})


def tallied(tables: list[pa.Table]) -> Tally:
    tally = Tally("short")
    for table in tables:
        tally.sample("too_short", table)
    return tally


@pytest.mark.parametrize("cuts", [[], [1], [500], [3, 400, 401, 990]], ids=str)
def test_the_smallest_ids_of_a_unit(cuts):
    table = rows("a", 1000)
    pieces = [table.slice(begin, end - begin) for begin, end in zip([0, *cuts], [*cuts, 1000], strict=True)]
    random.Random(1).shuffle(pieces)
    found = tallied(pieces).plain()["samples"]["too_short"]
    assert [sample["id"] for sample in found] == sorted(table["id"].to_pylist())[:SAMPLES]
    assert [sample["offset"] for sample in found] != [0, 1, 2]
    assert all(len(sample["text"]) == min(sample["offset"], 500) for sample in found)


def unit_with(tally):
    ledger = (tally.plain(),)
    return UnitRecord(unit="u", fingerprint="f", outputs={}, parts=(), ledger=ledger, measures={}, seconds={})


def test_the_smallest_ids_of_all_units():
    """Samples come from all over the crawl and not from its first files; the order of the units leaves no trace."""
    units = [unit_with(tallied([rows(f"f{number:02}", 40)])) for number in range(30)]
    found = _samples(units)["short"]["too_short"]
    everything = [sample for unit in units for sample in unit.ledger[0]["samples"]["too_short"]]
    assert [sample["id"] for sample in found] == sorted(sample["id"] for sample in everything)[:SHOWN]
    assert len({sample["file"] for sample in found}) >= 5
    assert _samples(units[::-1]) == _samples(units)
    assert _samples([unit_with(Tally("short"))]) == {}


def test_languages_and_scores_are_told():
    """Of the document, as JSON knows them; nothing of its tokens, and no other column."""
    table = rows(
        "a",
        3,
        language=pa.array(["en", None, "fr"]),
        language_score=pa.array([0.123456789, float("nan"), None], pa.float32()),
        quality_score=pa.array([1, 2, 3], pa.int8()),
        **{"score.excess": pa.array([[0.5]] * 3), "n_tokens": pa.array([1, 2, 3])},
    )
    found = {sample["offset"]: sample for sample in tallied([table]).plain()["samples"]["too_short"]}
    assert json.loads(json.dumps(found[0], allow_nan=False)) == found[0]
    told = [{key: found[row][key] for key in ("language", "language_score", "quality_score")} for row in range(3)]
    assert told == [
        {"language": "en", "language_score": 0.123457, "quality_score": 1},
        {"language": None, "language_score": None, "quality_score": 2},
        {"language": "fr", "language_score": None, "quality_score": 3},
    ]
    assert set(found[0]) == {"id", "url", "file", "offset", "text", "language", "language_score", "quality_score"}


def test_the_report_shows_them():
    sample = {
        "id": "a1",
        "url": "http://a/\u202egpj",
        "file": "f\x1b.gz",
        "offset": 7,
        "text": "words",
        "language": "<en>",
        "language_score": 0.25,
    }
    stage = {"stage": "language", "in": 9, "dropped": {"low": 1, "old": 1}}
    older = {key: value for key, value in sample.items() if not key.startswith("language")}
    shown = section({"stages": [stage], "samples": {"language": {"low": [sample], "old": [older]}}}, "out put;x")
    assert shown.count("&lt;en&gt;") == 1 and 'value="0.25"' in shown and "language_<wbr>score" in shown
    assert "\u202e" not in shown.replace(sample["url"], "") and "\\u202egpj" in shown and "f\\x1b.gz" in shown
    assert "python -m jobs explain &#x27;out put;x&#x27; a1" in shown
