"""One frame of Zstandard (RFC 8878), decoded block by block, so that the output of one step is bounded and its end is known.

Reads bytes through a function that takes exactly so many; yields at most 128 KiB at a time. A library that is given many bytes
at once returns what they expand to, a quarter of a GiB for 8 KiB; and the place where a frame ends can be found without decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x2a\x4d\x18"  # after one byte 0x50 to 0x5f; 0x5d holds the dictionary of a .warc.zst
BLOCK = 128 << 10  # RFC 8878 3.1.1.2.3: no block is larger, before or after
WINDOW = 1 << 31  # what `zstd --long=31` writes
FIELDS = (0, 1, 2, 4)  # bytes of a dictionary's id, by its flag
SIZES = (0, 2, 4, 8)  # bytes of the content's size, by its flag

Take = Callable[[int], bytes]


class BadFrame(ValueError):
    """A frame that breaks the format, whose blocks do not decode, or that lacks its dictionary."""


def skippable(head: bytes) -> bool:
    """Tell whether the first four bytes begin a frame that holds no content (RFC 8878 3.1.2)."""
    return head[1:4] == SKIPPABLE and 0x50 <= head[0] <= 0x5F


def decoded(
    take: Take,
    dictionary: Any = None,  # noqa: ANN401 - zstandard's
    enough: int | None = None,
    window: int = WINDOW,
) -> Iterator[bytes]:
    """Yield the content of the frame that begins here, and stop right behind the frame.

    `take(n)` returns the next n bytes and raises what it will when there are fewer. Once `enough` bytes have come, the blocks
    that are left are stepped over. Memory grows with what is decoded, up to the window that the frame names.

    Raises:
        BadFrame: the frame is damaged, asks for a larger `window`, or the memory for it cannot be had.
    """
    import zstandard

    header, checksum = _header(take)
    decoder = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=window).decompressobj()
    size, last = 0, False
    try:
        decoder.decompress(header)
        while not last:
            head, length, last = _block(take)
            if enough is not None and size >= enough:
                take(length)
                continue
            piece = decoder.decompress(head + take(length))
            size += len(piece)
            yield piece
        end = take(4) if checksum else b""
        if checksum and (enough is None or size < enough) and (piece := decoder.decompress(end)):
            yield piece
    except (zstandard.ZstdError, MemoryError) as error:
        raise BadFrame(f"zstd: {str(error) or 'no memory for its window'}") from error


def _header(take: Take) -> tuple[bytes, bool]:
    """Return the frame's header and whether a checksum ends the frame (RFC 8878 3.1.1.1)."""
    head = take(5)
    if head[:4] != MAGIC:
        raise BadFrame(f"zstd: no frame begins with {head[:4].hex()}")
    flags = head[4]
    single = flags >> 5 & 1
    size = SIZES[flags >> 6] or single
    return head + take((1 - single) + FIELDS[flags & 3] + size), bool(flags & 4)


def _block(take: Take) -> tuple[bytes, int, bool]:
    """Return a block's header, how many bytes follow it, and whether it is the last (RFC 8878 3.1.1.2)."""
    head = take(3)
    value = int.from_bytes(head, "little")
    kind, size = value >> 1 & 3, value >> 3
    if kind == 3 or (kind != 1 and size > BLOCK):
        raise BadFrame(f"zstd: a block of kind {kind} with {size} bytes")
    return head, 1 if kind == 1 else size, bool(value & 1)
