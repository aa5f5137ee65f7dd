"""The corpus with planted noise: labels are where spans are, everything else is the clean text, and a seed gives one corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._texts import Texts
from benchmarks.lift import documents, store
from benchmarks.lift.corpus import KINDS, Corpus, Planting, Sources, apart, make_corpus, plant, quota
from benchmarks.lift.documents import Documents, Source
from gristmill import TokenDataset, TokenLoader
from gristmill.format.schema import Tokenizer
from tests.random_examples import examples

EOS, VOCABULARY = 0, 200
TOKENIZER = Tokenizer("ab" * 32, VOCABULARY, None, EOS)


def make_documents(sizes: list[int], seed: int, low: int = 1, high: int = VOCABULARY) -> Documents:
    """Documents of random tokens that end in EOS."""
    rng = np.random.default_rng(seed)
    rows = [np.append(rng.integers(low, high, size - 1), EOS).astype(np.uint16) for size in sizes]
    return Documents(np.concatenate(rows), np.cumsum([0, *sizes], dtype=np.int64))


def make_source(foreign: int = 200) -> Source:
    """40 clean documents of tokens below 100, and foreign ones of tokens from 100 on."""
    sizes = np.random.default_rng(0).integers(30, 200, 40).tolist()
    return Source(make_documents(sizes, 1, high=100), make_documents([50] * foreign, 2, low=100), TOKENIZER)


def rows_of(part: Documents) -> list[list[int]]:
    return [part.ids[a:b].tolist() for a, b in zip(part.bounds[:-1], part.bounds[1:], strict=True)]


def runs(labels: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (label, begin, end) of the stretches of one label."""
    edges = np.flatnonzero(np.diff(labels)) + 1
    begins, ends = [0, *edges.tolist()], [*edges.tolist(), len(labels)]
    return [(int(labels[a]), a, b) for a, b in zip(begins, ends, strict=True)]


def test_parts_hold_every_document_once_and_noise_is_what_labels_say() -> None:
    source, how = make_source(), Planting(noise=0.3, shortest=4, longest=9, passages=3, seed=5)
    corpus = make_corpus(source, how)
    clean = []
    for planted in (corpus.train, corpus.held_noisy):
        part, keep = planted.documents, planted.labels == 0
        sizes = [int(keep[a:b].sum()) for a, b in zip(part.bounds[:-1], part.bounds[1:], strict=True)]
        clean.append(Documents(part.ids[keep], np.cumsum([0, *sizes])))
        assert keep[part.bounds[:-1]].all() and keep[part.bounds[1:] - 1].all(), "ends of documents are their own"
        assert (part.ids[part.bounds[1:] - 1] == EOS).all()
        wanted = quota(int(keep.sum()), how.noise, len(KINDS))
        assert [int((planted.labels == kind).sum()) for kind in (1, 2, 3)] == wanted
        assert abs(planted.noise - how.noise) < 1e-3
        foreign = part.ids >= 100
        assert (foreign == (planted.labels == 3)).all(), "only what is labelled foreign is"
    assert not corpus.cipher
    assert rows_of(clean[1]) == rows_of(corpus.held)
    held, curated = rows_of(corpus.held), rows_of(corpus.curated)
    assert sorted(rows_of(clean[0]) + held + curated) == sorted(rows_of(source.main)), "every document is in one part"


def test_spans_are_of_their_kind() -> None:
    source, how = make_source(), Planting(noise=0.2, shortest=6, longest=6, passages=2, seed=1)
    corpus = make_corpus(source, how)
    ids, labels = corpus.train.documents.ids, corpus.train.labels
    found = {tuple(ids[a:b].tolist()) for label, a, b in runs(labels) if label == 2 and b - a == 6}
    assert 1 <= len(found) <= 2, "the passages, again and again"
    text = source.main.ids[source.main.ids != EOS].tolist()
    windows = {tuple(text[i : i + 6]) for i in range(len(text))}
    assert found <= windows
    stream = source.foreign.ids[source.foreign.ids != EOS].tolist()
    pieces = {tuple(stream[i : i + 6]) for i in range(0, len(stream), 6)}
    assert {tuple(ids[a:b].tolist()) for label, a, b in runs(labels) if label == 3 and b - a == 6} <= pieces
    assert EOS not in ids[labels > 0]


def test_a_cipher_stands_for_languages_that_are_too_few() -> None:
    source, how = make_source(foreign=1), Planting(shortest=5, longest=5, seed=3)
    corpus = make_corpus(source, how)
    assert corpus.cipher
    ids, labels = corpus.train.documents.ids, corpus.train.labels
    coded = ids[labels == 3]
    assert EOS not in coded and set(coded.tolist()) <= set(source.main.ids.tolist()), "tokens of the text, other ones"
    text = corpus.train.documents.ids[labels == 0]
    own = text[text != EOS]
    # One letter for one letter: as many different pairs in the cipher as there are in the text it was made from.
    assert sorted(np.bincount(coded)) != sorted(np.bincount(own)), "a part of it"
    stretches = [tuple(ids[a:b].tolist()) for label, a, b in runs(labels) if label == 3 and b - a == 5]
    shapes = {
        tuple(list(dict.fromkeys(own[i : i + 5].tolist())).index(x) for x in own[i : i + 5].tolist()) for i in range(len(own))
    }
    assert {tuple(list(dict.fromkeys(s)).index(x) for x in s) for s in stretches} <= shapes


def test_few_passages_are_repeated_and_those_held_out_are_others() -> None:
    train, held = apart(np.arange(10, dtype=np.uint16), 13, 3)
    assert train.tolist() == [*range(7), *range(6)] and held.tolist() == [7, 8, 9]
    train, held = apart(np.arange(10, dtype=np.uint16), 4, 3)
    assert (train.tolist(), held.tolist()) == ([0, 1, 2, 3], [4, 5, 6])
    few = make_corpus(make_source(foreign=8), Planting(shortest=5, longest=5, seed=3))
    assert not few.cipher and (few.train.labels == 3).sum() > 8 * 49, "there are 392 of them"


def test_a_seed_gives_one_corpus() -> None:
    def flat(corpus: Corpus) -> list[np.ndarray]:
        return [corpus.train.documents.ids, corpus.train.labels, corpus.curated.ids, corpus.held_noisy.documents.ids]

    first, again, other = (flat(make_corpus(make_source(), Planting(seed=seed))) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@examples(40)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8), noise=st.floats(0, 0.8), seed=st.integers(0, 99))
def test_what_is_not_labelled_is_the_clean_text(sizes: list[int], noise: float, seed: int) -> None:
    clean = make_documents(sizes, seed)
    how = Planting(noise=noise, shortest=1, longest=3)
    sources = Sources(np.cumsum(np.ones(VOCABULARY, np.int64)), (np.full(2, 7, np.uint16),), np.full(1000, 9, np.uint16))
    found = plant(clean, sources, how, np.random.default_rng(seed))
    own = found.labels == 0
    sizes_left = np.add.reduceat(own, found.documents.bounds[:-1]).tolist()
    assert found.documents.ids[own].tobytes() == clean.ids.tobytes() and sizes_left == sizes
    assert (found.documents.ids[found.labels == 2] == 7).all() and (found.documents.ids[found.labels == 3] == 9).all()
    assert (~own).sum() == (sum(quota(sum(sizes), noise, 3)) if max(sizes) > 1 else 0)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"noise": 1.0}, "noise is 1.0"), ({"held": 0.9}, "together below 1"), ({"shortest": 99}, "99 to 96")]
)
def test_wrong_shares_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Planting(**wrong)  # type: ignore[arg-type]


def test_too_few_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="2 documents are too few"):
        make_corpus(Source(make_documents([50, 50], 0), make_documents([9], 0), TOKENIZER), Planting())


def test_builds_hold_tokens_and_labels(tmp_path: Path) -> None:
    corpus = make_corpus(make_source(), Planting(shortest=4, longest=9, seed=2))
    folders = store.write_corpus(corpus, TOKENIZER, tmp_path)
    assert list(folders) == ["train", "curated", "held", "held_noisy"]
    planted = corpus.train
    dataset = TokenDataset.open(
        folders["train"], sequence_length=16, shuffle="none", columns=[store.ORACLE, *KINDS], verify=True, dtype="int64"
    )
    labels = planted.labels.copy()
    firsts = np.zeros(len(labels), np.bool_)
    firsts[planted.documents.bounds[:-1]] = True
    batch = TokenLoader(dataset, len(dataset) - 1, within_documents=True).batch(0)
    targets = slice(1, 1 + batch.labels.size)
    assert (batch.input_ids.reshape(-1) == planted.documents.ids[: batch.labels.size]).all()
    assert ((batch.labels.reshape(-1) == -100) == firsts[targets]).all()
    assert (batch.columns[store.ORACLE].reshape(-1) == ((labels == 0) & ~firsts)[targets]).all()
    for number, kind in enumerate(KINDS, 1):
        assert (batch.columns[kind].reshape(-1) == (labels == number)[targets]).all()
    whole = documents.from_build(folders["held_noisy"])
    assert rows_of(whole.main) == rows_of(corpus.held_noisy.documents) and not len(whole.foreign)
    assert whole.tokenizer == TOKENIZER


def test_texts_are_encoded_and_split_by_language(tmp_path: Path) -> None:
    texts = Texts((*(f"text number {i} ".encode() * 5 for i in range(6)), "été à Paris".encode()), ("en",) * 6 + ("fr",))
    source = documents.from_texts(texts, 300, tmp_path / "tokenizer")
    assert (len(source.main), len(source.foreign)) == (6, 1)
    assert (source.main.ids[source.main.bounds[1:] - 1] == source.tokenizer.eos_id).all()
    spelled = documents.Encode(tokenizer=str(tmp_path / "tokenizer")).tokens().decode
    assert spelled(source.foreign.ids[:-1].tolist()) == "été à Paris"
