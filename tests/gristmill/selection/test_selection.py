"""What policies select, against a transcription in plain Python; and what a selection must not depend on."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.selection import histogram, selection
from gristmill.selection.policy import Cap, Policy, Term
from gristmill.selection.selection import ALL, Tokens, judge, pieces, scores_of, select_of
from tests.gristmill.selection import slow_selection as slow
from tests.gristmill.selection.slow_selection import DOCUMENTS, NAN, documents, many, tokens_of
from tests.random_examples import examples

EXCESS = (Term(model="b"), Term(model="a", weight=-1.0))
ENTROPY = (Term(model="a", signal="entropy", weight=0.5),)

LOCAL = [
    Policy(score=EXCESS, direction="high", keep=0.6, scope="document"),
    Policy(score=EXCESS, direction="low", keep=0.35, scope="document", unit="bytes"),
    Policy(score=ENTROPY, direction="low", keep=1.0, scope="document", per="byte", unit="bytes"),
    Policy(score=EXCESS, direction="high", keep=0.5, scope="sequence", sequence_tokens=5),
    Policy(score=ENTROPY, direction="high", keep=0.25, scope="sequence", sequence_tokens=3, unit="bytes", per="byte"),
    Policy(score=EXCESS, direction="high", threshold=1.25),
    Policy(score=EXCESS, direction="low", threshold=0.0, per="byte"),
    Policy(score=EXCESS, direction="high", keep=0.5, scope="document", cap=Cap(model="a", quantile=0.5)),
    Policy(score=EXCESS, direction="high", threshold=0.0, cap=Cap(model="a", signal="entropy", value=1.25)),
]
POOLED = [
    dataclasses.replace(LOCAL[0], scope="global"),
    dataclasses.replace(LOCAL[1], scope="global"),
    Policy(score=EXCESS, direction="low", keep=0.3, per="byte", unit="bytes", scope="shard"),
    Policy(score=ENTROPY, direction="high", keep=0.8, scope="shard"),
]
SOFT = [
    Policy(score=EXCESS, direction="high", threshold=0.5, soft=0.25),
    Policy(score=EXCESS, direction="low", keep=0.4, scope="document", soft=2.0),
    Policy(all_of=(LOCAL[0], Policy(score=ENTROPY, direction="low", threshold=1.0, soft=1.0))),
]


def named(policies):
    return [f"{number}-{each.scope}" for number, each in enumerate(policies)]


@pytest.mark.parametrize("policy", LOCAL, ids=named(LOCAL))
def test_decided_by_a_document_it_is_the_slow_transcription(policy):
    @examples(15)
    @given(DOCUMENTS)
    def check(made):
        fast, tokens = tokens_of(made)
        found = judge(policy, fast)
        assert found.selected.tolist() == slow.select(policy, tokens)
        assert found.candidates.tolist() == slow.candidates(policy, tokens)
        expected = [[slow.score(gate, token) for token in tokens] for gate in policy.gates()]
        for one, other in zip(found.scores, expected, strict=True):
            np.testing.assert_array_equal(one, np.array(other, np.float32))

    check()
    fast, tokens = tokens_of(documents(np.random.default_rng(3), 12, 60))
    assert judge(policy, fast).selected.tolist() == slow.select(policy, tokens)
    assert judge(policy, fast).selected.sum() > 0


@pytest.mark.parametrize("policy", POOLED, ids=named(POOLED))
def test_over_documents_it_is_the_slow_transcription_beside_the_bin_of_the_edge(policy):
    (gate,) = policy.gates()

    def check(made, shards):
        fast, tokens = tokens_of(made, shards)
        found = judge(policy, fast).selected
        expected, counted = np.array(slow.select(policy, tokens), bool), slow.candidates(policy, tokens)
        edge = np.array(slow.at_the_edge(gate, tokens, counted), bool)
        assert np.array_equal(found[~edge], expected[~edge])
        return fast, found, expected

    @examples(15)
    @given(DOCUMENTS)
    def check_small(made):
        fast, found, expected = check(made, [number % 2 for number in range(len(made))])
        sizes = np.maximum(fast.lengths, 0) if policy.unit == "bytes" else np.ones(len(found))
        off = abs(sizes[found].sum() - sizes[expected].sum())
        most = 10 if policy.unit == "bytes" else 1
        assert off <= (most * (most + 1) // 2 + most) * len(made), "each document off by less than a token of each length"

    check([[((0.0, 0.0, 0.0), 0), ((0.0, 1.0, 0.0), 0)]], [0])  # a share of no bytes
    check_small()
    check(documents(np.random.default_rng(4), 20, 60), [number // 10 for number in range(20)])


@pytest.mark.parametrize("policy", SOFT, ids=named(SOFT))
def test_soft_weights_are_the_slow_transcription(policy):
    @examples(15)
    @given(DOCUMENTS)
    def check(made):
        fast, tokens = tokens_of(made)
        found = judge(policy, fast)
        np.testing.assert_allclose(found.weight, slow.weigh(policy, tokens), rtol=1e-5, atol=1e-7)
        assert ((found.weight >= 0) & (found.weight <= 1)).all()

    check()


def test_soft_weights_around_a_share_become_its_mask():
    """As the temperature goes to 0; at the edge itself a half."""
    fast = many()
    hard = Policy(score=EXCESS, direction="high", keep=0.6)
    mask = judge(hard, fast)
    sharp, wide = (judge(dataclasses.replace(hard, soft=soft), fast) for soft in (1e-4, 0.5))
    assert np.mean((sharp.weight > 0.5) == mask.selected) > 0.998 and sharp.weight[~mask.candidates].max() == 0
    assert np.array_equal(sharp.selected, mask.selected)
    assert wide.weight[mask.candidates].min() + 0.3 > 0.01 and 0.5 < wide.weight[mask.candidates].mean() < 0.65


@pytest.mark.parametrize("tied", [False, True], ids=["different", "equal scores"])
@pytest.mark.parametrize("scope", ["global", "shard"])
@pytest.mark.parametrize("unit", ["tokens", "bytes"])
@pytest.mark.parametrize("per", ["token", "byte"])
def test_the_share_is_within_a_tenth_of_a_point(per, unit, scope, tied):
    fast = many(tied)
    weights = np.maximum(fast.lengths, 0) if unit == "bytes" else np.ones(len(fast.lengths))
    of_token = np.repeat(fast.shards, np.diff(fast.bounds))
    for direction, keep in (("high", 0.6), ("low", 0.07), ("high", 0.93)):
        found = judge(Policy(score=EXCESS, direction=direction, per=per, unit=unit, keep=keep, scope=scope), fast)
        for shard in (0, 1):
            among = found.candidates & ((of_token == shard) | (scope == "global"))
            assert abs(weights[among & found.selected].sum() / weights[among].sum() - keep) < 0.001


def parts_of(tokens, edges):
    """Return runs of documents, as tables of a shard are."""
    found = []
    for low, high in pairwise(edges):
        begin, end = tokens.bounds[low], tokens.bounds[high]
        signals = {key: values[begin:end] for key, values in tokens.signals.items()}
        found.append(
            Tokens(
                signals,
                tokens.bounds[low : high + 1] - begin,
                tokens.starts[low:high],
                tokens.lengths[begin:end],
                tokens.shards[low:high],
            )
        )
    return found


@examples(25)
@given(DOCUMENTS, st.sampled_from([*POOLED, *LOCAL, Policy(all_of=(POOLED[0], POOLED[3]))]), st.randoms(use_true_random=False))
def test_parts_counted_and_selected_on_their_own_are_the_whole(made, policy, random):
    """Histograms of parts in any order, one cut, then part by part: the mask of all tokens at once."""
    fast, _ = tokens_of(made, [number % 2 for number in range(len(made))])
    edges = [0, *sorted(random.choices(range(len(made) + 1), k=2)), len(made)]
    parts = parts_of(fast, edges)
    cuts = []
    for number, gate in enumerate(policy.gates()):
        if not gate.pooled:
            cuts.append(None)
            continue
        groups = {}
        for part in random.sample(parts, len(parts)):
            scores, candidates = selection.scores_of_gates(policy, part)
            for group, counted in selection.count(gate, part, scores[number], candidates, candidates).items():
                groups.setdefault(group, []).append(counted)
        merged = {group: histogram.merge(counted) for group, counted in groups.items()}
        cuts.append({group: histogram.cut_of(h, gate.keep, gate.unit, gate.direction) for group, h in merged.items()})
    found = np.concatenate([select_of(policy, part, cuts).selected for part in parts])
    assert np.array_equal(found, judge(policy, fast).selected)


@examples(25)
@given(DOCUMENTS, st.sampled_from(LOCAL + POOLED))
def test_tokens_without_a_score_count_for_nothing(made, policy):
    """Put before every token one that lacks a signal: the others are selected as before."""
    holes = [[each for token in document for each in (((0.0, NAN, 0.0), 5), token)] for document in made]
    if policy.scope == "sequence":
        policy = dataclasses.replace(policy, sequence_tokens=None, scope="document")
    if ("b", "nll") not in {(term.model, term.signal) for term in policy.terms()}:
        return
    shards = [number % 2 for number in range(len(made))]
    plain, with_holes = (judge(policy, tokens_of(each, shards)[0]).selected for each in (made, holes))
    assert not with_holes[0::2].any() and np.array_equal(with_holes[1::2], plain)


def test_all_of_and_a_cap_are_what_each_selects_alone():
    fast = many()
    one, two = POOLED[0], Policy(score=ENTROPY, direction="low", keep=0.7, unit="bytes")
    both = judge(Policy(all_of=(one, two)), fast).selected
    assert np.array_equal(both, judge(one, fast).selected & judge(two, fast).selected)
    capped = judge(dataclasses.replace(one, cap=Cap(model="a", quantile=0.8)), fast).selected
    low = Policy(score=(Term(model="a"),), direction="low", keep=0.8)
    assert np.array_equal(capped, judge(one, fast).selected & judge(low, fast).selected)
    loss = fast.signals["a", "nll"]
    fixed = judge(dataclasses.replace(one, cap=Cap(model="a", value=2.0)), fast).selected
    assert (
        np.array_equal(fixed, judge(one, fast).selected & (loss <= 2.0))
        and loss[fixed].max() <= 2.0 < loss[~np.isnan(loss)].max()
    )


def test_a_threshold_splits_scores_between_its_directions():
    """High above it, low at most it: SHAD's boilerplate has 0 and below."""
    fast, _ = tokens_of([[((0.0, value, 0.0), 1) for value in (-0.0, 0.0, 1e-7, -1e-7, NAN)]])
    high, low = (judge(Policy(score=EXCESS, direction=d, threshold=0.0), fast).selected for d in ("high", "low"))
    assert high.tolist() == [False, False, True, False, False]
    assert low.tolist() == [True, True, False, True, False]


def test_signals_are_added_wider_than_they_are_stored():
    values = np.array([[40_000, 1.0, 2048, np.inf], [-40_000, 1.0009765625, 0.25, np.inf]], np.float16)
    signals = {("a", "nll"): values[0], ("b", "nll"): values[1]}
    tokens = Tokens(signals, np.array([0, 4]), histogram.starts_of(["x"]))
    found = scores_of(Policy(score=(Term(model="a"), Term(model="b", weight=-1)), direction="high", keep=1.0), tokens)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([80_000, -0.0009765625, 2047.75, np.nan], np.float32))


def test_scores_per_byte_divide_by_the_bytes_of_the_token():
    """By 1 where it spells nothing, or nobody knows what."""
    signals = {("a", "nll"): np.full(4, 6.0, np.float16)}
    tokens = Tokens(signals, np.array([0, 4]), histogram.starts_of(["x"]), np.array([3, 1, 0, -1], np.int32))
    policy = Policy(score=(Term(model="a"),), direction="high", keep=1.0, per="byte")
    assert scores_of(policy, tokens).tolist() == [2.0, 6.0, 6.0, 6.0]


def test_pieces_of_documents():
    assert pieces(np.array([0, 0, 7, 10, 10]), 3).tolist() == [0, 3, 6, 7, 10]
    assert pieces(np.array([0]), 3).tolist() == [0]


def test_no_tokens_at_all():
    fast, _ = tokens_of([[], []])
    for policy in (*LOCAL, *POOLED, *SOFT):
        assert judge(policy, fast).selected.shape == (0,)
    empty, _ = tokens_of([])
    assert judge(POOLED[0], empty).selected.shape == (0,)
    nothing = tokens_of([[((NAN, NAN, NAN), 1)] * 3])[0]
    assert not judge(POOLED[0], nothing).selected.any() and not judge(SOFT[1], nothing).weight.any()
    assert ALL == 0
