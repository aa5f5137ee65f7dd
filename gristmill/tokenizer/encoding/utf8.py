"""Whether documents are valid UTF-8: compiled, as Arrow's buffers can hold anything.

Reads flat texts; writes nothing.
"""

from __future__ import annotations

import numpy as np

from gristmill.compiling import compiled
from gristmill.tokenizer.encoding.windows import Offsets, Text
from gristmill.tokenizer.intrinsics import address_of, byte_at, bytes_at

_1, _2, _3, _8, _16, _24, _32 = (np.uint64(i) for i in (1, 2, 3, 8, 16, 24, 32))
_80, _C0, _C2, _E0, _ED, _F0, _F4, _F5 = (np.uint64(i) for i in (0x80, 0xC0, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xF5))
_90, _A0 = np.uint64(0x90), np.uint64(0xA0)
_HIGH_BITS = np.uint64(0x8080808080808080)
_0 = np.uint64(0)

U = np.uint64


def check_utf8(text: Text, offsets: Offsets) -> None:
    """Raise ValueError unless each document text[offsets[d]:offsets[d+1]] is valid UTF-8; names document and byte."""
    if (bad := first_damage(text, offsets)) is not None:
        raise ValueError(f"document {bad[0]} is {bad[1]}")


def first_damage(text: Text, offsets: Offsets) -> tuple[int, str] | None:
    """Return the number of the first document that is not valid UTF-8, and what is wrong with it; None where all are."""
    begin, end = int(offsets[0]), int(offsets[-1])
    at = int(first_invalid(address_of(text), np.uint64(begin), np.uint64(end)))
    inner = offsets[(offsets > begin) & (offsets < end)]
    inside = inner[text[inner] & 0xC0 == 0x80]  # a document that begins within a character
    if len(inside):
        at = min(at, int(inside[0]))
    if at < end:
        document = int(np.searchsorted(offsets, at, side="right")) - 1
        return document, (
            f"not valid UTF-8 at its byte {at - int(offsets[document])} (0x{text[at]:02X}); "
            "texts must be valid UTF-8, so decode them with errors='replace' where they are read"
        )
    return None


@compiled
def first_invalid(text: U, at: U, end: U) -> U:
    """Return where the first character of text[at:end] begins that is not valid UTF-8 (Unicode 16, table 3-7), or end.

    `text`: an address.
    """
    while at < end:
        first = byte_at(text, at)
        if first < _80:
            while (
                at + _32 <= end
                and (
                    (bytes_at(text, at) | bytes_at(text, at + _8) | bytes_at(text, at + _16) | bytes_at(text, at + _24))
                    & _HIGH_BITS
                )
                == _0
            ):
                at += _32
            while at < end and byte_at(text, at) < _80:
                at += _1
            continue
        size = _1 + U(first >= _C2) + U(first >= _E0) + U(first >= _F0)
        if size == _1 or first >= _F5 or at + size > end:
            return at
        second = byte_at(text, at + _1)
        low = _A0 if first == _E0 else _90 if first == _F0 else _80
        high = _A0 if first == _ED else _90 if first == _F4 else _C0
        if second < low or second >= high:
            return at
        if size > _2 and byte_at(text, at + _2) & _C0 != _80:
            return at
        if size > _3 and byte_at(text, at + _3) & _C0 != _80:
            return at
        at += size
    return end
