"""The measures against slow transcriptions of their definitions, and the failures that they are there to find."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.tokenizer.encoding.choose import choose_encoder
from gristmill.tokenizer.measuring import measure as measures
from gristmill.tokenizer.measuring.consistency import cut_windows
from gristmill.tokenizer.measuring.measure import measure
from gristmill.tokenizer.measuring.spelling import Table
from gristmill.tokenizer.patterns import PATTERNS
from gristmill.tokenizer.token_names import alphabet
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.vocabulary import Vocabulary, to_tokenizer
from tests.random_examples import examples


def vocabulary(*joined, cuts=(), special=("<|end|>",), **fields):
    """Return a vocabulary of special tokens, bytes, and tokens given as pairs of the bytes they are made from."""
    tokens = [*(name.encode() for name in special), *alphabet()]
    merges = []
    for left, right in joined:
        merges.append((tokens.index(left), tokens.index(right), len(tokens)))
        tokens.append(left + right)
    made = np.array(merges, np.int32).reshape(-1, 3)
    return Vocabulary(tuple(tokens), made, cuts, {name: i for i, name in enumerate(special)}, **fields)


WORDS = vocabulary(
    (b"t", b"h"), (b"th", b"e"), (b" ", b"the"), (b"o", b"f"), (b" ", b"of"), (b" of", b" the"), (b"\xc3", b"\xa9"), (b"x", b"y")
)
TEXTS = ["the end of the the", "", "é of the é the", "日本 of", "the"]
GROUPS = ["en", "en", "fr", "ja", "en"]


def measured(known, texts=TEXTS, groups=GROUPS, **options):
    return measure(known, choose_encoder(known), make_corpus(texts, groups, **options))


def library_ids(known, texts):
    tokenizer = to_tokenizer(known)
    return [tokenizer.encode(text).ids for text in texts]


@pytest.mark.parametrize("batch_bytes", [1, 1000])
def test_counts_are_those_of_the_library(batch_bytes):
    found = measured(WORDS, batch_bytes=batch_bytes)
    ids = library_ids(WORDS, TEXTS)
    counts = Counter(i for row in ids for i in row)
    assert {i: int(n) for i, n in enumerate(found.counts) if n} == counts
    assert found.groups == ("en", "fr", "ja")
    per_group = {group: sum(len(row) for row, g in zip(ids, GROUPS, strict=True) if g == group) for group in found.groups}
    assert dict(zip(found.groups, found.tokens.tolist(), strict=True)) == per_group
    whole, each = measures.bytes_per_token(found)
    assert whole == sum(len(text.encode()) for text in TEXTS) / sum(map(len, ids))
    assert each["ja"] == len(TEXTS[3].encode()) / len(ids[3])
    assert found.documents.tolist() == [2, 1, 1]  # the empty one is none
    assert found.consistency.same_text == found.consistency.documents > 0


def test_sequence_length_and_premium_are_ratios_of_tokens():
    bare = measured(vocabulary())
    found = measured(WORDS)
    whole, each = measures.sequence_length(found, bare)
    assert whole == found.tokens.sum() / bare.bytes.sum()
    assert measures.sequence_length(found, found) == (1, {"en": 1, "fr": 1, "ja": 1})
    assert each["fr"] == found.tokens[1] / bare.tokens[1]
    premiums = measures.premiums(found)
    assert premiums["en"] == 1
    assert premiums["ja"] == pytest.approx((found.tokens[2] / found.bytes[2]) / (found.tokens[0] / found.bytes[0]))
    assert set(measures.premiums(bare).values()) == {1}
    assert measures.reference_group(measured(WORDS, ["a", "bb"], ["fr", "ja"])) == "ja"


@given(st.lists(st.integers(0, 50), min_size=2, max_size=20).filter(any))
def test_renyi_efficiency_is_its_formula(counts):
    total = sum(counts)
    power = sum((count / total) ** 2.5 for count in counts if count)
    expected = math.log(power) / (1 - 2.5) / math.log(len(counts))
    got = measures.renyi_efficiency(np.array(counts, np.int64), len(counts))
    assert got == pytest.approx(expected, abs=1e-12)
    assert -1e-12 <= got <= 1 + 1e-12


def test_renyi_efficiency_of_the_extremes():
    assert measures.renyi_efficiency(np.full(8, 3), 8) == pytest.approx(1)
    assert measures.renyi_efficiency(np.array([5, 0, 0]), 3) == 0
    assert math.isnan(measures.renyi_efficiency(np.zeros(3, np.int64), 3))


def test_use_sets_special_tokens_gaps_and_impossible_bytes_apart():
    known = Vocabulary((*WORDS.tokens, b""), WORDS.merges, (), WORDS.special_tokens)
    counts = np.full(len(known.tokens), 50)
    xy, end, high = known.tokens.index(b"xy"), 0, known.tokens.index(b"\xff")
    counts[[xy, end, high, len(counts) - 1]] = 0
    rarest, rare = known.tokens.index(b"q"), known.tokens.index(b"j")
    counts[[rarest, rare]] = 2, measures.RARE - 1
    found = measures.use(known, counts)
    assert found.never == (xy,)
    assert found.rare == (rarest, rare)
    assert (found.special, found.gaps) == (1, 1)
    assert found.tokens == 256 - 13 + len(WORDS.merges)


def test_superwords_are_found_by_length_and_by_use():
    known = vocabulary((b"o", b"f"), (b" ", b"t"), (b"of", b" t"), (b"of t", b" t"), (b"a", b" "), (b"a ", b"b"))
    counts = np.zeros(len(known.tokens), np.int64)
    ids = [known.tokens.index(token) for token in (b"of t", b"of t t", b"a b")]
    counts[ids] = 5, 0, 7
    counts[known.tokens.index(b"of")] = 8
    found = measures.superwords(known, counts, 2)
    assert found.ids == tuple(ids)
    assert found.longest == (ids[1], ids[0])
    assert found.most_used == (ids[2], ids[0])
    assert found.token_share == 12 / 20
    assert found.byte_share == (5 * 4 + 7 * 3) / (5 * 4 + 7 * 3 + 8 * 2)
    assert found.words == {2: 2, 3: 1}


def test_ids_that_encoding_never_gives_are_found_with_an_example():
    # The pattern leaves the last space before a word to the word: two tokens. A window that ends there ends in one of both.
    known = vocabulary((b" ", b" "), cuts=(PATTERNS["gpt2"],))
    found = measured(known, [("z" * 100 + "  ") * 20 + "z"] * 200, ["en"] * 200).consistency
    assert found.same_text == found.documents > 0
    assert found.windows == 200
    assert 0 < found.consistency_rate < 1
    (example,) = found.examples.values()
    space, spaces = known.tokens.index(b" "), known.tokens.index(b"  ")
    assert (example.text, example.given, example.encoded) == (b"  ", (space, space), (spaces,))
    assert found.other_tokens == 2 * (found.windows - found.same_ids)


def test_ids_that_always_come_back():
    found = measured(vocabulary((b"a", b"b"), (b"ab", b"c")), ["abcab" * 90] * 40, ["en"] * 40).consistency
    assert found.windows == 40
    assert found.consistency_rate == 1
    assert not found.examples


def test_a_text_that_does_not_come_back_and_windows_inside_characters():
    known = vocabulary()

    class Loses:
        """Forgets the last byte of each document that has more than two."""

        def encode(self, text, offsets):
            ids, places = choose_encoder(known).encode(text, offsets)
            kept = np.diff(places) - (np.diff(places) > 2)
            rows = [ids[at : at + size] for at, size in zip(places[:-1], kept, strict=True)]
            return np.concatenate(rows), np.append(0, np.cumsum(kept))

    found = measure(known, Loses(), make_corpus(["abc", "ab", "x"])).consistency
    assert (found.documents, found.same_text) == (3, 2)
    found = measured(known, ["é" * 100] * 100, ["fr"] * 100).consistency
    assert found.split > 20  # half of all places
    assert found.windows + found.split == 100
    assert found.consistency_rate == 1


def test_tokens_that_no_text_of_their_own_gives_are_unreachable():
    # b"abc" is made from a + bc, but ab is merged first.
    known = vocabulary((b"a", b"b"), (b"b", b"c"), (b"a", b"bc"))
    assert measured(known).unreachable == (known.tokens.index(b"abc"),)
    assert measured(WORDS).unreachable == ()


@examples(40)
@given(st.lists(st.text("the of éx日", max_size=20), min_size=1, max_size=6))
def test_decoding_is_joining_the_bytes(texts):
    ids = library_ids(WORDS, texts)
    offsets = np.cumsum([0, *map(len, ids)])
    flat = np.array([i for row in ids for i in row], np.uint32)
    data, places = Table(WORDS).decode(flat, offsets)
    assert [data[b:e].tobytes().decode() for b, e in pairwise(places)] == texts


@given(st.lists(st.integers(0, 600), min_size=1, max_size=20), st.integers(0, 9))
def test_windows_begin_inside_documents_and_end_at_their_end_at_last(sizes, seed):
    offsets = np.cumsum([0, *sizes])
    begins, ends = cut_windows(offsets, np.random.default_rng(seed))
    documents = [(b, e) for b, e in pairwise(offsets) if e - b > 1]
    assert len(begins) == len(documents)
    for begin, end, (first, last) in zip(begins, ends, documents, strict=True):
        assert first < begin < end <= last
        assert end == min(begin + 256, last)


def test_the_same_seed_gives_the_same_windows_and_batches_do_not_matter_to_counts():
    texts = [text * 20 for text in TEXTS if text] * 5
    groups = ["en"] * len(texts)
    assert measured(WORDS, texts, groups).consistency == measured(WORDS, texts, groups).consistency
    small = measured(WORDS, texts, groups, batch_bytes=10)
    assert np.array_equal(small.counts, measured(WORDS, texts, groups).counts)


def test_spans_of_tokens_lie_side_by_side():
    ids, ends, spelled = measures.token_spans(WORDS, choose_encoder(WORDS), TEXTS[2])
    assert spelled.decode() == TEXTS[2]
    data = TEXTS[2].encode()
    assert [data[b:e] for b, e in pairwise(ends)] == [WORDS.tokens[i] for i in ids]
    assert ids.tolist() == library_ids(WORDS, [TEXTS[2]])[0]
