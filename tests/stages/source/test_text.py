"""Plain text against Python's own splitting of it, by line, paragraph and file, and every way it can be wrong."""

import gzip
import re

import pyarrow as pa
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill.errors import InputError
from pipeline.schema import DOCUMENT, check
from stages.source.rows import SCHEMA
from stages.source.text import TextSource
from tests.gristmill.archives.archives import memory, scan
from tests.random_examples import examples

PACKS = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}
PER = ("line", "blank_line", "file")


def source(per, **options):
    return TextSource(paths="", per=per, **options)


def read(data, per, **options):
    return scan(source(per, **options), memory(data)).to_pylist()


def blank(line):
    return not line.strip(b"\t\n\r\x0b\f ")


def expected(data, per):
    """Return (offset, bytes) of each document, by regular expressions."""
    if per == "file":
        return [(0, data)] if data else []
    if per == "line":
        spans = [(match.start(), match[0].removesuffix(b"\r")) for match in re.finditer(rb"[^\n]+", data)]
        return [(offset, line) for offset, line in spans if not blank(line)]
    blocks, begin, end, at = [], None, 0, 0
    for line in [*data.split(b"\n"), b""]:
        if blank(line):
            blocks += [] if begin is None else [(begin, data[begin:end].removesuffix(b"\r"))]
            begin = None
        else:
            begin, end = at if begin is None else begin, at + len(line)
        at += len(line) + 1
    return blocks


TEXT = st.lists(st.sampled_from(["a", "zwei Wörter", "\n", "\n", "\n\n", "\r\n", " ", "\t", "\u3000", "\r", "🐈"])).map("".join)


@pytest.mark.parametrize("per", PER)
def test_documents_come_as_they_are_with_addresses_that_lead_back(per):
    @examples(150)
    @given(TEXT, st.sampled_from(sorted(PACKS)))
    @example("a\r\n\r\nb\r\nc\r\n", "plain")
    @example("\ufeffa\n\nb", "gzip")
    def compare(text, pack):
        file = memory(PACKS[pack](text.encode()))
        rows = scan(source(per), file, batch_rows=3)
        check(rows, DOCUMENT, pack)
        assert rows.schema == SCHEMA
        wanted = expected(text.encode(), per)
        assert list(zip(rows["offset"].to_pylist(), rows["length"].to_pylist(), strict=True)) == [
            (offset, len(data)) for offset, data in wanted
        ]
        texts = [data.decode().removeprefix("\ufeff") for _, data in wanted]
        assert rows["text"].to_pylist() == ["" if found.isspace() else found for found in texts]
        assert rows["drop"].to_pylist() == ["empty" if not found or found.isspace() else None for found in texts]
        for number in range(rows.num_rows):
            row = rows.slice(number, 1)
            assert source(per).fetch(file, row["offset"][0].as_py(), row["length"][0].as_py()).equals(row)

    compare()


def test_what_a_line_a_paragraph_and_a_file_are():
    data = b"One.\r\nTwo,\r\n  still two.\r\n \t\r\n\r\nThree."
    assert [row["text"] for row in read(data, "line")] == ["One.", "Two,", "  still two.", "Three."]
    assert [row["text"] for row in read(data, "blank_line")] == ["One.\r\nTwo,\r\n  still two.", "Three."]
    assert [row["text"] for row in read(data, "file")] == [data.decode()]
    assert read(data, "line")[0]["media"] == "text/plain"


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_documents_longer_than_a_piece_are_whole_for_any_batch(batch_rows):
    texts = ["a" * (3 << 20), "short", ("é" * 20 + "\n") * (1 << 16) + "é"]
    found = list(source("blank_line").open()(memory("\n\n".join(texts).encode()), batch_rows))
    assert pa.concat_tables(found)["text"].to_pylist() == texts


@pytest.mark.parametrize(("per", "between"), [("line", b"\n"), ("blank_line", b"\n\n")])
@pytest.mark.parametrize(("bad", "text"), [(b"a \xff b", "a \ufffd b"), ("né, ".encode() + b"cut \xc3", "né, cut \ufffd")])
def test_a_bad_byte_is_a_replacement_character_and_its_neighbours_stay(per, between, bad, text):
    rows = read(between.join([b"before", bad, b"after"]), per)
    assert [(row["text"], row["drop"], row["error"]) for row in rows] == [
        (said, None, None) for said in ("before", text, "after")
    ]
    assert (rows[1]["offset"], rows[1]["length"]) == (6 + len(between), len(bad))
    assert read(bad, "file")[0]["text"] == text


@pytest.mark.parametrize("per", PER)
def test_what_no_encoding_reads_is_dropped(per):
    rows = read(b"\x81\x8d\x8f\x90 \xff\xfe\xfd", per)
    assert [(row["text"], row["drop"], row["error"]) for row in rows] == [("", "undecodable", None)]
    rows = read(b"nine of ten are sound \xff \xff", per, max_replaced=0.1)
    assert [row["drop"] for row in rows] == [None]
    assert [row["drop"] for row in read(b"nine of ten are sound \xff \xff", per, max_replaced=0)] == ["undecodable"]


@pytest.mark.parametrize("label", ["windows-1251", "cp1251", "koi8-r", "gbk", "Shift_JIS"])
@pytest.mark.parametrize("per", PER)
def test_an_encoding_that_is_named_is_that_of_every_document(label, per):
    text = "Да"
    data = text.encode({"Shift_JIS": "shift_jis"}.get(label, label))
    assert [row["text"] for row in read(data, per, encoding=label)] == [text]


def test_encodings_that_are_none_or_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match=r"encoding is 'latin-42'; allowed are the labels of encoding.spec.whatwg.org"):
        source("line", encoding="latin-42")
    with pytest.raises(ValueError, match="encoding utf-16 cannot be cut into lines; set `per: file`"):
        source("line", encoding="utf-16")
    with pytest.raises(ValueError, match=r"max_replaced is 1.5; allowed are shares of a text's characters, 0 to 1"):
        source("line", max_replaced=1.5)


def test_utf16_is_read_whole_and_never_in_lines():
    data = "Überall\nZeilen\n".encode("utf-16")
    assert [row["text"] for row in read(data, "file")] == ["Überall\nZeilen\n"]
    assert [row["text"] for row in read(data[2:], "file", encoding="utf-16")] == ["Überall\nZeilen\n"]
    for per in ("line", "blank_line"):
        (row,) = read(data, per)
        assert row["error"] == f"not_lines: UTF-16 cannot be cut per {per}; per file can, or convert to UTF-8"


@pytest.mark.parametrize("per", PER)
def test_too_long_documents_are_dropped_and_bounded(per):
    size = 5 << 20
    for data, fits in ((b"x" * 100, True), (b"x" * 101, False), (b"xy\n" * 20, True), (b"x" * size, False), (b" " * size, False)):
        rows = read(data, per, max_document_bytes=100)
        assert {row["drop"] for row in rows} == {None if fits else "too_long"}
        assert fits or [(row["text"], row["length"]) for row in rows] == [("", len(data))]
    assert read(b"x" * 100 + b"\r\n", "line", max_document_bytes=100)[0]["text"] == "x" * 100
    rows = read(b"a\n\n" + b"word\n" * 30 + b"\nb", "blank_line", max_document_bytes=100)
    assert [(row["drop"], row["text"], row["length"]) for row in rows] == [(None, "a", 1), ("too_long", "", 149), (None, "b", 1)]


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
@pytest.mark.parametrize("per", PER)
def test_a_cut_file_gives_whole_documents_and_one_error(pack, per):
    texts = [f"{n**40:x}\n{n**39:x}" for n in range(1, 20_000)]
    data = PACKS[pack]("\n\n".join(texts).encode())
    *whole, last = read(data[: len(data) // 2], per)
    assert last["error"].startswith("damaged_compression: the file ends inside") and last["text"] == ""
    wanted = {"line": "\n".join(texts).split("\n"), "blank_line": texts, "file": []}[per]
    assert [row["text"] for row in whole] == wanted[: len(whole)]
    assert per == "file" or len(whole) > 1000
    places = [match.end() for match in re.finditer({"line": "\n+", "blank_line": "\n\n", "file": "$"}[per], "\n\n".join(texts))]
    assert last["offset"] in (places[len(whole) - 1 : len(whole)] if whole else [0])


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("per", PER)
def test_an_empty_file_has_no_rows_and_a_blank_one_no_text(pack, per):
    assert read(PACKS[pack](b""), per) == []
    assert [row["drop"] for row in read(PACKS[pack](b" \n\n"), per)] == (["empty"] if per == "file" else [])


def test_an_address_without_a_document_is_refused():
    with pytest.raises(InputError, match="no document at offset 1"):
        source("line").fetch(memory(b"ab"), 1, 0)


def test_the_limit_must_be_sensible():
    with pytest.raises(ValueError, match="max_document_bytes is 0"):
        source("line", max_document_bytes=0)


def test_a_decision_is_explained_by_the_numbers_that_made_it():
    file = memory(b"nine of ten are sound \xff \xff\nshort \xff\n" + b"long" * 20)
    made = source("line", max_document_bytes=50, max_replaced=0.1)
    kept, short, long = (row["offset"] for row in scan(made, file).to_pylist())

    def findings(offset):
        return [
            (each.value, each.decisive, *((limit.relation, limit.value) for limit in each.limits))
            for each in made.explain_record(file, offset, 0)
        ]

    assert findings(kept) == [(25, False, ("passes", 50)), (2, False, ("passes", "0.1 of 25 characters"))]
    assert findings(short) == [(7, False, ("passes", 50)), (1, False, ("passes", "0.1 of 7 characters"))], "one never matters"
    assert findings(long) == [("80 or more", True, ("above", 50))], "what is too long is not decoded"
