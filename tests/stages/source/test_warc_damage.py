"""Damaged archives: nothing raises, what is whole comes, and what is not is a row with an address."""

import gzip
import io
from itertools import pairwise

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from stages.source.warc import WarcSource
from tests.gristmill.archives.archives import FRAMED, OK, PACKINGS, crawl, gz, memory, page, record, scan, zst
from tests.random_examples import examples

SOURCE = WarcSource(paths="")
RECORDS = crawl(6)
GOOD = {name: pack(RECORDS) for name, pack in PACKINGS.items()}
PAGES = {name: scan(SOURCE, memory(data)).to_pylist() for name, data in GOOD.items()}


def read(data):
    return scan(SOURCE, memory(data)).to_pylist()


def errors(rows):
    return [row for row in rows if row["error"]]


def texts(rows):
    return [row["text"] for row in rows if row["text"]]


@pytest.mark.parametrize("data", [b"", gzip.compress(b""), zstandard.compress(b"")], ids=["empty", "empty gzip", "empty zstd"])
def test_an_empty_file_has_no_rows(data):
    assert read(data) == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("content", [b"not an archive\r\n\r\n" * 9, bytes(range(256)) * 300, b"\x1f\x8b", b"{}"])
def test_a_file_that_is_no_archive_is_one_error(pack, content):
    data = pack(content)
    rows = read(data)
    assert len(rows) == 1
    assert rows[0]["error"]
    assert (rows[0]["offset"], rows[0]["text"]) == (0, "")


@given(st.sampled_from(sorted(PACKINGS)), st.floats(0, 1, exclude_max=True))
@examples(150)
def test_a_file_cut_anywhere_gives_the_documents_before_and_one_error_for_the_rest(packing, where):
    first = PAGES[packing][0]["offset"]  # what comes before tells how the file is packed, and may hold the dictionary
    data = GOOD[packing][: first + int((len(GOOD[packing]) - first) * where)]
    rows = read(data)
    bad = errors(rows)
    assert bad == rows[len(rows) - len(bad) :]
    assert len(bad) <= 1
    if packing in FRAMED:
        whole = [row for row in PAGES[packing] if row["offset"] + row["length"] <= len(data)]
        assert rows[: len(whole)] == whole
        assert len(rows) == len(whole) + len(bad)
        if bad:
            assert bad[0]["offset"] + bad[0]["length"] == len(data)
    else:
        expected = texts(PAGES[packing])[: len(texts(rows))]
        assert texts(rows) == expected


def test_every_cut_of_a_framed_file_that_is_not_between_members_is_reported():
    records = [record(n, page(n, 60)) for n in range(3)]
    data = gz(records)
    ends = [len(gz(records[: n + 1])) for n in range(3)]
    for cut in range(ends[0], len(data)):
        rows = read(data[:cut])
        whole = sum(end <= cut for end in ends)
        assert len(texts(rows)) == whole
        assert len(errors(rows)) == (cut not in ends), cut
        if errors(rows):
            assert rows[-1]["offset"] == ([0, *ends])[whole]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("lie", [-300, -40, -4, 5, 40, 900, 10**9, 10**17])
def test_a_lying_content_length_costs_its_record_alone(packing, lie):
    records = list(RECORDS)
    block = page(2)
    records[6] = record(2, block, says=max(len(block) + lie, 0))
    data = PACKINGS[packing](records)
    rows = read(data)
    if lie >= 10**9 and packing in ("one_gz", "one_zst"):
        # Over the limit, compressed and not framed: only the length itself says where the next record is (see records.py).
        assert [row["url"][-1] for row in rows[:2]] == ["0", "1"]
        assert len(errors(rows)) == 1
        return
    assert [(row["url"], bool(row["error"])) for row in rows] == [(f"http://site.test/{n}", n == 2) for n in range(6)]
    assert "Content-Length is" in rows[2]["error"]
    assert texts(rows) == [text for n, text in enumerate(texts(PAGES[packing])) if n != 2]
    bad = scan(SOURCE, memory(data)).slice(2, 1)
    assert SOURCE.fetch(memory(data), bad["offset"][0].as_py(), bad["length"][0].as_py()).equals(bad)


@pytest.mark.parametrize("packing", FRAMED)
def test_a_record_whose_header_is_broken_costs_itself_alone(packing):
    for old, new in ((b"Content-Length", b"Kontent-Length"), (b"WARC/1.0", b"XXXX/1.0"), (b"\r\n\r\n", b"\r\r\r\r")):
        records = list(RECORDS)
        records[6] = records[6].replace(old, new, 1 if old != b"\r\n\r\n" else -1)
        rows = read(PACKINGS[packing](records))
        assert len(errors(rows)) == 1
        assert texts(rows) == [text for n, text in enumerate(texts(PAGES[packing])) if n != 2]


@given(st.sampled_from(FRAMED), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@example("gz", 0.0, 1)
@example("zst", 0.0, 1)
@examples(250)
def test_a_flipped_byte_costs_no_other_member(packing, where, flip):
    data = bytearray(GOOD[packing])
    place = int(len(data) * where)
    data[place] ^= flip
    rows = read(bytes(data))
    others = [row for row in PAGES[packing] if not row["offset"] <= place < row["offset"] + row["length"]]
    if place >= PAGES[packing][0]["offset"]:  # what comes before tells how the file is packed, and may hold the dictionary
        assert [row for row in rows if row in others] == others
        assert len(rows) <= len(PAGES[packing]) + 1


def test_what_follows_garbage_between_members_is_found_again():
    parts = [gz([one]) for one in RECORDS]
    data = b"".join(parts[:7]) + b"\x1f\x8b\x08 garbage \x1f\x8b" * 50 + b"".join(parts[7:])
    rows = read(data)
    assert texts(rows) == texts(PAGES["gz"])
    assert [(row["offset"], row["length"]) for row in errors(rows)] == [(len(b"".join(parts[:7])), 700)]


def test_garbage_between_plain_records_is_one_error():
    data = b"".join(RECORDS[:7]) + b"garbage \r\n\r\n" * 10_000 + b"".join(RECORDS[7:])
    rows = read(data)
    assert texts(rows) == texts(PAGES["plain"])
    assert [(row["offset"], row["length"]) for row in errors(rows)] == [(len(b"".join(RECORDS[:7])), 120_000)]


def test_damage_in_a_request_costs_no_document_and_is_not_counted():
    records = list(RECORDS)
    records[3] = record(1, b"GET / HTTP/1.1\r\n\r\n", "request", says=3)
    for packing, pack in PACKINGS.items():
        rows = read(pack(records))
        assert (texts(rows), errors(rows)) == (texts(PAGES[packing]), [])


def test_a_page_that_quotes_an_archive_is_one_document():
    quoted = record(9, page(9))
    rows = read(b"".join([record(0, OK + b"\r\n\r\n" + quoted + b"end"), record(1, page(1))]))
    assert len(rows) == 2
    assert not errors(rows)
    assert rows[0]["text"].endswith("end")


def test_a_bomb_takes_no_memory():
    import resource

    bomb = gz(RECORDS[:3]) + zlib_bomb(400 << 20) + gz(RECORDS[3:])
    source = WarcSource(paths="", max_record_bytes=1 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = scan(source, memory(bomb)).to_pylist()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert texts(rows) == texts(PAGES["gz"])
    assert [row["error"] is not None for row in rows].count(True) == 1
    assert grown < 100 << 10  # KiB


def zlib_bomb(size):
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as file:
        for _ in range(size >> 20):
            file.write(b"\0" * (1 << 20))
    return out.getvalue()


WORDS = [
    b"WARC/1.0\r\n",
    b"\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"WARC-Type: response\r\n",
    b"WARC-Target-URI: \xff\r\n",
    OK,
    b"x" * 70_000,
]
PIECES = st.lists(
    st.one_of(st.binary(max_size=30), st.sampled_from([*WORDS, *RECORDS, gz(RECORDS[:2]), zst(RECORDS[1:3])])), max_size=8
)


@given(PIECES, st.sampled_from([bytes, gzip.compress, zstandard.compress]))
@examples(200)
def test_nothing_raises_and_every_address_leads_back(parts, pack):
    file = memory(pack(b"".join(parts)))
    rows = scan(SOURCE, file)
    for number in range(rows.num_rows):
        row = rows.slice(number, 1)
        assert SOURCE.fetch(file, row["offset"][0].as_py(), row["length"][0].as_py()).equals(row)
    spans = sorted((row["offset"], row["length"]) for row in rows.to_pylist())
    assert all(offset + length <= after for (offset, length), (after, _) in pairwise(spans))
