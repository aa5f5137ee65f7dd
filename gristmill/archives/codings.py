"""What servers do to a body on its way, undone: chunks (RFC 9112 7.1), gzip, deflate, br and zstd (RFC 9110 8.4.1, 7932, 8878).

Reads the stored bytes and the codings that two HTTP headers name; returns the bytes of the page, bounded. Archives often keep
the headers of a body that they store decoded, so a coding that the bytes do not have is taken as undone. A body that is cut or
damaged yields what comes before that place.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gristmill.archives import zstd_frames
from gristmill.archives.media import begins_page, is_binary

CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]{0,4096})?\r?\n")
LINE_END = re.compile(rb"\r?\n")
TRAILERS = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\n]*\n)*(?:\r?\n|\Z)")
GZIP, ZLIB_METHOD = b"\x1f\x8b", 8
FEED = 64 << 10
GZIP_MEMBERS = 1000  # of one body; each costs a decoder
LAYERS = 8  # codings that are undone; servers send at most two or three
BODY_WINDOW = 1 << 27  # bytes; what zstd's own tools accept. RFC 9659 allows browsers 8 MiB
NAMES = {"x-gzip": "gzip", "x-deflate": "deflate", "brotli": "br"}


class Broken(ValueError):
    """A coding that ends or breaks too soon."""


@dataclass(slots=True)
class Payload:
    """A body without its codings, at most one byte over the limit asked for; `cut` names the coding that ended too soon."""

    body: bytes
    cut: str | None = None
    error: str | None = None


def undo(body: bytes, transfer: list[str], content: list[str], limit: int) -> Payload:
    """Return the body without the codings that the lines of `Transfer-Encoding` and `Content-Encoding` name.

    The last named was the last to be applied. Names that are no coding are passed over. `error` (`kind: detail`) says which
    header's coding nothing could be read of.
    """
    named = [(name, "Content-Encoding") for name in _names(content)] + [(name, "Transfer-Encoding") for name in _names(transfer)]
    if len(named) > LAYERS:
        return Payload(
            b"", error=f"damaged_body: {len(named)} content and transfer codings are named; at most {LAYERS} are undone"
        )
    payload = Payload(body)
    for name, header in reversed(named):
        result, broken = _one(payload.body, name, limit)
        if broken is not None and not result and payload.body:
            return Payload(b"", error=f"damaged_body: {header} is {name}, but nothing can be decoded: {broken}")
        payload.body = result
        payload.cut = payload.cut or (name if broken is not None else None)
    return payload


def _names(lines: list[str]) -> list[str]:
    """Return the known codings in header lines, in the order they were applied."""
    names = [part.partition(";")[0].strip(" \t\"'").lower() for line in lines for part in line.split(",")]
    return [name for name in (NAMES.get(name, name) for name in names) if name == "chunked" or name in CODINGS]


def _one(body: bytes, name: str, limit: int) -> tuple[bytes, Broken | None]:
    """Undo one coding; a body that does not have it stays as it is."""
    if name == "chunked":
        return _unchunked(body, limit)
    if body.startswith(GZIP):
        name = "gzip"
    elif body.startswith(zstd_frames.MAGIC):
        name = "zstd"
    elif name == "gzip" and _is_zlib(body):
        name = "deflate"  # the two names are often mixed up
    elif name in ("gzip", "zstd"):
        return body, None
    output = bytearray()
    try:
        for piece in CODINGS[name](body, limit):
            output += piece[: limit + 1 - len(output)]
            if len(output) > limit:
                break
    except Broken as error:
        if not is_binary(body) or (not output and begins_page(body)):
            return body, None  # compressed bytes hold control characters, text does not
        return bytes(output), error
    return bytes(output), None


def _unchunked(body: bytes, limit: int) -> tuple[bytes, Broken | None]:
    """Return what the chunks hold, and what is wrong with them: before that place, and behind it what is stored."""
    parts: list[bytes] = []
    size = at = 0
    while size <= limit:
        line = CHUNK.match(body, at)
        length = int(line[1], 16) if line else 0
        if line is None or (length == 0 and not parts and not TRAILERS.fullmatch(body, line.end())):
            if not parts:
                return body, None
            return b"".join([*parts, body[at:]])[: limit + 1], Broken("a chunk's size is missing")
        if length == 0:
            return b"".join(parts), None
        at = line.end()
        parts.append(body[at : at + min(length, limit + 1 - size)])
        size += len(parts[-1])
        at += length
        if at > len(body):
            return b"".join(parts), Broken("the body ends inside a chunk")
        after = LINE_END.match(body, at)
        if after is None and len(parts) == 1 and at < len(body):
            return body, None  # a text whose first line is a number
        at = after.end() if after else at
        if at == len(body):
            return b"".join(parts), Broken("the last chunk is missing")
    return b"".join(parts), None


def _is_zlib(body: bytes) -> bool:
    """Tell whether a zlib header begins the body (RFC 1950 2.2)."""
    return len(body) > 1 and body[0] & 15 == ZLIB_METHOD and int.from_bytes(body[:2], "big") % 31 == 0


def _gzip(body: bytes, limit: int) -> Iterator[bytes]:
    """Yield the content of all gzip members; what follows them and is none is left out, as browsers do."""
    at = end = 0
    for _ in range(GZIP_MEMBERS):
        for inflated in _inflated(zlib.decompressobj(wbits=31), body, at, limit):
            yield inflated[0]
            end = inflated[1]
        at = end
        if body[at : at + 2] != GZIP:
            return
    raise Broken(f"more than {GZIP_MEMBERS} gzip members")


def _deflate(body: bytes, limit: int) -> Iterator[bytes]:
    """Yield the content of a zlib stream, or of one without its header, which servers send too."""
    if _is_zlib(body):
        first = True
        try:
            for piece, _ in _inflated(zlib.decompressobj(wbits=15), body, 0, limit):
                first = False
                yield piece
            return
        except Broken:
            if not first:
                raise
    for piece, _ in _inflated(zlib.decompressobj(wbits=-15), body, 0, limit):
        yield piece


def _inflated(decoder: zlib._Decompress, body: bytes, at: int, limit: int) -> Iterator[tuple[bytes, int]]:
    """Yield (piece, place behind what was read); a piece is at most a byte longer than the limit."""
    step = FEED
    while not decoder.eof:
        feed = body[at : at + step]
        if not feed:
            raise Broken("the body ends before the compressed data does")
        saved = decoder.copy()
        try:
            piece = decoder.decompress(feed, limit + 1)
        except zlib.error as error:
            if step == 1:
                raise Broken(str(error)) from error
            decoder, step = saved, 1  # an error takes what the same call has decoded with it
            continue
        at += len(feed) - len(decoder.unused_data if decoder.eof else decoder.unconsumed_tail)
        yield piece, at


def _br(body: bytes, limit: int) -> Iterator[bytes]:
    import brotli

    decoder, at, step, known = brotli.Decompressor(), 0, FEED, 0
    size = 0  # of what came; the first `known` bytes came before
    while not decoder.is_finished():
        feed = body[at : at + step] if decoder.can_accept_more_data() else b""
        try:
            piece = decoder.process(feed, output_buffer_limit=min(limit + 1, 1 << 20))
        except brotli.error as error:
            if step == 16:
                raise Broken(str(error)) from error
            # An error takes what the same call has decoded with it, and a decoder cannot be copied.
            decoder, at, step, known, size = brotli.Decompressor(), 0, 16, size, 0
            continue
        if not piece and not feed and not decoder.is_finished():
            raise Broken("the body ends before the compressed data does")
        at += len(feed)
        size += len(piece)
        yield piece[max(len(piece) - max(size - known, 0), 0) :]


def _zstd(body: bytes, limit: int) -> Iterator[bytes]:
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        if at + count > len(body):
            raise Broken("the body ends before the compressed data does")
        at += count
        return body[at - count : at]

    while at < len(body):
        if zstd_frames.skippable(body[at : at + 4]):
            at += 8 + int.from_bytes(body[at + 4 : at + 8], "little")
        elif at and body[at : at + 4] != zstd_frames.MAGIC:
            return
        else:
            try:
                yield from zstd_frames.decoded(take, window=BODY_WINDOW)
            except zstd_frames.BadFrame as error:
                raise Broken(str(error)) from error


CODINGS: dict[str, Callable[[bytes, int], Iterator[bytes]]] = {
    "gzip": _gzip,
    "deflate": _deflate,
    "br": _br,
    "zstd": _zstd,
}
