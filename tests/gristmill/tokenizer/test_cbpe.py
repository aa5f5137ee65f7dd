"""Constrained BPE against a slow trainer, its vowels against the Unicode property, and what it refuses."""

from collections import Counter

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from gristmill.tokenizer.cbpe import VOWELS, CBpe, dependent_vowels
from gristmill.tokenizer.patterns import PATTERNS
from gristmill.tokenizer.training.corpus import make_corpus
from tests.gristmill.tokenizer import slow
from tests.random_examples import examples

HINDI = [
    "किताबें पढ़ना अच्छा है। किताबों की दुकान में कितनी किताबें हैं? मैं किताब पढ़ता हूँ और वह किताब पढ़ती है।",
    "नमस्ते दुनिया, यह एक छोटा सा वाक्य है; दुनिया में कितने लोग हैं? কলকাতা একটি শহর। தமிழ் மொழி",
]


def begins_with(token, points):
    text = token.decode("utf-8", "replace")
    return len(text) > 1 and ord(text[0]) in points


def slow_cbpe(texts, scheme):
    plain = scheme.first_tokens()
    words = Counter()
    for text in texts:
        for piece in slow.cut(text, [PATTERNS[scheme.pattern]]):
            words[tuple(plain.index(bytes([byte]), 1) for byte in piece)] += 1
    return slow.learned(
        words, plain, scheme.vocab_size, scheme.min_frequency, lambda token: not begins_with(token, scheme.leading)
    )


@pytest.mark.parametrize("min_frequency", [1, 2])
def test_merges_are_those_of_a_slow_trainer(min_frequency):
    scheme = CBpe(vocab_size=300, min_frequency=min_frequency)
    vocabulary = scheme.train(make_corpus(HINDI))
    tokens, merges = slow_cbpe(HINDI, scheme)
    assert vocabulary.tokens == tuple(tokens)
    assert vocabulary.merges.tolist() == [list(merge) for merge in merges]


@examples(15)
@given(st.lists(st.text(alphabet="किाa ", max_size=30), min_size=1, max_size=5))
def test_merges_of_any_text_are_those_of_a_slow_trainer(texts):
    scheme = CBpe(vocab_size=275, min_frequency=1)
    vocabulary = scheme.train(make_corpus([*texts, "कि"]))
    assert vocabulary.merges.tolist() == [list(merge) for merge in slow_cbpe([*texts, "कि"], scheme)[1]]


def test_no_token_begins_with_a_vowel_where_plain_bpe_has_some():
    free = CBpe(vocab_size=420, min_frequency=1, scripts=("khmer",)).train(make_corpus(HINDI))
    bound = CBpe(vocab_size=420, min_frequency=1).train(make_corpus(HINDI))
    points = CBpe(vocab_size=420).leading
    assert [token for token in free.tokens[257:] if begins_with(token, points)]
    assert not [token for token in bound.tokens[257:] if begins_with(token, points)]
    slow.check_standard(bound, [*HINDI, *slow.TINY, ""])


def test_own_characters():
    scheme = CBpe(vocab_size=280, min_frequency=1, scripts=(), code_points=(ord("b"),))
    assert not [token for token in scheme.train(make_corpus(["abab bab"] * 3)).tokens[257:] if token.startswith(b"b")]


@pytest.mark.parametrize("script", VOWELS)
def test_vowels_are_those_of_unicode(script):
    points = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x10000)]))
    found = [ord(letter) for letter in regex.findall(rf"(?=\p{{Script={script}}})\p{{InSC=Vowel_Dependent}}", points)]
    assert set(dependent_vowels(script)) <= set(found)  # a later Unicode may know more
    assert len(found) - len(dependent_vowels(script)) < 4


def test_order_and_batches_change_nothing():
    slow.check_independent(CBpe(vocab_size=320), HINDI * 3 + slow.TINY, make_corpus)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scripts": ("devanagri",)}, "scripts has no 'devanagri'; did you mean 'devanagari'"),
        ({"code_points": (0xD800,)}, "code_points must be Unicode code points such as 0x93E, found 55296"),
        ({"scripts": ()}, "scripts and code_points are empty"),
        ({"pattern": "llama3"}, r"pattern 'llama3' cuts between a letter and U\+093A"),
        ({"pattern": "lama3"}, "pattern has no pattern 'lama3'"),
    ],
)
def test_mistakes_name_the_key(parameters, message):
    with pytest.raises(ValueError, match=message):
        CBpe(vocab_size=300, **parameters)
