"""The schemes against a slow trainer that recounts everything at every step, and what they refuse."""

import json
import random
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.tokenizer import SCHEMES, Bpe, SuperBpe
from gristmill.tokenizer.encoding.choose import choose_encoder
from gristmill.tokenizer.parsing import parse
from gristmill.tokenizer.patterns import PATTERNS, find_pattern, pre_tokenizer
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.vocabulary import to_json, to_tokenizer
from tests.gristmill.tokenizer.slow import TINY, crawl_texts, encode
from tests.random_examples import examples

EOS = "<|endoftext|>"
FEW = {EOS: 0, "a": 1}


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


def may_join(token, max_words):
    """As the paper has it: not more words than that, no colon before a space."""
    return ":Ġ" not in token and (max_words is None or len([w for w in token.split("Ġ") if w]) <= max_words)


def slow_train(words, size, tokens, min_frequency, allowed_token=lambda token: True):
    """Recount all pairs for each merge; ties by the smaller ids. `tokens`: spelling by id, appended to in place."""
    merges = []
    while len(tokens) < size:
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        allowed = {p: c for p, c in pairs.items() if allowed_token(tokens[p[0]] + tokens[p[1]])}
        if not allowed:
            break
        pair = min(allowed, key=lambda p: (-allowed[p], p))
        if allowed[pair] < min_frequency:
            break
        new = len(tokens)
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
    rule = (lambda token: may_join(token, scheme.max_words)) if scheme.forbid_colon else (lambda token: True)
    return first, slow_train(words, scheme.vocab_size - 1, tokens, scheme.min_frequency, rule)


def train(scheme, texts, **how):
    """The tokenizer as others load it, from the texts as they come."""
    return to_tokenizer(scheme.train(make_corpus(texts, **how)))


def merges_of(tokenizer):
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


@pytest.mark.parametrize("min_frequency", [1, 2])
@pytest.mark.parametrize("pattern", ["gpt2", "llama3", "superbpe_repo"])
def test_bpe_merges_are_those_of_a_slow_trainer(pattern, min_frequency):
    tokenizer = Bpe(vocab_size=340, pattern=pattern, min_frequency=min_frequency)
    assert merges_of(train(tokenizer, TINY)) == slow_bpe(TINY, pattern, 339, min_frequency)[0]


@pytest.mark.parametrize("max_words", [None, 1, 2, 4])
@pytest.mark.parametrize("patterns", ["paper", "repo"])
def test_superbpe_merges_are_those_of_a_slow_trainer(patterns, max_words):
    scheme = SuperBpe(vocab_size=360, transition=300, patterns=patterns, max_words=max_words, min_frequency=1)
    first, second = slow_superbpe(TINY, scheme)
    assert len(first) == 300 - 257
    assert second
    assert merges_of(train(scheme, TINY)) == first + second


@examples(25)
@given(st.lists(st.text(alphabet="ab c1\n,é", max_size=40), min_size=1, max_size=6), st.sampled_from(["paper", "repo"]))
def test_superbpe_of_any_text_is_that_of_a_slow_trainer(texts, patterns):
    scheme = SuperBpe(vocab_size=285, transition=268, patterns=patterns, min_frequency=1, forbid_colon=False, max_words=None)
    assume(any(texts))
    first, second = slow_superbpe(texts, scheme)
    assert merges_of(train(scheme, texts)) == first + second


@pytest.mark.parametrize("scheme", [Bpe(vocab_size=1200), SuperBpe(vocab_size=1200), SuperBpe(vocab_size=1200, patterns="repo")])
def test_real_pages_round_trip(scheme):
    from tokenizers import Tokenizer

    texts = crawl_texts(40)
    tokenizer = Tokenizer.from_str(train(scheme, texts[:30]).to_str())  # as others will load it
    assert tokenizer.get_vocab_size() == 1200
    assert tokenizer.token_to_id(EOS) == 0
    for text in [*texts[30:], *TINY, "", " ", "\r\n\t", "\x00\x7f"]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_superbpe_continues_plain_bpe_and_finds_superwords():
    texts = crawl_texts(60)
    scheme = SuperBpe(vocab_size=1200, transition=0.75)
    plain = train(Bpe(vocab_size=900, pattern="superbpe_paper"), texts)
    tokenizer = train(scheme, texts)
    assert merges_of(tokenizer)[: 900 - 257] == merges_of(plain)
    inside = [token for token in tokenizer.get_vocab() if re.search("[a-z]Ġ[a-z]", token)]
    assert len(inside) > 15
    assert not [token for token in plain.get_vocab() if re.search("[a-z]Ġ[a-z]", token)]
    assert len(tokenizer.encode(texts[0]).ids) < len(train(Bpe(vocab_size=1200), texts).encode(texts[0]).ids)


@pytest.mark.parametrize("transition", [0.8, "auto"])
def test_training_does_not_depend_on_the_order_or_the_batches_of_texts(transition):
    texts = crawl_texts(16)
    for scheme in (Bpe(vocab_size=700), SuperBpe(vocab_size=700, transition=transition)):
        whole = train(scheme, texts).to_str()
        assert train(scheme, texts[::-1]).to_str() == whole
        assert train(scheme, texts, batch_bytes=10_000).to_str() == whole


def test_the_name_of_a_special_token_in_a_text_trains_as_text():
    tokenizer = train(SuperBpe(vocab_size=300, transition=280, min_frequency=1), [f"x{EOS}y"] * 9)
    assert tokenizer.get_vocab_size() > 265  # it is cut and merged like anything else
    assert 0 not in tokenizer.encode(f"x{EOS}y").ids
    assert tokenizer.decode(tokenizer.encode(f"x{EOS}y").ids) == f"x{EOS}y"


@pytest.mark.parametrize("name", ["bpe", "superbpe", "supertoken", "boundless", "scaffold", "cbpe"])
def test_no_text_makes_a_token_with_the_name_of_a_special_one(name):
    texts = ["the cat sat on the mat, said the cat to the cat"] * 5
    parameters = {"transition": 275} if name == "superbpe" else {}
    plain, special = (
        SCHEMES[name](vocab_size=290, special_tokens=tokens, min_frequency=1, **parameters).train(make_corpus(texts))
        for tokens in ((), ("at",))
    )
    assert b"at" in plain.tokens
    assert [i for i, token in enumerate(special.tokens) if token == b"at"] == [0]
    assert (special.merges != 0).all()
    encoder = choose_encoder(special)
    ids, _ = encoder.encode(np.frombuffer(bytearray(texts[0].encode()), np.uint8), np.array([0, len(texts[0])]))
    assert b"".join(special.tokens[i] for i in ids) == texts[0].encode()
    assert (ids != 0).all()


def test_a_small_corpus_gives_a_smaller_vocabulary():
    assert SuperBpe(vocab_size=1000).train(make_corpus(["ab ab"])).size < 300


def test_progress_names_both_stages():
    seen = []
    SuperBpe(vocab_size=300, transition=280).train(make_corpus(TINY), lambda what, done, total, unit: seen.append((what, unit)))
    assert list(dict.fromkeys(seen)) == [
        ("stage 1: count words", "bytes"),
        ("stage 1: merge", "merges"),
        ("stage 2: encode", "bytes"),
        ("stage 2: merge", "merges"),
    ]


def test_superwords_on_top_of_another_tokenizer(tmp_path):
    texts = crawl_texts(60)
    base = train(Bpe(vocab_size=900, special_tokens=("<a>", "<b>")), texts)
    (tmp_path / "tokenizer.json").write_text(base.to_str())
    more = train(SuperBpe(vocab_size=1100, base=str(tmp_path)), texts)
    assert merges_of(more)[: 900 - 258] == merges_of(base)
    assert more.get_vocab_size() == 1100
    assert {name: i for name, i in more.get_vocab().items() if i < 900} == base.get_vocab()
    assert sum(len(more.encode(t).ids) for t in texts) < 0.95 * sum(len(base.encode(t).ids) for t in texts)
    with pytest.raises(InputError, match="vocab_size must be above the 900 tokens of base"):
        train(SuperBpe(vocab_size=900, base=str(tmp_path)), texts)
    with pytest.raises(InputError, match="nowhere"):
        train(SuperBpe(vocab_size=900, base=str(tmp_path / "nowhere")), texts)


def test_a_quota_keeps_the_small_language_from_paying_for_the_large_one():
    chance = random.Random(0)
    words = ["".join(chr(0xAC00 + chance.randrange(9000)) for _ in range(3)) for _ in range(150)]
    large, small = crawl_texts(40), [" ".join(chance.choices(words, k=450)) for _ in range(12)]
    names = ["large"] * len(large) + ["small"] * len(small)
    before = Bpe(vocab_size=1600).train(make_corpus([*large, *small], names))
    free, fair = (
        SuperBpe(vocab_size=1600, transition=0.6, max_loss=max_loss).train(make_corpus([*large, *small], names))
        for max_loss in (None, 0.01)
    )

    def tokens(vocabulary, texts):
        return sum(map(len, encode(choose_encoder(vocabulary), *texts)))

    assert tokens(free, small) > 1.03 * tokens(before, small)  # or there would be nothing to mend
    assert tokens(fair, small) <= 1.01 * tokens(before, small)
    assert tokens(free, large) < tokens(fair, large) < tokens(before, large)


def test_a_tokenizer_json_is_read_and_given_back_to_the_letter():
    text = to_json(SuperBpe(vocab_size=400, transition=300, special_tokens=("<a>", "<b>")).train(make_corpus(TINY)))
    assert to_json(parse(text, "t")) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["model"].update(type="Unigram"), "model.type is 'Unigram'"),
        (lambda data: data["model"].update(dropout=0.1), "model.dropout is 0.1"),
        (lambda data: data["model"].update(byte_fallback=True, vocab=FEW), "model.byte_fallback is true"),
        (lambda data: data["model"].update(unk_token="a", vocab=FEW), "model.unk_token is 'a'"),
        (lambda data: data.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer is 'Whitespace'"),
        (lambda data: data["model"]["vocab"].update({"日": 999}), "model.vocab is not byte-level: its token '日'"),
        (lambda data: data["model"]["merges"].append(["a", "q"]), "model.merges has 'a' with 'q', but 'aq'"),
        (lambda data: data["added_tokens"][0].update(special=False, rstrip=True), "added_tokens has '<|endoftext|>' with rstrip"),
        (lambda data: data.pop("model"), "is not a tokenizer.json"),
    ],
)
def test_files_that_cannot_be_used_name_the_key(change, message):
    data = json.loads(to_json(Bpe(vocab_size=300).train(make_corpus(TINY))))
    change(data)
    with pytest.raises(InputError, match=re.escape(message)):
        parse(json.dumps(data), "t")


@pytest.mark.parametrize(
    ("scheme", "parameters", "message"),
    [
        ("bpe", {"vocab_size": 256}, "^vocab_size must be from 257"),
        ("bpe", {"vocab_size": 257, "special_tokens": ("<a>", "<b>")}, "^vocab_size must be from 258"),
        ("bpe", {"vocab_size": 20_000_000}, "^vocab_size .* to 16_777_216"),
        ("bpe", {"vocab_size": 300, "special_tokens": ("<a>", "<a>")}, "^special_tokens"),
        ("bpe", {"vocab_size": 300, "min_frequency": 0}, "^min_frequency"),
        ("bpe", {"vocab_size": 300, "pattern": "llama2"}, "^pattern .* did you mean 'llama3'"),
        ("bpe", {"vocab_size": 300, "pattern": r" ?(\p{L}+"}, r"^pattern does not compile"),
        ("bpe", {"vocab_size": 300, "special_tokens": ("<a>", "<b>"), "eos_token": "<c>"}, "^eos_token '<c>' is none of special"),
        ("superbpe", {"vocab_size": 300, "transition": 301}, "^transition .* 257 to 300"),
        ("superbpe", {"vocab_size": 300, "transition": 0.5}, "^transition .* 257 to 300 .* found 0.5, which is 150 tokens"),
        ("superbpe", {"vocab_size": 300, "transition": 1.5}, "^transition"),
        ("superbpe", {"vocab_size": 300, "transition": 280, "max_words": 0}, "^max_words"),
        ("superbpe", {"vocab_size": 300, "transition": 280, "max_loss": 1.5}, "^max_loss"),
        ("superbpe", {"vocab_size": 300, "transition": 280, "max_loss": 0.1, "base": "x"}, "^max_loss"),
    ],
)
def test_mistakes_name_the_key(scheme, parameters, message):
    with pytest.raises(ValueError, match=message):
        SCHEMES[scheme](**parameters)


def test_texts_that_cannot_train():
    for nothing in ([], ["", ""]):
        with pytest.raises(ValueError, match="nothing to train on"):
            make_corpus(nothing)
    with pytest.raises(ValueError, match="groups must name one for each of 2 texts"):
        make_corpus(["a", "b"], ["en"])
    with pytest.raises(InputError, match="transition 'auto'"):
        SuperBpe(vocab_size=300, transition="auto").train(make_corpus(["too little"]))


def test_patterns_compile_and_cut_as_published():
    for name in PATTERNS:
        assert "".join(piece for piece, _ in pre_tokenizer(find_pattern(name, "pattern")).pre_tokenize_str("ab 12")) == "abĠ12"
    paper = pre_tokenizer(PATTERNS["superbpe_paper_stage2"]).pre_tokenize_str("a b 1234567 c, d")
    assert [piece for piece, _ in paper] == ["aĠbĠ", "1", "234", "567", "Ġc,Ġd"]
    repo = pre_tokenizer(PATTERNS["superbpe_repo_stage2"]).pre_tokenize_str("a b 1234 c, d -- e")
    assert [piece for piece, _ in repo] == ["aĠbĠ", "123", "4", "Ġc,Ġd", "Ġ--", "Ġe"]
