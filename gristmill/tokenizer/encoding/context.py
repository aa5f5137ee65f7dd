"""What the compiled loops know: a row of addresses and numbers, and the arrays behind them.

`tables` fills it for a vocabulary. The names below are places in the row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.tokenizer.intrinsics import address_of

NAMES = (
    "ASCII", "EDGES", "CHARACTERS", "CHARACTERS_SHIFT", "BYTE_IDS", "BYTE_PAIRS", "LOW", "LOW_SHIFT", "LOW_MASK",
    "LOW_JOINED", "HIGH", "HIGH_SHIFT", "HIGH_MASK", "HIGH_JOINED", "LINKS", "LINKS_SHIFT", "SHORT", "LONG", "POOL", "FILLED",
    "RANKS", "TWO_PHASES", "TOKENS", "TOKENS_MASK", "SPANS", "SPELLED", "LONGEST", "WHOLE", "PARTS", "NOWHERE",
)  # fmt: skip
(
    ASCII, EDGES, CHARACTERS, CHARACTERS_SHIFT, BYTE_IDS, BYTE_PAIRS, LOW, LOW_SHIFT, LOW_MASK, LOW_JOINED, HIGH, HIGH_SHIFT,
    HIGH_MASK, HIGH_JOINED, LINKS, LINKS_SHIFT, SHORT, LONG, POOL, FILLED, RANKS, TWO_PHASES, TOKENS, TOKENS_MASK, SPANS,
    SPELLED, LONGEST, WHOLE, PARTS, NOWHERE,
) = (np.uint64(i) for i in range(len(NAMES)))  # fmt: skip


class Context:
    """The row, uint64, and the arrays it points to."""

    def __init__(self) -> None:
        self.row = np.zeros(len(NAMES), np.uint64)
        self.held: dict[str, npt.NDArray[np.generic]] = {}

    @property
    def address(self) -> np.uint64:
        """Return the row's address."""
        return address_of(self.row)

    def put(self, name: str, value: npt.NDArray[np.generic] | int) -> None:
        """Set an entry: the address of an array, which is held from now on, or a number."""
        if isinstance(value, np.ndarray):
            self.held[name] = value
            value = int(address_of(value))
        self.row[NAMES.index(name)] = value


def cache_lines(words: int) -> npt.NDArray[np.uint64]:
    """Return zeros that begin with a cache line; uint64 [words]."""
    raw = np.zeros(words + 8, np.uint64)
    first = -raw.ctypes.data % 64 // 8
    return raw[first : first + words]
