"""Longest prefix and least tokens against slow transcriptions, and what they promise for odd inputs."""

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.tokenizer.encoding.greedy import LongestPrefix
from gristmill.tokenizer.encoding.least import LeastTokens
from gristmill.tokenizer.encoding.windows import WINDOW_BYTES
from gristmill.tokenizer.patterns import PATTERNS
from gristmill.tokenizer.vocabulary import Vocabulary
from tests.gristmill.tokenizer.slow import crawl_texts
from tests.random_examples import examples

BYTES = tuple(bytes([byte]) for byte in range(256))
WORDS = re.compile(r" ?\w+|[^\w]+")


def vocabulary(*tokens, cuts=(), special=()):
    names = tuple(name.encode() for name in special)
    return Vocabulary(names + BYTES + tokens, cuts=cuts, special_tokens={name: i for i, name in enumerate(special)})


def flat(texts):
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return np.frombuffer(b"".join(texts), np.uint8), offsets


def encode(encoder, *texts):
    ids, offsets = encoder.encode(*flat(texts))
    assert ids.dtype == np.uint32 and offsets.dtype == np.int64
    return [ids[begin:end].tolist() for begin, end in pairwise(offsets)]


def slow_longest_prefix(piece, ids, longest):
    out, at = [], 0
    while at < len(piece):
        size = next(size for size in range(longest, 0, -1) if len(piece[at : at + size]) == size and piece[at : at + size] in ids)
        out.append(ids[piece[at : at + size]])
        at += size
    return out


def slow_least_tokens(piece, ids, longest):
    """By places and widths as the paper has it; of equals the wider token, as it is seen later."""
    number, width = [0] + [10**9] * len(piece), [0] * (len(piece) + 1)
    for end in range(1, len(piece) + 1):
        for size in range(1, min(longest, end) + 1):
            if piece[end - size : end] in ids and number[end - size] + 1 <= number[end]:
                number[end], width[end] = number[end - size] + 1, size
    out, end = [], len(piece)
    while end:
        out.append(ids[piece[end - width[end] : end]])
        end -= width[end]
    return out[::-1]


def slow(encode_piece, held, text, pieces=lambda text: [text]):
    special = set(held.special_tokens.values())
    ids = {}
    for i, token in enumerate(held.tokens):
        if token and i not in special:
            ids.setdefault(token, i)
    longest = max(map(len, ids))
    return [i for piece in pieces(text) for i in encode_piece(piece, ids, longest)]


MODES = [
    pytest.param(LongestPrefix, slow_longest_prefix, id="longest_prefix"),
    pytest.param(LeastTokens, slow_least_tokens, id="least_tokens"),
]


def superwords(texts, size):
    """Return the most frequent runs of one to three words, and their beginnings and ends."""
    counts = Counter()
    for text in texts:
        words = [word.encode() for word in WORDS.findall(text.decode())]
        for n in (1, 2, 3):
            counts.update(b"".join(words[i : i + n]) for i in range(len(words) - n + 1))
    found = [token for token, _ in counts.most_common(size) if 1 < len(token) < 40]
    parts = [part for token in found for part in (token[: len(token) // 2], token[len(token) // 2 :])]
    return tuple(sorted({token for token in [*found, *parts] if len(token) > 1}))


@pytest.mark.parametrize(("encoder", "expected"), MODES)
@pytest.mark.parametrize("cuts", [(), ("gpt2",)])
def test_real_pages_are_encoded_as_by_the_slow_transcription(encoder, expected, cuts):
    texts = [text[:3000].encode() for text in crawl_texts(40)]
    held = vocabulary(*superwords(texts[::2], 2000), cuts=tuple(PATTERNS[name] for name in cuts), special=("<|endoftext|>",))
    assert len(held.tokens) > 1500
    pieces = gpt2_pieces if cuts else lambda text: [text]
    texts = texts[:10]
    assert sum(map(len, texts)) > 15_000
    found = encode(encoder(held), *texts)
    assert found == [slow(expected, held, text, pieces) for text in texts]
    assert [b"".join(held.tokens[i] for i in ids) for ids in found] == texts


def gpt2_pieces(text):
    from tokenizers import pre_tokenizers

    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    begin, out = 0, []
    for piece, _ in cut.pre_tokenize_str(text.decode()):
        out.append(text[begin : begin + len(piece)])
        begin += len(piece)
    return out


@pytest.mark.parametrize(("encoder", "expected"), MODES)
def test_any_tokens_and_texts_are_encoded_as_by_the_slow_transcription(encoder, expected):
    tokens = st.lists(st.text("abé", min_size=1, max_size=7).map(str.encode), max_size=25)

    @examples(60)
    @given(tokens, st.lists(st.text("abé\n", max_size=40).map(str.encode), max_size=4))
    def check(more, texts):
        held = vocabulary(*more, b"", special=("ab",))
        assert encode(encoder(held), *texts) == [slow(expected, held, text) for text in texts]

    check()


def test_no_segmentation_has_fewer_tokens_than_least_tokens():
    @examples(40)
    @given(st.lists(st.text("ab", min_size=2, max_size=5).map(str.encode), min_size=1, max_size=8), st.text("ab", max_size=12))
    def check(more, text):
        held = vocabulary(*more)
        ends, number = {0}, 0  # all places that can be reached with so many tokens
        while len(text) not in ends:
            ends = {at + len(t) for at in ends for t in (*more, text[at : at + 1].encode()) if text.encode().startswith(t, at)}
            number += 1
        fewest, greedy = (len(encode(encoder(held), text.encode())[0]) for encoder in (LeastTokens, LongestPrefix))
        assert number == fewest <= greedy

    check()


def test_where_the_two_differ():
    held = vocabulary(b"ab", b"abc", b"cde", b"de")
    ab, abc, cde, de = range(256, 260)
    assert encode(LongestPrefix(held), b"abcde", b"abcdd") == [[abc, de], [abc, ord("d"), ord("d")]]
    assert encode(LeastTokens(held), b"abcde") == [[ab, cde]]  # as few with either; the longest last token decides


@pytest.mark.parametrize(("encoder", "expected"), MODES)
def test_one_long_piece_that_no_place_settles(encoder, expected):
    held = vocabulary(b"aa", b"a" * 5, b"a" * 64)
    size = WINDOW_BYTES + 70_003
    text = b"a" * size
    (ids,) = encode(encoder(held), text)
    assert ids.count(258) == size // 64
    assert b"".join(held.tokens[i] for i in ids) == text
    assert encode(encoder(held), text[:3001]) == [slow(expected, held, text[:3001])]


@pytest.mark.parametrize(("encoder", "expected"), MODES)
def test_documents_are_encoded_apart_whatever_is_around_them(encoder, expected):
    held = vocabulary(b"ab", b"ba", b"bab", b"abab", "é".encode())
    texts = [b"abab", b"", b"b", b"ab" * (WINDOW_BYTES // 3), b"", "éa".encode(), b"bab" * WINDOW_BYTES, b"abba", b""]
    opened = encoder(held)
    assert encode(opened, *texts) == [encode(opened, text)[0] for text in texts]
    text, offsets = flat(texts)
    ids, places = opened.encode(text, offsets[5:])  # a slice of a longer buffer, as Arrow has them
    again, whole = opened.encode(text[offsets[5] :], offsets[5:] - offsets[5])
    assert ids.tolist() == again.tolist() and places.tolist() == whole.tolist()
    for empty in ([], [b""], [b"", b""]):
        assert encode(opened, *empty) == [[] for _ in empty]


@pytest.mark.parametrize(("encoder", "expected"), MODES)
def test_special_and_unused_ids_never_come_out_and_the_lowest_of_equal_tokens_does(encoder, expected):
    held = Vocabulary((b"<s>", *BYTES, b"", b"xy", b"xy"), special_tokens={"<s>": 0})
    assert encode(encoder(held), b"<s>xy") == [[ord("<") + 1, ord("s") + 1, ord(">") + 1, 258]]


@pytest.mark.parametrize(("encoder", "expected"), MODES)
def test_each_byte_must_be_a_token(encoder, expected):
    tokens = tuple(token for token in BYTES if token not in b"\x00a\xff")
    with pytest.raises(ValueError, match=r"needs each of the 256 single bytes.*3 are missing: 0x00, 0x61, 0xff$"):
        encoder(Vocabulary(tokens))
    with pytest.raises(ValueError, match=r"256 are missing: 0x00, .*0x07, ...$"):
        encoder(Vocabulary(()))


@pytest.mark.parametrize(("encoder", "expected"), MODES)
def test_a_large_vocabulary_with_all_bytes_in_it(encoder, expected):
    random = np.random.default_rng(1)
    tokens = {bytes(random.integers(0, 256, random.integers(2, 6)).astype(np.uint8)) for _ in range(5_000)}
    tokens |= {bytes([a, b]) for a in range(0, 256, 2) for b in range(256)}  # nodes with every child
    held = vocabulary(*sorted(tokens))
    text = bytes(random.integers(0, 256, 4000).astype(np.uint8)) + b"".join(sorted(tokens)[::500])
    assert encode(encoder(held), text) == [slow(expected, held, text)]
