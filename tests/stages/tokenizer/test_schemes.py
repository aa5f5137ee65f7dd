"""The schemes against a slow trainer that recounts everything at every step, and what they refuse."""

import gzip
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.tokenizer import SCHEMES, Bpe, SuperBpe
from stages.tokenizer.patterns import PATTERNS, find_pattern, pre_tokenizer

EOS = "<|endoftext|>"


def crawl_texts(limit=120):
    """Real pages, tags stripped roughly: what matters here is real words, spaces, numbers and other scripts."""
    raw = gzip.decompress(Path("examples/crawl/docs-00000.warc.gz").read_bytes()).decode("utf-8", "ignore")
    pages = raw.split("WARC/1.")[1 : 3 * limit]
    texts = [re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", "", page.split("\r\n\r\n", 2)[-1]) for page in pages]
    return [text for text in texts if len(text) > 500][:limit]


TINY = [
    "the cat sat on the mat. the cat sat on the hat, and the dog sat on the cat\n",
    "In 2024 there were 1234567 cats; in 2025 there were 1234568 cats.\n\n    on the mat   on the hat\t\taaaaaaa aaaa",
    "Über den Dächern: 日本語のテキスト, 日本語の猫. naïve café 🐈🐈 the cat's mat isn't the dog's mat",
]


def slow_merge(word, pair, new):
    out, i = [], 0
    while i < len(word):
        if i + 1 < len(word) and (word[i], word[i + 1]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def slow_train(words, size, tokens, min_frequency, longest=None):
    """Recount all pairs for each merge; ties by the smaller ids. `tokens`: spelling by id, appended to in place."""
    merges = []
    length = {i: 1 for i in range(len(tokens))}
    while len(tokens) < size:
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        allowed = {p: c for p, c in pairs.items() if longest is None or length[p[0]] + length[p[1]] <= longest}
        if not allowed:
            break
        pair = min(allowed, key=lambda p: (-allowed[p], p))
        if allowed[pair] < min_frequency:
            break
        new = len(tokens)
        length[new] = length[pair[0]] + length[pair[1]]
        tokens.append(tokens[pair[0]] + tokens[pair[1]])
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        words = Counter({slow_merge(word, pair, new): count for word, count in words.items()})
    return merges


def slow_pieces(texts, pattern):
    cut = pre_tokenizer(PATTERNS[pattern])
    return Counter(piece for text in texts for piece, _ in cut.pre_tokenize_str(text))


def slow_alphabet():
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def slow_bpe(texts, pattern, size, min_frequency):
    tokens = slow_alphabet()
    words = Counter({tuple(tokens.index(letter) for letter in piece): n for piece, n in slow_pieces(texts, pattern).items()})
    return slow_train(words, size, tokens, min_frequency), tokens


def slow_superbpe(texts, scheme):
    first, tokens = slow_bpe(texts, f"superbpe_{scheme.patterns}", scheme.stage1_size - 1, scheme.min_frequency)
    words = Counter()
    for piece, count in slow_pieces(texts, f"superbpe_{scheme.patterns}_stage2").items():
        word = tuple(tokens.index(letter) for letter in piece)
        for left, right in first:
            word = slow_merge(word, (tokens.index(left), tokens.index(right)), tokens.index(left + right))
        words[word] += count
    return first, slow_train(words, scheme.vocab_size - 1, tokens, scheme.min_frequency, scheme.max_pieces)


def merges_of(tokenizer):
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


@pytest.mark.parametrize("min_frequency", [1, 2])
@pytest.mark.parametrize("pattern", ["gpt2", "llama3", "superbpe_repo"])
def test_bpe_merges_are_those_of_a_slow_trainer(pattern, min_frequency):
    tokenizer = Bpe(vocab_size=340, pattern=pattern, min_frequency=min_frequency).train(TINY)
    assert merges_of(tokenizer) == slow_bpe(TINY, pattern, 339, min_frequency)[0]


@pytest.mark.parametrize("max_pieces", [None, 2, 3, 4])
@pytest.mark.parametrize("patterns", ["paper", "repo"])
def test_superbpe_merges_are_those_of_a_slow_trainer(patterns, max_pieces):
    scheme = SuperBpe(vocab_size=360, transition=300, patterns=patterns, max_pieces=max_pieces, min_frequency=1)
    first, second = slow_superbpe(TINY, scheme)
    assert len(first) == 300 - 257
    assert second
    assert merges_of(scheme.train(TINY)) == first + second


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(alphabet="ab c1\n,é", max_size=40), min_size=1, max_size=6), st.sampled_from(["paper", "repo"]))
def test_superbpe_of_any_text_is_that_of_a_slow_trainer(texts, patterns):
    scheme = SuperBpe(vocab_size=285, transition=268, patterns=patterns, min_frequency=1, max_pieces=None)
    if not any(texts):
        with pytest.raises(ValueError, match="empty"):
            scheme.train(texts)
        return
    first, second = slow_superbpe(texts, scheme)
    assert merges_of(scheme.train(texts)) == first + second


@pytest.mark.parametrize("scheme", [Bpe(vocab_size=1200), SuperBpe(vocab_size=1200), SuperBpe(vocab_size=1200, patterns="repo")])
def test_real_pages_round_trip(scheme):
    from tokenizers import Tokenizer

    texts = crawl_texts()
    assert len(texts) > 60
    tokenizer = Tokenizer.from_str(scheme.train(texts[:60]).to_str())  # as others will load it
    assert tokenizer.get_vocab_size() == 1200
    assert tokenizer.token_to_id(EOS) == 0
    for text in [*texts[60:80], *TINY, "", " ", "\r\n\t", "\x00\x7f"]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_superbpe_continues_plain_bpe_and_finds_superwords():
    texts = crawl_texts(60)
    scheme = SuperBpe(vocab_size=1200, transition=0.75)
    plain = Bpe(vocab_size=900, pattern="superbpe_paper").train(texts)
    tokenizer = scheme.train(texts)
    assert merges_of(tokenizer)[: 900 - 257] == merges_of(plain)
    inside = [token for token in tokenizer.get_vocab() if re.search("[a-z]Ġ[a-z]", token)]
    assert len(inside) > 15
    assert not [token for token in plain.get_vocab() if re.search("[a-z]Ġ[a-z]", token)]
    assert len(tokenizer.encode(texts[0]).ids) < len(Bpe(vocab_size=1200).train(texts).encode(texts[0]).ids)


def test_training_does_not_depend_on_the_order_of_texts():
    texts = crawl_texts(40)
    for scheme in (Bpe(vocab_size=700), SuperBpe(vocab_size=700)):
        assert scheme.train(texts).to_str() == scheme.train(texts[::-1]).to_str()


def test_the_name_of_a_special_token_in_a_text_trains_as_text():
    tokenizer = SuperBpe(vocab_size=300, transition=280, min_frequency=1).train([f"x{EOS}y"] * 9)
    assert tokenizer.get_vocab_size() > 265  # it is cut and merged like anything else
    tokenizer.encode_special_tokens = True
    assert 0 not in tokenizer.encode(f"x{EOS}y").ids
    assert tokenizer.decode(tokenizer.encode(f"x{EOS}y").ids) == f"x{EOS}y"


def test_a_small_corpus_gives_a_smaller_vocabulary():
    assert SuperBpe(vocab_size=1000).train(["ab ab"]).get_vocab_size() < 300


def test_progress_names_both_stages():
    seen = []
    SuperBpe(vocab_size=300, transition=280).train(TINY, lambda what, done: seen.append(what))
    assert sorted(set(seen)) == ["stage 1: count words", "stage 2: count superwords"]


@pytest.mark.parametrize(
    ("scheme", "parameters", "message"),
    [
        ("bpe", {"vocab_size": 256}, "^vocab_size must be from 257"),
        ("bpe", {"vocab_size": 257, "special_tokens": ("<a>", "<b>")}, "^vocab_size must be from 258"),
        ("bpe", {"vocab_size": 2_000_000}, "^vocab_size .* to 1_000_000"),
        ("bpe", {"vocab_size": 300, "special_tokens": ("<a>", "<a>")}, "^special_tokens"),
        ("bpe", {"vocab_size": 300, "min_frequency": 0}, "^min_frequency"),
        ("bpe", {"vocab_size": 300, "pattern": "llama2"}, "^pattern .* did you mean 'llama3'"),
        ("bpe", {"vocab_size": 300, "pattern": r" ?(\p{L}+"}, r"^pattern does not compile"),
        ("superbpe", {"vocab_size": 300, "transition": 301}, "^transition .* 257 to 300"),
        ("superbpe", {"vocab_size": 300, "transition": 0.5}, "^transition .* 257 to 300 .* found 0.5, which is 150 tokens"),
        ("superbpe", {"vocab_size": 300, "transition": 1.5}, "^transition"),
        ("superbpe", {"vocab_size": 300, "transition": 280, "max_pieces": 1}, "^max_pieces"),
    ],
)
def test_mistakes_name_the_key(scheme, parameters, message):
    with pytest.raises(ValueError, match=message):
        SCHEMES[scheme](**parameters)


@pytest.mark.parametrize("scheme", [Bpe(vocab_size=300), SuperBpe(vocab_size=300, transition=280)])
def test_texts_that_cannot_train(scheme):
    for nothing in ([], ["", ""]):
        with pytest.raises(ValueError, match="nothing to train on"):
            scheme.train(nothing)
    with pytest.raises(ValueError, match="only once"):
        scheme.train(iter(TINY))


def test_patterns_compile_and_cut_as_published():
    for name in PATTERNS:
        assert "".join(piece for piece, _ in pre_tokenizer(find_pattern(name, "pattern")).pre_tokenize_str("ab 12")) == "abĠ12"
    paper = pre_tokenizer(PATTERNS["superbpe_paper_stage2"]).pre_tokenize_str("a b 1234567 c, d")
    assert [piece for piece, _ in paper] == ["aĠbĠ", "1", "234", "567", "Ġc,Ġd"]
    repo = pre_tokenizer(PATTERNS["superbpe_repo_stage2"]).pre_tokenize_str("a b 1234 c, d -- e")
    assert [piece for piece, _ in repo] == ["aĠbĠ", "123", "4", "Ġc,Ġd", "Ġ--", "Ġe"]
