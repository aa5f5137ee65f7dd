"""What a token must obey to be made by a merge: limits on words, colons, units, bytes, and on the first character.

Reads nothing and writes nothing; `kernels.py` reads the rules as two flat arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NO_LIMIT = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Limits on the token that a merge makes. A pair that breaks one is passed over, the next best is merged.

    `max_words`: at most so many words, where words are what white space of any kind parts (`str.split`): " of the", "of  the ",
    "of\\nthe" and "of the" have two, "  " has none. The fork of `tokenizers` behind SuperBPE (Liu et al. 2025, arXiv
    2503.13423; alisawuffles/tokenizers-superbpe, commit a27d8bf: 4 words) counts between spaces (0x20) only, so that its
    tokens may go on over any number of lines.
    `forbid_colon`: no token holds a colon that white space follows, wherever in it (in the fork: a space).
    `max_units`: at most so many ids of the initial stream in one token; initial ids are one unit each.
    `max_bytes`: at most so many bytes.
    `no_leading`: code points; no token begins with one of them and goes on after it. This is CBPE (MorphTok, Brahma et al. 2025,
    arXiv 2504.10335) on bytes: a dependent vowel joins what stands before it, or stays alone.
    `never`: tokens that are not made, such as the names of special tokens: a file has one token of a name.
    """

    max_words: int | None = None
    forbid_colon: bool = False
    max_units: int | None = None
    max_bytes: int | None = None
    no_leading: tuple[int, ...] = ()
    never: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("max_words", 1), ("max_units", 2), ("max_bytes", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, or null for no limit; found {value}")
        for point in self.no_leading:
            if not 0 <= point <= 0x10FFFF or 0xD800 <= point <= 0xDFFF:
                raise ValueError(f"no_leading must hold Unicode code points, found {point}")

    def limits(self) -> npt.NDArray[np.int64]:
        """Return int64 [4]: most words, most units, most bytes, 1 if a colon before a space is forbidden."""
        most = [NO_LIMIT if limit is None else limit for limit in (self.max_words, self.max_units, self.max_bytes)]
        return np.array([*most, int(self.forbid_colon)], np.int64)

    def names(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Return the tokens of `never` one after the other, uint8, and where each ends, int64 [tokens]."""
        ends = np.cumsum([len(name) for name in self.never], dtype=np.int64)
        return np.frombuffer(bytearray().join(self.never), np.uint8), ends

    def leading(self) -> npt.NDArray[np.int64]:
        """Return int64 [characters]: the UTF-8 bytes of each character of `no_leading` as one big-endian number, ascending."""
        return np.array(sorted({int.from_bytes(chr(point).encode(), "big") for point in self.no_leading}), np.int64)


@dataclass(frozen=True)
class Quota:
    """Tokens that each group (language) should come down to; see `choosing.py` for who is served when.

    `targets`: float64 [groups], tokens of the stream times weights; a group without a target has infinity. Empty: no quotas.
    `reserve`: how many times the merges that the groups behind are forecast to need are kept; infinity to serve them first.
    """

    targets: npt.NDArray[np.float64]
    reserve: float = 1.25

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.targets.ndim != 1 or not (self.targets > 0).all():
            raise ValueError(f"targets must be a row of numbers above 0, found {self.targets}")
        if not self.reserve >= 1:
            raise ValueError(f"reserve must be at least 1, found {self.reserve}")


NO_RULES, NO_QUOTA = Rules(), Quota(np.empty(0))
