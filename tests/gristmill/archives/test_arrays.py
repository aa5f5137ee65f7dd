"""JSON arrays read as their elements: against Python's own parser, cut anywhere, however the pieces fall, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from gristmill.archives.arrays import elements
from stages.source.jsonl import JsonlSource
from tests.gristmill.archives.archives import memory, scan
from tests.random_examples import examples

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.sampled_from(['"', "\\", "a[", "{", ",", "é"]), VALUES, min_size=1, max_size=3)
OBJECTS = st.lists(OBJECT, min_size=1, max_size=5)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@given(OBJECTS, st.sampled_from([None, 0, 3]), st.integers(1, 40), st.booleans())
@examples(100)
def test_elements_are_those_of_the_parser_however_the_pieces_fall(rows, indent, size, escape):
    data = json.dumps(rows, indent=indent, ensure_ascii=escape).encode()
    spans = list(elements(iter(cut(data, size)), 1 << 20, 7))
    assert [json.loads(span.data) for span in spans] == rows
    assert all(data[span.offset - 7 :].startswith(span.data) and span.length == len(span.data) for span in spans)


@given(OBJECTS, st.integers(1, 12), st.data())
@examples(70)
def test_a_cut_array_gives_the_elements_before_and_says_that_it_is_cut(rows, size, data):
    whole = json.dumps(rows).encode()
    end = data.draw(st.integers(2, len(whole) - 1))
    *spans, last = elements(iter(cut(whole[:end], size)), 1 << 20)
    assert last.damage is not None and last.damage.startswith("cut_array: ")
    assert [json.loads(span.data) for span in spans] == rows[: len(spans)]
    assert last.offset + last.length == end


def read(data, **options):
    return scan(JsonlSource(paths="", **options), memory(data)).to_pylist()


def test_an_array_of_objects_is_read_as_lines_are():
    given = [{"text": f'text {n}, with ] and }} and \\ " in it'} for n in range(5)]
    lines = read("\n".join(map(json.dumps, given)).encode())
    for data in (json.dumps(given), json.dumps(given, indent=2), "\ufeff \n" + json.dumps(given)):
        rows = read(data.encode())
        assert [row["text"] for row in rows] == [row["text"] for row in lines] == [row["text"] for row in given]
        for row in rows:
            assert json.loads(data.encode()[row["offset"] :][: row["length"]])["text"] == row["text"]


def test_arrays_behind_each_other_and_lines_behind_them():
    rows = read(b'[{"text": "a"},\n{"text": "b"}]\n\n[{"text": "c"}]\n{"text": "d"}\n[1]\n{"text": "e"}')
    assert [row["text"] for row in rows] == ["a", "b", "c", "d", "", "e"]
    assert rows[4]["error"] == "not_object: the line is an array"


def test_broken_elements_are_quarantined_alone():
    rows = read(b'[{"text": "a"}, {"text" "b"}, 5, {"text": "c"} {"text": "d"}, {"text": "e"},]')
    assert [(row["text"], (row["error"] or "").split(":")[0]) for row in rows] == [
        ("a", ""),
        ("", "bad_json"),
        ("", "not_object"),
        ("", "bad_json"),
        ("e", ""),
    ]
    assert read(b"[]") == [] and read(b"[ ]\n") == []


def test_an_array_of_texts_on_a_line_is_a_line_that_is_no_object():
    assert [row["error"] for row in read(b'["a", "b"]\n')] == ["not_object: the line is an array"]


def test_elements_over_the_limit_are_dropped_and_the_array_is_never_held():
    size = 40 << 20

    def pieces():
        yield b'[{"text": "small"}, {"text": "'
        for _ in range(size >> 20):
            yield b"x" * (1 << 20)
        yield b'"}, {"text": "last"}]'

    tracemalloc.start()
    spans = list(elements(pieces(), 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [span.length for span in spans] == [17, size + 12, 16] and len(spans[1].data) == 1001
    assert peak < 8 << 20
