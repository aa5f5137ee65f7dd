"""The stage that counts n-gram models on a build and scores its documents with them: against models made by hand."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.models.ngram import kneser_ney, store
from gristmill.models.ngram.cross_fit import folds_of
from gristmill.models.ngram.kneser_ney import FALLBACK
from stages.score.ngram import Curated, Ngram, ScoreNgram
from stages.score.ngram_rows import Layout, add_up, vocab_size_of
from tests.random_examples import examples

VOCABULARY = 9
CURATED = Curated(column="language_score", at_least=0.9)
DOCUMENTS = st.lists(st.tuples(st.lists(st.integers(0, VOCABULARY - 1), max_size=12), st.booleans()), min_size=1, max_size=9)


def table(documents, kind=None, vocab_size=VOCABULARY):
    """Return documents of (ids, whether curated); their names are their numbers."""
    field = pa.field("input_ids", pa.list_(kind or pa.uint16()), metadata={"vocab_size": str(vocab_size), "eos_id": "0"})
    ids = pa.array([ids for ids, _ in documents], field.type)
    scores = pa.array([0.95 if curated else 0.3 for _, curated in documents], pa.float32())
    names = pa.array([f"d{i}" for i in range(len(documents))], pa.string())
    return pa.table([ids, scores, names], schema=pa.schema([field, ("language_score", pa.float32()), ("id", pa.string())]))


def stage(folds=2, **models):
    return ScoreNgram(models=models or {"base": Ngram(), "reference": Ngram(curated=CURATED)}, folds=folds)


def fit(score, tables):
    """Do what the machine does: rows of each table, combined by shard, sorted by key, reduced, settled."""
    emit, combine, reduce = score.open(), score.combine(), score.reduce()
    rows = pa.concat_tables([combine(emit(each)) for each in tables]).sort_by("key")
    half = rows.num_rows // 2
    while 0 < half < rows.num_rows and rows["key"][half] == rows["key"][half - 1]:
        half += 1
    return score.settle()([reduce(rows.slice(0, half)), reduce(rows.slice(half))])


def values(table, model):
    return [np.array(each, np.float16) for each in table[f"ref_loss.{model}"].to_pylist()]


def by_hand(documents, marks, parameters, folds, vocab_size=VOCABULARY):
    """Return the losses of each document under a model counted on the marked documents of the other folds."""
    fold = folds_of([f"d{i}" for i in range(len(documents))], folds)
    found = []
    for i, document in enumerate(documents):
        seen = [d for j, d in enumerate(documents) if marks[j] and (folds == 1 or fold[j] != fold[i])]
        bounds = np.concatenate([[0], np.cumsum([len(d) for d in seen])]).astype(np.int64)
        flat = np.array([token for d in seen for token in d], np.uint32)
        counts = kneser_ney.count(flat, bounds, order=parameters.order, vocab_size=vocab_size)
        model = kneser_ney.estimate(counts, prune=parameters.prune, fallback=FALLBACK)
        losses = model.open()(np.array(document, np.uint32), np.array([0, len(document)]))
        losses[:1] = np.nan
        found.append(losses.astype(np.float16))
    return found


@examples(40)
@given(DOCUMENTS, st.integers(1, 4), st.integers(2, 5), st.sampled_from([(), (0, 1)]), st.sampled_from([VOCABULARY, 40_000]))
def test_each_document_is_scored_by_the_models_of_the_other_folds(documents, folds, order, prune, vocab_size):
    ids, marks = [each for each, _ in documents], [curated for _, curated in documents]
    models = {"base": Ngram(order=order, prune=prune), "reference": Ngram(curated=CURATED)}
    score, docs = stage(folds, **models), table(documents, pa.uint32(), vocab_size)
    try:
        slow = {
            "base": by_hand(ids, [True] * len(ids), models["base"], folds, vocab_size),
            "reference": by_hand(ids, marks, models["reference"], folds, vocab_size),
        }
    except InputError:  # a model with nothing to count; also where only a fold without documents is in want of it
        with pytest.raises(InputError, match=r"none of \d+ documents are|are in one of \d folds"):
            fit(score, [docs])
        return
    try:
        model = fit(score, [docs])
    except InputError:
        present = set(folds_of(docs["id"].to_pylist(), folds).tolist())
        assert len(present) < folds or not any(marks)
        return
    out = score.apply(model)(docs)
    for name in models:
        for ours, theirs in zip(values(out, name), slow[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)


@examples(25)
@given(st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=12), min_size=8, max_size=14), st.data())
def test_the_split_into_tables_and_the_order_of_shards_change_no_bit(documents, data):
    docs = table([(each, i % 3 > 0) for i, each in enumerate(documents)])
    score = stage()
    cut = data.draw(st.integers(0, len(documents)))
    parts = [docs.slice(0, cut), docs.slice(cut)]
    whole = fit(score, [docs])
    for split in (parts, parts[::-1], [pa.concat_tables(parts)], [docs.slice(i, 1) for i in range(docs.num_rows)][::-1]):
        assert fit(score, split).equals(whole)
    scored = score.apply(whole)(docs)
    again = pa.concat_tables([score.apply(whole)(part) for part in parts])
    for name in ("base", "reference"):
        for one, other in zip(values(scored, name), values(again, name), strict=True):
            np.testing.assert_array_equal(one.view(np.uint16), other.view(np.uint16))


def test_the_order_of_models_in_the_config_changes_nothing():
    rng = np.random.default_rng(0)
    docs = table([(rng.integers(0, VOCABULARY, 30).tolist(), True) for _ in range(12)])
    one = stage(a=Ngram(), b=Ngram(order=2, prune=(0, 1)))
    other = stage(b=Ngram(order=2, prune=(0, 1)), a=Ngram())
    model = fit(one, [docs])
    assert fit(other, [docs]).equals(model)
    ours, theirs = one.apply(model)(docs), other.apply(model)(docs)
    assert ours.schema.equals(theirs.schema, check_metadata=True)
    for name in ("a", "b"):
        for left, right in zip(values(ours, name), values(theirs, name), strict=True):
            np.testing.assert_array_equal(left, right)


def test_no_model_has_seen_what_it_scores():
    rng = np.random.default_rng(1)
    documents = [(rng.integers(0, 400, 60).tolist(), True) for _ in range(40)]
    docs = table(documents, vocab_size=400)
    means = {}
    for folds in (1, 2, 4):
        score = stage(folds, m=Ngram())
        means[folds] = np.nanmean(np.concatenate(values(score.apply(fit(score, [docs]))(docs), "m")).astype(float))
    assert means[1] < 1.5  # learnt by heart
    assert min(means[2], means[4]) > math.log(400) - 0.2  # there is nothing to learn


def test_curated_documents_and_others_like_them_are_easier_under_the_reference():
    rng = np.random.default_rng(0)
    prose = [([1, 2, 3, 4, 5] * 8, i % 2 == 0) for i in range(16)]
    noise = [([int(i) for i in rng.integers(6, 60, 40)] + [7, 8] * 20, False) for _ in range(60)]
    score, docs = stage(), table(prose + noise, vocab_size=64)
    out = score.apply(fit(score, [docs]))(docs)
    pairs = zip(values(out, "base"), values(out, "reference"), strict=True)
    excess = [np.nanmean(base.astype(float) - reference) for base, reference in pairs]
    assert min(excess[:16]) > max(excess[16:])


@pytest.mark.parametrize("kind", [pa.uint16(), pa.uint32()], ids=str)
def test_columns_are_aligned_and_say_what_they_are(kind):
    documents = [([1, 2, 3, 4], True), ([], False), ([5], True), ([1, 2, 3], False), ([1, 2, 3, 4, 5, 6], True), ([1, 2], True)]
    score, docs = stage(), table(documents, kind)
    assert {0, 1} == set(folds_of(docs.filter(pa.array([c for _, c in documents]))["id"].to_pylist(), 2).tolist())
    apply = score.apply(fit(score, [docs]))
    for rows in (docs, docs.slice(1, 3), docs.slice(2), pa.concat_tables([docs.slice(0, 2), docs.slice(2)]), docs.slice(0, 0)):
        out = apply(rows)
        assert out.select(docs.column_names).equals(rows)
        assert apply(out).column_names == out.column_names  # replaced, not added twice
        for name in ("base", "reference"):
            field = out.schema.field(f"ref_loss.{name}")
            assert field.type == pa.list_(pa.float16()) == score.adds()[field.name]
            assert field.metadata[b"scheme"] == name.encode()
            for ids, losses in zip(rows["input_ids"].to_pylist(), values(out, name), strict=True):
                assert len(losses) == len(ids) and np.isnan(losses[:1]).all() and (losses[1:] > 0).all()
    about = json.loads(apply(docs).schema.field("ref_loss.reference").metadata[b"about"])
    assert sum(about.pop("documents")) == 4 and sum(about.pop("tokens")) == 13  # each document is in one of the two models
    assert about == {
        "kind": "ngram",
        "order": 3,
        "prune": [],
        "discounts": [[list(FALLBACK)] * 3] * 2,
        "folds": 2,
        "curated": {"column": "language_score", "at_least": 0.9},
        "unit": "nats",
    }


def test_models_are_files_that_can_be_read_alone(tmp_path):
    rng = np.random.default_rng(3)
    docs = table([(rng.integers(0, VOCABULARY, 30).tolist(), True) for _ in range(6)])
    score = stage(folds=1, m=Ngram(order=4))
    model = fit(score, [docs])
    (tmp_path / "m.arrow").write_bytes(model["saved"][0].as_py())
    ids = docs["input_ids"].combine_chunks()
    losses = store.load(tmp_path / "m.arrow").open()(ids.values.to_numpy(), ids.offsets.to_numpy())
    losses[ids.offsets.to_numpy()[:-1]] = np.nan
    scored = score.apply(model)(docs)["ref_loss.m"].combine_chunks()
    np.testing.assert_array_equal(losses.astype(np.float16), scored.values.to_numpy())


def test_keys_are_spread_over_all_64_bits():
    rng = np.random.default_rng(2)
    docs = table([(rng.integers(0, 500, 20_000).tolist(), True)], vocab_size=50_257)
    keys = np.sort(stage(folds=1, m=Ngram()).open()(docs)["key"].to_numpy())
    assert len(keys) > 19_000  # trigrams of one word each
    share = np.diff(np.searchsorted(keys, np.arange(17, dtype=np.float64) * 2.0**60)) / len(keys)
    assert share.min() > 0.8 / 16 and share.max() < 1.2 / 16


@examples(25)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, VOCABULARY - 1), max_size=9), st.integers(0, 3)), min_size=1, max_size=8),
    st.lists(st.integers(2, 5), min_size=4, max_size=4),
    st.sampled_from([VOCABULARY, 2**16 - 2, 2**20, 2**24]),
)
def test_rows_give_back_the_counts_of_each_group(documents, orders, vocab_size):
    layout = Layout(vocab_size, tuple(orders))
    groups = np.array([group for _, group in documents])
    bounds = np.concatenate([[0], np.cumsum([len(each) for each, _ in documents])]).astype(np.int64)
    ids = np.array([token for each, _ in documents for token in each], np.uint32)
    rows = layout.rows(ids, bounds, [groups == group for group in range(4)])
    number, counts = layout.counts([add_up(rows), add_up(rows.slice(0, 0))])
    assert number == len(documents) and vocab_size_of([rows]) == vocab_size
    assert number == sum(each.documents for each in counts) and len(ids) == sum(each.tokens for each in counts)
    for group, (order, ours) in enumerate(zip(orders, counts, strict=True)):
        here = [each for each, other in documents if other == group]
        ends = np.concatenate([[0], np.cumsum([len(each) for each in here])]).astype(np.int64)
        flat = np.array([token for each in here for token in each], np.uint32)
        expected = kneser_ney.count(flat, ends, order=order, vocab_size=vocab_size)
        assert np.array_equal(ours.keys, expected.keys) and np.array_equal(ours.counts, expected.counts)


def test_a_null_in_the_column_is_not_curated():
    docs = table([([1, 2, 3], True), ([4, 5, 6], True)])
    rows = stage().open()(docs.set_column(1, "language_score", pa.array([0.95, None], pa.float64())))
    assert rows.equals(stage().open()(table([([1, 2, 3], True), ([4, 5, 6], False)])))


def test_nothing_to_count_is_a_mistake_and_nothing_at_all_is_not():
    docs = table([([1, 2, 3], False)] * 9)
    with pytest.raises(InputError, match=r"'reference': none of 9 documents are with language_score of at least 0.9; lower mod"):
        fit(stage(), [docs])
    with pytest.raises(InputError, match=r"'reference': all 1 documents with .* are in one of 2 folds.* or set folds: 1"):
        fit(stage(), [pa.concat_tables([docs, table([([1, 2, 3], True)])])])
    with pytest.raises(InputError, match=r"'m': all 1 documents are in one of 2 folds, so nothing is .*; set folds: 1"):
        fit(stage(m=Ngram()), [table([([1, 2, 3], True)])])
    model = fit(stage(), [table([])])
    assert model.num_rows == 0
    assert stage().apply(model)(table([])).num_rows == 0
    with pytest.raises(InputError, match=r"curated.column 'id' is string; it must be a number"):
        stage(m=Ngram(curated=Curated(column="id", at_least=1))).open()(docs)


def test_mistakes_name_the_key():
    for wrong, message in (
        ({"order": 1}, "^order must be from 2 to 5, found 1"),
        ({"order": 6}, "^order must be from 2 to 5, found 6"),
        ({"prune": (1,)}, "^prune must be"),
        ({"prune": (0, 2, 1)}, "^prune must be"),
        ({"order": 2, "prune": (0, 0, 1)}, "^prune must be at most 2 numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            Ngram(**wrong)
    with pytest.raises(ValueError, match="models must name one model or more"):
        ScoreNgram(models={})
    with pytest.raises(ValueError, match="the name 'A b' must be of"):
        ScoreNgram(models={"A b": Ngram()})
    for folds in (0, 33):
        with pytest.raises(ValueError, match="folds must be from 1 to 32"):
            ScoreNgram(models={"m": Ngram()}, folds=folds)


def test_contract():
    score = stage(a=Ngram(curated=Curated(column="quality", at_least=1)), b=Ngram(curated=CURATED), c=Ngram())
    assert score.needs() == ("input_ids", "language_score", "quality")
    assert score.measures() == tuple(score.adds()) == ("ref_loss.a", "ref_loss.b", "ref_loss.c")
    assert score.resources() is not None
