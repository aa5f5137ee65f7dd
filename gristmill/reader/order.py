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
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

LIMIT = 1 << 62  # both radices stay below 2^31, so that 32-bit hash × radix fits 64 bits
ROUNDS = 8
CHUNK = 1 << 14  # numbers sent through all rounds together: what they need stays in the core's cache

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
    numbers = _checked(indices, n)
    return _walk(numbers.reshape(-1), n, _round_keys([key])).reshape(numbers.shape)


def permute_each(indices: Numbers, n: int, keys: Sequence[Sequence[int]], which: npt.NDArray[np.integer[Any]]) -> Numbers:
    """Return permute(indices[i], n, keys[which[i]]) for each i; `indices` and `which` are of one shape (m,)."""
    numbers = _checked(indices, n)
    table = _round_keys(keys)
    return _walk(numbers, n, table if len(keys) == 1 else table[:, which])


def _checked(indices: npt.ArrayLike, n: int) -> Numbers:
    if not 1 <= n <= LIMIT:
        raise ValueError(f"cannot permute {n} numbers: n must be from 1 to 2^62")
    numbers = np.asarray(indices, dtype=np.int64)
    if numbers.size and (int(numbers.min()) < 0 or int(numbers.max()) >= n):
        raise ValueError(f"indices from {numbers.min()} to {numbers.max()}: each must be in [0, {n})")
    return numbers


def _walk(numbers: Numbers, n: int, keys: Words) -> Numbers:
    """Permute numbers of shape (m,) by round keys of shape (ROUNDS, 1 or m)."""
    right = math.isqrt(n - 1) + 1
    radices = (np.uint64(-(-n // right)), np.uint64(right))
    words = numbers.view(np.uint64)
    if len(words) <= CHUNK:
        out = _network(words, radices, keys)
    else:
        chunks = [slice(begin, begin + CHUNK) for begin in range(0, len(words), CHUNK)]
        out = np.concatenate([_network(words[part], radices, keys if keys.shape[1] == 1 else keys[:, part]) for part in chunks])
    while (outside := np.flatnonzero(out >= np.uint64(n))).size:
        out[outside] = _network(out[outside], radices, keys if keys.shape[1] == 1 else keys[:, outside])
    return out.view(np.int64)


def _network(numbers: Words, radices: tuple[np.uint64, np.uint64], keys: Words) -> Words:
    """Permute [0, left · right): each round adds a keyed hash of one half to the other, modulo its radix."""
    left, right = radices
    high = numbers // right  # numpy divides by one number quickly; its divmod does not
    low = numbers - high * right
    scratch = (np.empty_like(low), np.empty_like(low))
    for pair in range(0, len(keys), 2):
        _add(high, low, left, keys[pair], scratch)
        _add(low, high, right, keys[pair + 1], scratch)
    high *= right
    high += low
    return high


def _add(half: Words, other: Words, radix: np.uint64, key: Words, scratch: tuple[Words, Words]) -> None:
    """Make half = (half + hash(other)) mod radix; multiply and shift instead of dividing, which numpy does slowly."""
    mixed, shifted = scratch
    np.bitwise_xor(other, key, out=mixed)
    mixed *= _MULTIPLY
    np.right_shift(mixed, _SHIFT, out=shifted)
    mixed ^= shifted
    mixed *= _MULTIPLY
    mixed >>= _HALF
    mixed *= radix
    mixed >>= _HALF
    half += mixed
    np.subtract(half, radix, out=mixed)  # below zero it wraps to a large number, so the smaller of both is the remainder
    np.minimum(half, mixed, out=half)


def _round_keys(keys: Sequence[Sequence[int]]) -> Words:
    """Return the round keys of each key, shape (ROUNDS, keys)."""
    digests = b"".join([_digest(tuple(key)) for key in keys])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64).reshape(len(keys), ROUNDS).T


@lru_cache(maxsize=1024)
def _digest(key: tuple[int, ...]) -> bytes:
    text = ",".join([str(int(part)) for part in key])
    return hashlib.blake2b(text.encode(), digest_size=8 * ROUNDS, person=b"gristmill-order").digest()
