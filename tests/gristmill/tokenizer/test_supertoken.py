"""Supertokens: the chunks against a slow drawing of lengths, the merges against a slow trainer."""

import hashlib
from collections import Counter
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.tokenizer.patterns import PATTERNS
from gristmill.tokenizer.supertoken import CHUNKS, SuperToken, chunker
from gristmill.tokenizer.training.corpus import make_corpus
from tests.gristmill.tokenizer import slow
from tests.random_examples import examples


def chunks_of(scheme, texts, **how):
    """The chunks of each batch, as text."""
    found = []
    for batch in make_corpus(texts, **how).batches:
        ends = chunker(scheme)(batch).tolist()
        text = batch.text.tobytes()
        found += [text[begin:end].decode() for begin, end in pairwise([0, *ends])]
    return found


def slow_chunks(scheme, text):
    """Draw one length after the other."""
    seed = hashlib.blake2b(text.encode(), digest_size=16, key=scheme.seed.to_bytes(8, "little")).digest()
    source = np.random.PCG64(int.from_bytes(seed, "little"))
    lengths = [
        (length, weight / (most + 1 - least)) for least, most, weight in scheme.chunks for length in range(least, most + 1)
    ]
    total = sum(weight for _, weight in lengths)
    found, at = [], 0
    while at < len(text):
        share = (int(source.random_raw()) >> 32) / 2**32
        reached = accumulate(weight / total for _, weight in lengths)
        length = next((length for (length, _), upto in zip(lengths, reached, strict=True) if share < upto), lengths[-1][0])
        found.append(text[at : at + length])
        at += length
    return found


@examples(60)
@given(
    st.lists(st.text(alphabet="ab é日🐈\n", min_size=1, max_size=80), min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from([CHUNKS, ((1, 1, 1.0),), ((3, 5, 2.0), (1, 1, 1.0), (9, 9, 0.0))]),
)
def test_chunks_are_those_of_a_slow_drawing(texts, seed, chunks):
    scheme = SuperToken(vocab_size=300, seed=seed, chunks=chunks)
    assert chunks_of(scheme, texts) == [chunk for text in texts for chunk in slow_chunks(scheme, text)]


def test_lengths_are_as_likely_as_asked():
    lengths = Counter(map(len, chunks_of(SuperToken(vocab_size=300), ["abcdefghij" * 40_000])))
    count = lengths.total()
    for least, most, weight in CHUNKS:
        share = sum(lengths[length] for length in range(least, most + 1)) / count
        assert share == pytest.approx(weight / sum(weight for *_, weight in CHUNKS), abs=0.01)


def test_a_seed_and_the_text_decide():
    text = slow.TINY[0] * 3
    assert chunks_of(SuperToken(vocab_size=300, seed=1), [text]) != chunks_of(SuperToken(vocab_size=300), [text])
    both = chunks_of(SuperToken(vocab_size=300), ["another text", text], batch_bytes=5)
    assert both[-len(slow_chunks(SuperToken(vocab_size=300), text)) :] == chunks_of(SuperToken(vocab_size=300), [text])


@pytest.mark.parametrize("pattern", [None, "superbpe_repo_stage2"])
@pytest.mark.parametrize("min_frequency", [1, 2])
def test_merges_are_those_of_a_slow_trainer(pattern, min_frequency):
    scheme = SuperToken(vocab_size=320, pattern=pattern, min_frequency=min_frequency)
    first, words = scheme.first_tokens(), Counter()
    for text in slow.TINY:
        ends = set(accumulate(len(chunk.encode()) for chunk in slow_chunks(scheme, text)))
        ends |= set(accumulate(map(len, slow.cut(text, [PATTERNS[pattern]])))) if pattern else set()
        for begin, end in pairwise([0, *sorted(ends)]):
            words[tuple(first.index(bytes([byte]), 1) for byte in text.encode()[begin:end])] += 1
    tokens, merges = slow.learned(words, first, 320, min_frequency)
    vocabulary = scheme.train(make_corpus(slow.TINY))
    assert vocabulary.tokens == tuple(tokens)
    assert vocabulary.merges.tolist() == [list(merge) for merge in merges]
    slow.check_standard(vocabulary, [*slow.TINY, ""])


def test_tokens_begin_and_end_inside_words():
    vocabulary = SuperToken(vocab_size=900).train(make_corpus(slow.crawl_texts(25)))
    assert len([token for token in vocabulary.tokens if b" " in token.strip()]) > 4
    assert vocabulary.cuts == ()
    slow.check_standard(vocabulary, ["the end of the text", "日本語のテキスト", "\x00\r\n "])


def test_order_and_batches_change_nothing():
    slow.check_independent(SuperToken(vocab_size=400), slow.crawl_texts(8), make_corpus)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"chunks": ((0, 3, 1.0),)}, r"chunks must hold a shortest length of at least 1, .* found \[0, 3, 1.0\]"),
        ({"chunks": ((5, 3, 1.0),)}, r"chunks must hold .* found \[5, 3, 1.0\]"),
        ({"chunks": ((5, 6, -1.0),)}, r"chunks must hold .* found \[5, 6, -1.0\]"),
        ({"chunks": ((5, 6, 0.0),)}, r"chunks must hold a weight above 0, found \[\[5, 6, 0.0\]\]"),
        ({"chunks": ()}, r"chunks must hold a weight above 0, found \[\]"),
        ({"seed": -1}, "seed must be from 0 to 2.64 - 1, found -1"),
        ({"pattern": "["}, "pattern does not compile"),
    ],
)
def test_mistakes_name_the_key(parameters, message):
    with pytest.raises(ValueError, match=message):
        SuperToken(vocab_size=300, **parameters)
