"""Every compression that is read, told by content alone; what is of another format, and what is damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from gristmill.archives.members import Corrupt
from gristmill.archives.unpacked import ahead, unpacked
from stages.source.jsonl import JsonlSource
from stages.source.text import TextSource
from tests.gristmill.archives.archives import memory, scan

TEXT = b"".join(f"line {n} {n**9:x}\n".encode() for n in range(20_000))


def long_window(data: bytes) -> bytes:
    """Return what `zstd --ultra --long=31` makes: a frame with a window of 2 GiB."""
    settings = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    return packer.compress(data) + packer.flush()


PACKS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "zstd --long=31": long_window,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("pack", PACKS)
def test_content_is_told_by_its_first_bytes(pack: str) -> None:
    assert b"".join(unpacked(io.BytesIO(PACKS[pack](TEXT)))) == TEXT


@pytest.mark.parametrize("pack", PACKS)
def test_streams_behind_each_other_are_one(pack: str) -> None:
    parts = [TEXT[:1000], TEXT[1000:90_000], TEXT[90_000:]]
    between = b"\0" * 8 if pack == "xz" else b""
    assert b"".join(unpacked(io.BytesIO(between.join(map(PACKS[pack], parts)) + between))) == TEXT


@pytest.mark.parametrize("pack", PACKS)
def test_nothing_packed_is_nothing(pack: str) -> None:
    assert b"".join(unpacked(io.BytesIO(PACKS[pack](b"")))) == b""


@pytest.mark.parametrize("pack", ["bzip2", "xz"])
@pytest.mark.parametrize("how", ["cut", "flipped", "noise behind"])
def test_damage_ends_the_content_with_a_reason(pack: str, how: str) -> None:
    data = bytearray(PACKS[pack](TEXT))
    if how == "cut":
        del data[-10:]
    elif how == "flipped":
        data[len(data) // 2] ^= 0x55
    else:
        data += b"no stream"
    found = bytearray()
    with pytest.raises(Corrupt, match=r"^damaged_compression: "):
        for piece in unpacked(io.BytesIO(bytes(data))):
            found += piece
    assert TEXT.startswith(bytes(found)) and (how != "noise behind" or bytes(found) == TEXT)


@pytest.mark.parametrize("pack", ["bzip2", "xz"])
def test_much_from_little_comes_in_small_pieces(pack: str) -> None:
    data = PACKS[pack](b"\0" * (30 << 20))
    assert len(data) < 30_000
    sizes = [len(piece) for piece in unpacked(io.BytesIO(data))]
    assert sum(sizes) == 30 << 20 and max(sizes) <= 2 << 20


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.jsonl", '{"text": "a"}\n')
    return out.getvalue()


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.jsonl"))
    return out.getvalue()


def _parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"]}), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("make", "what"),
    [(_zip, "a zip archive"), (_tar, "a tar archive"), (_parquet, "a Parquet table"), (lambda: b"\x04\x22\x4d\x18...", "lz4")],
    ids=["zip", "tar", "parquet", "lz4"],
)
def test_other_formats_are_called_by_their_name(make, what: str) -> None:
    for source in (JsonlSource(paths=""), TextSource(paths="")):
        (row,) = scan(source, memory(make())).to_pylist()
        assert row["error"].startswith("foreign_format: the file is") and what in row["error"]


@pytest.mark.parametrize("pack", [p for p in PACKS if p != "plain"])
def test_what_is_packed_is_looked_at_too(pack: str) -> None:
    for content, what in (
        (_tar(), "a tar archive"),
        (_zip(), "a zip archive"),
        (bz2.compress(TEXT), "again"),
        (gzip.compress(TEXT), "again"),
    ):
        with pytest.raises(Corrupt, match=f"^foreign_format: what is packed in the file is .*{what}"):
            list(unpacked(io.BytesIO(PACKS[pack](content))))


def test_looking_ahead_keeps_what_is_behind_and_the_error() -> None:
    def failing():
        yield b"ab"
        raise Corrupt("damaged_compression: here")

    assert ahead(iter([b"ab", b"cd", b"ef"]), 3)[0] == b"abcd"
    head, rest = ahead(failing(), 10)
    assert head == b"ab"
    with pytest.raises(Corrupt, match="here"):
        next(rest)


def test_text_that_only_begins_like_bzip2_is_text() -> None:
    assert [row["text"] for row in scan(TextSource(paths=""), memory(b"BZh9 not one\n")).to_pylist()] == ["BZh9 not one"]
