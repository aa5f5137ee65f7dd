"""Epochs over documents that are repeated, against a slow transcription: every token its count, no copy beside its twin."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill import BestFit, Blocks, Cache, Source, StoredWeights, Threshold, TokenDataset, TokenLoader, TopShare
from gristmill.format.build import open_build
from gristmill.format.column import read_row
from gristmill.format.manifest import NAME
from gristmill.reader.bestfit import plan
from gristmill.reader.bestfit.fit import pack
from gristmill.reader.packing import Concatenated
from gristmill.sidecar_writer import write_sidecar
from tests.gristmill.builds import EOS
from tests.gristmill.slow import build, corpus, scores_of, some_sizes
from tests.gristmill.storage.web import Web, serve
from tests.random_examples import examples

LENGTH = 16
SHUFFLES = {"global": "global", "blocks": Blocks(sequences=4, open=3), "none": "none"}
PACKINGS = {"concat": "concat", "best_fit": BestFit(window=12)}
ALL = ("samples", "sources", "sequences", "input_ids", "labels", "loss_mask")


@dataclass(frozen=True)
class Row:
    """A row of an epoch: the number in the stream of each token, and of each label, None where there is none; its pass."""

    tokens: list[int]
    labels: list[int | None]
    number: int


class SlowEpoch:
    """The rows of an epoch of one build, one after another, from its documents and their counts."""

    def __init__(self, folder, shards, counts, length, packing, run_documents=plan.RUN_DOCUMENTS):
        documents = [row for ids in shards for row in ids]
        self.tokens = [token for row in documents for token in row]
        self.scores = [score for row in scores_of(documents) for score in row]
        self.document = [number for number, row in enumerate(documents) for _ in row]
        self.first = list(itertools.accumulate((len(row) for row in documents), initial=0))
        self.length = length
        counts = [count for each in counts for count in each]
        numbers = iter(range(len(documents)))
        files = [list(itertools.islice(numbers, shard.documents)) for shard in open_build(folder, "tokens")[0].shards]
        runs = []
        for file in files:
            if not runs or sum(map(len, runs[-1])) + len(file) > run_documents:
                runs.append([])
            runs[-1].append(file)
        self.rows = []
        for k in range(1, max(counts) + 1):
            chosen = [[[number for number in file if counts[number] >= k] for file in run] for run in runs]
            if packing == "concat":
                stretches = [[file for run in chosen for file in run]] if k == 1 else chosen
                for stretch in stretches:
                    self._cut([number for file in stretch for number in file], k)
            else:
                for file in (file for run in chosen for file in run):
                    self._pack(file, packing.window, k)

    def _cut(self, numbers, k):
        stream = [at for number in numbers for at in range(self.first[number], self.first[number + 1])]
        for begin in range(0, len(stream), self.length):
            after = stream[begin + 1 : begin + self.length + 1]
            here = stream[begin : begin + self.length]
            self.rows.append(Row(here, after + [None] * (len(here) - len(after)), k))

    def _pack(self, numbers, window, k):
        stream = [at for number in numbers for at in range(self.first[number], self.first[number + 1])]
        lengths = [self.first[number + 1] - self.first[number] for number in numbers]
        begins, sizes, bounds = (part.tolist() for part in pack(np.array(lengths, dtype=np.int64), self.length, window))
        for low, high in itertools.pairwise(bounds):
            here = [at for piece in range(low, high) for at in stream[begins[piece] : begins[piece] + sizes[piece]]]
            whole = [at + 1 if self._same(at, at + 1) else None for at in here]
            ends = [after is not None and after in here[place + 1 : place + 2] for place, after in enumerate(whole)]
            ends[-1] = len(here) == self.length  # the last token of a row has a label where its document goes on
            self.rows.append(Row(here, [after if end else None for after, end in zip(whole, ends, strict=True)], k))

    def _same(self, a, b):
        return b < len(self.tokens) and self.document[a] == self.document[b]

    def check(self, batch, row, sequence, within=False):
        """Compare a row of a batch with a row of the epoch."""
        expected = self.rows[sequence]
        missing = self.length - len(expected.tokens)
        assert batch.sequences[row] == sequence
        assert batch.input_ids[row].tolist() == [self.tokens[at] for at in expected.tokens] + [EOS] * missing
        labels = [
            None if at is not None and within and not self._same(here, at) else at
            for here, at in zip(expected.tokens, expected.labels, strict=True)
        ] + [None] * missing
        assert batch.loss_mask[row].tolist() == [at is not None for at in labels]
        for place, at in enumerate(labels):
            if at is not None:
                assert batch.labels[row, place] == self.tokens[at]
                value = batch.columns["excess"][row, place]
                assert value == self.scores[at] or (math.isnan(value) and math.isnan(self.scores[at]))
        if batch.document_ids is not None:
            borders = [self.document[a] != self.document[b] for a, b in itertools.pairwise(expected.tokens)]
            ids = list(itertools.accumulate(borders, initial=0))
            assert batch.document_ids[row, : len(ids)].tolist() == ids


def some_counts(shards, seed):
    """Return a count for each document: most 1, a few high; those of the second shard all alike."""
    random = np.random.default_rng(seed)
    counts = [random.choice([1, 1, 1, 2, 3, 3, 7], len(ids)).tolist() for ids in shards]
    counts[1] = [2] * len(shards[1])
    return counts


@pytest.fixture(scope="module")
def shards():
    return corpus(some_sizes(5))


@pytest.fixture(scope="module")
def counts(shards):
    return some_counts(shards, 1)


@pytest.fixture(scope="module")
def folder(shards, counts, tmp_path_factory):
    return build(tmp_path_factory.mktemp("repeated"), shards, tokens_per_shard=120, batch_tokens=40, repeats=counts)


@pytest.fixture(scope="module")
def plain(shards, tmp_path_factory):
    """The same documents, each read once."""
    return build(tmp_path_factory.mktemp("plain"), shards, tokens_per_shard=120, batch_tokens=40)


@pytest.fixture(scope="module")
def mixed(folder, tmp_path_factory):
    """A source with repeats and one without, whose weights change at sample 40."""
    other = build(tmp_path_factory.mktemp("other"), corpus(some_sizes(6)[::-1], first=20_000), tokens_per_shard=120)
    return {"web": Source(path=folder, weight={0: 2.0, 40: 1.0}), "code": Source(path=other, weight={0: 1.0, 40: 3.0})}


@st.composite
def builds(draw):
    """Documents of any size, and their counts."""
    sizes = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8), min_size=1, max_size=4)
    shards = draw(sizes.filter(lambda each: sum(map(sum, each)) > 0))
    count = st.one_of(st.integers(1, 4), st.sampled_from([1, 1, 2, 9]))
    return shards, [[draw(count) for _ in shard] for shard in shards]


@pytest.mark.parametrize("packing", PACKINGS)
@given(builds(), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 4, 10**6]), st.booleans())
@examples(12)
def test_every_token_exactly_its_count_an_epoch(
    tmp_path_factory, packing, example, length, per_shard, per_batch, run_documents, within
):
    """Any documents, counts, files, record batches and runs of files: an epoch is the transcription's, row by row."""
    sizes, counts = example
    shards = corpus(sizes)
    length = min(length, sum(map(sum, sizes)))
    folder = build(tmp_path_factory.mktemp("any"), shards, tokens_per_shard=per_shard, batch_tokens=per_batch, repeats=counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRISTMILL_CACHE", str(tmp_path_factory.mktemp("plans")))  # the runs are not part of a plan's name
        patch.setattr(plan, "RUN_DOCUMENTS", run_documents)
        options = {"sequence_length": length, "columns": ["excess"], "packing": PACKINGS[packing]}
        dataset = TokenDataset.open(folder, shuffle="none", **options)
        shuffled = TokenDataset.open(folder, shuffle=SHUFFLES["blocks"], **options)
    slow = SlowEpoch(folder, shards, counts, length, PACKINGS[packing], run_documents)
    assert len(dataset) == len(slow.rows)
    batch = TokenLoader(dataset, len(dataset), boundaries=["document_ids"], within_documents=within, prefetch=0).batch(0)
    for row in range(len(dataset)):
        slow.check(batch, row, row, within)
    seen = Counter(at for row in slow.rows for at in row.tokens)
    expected = [
        count for ids, each in zip(shards, counts, strict=True) for row, count in zip(ids, each, strict=True) for _ in row
    ]
    assert [seen[at] for at in range(len(slow.tokens))] == expected
    assert sum(seen.values()) == dataset.manifest().epoch_tokens
    assert all(len(set(row.tokens)) == len(row.tokens) for row in slow.rows), "no row has two copies of a document"
    batch = TokenLoader(shuffled, len(dataset), prefetch=0).batch(len(dataset))
    assert sorted(batch.sequences.tolist()) == list(range(len(dataset)))
    for row, sequence in enumerate(batch.sequences.tolist()):
        slow.check(batch, row, sequence)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_an_epoch_at_every_world_size(folder, shards, counts, packing, shuffle):
    """The ranks' rows together are the epoch, each sequence once: for one rank, and for several."""
    options = {"sequence_length": LENGTH, "seed": 4, "columns": ["excess"], "shuffle": SHUFFLES[shuffle]}
    dataset = TokenDataset.open({"a": Source(path=folder, max_epochs=2)}, packing=PACKINGS[packing], **options)
    slow = SlowEpoch(folder, shards, counts, LENGTH, PACKINGS[packing])
    for world_size in (1, 2, 3):
        ranks = [TokenLoader(dataset, 6, rank=r, world_size=world_size, prefetch=0) for r in range(world_size)]
        seen: list[int] = []
        for parts in zip(*ranks, strict=True):
            for part in parts:
                for row, sequence in enumerate(part.sequences.tolist()):
                    slow.check(part, row, sequence)
                    seen.append(sequence)
        assert len(seen) == len(dataset) // 6 * 6 > len(slow.rows)
        assert sorted(seen[: len(slow.rows)]) == list(range(len(slow.rows)))


@pytest.mark.parametrize("packing", PACKINGS)
@given(st.integers(0, 20), st.sampled_from([(3, 8), (1, 6), (6, 4), (2, 9)]), st.integers(0, 2))
@examples(6)
def test_resume_at_any_step_with_another_world(mixed, packing, steps, world, prefetch):
    """A mixture of a build with repeats and one without: one process stops, others go on with other ranks and batches."""
    options = {"sequence_length": LENGTH, "seed": 9, "packing": PACKINGS[packing], "columns": ["excess"]}
    dataset = TokenDataset.open(mixed, **options)
    first = TokenLoader(dataset, 24, prefetch=prefetch)
    for _ in range(steps):
        next(first)
    state = json.loads(json.dumps(first.state_dict()))
    first.close()
    world_size, rows = world
    opened = pickle.loads(pickle.dumps(dataset))
    ranks = [TokenLoader(opened, rows * world_size, rank=r, world_size=world_size, prefetch=prefetch) for r in range(world_size)]
    for rank in ranks:
        rank.load_state_dict(state)
    parts = [next(rank) for _ in range(2) for rank in ranks]
    expected = TokenLoader(dataset, 2 * rows * world_size, prefetch=0).batch(24 * steps)
    for name in ALL:
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(expected, name)), name
    for rank in ranks:
        rank.close()


def test_mixed_sources_each_read_their_own_epoch(mixed, folder, shards, counts):
    dataset = TokenDataset.open(mixed, sequence_length=LENGTH, seed=9, columns=["excess"])
    slow = SlowEpoch(folder, shards, counts, LENGTH, "concat")
    batch = TokenLoader(dataset, 4 * len(slow.rows), prefetch=0).batch(0)
    mine = np.flatnonzero(batch.sources == 0)
    for row in mine.tolist():
        slow.check(batch, row, int(batch.sequences[row]))
    assert len(mine) > len(slow.rows)
    assert sorted(batch.sequences[mine][: len(slow.rows)].tolist()) == list(range(len(slow.rows)))


@pytest.mark.parametrize("packing", PACKINGS)
def test_masks_and_weights_of_rows_that_are_read_again(folder, packing):
    """A selection sees the scores of each copy: the same mask as by the columns that the batch carries."""
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, seed=2, columns=["excess"], packing=PACKINGS[packing])
    size = len(dataset)
    everything = TokenLoader(dataset, size, prefetch=0).batch(0)
    valid, scores = everything.loss_mask, everything.columns["excess"]
    threshold = TokenLoader(dataset, size, select=Threshold(low=1.0), prefetch=0).batch(0)
    assert np.array_equal(threshold.loss_mask, valid & (scores >= 1.0)) and threshold.loss_mask.any()
    weights = TokenLoader(dataset, size, select=StoredWeights(column="excess"), prefetch=0).batch(0)
    assert np.array_equal(weights.loss_mask, np.where(valid & ~np.isnan(scores), np.maximum(scores, 0), 0).astype(np.float32))
    top = TokenLoader(dataset, size, select=TopShare(column="excess", keep=0.25, scope="sequence"), prefetch=0).batch(0)
    candidates = (valid & ~np.isnan(scores)).sum(axis=1)
    assert np.array_equal(top.loss_mask.sum(axis=1), [int(0.25 * int(n) + 0.5) for n in candidates])


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_token_of_every_pass_leads_back_to_its_record(folder, shards, counts, packing):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, packing=PACKINGS[packing])
    slow = SlowEpoch(folder, shards, counts, LENGTH, PACKINGS[packing])
    origin = {
        token: (f"crawl-{number}", row, place)
        for number, ids in enumerate(shards)
        for row, document in enumerate(ids)
        for place, token in enumerate(document)
    }
    passes = set()
    for sequence in range(0, len(slow.rows), 3):
        row = slow.rows[sequence]
        passes.add(row.number)
        for position, at in enumerate(row.tokens):
            address = dataset.locate(sequence, position)
            stored = read_row(folder / address.file, address.row)
            assert (stored["file"], stored["offset"], address.position) == origin[slow.tokens[at]]
        if len(row.tokens) < LENGTH:
            with pytest.raises(IndexError, match="is padding"):
                dataset.locate(sequence, len(row.tokens))
    assert passes == set(range(1, 8))


@pytest.mark.parametrize("packing", PACKINGS)
def test_counts_of_one_read_as_no_counts_do(plain, shards, tmp_path, packing):
    """The same rows in the same order, and no plan for later passes."""
    ones = build(tmp_path, shards, tokens_per_shard=120, batch_tokens=40, repeats=[[1] * len(ids) for ids in shards])
    options = {"sequence_length": LENGTH, "seed": 3, "packing": PACKINGS[packing]}
    dataset, expected = TokenDataset.open(ones, **options), TokenDataset.open(plain, **options)
    assert len(dataset) == len(expected)
    for a, b in zip(dataset, expected, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in ("input_ids", "labels", "loss_mask"))
    assert packing != "concat" or isinstance(dataset._opened[0].packing, Concatenated)
    assert dataset.manifest().order != expected.manifest().order, "counts are part of the order"


@pytest.mark.parametrize("packing", PACKINGS)
def test_more_shards_than_may_be_open(folder, shards, counts, packing, monkeypatch):
    """Rows of late passes lie in many shards, of which two may be open."""
    monkeypatch.setattr("gristmill.reader.stream.OPEN_SHARDS", 2)
    dataset = TokenDataset.open(folder, sequence_length=64, seed=2, columns=["excess"], packing=PACKINGS[packing])
    slow = SlowEpoch(folder, shards, counts, 64, PACKINGS[packing])
    batch = TokenLoader(dataset, len(dataset), boundaries=["document_ids"], within_documents=True, prefetch=0).batch(0)
    for row, sequence in enumerate(batch.sequences.tolist()):
        slow.check(batch, row, sequence, within=True)


def test_a_state_of_other_counts_is_refused(folder, plain):
    state = TokenLoader(TokenDataset.open(plain, sequence_length=LENGTH), 4).state_dict()
    with pytest.raises(ValueError, match="data"):
        TokenLoader(TokenDataset.open(folder, sequence_length=LENGTH), 4).load_state_dict(state)


def test_what_a_dataset_says_of_itself(folder, shards, counts):
    sizes = [(len(row), count) for ids, each in zip(shards, counts, strict=True) for row, count in zip(ids, each, strict=True)]
    manifest = TokenDataset.open(folder, sequence_length=LENGTH).manifest()
    assert manifest.tokens == sum(size for size, _ in sizes)
    assert manifest.epoch_tokens == sum(size * count for size, count in sizes)
    assert manifest.passes == tuple(
        (sum(count >= k for _, count in sizes), sum(size for size, count in sizes if count >= k)) for k in range(1, 8)
    )
    assert f"{manifest.tokens:,} tokens ({manifest.epoch_tokens:,} an epoch, with repeats)" in repr(manifest)
    said = repr(TokenDataset.open(folder, sequence_length=LENGTH))
    assert f"{manifest.tokens:,} tokens ({manifest.epoch_tokens:,} an epoch, with repeats)" in said


def test_columns_that_were_added_later_are_read_with_each_copy(shards, counts, tmp_path):
    """The build's order, which the columns name, has the counts in it."""
    folder = build(tmp_path, shards, repeats=counts)

    def numbers(ids, bounds):
        values = ids.astype(np.float32)
        values[bounds[:-1][np.diff(bounds) > 0]] = np.nan
        return {"number": values}

    write_sidecar(folder, "later", {"number": "float32"}, numbers)
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, columns=["number"])
    batch = TokenLoader(dataset, len(dataset), prefetch=0, within_documents=True).batch(0)
    assert np.array_equal(batch.columns["number"][batch.loss_mask], batch.labels[batch.loss_mask].astype(np.float32))


# ---- elsewhere, and damaged ----


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_remote_build_reads_as_a_local_one(folder, tmp_path, packing, monkeypatch):
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "plans"))
    options = {"sequence_length": LENGTH, "seed": 5, "columns": ["excess"], "packing": PACKINGS[packing]}
    expected = TokenLoader(TokenDataset.open(folder, **options), 8, prefetch=0)
    web = Web({path.name: path.read_bytes() for path in folder.iterdir()})
    with serve(web):
        monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "other"))
        dataset = TokenDataset.open(f"{web.url}/{NAME}", cache=Cache(folder=tmp_path / "cache"), **options)
        fetched = {name for name in web.gets() if name.endswith(".arrow")}
        assert any(name.startswith("repeats-") for name in fetched)
        assert packing != "concat" or not any(name.startswith("tokens-") for name in fetched), "plans need the counts alone"
        loader = TokenLoader(dataset, 8, prefetch=0)
        for _ in range(len(dataset) // 8):
            found, wanted = next(loader), next(expected)
            assert all(np.array_equal(getattr(found, name), getattr(wanted, name)) for name in ALL)


def test_an_order_that_would_fetch_again_and_again_is_refused(folder, tmp_path, monkeypatch):
    """A block of a late pass lies in many shards: what is read again is scattered."""
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path))
    sizes = [path.stat().st_size for path in folder.glob("*.arrow")]
    shards = len(open_build(folder, "tokens")[0].shards)
    web = Web({path.name: path.read_bytes() for path in folder.iterdir()})
    with serve(web):
        cache = Cache(folder=tmp_path / "cache", limit_bytes=16 * max(sizes))
        options = {"sequence_length": LENGTH, "shuffle": Blocks(sequences=8, open=2), "cache": cache}
        message = rf"this order reads {shards} of {shards} remote shards at a time, and the cache has room for [2-9]:"
        with pytest.raises(ValueError, match=message):
            TokenDataset.open(f"{web.url}/{NAME}", **options)
