"""Bodies as archives store them: encoded, half decoded, decoded with the headers left, cut, damaged, and made to expand."""

import gzip
import resource
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gristmill.archives.codings import LAYERS, undo
from stages.source.warc import WarcSource
from tests.gristmill.archives.archives import gz, memory, record, scan
from tests.random_examples import examples

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
TEXT = "<p>grüße, viele</p>\n" * 30
BODY = TEXT.encode()
LONG = "".join(f"<p>line {n} of {n * n * n % 7919} and {n**9:x}</p>\n" for n in range(3000)).encode()


def raw(body):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def frames(body):
    """Several frames of zstd, with one that holds no content between them."""
    skipped = b"\x51\x2a\x4d\x18\x03\x00\x00\x00abc"
    return zstandard.compress(body[:50]) + skipped + zstandard.ZstdCompressor(write_checksum=True).compress(body[50:])


def chunks(body, *sizes, line=b"%x\r\n", end=b"0\r\n\r\n", after=b"\r\n"):
    parts, at = [], 0
    for size in [*sizes, len(body)]:
        part, at = body[at : at + size], at + size
        parts.append(line % len(part) + part + after if part else b"")
    return b"".join(parts) + end


PACK = {
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "chunked": lambda body: chunks(body, 17, 90),
}


def one(headers, body, **options):
    lines = "".join(f"{header}\r\n" for header in headers).encode()
    rows = scan(WarcSource(paths="", **options), memory(gz([record(0, HEAD + lines + b"\r\n" + body)]))).to_pylist()
    assert len(rows) == 1
    return rows[0]


CE, TE = "Content-Encoding: ", "Transfer-Encoding: "
UNDONE = {
    "gzip": ([CE + "gzip"], PACK["gzip"](BODY)),
    "in capitals": (["content-encoding:GZIP"], PACK["gzip"](BODY)),
    "x-gzip": ([CE + "x-gzip"], PACK["gzip"](BODY)),
    "two members": ([CE + "gzip"], PACK["gzip"](BODY[:99]) + PACK["gzip"](BODY[99:])),
    "zeros behind it": ([CE + "gzip"], PACK["gzip"](BODY) + bytes(40)),
    "deflate": ([CE + "deflate"], PACK["deflate"](BODY)),
    "deflate without its header": ([CE + "deflate"], raw(BODY)),
    "deflate called gzip": ([CE + "gzip"], PACK["deflate"](BODY)),
    "gzip called deflate": ([CE + "deflate"], PACK["gzip"](BODY)),
    "gzip called br": ([CE + "br"], PACK["gzip"](BODY)),
    "br": ([CE + "br"], PACK["br"](BODY)),
    "zstd": ([CE + "zstd"], PACK["zstd"](BODY)),
    "frames": ([CE + "zstd"], frames(BODY)),
    "identity": ([CE + "identity"], BODY),
    "a charset": ([CE + "utf-8"], BODY),
    "a language": ([CE + "de, none"], BODY),
    "unknown beside known": ([CE + "quantum, gzip"], PACK["gzip"](BODY)),
    "a list": ([CE + "deflate, br"], PACK["br"](PACK["deflate"](BODY))),
    "two lines": ([CE + "deflate", CE + "br"], PACK["br"](PACK["deflate"](BODY))),
    "named twice, done once": ([CE + "gzip", CE + "gzip"], PACK["gzip"](BODY)),
    "chunked": ([TE + "chunked"], chunks(BODY, 17, 90)),
    "chunked in capitals": ([TE + "Chunked"], chunks(BODY, 17, line=b"%X\r\n")),
    "extensions": ([TE + "chunked"], chunks(BODY, 9, line=b'%x;name="a;b" ;x\r\n')),
    "padded sizes": ([TE + "chunked"], chunks(BODY, 9, line=b"%x   \r\n")),
    "leading zeros": ([TE + "chunked"], chunks(BODY, 9, line=b"%08x\r\n")),
    "bare line feeds": ([TE + "chunked"], chunks(BODY, 9, line=b"%x\n", after=b"\n", end=b"0\n\n")),
    "trailers": ([TE + "chunked"], chunks(BODY, 9, end=b"0\r\nX-Sum: 1\r\nExpires: now\r\n\r\n")),
    "no empty line at the end": ([TE + "chunked"], chunks(BODY, end=b"0\r\n")),
    "chunked as content": ([CE + "chunked"], chunks(BODY, 17)),
    "gzip in chunks": ([TE + "chunked", CE + "gzip"], chunks(PACK["gzip"](BODY), 11)),
    "gzip as transfer": ([TE + "gzip, chunked"], chunks(PACK["gzip"](BODY), 11)),
    "chunks left": ([TE + "chunked"], BODY),
    "gzip left": ([CE + "gzip"], BODY),
    "deflate left": ([CE + "deflate"], BODY),
    "br left": ([CE + "br"], BODY),
    "zstd left": ([CE + "zstd"], BODY),
    "both left": ([TE + "chunked", CE + "gzip"], BODY),
    "chunks undone, gzip not": ([TE + "chunked", CE + "gzip"], PACK["gzip"](BODY)),
    "gzip undone, chunks not": ([TE + "chunked", CE + "gzip"], chunks(BODY, 30)),
    "renamed by the crawler": (["X-Crawl-Content-Encoding: gzip"], BODY),
}


@pytest.mark.parametrize("case", UNDONE)
def test_codings_are_undone_where_the_bytes_have_them(case):
    row = one(*UNDONE[case])
    assert (row["text"], row["error"], row["drop"], row["truncated"]) == (TEXT, None, None, None)


@pytest.mark.parametrize("body", ["12\r\nmonths have passed since then", "0\r\nis a number", "5\r\n golden rings", "hello\r\n"])
def test_plain_text_that_begins_like_a_chunk_stays_whole(body):
    found = undo(body.encode(), ["chunked"], [], 10_000)
    assert (found.body.decode(), found.cut, found.error) == (body, None, None)


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "chunked"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_cut_body_gives_what_there_is_and_says_so(name, part):
    packed = PACK[name](LONG)
    header = (TE if name == "chunked" else CE) + name
    row = one([header], packed[: int(len(packed) * part)])
    assert LONG.decode().startswith(row["text"])
    assert len(row["text"]) > len(LONG) * (part - 0.3)
    assert (row["error"], row["drop"], row["truncated"]) == (None, None, name)


def test_a_cut_zstd_body_gives_its_whole_blocks():
    body = "".join(f"{n**7 % 1000003} " for n in range(90_000)).encode()
    packed = PACK["zstd"](body)
    row = one([CE + "zstd"], packed[: len(packed) * 2 // 3])
    assert body.decode().startswith(row["text"])
    assert len(row["text"]) >= 128 << 10
    assert (row["error"], row["truncated"]) == (None, "zstd")


@pytest.mark.parametrize("name", ["gzip", "deflate", "br"])
def test_a_damaged_body_gives_what_comes_before_the_damage(name):
    packed = bytearray(PACK[name](LONG))
    for place in range(len(packed) // 2, len(packed) // 2 + 300):
        packed[place] ^= 0xA5
    row = one([CE + name], bytes(packed))
    common = sum(1 for ours, theirs in zip(row["text"], LONG.decode(), strict=False) if ours == theirs)
    assert common > len(LONG) // 4
    assert (row["error"], row["truncated"]) == (None, name)


def test_a_wrong_checksum_costs_nothing():
    packed = bytearray(PACK["gzip"](BODY))
    packed[-6] ^= 1
    row = one([CE + "gzip"], bytes(packed))
    assert (row["text"], row["truncated"]) == (TEXT, "gzip")


def test_chunks_that_break_give_the_rest_as_it_is():
    body = chunks(BODY[:100], 40, end=b"") + b"zz\r\n" + BODY[100:]
    row = one([TE + "chunked"], body)
    assert row["text"].encode() == BODY[:100] + b"zz\r\n" + BODY[100:]
    assert row["truncated"] == "chunked"


@pytest.mark.parametrize(
    ("headers", "body", "names"),
    [
        ([CE + "gzip"], PACK["gzip"](BODY)[:8], "Content-Encoding is gzip"),
        ([CE + "br"], b"\xff\x01" * 50, "Content-Encoding is br"),
        ([TE + "chunked", CE + "br"], chunks(b"\xff\x01" * 50, 7), "Content-Encoding is br"),
        ([TE + "gzip, chunked"], chunks(PACK["gzip"](BODY)[:9]), "Transfer-Encoding is gzip"),
        ([CE + "zstd"], PACK["zstd"](BODY)[:20], "Content-Encoding is zstd"),
    ],
    ids=["gzip", "br", "br in chunks", "gzip as transfer", "zstd"],
)
def test_of_what_nothing_can_be_decoded_the_right_header_is_named(headers, body, names):
    row = one(headers, body)
    assert row["error"].startswith(f"damaged_body: {names}, but ")
    assert (row["text"], row["drop"], row["url"]) == ("", None, "http://site.test/0")


def test_more_codings_than_any_server_applies_are_refused():
    row = one([CE + "gzip, " * LAYERS + "gzip"], PACK["gzip"](BODY))
    assert row["error"] == f"damaged_body: {LAYERS + 1} content and transfer codings are named; at most {LAYERS} are undone"


@pytest.mark.parametrize("said", ["length", "time", "disconnect", "Length", "because"])
def test_what_the_crawler_says_of_truncation_is_kept(said):
    data = record(0, HEAD + b"\r\n" + BODY).replace(b"WARC-Type", b"WARC-Truncated: " + said.encode() + b"\r\nWARC-Type", 1)
    row = scan(WarcSource(paths=""), memory(gz([data]))).to_pylist()[0]
    assert (row["text"], row["truncated"]) == (TEXT, said.lower() if said != "because" else "unspecified")


def bomb(name, size):
    """Return `size` bytes of one letter under a coding, made without holding them."""
    step = b"a" * (1 << 20)
    packers = {
        "gzip": lambda: zlib.compressobj(1, zlib.DEFLATED, 31),
        "deflate": lambda: zlib.compressobj(1),
        "zstd": lambda: zstandard.ZstdCompressor(level=1).compressobj(),
        "br": lambda: brotli.Compressor(quality=2),
    }
    packer = packers[name]()
    give = packer.process if name == "br" else packer.compress
    parts = [give(step) for _ in range(size >> 20)]
    return b"".join(parts) + (packer.finish() if name == "br" else packer.flush())


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd", "br"])
def test_a_body_that_expands_without_end_is_too_long_and_takes_no_memory(name):
    packed = bomb(name, 200 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = one([CE + name], packed, max_record_bytes=4 << 20)
    nested = one([CE + f"{name}, gzip"], gzip.compress(packed, mtime=0), max_record_bytes=4 << 20)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (row["drop"], row["text"], row["error"]) == ("too_long", "", None)
    assert (nested["drop"], nested["error"]) == ("too_long", None)
    assert grown < 80 << 10  # KiB


@given(
    st.binary(max_size=300),
    st.lists(st.sampled_from([*PACK, "x-gzip", "quantum"]), max_size=3),
    st.lists(st.sampled_from([*PACK, "identity"]), max_size=2),
    st.integers(1, 500),
)
@examples(300)
def test_any_bytes_give_a_bounded_body_or_an_error(body, content, transfer, limit):
    found = undo(body, transfer, content, limit)
    assert found.error is None or found.error.startswith("damaged_body: ")
    assert len(found.body) <= max(limit + 1, len(body))


@given(st.text(min_size=1, max_size=400), st.lists(st.sampled_from(sorted(PACK)), max_size=3))
@examples(150)
def test_what_was_applied_is_undone(text, names):
    body = packed = b"<p>" + text.encode() + b"</p>"
    for name in names:
        packed = PACK[name](packed)
    assert undo(packed, [], names, 10_000).body == body
