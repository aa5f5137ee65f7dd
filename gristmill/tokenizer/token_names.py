"""How the files of tokenizers write the bytes of tokens: a letter for each (byte-level, the table of GPT-2), or `<0x0A>` for one.

Bytes to names and names to bytes; reads and writes nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@functools.cache
def letters() -> Mapping[int, str]:
    """Return the letter that stands for each byte in the files of byte-level tokenizers (the table of GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


@functools.cache
def bytes_of_letters() -> Mapping[str, int]:
    """Return the byte that each letter stands for: `letters` the other way round."""
    return {letter: byte for byte, letter in letters().items()}


def alphabet() -> list[bytes]:
    """Return the 256 single bytes in the order in which the Hugging Face trainer numbers them: by their letters."""
    by_letter = sorted(letters().items(), key=lambda item: item[1])
    return [bytes([byte]) for byte, _ in by_letter]


def spell(tokens: Sequence[bytes]) -> list[str]:
    """Return each token in the letters of byte-level files."""
    table = letters()
    return ["".join(table[byte] for byte in token) for token in tokens]


def unspell(name: str) -> bytes | None:
    """Return the bytes of a token in the letters of byte-level files; None where it has another letter."""
    table = bytes_of_letters()
    try:
        return bytes([table[letter] for letter in name])
    except KeyError:
        return None


def single_byte(name: str) -> bytes | None:
    """Return the byte that a name such as `<0x0A>` stands for (SentencePiece's byte fallback); None for any other name."""
    found = _BYTE.fullmatch(name)
    return bytes([int(found[1], 16)]) if found else None
