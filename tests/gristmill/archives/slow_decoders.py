"""The multi-byte decoders of the WHATWG Encoding standard, step by step and a byte at a time, to compare the fast ones with.

Each is a generator of decisions as in the standard: for a byte (or None at the end) it says a text, U+FFFD, or that the byte must
be read again. What stands at a pointer of an index is asked of `look(index, pointer)`.
"""

from __future__ import annotations

from collections.abc import Callable

Look = Callable[[str, int], "str | None"]
BAD = "\ufffd"


class Bytes:
    """A stream that bytes can be put back in front of."""

    def __init__(self, data: bytes):
        self.left = list(reversed(data))

    def next(self) -> int | None:
        return self.left.pop() if self.left else None

    def back(self, *values: int | None) -> None:
        """Put values back; the first is read first."""
        self.left.extend(value for value in reversed(values) if value is not None)


def _pairs(data: bytes, pointer: Callable[[int, int], int | None], find, single, leads) -> str:
    """Read an encoding of ASCII, single bytes and pairs (GBK's pairs, Big5, EUC-KR, Shift_JIS)."""
    stream, out = Bytes(data), []
    while (byte := stream.next()) is not None:
        if byte < 0x80:
            out.append(chr(byte))
        elif byte in leads:
            trail = stream.next()
            at = pointer(byte, trail) if trail is not None else None
            text = find(at) if at is not None else None
            if text is None:
                stream.back(trail if trail is not None and trail < 0x80 else None)
            out.append(text or BAD)
        else:
            out.append(single(byte) or BAD)
    return "".join(out)


def big5(data: bytes, look: Look) -> str:
    def pointer(lead: int, trail: int) -> int | None:
        offset = 0x40 if trail < 0x7F else 0x62
        return (lead - 0x81) * 157 + trail - offset if 0x40 <= trail <= 0x7E or 0xA1 <= trail <= 0xFE else None

    two = {1133: "\u00ca\u0304", 1135: "\u00ca\u030c", 1164: "\u00ea\u0304", 1166: "\u00ea\u030c"}
    return _pairs(data, pointer, lambda at: two.get(at) or look("big5", at), lambda byte: None, range(0x81, 0xFF))


def euc_kr(data: bytes, look: Look) -> str:
    def pointer(lead: int, trail: int) -> int | None:
        return (lead - 0x81) * 190 + trail - 0x41 if 0x41 <= trail <= 0xFE else None

    return _pairs(data, pointer, lambda at: look("euc-kr", at), lambda byte: None, range(0x81, 0xFF))


def shift_jis(data: bytes, look: Look) -> str:
    def pointer(lead: int, trail: int) -> int | None:
        offset, above = 0x40 if trail < 0x7F else 0x41, 0x81 if lead < 0xA0 else 0xC1
        return (lead - above) * 188 + trail - offset if 0x40 <= trail <= 0x7E or 0x80 <= trail <= 0xFC else None

    def find(at: int) -> str | None:
        return chr(0xE000 - 8836 + at) if 8836 <= at <= 10715 else look("jis0208", at)

    def single(byte: int) -> str | None:
        return "\x80" if byte == 0x80 else chr(0xFF61 - 0xA1 + byte) if 0xA1 <= byte <= 0xDF else None

    return _pairs(data, pointer, find, single, {*range(0x81, 0xA0), *range(0xE0, 0xFD)})


def euc_jp(data: bytes, look: Look) -> str:
    stream, out, lead, third = Bytes(data), [], 0, False
    while (byte := stream.next()) is not None:
        if lead == 0x8E and 0xA1 <= byte <= 0xDF:
            lead = 0
            out.append(chr(0xFF61 - 0xA1 + byte))
        elif lead == 0x8F and 0xA1 <= byte <= 0xFE:
            third, lead = True, byte
        elif lead:
            text = None
            if 0xA1 <= lead <= 0xFE and 0xA1 <= byte <= 0xFE:
                text = look("jis0212" if third else "jis0208", (lead - 0xA1) * 94 + byte - 0xA1)
            lead, third = 0, False
            if text is None and byte < 0x80:
                stream.back(byte)
            out.append(text or BAD)
        elif byte < 0x80:
            out.append(chr(byte))
        elif byte in (0x8E, 0x8F) or 0xA1 <= byte <= 0xFE:
            lead = byte
        else:
            out.append(BAD)
    return "".join(out) + (BAD if lead else "")


def gb18030(data: bytes, look: Look) -> str:
    stream, out = Bytes(data), []
    while (first := stream.next()) is not None:
        if first < 0x80 or first in (0x80, 0xFF):
            out.append(chr(first) if first < 0x80 else "\u20ac" if first == 0x80 else BAD)
            continue
        second = stream.next()
        if second is None:
            out.append(BAD)
        elif 0x30 <= second <= 0x39:
            out.append(_four(stream, first, second, look))
        else:
            text = None
            if 0x40 <= second <= 0x7E or 0x80 <= second <= 0xFE:
                text = look("gb18030", (first - 0x81) * 190 + second - (0x40 if second < 0x7F else 0x41))
            if text is None and second < 0x80:
                stream.back(second)
            out.append(text or BAD)
    return "".join(out)


def _four(stream: Bytes, first: int, second: int, look: Look) -> str:
    third = stream.next()
    if third is None:
        return BAD
    if not 0x81 <= third <= 0xFE:
        stream.back(second, third)
        return BAD
    fourth = stream.next()
    if fourth is None:
        return BAD
    if not 0x30 <= fourth <= 0x39:
        stream.back(second, third, fourth)
        return BAD
    at = (first - 0x81) * 12600 + (second - 0x30) * 1260 + (third - 0x81) * 10 + fourth - 0x30
    return look("gb18030-ranges", at) or BAD


def iso_2022_jp(data: bytes, look: Look) -> str:
    """The standard's states; `state` is where the output goes on after an escape, `trail` the lead byte of a pair."""
    escapes = {b"(B": "ascii", b"(J": "roman", b"(I": "kana", b"$@": "pair", b"$B": "pair"}
    stream, out, state, printed = Bytes(data), [], "ascii", False
    while (byte := stream.next()) is not None:
        if byte == 0x1B:
            lead, trail = stream.next(), None
            if lead in (0x24, 0x28):
                trail = stream.next()
                target = escapes.get(bytes((lead, trail))) if trail is not None else None
                if target is not None:
                    state, before, printed = target, printed, True
                    if before:
                        out.append(BAD)
                    continue
            stream.back(lead, trail)
            out.append(BAD)
            printed = False
        elif state == "pair":
            printed = False
            if not 0x21 <= byte <= 0x7E:
                out.append(BAD)
                continue
            trail = stream.next()
            if trail == 0x1B:
                stream.back(trail)
                out.append(BAD)
            elif trail is not None and 0x21 <= trail <= 0x7E:
                out.append(look("jis0208", (byte - 0x21) * 94 + trail - 0x21) or BAD)
            else:
                out.append(BAD)
        else:
            printed = False
            out.append(_single_2022(state, byte))
    return "".join(out)


def _single_2022(state: str, byte: int) -> str:
    if state == "kana":
        return chr(0xFF61 - 0x21 + byte) if 0x21 <= byte <= 0x5F else BAD
    if byte >= 0x80 or byte in (0x0E, 0x0F):
        return BAD
    return {0x5C: "\u00a5", 0x7E: "\u203e"}.get(byte, chr(byte)) if state == "roman" else chr(byte)


def utf_8(data: bytes, look: Look) -> str:
    stream, out = Bytes(data), []
    while (byte := stream.next()) is not None:
        if byte < 0x80:
            out.append(chr(byte))
            continue
        needed = 1 if 0xC2 <= byte <= 0xDF else 2 if 0xE0 <= byte <= 0xEF else 3 if 0xF0 <= byte <= 0xF4 else 0
        low, high = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(byte, (0x80, 0xBF))
        point = byte & (0x1F, 0x1F, 0xF, 0x7)[needed]
        text = None if needed else BAD
        while text is None and needed:
            more = stream.next()
            if more is None or not low <= more <= high:
                stream.back(more)
                text = BAD
            else:
                low, high, needed, point = 0x80, 0xBF, needed - 1, point << 6 | more & 0x3F
        out.append(text or chr(point))
    return "".join(out)


SLOW = {
    "big5": big5,
    "euc-kr": euc_kr,
    "shift_jis": shift_jis,
    "euc-jp": euc_jp,
    "gbk": gb18030,
    "gb18030": gb18030,
    "iso-2022-jp": iso_2022_jp,
    "utf-8": utf_8,
}
