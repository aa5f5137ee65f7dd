"""The n-gram models against a slow transcription of their formula, and the stage around them."""

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from stages.score import ngram
from stages.score.reference import Curated, Ngram, Reference
from stages.score.scheme import SCHEMES, Score

VOCABULARY = 9
DOCUMENTS = st.lists(st.tuples(st.lists(st.integers(0, VOCABULARY - 1), max_size=12), st.booleans()), min_size=1, max_size=6)


def table(documents, kind=None, vocab_size=VOCABULARY):
    field = pa.field("input_ids", pa.list_(kind or pa.uint16()), metadata={"vocab_size": str(vocab_size), "eos_id": "0"})
    ids = pa.array([ids for ids, _ in documents], field.type)
    scores = pa.array([0.95 if curated else 0.3 for _, curated in documents], pa.float32())
    names = pa.array([f"d{i}" for i in range(len(documents))], pa.string())
    return pa.table([ids, scores, names], schema=pa.schema([field, ("language_score", pa.float32()), ("id", pa.string())]))


def stage(order=3, slots=2**12, discount=0.75, column="language_score", at_least=0.9):
    curated = Curated(column=column, at_least=at_least)
    return Score(reference=Reference(ngram=Ngram(order=order, slots=slots, discount=discount, curated=curated)))


def fit(score, tables):
    """Do what the machine does: rows of each table, combined by shard, sorted by key, reduced, settled."""
    emit, combine, reduce = score.open(), score.combine(), score.reduce()
    runs = [combine(emit(each)) for each in tables]
    rows = pa.concat_tables(runs).sort_by("key")
    half = rows.num_rows // 2
    while 0 < half < rows.num_rows and rows["key"][half] == rows["key"][half - 1]:
        half += 1
    return score.settle()([reduce(rows.slice(0, half)), reduce(rows.slice(half))])


def events(documents, order):
    """All (document, position, context, token) that are counted."""
    for d, ids in enumerate(documents):
        for at in range(1, len(ids)):
            for length in range(1, min(order, at + 1) + 1):
                yield d, at, tuple(ids[at - length + 1 : at]), ids[at]


def slow_probability(counted, context, token, order, discount, vocabulary):
    """Transcribe the formula: `counted` is a Counter of (context, token)."""
    p = 1 / vocabulary
    for length in range(1, min(order, len(context) + 1) + 1):
        tail = tuple(context[len(context) - length + 1 :])
        after = {w: n for (c, w), n in counted.items() if c == tail and n > 0}
        total = sum(after.values())
        if total:
            p = max(after.get(token, 0) - discount, 0) / total + discount * len(after) / total * p
    return p


def slow_losses(documents, marks, order, discount, vocabulary):
    """Return [(base, reference)] per document; every token's own events are taken out and all is counted again."""
    out = []
    for d, ids in enumerate(documents):
        pairs = [(math.nan, math.nan)] if ids else []
        for at in range(1, len(ids)):
            losses = []
            for curated_only in (False, True):
                counted = Counter(
                    (context, token)
                    for e, i, context, token in events(documents, order)
                    if (marks[e] or not curated_only) and (e, i) != (d, at)
                )
                losses.append(-math.log(slow_probability(counted, ids[:at], ids[at], order, discount, vocabulary)))
            pairs.append(tuple(losses))
        out.append(pairs)
    return out


def slots_are_shared(documents, order, slots):
    """Tell whether two n-grams or contexts of one length share a slot."""
    seen = {}
    for ids in documents:
        array = np.array(ids, np.uint32)
        for at in range(1, len(ids)):
            for length in range(1, min(order, at + 1) + 1):
                gram, context = ngram._slots_of_compiled(array, at, length, slots)
                words = tuple(ids[at - length + 1 : at + 1])
                for key, what in ((("gram", length, gram), words), (("context", length, context), words[:-1])):
                    if seen.setdefault(key, what) != what:
                        return True
    return False


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.integers(1, 4), st.sampled_from([0.3, 0.75]))
def test_losses_are_those_of_a_slow_transcription(documents, order, discount):
    ids, marks = [list(ids) for ids, _ in documents], [curated for _, curated in documents]
    assume(any(curated and len(each) > 1 for each, curated in documents))
    assume(not slots_are_shared(ids, order, 2**12))
    score = stage(order, discount=discount)
    tables = ngram.Tables.of(fit(score, [table(documents)]), score.reference.ngram)
    offsets = np.cumsum([0, *map(len, ids)])
    flat = np.array([i for each in ids for i in each], np.uint32)
    base, reference = tables.losses(flat, offsets, np.array(marks), VOCABULARY)
    slow = [pair for each in slow_losses(ids, marks, order, discount, VOCABULARY) for pair in each]
    np.testing.assert_allclose(np.stack([base, reference], 1).reshape(-1, 2), np.array(slow).reshape(-1, 2), rtol=1e-12)

    out = score.apply(fit(score, [table(documents)]))(table(documents))  # the stage stores the same, rounded once
    stored = out["ref_loss"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(stored, reference.astype(np.float16))
    np.testing.assert_array_equal(out["excess"].combine_chunks().flatten().to_numpy(), (base - reference).astype(np.float16))


@settings(max_examples=40, deadline=None)
@given(DOCUMENTS, st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=5), st.integers(1, 4))
def test_probabilities_sum_to_one(documents, context, order):
    ids = [list(each) for each, _ in documents]
    assume(any(curated and len(each) > 1 for each, curated in documents))
    nexts = [[*context, token] for token in range(VOCABULARY)]
    assume(not slots_are_shared([*ids, *nexts], order, 2**12))
    score = stage(order)
    tables = ngram.Tables.of(fit(score, [table(documents)]), score.reference.ngram)
    offsets = np.arange(VOCABULARY + 1) * (len(context) + 1)
    _, reference = tables.losses(np.array(nexts, np.uint32).ravel(), offsets, np.zeros(VOCABULARY, bool), VOCABULARY)
    assert math.isclose(np.exp(-reference[len(context) :: len(context) + 1]).sum(), 1, rel_tol=1e-12)


@settings(max_examples=30, deadline=None)
@given(DOCUMENTS, st.data())
def test_the_split_into_tables_and_the_order_of_shards_change_no_bit(documents, data):
    assume(any(curated and len(each) > 1 for each, curated in documents))
    score, docs = stage(slots=16), table(documents)  # slots are shared here: that must not depend on the order either
    cut = data.draw(st.integers(0, len(documents)))
    parts = [docs.slice(0, cut), docs.slice(cut)]
    whole = fit(score, [docs])
    for split in (parts, parts[::-1], [pa.concat_tables(parts)], [docs.slice(i, 1) for i in range(docs.num_rows)][::-1]):
        assert fit(score, split).equals(whole)
    scored = score.apply(whole)(docs)
    again = pa.concat_tables([score.apply(whole)(part) for part in parts])
    for name in ("ref_loss", "excess"):
        one, other = (each[name].combine_chunks().flatten().to_numpy().view(np.uint16) for each in (scored, again))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", [pa.uint16(), pa.uint32()])
def test_columns_are_aligned_and_say_what_they_are(kind):
    documents = [([1, 2, 3, 4], True), ([], False), ([5], True), ([1, 2, 3], False), ([1, 2, 3, 4, 5, 6], True)]
    score, docs = stage(), table(documents, kind)
    apply = score.apply(fit(score, [docs]))
    for rows in (docs, docs.slice(1, 3), docs.slice(2), pa.concat_tables([docs.slice(0, 2), docs.slice(2)]), docs.slice(0, 0)):
        out = apply(rows)
        assert out.select(docs.column_names).equals(rows)
        for name in ("ref_loss", "excess"):
            assert out.schema.field(name).type == pa.list_(pa.float16()) == score.adds()[name]
            assert out.schema.field(name).metadata[b"scheme"] == b"rho1"
            for ids, values in zip(rows["input_ids"].to_pylist(), out[name].to_pylist(), strict=True):
                assert len(ids) == len(values)
                assert [math.isnan(value) for value in values] == [i == 0 for i in range(len(ids))]
        assert out.schema.field("excess").metadata[b"keep"] == b"highest"
        assert apply(out).column_names == out.column_names  # replaced, not added twice


def test_excess_is_higher_where_the_curated_documents_agree():
    rng = np.random.default_rng(0)
    prose = [([1, 2, 3, 4, 5] * 8, i % 4 == 0) for i in range(16)]
    noise = [([int(i) for i in rng.integers(6, 60, 40)] + [7, 8] * 20, False) for _ in range(60)]
    score = stage(slots=2**16)
    docs = table(prose + noise, vocab_size=64)
    out = score.apply(fit(score, [docs]))(docs)
    means = [np.nanmean(np.array(values, float)) for values in out["excess"].to_pylist()]
    assert min(means[:16]) > max(means[16:])


def test_shared_slots_stay_finite():
    rng = np.random.default_rng(1)
    docs = table([([int(i) for i in rng.integers(0, 500, 300)], bool(d % 2)) for d in range(8)], vocab_size=500)
    score = stage(order=4, slots=2)
    out = score.apply(fit(score, [docs]))(docs)
    for values in (out["ref_loss"].to_pylist(), (np.array(each) for each in out["excess"].to_pylist())):
        for each in values:
            assert np.isfinite(np.array(each[1:], float)).all()
    assert min(min(each[1:]) for each in out["ref_loss"].to_pylist()) >= 0


def test_rows_of_counts_are_bounded_by_the_slots():
    rng = np.random.default_rng(2)
    docs = table([([int(i) for i in rng.integers(0, 500, 5000)], True)], vocab_size=500)
    score = stage(order=3, slots=64)
    rows = score.open()(docs)
    assert rows.num_rows <= 2 * 2 * 3 * 64
    assert rows["count"].to_numpy().sum() == 2 * 2 * (4999 + 4999 + 4998)
    keys = rows["key"].to_numpy()
    assert keys.max() > 2**63  # spread over the whole range, where the exchange cuts it
    assert len(np.unique(keys)) == len(keys)


def test_a_document_is_not_scored_with_its_own_words():
    unique = ([3, 1, 4, 1, 5, 2, 6, 5, 3, 5], True)
    others = [([7, 8] * 20, True)] * 3
    score = stage()
    docs = table([unique, *others])
    out = score.apply(fit(score, [docs]))(docs)
    seen_once = out["ref_loss"].to_pylist()[0][8]  # token 3 there occurs nowhere else as a target
    assert seen_once > math.log(VOCABULARY)


def test_a_null_in_the_column_is_not_curated():
    docs = table([([1, 2, 3], True), ([4, 5, 6], True)])
    scores = pa.array([0.95, None], pa.float64())
    rows = stage().open()(docs.set_column(1, "language_score", scores))
    expected = stage().open()(table([([1, 2, 3], True), ([4, 5, 6], False)]))
    assert rows.equals(expected)


def test_nothing_curated_is_a_mistake_and_nothing_at_all_is_not():
    score = stage()
    with pytest.raises(InputError, match=r"no document has language_score of at least 0.9"):
        fit(score, [table([([1, 2, 3], False)])])
    model = fit(score, [table([])])
    assert model.num_rows == 0
    assert score.apply(model)(table([])).num_rows == 0
    lone = table([([4], True), ([], False)])  # nothing to predict
    assert fit(score, [lone]).num_rows == 0


def test_mistakes_name_the_key():
    with pytest.raises(ValueError, match=r"^scheme 'rho2' is unknown; did you mean 'rho1'"):
        Score(scheme="rho2")
    for wrong, message in (
        ({"order": 0}, "^order must be from 1 to 8, found 0"),
        ({"slots": 1000}, "^slots must be a power of two"),
        ({"slots": 2**29}, "^slots must be a power of two"),
        ({"discount": 1.0}, "^discount must be between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Ngram(**wrong)
    with pytest.raises(InputError, match="column 'id' is string; it must be a number"):
        stage(column="id").open()(table([([1, 2], True)]))


def test_contract():
    score = stage(column="quality")
    assert score.needs() == ("input_ids", "quality")
    assert set(score.measures()) <= set(score.adds())
    assert Score.actor
    assert SCHEMES["rho1"].keep == "highest"
    assert SCHEMES["rho1"].score(np.array([3.0]), np.array([1.0])) == 2.0
