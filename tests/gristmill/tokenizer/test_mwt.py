"""Multi-word tokens against a count of all n-grams, and what a base must be."""

from collections import Counter
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.tokenizer.bpe import Bpe
from gristmill.tokenizer.mwt import Mwt
from gristmill.tokenizer.patterns import PATTERNS
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.training.ngrams import Text, frequent_ngrams
from gristmill.tokenizer.vocabulary import to_json
from tests.gristmill.tokenizer import slow
from tests.random_examples import examples

TEXTS = [*slow.TINY, "the cat sat on the mat, and the dog sat on the mat. on the mat the cat sat"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a tokenizer that has some words of TEXTS, and its vocabulary."""
    folder = tmp_path_factory.mktemp("base")
    vocabulary = Bpe(vocab_size=330, pattern="gpt2").train(make_corpus(TEXTS))
    (folder / "tokenizer.json").write_text(to_json(vocabulary), encoding="utf-8")
    return str(folder), vocabulary


def edges(pieces):
    return [0, *accumulate(map(len, pieces))]


def slow_mwt(texts, base, scheme):
    """Tokens and merges beyond those of the base: count every n-gram, take the most frequent."""
    counts = Counter()
    for text in texts:
        words = set(zip(*[edges(slow.cut(text, base.cuts))[i:] for i in (0, 1)], strict=False))
        start = 0
        for piece in slow.cut(text, [PATTERNS[f"superbpe_{scheme.patterns}_stage2"]]):
            ids = slow.bpe(slow.byte_ids(base, piece), base.merges.tolist())
            places = [start + place for place in edges([base.tokens[i] for i in ids])]
            is_word = [
                (begin, end) in words and not base.tokens[i].isspace()
                for begin, end, i in zip(places, places[1:], ids, strict=False)
            ]
            for size in range(2, scheme.max_words + 1):
                for at in range(len(ids) - size + 1):
                    counts[ids[at : at + size]] += all(is_word[at : at + size])
            start += len(piece)
    tokens, merges, made = list(base.tokens), [], {}
    for ngram in sorted(counts, key=lambda ngram: (-counts[ngram], len(ngram), ngram)):
        if counts[ngram] < scheme.min_frequency or len(tokens) == scheme.vocab_size:
            break
        left, right = made.get(ngram[:-1], ngram[0]), ngram[-1]
        made[ngram] = len(tokens)
        tokens.append(tokens[left] + tokens[right])
        merges.append([left, right, made[ngram]])
    return tokens, merges


def check_against_slow(texts, base, scheme):
    vocabulary = scheme.train(make_corpus(texts))
    tokens, merges = slow_mwt(texts, base, scheme)
    assert vocabulary.tokens == tuple(tokens)
    assert vocabulary.merges.tolist() == [*base.merges.tolist(), *merges]
    return vocabulary


@pytest.mark.parametrize("min_frequency", [1, 2])
@pytest.mark.parametrize("max_words", [2, 3, 5])
@pytest.mark.parametrize("patterns", ["paper", "repo"])
def test_tokens_are_the_most_frequent_ngrams(base, patterns, max_words, min_frequency):
    scheme = Mwt(vocab_size=345, base=base[0], patterns=patterns, max_words=max_words, min_frequency=min_frequency)
    vocabulary = check_against_slow(TEXTS, base[1], scheme)
    assert vocabulary.size > base[1].size + 8
    assert b" on the" in vocabulary.tokens
    assert vocabulary.special_tokens == {"<|endoftext|>": 0}
    slow.check_standard(vocabulary, [*TEXTS, "", "the the cat cat on the"])


@examples(15)
@given(st.lists(st.sampled_from([" the", " cat", " on", ".", "\n", " 12", " mat", "  "]), min_size=1, max_size=40))
def test_ngrams_of_any_text(base, words):
    check_against_slow(["".join(words)], base[1], Mwt(vocab_size=345, base=base[0], max_words=3, min_frequency=1))


@examples(60)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=20), min_size=1, max_size=4), st.integers(1, 12))
def test_none_of_the_wanted_ngrams_is_missing(rows, wanted):
    import numpy as np

    texts = [Text(np.array(row, np.int32), np.append(np.array(row[:-1]) + row[1:] < 5, False)) for row in rows]
    counts = Counter()
    for row in rows:
        for size in range(2, 6):
            for at in range(len(row) - size + 1):
                part = row[at : at + size]
                counts[tuple(part)] += all(one + other < 5 for one, other in pairwise(part))
    every = sorted((ngram for ngram in counts if counts[ngram] >= 2), key=lambda ngram: (-counts[ngram], len(ngram), ngram))
    found = frequent_ngrams(texts, 5, wanted, 2, lambda *_: None)
    assert found[:wanted] == every[:wanted]


def test_a_larger_text_in_many_batches(tmp_path):
    texts = slow.crawl_texts(25)
    vocabulary = Bpe(vocab_size=900).train(make_corpus(texts))
    file = tmp_path / "tokenizer.json"
    file.write_text(to_json(vocabulary), encoding="utf-8")
    scheme = Mwt(vocab_size=1000, base=str(file))
    slow.check_independent(scheme, texts, make_corpus)
    longer = scheme.train(make_corpus(texts))
    assert longer.tokens[:900] == vocabulary.tokens
    assert len({token for token in longer.tokens[900:] if token.strip().count(b" ") >= 2}) > 2
    slow.check_standard(longer, [text[:2000] for text in texts[:5]])


def test_mistakes_name_the_key(base, tmp_path):
    corpus = make_corpus(TEXTS)
    with pytest.raises(ValueError, match="max_words must be at least 2, found 1"):
        Mwt(vocab_size=400, base=base[0], max_words=1)
    size = base[1].size
    with pytest.raises(InputError, match=f"vocab_size must be above the {size} tokens of base .*; found {size}"):
        Mwt(vocab_size=size, base=base[0]).train(corpus)
    with pytest.raises(InputError, match=r"tokenizer\.json does not exist"):
        Mwt(vocab_size=400, base=str(tmp_path)).train(corpus)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": []}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"key model\.type is 'Unigram'"):
        Mwt(vocab_size=400, base=str(tmp_path)).train(corpus)
