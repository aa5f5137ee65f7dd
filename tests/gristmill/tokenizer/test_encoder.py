"""The compiled encoder against the Hugging Face library: any merges, any text, any split into documents."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.tokenizer import Bpe, SuperBpe
from gristmill.tokenizer.encoding import memory
from gristmill.tokenizer.encoding.barriers import UnsupportedMerges, find_transition, known_merges
from gristmill.tokenizer.encoding.context import FILLED
from gristmill.tokenizer.encoding.encoder import Encoder, HfEncoder, open_encoder
from gristmill.tokenizer.encoding.probe import EncoderMismatch, check_encoder
from gristmill.tokenizer.encoding.utf8 import first_invalid
from gristmill.tokenizer.intrinsics import address_of
from gristmill.tokenizer.patterns import PATTERNS, Pattern
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.vocabulary import Vocabulary, to_tokenizer
from tests.gristmill.tokenizer.slow import crawl_texts, encode, flat
from tests.random_examples import examples

BYTES = tuple(bytes([byte]) for byte in range(256))
NAMES = ("repo", "paper", "llama3", "gpt2", "whole")


@cache
def trained(name):
    corpus = make_corpus(crawl_texts(60))
    if name in ("repo", "paper"):
        return SuperBpe(vocab_size=3000, transition=2000, patterns=name).train(corpus)
    if name == "whole":  # one piece a text that is a token is that token
        return replace(Bpe(vocab_size=2000, pattern="llama3", special_tokens=()).train(corpus), ignore_merges=True)
    return Bpe(vocab_size=2000, pattern=name).train(corpus)


@cache
def opened(name):
    return open_encoder(trained(name)), to_tokenizer(trained(name))


def library(tokenizer, *texts):
    return [tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids for text in texts]


@pytest.mark.parametrize("name", NAMES)
def test_real_pages(name):
    encoder, tokenizer = opened(name)
    assert isinstance(encoder, Encoder)
    texts = crawl_texts(100)[60:]  # of which nothing was learned
    assert encode(encoder, *texts) == library(tokenizer, *texts)


def test_superwords_have_two_phases_and_plain_merges_one():
    for name, two in (("repo", True), ("paper", True), ("llama3", False)):
        vocabulary = trained(name)
        merges = known_merges(vocabulary)
        transition = find_transition(vocabulary, merges)
        assert (transition < len(merges)) == two
        across = [
            vocabulary.tokens[i][-1:] > b"a" and vocabulary.tokens[j][:1] == b" " for i, j, _ in vocabulary.merges[:transition]
        ]
        assert not any(across)


@examples(150)
@given(st.text(max_size=200), st.sampled_from(NAMES))
def test_random_unicode(text, name):
    encoder, tokenizer = opened(name)
    assert encode(encoder, text) == library(tokenizer, text)


@examples(100)
@given(
    st.lists(st.sampled_from([*"ab e.,\n1é日", " the", " of", "  ", "ing", "и т", "\u0301", "👍🏽"]), max_size=150),
    st.sampled_from(NAMES),
)
def test_random_mixtures(parts, name):
    encoder, tokenizer = opened(name)
    assert encode(encoder, "".join(parts)) == library(tokenizer, "".join(parts))


@st.composite
def vocabularies(draw):
    """Merges in any order over few letters: twice the same pair, one token made in several ways, parts of characters."""
    tokens = list(BYTES)
    merges = []
    start = [*b"ab c", *"é日".encode()]
    usable = list(start)
    for _ in range(draw(st.integers(1, 30))):
        left, right = draw(st.sampled_from(usable)), draw(st.sampled_from(usable))
        joined = tokens[left] + tokens[right]
        if len(joined) > 12:
            continue
        if joined not in tokens:
            tokens.append(joined)
            usable.append(len(tokens) - 1)
        merges.append((left, right, tokens.index(joined)))
    if draw(st.booleans()):
        merges = draw(st.permutations(merges))
    cuts = draw(st.sampled_from([(), (PATTERNS["gpt2"],), (PATTERNS["superbpe_repo_stage2"],)]))
    return Vocabulary(tuple(tokens), np.array(merges, np.int32).reshape(-1, 3), cuts, ignore_merges=draw(st.booleans()))


@examples(150)
@given(vocabularies(), st.lists(st.text(alphabet="aaabb  cé日", max_size=120), min_size=1, max_size=4))
def test_any_merges(vocabulary, texts):
    encoder, tokenizer = Encoder(vocabulary), to_tokenizer(vocabulary)
    assert encode(encoder, *texts) == library(tokenizer, *texts)
    assert encode(encoder, *texts) == library(tokenizer, *texts)  # from memory


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_many_random_merges_on_long_pieces(shuffled, whole):
    rng = np.random.default_rng(5)
    tokens, merges = list(BYTES), []
    usable = [*b"ab c"]
    while len(merges) < 400:
        left, right = rng.choice(usable, 2).tolist()
        joined = tokens[left] + tokens[right]
        if joined not in tokens and len(joined) < 30:
            tokens.append(joined)
            usable.append(len(tokens) - 1)
        if joined in tokens:
            merges.append((left, right, tokens.index(joined)))
    if shuffled:
        rng.shuffle(merges)
    vocabulary = Vocabulary(tuple(tokens), np.array(merges, np.int32), ignore_merges=whole)
    texts = [
        "".join(rng.choice(list("ab c"), size).tolist())
        for size in (1, 2, 15, 16, 17, 63, 64, 65, 66, 255, 256, 257, 3000, 40000)
    ]
    assert encode(Encoder(vocabulary), *texts) == library(to_tokenizer(vocabulary), *texts)


@pytest.mark.parametrize("name", NAMES)
def test_the_split_into_documents_does_not_matter(name):
    encoder, _ = opened(name)
    texts = ["", *crawl_texts(12), "", "", "a", ""]
    together = encode(encoder, *texts)
    assert together == [encode(encoder, text)[0] for text in texts]
    assert [ids for ids in together if not ids] == [[]] * 4
    data, offsets = flat(texts)
    ids, ends = encoder.encode(data, offsets[5:9])  # some documents of a buffer
    assert [ids[a:b].tolist() for a, b in pairwise(ends)] == together[5:8]
    assert encode(encoder) == []


def test_pieces_given_as_documents():
    vocabulary = replace(trained("llama3"), cuts=())
    pieces = [" the", "the", "", " unbelievably", "x" * 300, " ", "日本語"]
    assert encode(Encoder(vocabulary), *pieces) == library(to_tokenizer(vocabulary), *pieces)


def test_memory_is_bounded_and_emptied():
    encoder, tokenizer = Encoder(trained("llama3")), opened("llama3")[1]
    context = encoder._context
    sizes = {name: array.nbytes for name, array in context.held.items()}
    assert sum(sizes[name] for name in ("SHORT", "LONG", "POOL")) < 20 << 20
    rng = np.random.default_rng(7)
    filled, emptied = 0, 0
    for _ in range(12):  # words of 20 to 40 letters, none of which comes twice: each takes 7 words or more of the pool
        letters = rng.integers(97, 123, 1_000_000, np.uint8)
        letters[np.cumsum(rng.integers(20, 40, 40_000)).clip(max=len(letters) - 1)] = 32
        encoder.encode(letters, np.array([0, len(letters)], np.int64))
        now = int(context.held["FILLED"][0])
        assert now <= memory.POOL_WORDS
        emptied += now < filled
        filled = now
    assert emptied
    assert {name: array.nbytes for name, array in context.held.items()} == sizes
    assert context.row[int(FILLED)] == address_of(context.held["FILLED"])
    last = letters[:200_000].tobytes().decode()
    assert encode(encoder, last, "the end") == library(tokenizer, last, "the end")


@examples(400)
@given(
    st.lists(
        st.sampled_from(
            [
                b"a",
                b"b" * 40,
                *(bytes([b]) for b in range(0x80, 0x100, 5)),
                *"é日👍\U0010ffff\ud7ff".encode("utf-8").split(b"|"),
                b"\x80",
                b"\xbf",
                b"\xc0",
                b"\xc2",
                b"\xe0",
                b"\xed\xa0",
                b"\xed\x9f",
                b"\xf0\x8f",
                b"\xf4\x90",
                b"\xf4\x8f",
                b"\x9f",
            ]
        ),
        max_size=12,
    )
)
def test_what_is_valid_is_what_python_decodes(parts):
    data = b"".join(parts)
    try:
        data.decode()
        expected = len(data)
    except UnicodeDecodeError as error:
        expected = error.start
    held = np.frombuffer(data + bytes(1), np.uint8)
    assert first_invalid(address_of(held), np.uint64(0), np.uint64(len(data))) == expected


def test_invalid_text_is_refused():
    encoder = opened("llama3")[0]
    data = np.frombuffer(b"fine" + b"not \xff fine" + "日".encode(), np.uint8)
    with pytest.raises(ValueError, match=r"^document 1 is not valid UTF-8 at its byte 4 \(0xFF\)"):
        encoder.encode(data, np.array([0, 4, 14, 17]))
    with pytest.raises(ValueError, match=r"^document 1 .* at its byte 0"):  # valid together, but not alone
        encoder.encode(np.frombuffer("日".encode(), np.uint8), np.array([0, 1, 3]))
    with pytest.raises(ValueError, match=r"^document 0 .* at its byte 0"):
        encoder.encode(np.frombuffer("日".encode()[:2], np.uint8), np.array([0, 2]))


def test_what_the_loops_do_not_know_goes_to_the_library():
    backwards = replace(trained("llama3"), cuts=(Pattern(r"(?<=a)b|\s+|\S+"),))
    encoder = open_encoder(backwards)
    assert isinstance(encoder, HfEncoder)
    assert encoder.reason
    texts = ["abab the cat", "", "日本"]
    assert encode(encoder, *texts) == library(to_tokenizer(backwards), *texts)
    assert encode(encoder) == []
    with pytest.raises(ValueError, match=r"^document 0"):
        encoder.encode(np.frombuffer(b"\xff", np.uint8), np.array([0, 1]))
    fewer = Vocabulary((b"a", b"b", b"ab"), np.array([[0, 1, 2]], np.int32))
    with pytest.raises(UnsupportedMerges, match="byte 0x00"):
        Encoder(fewer)
    assert encode(open_encoder(fewer), "abba") == [[2, 1, 0]]


def test_a_merge_that_spells_something_else_is_refused():
    with pytest.raises(UnsupportedMerges, match="merge 0 of ids 97 and 98"):
        Encoder(Vocabulary((*BYTES, b"ac"), np.array([[97, 98, 256]], np.int32)))


def test_the_check_finds_other_ids():
    vocabulary = trained("llama3")
    check_encoder(Encoder(vocabulary), vocabulary)
    fewer = replace(vocabulary, merges=np.delete(vocabulary.merges, 40, axis=0))
    with pytest.raises(EncoderMismatch, match=r"differs from the tokenizers library on text \d+ of its check, from token \d+ on"):
        check_encoder(Encoder(fewer), vocabulary)
