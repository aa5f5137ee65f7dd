"""The tables that a Kneser-Ney model scores with: no n-gram is taken for another, whatever their number and the blocks."""

from itertools import pairwise

import numpy as np
import pytest

from gristmill.errors import InputError
from gristmill.models.ngram import lookup as lookup
from gristmill.models.ngram import tables
from gristmill.models.ngram.kneser_ney import FALLBACK, count, estimate

BLOCK = lookup.BLOCK


def documents(seed, tokens, vocab_size, longest):
    """Return ids that favour small ones, as words do, and bounds of documents of up to `longest` tokens, empty ones too."""
    rng = np.random.default_rng(seed)
    ids = (vocab_size * rng.random(tokens) ** 3).astype(np.uint32)
    lengths = rng.integers(0, longest, tokens)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    return ids, np.append(bounds[bounds < tokens], tokens).astype(np.int64)


def model_of(order, prune=(), vocab_size=300, tokens=30_000):
    ids, bounds = documents(0, tokens, vocab_size, 700)
    return estimate(count(ids, bounds, order=order, vocab_size=vocab_size), prune=prune, fallback=FALLBACK)


def read_one_by_one(model, ids, bounds):
    """Score with dictionaries of whole n-grams, from the arrays that a model is made of."""
    begin, found = model.vocab_size, {(i,): tuple(map(float, pair)) for i, pair in enumerate(model.unigrams)}
    grams = [(i,) for i in range(len(model.unigrams))]
    for level in model.levels:
        contexts = np.repeat(np.arange(len(level.begins) - 1), np.diff(level.begins))
        grams = [(*grams[context], int(word)) for context, word in zip(contexts, level.words, strict=True)]
        rests = level.backoffs if len(level.backoffs) else np.zeros(len(grams))
        found |= zip(grams, zip(level.losses.astype(float), rests.astype(float), strict=True), strict=True)
    out = []
    for low, high in pairwise(bounds):
        tokens = (begin, *ids[low:high].tolist())
        for at in range(1, len(tokens)):
            gram, loss = tokens[max(0, at - model.order + 1) : at + 1], 0.0
            while gram not in found:
                loss, gram = loss + found.get(gram[:-1], (0, 0))[1], gram[1:]
            out.append(loss + found[gram][0])
    return np.array(out)


@pytest.mark.parametrize(("order", "prune"), [(2, ()), (3, ()), (3, (0, 0, 1)), (4, (0, 1)), (5, ())])
def test_no_ngram_is_missed_or_taken_for_another(order, prune):
    model = model_of(order, prune)
    for seed, longest in ((0, 700), (1, 3), (2, 5000)):  # seen documents, ones of a word or two, ones over many blocks
        ids, bounds = documents(seed, 8_000, 300, longest)
        np.testing.assert_allclose(model.open()(ids, bounds), read_one_by_one(model, ids, bounds), rtol=1e-6)


def test_what_stands_beside_a_document_and_where_blocks_end_change_no_bit():
    score = model_of(4).open()
    ids, bounds = documents(5, 4 * BLOCK + 77, 300, 900)
    whole = score(ids, bounds)
    for low, high in pairwise(bounds):
        alone = score(ids[low:high].copy(), np.array([0, high - low]))
        assert np.array_equal(alone.view(np.uint32), whole[low:high].view(np.uint32))
        part = score(ids, np.array([low, high]))  # what comes before the first bound is nobody's context
        assert np.array_equal(part[low:high].view(np.uint32), whole[low:high].view(np.uint32))


@pytest.mark.parametrize("bits", [1, 2, 7, 8, 13])
def test_hashes_are_a_permutation(bits):
    with np.errstate(over="ignore"):
        found = {int(lookup.permuted.py_func(np.uint64(key), np.uint64(bits))) for key in range(2**bits)}
    assert found == set(range(2**bits))


@pytest.mark.parametrize(
    ("contexts", "each", "token_bits", "bits"), [(40, 200, 8, 16), (1, 3, 21, 42), (3, 2000, 12, 38), (500, 90, 20, 44)]
)
def test_a_tag_and_its_place_give_back_the_hash(contexts, each, token_bits, bits):
    rng = np.random.default_rng(7)
    words = np.concatenate([rng.choice(2**token_bits, each, replace=False) for _ in range(contexts)]).astype(np.uint32)
    parents = np.sort(rng.choice(2 ** min(bits - token_bits, 30), contexts, replace=False)).astype(np.int64)
    begins = np.arange(contexts + 1, dtype=np.int64) * each
    table, shape, slots = tables.make_narrow(begins, words, parents, token_bits, bits)
    assert table.ctypes.data % 64 == 0 and len(set(slots.tolist())) == len(words)
    rest, buckets, top = int(shape[2]), int(shape[3]), min(bits, 32)
    tags = (table[slots] & lookup.TAG).astype(np.int64)
    homes = (slots // 8 - (tags >> rest)) % buckets
    pairs = set(zip(homes.tolist(), (tags & (2**rest - 1)).tolist(), strict=True))
    assert len(pairs) == len(words) and (table == lookup.EMPTY).sum() == len(table) - len(words)
    for home, low in sorted(pairs)[:50]:  # one hash alone fits both
        first, last = -(-(home << top) // buckets) << bits - top, -(-((home + 1) << top) // buckets) << bits - top
        assert sum(1 for _ in range(first + (low - first) % 2**rest, last, 2**rest)) == 1


def test_more_ngrams_than_a_table_holds_are_a_mistake(monkeypatch):
    monkeypatch.setattr(tables, "MOST_SLOTS", 1000)
    with pytest.raises(
        InputError, match=r"a table of \d+ slots for n-grams of one length is more than 1000; prune the model more"
    ):
        model_of(3).open()
