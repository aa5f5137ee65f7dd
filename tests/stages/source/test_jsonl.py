"""JSON Lines against Python's own reading of them, and every way a line can be wrong."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError
from pipeline.schema import DOCUMENT, check
from stages.source.jsonl import JsonlSource
from stages.source.rows import SCHEMA
from tests.gristmill.archives.archives import memory, scan
from tests.random_examples import examples

SOURCE = JsonlSource(paths="")
PACKS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "bzip2": lambda data: bz2.compress(data, 1),  # in small blocks
    "xz": lzma.compress,
}


def read(data, **options):
    return scan(JsonlSource(paths="", **options), memory(data))


@given(
    st.lists(st.text(min_size=1).filter(lambda text: not text.isspace()), max_size=20),
    st.sampled_from(sorted(PACKS)),
    st.booleans(),
)
@examples(80)
def test_lines_come_as_they_are_with_addresses_that_lead_back(texts, pack, escape):
    lines = [
        json.dumps({"text": text, "url": f"http://site.test/{n}"}, ensure_ascii=escape).encode() for n, text in enumerate(texts)
    ]
    file = memory(PACKS[pack](b"\n".join(lines)))
    rows = scan(SOURCE, file, batch_rows=7)
    check(rows, DOCUMENT, pack)
    assert rows.schema == SCHEMA
    assert rows["text"].to_pylist() == texts
    assert rows["length"].to_pylist() == [len(line) for line in lines]
    assert rows["offset"].to_pylist() == [sum(len(line) + 1 for line in lines[:n]) for n in range(len(lines))]
    for number in range(len(texts)):
        row = rows.slice(number, 1)
        assert SOURCE.fetch(file, row["offset"][0].as_py(), row["length"][0].as_py()).equals(row)


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_lines_longer_than_a_piece_are_whole_for_any_batch(batch_rows):
    texts = ["a" * (3 << 20), "short", "é" * (1 << 20)]
    data = b"\n".join(json.dumps({"text": text}).encode() for text in texts) + b"\n"
    tables = list(SOURCE.open()(memory(data), batch_rows))
    assert pa.concat_tables(tables)["text"].to_pylist() == texts


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"text": "a"', "bad_json: "),
        (b"[" * 200_000, "bad_json: "),
        (b'{"text": "\xff"}', "bad_utf8: invalid start byte at byte 10"),
        (b'["text"]', "not_object: the line is an array"),
        (b"null", "not_object: the line is null"),
        (b'{"body": "a", "id": 1}', "no_text_key: no 'text' among its keys ('body', 'id')"),
        (b"{}", "no_text_key: no 'text' among its keys (none)"),
        (b'{"text": null}', "null_text: "),
        (b'{"text": 5}', "not_text: 'text' is a number"),
        (b'{"text": ["a", "b"]}', "not_text: 'text' is an array"),
        (b'{"text": {"a": "b"}}', "not_text: 'text' is an object"),
        (b'{"text": "ab\\ud83d"}', "lone_surrogate: 'text' has half of a character at 2"),
        (b'{"text": "a", "n": NaN}', "bad_json: NaN is no number"),
        (b'{"text": "a", "n": [-Infinity]}', "bad_json: -Infinity is no number"),
        (b"{", "bad_json: "),
    ],
)
def test_a_bad_line_is_quarantined_and_its_neighbours_are_not(line, error):
    rows = read(b'{"text": "before"}\n' + line + b'\n\n  \n{"text": "after"}\n').to_pylist()
    assert [row["text"] for row in rows] == ["before", "", "after"]
    assert rows[1]["error"].startswith(error)
    assert (rows[1]["offset"], rows[1]["length"]) == (19, len(line))
    assert [rows[0]["error"], rows[2]["error"]] == [None, None]


@pytest.mark.parametrize("pack", PACKS)
def test_byte_order_marks_are_no_text(pack):
    mark, lines = b"\xef\xbb\xbf", [b'{"text": "first"}', b'{"text": "second"}']
    data = mark + lines[0] + b"\n" + mark + lines[1] + b"\n"
    rows = read(PACKS[pack](data)).to_pylist()
    assert [row["text"] for row in rows] == ["first", "second"] and rows[0]["offset"] == 3
    assert [SOURCE.fetch(memory(data), row["offset"], 0)["text"][0].as_py() for row in rows] == ["first", "second"]


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_of_another_encoding_is_one_error_that_says_what_to_do(codec):
    rows = read('{"text": "first"}\n{"text": "second"}\n'.encode(codec)).to_pylist()
    assert len(rows) == 1 and rows[0]["error"].startswith("not_utf8: the file is UTF-") and "iconv" in rows[0]["error"]


def test_a_whole_emoji_of_two_escapes_is_text():
    assert read(b'{"text": "\\ud83d\\ude00 \\u0000"}')["text"].to_pylist() == ["\U0001f600 \0"]


def test_numbers_of_any_length_are_json():
    rows = read(b'{"text": "a", "n": ' + b"1" * 5000 + b', "m": 5}\n{"text": "b", "n": 1e999}\n').to_pylist()
    assert [(row["text"], row["error"]) for row in rows] == [("a", None), ("b", None)]
    assert read(b'{"text": "a", "n": ' + b"1" * 5000 + b', "m": NaN}')["error"].to_pylist() != [None]


def test_an_object_over_several_lines_is_told_how_to_be_one():
    rows = read(json.dumps({"text": "a"}, indent=1).encode()).to_pylist()
    assert all(row["error"].startswith("bad_json: ") for row in rows) and "jq -c" in rows[0]["error"]


def test_keys_dates_and_addresses():
    data = (
        b'{"body": "a", "link": "http://x.test/", "when": "2024-05-06T07:08:09+02:00"}\n{"body": "b", "link": 5, "when": "soon"}'
    )
    rows = read(data, text_key="body", url_key="link", date_key="when").to_pylist()
    assert [(row["text"], row["url"], str(row["date"])) for row in rows] == [
        ("a", "http://x.test/", "2024-05-06 05:08:09+00:00"),
        ("b", None, "None"),
    ]


def test_empty_and_too_long_lines_are_dropped():
    data = b'{"text": " "}\n' + json.dumps({"text": "x" * 200}).encode() + b'\n{"text": "fits"}'
    rows = read(data, max_line_bytes=100).to_pylist()
    assert [(row["drop"], row["text"], row["length"]) for row in rows] == [
        ("empty", "", 13),
        ("too_long", "", 212),
        (None, "fits", 16),
    ]


@pytest.mark.parametrize("pack", ["gzip", "zstd", "bzip2", "xz"])
def test_a_cut_file_gives_the_lines_before_and_one_error(pack):
    data = PACKS[pack](b"".join(json.dumps({"text": f"{n**80:x}"}).encode() + b"\n" for n in range(1, 6_000)))
    rows = read(data[: len(data) // 2]).to_pylist()
    assert [row["text"] for row in rows[:-1]] == [f"{n**80:x}" for n in range(1, len(rows))]
    assert len(rows) > 1000
    assert rows[-1]["error"] is not None and all(row["error"] is None for row in rows[:-1])


@pytest.mark.parametrize("pack", PACKS)
def test_an_empty_file_has_no_rows(pack):
    assert read(PACKS[pack](b"")).num_rows == 0


def test_an_address_without_a_line_is_refused():
    with pytest.raises(InputError, match="no document at offset 5"):
        SOURCE.fetch(memory(b'{"text": "a"}'), 5, 0)


def test_the_limit_must_be_sensible():
    with pytest.raises(ValueError, match="max_line_bytes is 0"):
        JsonlSource(paths="", max_line_bytes=0)
