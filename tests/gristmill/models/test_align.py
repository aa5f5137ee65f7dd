"""Alignment against a slow transcription of its definition, on random cuts of bytes and on real tokenizers."""

import json
from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from gristmill.errors import InputError
from gristmill.models.align import REASONS, Tokens, align
from gristmill.tokenizer.parsing import parse
from gristmill.tokenizer.token_bytes import lengths_of, make_token_bytes, parse_token_bytes, spells, text_of
from tests.random_examples import examples

NAN = float("nan")


def batch(documents):
    """Flat tokens of lists of lengths."""
    return Tokens(
        np.array([size for lengths in documents for size in lengths], np.int32),
        np.array([0, *accumulate(map(len, documents))], np.int64),
    )


def flat(documents):
    return np.array([value for values in documents for value in values], np.float32)


def slow_at(lengths, values, place):
    """Return the cumulative value at a byte, interpolated linearly between the ends of tokens."""
    total, end = Fraction(0), 0
    for size, value in zip(lengths, values, strict=True):
        total += Fraction(value) * Fraction(min(size, max(place - end, 0)), size)
        end += size
    return total


def slow(ours, theirs, values):
    """Transcribe the definition for one document of tokens that all have bytes and values."""
    ends, marks = [0, *accumulate(ours)], {0, *accumulate(theirs)}
    moved = [slow_at(theirs, values, end) - slow_at(theirs, values, begin) for begin, end in pairwise(ends)]
    return moved, [begin in marks and end in marks for begin, end in pairwise(ends)]


@st.composite
def cuts(draw):
    """Two cuts of the same bytes and a value for each token of the second."""
    total = draw(st.integers(1, 40))
    places = st.sets(st.integers(1, total - 1), max_size=12) if total > 1 else st.just(set())
    ours, theirs = ([b - a for a, b in pairwise([0, *sorted(draw(places)), total])] for _ in range(2))
    value = st.floats(0, 1e4, width=32)
    return ours, theirs, [draw(value) for _ in theirs]


@examples(60)
@given(st.lists(cuts(), min_size=1, max_size=4))
def test_equals_the_slow_transcription(documents):
    ours, theirs, values = zip(*documents, strict=True)
    found = align(batch(ours), batch(theirs), flat(values))
    at = 0
    for mine, other, given_, lost in zip(ours, theirs, values, found.unplaced, strict=True):
        expected, exact = slow(mine, other, given_)
        part = found.values[at : at + len(mine)]
        np.testing.assert_allclose(part, [float(each) for each in expected], rtol=1e-12, atol=1e-300)
        assert found.exact[at : at + len(mine)].tolist() == exact
        assert (part >= 0).all()
        total = float(sum(map(Fraction, given_)))
        assert abs(part.sum() - total) <= 1e-9 * total
        assert lost == 0
        at += len(mine)
    assert not found.reasons.any()


LENGTHS = st.lists(st.integers(0, 3), max_size=8)
VALUES = st.one_of(st.just(NAN), st.floats(-100, 100, width=32))


@examples(60)
@given(st.lists(st.tuples(LENGTHS, LENGTHS), min_size=1, max_size=4), st.integers(0, 2), st.data())
def test_nothing_is_lost_whatever_comes(documents, prefix, data):
    """Tokens without bytes, missing values, other totals: each document is refused or whole, alone as in a batch."""
    values = [[data.draw(VALUES) for _ in theirs] for _, theirs in documents]
    ours, theirs = (batch([pair[side] for pair in documents]) for side in (0, 1))
    found = align(ours, theirs, flat(values), prefix=prefix)
    for i, ((mine, other), given_) in enumerate(zip(documents, values, strict=True)):
        alone = align(batch([mine]), batch([other]), flat([given_]), prefix=prefix)
        span = slice(*ours.bounds[i : i + 2])
        for name, part in (("values", span), ("exact", span), ("reasons", slice(i, i + 1)), ("unplaced", slice(i, i + 1))):
            np.testing.assert_array_equal(getattr(found, name)[part], getattr(alone, name))
        more = sum(other) - sum(mine)
        assert REASONS[found.reasons[i]] == (
            "reference_has_less_text" if more < 0 else "reference_has_more_text" if more not in (0, prefix) else ""
        )
        assert bool(found.explain(i)) == bool(found.reasons[i])
        total = np.nansum(np.array(given_, np.float64))
        size = np.nansum(np.abs(np.array(given_, np.float64)))
        assert abs(np.nansum(alone.values) + alone.unplaced[0] - total) <= 1e-9 * size
        assert not (alone.exact & np.isnan(alone.values)).any()


@examples(50)
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), VALUES), max_size=9), min_size=1, max_size=4))
def test_equal_cuts_give_equal_values(documents):
    lengths, values = ([[token[k] for token in document] for document in documents] for k in (0, 1))
    found = align(batch(lengths), batch(lengths), flat(values))
    np.testing.assert_array_equal(found.values, flat(values).astype(np.float64))
    np.testing.assert_array_equal(found.exact, ~np.isnan(flat(values)))
    assert not found.unplaced.any()


def one(ours, theirs, values, **options):
    found = align(batch([ours]), batch([theirs]), flat([values]), **options)
    return found.values.tolist(), found.exact.tolist(), float(found.unplaced[0])


def same(found, expected):
    values, exact, unplaced = found
    np.testing.assert_allclose(values, expected[0], rtol=1e-12)
    assert (exact, unplaced) == (expected[1], pytest.approx(expected[2]))


def test_bytes_without_a_value():
    # The first token of theirs has none. Ours: inside, across its end, after it.
    same(one([2, 4, 2], [4, 2, 2], [NAN, 3, 5]), ([NAN, NAN, 5], [False, False, True], 3))
    # Not only the first.
    same(one([2, 2, 2], [2, 2, 2], [1, NAN, 2]), ([1, NAN, 2], [True, False, True], 0))


def test_tokens_without_bytes():
    both = ([NAN, 2, 3, 7], [False, True, True, True], 0)
    same(one([0, 2, 1, 0], [0, 2, 1, 0], [NAN, 2, 3, 7]), both)
    # Theirs alone have bos and eos: the loss of eos is not put on text.
    same(one([2, 1], [0, 2, 1, 0], [NAN, 2, 3, 7]), ([2, 3], [True, True], 7))
    # Ours alone have them.
    same(one([0, 2, 1, 0], [2, 1], [2, 3]), ([NAN, 2, 3, NAN], [False, True, True, False], 0))
    # Two of theirs at the end cannot be told apart: none is taken.
    same(one([3, 0], [3, 0, 0], [2, 3, 4]), ([2, NAN], [True, False], 7))
    # Inside one of ours, and inside one of theirs.
    same(one([4], [2, 0, 2], [1, 5, 2]), ([3], [True], 5))
    same(one([2, 0, 2], [4], [6]), ([3, NAN, 3], [False, False, False], 0))
    # Documents without text.
    same(one([0], [0], [2]), ([2], [True], 0))
    same(one([], [0, 0], [2, 3]), ([], [], 5))


def test_a_prefix_is_taken_off():
    same(one([2, 3], [3, 3], [1, 2], prefix=1), ([1, 2], [True, True], 0))
    # A token that is all prefix hands its value on; bos before it stays paired.
    same(one([0, 2, 3], [0, 1, 5], [9, 1, 4], prefix=1), ([9, 2, 3], [True, False, False], 0))
    same(one([2], [1, 2], [NAN, 4], prefix=1), ([4], [True], 0))
    same(one([2], [1, 2], [3, NAN], prefix=1), ([NAN], [False], 3))
    # In float64, as all sums.
    same(one([2], [1, 2], [1e-6, 4], prefix=1), ([np.float64(np.float32(1e-6)) + 4], [True], 0))
    # Without: the text itself begins with a space.
    same(one([2, 3], [2, 3], [1, 2], prefix=1), ([1, 2], [True, True], 0))


def test_documents_that_cannot_be_aligned():
    ours, theirs = [[2], [2], [2], [2], [2]], [[1, 1], [1], [3], [-1, 2], [2]]
    found = align(
        batch(ours),
        batch(theirs),
        flat([[1] * len(each) for each in theirs]),
        same_text=np.array([True, True, True, True, False]),
    )
    assert [REASONS[reason] for reason in found.reasons] == [
        "",
        "reference_has_less_text",
        "reference_has_more_text",
        "unknown_token",
        "reference_has_other_text",
    ]
    np.testing.assert_array_equal(found.values, [2, NAN, NAN, NAN, NAN])
    assert found.unplaced.tolist() == [0, 1, 1, 2, 1]
    assert "1 bytes less" in found.explain(1) and "prefix" in found.explain(2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((batch([[1]]), batch([[1], [1]]), np.ones(2)), "theirs has 2 documents"),
        ((batch([[1]]), batch([[1]]), np.ones(2)), "values has shape"),
        ((batch([[1]]), Tokens(np.ones(1), np.array([0, 1])), np.ones(1)), "theirs.lengths must be integers"),
        ((Tokens(np.array([1]), np.array([0, 2])), batch([[1]]), np.ones(1)), "ours.bounds must ascend"),
    ],
)
def test_arrays_that_do_not_fit(arguments, words):
    with pytest.raises(ValueError, match=words):
        align(*arguments)


ODD = ["日本語のテキスト 🎉🎉 naïve\n\ttabs  and  spaces", "\nfirst a line end", " first a space", "x"]


@pytest.fixture(scope="session")
def crawl(texts):
    """Pages of the crawl, and characters of two to four bytes."""
    return [*texts["text"].to_pylist()[:4], *ODD]


def byte_level(lines, words):
    """A byte-level BPE: its tokens are in words, or go across them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=500, max_token_length=20, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


@pytest.fixture(scope="session")
def ours(crawl):
    """Tokenizers as builds have them."""
    lines = [line for page in crawl[:4] for line in page.splitlines()]
    return {"bpe": byte_level(lines, True), "superwords": byte_level(lines, False)}


def sentencepiece(crawl, model, trainer, first):
    """A tokenizer of SentencePiece's kind with byte fallback: ▁ for spaces, which comes before a text too."""
    tokenizer = Tokenizer(model)
    if first == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.train_from_iterator([line for page in crawl[:4] for line in page.splitlines()], trainer)
    return Tokenizer.from_str(with_bytes(json.loads(tokenizer.to_str())))


def with_bytes(data):
    """Give a vocabulary the 256 tokens of byte fallback, which the trainers don't know."""
    model = data["model"]
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    if model["type"] == "BPE":
        model["vocab"] |= {name: len(model["vocab"]) + i for i, name in enumerate(names)}
    else:
        model["vocab"] += [[name, -20.0] for name in names]
    model["byte_fallback"] = True
    return json.dumps(data)


@pytest.fixture(scope="session")
def theirs(crawl, ours):
    """Tokenizers as models have them."""
    plain = {"show_progress": False, "special_tokens": ["<unk>"]}
    bpe = trainers.BpeTrainer(vocab_size=400, max_token_length=12, limit_alphabet=60, **plain)
    unigram = trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", **plain)
    return {
        "bpe": ours["bpe"],
        "fallback_bpe": sentencepiece(crawl, models.BPE(unk_token="<unk>", byte_fallback=True), bpe, "prepend"),
        "fallback_unigram": sentencepiece(crawl, models.Unigram(byte_fallback=True), unigram, "metaspace"),
    }


def encoded(tokenizer, pages):
    """Ids and bounds as the library gives them."""
    found = [tokenizer.encode(page, add_special_tokens=False).ids for page in pages]
    return np.array([i for ids in found for i in ids], np.uint32), np.array([0, *accumulate(map(len, found))], np.int64)


@pytest.mark.parametrize("ours_name", ["bpe", "superwords"])
@pytest.mark.parametrize("theirs_name", ["bpe", "fallback_bpe", "fallback_unigram"])
def test_real_tokenizers(crawl, ours, theirs, ours_name, theirs_name):
    table = make_token_bytes(parse(ours[ours_name].to_str(), "").ordinary())
    ids, bounds = encoded(ours[ours_name], crawl)
    text, offsets = text_of(ids, bounds, table)
    assert [text[a:b].tobytes().decode() for a, b in pairwise(offsets)] == crawl

    reference = theirs[theirs_name]
    their_table = parse_token_bytes(reference.to_str(), theirs_name)
    assert their_table.prefix == (theirs_name != "bpe")
    their_ids, their_bounds = encoded(reference, crawl)
    good = spells(their_ids, their_bounds, their_table, text, offsets)
    assert good.all()

    mine, other = Tokens(lengths_of(ids, table), bounds), Tokens(lengths_of(their_ids, their_table), their_bounds)
    values = np.random.default_rng(1).exponential(2, len(their_ids)).astype(np.float32)
    found = align(mine, other, values, prefix=their_table.prefix, same_text=good)
    assert not found.reasons.any() and (found.values >= 0).all() and not found.unplaced.any()
    for i, (a, b) in enumerate(pairwise(bounds)):
        total = values[slice(*their_bounds[i : i + 2])].astype(np.float64).sum()
        assert abs(found.values[a:b].sum() - total) <= 1e-9 * total
    if ours_name == theirs_name:
        assert found.exact.all()
        np.testing.assert_array_equal(found.values, values.astype(np.float64))
    for i in range(len(crawl) - len(ODD), len(crawl)):  # the whole definition
        mine_span, other_span = slice(*bounds[i : i + 2]), slice(*their_bounds[i : i + 2])
        lengths, given_ = other.lengths[other_span].tolist(), values[other_span].tolist()
        if sum(lengths) > len(crawl[i].encode()):
            lengths[0] -= 1
            if not lengths[0]:
                lengths, given_ = lengths[1:], [given_[0] + given_[1], *given_[2:]]
        expected, exact = slow(mine.lengths[mine_span].tolist(), lengths, given_)
        np.testing.assert_allclose(found.values[mine_span], [float(each) for each in expected], rtol=1e-12)
        assert found.exact[mine_span].tolist() == exact


def test_a_prefix_that_is_a_token_of_its_own(theirs):
    """What the library makes of a text that begins with a line end: ▁ and the byte."""
    table = parse_token_bytes(theirs["fallback_bpe"].to_str(), "")
    ids, bounds = encoded(theirs["fallback_bpe"], ["\nx"])
    lengths = lengths_of(ids, table)
    assert lengths[:2].tolist() == [1, 1] and lengths.sum() == 3
    found = align(batch([[2]]), Tokens(lengths, bounds), np.ones(len(ids)), prefix=table.prefix)
    assert found.values.tolist() == [len(ids)] and found.exact.all()


def test_a_normalizer_is_found_out(theirs):
    """Whether it changes the length or not."""
    data = json.loads(theirs["bpe"].to_str())
    for normalizer, text, reason in (
        ({"type": "NFC"}, "cafe\u0301", "reference_has_less_text"),
        ({"type": "NFKC"}, "a\u2460 \u2075 x", "reference_has_less_text"),
        ({"type": "NFD"}, "caf\u00e9", "reference_has_more_text"),
        ({"type": "Lowercase"}, "Cafe", "reference_has_other_text"),
    ):
        tokenizer = Tokenizer.from_str(json.dumps(data | {"normalizer": normalizer}))
        table = parse_token_bytes(tokenizer.to_str(), "")
        ids, bounds = encoded(tokenizer, ["plain", text])
        texts = [b"plain", text.encode()]
        offsets = np.array([0, 5, 5 + len(texts[1])])
        good = spells(ids, bounds, table, np.frombuffer(b"".join(texts), np.uint8), offsets)
        assert good.tolist() == [True, False]
        mine = batch([[1] * len(each) for each in texts])
        found = align(mine, Tokens(lengths_of(ids, table), bounds), np.ones(len(ids)), same_text=good)
        assert [REASONS[each] for each in found.reasons] == ["", reason]


def test_tables_of_special_and_unknown_tokens():
    data = {
        "added_tokens": [
            {"id": 0, "content": "<unk>", "special": True},
            {"id": 5, "content": "<s>", "special": True},
            {"id": 6, "content": "<b>", "special": False},
        ],
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["▁é", -1], ["a", -1], ["<0x0A>", -1], ["▁▁", -1]]},
    }
    table = parse_token_bytes(json.dumps(data), "x")
    assert table.lengths.tolist() == [-1, 3, 1, 6, 2, 0, 3]  # no byte fallback: <0x0A> is what it looks like
    data["model"]["byte_fallback"] = True
    table = parse_token_bytes(json.dumps(data), "x")
    assert table.lengths.tolist() == [-1, 3, 1, 1, 2, 0, 3] and table.prefix == 0
    text, offsets = text_of(np.array([5, 1, 3, 2, 4]), np.array([1, 3, 5]), table)
    assert text.tobytes() == " é\na  ".encode() and offsets.tolist() == [0, 4, 7]
    with pytest.raises(ValueError, match="the tokenizer has 7"):
        lengths_of(np.array([7]), table)
    data["decoder"] = {"type": "WordPiece"}
    with pytest.raises(InputError, match=r"tokenizer 'x': key model\.type is \"Unigram\" without ByteLevel"):
        parse_token_bytes(json.dumps(data), "x")
    with pytest.raises(InputError, match="is not a tokenizer"):
        parse_token_bytes("[]", "x")
