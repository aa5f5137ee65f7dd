"""The compiled loop of mixture inference; importing this module compiles it (or loads it from numba's cache)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import Int, compiled, inner

STEP_BITS = 16
TOKEN_BITS = 16
MOST_STEPS = 2**STEP_BITS - 256 - 1  # ids and steps fit their bits

_STEP_SHIFT, _TOKEN_SHIFT = np.int64(STEP_BITS), np.int64(TOKEN_BITS)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_NONE = np.int64(1 << 62)


@compiled
def make_table(merges: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return an open-addressed table pair → step of merges int64 [steps, 2]: keys (-1: free) and steps, a power of two long."""
    bits = 4
    while (1 << bits) < 4 * len(merges):
        bits += 1
    keys, steps = np.full(1 << bits, -1, np.int64), np.zeros(1 << bits, np.int64)
    mask = np.uint64((1 << bits) - 1)
    for step in range(len(merges)):
        key = (merges[step, 0] << _TOKEN_SHIFT) | merges[step, 1]
        slot = (np.uint64(key) * _MIX >> np.uint64(32)) & mask
        while keys[slot] != -1:
            slot = (slot + np.uint64(1)) & mask
        keys[slot], steps[slot] = key, step
    return keys, steps


@inner
def _find(keys: npt.NDArray[np.int64], steps: npt.NDArray[np.int64], key: np.int64) -> np.int64:
    mask = np.uint64(len(keys) - 1)
    slot = (np.uint64(key) * _MIX >> np.uint64(32)) & mask
    while keys[slot] != -1:
        if keys[slot] == key:
            found: np.int64 = steps[slot]
            return found
        slot = (slot + np.uint64(1)) & mask
    return _NONE


@compiled
def replay(
    text: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    keys: npt.NDArray[np.int64],
    steps: npt.NDArray[np.int64],
    changed: npt.NDArray[np.int64],
    by: npt.NDArray[np.int64],
) -> Int:
    """Apply the merges of a table to words in their order; write down how the number of each pair changes, and when.

    Args:
        text: bytes of all words.
        offsets: [words + 1].
        counts: how often each word occurs.
        keys: of `make_table`.
        steps: of `make_table`.
        changed: [6 * bytes] filled with left << 32 | right << 16 | time; time 0 is before any merge, t + 1 after merge t.
        by: [6 * bytes] filled with the change.

    Returns:
        How much of `changed` and `by` was filled.
    """
    longest = 0
    for word in range(len(counts)):
        longest = max(longest, offsets[word + 1] - offsets[word])
    ids, ranks, fresh = np.zeros(longest, np.int64), np.zeros(longest, np.int64), np.zeros(longest, np.bool_)
    filled: Int = np.int64(0)  # 0 would be another type, and `_merge` compiled twice
    for word in range(len(counts)):
        begin, size, count = offsets[word], offsets[word + 1] - offsets[word], counts[word]
        for i in range(size):
            ids[i] = text[begin + i]
        for i in range(size - 1):
            key = (ids[i] << _TOKEN_SHIFT) | ids[i + 1]
            ranks[i] = _find(keys, steps, key)
            changed[filled], by[filled] = key << _STEP_SHIFT, count
            filled += 1
        while size > 1:
            step = _NONE
            for i in range(size - 1):
                step = min(step, ranks[i])
            if step == _NONE:
                break
            filled, size = _merge(ids, ranks, fresh, size, step, count, changed, by, filled)
            for i in range(size - 1):
                if fresh[i] or fresh[i + 1]:
                    key = (ids[i] << _TOKEN_SHIFT) | ids[i + 1]
                    ranks[i] = _find(keys, steps, key)
                    changed[filled], by[filled] = (key << _STEP_SHIFT) | (step + 1), count
                    filled += 1
    return filled


@inner
def _merge(
    ids: npt.NDArray[np.int64],
    ranks: npt.NDArray[np.int64],
    fresh: npt.NDArray[np.bool_],
    size: int,
    step: np.int64,
    count: np.int64,
    changed: npt.NDArray[np.int64],
    by: npt.NDArray[np.int64],
    filled: Int,
) -> tuple[Int, int]:
    """Join, left to right, each pair whose rank is `step`; write down the pairs that go. Marks what is joined in `fresh`."""
    read, kept = 0, 0
    last, before = np.int64(0), False  # the token left of `read`, as it was, and whether it was joined
    while read < size:
        joined = read + 1 < size and ranks[read] == step
        if read > 0 and (before or joined):
            changed[filled] = (((last << _TOKEN_SHIFT) | ids[read]) << _STEP_SHIFT) | (step + 1)
            by[filled] = -count
            filled += 1
        if joined:
            changed[filled] = (((ids[read] << _TOKEN_SHIFT) | ids[read + 1]) << _STEP_SHIFT) | (step + 1)
            by[filled] = -count
            filled += 1
            last = ids[read + 1]
            ids[kept] = 256 + step
            read += 2
        else:
            last = ids[read]
            ids[kept], ranks[kept] = ids[read], ranks[read]
            read += 1
        fresh[kept] = joined
        before = joined
        kept += 1
    return filled, kept
