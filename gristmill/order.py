"""The global order of sequences: a keyed permutation of [0, n), computed for any index without a table.

Reads and writes nothing. `permute` is a Feistel network over pairs (left, right) of a mixed radix a × b, where a and b
are about the square root of n, so that the network's domain is only about √n larger than n; numbers that fall
outside [0, n) are sent through again until they fall inside (cycle walking, Black and Rogaway 2002, "Ciphers with
arbitrary finite domains"). Memory and start-up time do not depend on n.

The order is part of what a saved training state means: `permute` must give the same numbers for ever.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

LIMIT = 1 << 62  # both radices stay below 2^31, so that 32-bit hash × radix fits 64 bits
ROUNDS = 8

_MULTIPLY = np.uint64(0xFF51AFD7ED558CCD)  # the finalizer of MurmurHash3, whose avalanche is well studied
_SHIFT = np.uint64(33)
_HALF = np.uint64(32)


def permute(indices: npt.ArrayLike, n: int, key: Sequence[int]) -> Numbers:
    """Return where a permutation of [0, n) chosen by `key` sends each of `indices`.

    Args:
        indices: integers in [0, n), any shape.
        n: size of the permuted range, 1 ≤ n ≤ 2^62.
        key: integers, such as (seed, epoch); other keys give unrelated permutations.

    Returns:
        int64 array of the shape of `indices`.

    Raises:
        ValueError: n out of range, or an index outside [0, n).
    """
    if not 1 <= n <= LIMIT:
        raise ValueError(f"cannot permute {n} numbers: n must be from 1 to 2^62")
    numbers = np.asarray(indices, dtype=np.int64)
    if numbers.size and (int(numbers.min()) < 0 or int(numbers.max()) >= n):
        raise ValueError(f"indices from {numbers.min()} to {numbers.max()}: each must be in [0, {n})")
    right = math.isqrt(n - 1) + 1
    left = -(-n // right)
    rounds = _round_keys(tuple(key))
    out = _network(numbers.reshape(-1).astype(np.uint64), left, right, rounds)
    while (outside := np.flatnonzero(out >= np.uint64(n))).size:
        out[outside] = _network(out[outside], left, right, rounds)
    return out.astype(np.int64).reshape(numbers.shape)


def _network(numbers: npt.NDArray[np.uint64], left: int, right: int, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Permute [0, left · right): each round adds a keyed hash of one half to the other, modulo its radix."""
    radix = (np.uint64(left), np.uint64(right))
    high, low = np.divmod(numbers, radix[1])
    for pair in range(0, len(keys), 2):
        high = _add(high, low, radix[0], keys[pair])
        low = _add(low, high, radix[1], keys[pair + 1])
    return high * radix[1] + low


def _add(half: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64], radix: np.uint64, key: np.uint64) -> npt.NDArray[np.uint64]:
    """Return (half + hash(other)) mod radix; multiply and shift instead of dividing, which numpy does slowly."""
    mixed = (other ^ key) * _MULTIPLY
    mixed ^= mixed >> _SHIFT
    mixed *= _MULTIPLY
    mixed >>= _HALF
    mixed *= radix
    mixed >>= _HALF
    mixed += half
    mixed -= radix * (mixed >= radix)
    return mixed


@lru_cache(maxsize=1024)
def _round_keys(key: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    text = ",".join(str(int(part)) for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=8 * ROUNDS, person=b"gristmill-order").digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)
