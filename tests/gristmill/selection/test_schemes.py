"""Each scheme against its paper's formula, written out in plain Python; and superwords, which nats per token throw away."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.models.build_tokenizer import read
from gristmill.selection.histogram import bins_of, starts_of
from gristmill.selection.policy import Cap, Policy, Term
from gristmill.selection.schemes import SCHEMES, Scheme
from gristmill.selection.selection import Tokens, judge
from gristmill.tokenizer import SuperBpe
from gristmill.tokenizer.files import save
from gristmill.tokenizer.token_bytes import lengths_of
from gristmill.tokenizer.training.corpus import make_corpus
from stages.encode.encode import Encode
from tests.random_examples import examples

LOSS = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 4.0]), st.floats(0, 20, width=16))
ROWS = st.lists(st.tuples(LOSS, LOSS, LOSS), min_size=1, max_size=25)


def tokens(rows, names):
    """Return one document whose first token has no signals; `names`: of the columns of the rows."""
    values = np.array([[math.nan] * len(names), *(row[: len(names)] for row in rows)], np.float16)
    signals = {name: np.ascontiguousarray(values[:, number]) for number, name in enumerate(names)}
    return Tokens(signals, np.array([0, len(values)]), starts_of(["x"]))


def ranked(scores, keep, high):
    """Return which are surely among the share, and which surely not: those beside the bin that it ends in."""
    signed = [score if high else -score for score in scores]
    edge = sorted(signed, reverse=True)[math.ceil(keep * len(scores) - 1e-9) - 1]
    bins = bins_of(np.array([edge, *signed], np.float32)).tolist()
    return [bin_ > bins[0] for bin_ in bins[1:]], [bin_ < bins[0] for bin_ in bins[1:]]


def expect_share(selected, scores, keep, high):
    inside, outside = ranked(scores, keep, high)
    assert all(selected[at] for at, yes in enumerate(inside) if yes)
    assert not any(selected[at] for at, yes in enumerate(outside) if yes)
    assert abs(sum(selected) - keep * len(scores)) < 1 + 1e-9


def selected(scheme, made):
    found = judge(scheme.policy(), made).selected.tolist()
    assert not found[0], "a document's first token"
    return found[1:]


@examples(25)
@given(ROWS, st.sampled_from([0.1, 0.5, 0.6, 1.0]))
def test_rho1_offline_keeps_the_highest_base_minus_reference(rows, keep):
    made = tokens(rows, [("base", "nll"), ("ref", "nll")])
    scheme = Scheme(scheme="rho1_offline", base="base", reference="ref", keep=keep)
    expect_share(selected(scheme, made), [base - ref for base, ref, _ in rows], keep, high=True)


@examples(25)
@given(ROWS)
def test_self_reference_keeps_what_is_low_in_both(rows):
    made = tokens(rows, [("m", "nll"), ("m", "entropy")])
    found = selected(Scheme(scheme="self_reference", model="m"), made)
    sides = [ranked([row[column] for row in rows], 0.7, high=False) for column in (0, 1)]
    for at, yes in enumerate(found):
        if all(inside[at] for inside, _ in sides):
            assert yes
        if any(outside[at] for _, outside in sides):
            assert not yes


@examples(25)
@given(ROWS, st.sampled_from(["nll", "entropy"]), st.sampled_from([0.2, 0.9]))
def test_eslm_keeps_the_tail_above_the_quantile_and_the_cap_takes_from_it(rows, signal, keep):
    made = tokens(rows, [("m", signal), ("ref", "nll")])
    plain = selected(Scheme(scheme="eslm", model="m", signal=signal, keep=keep), made)
    expect_share(plain, [value for value, _, _ in rows], keep, high=True)
    capped = selected(Scheme(scheme="eslm", model="m", signal=signal, keep=keep, cap=Cap(model="ref", value=4.0)), made)
    assert capped == [yes and reference <= 4.0 for yes, (_, reference, _) in zip(plain, rows, strict=True)]


@examples(25)
@given(ROWS)
def test_shad_drops_what_shuffling_made_easier(rows):
    made = tokens(rows, [("shuffled", "nll"), ("original", "nll")])
    found = selected(Scheme(scheme="shad", shuffled="shuffled", original="original"), made)
    assert found == [shuffled - original > 0 for shuffled, original, _ in rows]


@examples(25)
@given(ROWS, st.sampled_from(["low", "high"]), st.sampled_from([0.5, 1.0]))
def test_contrast_ranks_by_the_likelihood_of_the_positive_against_the_negative(rows, direction, beta):
    """s = p⁺^(1 + β) / p⁻^β: critical where it is low, so where −log s is high."""
    made = tokens(rows, [("positive", "nll"), ("negative", "nll")])
    scheme = Scheme(scheme="contrast", positive="positive", negative="negative", direction=direction, beta=beta, keep=0.3)
    surprises = [(1 + beta) * positive - beta * negative for positive, negative, _ in rows]
    expect_share(selected(scheme, made), surprises, 0.3, high=direction == "high")


@examples(25)
@given(ROWS)
def test_moore_lewis_keeps_the_lowest_in_domain_minus_general(rows):
    made = tokens(rows, [("domain", "nll"), ("general", "nll")])
    scheme = Scheme(scheme="moore_lewis", domain="domain", general="general", keep=0.4)
    expect_share(selected(scheme, made), [domain - general for domain, general, _ in rows], 0.4, high=False)


def test_rho1_selects_nothing_here():
    assert Scheme(scheme="rho1", reference="ref").policy() == Policy(
        score=(Term(model="ref"),), direction="high", keep=0.6, online=True
    )


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_names_its_paper_and_checks_its_share(name):
    scheme = SCHEMES[name]
    assert any(word in (scheme.__doc__ or "") for word in ("arXiv", "ACL"))
    takes = inspect.signature(scheme).parameters
    needed = {
        key: ("low" if key == "direction" else f"m{i}") for i, key in enumerate(takes) if takes[key].default is takes[key].empty
    }
    made = Scheme(scheme=name, **needed)
    assert made.policy() == scheme(**needed)
    assert all(f"`{name}`" in (Scheme.__doc__ or "") and key in (Scheme.__doc__ or "") for key in takes)
    if "keep" in takes:
        with pytest.raises(ValueError, match=r"^keep is 1.5; allowed are shares above 0 and up to 1"):
            Scheme(scheme=name, keep=1.5, **needed)
    with pytest.raises(ValueError, match=rf"^scheme {name} needs {' and '.join(needed)}; it takes {', '.join(takes)}$"):
        Scheme(scheme=name)
    foreign = "general" if "general" not in takes else "model"
    with pytest.raises(ValueError, match=rf"^{foreign} is no parameter of scheme {name}; it takes {', '.join(takes)}$"):
        Scheme(scheme=name, **needed, **{foreign: "x"})


# ---- superwords ----


@pytest.fixture(scope="module")
def superwords(texts: pa.Table, tmp_path_factory):
    """Real text in superword tokens: bounds, the bytes of each token, and which tokens span words."""
    folder = tmp_path_factory.mktemp("superwords")
    words = [text for text in texts["text"].to_pylist() if text]
    save(SuperBpe(vocab_size=2000, transition=0.4).train(make_corpus(words)), folder)
    stage = Encode(tokenizer=str(folder))
    docs = stage.open()(texts.select(["text"]))["input_ids"].combine_chunks()
    ids = docs.values.to_numpy()
    spelled = stage.tokens().vocabulary.tokens
    spans = np.array([b" " in spelled[i].strip(b" \n") for i in ids.tolist()])
    assert 0.05 < spans.mean() < 0.6 and len(ids) > 10_000
    return docs.offsets.to_numpy().astype(np.int64), lengths_of(ids, read(str(folder)).table), spans


def kept_of(policy, superwords):
    """Return the share of bytes that is kept: of superwords, of all tokens, and the mask."""
    bounds, lengths, spans = superwords
    rng = np.random.default_rng(2)
    # As hard a byte as any other, whatever token it is in.
    base, reference = (lengths * rng.gamma(8.0, 0.05, len(lengths)) for _ in range(2))
    signals = {("base", "nll"): base.astype(np.float16), ("ref", "nll"): reference.astype(np.float16)}
    for values in signals.values():
        values[bounds[:-1][np.diff(bounds) > 0]] = np.nan
    made = Tokens(signals, bounds, starts_of([str(number) for number in range(len(bounds) - 1)]), lengths)
    found = judge(policy, made)
    chosen, counted = found.selected, found.candidates
    shares = [lengths[chosen & among].sum() / lengths[counted & among].sum() for among in (spans, np.ones_like(spans))]
    return *shares, chosen


def test_nats_per_token_throw_superwords_away_and_nats_per_byte_do_not(superwords):
    """Losses in proportion to bytes: what is easy a byte is easy in tokens of any length; shares of bytes come out as asked."""
    easy = dict(score=(Term(model="ref"),), direction="low", keep=0.6, unit="bytes")
    per_byte, all_bytes, one = kept_of(Policy(per="byte", **easy), superwords)
    per_token, all_tokens, other = kept_of(Policy(per="token", **easy), superwords)
    assert abs(all_bytes - 0.6) < 0.001 and abs(all_tokens - 0.6) < 0.001
    assert abs(per_byte - 0.6) < 0.05, "superwords are kept like all tokens"
    assert per_token < per_byte / 2, "by nats a token most are thrown away"
    assert np.mean(one != other) > 0.15


def test_shares_of_tokens_and_of_bytes_differ_where_long_tokens_rank_high(superwords):
    """Excess per token keeps many short tokens' worth of bytes: the same share of tokens is not that of bytes."""
    _, lengths, _ = superwords
    hard = dict(score=(Term(model="base"),), direction="high", keep=0.6)
    _, of_bytes, by_bytes = kept_of(Policy(unit="bytes", **hard), superwords)
    _, too_many, by_tokens = kept_of(Policy(unit="tokens", **hard), superwords)
    assert abs(of_bytes - 0.6) < 0.001 and too_many > 0.75
    assert by_bytes.sum() < 0.5 * len(lengths) < by_tokens.sum()
