"""Accounts of documents and histograms: what balances, what adds up, and what is read back as it was."""

from __future__ import annotations

import math
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.units.ledger import CATEGORIES, COMBINATIONS, Joint, Measure, Tally, measure_of
from tests.random_examples import examples


def test_an_account_balances_with_what_was_made() -> None:
    tally = Tally("s", entered=10, made=5, kept=12, dropped=Counter(short=2), quarantined=Counter(bad=1))
    assert tally.balanced()
    for key in ("entered", "made", "kept"):
        wrong = Tally(**{**vars(tally), key: getattr(tally, key) + 1})
        assert not wrong.balanced(), key


def test_an_account_as_plain_data_says_only_what_there_is() -> None:
    assert Tally("s", entered=2, kept=2).plain() == {
        "stage": "s",
        "in": 2,
        "kept": 2,
        "dropped": {},
        "quarantined": {},
        "samples": {},
        "cpu_s": 0.0,
        "wall_s": 0.0,
    }
    tally = Tally("s", entered=1, made=1, kept=2)
    tally.note("a line")
    tally.note("a line")
    assert tally.plain()["made"] == 1 and tally.plain()["notes"] == ["a line"]
    assert list(tally.plain())[:4] == ["stage", "in", "made", "kept"]


NUMBERS = st.lists(st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf])) | st.none(), max_size=30)


@given(NUMBERS, NUMBERS)
@examples(50)
def test_histograms_of_units_add_up_to_that_of_all(some: list[float | None], others: list[float | None]) -> None:
    parts = [Measure("number"), Measure("number")]
    for measure, values in zip(parts, (some, others), strict=True):
        measure.add(pa.chunked_array([pa.array(values, pa.float64())]))
    whole = Measure("number")
    whole.add(pa.chunked_array([pa.array([*some, *others], pa.float64())]))
    parts[0].merge(parts[1])
    finite = [value for value in (*some, *others) if value is not None and math.isfinite(value)]
    assert parts[0].count == whole.count == len(finite)
    assert parts[0].bins() == whole.bins() and (parts[0].low, parts[0].high) == (whole.low, whole.high)
    assert sum(count for *_, count in whole.bins()) == len(finite)
    assert all(any(low - 1e-6 <= value <= high + 1e-6 for low, high, _ in whole.bins()) for value in finite)


@given(st.lists(st.integers(0, 2**40), max_size=30))
@examples(50)
def test_whole_numbers_have_bins_that_grow(values: list[int]) -> None:
    measure = Measure("number")
    measure.add(pa.chunked_array([pa.array(values, pa.int64())]))
    for low, high, count in measure.bins():
        # A value within a millionth of an edge may be on either side.
        surely = sum(low * (1 + 1e-6) <= value < high * (1 - 1e-6) for value in values)
        assert surely <= count <= sum(low * (1 - 1e-6) <= value <= high * (1 + 1e-6) for value in values)
        assert high <= 1 or high / low == pytest.approx(2**0.25)


@pytest.mark.parametrize(("kind", "expected"), [(pa.string(), "category"), (pa.bool_(), "category"), (pa.int8(), "number")])
def test_a_column_has_the_histogram_of_its_type(kind: pa.DataType, expected: str) -> None:
    assert measure_of(kind).kind == measure_of(pa.list_(kind)).kind == expected


def test_lists_are_counted_by_element() -> None:
    measure = measure_of(pa.list_(pa.float32()))
    measure.add(pa.chunked_array([pa.array([[1.0, 2.0], None, [], [3.0]], pa.list_(pa.float32()))]))
    assert (measure.count, measure.total, measure.low, measure.high) == (3, 6.0, 1.0, 3.0)


def test_rare_categories_are_counted_together() -> None:
    measure = Measure("category")
    measure.add(pa.chunked_array([pa.array([f"c{number}" for number in range(CATEGORIES + 10)] + ["c0", None])]))
    counts = measure.plain()["counts"]
    assert counts["c0"] == 2 and counts["…"] == 10 and len(counts) == CATEGORIES + 1
    assert sum(counts.values()) == measure.count == CATEGORIES + 11


def test_columns_are_counted_together_whatever_the_split() -> None:
    docs = pa.table({"a": ["x", None, "x", "é"], "b": pa.array([1, 1, 2, None], pa.uint8()), "text": ["é", "bc", "", "d"]})
    whole, parts = Joint(("a", "b")), Joint(("a", "b"))
    whole.add(docs)
    for row in (3, 1, 0, 2):
        part = Joint(("a", "b"))
        part.add(docs.slice(row, 1))
        parts.merge(Joint.read(part.plain()))
    assert whole.plain() == parts.plain()
    assert whole.counts == {'["x", "1"]': [1, 2], '[null, "1"]': [1, 2], '["x", "2"]': [1, 0], '["é", null]': [1, 1]}


def test_rare_combinations_are_counted_together() -> None:
    joint = Joint(("a",))
    names = [str(number) for number in range(COMBINATIONS + 7)]
    joint.add(pa.table({"a": [*names, "0"], "text": ["xy"] * (len(names) + 1)}))
    counts = joint.plain()["joint"]
    assert counts['["0"]'] == [2, 4] and counts["…"] == [7, 14] and len(counts) == COMBINATIONS + 1
    joint.merge(Joint.read(joint.plain()))
    assert joint.plain()["joint"]["…"] == [14, 28], "what was counted together stays so"


@pytest.mark.parametrize("values", [[], [1.5, -2.0, 1e9], [0.0]])
def test_a_histogram_is_read_back_as_it_was(values: list[float]) -> None:
    measure = Measure("number")
    measure.add(pa.chunked_array([pa.array(values, pa.float64())]))
    assert Measure.read(measure.plain()) == measure


def test_a_sample_holds_the_address_the_start_of_the_text_and_the_scores_of_the_document() -> None:
    long = "x" * 2000
    columns = {
        "id": ["b", "a"],
        "url": ["u", None],
        "file": ["f", "f"],
        "offset": [1, 2],
        "text": [long, "short"],
        "language": ["en", "no"],
        "language_score": [0.123456789, math.nan],
        "ref_loss.scores": [[1.0], [2.0]],
        "copies": [1, 2],
    }
    tally = Tally("s")
    tally.sample("why", pa.table(columns))
    first, second = tally.samples["why"]
    assert first == {"id": "a", "url": None, "file": "f", "offset": 2, "text": "short", "language": "no", "language_score": None}
    assert second["language_score"] == 0.123457 and second["text"] == long[:500]
