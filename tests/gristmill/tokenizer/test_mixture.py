"""Mixture inference: counts over time against a slow recount, and known mixtures found again from other text."""

import random
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from gristmill.errors import InputError
from gristmill.storage.store import expand
from gristmill.tokenizer.measuring import pair_counts
from gristmill.tokenizer.measuring.mixture import FEWEST_MERGES, first_merges, infer
from gristmill.tokenizer.measuring.pair_counts import history
from gristmill.tokenizer.measuring.program import least
from gristmill.tokenizer.parsing import parse
from gristmill.tokenizer.patterns import PATTERNS, find_pattern, pre_tokenizer
from gristmill.tokenizer.token_names import alphabet
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.training.words import Words
from gristmill.tokenizer.vocabulary import Vocabulary
from stages.source.warc import WarcSource
from tests.random_examples import examples


def words_of(counts):
    known = sorted(counts)
    offsets = np.cumsum([0, *map(len, known)]).astype(np.int64)
    return Words(
        np.frombuffer(bytearray(b"".join(known)), np.uint8), offsets, np.array([counts[word] for word in known], np.int64)
    )


def slow_counts(groups, merges):
    """Return, before each merge, the count of every pair in each group: everything counted anew."""
    held = [{word: list(word) for word in group} for group in groups]
    found = []
    for step, (left, right) in enumerate(merges):
        counts = [Counter() for _ in groups]
        for group, ids, count in zip(groups, held, counts, strict=True):
            for word, times in group.items():
                for pair in pairwise(ids[word]):
                    count[pair] += times
        found.append(counts)
        for ids in held:
            for word, now in ids.items():
                after, i = [], 0
                while i < len(now):
                    joined = now[i : i + 2] == [left, right]
                    after.append(256 + step if joined else now[i])
                    i += 2 if joined else 1
                ids[word] = after
    return found


def slow_train(counts, size):
    """Return merges as a trainer of one group learns them, so that the steps make sense."""
    merges = []
    while len(merges) < size:
        pairs = slow_counts([counts], [*merges, (0, 0)])[-1][0]
        if not pairs:
            break
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
    return merges


WORDS = st.dictionaries(st.text("abc", min_size=1, max_size=9).map(str.encode), st.integers(1, 9), min_size=1, max_size=8)


@examples(60)
@given(WORDS, WORDS, st.integers(1, 8), st.sampled_from([1, 10, 10**6]))
def test_counts_over_time_are_those_of_a_recount(first, second, size, chunk):
    merges = slow_train(first, size) or [(97, 98)]
    before, pair_counts.CHUNK_BYTES = pair_counts.CHUNK_BYTES, chunk
    try:
        found = history([words_of(first), words_of(second)], np.array(merges, np.int64))
    finally:
        pair_counts.CHUNK_BYTES = before
    expected = slow_counts([first, second], merges)
    for step, counts in enumerate(expected):
        now = (found.begin <= step) & (step < found.end)
        assert len(set(found.pair[now])) == now.sum()
        known = Counter(tuple(row) for row in found.counts[now].tolist())
        pairs = set(counts[0]) | set(counts[1])
        assert known == Counter((float(counts[0][p]), float(counts[1][p])) for p in pairs)
        assert found.merged[step].tolist() == [counts[0][merges[step]], counts[1][merges[step]]]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.data())
def test_the_least_of_ranges(values, data):
    begin = data.draw(st.integers(0, len(values) - 1))
    end = data.draw(st.integers(begin + 1, len(values)))
    got, at = least(np.array(values, float), np.array([begin]), np.array([end]))
    assert got[0] == min(values[begin:end])
    assert at[0] == begin + values[begin:end].index(got[0])


def train(texts, size, pattern="llama3"):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(find_pattern(pattern, "pattern"))
    alphabet_of = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet_of))
    return parse(tokenizer.to_str(), "trained")


@pytest.fixture(scope="module")
def passages():
    """Passages of 150 characters of the example crawl by kind of page, no two the same.

    Short, so that both halves of a kind are alike: where they differ, shares are off (at 300 characters by 2.2 points).
    """
    files = expand("examples/crawl/*.warc.gz")
    wanted = r"(docs.python|postgresql|sqlite)\.test|httpd.apache.test:8000/de/"
    kinds = {"docs": "python", "postgresql": "postgresql", "sqlite": "sqlite", "httpd": "de"}
    pages = pa.concat_tables([table for file in files for table in WarcSource(paths="").open()(file, 100)])
    pages = pages.drop_columns(["drop", "error"])
    pages = pages.filter(pc.match_substring_regex(pages["url"], wanted))
    found = {kind: {} for kind in kinds.values()}
    for url, html in zip(pages["url"].to_pylist(), pages["text"].to_pylist(), strict=True):
        text = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>|\s(?=\s)", "", html)
        starts = range(0, len(text), 150)
        found[kinds[url.split("/")[2].split(".")[0]]].update(dict.fromkeys(text[at : at + 150] for at in starts))
    return {kind: list(texts) for kind, texts in found.items()}


def mixed(passages, shares, seed):
    """Return texts mixed by these shares of bytes, the exact shares, and other texts of each kind."""
    shuffled = random.Random(seed)
    ours, theirs = {}, {}
    for kind in shares:
        texts = passages[kind][:]
        shuffled.shuffle(texts)
        ours[kind], theirs[kind] = texts[::2], texts[1::2]
    whole = min(sum(len(text.encode()) for text in theirs[kind]) / share for kind, share in shares.items())
    taken, sizes = [], {}
    for kind, share in shares.items():
        sizes[kind] = 0
        for text in theirs[kind]:
            if sizes[kind] >= whole * share:
                break
            sizes[kind] += len(text.encode())
            taken.append(text)
    return taken, {kind: size / sum(sizes.values()) for kind, size in sizes.items()}, ours


def corpus_of(texts):
    return make_corpus([text for kind in texts for text in texts[kind]], [kind for kind in texts for _ in texts[kind]])


@pytest.mark.parametrize(
    "shares",
    [
        {"python": 0.60, "postgresql": 0.30, "sqlite": 0.10},
        {"python": 0.50, "postgresql": 0.25, "de": 0.15, "sqlite": 0.10},
    ],
)
def test_a_known_mixture_is_found_from_other_text(passages, shares):
    taken, exact, ours = mixed(passages, shares, 0)
    found = infer(train(taken, 1400), corpus_of(ours))
    assert found.merges == 1000
    assert sum(found.shares.values()) == pytest.approx(1)
    for kind, share in exact.items():
        assert abs(found.shares[kind] - share) < 0.02, (found.shares, exact)


def language(seed, size=900):
    """Return a function that gives texts of a made-up language: words by Zipf's law, letters that others have too."""
    made = random.Random(seed)
    letters = made.sample("abcdefghijklmnopqrstuvwxyzéüßñ", 18)
    words = ["".join(made.choices(letters, range(1, 19), k=made.randint(2, 9))) for _ in range(size)]
    weights = [1 / rank for rank in range(1, size + 1)]
    return lambda choose, count: [" ".join(choose.choices(words, weights, k=60)) for _ in range(count)]


def test_five_made_up_languages_are_found_within_half_a_point():
    shares = [0.5, 0.25, 0.15, 0.08, 0.02]
    languages = [language(seed) for seed in range(5)]
    texts, sizes = [], []
    for speak, share in zip(languages, shares, strict=True):
        said = speak(random.Random(1), round(4000 * share))
        sizes.append(sum(len(text.encode()) for text in said))
        texts += said
    ours = {str(number): speak(random.Random(2), 1500) for number, speak in enumerate(languages)}
    found = infer(train(texts, 1500), corpus_of(ours))
    assert found.slack < 0.05
    for number, size in enumerate(sizes):
        assert abs(found.shares[str(number)] - size / sum(sizes)) < 0.005, (found.shares, sizes)


def test_superwords_are_left_out_and_the_first_stage_is_known_or_named(passages):
    taken, exact, ours = mixed(passages, {"python": 0.6, "sqlite": 0.4}, 1)
    first = train(taken, 900, "superbpe_paper")
    # What a second stage adds: a token with a space inside, cut by the pattern of that stage.
    left, right = first.tokens.index(b" of"), first.tokens.index(b" the")
    second = first.joined(np.array([[left, right, len(first.tokens)]], np.int32))
    named = Vocabulary(tokens=second.tokens, merges=second.merges, cuts=(PATTERNS["superbpe_paper_stage2"],))
    inside = len(first.merges)
    found = infer(named, corpus_of(ours))
    assert found.merges == inside
    assert found.shares == infer(first, corpus_of(ours)).shares
    assert abs(found.shares["python"] - exact["python"]) < 0.02
    unnamed = Vocabulary(tokens=second.tokens, merges=second.merges)
    with pytest.raises(InputError, match="name the pattern of its first stage"):
        infer(unnamed, corpus_of(ours))
    assert infer(unnamed, corpus_of(ours), first_stage=PATTERNS["superbpe_paper"]).shares == found.shares


def test_a_file_made_from_a_list_of_tokens_has_its_learned_merges_found():
    # abc was learned as ab + c; a list of tokens gives a + bc as well, and puts it first.
    tokens = (*alphabet(), b"ab", b"bc", b"abc")
    a, b, c = (tokens.index(letter) for letter in (b"a", b"b", b"c"))
    merges = np.array([[a, b, 256], [b, c, 257], [a, 257, 258], [256, c, 258]], np.int32)
    found = first_merges(Vocabulary(tokens, merges), 10)
    assert found.tolist() == [[97, 98], [98, 99], [256, 99]]
    assert first_merges(Vocabulary(tokens, merges), 2).tolist() == [[97, 98], [98, 99]]


def test_mistakes_are_named(passages):
    few = train(passages["sqlite"][:50], 256 + FEWEST_MERGES - 1)
    with pytest.raises(InputError, match=r"two groups at least.*1 \(sqlite\)"):
        infer(few, corpus_of({"sqlite": passages["sqlite"][:5]}))
    with pytest.raises(InputError, match=f"{FEWEST_MERGES} merges inside words at least; the tokenizer has {FEWEST_MERGES - 1}"):
        infer(few, corpus_of({kind: passages[kind][:5] for kind in ("sqlite", "de")}))
