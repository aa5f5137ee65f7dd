"""Scaffold-BPE against a slow trainer and a slow encoder."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.tokenizer.encoding.scaffold import ScaffoldEncoder
from gristmill.tokenizer.patterns import PATTERNS
from gristmill.tokenizer.scaffold import ScaffoldBpe
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.vocabulary import Vocabulary, to_tokenizer
from tests.gristmill.tokenizer import slow
from tests.random_examples import examples


def slow_scaffold(texts, scheme):
    """Algorithm 1 of the paper: tokens by how they were made, merges, ids of scaffold tokens."""
    first = scheme.first_tokens()
    tokens, merges, scaffolds, parts = list(first), [], set(), ()
    words = Counter()
    for text in texts:
        for piece in slow.cut(text, [PATTERNS[scheme.pattern]]):
            words[tuple(first.index(bytes([byte]), 1) for byte in piece)] += 1
    while True:
        counts = slow.pair_counts(words)
        pair = slow.best(counts)
        pair = pair if pair and counts[pair] >= scheme.min_frequency else None
        frequency = Counter()
        for word, count in words.items():
            for token in word:
                frequency[token] += count
        waiting = min(scaffolds, key=lambda token: (-frequency[token], token), default=None)
        head = max(counts[pair] if pair else 0, frequency[waiting] if waiting else 0)
        scaffolds |= {token for token in parts if token >= len(first) and frequency[token] < head}
        parts = ()
        if len(tokens) - len(scaffolds) >= scheme.vocab_size:
            break
        if waiting and frequency[waiting] == head >= scheme.min_frequency:
            scaffolds.remove(waiting)
            continue
        if pair is None:
            break
        joined = tokens[pair[0]] + tokens[pair[1]]
        new = tokens.index(joined) if joined in tokens else len(tokens)
        tokens += [joined] if new == len(tokens) else []
        merges.append((*pair, new))
        renewed = Counter()
        for word, count in words.items():
            renewed[slow.replaced(word, pair, new)] += count
        words, parts = renewed, pair
    return tokens, merges, scaffolds


def check_against_slow(texts, scheme):
    vocabulary = scheme.train(make_corpus(texts))
    tokens, merges, scaffolds = slow_scaffold(texts, scheme)
    order = sorted(range(len(tokens)), key=lambda token: (token in scaffolds, token))
    assert vocabulary.tokens == tuple(tokens[i] for i in order)
    assert vocabulary.merges.tolist() == [[order.index(i) for i in merge] for merge in merges]
    assert vocabulary.scaffolds == len(scaffolds)
    return vocabulary


def slow_encode(vocabulary, text):
    made = {}
    for left, right, token in vocabulary.merges.tolist():
        made.setdefault(token, (left, right))

    def apart(token):
        return [token] if token < vocabulary.size else [i for part in made[token] for i in apart(part)]

    return [i for token in slow.encoded(vocabulary, text) for i in apart(token)]


@pytest.mark.parametrize("min_frequency", [1, 2])
@pytest.mark.parametrize("pattern", ["gpt2", "llama3"])
def test_merges_and_scaffolds_are_those_of_a_slow_trainer(pattern, min_frequency):
    scheme = ScaffoldBpe(vocab_size=300, pattern=pattern, min_frequency=min_frequency)
    vocabulary = check_against_slow(slow.TINY, scheme)
    assert vocabulary.scaffolds > 3
    assert vocabulary.size == 300 or min_frequency == 2


@examples(25)
@given(st.lists(st.text(alphabet="abc ", max_size=30), min_size=1, max_size=5), st.integers(258, 275))
def test_any_text_trains_and_encodes_like_the_slow_ones(texts, size):
    vocabulary = check_against_slow([*texts, "ab"], ScaffoldBpe(vocab_size=size, min_frequency=1))
    for text, ids in zip(texts, slow.encode(ScaffoldEncoder(vocabulary), *texts), strict=True):
        assert ids == slow_encode(vocabulary, text)


def test_real_pages_encode_like_the_slow_encoder_without_scaffolds():
    texts = slow.crawl_texts(26)
    vocabulary = ScaffoldBpe(vocab_size=900).train(make_corpus(texts[:20]))
    assert vocabulary.size == 900
    assert vocabulary.scaffolds > 20
    texts = [text[:600] for text in texts[20:]] + [*slow.TINY, "", "\x00 \r\n"]
    found = slow.encode(ScaffoldEncoder(vocabulary), *texts)
    assert max(map(max, filter(None, found))) < 900
    assert found == [slow_encode(vocabulary, text) for text in texts]
    assert found != [slow.encoded(vocabulary, text) for text in texts]  # some scaffold was left over
    assert ["".join(vocabulary.tokens[i].decode("latin-1") for i in ids).encode("latin-1").decode() for ids in found] == texts


def test_of_two_ways_to_make_a_scaffold_the_first_is_undone():
    tokens = (*(bytes([byte]) for byte in range(256)), b"ab", b"bc", b"abc")
    merges = np.array([[97, 98, 256], [98, 99, 257], [256, 99, 258], [97, 257, 258]], np.int32)
    assert slow.encode(ScaffoldEncoder(Vocabulary(tokens, merges, scaffolds=1)), "abc", "", "xbcabcabc") == [
        [256, 99],
        [],
        [120, 257, 256, 99, 256, 99],
    ]


def test_no_tokenizer_json_can_say_this():
    vocabulary = ScaffoldBpe(vocab_size=300).train(make_corpus(slow.TINY))
    with pytest.raises(ValueError, match="this vocabulary needs another encoder"):
        to_tokenizer(vocabulary)


def test_order_and_batches_change_nothing():
    slow.check_independent(ScaffoldBpe(vocab_size=600), slow.crawl_texts(6), make_corpus)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"vocab_size": 256}, "vocab_size must be from 257"),
        ({"vocab_size": 300, "pattern": "("}, "pattern does not compile"),
        ({"vocab_size": 300, "min_frequency": 0}, "min_frequency must be at least 1, found 0"),
    ],
)
def test_mistakes_name_the_key(parameters, message):
    with pytest.raises(ValueError, match=message):
        ScaffoldBpe(**parameters)
