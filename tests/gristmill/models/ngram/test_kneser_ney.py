"""The Kneser-Ney model against a slow transcription of its definition, against KenLM reading our ARPA file, and its file."""

import math
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.models.ngram import kneser_ney, store
from gristmill.models.ngram.kneser_ney import FALLBACK, count, estimate, merge
from tests.random_examples import examples

BEGIN, END = "<s>", "</s>"
VOCABULARY = 7
DOCUMENTS = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=14), min_size=1, max_size=8)
ORDERS = st.integers(2, 5)


def flat(documents, kind=np.uint16):
    bounds = np.concatenate([[0], np.cumsum([len(each) for each in documents])]).astype(np.int64)
    return np.array([token for each in documents for token in each], kind), bounds


def counted(documents, order, vocab_size=VOCABULARY):
    return count(*flat(documents), order=order, vocab_size=vocab_size)


def real_documents():
    """The words of this very file, a line a document: repeated and rare ones, contexts and counts of counts as in real text."""
    text = [line.split() for line in Path(__file__).read_text(encoding="utf-8").splitlines()]
    numbers: dict[str, int] = {}
    return [[numbers.setdefault(word, len(numbers)) for word in line] for line in text], numbers


class Slow:
    """The definition, in float64: raw counts, adjusted counts, discounts, interpolation down to the uniform distribution."""

    def __init__(self, documents, order, vocab_size, limits=(0,), fallback=FALLBACK):
        self.order, self.uniform = order, 1 / (vocab_size + 2)
        limits = [*limits, *[limits[-1]] * (order - len(limits))]
        raw = Counter()
        for document in documents:
            tokens = (BEGIN, *document, END)
            for at in range(1, len(tokens)):
                for first in range(max(0, at - order + 1), at + 1):
                    raw[tokens[first : at + 1]] += 1
        before = defaultdict(set)
        for gram in raw:
            before[gram[1:]].add(gram[0])
        self.discounts, self.after = [], defaultdict(dict)
        for length in range(1, order + 1):
            grams = [gram for gram in raw if len(gram) == length]
            adjusted = {g: raw[g] if length == order or g[0] == BEGIN else len(before[g]) for g in grams}
            self.discounts.append(self.discount(Counter(adjusted.values()), fallback))
            for gram, number in adjusted.items():
                taken = self.discounts[-1][min(number, 3) - 1] if raw[gram] > limits[length - 1] else number
                self.after[gram[:-1]][gram[-1]] = (number, taken)

    @staticmethod
    def discount(n, fallback):
        if all(n[j] for j in (1, 2, 3)):
            y = n[1] / (n[1] + 2 * n[2])
            made = tuple(j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3))
            if all(0 < each <= j + 1 for j, each in enumerate(made)):
                return made
        return fallback

    def probability(self, token, context):
        lower = self.probability(token, context[1:]) if context else self.uniform
        if context not in self.after:
            return lower
        after = self.after[context].values()
        number, taken = self.after[context].get(token, (0, 0))
        total = sum(n for n, _ in after)
        return (number - taken + sum(t for _, t in after) * lower) / total

    def losses(self, documents):
        found = []
        for document in documents:
            tokens = (BEGIN, *document)
            for at in range(1, len(tokens)):
                found.append(-math.log(self.probability(tokens[at], tokens[max(0, at - self.order + 1) : at])))
        return found


@examples(40)
@given(DOCUMENTS, DOCUMENTS, ORDERS, st.lists(st.integers(0, 3), max_size=2).map(lambda rest: (0, *sorted(rest))))
@example([[]], [[0]], 2, (0,))
def test_losses_are_those_of_the_definition(documents, others, order, limits):
    model = estimate(counted(documents, order), prune=limits[:order], fallback=FALLBACK)
    slow = Slow(documents, order, VOCABULARY, limits[:order])
    np.testing.assert_allclose(model.discounts, slow.discounts, rtol=1e-12)
    score = model.open()
    for each in (documents, others):
        np.testing.assert_allclose(score(*flat(each)), slow.losses(each), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_real_text_has_discounts_of_its_own_and_the_losses_of_the_definition(order):
    documents, numbers = real_documents()
    size = len(numbers) + 5
    model = estimate(counted(documents, order, size), fallback=FALLBACK)
    slow = Slow(documents, order, size)
    assert sum(each != FALLBACK for each in model.discounts) >= 2
    held = [[*document[::-1], size - 1] for document in documents]
    for each in (documents, held):
        np.testing.assert_allclose(model.open()(*flat(each, np.uint32)), slow.losses(each), rtol=1e-6, atol=1e-6)


@examples(25)
@given(DOCUMENTS, st.lists(st.integers(0, VOCABULARY - 1), max_size=6), ORDERS, st.integers(0, 2))
def test_probabilities_after_any_context_sum_to_one(documents, context, order, limit):
    model = estimate(counted(documents, order), prune=(0, limit), fallback=FALLBACK)
    ids, bounds = flat([[*context, token] for token in range(VOCABULARY)])
    tokens = np.exp(-model.open()(ids, bounds)[bounds[1:] - 1].astype(np.float64)).sum()
    slow = Slow(documents, order, VOCABULARY, (0, limit))
    seen = (BEGIN, *context)[-(order - 1) :]
    rest = slow.probability(END, seen) + slow.probability("never seen", seen)
    assert tokens + rest == pytest.approx(1, abs=2e-6)


@examples(25)
@given(DOCUMENTS, ORDERS, st.sampled_from([VOCABULARY, 2**17, 2**24]), st.data())
def test_counts_do_not_depend_on_shards_or_their_order(documents, order, vocab_size, data):
    whole = counted(documents, order, vocab_size)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(documents)), max_size=3)))
    shards = [counted(documents[a:b], order, vocab_size) for a, b in pairwise([0, *cuts, len(documents)])]
    merged = merge(data.draw(st.permutations(shards)))
    assert np.array_equal(merged.keys, whole.keys) and np.array_equal(merged.counts, whole.counts)
    assert merged.counts.sum() == sum(len(each) + 1 for each in documents)
    assert merged.documents == len(documents) and merged.tokens == sum(map(len, documents))


def test_wide_ids_give_what_narrow_ones_give():
    documents, numbers = real_documents()
    size = len(numbers)
    narrow = estimate(counted(documents, 4, size), fallback=FALLBACK).open()
    wide = estimate(counted(documents, 4, 2**20), fallback=FALLBACK).open()
    difference = wide(*flat(documents)) - narrow(*flat(documents))
    assert (difference >= -1e-6).all() and difference.max() < 2  # the same counts; only the uniform share is thinner


def test_the_file_has_the_same_bytes_and_is_checked(tmp_path):
    documents, numbers = real_documents()
    model = estimate(counted(documents, 3, len(numbers)), fallback=FALLBACK)
    shards = merge([counted(documents[40:], 3, len(numbers)), counted(documents[:40], 3, len(numbers))])
    size = store.save(model, tmp_path / "a.arrow")
    store.save(estimate(shards, fallback=FALLBACK), tmp_path / "b.arrow")
    content = (tmp_path / "a.arrow").read_bytes()
    assert content == (tmp_path / "b.arrow").read_bytes() and len(content) == size
    loaded = store.load(tmp_path / "a.arrow")
    assert loaded.discounts == model.discounts
    assert np.array_equal(loaded.open()(*flat(documents)), model.open()(*flat(documents)))
    middle = content.index(model.levels[1].losses.tobytes()) + 9
    (tmp_path / "b.arrow").write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(InputError, match="sha256 differs"):
        store.load(tmp_path / "b.arrow")
    (tmp_path / "b.arrow").write_bytes(content[:100])
    with pytest.raises(InputError, match="not an n-gram model"):
        store.load(tmp_path / "b.arrow")
    with pytest.raises(InputError, match="not an n-gram model"):
        store.load(tmp_path / "none")
    with pytest.raises(InputError, match=r"not an n-gram model \(.* is a directory\)"):
        store.load(tmp_path)
    with pa.OSFile(str(tmp_path / "c"), "wb") as out, pa.ipc.new_file(out, pa.schema([("a", pa.int8())])):
        pass
    with pytest.raises(InputError, match=r"expected gristmill.kneser-ney 1"):
        store.load(tmp_path / "c")


@pytest.mark.parametrize(("order", "prune"), [(2, ()), (3, ()), (3, (0, 0, 1)), (5, (0, 1))])
def test_kenlm_reads_the_arpa_file_and_gives_the_same(order, prune, tmp_path):
    kenlm = pytest.importorskip("kenlm", reason="the package kenlm is not installed: our ARPA file is not compared with it")
    documents, numbers = real_documents()
    size = len(numbers) + 3
    model = estimate(counted(documents, order, size), prune=prune, fallback=FALLBACK)
    store.write_arpa(model, tmp_path / "model.arpa")
    peer = kenlm.Model(str(tmp_path / "model.arpa"))
    assert peer.order == order
    held = [[*document[::-1], size - 1] for document in documents]
    for each in (documents, held):
        theirs = [s[0] for d in each for s in list(peer.full_scores(" ".join(map(str, d)), bos=True, eos=False))]
        ours = model.open()(*flat(each))
        np.testing.assert_allclose(ours, -np.array(theirs) * math.log(10), rtol=1e-5, atol=1e-4)


def test_users_mistakes_are_named():
    with pytest.raises(ValueError, match="order must be from 2 to 5, found 6"):
        counted([[1]], 6)
    with pytest.raises(ValueError, match="vocab_size must be"):
        counted([[1]], 2, 0)
    with pytest.raises(InputError, match="id 9 is outside the vocabulary of 7"):
        counted([[1, 9]], 2)
    with pytest.raises(ValueError, match="bounds must rise"):
        count(np.zeros(3, np.uint16), np.array([0, 2, 1, 3]), order=2, vocab_size=4)
    with pytest.raises(ValueError, match="of the same order"):
        merge([counted([[1]], 2), counted([[1]], 3)])
    counts = counted([[1, 2, 3]], 3)
    with pytest.raises(InputError, match=r"n-grams of 1 tokens: 4, 0, 0 and 0 .* pass fallback"):
        estimate(counts)
    with pytest.raises(ValueError, match="fallback must be"):
        estimate(counts, fallback=(0.5, 1.0, 3.5))
    for prune in ((1,), (0, 2, 1), (0, 0, 0, 0)):
        with pytest.raises(ValueError, match="prune must be"):
            estimate(counts, prune=prune, fallback=FALLBACK)
    with pytest.raises(InputError, match="no documents"):
        estimate(counted([], 2), fallback=FALLBACK)
    score = estimate(counts, fallback=FALLBACK).open()
    with pytest.raises(InputError, match="id 8 is outside"):
        score(*flat([[8]]))
    assert score(*flat([])).shape == (0,)
    assert kneser_ney.discounts_of(np.repeat([1, 2, 3, 4], [40, 20, 10, 5]), 1, None) == (0.5, 1.25, 2.0)
