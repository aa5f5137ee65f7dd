"""Tokenizers from files: tiktoken's ranks against tiktoken, our own format there and back, and what is refused."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.tokenizer.encoding.choose import choose_encoder
from gristmill.tokenizer.files import as_file, load, load_base, save
from gristmill.tokenizer.own_format import parse_own, to_own
from gristmill.tokenizer.patterns import PATTERNS, Pattern
from gristmill.tokenizer.token_names import spell
from gristmill.tokenizer.tokenizer_file import OWN, STANDARD, find_file
from gristmill.tokenizer.vocabulary import UnsupportedTokenizer, Vocabulary, to_tokenizer
from tests.gristmill.tokenizer import slow
from tests.random_examples import examples

BYTES = [bytes([byte]) for byte in range(256)]
SPECIAL = {"<|endoftext|>": 1200, "<|fim|>": 1203}
ODD = [
    "",
    " ",
    "\r\n\t",
    "a",
    "the the  the\n\nthe",
    "日本語 naïve 🐈🐈",
    "<|endoftext|>",
    "don't 12345678",
    "x" * 500,
    "\x00\x7f",
    "ab" * 300,
]


def learn(texts, pattern, size):
    """Return the tokens of a byte-level BPE in rank order, as the stock trainer finds them."""
    from tokenizers import Tokenizer, models, trainers

    from gristmill.tokenizer.patterns import pre_tokenizer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(PATTERNS[pattern])
    initial = sorted(spell(BYTES))
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=initial, show_progress=False))
    table = {letter: byte for byte, letter in enumerate(spell(BYTES))}
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    return [bytes(table[letter] for letter in name) for name in names]


def write(file, tokens, first=0):
    lines = [base64.b64encode(token) + b" %d" % (rank + first) for rank, token in enumerate(tokens)]
    file.write_bytes(b"\n".join(lines) + b"\n")
    return file


def encoding_of(tokens, pattern, special=None):
    return tiktoken.Encoding(
        "own",
        pat_str=PATTERNS[pattern].regex,
        mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
        special_tokens=special or {},
    )


@pytest.fixture(scope="module")
def texts():
    found = [text[:4000] for text in slow.crawl_texts(50) if "�" not in text]
    assert len(found) > 30
    return found


@pytest.mark.parametrize("pattern", ["gpt2", "llama3"])
def test_a_ranks_file_gives_the_ids_of_tiktoken(tmp_path, texts, pattern):
    tokens = learn(texts[::2], pattern, 1200)
    held = load(write(tmp_path / "own.tiktoken", tokens), (PATTERNS[pattern],), SPECIAL)
    assert held.size == 1204 and held.tokens[1200] == b"<|endoftext|>" and held.tokens[1201] == b""
    assert len(held.merges) == 1200 - 256  # a token has one merge, as it was trained
    expected, found = (
        encoding_of(tokens, pattern, SPECIAL),
        to_tokenizer(replace(held, special_tokens={}, tokens=held.tokens[:1200])),
    )
    for text, ids in zip([*texts, *ODD], slow.encode(choose_encoder(held), *texts, *ODD), strict=True):
        assert found.encode(text).ids == expected.encode_ordinary(text) == ids


def test_ranks_of_any_tokens_give_the_ids_of_tiktoken(tmp_path):
    """Tokens that nothing trained: most can only be whole pieces, or be made in more than one way."""
    more = st.lists(st.text("abc", min_size=2, max_size=5).map(str.encode), unique=True, min_size=1, max_size=30)

    @examples(60)
    @given(more, st.lists(st.text("abc ", max_size=30), max_size=5))
    def check(more, texts):
        tokens = BYTES + more  # parts may come after what they make
        held = load(write(tmp_path / "any.tiktoken", tokens), (PATTERNS["gpt2"],))
        expected, found = encoding_of(tokens, "gpt2"), to_tokenizer(held)
        for text in texts:
            assert found.encode(text).ids == expected.encode_ordinary(text)

    check()


def test_a_token_before_its_parts_keeps_every_pair_that_spells_it(tmp_path, texts):
    tokens = learn(texts[::2], "gpt2", 800)
    late = [*tokens[:256], *tokens[500:520], *tokens[256:500], *tokens[520:]]
    held = load(write(tmp_path / "late.tiktoken", late), (PATTERNS["gpt2"],))
    assert len(held.merges) > len(late) - 256
    expected, found = encoding_of(late, "gpt2"), to_tokenizer(held)
    for text in [*texts, *ODD]:
        assert found.encode(text).ids == expected.encode_ordinary(text)


def test_ranks_may_begin_anywhere_and_lie_in_any_order(tmp_path):
    file = write(tmp_path / "gap.tiktoken", [*BYTES, b"ab", b"abc"], first=5)
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join(lines[::-1]))
    held = load(file, (PATTERNS["gpt2"],), {"<s>": 0})
    assert held.tokens[:6] == (b"<s>", b"", b"", b"", b"", b"\x00")
    assert held.merges.tolist() == [[5 + ord("a"), 5 + ord("b"), 261], [261, 5 + ord("c"), 262]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"YQ== 0\nYg== x\n", r"line 2: found b'Yg== x'.*'base64 rank'"),
        (b"YQ== 0\nYg==\n", "line 2"),
        (b"YQ== 0\n??? 1\n", "line 2"),
        (b"YQ== 0\nYg== 0\n", "line 2: rank 0 or token b'b' is there twice"),
        (b"YQ== 0\nYQ== 1\n", "line 2: rank 1 or token b'a' is there twice"),
        (b"YQ== 0\n", "no token for 255 of 256 bytes, such as 0x00"),
    ],
)
def test_broken_ranks_name_the_line(tmp_path, lines, message):
    file = tmp_path / "broken.tiktoken"
    file.write_bytes(lines)
    with pytest.raises(InputError, match=message):
        load(file, (PATTERNS["gpt2"],))


def test_what_a_ranks_file_does_not_say_must_be_given_and_only_there(tmp_path):
    ranks = write(tmp_path / "a.tiktoken", BYTES)
    with pytest.raises(InputError, match=r"a.tiktoken.*ranks file.*`pattern`"):
        load(ranks)
    with pytest.raises(InputError, match=r"special_tokens gives '<s>' the id 3;.*to 255"):
        load(ranks, (PATTERNS["gpt2"],), {"<s>": 3})
    with pytest.raises(InputError, match="two names one id"):
        load(ranks, (PATTERNS["gpt2"],), {"<s>": 300, "<t>": 300})
    save(Vocabulary(tuple(BYTES)), tmp_path)
    with pytest.raises(InputError, match="says itself how it cuts text"):
        load(tmp_path, (PATTERNS["gpt2"],))
    with pytest.raises(InputError, match="says itself how it cuts text"):
        load(tmp_path, (), {"<s>": 300})


RICH = Vocabulary(
    tokens=(b"<s>", *BYTES, b"ab", b"", b"cd", b"ab cd"),
    merges=np.array([[98, 99, 257], [100, 101, 259], [257, 33, 259]], np.int32)[:2],
    cuts=(PATTERNS["superbpe_paper"], PATTERNS["gpt2"]),
    special_tokens={"<s>": 0},
    whole=np.array([False, True]),
    scaffolds=1,
)


def same(left, right):
    assert replace(left, merges=right.merges, whole=right.whole) == right
    assert left.merges.tolist() == right.merges.tolist() and left.merges.dtype == right.merges.dtype == np.int32
    assert (left.whole is None) == (right.whole is None)
    assert left.whole is None or left.whole.tolist() == right.whole.tolist()
    return True


@pytest.mark.parametrize(
    "held",
    [
        RICH,
        replace(RICH, whole=None, scaffolds=0, inference="least_tokens"),
        replace(RICH, ignore_merges=True, cuts=()),
        replace(RICH, cuts=(Pattern("", "each"), PATTERNS["gpt2"])),
        Vocabulary((*BYTES, "日本".encode()), inference="longest_prefix"),  # of a builder that knows no merges
    ],
)
def test_what_no_tokenizer_json_can_say_survives_our_own_format(tmp_path, held):
    file = save(held, tmp_path)
    assert file == tmp_path / OWN == find_file(tmp_path)
    assert same(load(tmp_path), held) and same(load(file), held)
    renamed = file.rename(tmp_path / "any.json")  # a file is known by what is in it
    assert same(load(renamed), held)


def test_what_a_tokenizer_json_can_say_is_one(tmp_path):
    held = replace(RICH, whole=None, scaffolds=0)
    assert save(held, tmp_path) == tmp_path / STANDARD
    assert same(load(tmp_path), held) and same(parse_own(to_own(held), "x"), held)
    assert as_file(held)[1] == (tmp_path / STANDARD).read_text()
    (tmp_path / OWN).write_text(to_own(held))
    with pytest.raises(InputError, match=r"holds tokenizer.json and gristmill-tokenizer.json; give one"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "key version is 2; this release reads 1"),
        ({"format": "x"}, "key format"),
        ({"inference": "viterbi"}, "key inference must be one of merges, longest_prefix, least_tokens"),
        ({"inference": None}, "key inference"),
        ({"ignore_merges": 1}, "key ignore_merges must be true or false"),
        ({"scaffolds": -1}, "key scaffolds must be a number of tokens, there are \\d+, found the number -1"),
        ({"scaffolds": 10**6}, "key scaffolds"),
        ({"merges": [[98, 99]]}, "key merges must hold rows"),
        ({"merges": [[98, 99, 257], [1]]}, "key merges must hold rows"),
        ({"merges": "x"}, r"key merges must hold rows of .*, found the text 'x'"),
        ({"merges": {}}, r"key merges must hold rows of .*, found an empty object"),
        ({"merges": [[98.0, 99, 257]]}, r"key merges must hold rows of .*, found a list of 3 at rank 0"),
        ({"merges": [[-1, 99, 257]]}, r"key merges has an id that no token has; there are \d+, found \[-1, 99, 257\] at rank 0"),
        ({"merges": [[98, 99, 10**6]]}, "key merges has an id that no token has"),
        ({"merges": [[98, 98, 257]]}, r"key merges has at rank 0 b'a' with b'a', but id 257 is b'ab'"),
        ({"whole": [2]}, "key whole must be null or hold ranks of merges; there are 2"),
        ({"whole": 1}, "key whole"),
        ({"cuts": [{"regex": "("}]}, "key cuts"),
        ({"cuts": [{"regex": "(", "digits": False}]}, "key cuts has a regex that does not compile"),
        ({"cuts": None}, "key cuts must be a list"),
        ({"special_tokens": {}}, "key special_tokens must name just the tokens that are null"),
        ({"special_tokens": {"<s>": 0, "<t>": 0}}, "gives two names one id"),
        ({"special_tokens": []}, "key special_tokens must map names to ids, found a list of 0"),
        ({"special_tokens": {"<s>": -1}}, "key special_tokens gives '<s>' the number -1; an id is a whole number from 0 on"),
        ({"special_tokens": {"<s>": [1]}}, "key special_tokens gives '<s>' a list of 1; an id is"),
        ({"tokens": ["日"], "special_tokens": {}}, "key tokens has '日' at 0, which is not byte-level"),
        ({"tokens": None}, "key tokens must be a list"),
        ({"more": 1}, "key more is unknown"),
    ],
)
def test_mistakes_in_our_own_format_name_the_file_and_the_key(tmp_path, change, message):
    file = tmp_path / OWN
    file.write_text(json.dumps(json.loads(to_own(RICH)) | change))
    with pytest.raises(InputError, match=re.escape(str(tmp_path)) + f".*{message}"):
        load(tmp_path)


def test_a_missing_key_a_torn_file_and_no_file_at_all(tmp_path):
    data = json.loads(to_own(RICH))
    for key in data:
        if key not in ("format", "version"):
            with pytest.raises(InputError, match=f"key {key} is missing"):
                parse_own(json.dumps({name: value for name, value in data.items() if name != key}), "x")
    (tmp_path / OWN).write_text(to_own(RICH)[:-9])
    with pytest.raises(InputError, match=OWN):
        load(tmp_path / OWN)
    for path in (tmp_path / "nowhere", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=r"does not exist.*train-tokenizer"):
            load(path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"cannot be read as a tokenizer\.json"):
        load(tmp_path / "binary")
    (tmp_path / "text").write_text("hello world")
    with pytest.raises(InputError, match="text"):
        load(tmp_path / "text")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (replace(RICH, whole=None), "has scaffold tokens"),
        (replace(RICH, scaffolds=0), "has merges of whole pieces"),
        (Vocabulary(tuple(BYTES), inference="least_tokens"), "makes tokens by least_tokens, not by merges"),
        (Vocabulary(tuple(BYTES[1:])), "has no token for 1 of 256 bytes"),
    ],
)
def test_a_base_has_merges_inside_pieces_only(tmp_path, held, message):
    save(held, tmp_path)
    with pytest.raises(InputError, match=f"base: tokenizer '{tmp_path}' {message}; give one with"):
        load_base(str(tmp_path))
    good = replace(RICH, whole=None, scaffolds=0)
    assert same(load_base(str(save(good, tmp_path))), good)


def test_a_base_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"base: tokenizer .*does not exist"):
        load_base(str(tmp_path))
    with pytest.raises(InputError, match=r"base: .*is a ranks file, which does not say how text is cut"):
        load_base(str(write(tmp_path / "a.tiktoken", BYTES)))
    (tmp_path / STANDARD).write_text('{"model": {"type": "Unigram", "vocab": []}}')
    with pytest.raises(InputError, match=r"base: .*key model\.type is 'Unigram'"):
        load_base(str(tmp_path))
    with pytest.raises(UnsupportedTokenizer, match=r"key model\.type is 'Unigram'"):
        load(tmp_path)
    (tmp_path / STANDARD).write_text('{"model": {"type": "BPE", "vocab": {}, "merges": ["a b c"]}}')
    with pytest.raises(InputError, match=r"key model.merges.0. is the text .a b c.; it must be two tokens"):
        load(tmp_path)
