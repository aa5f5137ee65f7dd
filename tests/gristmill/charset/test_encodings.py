"""Bytes to text in each encoding of the WHATWG standard: every code point of its indexes, every error, every label."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.charset.encodings import named, read
from tests.gristmill.archives.slow_decoders import SLOW
from tests.random_examples import examples

SINGLE = (
    *("ibm866", "koi8-r", "koi8-u", "macintosh", "x-mac-cyrillic", "windows-874", "iso-8859-8-i", "x-user-defined"),
    *(f"iso-8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
    *(f"windows-125{part}" for part in range(9)),
)


def every(name: str) -> Iterator[bytes]:
    """Yield all byte sequences of an encoding that its index could have a character for, and many that it has none for."""
    if name == "iso-2022-jp":
        yield from (b"\x1b$B" + bytes((lead, trail)) for lead in range(0x20, 0x80) for trail in range(0x20, 0x80))
        yield from (b"\x1b(" + kind + bytes((byte,)) for kind in (b"I", b"J", b"B") for byte in range(256))
        return
    yield from (bytes((lead, trail)) for lead in range(0x80, 0x100) for trail in range(0x30, 0x100))
    if name == "euc-jp":
        yield from (bytes((0x8F, lead, trail)) for lead in range(0xA0, 0x100) for trail in range(0xA0, 0x100))
    if name == "gb18030":
        for at in (*range(39_500), *range(188_990, 190_000), *range(190_000, 1_237_700, 997)):
            yield bytes((0x81 + at // 12600, 0x30 + at // 1260 % 10, 0x81 + at // 10 % 126, 0x30 + at % 10))


# sha256, first 16 digits, of what the standard's decoder says for all of `every`, a line each, computed with its own indexes
# (github.com/whatwg/encoding, indexes.json at a985b62); for the single-byte encodings of bytes 0 to 255 as one text.
STANDARD = {
    "big5": "0c19b0223e03ac29",
    "euc-kr": "fda2e345bdba778d",
    "shift_jis": "9507181c57622543",
    "euc-jp": "0aa433964a0a4382",
    "gbk": "753c3d6f7f0770f8",
    "gb18030": "4e08c767290ca48f",
    "iso-2022-jp": "830f92f9d585a0fc",
    "ibm866": "3c8cc5cb485f93d2",
    "koi8-r": "fb0243455e64ef70",
    "koi8-u": "896c218aaf12ca1b",
    "macintosh": "54112bce885d7b1a",
    "x-mac-cyrillic": "784db55e1c90195e",
    "windows-874": "6a2c7940c3d68216",
    "iso-8859-8-i": "b43535e7aaeb7bcf",
    "x-user-defined": "fb4341fe90799717",
    "iso-8859-2": "a5871b0f978b840b",
    "iso-8859-3": "e83895f2b7d7b82b",
    "iso-8859-4": "449076e20ebf45eb",
    "iso-8859-5": "9f31ddc0f7444afa",
    "iso-8859-6": "beba4e6cf97dce83",
    "iso-8859-7": "71069977a6798ab7",
    "iso-8859-8": "b43535e7aaeb7bcf",
    "iso-8859-10": "282514fbd01219c4",
    "iso-8859-13": "4426f6d2f1b025cd",
    "iso-8859-14": "f03afb7e01e66cac",
    "iso-8859-15": "9b58b26dbd8fbff2",
    "iso-8859-16": "2de1faef4dc524c9",
    "windows-1250": "03772ed2e875bd12",
    "windows-1251": "b16600cf4e6d1a2d",
    "windows-1252": "cc916e51644a12e8",
    "windows-1253": "e4570135cbc6e3d5",
    "windows-1254": "4a8e99647c3e28e6",
    "windows-1255": "870c5c5e687fabcd",
    "windows-1256": "6f6e8626197b1b6b",
    "windows-1257": "d19a4e888879e36a",
    "windows-1258": "e79b48db126bc71d",
}


def whole(name: str) -> str:
    if name in SINGLE:
        return hashlib.sha256(read(name, bytes(range(256))).encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for data in every(name):
        digest.update(read(name, data).encode() + b"\n")
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("name", STANDARD)
def test_every_code_point_is_the_standards(name):
    assert whole(name) == STANDARD[name]


@cache
def at_pointer(index: str, at: int) -> str | None:
    """What stands at a pointer, as the decoders that `test_every_code_point_is_the_standards` compared say one by one."""
    if index == "gb18030-ranges":
        data, name = bytes((0x81 + at // 12600, 0x30 + at // 1260 % 10, 0x81 + at // 10 % 126, 0x30 + at % 10)), "gb18030"
    elif index in ("jis0208", "jis0212") and at < 94 * 94:
        data, name = bytes((0xA1 + at // 94, 0xA1 + at % 94)), "euc-jp"
        data = b"\x8f" + data if index == "jis0212" else data
    elif index == "jis0208":
        lead, trail = divmod(at, 188)
        data, name = bytes((lead + (0x81 if lead < 0x1F else 0xC1), trail + (0x40 if trail < 0x3F else 0x41))), "shift_jis"
    else:
        width, low, gap = {"big5": (157, 0x3F, 0x62), "euc-kr": (190, 190, 0x41), "gb18030": (190, 0x3F, 0x41)}[index]
        lead, trail = divmod(at, width)
        first = 0x41 if index == "euc-kr" else 0x40
        data, name = bytes((0x81 + lead, trail + (first if trail < low else gap))), index
    text = read(name, data)
    return None if "\ufffd" in text else text


# Bytes that mean something in the decoders' states, so that most of what is tried is a near miss.
NOTABLE = bytes.fromhex("000e0f1b20212224282f30394041424a495c5e5f7e7f808182848e8f9fa0a1a4b0c1c2d8dfe0edf0f4f5fafcfdfeff")


@pytest.mark.parametrize("name", SLOW)
@given(data=st.lists(st.sampled_from(NOTABLE) | st.integers(0, 255), max_size=24).map(bytes))
@examples(150)
def test_errors_take_as_many_bytes_as_in_the_standard(name, data):
    assert read(name, data) == SLOW[name](data, at_pointer)


@given(st.lists(st.sampled_from([b"\x1b$B", b"\x1b(B", b"\x1b(J", b"\x1b(I", b"\x1b$", b"\x1b", b"$!", b"A", b"\\~", b"\xe9"])))
@examples(150)
def test_the_states_of_iso_2022_jp(parts):
    data = b"".join(parts)
    assert read("iso-2022-jp", data) == SLOW["iso-2022-jp"](data, at_pointer)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("latin1", "windows-1252"),
        ("US-ASCII", "windows-1252"),
        ("iso-8859-9", "windows-1254"),
        (" \tUTF8\n", "utf-8"),
        ("unicode11utf8", "utf-8"),
        ("x-unicode20utf8", "utf-8"),
        ("unicode", "utf-16le"),
        ("unicodefffe", "utf-16be"),
        ("dos-874", "windows-874"),
        ("tis-620", "windows-874"),
        ("logical", "iso-8859-8-i"),
        ("visual", "iso-8859-8"),
        ("ks_c_5601-1987", "euc-kr"),
        ("gb_2312-80", "gbk"),
        ("big5-hkscs", "big5"),
        ("windows-31j", "shift_jis"),
        ("cseucpkdfmtjapanese", "euc-jp"),
        ("x-mac-ukrainian", "x-mac-cyrillic"),
        ("koi8-ru", "koi8-u"),
        ("csiso2022kr", "iso-2022-kr"),
        ("hz-gb-2312", "hz-gb-2312"),
        ("iso-2022-cn", "replacement"),
        ("utf-7", None),
        ("utf-8\0", None),
        ("ｕｔｆ-8", None),
        ("\ud800", None),
        ("", None),
    ],
)
def test_labels_are_the_standards(label, name):
    assert named(label) == name


def test_encodings_that_browsers_refuse_are_read():
    text = "가나다 abc"
    assert read("iso-2022-kr", text.encode("iso2022_kr")) == text
    assert read("hz-gb-2312", "汉字 abc".encode("hz")) == "汉字 abc"
    assert read("replacement", b"\x1b$)A any") == "\ufffd"
    assert read("utf-32be", "naïve 𝄞".encode("utf-32-be")) == "naïve 𝄞"


@given(
    st.binary(max_size=200), st.sampled_from([*SINGLE, *SLOW, "utf-16le", "utf-16be", "utf-32le", "iso-2022-kr", "hz-gb-2312"])
)
@examples(200)
def test_any_bytes_are_text_without_surrogates(data, name):
    assert read(name, data).encode() is not None
