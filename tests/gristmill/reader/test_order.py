"""The keyed permutation: a bijection for every n and key, the same for ever, and without a table."""

from __future__ import annotations

import hashlib
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.reader.order import CHUNK, ROUNDS, permute, permute_each

WORD = (1 << 64) - 1


def slow_permute(index: int, n: int, key: tuple[int, ...]) -> int:
    """A transcription with Python's integers and `%`, straight from the docstring of the module."""
    right = math.isqrt(n - 1) + 1
    left = -(-n // right)
    digest = hashlib.blake2b(",".join(map(str, key)).encode(), digest_size=8 * ROUNDS, person=b"gristmill-order").digest()
    keys = [int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(ROUNDS)]

    def scatter(value: int, round_key: int, radix: int) -> int:
        value = ((value ^ round_key) * 0xFF51AFD7ED558CCD) & WORD
        value ^= value >> 33
        value = (value * 0xFF51AFD7ED558CCD) & WORD
        return ((value >> 32) * radix) >> 32

    while True:
        high, low = divmod(index, right)
        for number in range(0, ROUNDS, 2):
            high = (high + scatter(low, keys[number], left)) % left
            low = (low + scatter(high, keys[number + 1], right)) % right
        index = high * right + low
        if index < n:
            return index


keys = st.lists(st.integers(0, 2**63), min_size=1, max_size=3).map(tuple)


@given(st.integers(1, 5000), keys)
def test_bijection(n, key):
    assert np.array_equal(np.sort(permute(np.arange(n), n, key)), np.arange(n))


@given(st.integers(1, 10**12), keys, st.data())
def test_equals_transcription(n, key, data):
    indices = data.draw(st.lists(st.integers(0, n - 1), max_size=20))
    assert permute(indices, n, key).tolist() == [slow_permute(index, n, key) for index in indices]


@given(st.integers(1, 10**12), st.lists(keys, min_size=1, max_size=4), st.data())
def test_each_by_its_own_key(n, several, data):
    pairs = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, len(several) - 1)), max_size=20))
    indices, which = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    expected = [slow_permute(index, n, several[key]) for index, key in pairs]
    assert permute_each(indices, n, several, which).tolist() == expected


@pytest.mark.parametrize("several", [[(1,)], [(1,), (2, 3)]])
def test_many_numbers_in_chunks(several):
    n = 3 * CHUNK + 5  # 127 numbers of the network's domain lie outside: what falls on them goes through again
    indices = np.random.default_rng(1).permutation(n)
    which = indices % len(several)
    out = permute_each(indices, n, several, which)
    for number, key in enumerate(several):
        assert np.array_equal(out[which == number], permute(indices, n, key)[which == number])
    assert np.array_equal(
        np.concatenate([permute(part, n, (1,)) for part in np.array_split(indices, 50)]), permute(indices, n, (1,))
    )


def test_indices_stay_as_they_are():
    indices = np.arange(50)
    permute(indices, 50, (1,))
    assert np.array_equal(indices, np.arange(50))


@pytest.mark.parametrize("n", [10**12, 10**12 - 1, 2**40 + 1, 2**62])
def test_large_ranges_have_no_collisions(n):
    indices = np.unique(np.random.default_rng(n % 97).integers(0, n, 200_000))
    out = permute(indices, n, (3, 1))
    assert len(np.unique(out)) == len(indices)
    assert out.min() >= 0 and out.max() < n


def test_same_numbers_for_ever():
    """A saved state is only a sample number: if these change, every resumed run reads other data."""
    assert permute(range(10), 10, (0, 0)).tolist() == GOLDEN_SMALL
    assert permute([0, 1, 2, 10**12 - 1], 10**12, (7, 3)).tolist() == GOLDEN_LARGE


GOLDEN_SMALL = [1, 7, 2, 9, 5, 6, 4, 3, 0, 8]
GOLDEN_LARGE = [798067343397, 948990231305, 562269462842, 54012210498]


def test_seeds_and_epochs_give_unrelated_orders():
    n = 20_000
    orders = [permute(np.arange(n), n, key) for key in ((0, 0), (0, 1), (1, 0), (10,), (1, 0, 0))]
    for first in range(len(orders)):
        for second in range(first):
            same = np.count_nonzero(orders[first] == orders[second])
            assert same < 12, "unrelated permutations agree on about one place"


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_every_place_is_equally_likely(n):
    """Chi-square over 1000 keys for each index, well above the 1e-6 quantile of 6 degrees of freedom."""
    places = np.stack([permute(np.arange(n), n, (key,)) for key in range(1000)])
    for index in range(n):
        counts = np.bincount(places[:, index], minlength=n)
        assert ((counts - 1000 / n) ** 2 / (1000 / n)).sum() < 40


def test_neighbours_are_scattered():
    n = 1_000_003
    out = permute(np.arange(50_000), n, (1, 0))
    steps = np.abs(np.diff(out)) / n
    assert abs(steps.mean() - 1 / 3) < 0.01, "mean distance of two uniform numbers is a third of the range"
    assert abs(np.corrcoef(np.arange(50_000), out)[0, 1]) < 0.02


def test_memory_does_not_depend_on_n():
    permute(np.arange(8), 100, (1, 1))
    tracemalloc.start()
    permute(np.arange(1024), 10**12, (1, 2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


def test_shapes():
    assert permute([], 5, (1,)).shape == (0,)
    assert permute(3, 5, (1,)).shape == ()
    assert permute(np.zeros((2, 3), dtype=np.int32), 5, (1,)).shape == (2, 3)


@pytest.mark.parametrize(("indices", "n"), [([0], 0), ([5], 5), ([-1], 5), ([0], 2**62 + 1)])
def test_refuses_what_is_outside(indices, n):
    with pytest.raises(ValueError, match=r"\[0, 5\)|from 1 to 2\^62"):
        permute(indices, n, (0,))
