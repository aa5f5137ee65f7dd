"""The encodings of the web: what a label means, and bytes read in one of them.

Labels, names and decoders are those of the WHATWG Encoding standard; turbohtml holds them (every code point of every index of
the standard, the number of bytes that an error takes, C1 controls in the holes of windows-125x). Two things are not browsers':
UTF-32, and the encodings that browsers put U+FFFD in place of because scripts could hide in them, are read here.
"""

from __future__ import annotations

from functools import lru_cache

UTF8 = "utf-8"
REPLACEMENT = "\ufffd"
REFUSED = "replacement"  # the standard's encoding that reads nothing
SPACE = "\t\n\f\r "
# By their WHATWG names in lower case. All that are in neither set have one byte a character.
WIDE = frozenset({"utf-16le", "utf-16be", "utf-32le", "utf-32be"})
EAST_ASIAN = frozenset({"gbk", "gb18030", "big5", "euc-jp", "iso-2022-jp", "shift_jis", "euc-kr", "iso-2022-kr", "hz-gb-2312"})
# `replacement` of the standard, where Python reads the encoding. ISO-2022-CN has no decoder.
REPLACED = {"iso-2022-kr": "iso2022_kr", "csiso2022kr": "iso2022_kr", "hz-gb-2312": "hz"}
PYTHON = {UTF8: "utf-8", "utf-32le": "utf-32-le", "utf-32be": "utf-32-be", "iso-2022-kr": "iso2022_kr", "hz-gb-2312": "hz"}


@lru_cache(maxsize=1024)
def named(label: str) -> str | None:
    """Return the name of the encoding that a label means, in lower case; None for what is no label of the standard.

    ASCII white space around the label and its case do not matter ("get an encoding"). The labels of `replacement` mean the
    encoding that they name: `iso-2022-kr`, `hz-gb-2312`, and REFUSED for those that nothing reads.
    """
    import turbohtml

    label = label.strip(SPACE).lower()
    if not label.isascii():
        return None
    try:
        name = turbohtml.parse(b"", encoding=label).encoding
    except LookupError:
        return None
    assert name is not None
    if name == REFUSED and label in REPLACED:
        return "hz-gb-2312" if label == "hz-gb-2312" else "iso-2022-kr"
    return name.lower()


def read(name: str, body: bytes) -> str:
    """Return the text of `body` in the encoding with this name; U+FFFD stands for what is none of its characters.

    A byte order mark is a character like others here.
    """
    codec = PYTHON.get(name)
    if codec is None:
        import turbohtml.detect  # noqa: F401 - registers the codecs `whatwg-…`

        codec = f"whatwg-{name}"
    return body.decode(codec, "replace")
