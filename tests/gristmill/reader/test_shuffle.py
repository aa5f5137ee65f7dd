"""The order of one source: each epoch has every sequence once, equal to slow transcriptions, for any count without a table."""

from __future__ import annotations

import pickle
import tracemalloc
from itertools import chain

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill.reader.order import permute
from gristmill.reader.shuffle import STRETCH, Blocks, Order


def one(place: int, n: int, key: tuple[int, ...]) -> int:
    return int(permute(place, n, key))


def slow_blocks(number: int, count: int, key: tuple[int, ...], size: int, opened: int) -> int:
    """A transcription of docs/order.md, one number at a time: lists of blocks, none of the arithmetic of the source."""
    epoch, place = divmod(number, count)
    blocks = [list(range(begin, begin + size)) for begin in range(0, count - size + 1, size)]
    tail = list(range(len(blocks) * size, count))
    shuffled = [blocks[one(index, len(blocks), (*key, epoch))] for index in range(len(blocks))]
    groups = [list(chain(*shuffled[begin : begin + opened])) for begin in range(0, len(shuffled), opened)] + [tail]
    for group, members in enumerate(groups):
        if place < len(members):
            return members[one(place, len(members), (*key, epoch, group))]
        place -= len(members)
    raise AssertionError


def shuffles() -> st.SearchStrategy:
    return st.sampled_from(["global", "none"]) | st.builds(Blocks, sequences=st.integers(1, 40), open=st.integers(1, 6))


keys = st.lists(st.integers(0, 2**32), min_size=1, max_size=2).map(tuple)


@given(st.integers(1, 700), keys, shuffles(), st.integers(0, 10**6))
def test_an_epoch_has_every_sequence_once(count, key, shuffle, epoch):
    order = Order(count, key, shuffle)
    assert np.array_equal(np.sort(order.at(np.arange(count) + epoch * count)), np.arange(count))


@given(st.integers(1, 200), keys, st.integers(1, 60), st.integers(1, 8), st.lists(st.integers(0, 700), max_size=12))
@example(24, (1,), 4, 4, list(range(48)))  # a last group with fewer blocks, none left over
@example(26, (1,), 4, 3, list(range(52)))  # whole groups only, and a shorter block
@example(27, (1,), 4, 4, list(range(54)))  # both
@example(5, (1,), 6, 2, list(range(15)))  # less than a block
def test_blocks_equal_the_transcription(count, key, size, opened, numbers):
    got = Order(count, key, Blocks(sequences=size, open=opened)).at(numbers)
    assert got.tolist() == [slow_blocks(number, count, key, size, opened) for number in numbers]


def test_global_and_none_equal_their_definition():
    numbers = np.array([[0, 5, 16], [17, 99, 4]])
    expected = [[one(number % 17, 17, (3, 1, number // 17)) for number in row] for row in numbers.tolist()]
    assert Order(17, (3, 1), "global").at(numbers).tolist() == expected
    assert Order(17, (3, 1), "none").at(numbers).tolist() == (numbers % 17).tolist()


def test_same_numbers_for_ever():
    """A saved state is only a sample number: if these change, every resumed run reads other data."""
    order = Order(10**12 + 7, (1, 2), Blocks())
    assert order.at([0, 1, 2, 10**12 + 6, 10**12 + 7]).tolist() == GOLDEN


GOLDEN = [803030614242, 58287631139, 803030614982, 1000000000000, 481926789420]


@given(st.integers(1, 20_000), shuffles(), st.integers(0, 60_000), st.integers(0, 10_000))
def test_a_run_is_a_stretch_of_the_order(count, shuffle, first, size):
    order = Order(count, (5,), shuffle)
    numbers = np.arange(first, first + size)
    assert np.array_equal(order.run(first, size), order.at(numbers))
    assert np.array_equal(order.run(first, size), order.at(numbers)), "from the cache"


@pytest.mark.parametrize("shuffle", ["global", "none", Blocks()])
def test_who_gets_a_run_may_write_in_it(shuffle):
    order = Order(10_000, (5,), shuffle)
    run = order.run(20, 8)
    before = run.copy()
    run[:] = -1
    assert np.array_equal(order.run(20, 8), before)


@pytest.mark.parametrize("shuffle", ["global", Blocks(sequences=50, open=4)])
def test_epochs_keys_and_groups_are_unrelated(shuffle):
    n = 10_000
    epochs = [Order(n, key, shuffle).run(epoch * n, n) for key, epoch in (((0,), 0), ((0,), 1), ((1,), 0), ((1, 0), 0))]
    for first in range(len(epochs)):
        for second in range(first):
            assert np.count_nonzero(epochs[first] == epochs[second]) < 12, "unrelated orders agree on about one place"
    if shuffle != "global":
        inside = epochs[0].reshape(-1, 200) % 50
        assert len(np.unique(inside, axis=0)) == len(inside), "every group is shuffled in another way"


def test_blocks_reach_no_further_than_they_say():
    count, blocks = 1037, Blocks(sequences=10, open=4)
    epoch = Order(count, (9,), blocks).run(count, count)
    for begin in range(0, 1000, 40):
        assert len(np.unique(epoch[begin : begin + 40] // 10)) == 4
    assert sorted(epoch[-7:].tolist()) == list(range(1030, 1037)), "the shorter block comes last"
    starts = epoch[:1000:40] // 10
    assert np.abs(np.diff(starts)).mean() > 15, "blocks come from everywhere"


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 5), st.integers(0, 900), st.lists(st.integers(1, 120), max_size=8))
def test_spans_of_blocks_come_before_their_samples_and_once_an_epoch(count, size, opened, first, steps):
    order = Order(count, (4,), Blocks(sequences=size, open=opened))
    begin = order.start(first)
    assert begin <= first and order.start(begin) == begin
    opened_ranges = order.spans(begin, first - begin)
    for step in steps:
        opened_ranges += order.spans(first, step)
        ready = {sequence for a, b in opened_ranges for sequence in range(a, b)}
        assert set(order.run(first, step).tolist()) <= ready
        first += step
    whole = order.spans(3 * count, count)
    assert sorted(sequence for a, b in whole for sequence in range(a, b)) == list(range(count))


def test_spans_without_blocks():
    order = Order(100, (4,), "global")
    assert [a for a, _ in order.spans(95, 10)] == order.run(95, 10).tolist()
    assert all(b == a + 1 for a, b in order.spans(95, 10))
    plain = Order(100, (4,), "none")
    assert plain.spans(210, 20) == [(10, 30)]
    assert plain.spans(290, 20) == [(90, 100), (0, 10)]
    assert plain.spans(290, 400) == [(90, 100), (0, 100)]
    assert plain.spans(290, 0) == []
    assert plain.start(290) == order.start(290) == 290


@pytest.mark.parametrize("shuffle", ["global", "none", Blocks()])
def test_memory_does_not_depend_on_the_count(shuffle):
    Order(10**6, (1,), shuffle).run(0, 1024)
    tracemalloc.start()
    order = Order(10**12, (1,), shuffle)
    order.run(0, 1024)
    order.at(np.random.default_rng(1).integers(0, 10**15, 1024))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


@pytest.mark.parametrize("shuffle", ["global", "none", Blocks(), Blocks(sequences=2**62, open=2**62), Blocks(sequences=1)])
def test_the_largest_count(shuffle):
    order = Order(2**62, (1,), shuffle)
    numbers = np.array([0, 1, 2**61, 2**62 - 1])
    out = order.at(numbers)
    assert out.min() >= 0 and out.max() < 2**62
    assert len(np.unique(out)) == 4
    assert order.run(2**62 - 2, 2).tolist() == order.at(np.arange(2) + (2**62 - 2)).tolist()


def test_pickled_with_a_warm_cache():
    order = Order(1000, (1, 2), Blocks(sequences=7))
    run = order.run(0, 50)
    again = pickle.loads(pickle.dumps(order))
    assert np.array_equal(again.run(0, 50), run)
    assert again.shuffle == Blocks(sequences=7)


def test_long_runs_cross_stretches():
    order = Order(3, (1,), "global")
    assert len(order.run(STRETCH - 1, 2)) == 2
    assert order.run(7, 0).shape == (0,)
    assert order.at([]).shape == (0,)
    assert Order(3, (1,), Blocks()).at([]).shape == (0,)


def test_refuses():
    with pytest.raises(ValueError, match=r"no order of 0 sequences"):
        Order(0, (1,), "global")
    with pytest.raises(ValueError, match=r"shuffle is 'full'; it can be \"global\""):
        Order(5, (1,), "full")
    with pytest.raises(ValueError, match=r"Blocks: open is 0; it must be at least 1"):
        Blocks(open=0)
    for shuffle in ("global", Blocks()):
        with pytest.raises(ValueError, match=r"samples from -1 to 3: they are numbered from 0 to 2\^62 - 1"):
            Order(5, (1,), shuffle).at([3, -1])
        with pytest.raises(ValueError, match=r"samples from -2 on: they are numbered from 0"):
            Order(5, (1,), shuffle).run(-2, 4)
        with pytest.raises(ValueError, match=r"samples from 4611686018427387904 to 4611686018427391999"):
            Order(5, (1,), shuffle).run(2**62, 4)
