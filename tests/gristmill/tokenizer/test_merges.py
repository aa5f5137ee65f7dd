"""The trainer against the stock one, against bpe-continue, and against a slow one that recounts everything at every step."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.tokenizer.training.capacity import Capacity
from gristmill.tokenizer.training.merges import learn
from gristmill.tokenizer.training.rules import NO_QUOTA, Quota, Rules
from gristmill.tokenizer.training.stream import Stream
from tests.gristmill.tokenizer.slow import crawl_texts
from tests.gristmill.tokenizer.slow_merges import Slow, same, stream, words_of
from tests.random_examples import examples

CRAMPED = Capacity(
    pairs=2, places=4, threshold=50
)  # nothing fits, and the first threshold is too high: all is done again and again


def letters(size):
    return [bytes([97 + i]) for i in range(size)]


PIECES = st.lists(st.lists(st.integers(0, 2), max_size=30), max_size=8)


@examples(100)
@given(PIECES, st.data(), st.integers(1, 3), st.sampled_from([None, CRAMPED]))
def test_any_stream_as_the_slow_trainer(pieces, data, least, room):
    weights = data.draw(st.none() | st.lists(st.integers(1, 4), min_size=len(pieces), max_size=len(pieces)))
    # "ab" and "aa" are there from the start: merges come to tokens that exist, some of which stand in the stream
    tokens = [*letters(3), b"ab", b"aa"] if data.draw(st.booleans()) else letters(3)
    pieces = [[data.draw(st.integers(0, 4)) if i == 2 and len(tokens) > 3 else i for i in piece] for piece in pieces]
    cut = data.draw(st.integers(0, len(pieces)))
    groups = [cut, len(pieces) - cut]
    learned = learn(stream(pieces, weights, groups), tokens, 12, min_frequency=least, room=room)
    same(learned, Slow(pieces, tokens, weights, groups, min_frequency=least).learn(12))


def stock(words, vocab_size, min_frequency=0, longest=None):
    """Merges of the stock trainer, as texts; `words` with counts, of letters that it takes one by one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    alphabet = sorted({letter for word in words for letter in word})
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("\n")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        max_token_length=longest,
        show_progress=False,
        initial_alphabet=alphabet,
    )
    tokenizer.train_from_iterator((word for word, count in words.items() for _ in range(count)), trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


@examples(60)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=20), st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 3))
def test_any_words_as_the_stock_trainer(words, least):
    tokens = [letter.encode() for letter in sorted({letter for word in words for letter in word})]
    pieces = [[tokens.index(letter.encode()) for letter in word] for word in words]
    learned = learn(stream(pieces, list(words.values())), tokens, 20, min_frequency=least)
    spelled = [(learned.tokens[a].decode(), learned.tokens[b].decode()) for a, b, _ in learned.merges.tolist()]
    assert spelled == stock(words, len(tokens) + 20, least)


@pytest.fixture(scope="module")
def plain():
    """A byte-level BPE tokenizer of real pages, the bytes of its tokens, and the pages."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    texts = crawl_texts()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in shown)}
    return tokenizer, [bytes(letters[letter] for letter in name) for name in names], texts


def merges_of(tokenizer):
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def test_words_of_real_pages_as_the_stock_trainer(plain):
    tokenizer, tokens, texts = plain
    words = Counter(piece for text in texts for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)[:256]
    pieces = [[names.index(letter) for letter in word] for word in words]
    learned = learn(stream(pieces, list(words.values())), tokens[:256], 1500 - 256)
    ours = [(learned.tokens[a], learned.tokens[b]) for a, b, _ in learned.merges.tolist()]
    spelling = tokenizer.get_vocab()
    assert ours == [(tokens[spelling[a]], tokens[spelling[b]]) for a, b in merges_of(tokenizer)]
    assert list(learned.tokens) == tokens


def lines_in_ids(plain):
    """Each page as one piece, in ids."""
    from tokenizers import Tokenizer, pre_tokenizers

    whole = Tokenizer.from_str(plain[0].to_str())
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return whole, [whole.encode(text).ids for text in plain[2]]


@pytest.mark.parametrize("max_units", [None, 2, 4])
def test_superwords_of_real_pages_as_the_stock_trainer_on_scalars(plain, max_units):
    """One letter for each id, in the order of ids: the stock trainer then learns the merges of stage 2."""
    _, pieces = lines_in_ids(plain)
    words = Counter("".join(chr(0x10000 + i) for i in piece) for piece in pieces)
    learned = learn(stream(pieces), plain[1], 300, rules=Rules(max_units=max_units))
    used = len({letter for word in words for letter in word})
    expected = stock(words, used + 300, 2, None if max_units is None else max_units + 1)

    def spell(i):
        parts = {j: (a, b) for a, b, j in learned.merges.tolist()}
        return "".join(spell(part) for part in parts[i]) if i in parts else chr(0x10000 + i)

    assert [(spell(a), spell(b)) for a, b, _ in learned.merges.tolist()] == expected


def test_superwords_of_real_pages_as_bpe_continue(plain):
    bpe_continue = pytest.importorskip("bpe_continue")
    from tokenizers import Tokenizer

    whole, pieces = lines_in_ids(plain)
    base = whole.to_str()
    extended = bpe_continue.continue_training(base, texts=plain[2], vocab_size=1700, min_frequency=2, show_progress=False)
    assert isinstance(extended, Tokenizer)
    learned = learn(stream(pieces), plain[1], 200)
    spelling = extended.get_vocab()
    assert [[spelling[a], spelling[b]] for a, b in merges_of(extended)[len(merges_of(whole)) :]] == learned.merges[:, :2].tolist()


@examples(60)
@given(
    st.lists(st.text("a: \nbé\t\u00a0\u2028\u3000", max_size=40), min_size=1, max_size=6),
    st.builds(
        Rules,
        max_words=st.none() | st.integers(1, 3),
        forbid_colon=st.booleans(),
        max_units=st.none() | st.integers(2, 6),
        max_bytes=st.none() | st.integers(2, 8),
        no_leading=st.sampled_from([(), (ord("é"),), (ord("b"), ord("é"))]),
    ),
    st.sampled_from([None, CRAMPED]),
)
def test_rules_hold_as_in_the_slow_trainer(texts, rules, room):
    tokens = sorted({bytes([b]) for text in texts for b in text.encode()} | {b"a"})
    pieces = [[tokens.index(bytes([b])) for b in text.encode()] for text in texts]
    learned = learn(stream(pieces), tokens, 15, min_frequency=1, rules=rules, room=room)
    same(learned, Slow(pieces, tokens, rules=rules).learn(15))


def test_words_are_counted_and_colons_found_across_white_space_of_any_kind():
    text = " of the  a: b\tc\nd\u00a0e\u3000f".encode()
    pieces = [list(range(len(text)))]
    tokens = [bytes([b]) for b in text]
    for most in range(1, 10):
        whole = learn(stream(pieces), tokens, 99, min_frequency=1, rules=Rules(max_words=most)).tokens[len(tokens) :]
        assert max(words_of(token) for token in whole) <= most
    assert max(words_of(token) for token in whole) == 8  # of, the, a:, b, c, d, e, f
    for blank in (" ", "\n", "\r\n", "\t", "\u00a0", "\u2029"):
        text = f"at:{blank}noon".encode()
        tokens, pieces = [bytes([b]) for b in text], [list(range(len(text)))]
        free, bound = (
            learn(stream(pieces), tokens, 99, min_frequency=1, rules=Rules(forbid_colon=colon)).tokens for colon in (False, True)
        )
        assert text in free
        assert not any(f":{blank}".encode() in token for token in bound)
        assert any(b"noon" in token for token in bound)


@examples(60)
@given(PIECES, st.data(), st.sampled_from([None, CRAMPED]))
def test_quotas_serve_the_group_furthest_behind(pieces, data, room):
    cuts = sorted(data.draw(st.integers(0, len(pieces))) for _ in range(2))
    groups = [cuts[0], cuts[1] - cuts[0], len(pieces) - cuts[1]]
    targets = [data.draw(st.sampled_from([1.0, 5.0, 12.0, np.inf])) for _ in groups]
    least = data.draw(st.integers(1, 3))
    quota = Quota(np.array(targets), reserve=np.inf)
    learned = learn(stream(pieces, groups=groups), letters(3), 10, min_frequency=least, quota=quota, room=room)
    same(learned, Slow(pieces, letters(3), groups=groups, min_frequency=least).learn_eagerly(10, targets))


def groups_of(plain):
    """Pages of ASCII letters in one group, those least so in another; their pieces in ids."""
    _, pieces = lines_in_ids(plain)
    order = np.argsort([sum(letter > "\x7f" for letter in text) / len(text) for text in plain[2]], kind="stable")
    return [pieces[i] for i in order], [len(pieces) - 6, 6]


def test_quotas_hold_at_the_end_and_cost_little(plain):
    pieces, groups = groups_of(plain)
    free = learn(stream(pieces, groups=groups), plain[1], 400).group_tokens
    eager = learn(stream(pieces, groups=groups), plain[1], 400, quota=Quota(np.array([np.inf, 1.0]), np.inf)).group_tokens
    target = (free[-1, 1] + eager[-1, 1]) / 2  # half way to what is possible
    assert free[-1, 1] > 1.02 * target
    ends = {}
    for reserve in (1.25, np.inf):
        learned = learn(stream(pieces, groups=groups), plain[1], 400, quota=Quota(np.array([np.inf, target]), reserve))
        ends[reserve] = learned.group_tokens[-1]
        assert ends[reserve][1] <= 1.002 * target
    assert ends[1.25].sum() <= ends[np.inf].sum()


@examples(60)
@given(PIECES, st.integers(1, 3), st.integers(0, 8), st.sampled_from([None, CRAMPED]))
def test_scaffold_tokens_as_in_the_slow_trainer(pieces, least, merges, room):
    learned = learn(stream(pieces), letters(3), merges, min_frequency=least, scaffold=True, room=room)
    slow = Slow(pieces, letters(3), min_frequency=least).learn_with_scaffolds(merges)
    same(learned, slow)
    assert {new for (_, _, new), mark in zip(slow.rows, learned.scaffold, strict=True) if mark} == slow.marked


def test_scaffold_tokens_of_real_pages(plain):
    _, pieces = lines_in_ids(plain)
    learned = learn(stream(pieces), plain[1], 300, scaffold=True)
    assert learned.scaffold.sum() > 20
    assert len(learned.merges) - learned.scaffold.sum() == 300
    assert not learn(stream(pieces), plain[1], 300).scaffold.any()


def test_room_changes_nothing_on_real_pages(plain):
    pieces, groups = groups_of(plain)
    ample = learn(stream(pieces, groups=groups), plain[1], 300)
    for room in (CRAMPED, Capacity(pairs=600, places=20_000), Capacity(pairs=5000, places=10_000, threshold=9)):
        cramped = learn(stream(pieces, groups=groups), plain[1], 300, room=room)
        assert (cramped.merges == ample.merges).all()
        assert (cramped.group_tokens == ample.group_tokens).all()


def test_coming_back_often_changes_nothing(plain, monkeypatch):
    """The compiled loop gives way to progress and Ctrl-C now and then; here after each merge."""
    _, pieces = lines_in_ids(plain)
    at_once = learn(stream(pieces), plain[1], 120, scaffold=True)
    monkeypatch.setattr("gristmill.tokenizer.training.trainer.EFFORT", 1)
    monkeypatch.setattr("gristmill.tokenizer.training.trainer.ROWS", 3)
    seen = []
    often = learn(stream(pieces), plain[1], 120, scaffold=True, progress=lambda done, total: seen.append(done))
    assert len(seen) > 120
    assert (often.merges == at_once.merges).all()
    assert (often.scaffold == at_once.scaffold).all()


def test_long_tokens_and_counts_beyond_32_bits():
    weight = 2**40
    learned = learn(stream([[0] * 5000, [1]], [weight, 1]), letters(2), 11)
    assert [len(token) for token in learned.tokens[2:]] == [2**i for i in range(1, 12)]
    assert learned.counts[:2].tolist() == [4999 * weight, 2499 * weight]
    assert learned.group_tokens[-1].tolist() == [6 * weight + 1]  # 5000 = 2 * 2048 + 512 + 256 + 128 + 8


def test_progress_ends_at_the_number_of_new_tokens(plain):
    seen = []
    _, pieces = lines_in_ids(plain)
    learn(stream(pieces), plain[1], 50, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 50)
    assert seen[-1] == (50, 50)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: learn(stream([[0, 3]]), letters(3), 1), "ids are from 0 to 3, but there are 3 tokens"),
        (lambda: learn(stream([[0, 1]], groups=[1]), letters(3), 1, min_frequency=0), "min_frequency at least 1; found 1, 0"),
        (lambda: learn(stream([[0, 1]]), letters(3), 1, quota=Quota(np.ones(2))), "one target for each of the 1 groups, found 2"),
        (lambda: learn(Stream(np.zeros(3, np.int32), np.array([2]), None, np.array([0, 1])), letters(3), 1), "end at slot"),
        (lambda: Rules(max_words=0), "max_words must be at least 1"),
        (lambda: Rules(max_units=1), "max_units must be at least 2"),
        (lambda: Rules(no_leading=(0xD800,)), "no_leading must hold"),
        (lambda: Quota(np.array([0.0])), "targets must be"),
        (lambda: Quota(np.ones(1), reserve=0.5), "reserve must be"),
    ],
)
def test_mistakes_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nothing_to_merge():
    for pieces in ([], [[]], [[0], [1]]):
        learned = learn(stream(pieces), letters(2), 5, quota=NO_QUOTA)
        assert learned.merges.shape == (0, 3)
        assert learned.group_tokens.tolist() == [[sum(len(piece) for piece in pieces)]]
