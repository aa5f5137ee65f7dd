"""BoundlessBPE against a trainer that keeps whole documents and chooses among both kinds of merges at each step."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.tokenizer.boundless import Boundless, can_join
from gristmill.tokenizer.encoding.whole import WholeEncoder
from gristmill.tokenizer.patterns import PATTERNS, find_pattern
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.vocabulary import Vocabulary, to_tokenizer
from tests.gristmill.tokenizer import slow
from tests.random_examples import examples

LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZäöüÜïé日本語のテキスト猫")


TWO_WAYS = r"\p{L}{4}(?=,)|\p{L}{2}"  # "abab" is one piece before a comma and two elsewhere


def wordlike(text):
    return bool(set(text) & LETTERS) and set(text) <= LETTERS | set(" _'’")


def slow_boundless(texts, scheme):
    """Tokens, merges (left, right, joined) and which are across cuts.

    A token made inside pieces is (0, its number among those), one made across is (1, its number): the order of equal counts.
    """
    first = [(0, i) for i in range(len(scheme.first_tokens()))]
    spelled = dict(zip(first, scheme.first_tokens(), strict=True))
    made = {(token,): name for name, token in list(spelled.items())[1:]}  # by the pieces in it
    byte = {token[0]: name for name, token in list(spelled.items())[1:]}
    holds = {}  # token made across → pieces
    documents = [
        [tuple(byte[i] for i in piece) for piece in slow.cut(text, [find_pattern(scheme.pattern, "")])] for text in texts
    ]
    order, merges = list(first), []
    while len(order) < scheme.vocab_size:
        counts = Counter()
        for document in documents:
            for piece in document:
                counts.update((0, pair) for pair in pairwise(piece))
            for left, right in pairwise(document):
                if len(left) == len(right) == 1 and wordlike(spelled[left[0]].decode("utf-8", "replace")):
                    joined = (spelled[left[0]] + spelled[right[0]]).decode("utf-8", "replace")
                    if wordlike(spelled[right[0]].decode("utf-8", "replace")) and (
                        scheme.max_words is None or len(joined.split()) <= scheme.max_words
                    ):
                        counts[1, (left[0], right[0])] += 1
        choice = min(counts, key=lambda key: (-counts[key], key), default=None)
        if choice is None or counts[choice] < scheme.min_frequency:
            break
        across, (left, right) = choice
        pieces = tuple(piece for part in (left, right) for piece in holds.get(part, (spelled[part],)))
        pieces = pieces if across else (spelled[left] + spelled[right],)
        if pieces not in made:
            made[pieces] = (across, sum(name[0] == across for name in order))
            spelled[made[pieces]] = b"".join(pieces)
            order.append(made[pieces])
            if across:
                holds[made[pieces]] = pieces
        new = made[pieces]
        merges.append((order.index(left), order.index(right), order.index(new), bool(across)))
        if across:
            documents = [list(slow.replaced(document, ((left,), (right,)), (new,))) for document in documents]
        else:
            documents = [[slow.replaced(piece, (left, right), new) for piece in document] for document in documents]
    return tuple(spelled[name] for name in order), merges


def slow_encode(vocabulary, text):
    """Of all merges, inside pieces and across, the one with the lowest rank again and again."""
    inside, across = {}, {}
    for rank, ((left, right, joined), whole) in enumerate(zip(vocabulary.merges.tolist(), vocabulary.whole, strict=True)):
        if whole:
            across.setdefault((left, right), (rank, joined))
        else:
            inside[left, right] = (rank, joined)
    pieces = [slow.byte_ids(vocabulary, piece) for piece in slow.cut(text, vocabulary.cuts)]
    while True:
        found = [(inside[pair], False, pair) for piece in pieces for pair in pairwise(piece) if pair in inside]
        for left, right in pairwise(pieces):
            if len(left) == len(right) == 1 and (left[0], right[0]) in across:
                found.append((across[left[0], right[0]], True, (left[0], right[0])))
        if not found:
            return [i for piece in pieces for i in piece]
        (_, joined), whole, (left, right) = min(found)
        if whole:
            pieces = list(slow.replaced(pieces, ((left,), (right,)), (joined,)))
        else:
            pieces = [slow.replaced(piece, (left, right), joined) for piece in pieces]


def check_against_slow(texts, scheme):
    vocabulary = scheme.train(make_corpus(texts))
    tokens, merges = slow_boundless(texts, scheme)
    assert vocabulary.tokens == tokens
    found = zip(vocabulary.merges.tolist(), vocabulary.whole.tolist(), strict=True)
    assert [(*merge, whole) for merge, whole in found] == merges
    return vocabulary


@pytest.mark.parametrize("max_words", [None, 2])
@pytest.mark.parametrize("pattern", ["gpt2", "o200k"])
def test_merges_are_those_of_a_slow_trainer(pattern, max_words):
    texts = [*slow.TINY, "the cat sat on the mat, and the dog sat on the mat"]
    vocabulary = check_against_slow(texts, Boundless(vocab_size=330, pattern=pattern, max_words=max_words))
    assert b" on the" in vocabulary.tokens
    across = [vocabulary.tokens[i] for i in vocabulary.merges[vocabulary.whole][:, 2]]
    assert max(len(token.split()) for token in across) == (max_words or 6)
    assert not vocabulary.whole[: vocabulary.tokens.index(b" on the") - 257].all()


@examples(30)
@given(
    st.lists(st.text(alphabet="aab  B,'", max_size=40), min_size=1, max_size=5),
    st.integers(259, 285),
    st.sampled_from(["gpt2", "llama3", "o200k", TWO_WAYS]),
    st.integers(1, 2),
)
def test_any_text_trains_and_encodes_like_the_slow_ones(texts, size, pattern, least):
    scheme = Boundless(vocab_size=size, pattern=pattern, min_frequency=least)
    vocabulary = check_against_slow([*texts, "a b a b"], scheme)
    for text, ids in zip(texts, slow.encode(WholeEncoder(vocabulary), *texts), strict=True):
        assert ids == slow_encode(vocabulary, text)


def test_what_two_pieces_make_is_no_piece():
    texts = ["abab,", "abab", "abab cdcd"] * 3 + ["abab,cdcd,"]
    vocabulary = check_against_slow(texts, Boundless(vocab_size=270, pattern=TWO_WAYS, min_frequency=1))
    assert vocabulary.tokens.count(b"abab") == 2
    for text, ids in zip(texts, slow.encode(WholeEncoder(vocabulary), *texts), strict=True):
        assert ids == slow_encode(vocabulary, text)


@examples(100)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=12),
    st.lists(st.sampled_from(["a", "b", "c", "dd", "."]), max_size=40),
)
def test_any_merges_encode_like_the_slow_encoder(pairs, words):
    tokens = [bytes([byte]) for byte in range(256)] + [b" a", b" b", b" c"]
    merges = [(32, ord(letter), 256 + i) for i, letter in enumerate("abc")]
    for left, right in pairs:  # of the tokens that there are
        parts = [256 + number % (len(tokens) - 256) for number in (left, right)]
        merges.append((*parts, len(tokens)))
        tokens.append(tokens[parts[0]] + tokens[parts[1]])
    whole = np.arange(len(merges)) >= 3
    vocabulary = Vocabulary(tuple(tokens), np.array(merges, np.int32), (PATTERNS["gpt2"],), whole=whole)
    text = "".join(f" {word}" for word in words)
    assert slow.encode(WholeEncoder(vocabulary), text) == [slow_encode(vocabulary, text)]


def test_real_pages_encode_like_the_slow_encoder():
    texts = slow.crawl_texts(26)
    vocabulary = Boundless(vocab_size=1300).train(make_corpus(texts[:20]))
    assert vocabulary.whole.sum() > 20
    texts = [text[:400] for text in texts[20:]] + [*slow.TINY, "", "\x00 \r\n"]
    found = slow.encode(WholeEncoder(vocabulary), *texts)
    assert found == [slow_encode(vocabulary, text) for text in texts]
    assert [b"".join(vocabulary.tokens[i] for i in ids).decode() for ids in found] == texts


def test_long_runs():
    """Half a million words without an end: quadratic time would take hours."""
    vocabulary = Boundless(vocab_size=290, min_frequency=1).train(make_corpus(["the cat the cat the cat sat " * 3]))
    text = "the cat" + " the cat" * 250_000
    ids, other = slow.encode(WholeEncoder(vocabulary), text, " sat the")
    assert b"".join(vocabulary.tokens[i] for i in ids).decode() == text
    assert len(ids) < 250_100
    assert other == slow_encode(vocabulary, " sat the")


def test_a_run_ends_with_its_document():
    texts = ["the cat"] * 5
    vocabulary = Boundless(vocab_size=290).train(make_corpus(texts))
    assert b"the cat" in vocabulary.tokens
    assert not [token for token in vocabulary.tokens if b"catthe" in token]
    both = slow.encode(WholeEncoder(vocabulary), *texts)
    assert both == [[vocabulary.tokens.index(b"the cat")]] * 5


def test_what_may_be_joined():
    tokens = [
        b" the",
        b"the",
        b"a",
        b" ",
        b"'s",
        b"don't",
        b"_x",
        b"1",
        b" a1",
        b"(word",
        b"\xc3",
        "é".encode(),
        "कि".encode(),
        b"",
    ]
    words = [True, True, True, False, True, True, True, False, False, False, False, True, True, False]
    assert can_join(tokens, "words").tolist() == words
    assert [token for token, letters in zip(tokens, can_join(tokens, "letters"), strict=True) if letters] == [
        token for token, word in zip(tokens, words, strict=True) if word or token in (b" a1", b"(word")
    ]


def test_no_tokenizer_json_can_say_this():
    with pytest.raises(ValueError, match="this vocabulary needs another encoder"):
        to_tokenizer(Boundless(vocab_size=300).train(make_corpus(slow.TINY)))


def test_order_and_batches_change_nothing():
    slow.check_independent(Boundless(vocab_size=500), slow.crawl_texts(6), make_corpus)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"vocab_size": 256}, "vocab_size must be from 257"),
        ({"vocab_size": 300, "pattern": "gpt3"}, "pattern has no pattern 'gpt3'"),
        ({"vocab_size": 300, "max_words": 1}, "max_words must be at least 2, or null"),
    ],
)
def test_mistakes_name_the_key(parameters, message):
    with pytest.raises(ValueError, match=message):
        Boundless(**parameters)
