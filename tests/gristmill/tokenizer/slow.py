"""Byte-pair encoding written down as plainly as can be, for the tests of schemes: everything is recounted at every step."""

import functools
import gzip
import re
from collections import Counter
from itertools import pairwise

import numpy as np

from gristmill.tokenizer.patterns import steps
from gristmill.tokenizer.token_names import bytes_of_letters
from gristmill.tokenizer.vocabulary import to_tokenizer

TINY = [
    "the cat sat on the mat. the cat sat on the hat, and the dog sat on the cat\n",
    "In 2024 there were 1234567 cats; in 2025 there were 1234568 cats.\n\n    on the mat   on the hat\t\taaaaaaa aaaa",
    "Über den Dächern: 日本語のテキスト, 日本語の猫. naïve café 🐈🐈 the cat's mat isn't the dog's mat",
]


@functools.cache
def stripped():
    """The pages of a crawl that are long enough, tags stripped roughly, in the order of the file."""
    with gzip.open("examples/crawl/docs-00000.warc.gz") as file:
        pages = file.read(6_000_000).decode("utf-8", "ignore").split("WARC/1.")[1:-1]
    texts = (re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", "", page.split("\r\n\r\n", 2)[-1]) for page in pages)
    return [text for text in texts if len(text) > 500]


def crawl_texts(limit=60):
    """Real pages, read once for all tests of a process."""
    assert len(stripped()) >= limit
    return stripped()[:limit]


def cut(text, cuts):
    """The pieces of a text, as bytes."""
    from tokenizers import pre_tokenizers

    table = bytes_of_letters()
    pre = pre_tokenizers.Sequence([*steps(cuts), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return [bytes(table[letter] for letter in piece) for piece, _ in pre.pre_tokenize_str(text)]


def replaced(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            out.append(new)
            i += 1
        else:
            out.append(ids[i])
        i += 1
    return tuple(out)


def pair_counts(words):
    counts = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    return counts


def best(counts, allowed=lambda pair: True):
    """The most frequent pair, of equal ones that of the smallest ids; None if there is none."""
    return min((pair for pair in counts if allowed(pair)), key=lambda pair: (-counts[pair], pair), default=None)


def learned(words, tokens, size, min_frequency, allowed=lambda token: True):
    """Merges (left, right, joined) until there are `size` tokens. `words`: Counter of tuples of ids."""
    tokens, merges = list(tokens), []

    def fits(pair):
        return allowed(tokens[pair[0]] + tokens[pair[1]])

    while len(tokens) < size:
        counts = pair_counts(words)
        pair = best(counts, fits)
        if pair is None or counts[pair] < min_frequency:
            break
        joined = tokens[pair[0]] + tokens[pair[1]]
        new = tokens.index(joined) if joined in tokens[1:] else len(tokens)  # 0 is the special token
        tokens += [joined] if new == len(tokens) else []
        merges.append((*pair, new))
        renewed = Counter()
        for word, count in words.items():
            renewed[replaced(word, pair, new)] += count
        words = renewed
    return tokens, merges


def bpe(ids, merges):
    """The merge of the lowest rank again and again."""
    ranks = {(left, right): rank for rank, (left, right, _) in enumerate(merges)}
    while True:
        rank = min((ranks[pair] for pair in pairwise(ids) if pair in ranks), default=None)
        if rank is None:
            return tuple(ids)
        ids = replaced(ids, tuple(merges[rank][:2]), merges[rank][2])


def byte_ids(vocabulary, text):
    table = vocabulary.byte_ids().tolist()
    return tuple(table[byte] for byte in text)


def encoded(vocabulary, text):
    """The ids of a text by the vocabulary's ordinary merges."""
    merges = vocabulary.merges.tolist()
    return [i for piece in cut(text, vocabulary.cuts) for i in bpe(byte_ids(vocabulary, piece), merges)]


def flat(texts):
    held = [text.encode() for text in texts]
    offsets = np.append(0, np.cumsum([len(text) for text in held])).astype(np.int64)
    return np.frombuffer(b"".join(held), np.uint8), offsets


def encode(encoder, *texts):
    """What a flat encoder gives for each text."""
    ids, offsets = encoder.encode(*flat(texts))
    assert ids.dtype == np.uint32
    assert offsets.dtype == np.int64
    return [ids[begin:end].tolist() for begin, end in pairwise(offsets)]


def same(one, other):
    """Are these the same vocabulary?"""
    whole = [None if each.whole is None else each.whole.tolist() for each in (one, other)]
    facts = [(each.tokens, each.merges.tolist(), each.cuts, each.special_tokens, each.scaffolds) for each in (one, other)]
    return facts[0] == facts[1] and whole[0] == whole[1]


def check_standard(vocabulary, texts):
    """The library loads it, gives the ids of the definition, and gives the text back."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(to_tokenizer(vocabulary).to_str())
    tokenizer.encode_special_tokens = True
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert ids == encoded(vocabulary, text)
        assert tokenizer.decode(ids) == text
        assert b"".join(vocabulary.tokens[i] for i in ids) == text.encode()


def check_independent(scheme, texts, corpus):
    """Order and batches change nothing."""
    whole = scheme.train(corpus(texts))
    assert same(scheme.train(corpus(texts[::-1])), whole)
    assert same(scheme.train(corpus(texts, batch_bytes=1000)), whole)
    assert same(scheme.train(corpus(texts, [str(i % 3) for i in range(len(texts))])), whole)
