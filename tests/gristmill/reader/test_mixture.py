"""The mixture: exact counts, nothing that depends on how it is asked, equal to a transcription that walks sample by sample."""

from __future__ import annotations

import hashlib
import pickle
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.reader.mixture import Mixture
from tests.random_examples import examples

WORD = (1 << 64) - 1


def slow_pattern(shares: dict[int, Fraction], size: int, block: int, start: int, seed: int) -> list[int]:
    """The sources of one block, a transcription of docs/order.md with Python's integers."""
    digest = hashlib.blake2b(f"{seed},{start},{block}".encode(), digest_size=8, person=b"gristmill-mix").digest()
    word = int.from_bytes(digest, "little")

    def hashed(number: int) -> float:
        mixed = number ^ word
        for _ in range(2):
            mixed = (mixed * 0xFF51AFD7ED558CCD) & WORD
            mixed ^= mixed >> 33
        return (mixed >> 11) / 2**53

    slots, until, number = [], Fraction(0), 0
    for place, (source, share) in enumerate(shares.items()):
        before = int((block + 1) * size * until) - int(block * size * until)
        until += share
        count = int((block + 1) * size * until) - int(block * size * until) - before
        for k in range(count):
            at = k + (hashed(number) - hashed(size + place))
            slots.append(((at if at >= 0 else count + at) / count, place, source))
            number += 1
    return [source for _, _, source in sorted(slots)]


def slow(sizes, weights, max_epochs, seed, end):
    """Return [(source, number)] of the first `end` samples or all, going through them one by one."""
    changes = {start for weight in weights for start in weight}
    limits = [None if most is None else int(Fraction(str(most)) * size) for most, size in zip(max_epochs, sizes, strict=True)]
    counts = [0] * len(sizes)
    out = []
    used_up = False
    for sample in range(end):
        if sample in changes or used_up:
            now = [Fraction(str(weight[max(at for at in weight if at <= sample)])) for weight in weights]
            left = {source: one for source, one in enumerate(now) if one and counts[source] != limits[source]}
            if not left:
                break
            shares = {source: one / sum(left.values()) for source, one in left.items()}
            size = 4096
            while size * min(shares.values()) < 2:
                size *= 2
            start, pattern = sample, slow_pattern(shares, size, 0, sample, seed)
        block, place = divmod(sample - start, size)
        if block and not place:
            pattern = slow_pattern(shares, size, block, start, seed)
        source = pattern[place]
        out.append((source, counts[source]))
        counts[source] += 1
        used_up = counts[source] == limits[source]
    return out


def names(sizes):
    return [f"source{number}" for number in range(len(sizes))]


@st.composite
def arguments(draw):
    """Arguments whose first phases are short; the last source has no end and weight always, so that nothing ends early."""
    sources = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(1, 6000), min_size=sources, max_size=sources))
    weight = st.sampled_from([0, 0.001, 0.1, 0.7, 1, 3])
    weights = [{0: draw(weight)} | draw(st.dictionaries(st.integers(1, 15_000), weight, max_size=2)) for _ in sizes]
    weights[-1] = {start: value or 1 for start, value in weights[-1].items()}
    most = draw(st.lists(st.none() | st.sampled_from([1, 0.3, 1.5, 2]), min_size=sources - 1, max_size=sources - 1))
    most = [None if one is not None and one * size < 1 else one for one, size in zip(most, sizes, strict=False)]
    return sizes, weights, [*most, None], draw(st.integers(0, 2**40)), names(sizes)


@given(arguments())
@examples(30)
def test_equals_the_transcription(arguments):
    end = 14_000
    sources, numbers = Mixture(*arguments).draw(0, end)
    assert list(zip(sources.tolist(), numbers.tolist(), strict=True)) == slow(*arguments[:4], end)


@given(arguments(), st.lists(st.integers(1, 9000), max_size=12), st.integers(0, 40_000))
def test_any_split_gives_the_same(arguments, steps, first):
    mixture = Mixture(*arguments)
    sources, numbers = mixture.draw(first, sum(steps))
    at = 0
    for step in steps:
        got = Mixture(*arguments).draw(first + at, step) if at % 2 else mixture.draw(first + at, step)
        assert np.array_equal(got[0], sources[at : at + step])
        assert np.array_equal(got[1], numbers[at : at + step])
        at += step


@given(arguments(), st.integers(0, 40_000))
def test_counts_and_numbers(arguments, sample):
    mixture = Mixture(*arguments)
    sources, numbers = mixture.draw(0, sample)
    assert mixture.counts(sample).tolist() == np.bincount(sources, minlength=len(arguments[0])).tolist()
    for source, (size, most) in enumerate(zip(arguments[0], arguments[2], strict=True)):
        mine = numbers[sources == source]
        assert np.array_equal(mine, np.arange(len(mine))), "in the source's own order, none left out"
        assert most is None or len(mine) <= most * size


weights = st.lists(st.sampled_from([0.005, 0.1, 0.15, 0.25, 0.7, 1.0, 2.5, 1000 / 3]), min_size=1, max_size=6)


def shares_of(given):
    exact = [Fraction(repr(weight)) for weight in given]
    return [weight / sum(exact) for weight in exact]


@given(weights, st.integers(0, 10**12))
def test_counts_at_the_ends_of_blocks_are_exact(given, block):
    """As near to the exact rational as whole numbers that add up can be, however far from the beginning."""
    mixture = Mixture([10] * len(given), [{0: weight} for weight in given], [None] * len(given), 7, names(given))
    sample = block << 20
    counts = mixture.counts(sample).tolist()
    assert sum(counts) == sample
    for count, share in zip(counts, shares_of(given), strict=True):
        assert abs(count - sample * share) < 1
    sources, numbers = mixture.draw(sample, 50)
    assert mixture.counts(sample + 50).tolist() == (counts + np.bincount(sources, minlength=len(given))).tolist()
    for source, number in zip(sources.tolist(), numbers.tolist(), strict=True):
        assert number == counts[source]
        counts[source] += 1


def test_decimal_weights_mean_what_they_say():
    mixture = Mixture([1] * 3, [{0: 0.7}, {0: 0.2}, {0: 0.1}], [None] * 3, 0, names("abc"))
    assert mixture.counts(4096 * 5).tolist() == [14336, 4096, 2048]


@given(weights, st.integers(0, 2**60), st.integers(0, 10**6))
def test_every_prefix_is_near_its_share(given, seed, first):
    """Proved bound: 1 for rounding at the ends of blocks; 2 for jitter and shift, and those of others by this one's share."""
    mixture = Mixture([10] * len(given), [{0: weight} for weight in given], [None] * len(given), seed, names(given))
    first <<= 20
    sources, _ = mixture.draw(first, 10_000)
    before = mixture.counts(first)
    for source, share in enumerate(shares_of(given)):
        counts = np.cumsum(sources == source) + float(before[source] - first * share)
        off = np.abs(counts - np.arange(1, 10_001) * float(share))
        assert off.max() < 3 + 2 * float(share) * (len(given) - 2) + 1e-6


@pytest.mark.parametrize("weights", [(2, 1, 1), (1, 1), (1, 1, 1), (3, 1)])
def test_no_pattern_repeats(weights):
    """Ranks that always get the same rows of a batch see the same mixture; blocks and seeds differ."""
    arguments = ([10] * len(weights), [{0: weight} for weight in weights], [None] * len(weights))
    share = weights[0] / sum(weights)
    sources = Mixture(*arguments, 3, names(weights)).draw(0, 3 << 17)[0]
    for period in (2, 3, 4, 8):
        by_row = (sources[: len(sources) // period * period] == 0).reshape(-1, period).mean(axis=0)
        assert np.abs(by_row - share).max() < 0.03, "jitter without a shift: 0.08"
    energy = np.abs(np.fft.rfft((sources == 0) - share)) ** 2
    assert energy.max() / energy.sum() < 0.02, "a strict rotation has nearly all in one frequency"
    other = Mixture(*arguments, 4, names(weights)).draw(0, 8192)[0]
    for one, two in ((sources[:4096], sources[4096:8192]), (sources[:8192], other)):
        assert 0.2 < np.mean(one == two) < 0.8


def test_same_numbers_for_ever():
    """A saved state is only a sample number: if these change, every resumed run reads other data."""
    mixture = Mixture([100, 9, 10], [{0: 0.5, 5000: 0}, {0: 0.3}, {0: 0.2, 5000: 4}], [None, 3, None], 11, names("abc"))
    assert mixture.draw(0, 12)[0].tolist() == GOLDEN[0]
    assert mixture.draw(5000, 3)[1].tolist() == GOLDEN[1]
    assert mixture.counts(10**9).tolist() == GOLDEN[2]


GOLDEN = [[2, 1, 0, 0, 1, 2, 0, 0, 1, 0, 1, 0], [1421, 1422, 1423], [3552, 27, 999996421]]


def test_weights_change_at_their_sample_and_leave_the_past_alone():
    plain = Mixture([9] * 2, [{0: 1}, {0: 3}], [None] * 2, 5, names("ab"))
    changed = Mixture([9] * 2, [{0: 1, 9001: 3}, {0: 3, 9001: 0, 9011: 1}], [None] * 2, 5, names("ab"))
    assert np.array_equal(plain.draw(0, 9001)[0], changed.draw(0, 9001)[0])
    sources, numbers = changed.draw(9001, 10)
    assert sources.tolist() == [0] * 10
    assert numbers.tolist() == list(range(int(plain.counts(9001)[0]), int(plain.counts(9001)[0]) + 10))
    assert abs(np.count_nonzero(changed.draw(9011, 4096)[0] == 0) - 3072) <= 1


def test_others_share_the_weight_of_a_source_from_the_sample_after_its_last():
    mixture = Mixture([50, 10**6, 10**6], [{0: 2}, {0: 1}, {0: 1}], [2.5, None, None], 5, names("abc"))
    sources, _ = mixture.draw(0, 9000)
    last = int(np.flatnonzero(sources == 0)[-1])
    assert np.count_nonzero(sources == 0) == 125
    assert 240 < last < 260
    after = sources[last + 1 : last + 4097]
    assert np.count_nonzero(after == 1) == np.count_nonzero(after == 2) == 2048, "a phase begins right there"


def test_it_ends_when_all_are_used_up():
    mixture = Mixture([50, 70], [{0: 2, 10: 1}, {0: 1}], [2, 1.5], 5, names("ab"))
    assert mixture.total == 205
    sources, _ = mixture.draw(0, 205)
    assert np.bincount(sources).tolist() == [100, 105]
    assert mixture.counts(205).tolist() == [100, 105]
    assert len(mixture.draw(205, 0)[0]) == 0
    for first, size in ((200, 6), (205, 1), (10**9, 16)):
        with pytest.raises(IndexError, match=r"the mixture has 205: then all sources are used up"):
            mixture.draw(first, size)
    with pytest.raises(IndexError, match=r"numbered from 0"):
        mixture.draw(-1, 3)
    with pytest.raises(IndexError, match=r"has 205"):
        mixture.counts(206)
    assert Mixture([50, 70], [{0: 2}, {0: 1}], [2, None], 5, names("ab")).total is None


@given(
    st.lists(
        st.tuples(st.integers(1, 10**15), st.sampled_from([0.5, 1, 3]), st.sampled_from([0.2, 1, 7])), min_size=1, max_size=5
    )
)
def test_ends_of_large_sources_are_found_without_walking(sources):
    sizes = [size * 10 for size, _, _ in sources]
    limits = [int(size * Fraction(str(most))) for size, (_, most, _) in zip(sizes, sources, strict=True)]
    mixture = Mixture(sizes, [{0: weight} for _, _, weight in sources], [most for _, most, _ in sources], 1, names(sizes))
    assert mixture.total == sum(limits)
    assert mixture.counts(mixture.total).tolist() == limits
    source, number = mixture.draw(mixture.total - 1, 1)
    assert number[0] == limits[source[0]] - 1


def test_a_source_that_is_off_at_first_begins_at_its_first_sequence():
    mixture = Mixture([5, 5], [{0: 1}, {0: 0, 300: 1}], [None, 1], 0, names("ab"))
    sources, numbers = mixture.draw(300, 100)
    assert numbers[sources == 1].tolist() == [0, 1, 2, 3, 4]


def test_rare_sources_get_their_count():
    mixture = Mixture([10**9] * 2, [{0: 1}, {0: 2**-18}], [None] * 2, 0, names("ab"))
    for first, second in pairwise(range(0, 6 << 20, 1 << 20)):
        assert abs(int(mixture.counts(second)[1] - mixture.counts(first)[1]) - 4) <= 1


def test_who_gets_a_draw_may_write_in_it():
    mixture = Mixture([10, 10], [{0: 1}, {0: 2}], [None, None], 0, names("ab"))
    first = mixture.draw(0, 8)
    kept = [part.copy() for part in first]
    for part in first:
        part[:] = -1
    assert all(np.array_equal(part, one) for part, one in zip(mixture.draw(0, 8), kept, strict=True))


def test_pickled_with_a_warm_cache():
    mixture = Mixture([10, 10], [{0: 1, 50: 2}, {0: 2}], [None, 3], 9, names("ab"))
    drawn = mixture.draw(0, 100)
    again = pickle.loads(pickle.dumps(mixture))
    assert all(np.array_equal(part, one) for part, one in zip(again.draw(0, 100), drawn, strict=True))


@pytest.mark.parametrize(
    ("sizes", "weights", "most", "message"),
    [
        ([], [], [], "a mixture of no sources"),
        ([5, 0], [{0: 1}, {0: 1}], [None, None], "source1 has 0 sequences"),
        ([5, 5], [{0: 1}, {0: -1}], [None, None], "source1 has weight -1 from sample 0 on"),
        ([5, 5], [{0: 1}, {0: 1, 7: float("nan")}], [None, None], "source1 has weight nan from sample 7 on"),
        ([5, 5], [{0: 1}, {0: 1, 7: float("inf")}], [None, None], "source1 has weight inf"),
        ([5, 5], [{0: 1}, {3: 1}], [None, None], "source1 begin at sample 3; the first must be for sample 0"),
        ([5, 5], [{0: 1}, {-3: 1, 0: 1}], [None, None], "source1 begin at sample -3"),
        ([5, 5], [{0: 1}, {}], [None, None], "source1 begin at sample None"),
        ([5, 5], [{0: 0}, {0: 0}], [None, None], "from sample 0 on all weights are 0: source0, source1"),
        ([5, 5], [{0: 1, 9: 0}, {0: 0}], [None, None], "from sample 9 on all weights are 0"),
        ([5, 5], [{0: 1}, {0: 1}], [None, 0], "source1 has max_epochs 0; it must be a number above 0"),
        ([5, 5], [{0: 1}, {0: 1}], [None, float("nan")], "source1 has max_epochs nan"),
        ([5, 5], [{0: 1}, {0: 1}], [None, 0.1], "source1 has max_epochs 0.1 of 5 sequences, which is less than one"),
        ([5, 5], [{0: 1}, {0: 1e-6}], [None, None], "source1 has 1e-06 of all weights from sample 0 on"),
        ([5, 5], [{0: 1}, {0: 0, 20: 1}], [2, None], "from sample 10 on every .* used up, but the weights change at sample 20"),
    ],
)
def test_refuses(sizes, weights, most, message):
    with pytest.raises(ValueError, match=message):
        Mixture(sizes, weights, most, 0, names(sizes))


def test_later_changes_of_what_is_used_up_are_no_error():
    assert Mixture([5, 5], [{0: 1}, {0: 1, 20: 2}], [2, 1], 0, names("ab")).total == 15
