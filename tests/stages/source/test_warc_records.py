"""Records that are not quite as the standard wants them, and the same in a plain file and in its compressed twins."""

import bz2
import gzip
import lzma
import resource

import pytest
import zstandard

from gristmill.archives.members import DICTIONARY
from stages.source.warc import WarcSource
from tests.gristmill.archives.archives import FRAMED, OK, PACKINGS, crawl, gz, memory, page, record, scan, zst

SOURCE = WarcSource(paths="")
TEXTS = [page(number).removeprefix(OK).decode() for number in range(5)]


def read(data, **options):
    return scan(WarcSource(paths="", **options), memory(data)).to_pylist()


def ended(ends, number=None):
    """Return a crawl of five pages whose records (or one of them) end in `ends` where two line ends belong."""
    records = crawl(5)
    for place, one in enumerate(records):
        if number is None or place == number:
            records[place] = one.removesuffix(b"\r\n\r\n") + ends
    return records


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("ends", [b"", b"\r\n", b"\n", b"\n\n", b"\r\n\r\n\r\n", b"\r\n" * 9])
def test_any_number_of_line_ends_may_follow_a_block(packing, ends):
    for number in (None, 4):
        rows = read(PACKINGS[packing](ended(ends, number)))
        assert [row["text"] for row in rows] == TEXTS
        assert not any(row["error"] for row in rows)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("lie", [-2, -1, 1, 2, 3, 4])
@pytest.mark.parametrize("number", [2, 4])
def test_a_length_that_is_a_little_off_costs_nothing(packing, lie, number):
    records = crawl(5)
    records[2 + 2 * number] = record(number, page(number), says=len(page(number)) + lie)
    rows = read(PACKINGS[packing](records))
    assert [row["text"].strip() for row in rows] == TEXTS
    assert not any(row["error"] for row in rows)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("line", [b"\n", b"\r\r\n"])
def test_headers_may_end_their_lines_in_other_ways(packing, line):
    records = []
    for one in crawl(5):
        head, _, block = one.partition(b"\r\n\r\n")
        records.append(head.replace(b"\r\n", line) + line * 2 + block)
    assert [row["text"] for row in read(PACKINGS[packing](records))] == TEXTS


@pytest.mark.parametrize("version", [b"WARC/0.17", b"WARC/0.18", b"WARC/1.1"])
def test_other_versions_are_read(version):
    records = [one.replace(b"WARC/1.0", version, 1) for one in crawl(5)]
    for packing, pack in PACKINGS.items():
        assert [row["text"] for row in read(pack(records))] == TEXTS, packing


def test_pages_with_the_headers_of_what_they_once_were_are_read():
    """As ClueWeb09 has them: bare line feeds in the HTTP head, the body decoded, its headers left."""
    head = b"HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Encoding: gzip\nTransfer-Encoding: chunked\nContent-Length: 77\n\n"
    rows = read(gz([record(n, head + b"<p>page %d</p>" % n).replace(b"WARC/1.0", b"WARC/0.18") for n in range(29)]))
    assert [row["text"] for row in rows] == [f"<p>page {n}</p>" for n in range(29)]


@pytest.mark.parametrize("pack", [gz, zst])
def test_members_with_several_records_among_those_with_one(pack):
    records = crawl(5)
    for parts in (
        [records[:1], records[1:]],
        [records[:1], records[1:3], records[3:9], records[9:]],
        [records[:1], [b"\r\n", *records[1:]]],
    ):
        file = memory(pack([b"".join(part) for part in parts]))
        rows = scan(SOURCE, file)
        assert rows["text"].to_pylist() == TEXTS
        assert len(set(rows["id"].to_pylist())) == 5
        for number in range(5):
            row = rows.slice(number, 1)
            assert SOURCE.fetch(file, row["offset"][0].as_py(), row["length"][0].as_py()).equals(row)


def test_a_member_with_several_records_may_be_larger_than_the_limit():
    records = [record(n, page(n, 3000)) for n in range(200)]
    rows = read(gz([records[0], b"".join(records[1:])]), max_record_bytes=10_000)
    assert [row["error"] for row in rows] == [None] * 200
    assert len({row["id"] for row in rows}) == 200


def test_garbage_in_a_member_costs_nothing_around_it():
    records = crawl(5)
    rows = read(gz([*records[:4], b"garbage\r\n" * 40 + records[4], b"".join(records[5:])]))
    assert [row["text"] for row in rows if row["text"]] == TEXTS
    assert [row["error"][:15] for row in rows if row["error"]] == ["damaged_record:"]


def test_a_length_far_beyond_a_plain_file_costs_its_record_alone():
    records = crawl(5)
    records[4] = record(1, page(1), says=1 << 40)
    rows = read(b"".join(records))
    assert [row["text"] for row in rows if row["text"]] == [TEXTS[0], *TEXTS[2:]]
    assert [(row["url"], row["error"][:15]) for row in rows if row["error"]] == [("http://site.test/1", "damaged_record:")]


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_other_compressions_of_whole_files_are_read(pack):
    file = memory(pack(b"".join(crawl(5))))
    rows = scan(SOURCE, file)
    assert rows["text"].to_pylist() == TEXTS
    row = rows.slice(3, 1)
    assert SOURCE.fetch(file, row["offset"][0].as_py(), row["length"][0].as_py()).equals(row)


@pytest.mark.parametrize(("magic", "name"), [(b"\x04\x22\x4d\x18", "lz4"), (b"PK\x03\x04", "zip")])
def test_what_is_not_read_is_said_by_name(magic, name):
    rows = read(magic + bytes(range(200)))
    assert [row["error"].partition(":")[0] for row in rows] == ["foreign_format"]
    assert name in rows[0]["error"]


def test_a_record_without_a_type_is_a_response_when_it_begins_like_one():
    records = [one.replace(b"WARC-Type: response\r\n", b"").replace(b"WARC-Type: request\r\n", b"") for one in crawl(5)]
    for packing, pack in PACKINGS.items():
        assert [row["text"] for row in read(pack(records))] == TEXTS, packing


@pytest.mark.parametrize("pad", [1, 511, 70_000])
def test_zeros_that_pad_a_gzip_file_are_nothing(pad):
    rows = read(gz(crawl(5)) + bytes(pad))
    assert [row["text"] for row in rows] == TEXTS


@pytest.mark.parametrize("kind", ["metadata", "revisit", "resource", "request", "warcinfo"])
def test_a_file_without_documents_says_what_it_has(kind):
    data = gz(
        [record(9, b"software: x\r\n", "warcinfo"), *(record(n, b'{"a": 1}', kind, media="application/json") for n in range(3))]
    )
    rows = read(data)
    assert len(rows) == 1
    assert rows[0]["error"].startswith("no_documents: the file has no response or conversion record")
    assert f"{4 if kind == 'warcinfo' else 3} {kind}" in rows[0]["error"]
    assert (rows[0]["offset"], rows[0]["length"]) == (0, len(data))


def long_range(records):
    """Compress as `zstd --long=31` does: a window of 2 GiB is named."""
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(b"".join(records)) + packer.flush()


@pytest.mark.parametrize("framed", [True, False])
def test_long_windows_of_zstd_are_read(framed):
    records = crawl(5)
    data = b"".join(long_range([one]) for one in records) if framed else long_range(records)
    assert zstandard.get_frame_parameters(data).window_size == 1 << 31
    assert [row["text"] for row in read(data)] == TEXTS


def grown(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = work()
    return found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def zeros(size, head=b""):
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    return b"".join([packer.compress(head), *(packer.compress(bytes(1 << 20)) for _ in range(size >> 20))]) + packer.flush()


def test_a_frame_that_expands_without_end_takes_no_memory():
    records = crawl(5)
    lies = record(8, b"", says=5).removesuffix(b"\r\n\r\n")
    large = record(9, b"", says=300 << 20).removesuffix(b"\r\n\r\n")
    data = zst(records[:5]) + zeros(300 << 20) + zeros(300 << 20, lies) + zeros(300 << 20, large) + zst(records[5:])
    rows, more = grown(lambda: read(data, max_record_bytes=1 << 20))
    assert [row["text"] for row in rows if row["text"]] == TEXTS
    assert [(row["drop"], row["error"] and row["error"].partition(":")[0]) for row in rows if not row["text"]] == [
        (None, "damaged_record"),
        (None, "damaged_record"),
        ("too_long", None),
    ]
    assert more < 100 << 10  # KiB


def with_dictionary(content):
    return b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


@pytest.mark.parametrize("packed", [True, False])
def test_a_dictionary_larger_than_any_is_refused(packed):
    content = zeros(DICTIONARY * 8) if packed else bytes(DICTIONARY + 1)
    data = with_dictionary(content) + zst(crawl(5))
    rows, more = grown(lambda: read(data))
    assert len(rows) == 1
    assert rows[0]["error"].startswith("bad_dictionary: ")
    assert more < 200 << 10  # KiB


@pytest.mark.parametrize("packing", [*FRAMED, "one_gz"])
def test_errors_are_kinds_and_hold_no_page(packing):
    records = crawl(5)
    records[4] = record(1, page(1, 50_000), says=3)
    data = PACKINGS[packing](records)
    errors = [row["error"] for row in read(data[:-20]) if row["error"]]
    assert errors
    for error in errors:
        kind, _, detail = error.partition(": ")
        assert kind in ("damaged_record", "damaged_compression")
        assert detail and len(error) <= 200


def test_magic_bytes_without_members_cost_little():
    rows = read(gz(crawl(2)) + b"\x1f\x8b\x08" * 100_000 + gz(crawl(1)))
    assert [row["url"][-1] for row in rows if row["text"]] == ["0", "1", "0"]
    assert sum(row["error"] is not None for row in rows) == 1


def test_a_cut_gzip_file_names_the_page_it_was_in():
    data = gzip.compress(record(3, page(3, 90_000)))
    rows = read(data[:-5000])
    assert [(row["url"], row["error"]) for row in rows] == [
        ("http://site.test/3", "damaged_compression: the file ends inside a gzip member")
    ]
