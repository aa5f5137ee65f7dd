"""Batches against a slow transcription: every token once an epoch, one order for every world, exact resume."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill import BestFit, Blocks, Source, Threshold, TokenDataset, TokenLoader, TopShare
from gristmill.reader.batching import BatchMaker
from gristmill.reader.stream import TokenStream
from tests.gristmill.slow import Slow, build, corpus, some_sizes
from tests.random_examples import examples

LENGTH = 16
SHUFFLES = {"global": "global", "blocks": Blocks(sequences=4, open=3), "none": "none"}
PACKINGS = {"concat": "concat", "best_fit": BestFit(window=12)}


@pytest.fixture(scope="module")
def shards():
    return corpus(some_sizes(5))


@pytest.fixture(scope="module")
def other_shards():
    return corpus(some_sizes(6)[::-1], first=20_000)


@pytest.fixture(scope="module")
def folder(shards, tmp_path_factory):
    return build(tmp_path_factory.mktemp("build"), shards, tokens_per_shard=120, batch_tokens=40)


@pytest.fixture(scope="module")
def other_folder(other_shards, tmp_path_factory):
    return build(tmp_path_factory.mktemp("other"), other_shards, tokens_per_shard=120, batch_tokens=40)


@pytest.fixture(scope="module")
def mixed(folder, other_folder):
    """Sources of a mixture whose weights change at sample 40."""
    return {"web": Source(path=folder, weight={0: 2.0, 40: 1.0}), "code": Source(path=other_folder, weight={0: 1.0, 40: 3.0})}


sizes_of_shards = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8), min_size=1, max_size=4).filter(
    lambda shards: sum(map(sum, shards)) > 0
)


@pytest.mark.parametrize("packing", PACKINGS)
@given(
    sizes_of_shards, st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.sampled_from(sorted(SHUFFLES)), st.booleans()
)
@examples(8)
def test_every_token_exactly_once_an_epoch(tmp_path_factory, packing, sizes, length, per_shard, per_batch, shuffle, within):
    """Any documents, any files, any record batches: an epoch is the corpus, token by token, and equals the transcription."""
    shards = corpus(sizes)
    tokens = [token for ids in shards for row in ids for token in row]
    folder = build(tmp_path_factory.mktemp("any"), shards, tokens_per_shard=per_shard, batch_tokens=per_batch)
    dataset = TokenDataset.open(
        folder,
        sequence_length=min(length, len(tokens)),
        seed=len(tokens),
        columns=["excess"],
        shuffle=SHUFFLES[shuffle],
        packing=PACKINGS[packing],
    )
    slow = Slow(shards, dataset)
    loader = TokenLoader(dataset, len(dataset), boundaries=["document_ids"], within_documents=within, prefetch=0)
    for epoch in range(2):
        batch = next(loader)
        for row in range(len(dataset)):
            slow.check_row(batch, row, epoch * len(dataset) + row, within)
        held = np.array([[at is not None for at in slow.addresses(int(sequence))] for sequence in batch.sequences])
        assert sorted(batch.input_ids[held].tolist()) == tokens


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("source", ["one", "mixed"])
def test_world_sizes_share_one_order(folder, mixed, source, shuffle, packing):
    """The ranks' rows, put together, are the global batch: tokens, labels and masks, across epochs and changes of weight."""
    select = TopShare(keep=0.6, scope="batch")
    path = folder if source == "one" else mixed
    options = {"sequence_length": LENGTH, "seed": 1, "shuffle": SHUFFLES[shuffle], "packing": PACKINGS[packing]}
    dataset, *datasets = (TokenDataset.open(path, **options) for _ in range(1 + 3))  # each rank has its own
    for world_size in (2, 3):
        whole = TokenLoader(dataset, 24, select=select, prefetch=0)
        ranks = [
            TokenLoader(datasets[r], 24, select=select, rank=r, world_size=world_size, prefetch=0) for r in range(world_size)
        ]
        for _ in range(4):
            expected, parts = next(whole), [next(rank) for rank in ranks]
            for name in ("samples", "sources", "sequences", "input_ids", "labels", "loss_mask"):
                assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(expected, name)), name


@pytest.mark.parametrize("packing", PACKINGS)
@given(st.integers(0, 12), st.sampled_from([(3, 8), (1, 6), (6, 12), (2, 18)]), st.integers(0, 2))
@examples(6)
def test_resume_at_any_step_with_another_world(mixed, packing, steps, world, prefetch):
    """One process with batches of 48 stops; others go on with another number of ranks and another batch size."""
    options = {"sequence_length": LENGTH, "seed": 9, "packing": PACKINGS[packing]}
    dataset = TokenDataset.open(mixed, **options)
    first = TokenLoader(dataset, 48, prefetch=prefetch)
    for _ in range(steps):
        next(first)
    state = json.loads(json.dumps(first.state_dict()))
    first.close()
    assert state["sample"] == 48 * steps
    world_size, rows = world
    ranks = [
        TokenLoader(TokenDataset.open(mixed, **options), rows * world_size, rank=r, world_size=world_size, prefetch=prefetch)
        for r in range(world_size)
    ]
    for rank in ranks:
        rank.load_state_dict(state)
    parts = [next(rank) for _ in range(2) for rank in ranks]
    expected = TokenLoader(dataset, 2 * rows * world_size, prefetch=0).batch(48 * steps)
    for name in ("samples", "sources", "sequences", "input_ids", "labels", "loss_mask"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(expected, name)), name
    for rank in ranks:
        rank.close()


def test_mixtures_hold_their_weights_and_sources(mixed, shards, other_shards):
    dataset = TokenDataset.open(mixed, sequence_length=LENGTH, seed=2, columns=["excess"])
    assert dataset.sources == ("web", "code") and dataset.total is None
    slow = [Slow(shards, dataset, 0), Slow(other_shards, dataset, 1)]
    seen = [0, 0]
    for batch in itertools.islice(TokenLoader(dataset, 8), 30):
        for row, source in enumerate(batch.sources.tolist()):
            slow[source].check_row(batch, row, seen[source])
            seen[source] += 1
        if batch.samples[-1] == 39:
            assert abs(seen[0] - 2 / 3 * 40) < 2
    assert abs(seen[0] - 2 / 3 * 40 - 1 / 4 * 200) < 3


def test_sources_end_after_their_epochs(folder, other_folder, shards, other_shards):
    """What is used up leaves its share to the others; when all are, batches end, and nothing was seen too often."""
    sources = {"a": Source(path=folder, max_epochs=2), "b": Source(path=other_folder, weight=3, max_epochs=1)}
    dataset = TokenDataset.open(sources, sequence_length=LENGTH)
    sizes = [source.packing.count for source in dataset._opened]
    assert dataset.total == 2 * sizes[0] + sizes[1]
    batches = list(TokenLoader(dataset, 1))
    assert len(batches) == dataset.total
    seen = [[int(b.sequences[0]) for b in batches if b.sources[0] == s] for s in (0, 1)]
    assert sorted(seen[0]) == sorted([*range(sizes[0])] * 2) and sorted(seen[1]) == list(range(sizes[1]))
    loader = TokenLoader(dataset, 4)
    assert len(list(loader)) == dataset.total // 4
    assert next(loader, None) is None, "the end stays the end"
    with pytest.raises(IndexError, match=f"numbered from 0 to {dataset.total - 1}"):
        loader.batch(dataset.total - 1)


# ---- state ----


def test_the_state_is_a_few_integers(mixed):
    loader = TokenLoader(TokenDataset.open(mixed, sequence_length=LENGTH, seed=2**40), 4, prefetch=0)
    loader.seek(10**15)
    state = loader.state_dict()
    assert all(isinstance(value, int) for value in state.values()) and len(json.dumps(state)) <= 200


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, r"seed \(3, here 4\)"),
        ({"sequence_length": 8}, r"sequence_length \(16, here 8\)"),
        ({"shuffle": "none"}, r"order \("),
        ({"packing": BestFit()}, r"order \("),
        ({"path": "other"}, r"data \("),
        ({"path": "weights"}, r"mixture \("),
    ],
)
def test_a_state_of_another_order_is_refused(folder, other_folder, mixed, change, named):
    options = {"sequence_length": LENGTH, "seed": 3}
    loader = TokenLoader(TokenDataset.open(mixed, **options), 10)
    for _ in range(5):
        next(loader)
    paths = {
        "other": {**mixed, "code": Source(path=folder, weight={0: 1.0, 40: 3.0})},
        "weights": {**mixed, "code": Source(path=other_folder, weight={0: 1.0, 40: 2.0})},
    }
    path = paths.get(change.pop("path", ""), mixed)
    with pytest.raises(ValueError, match=rf"a run with other {named}.*open the same builds in the same way"):
        TokenLoader(TokenDataset.open(path, **(options | change)), 10).load_state_dict(loader.state_dict())


def test_weights_to_come_may_change(mixed, other_folder):
    """A state of sample 30 does not depend on what was planned for sample 40."""
    options = {"sequence_length": LENGTH, "seed": 3}
    loader = TokenLoader(TokenDataset.open(mixed, **options), 10)
    for _ in range(3):
        next(loader)
    changed = {**mixed, "code": Source(path=other_folder, weight={0: 1.0, 50: 9.0})}
    resumed = TokenLoader(TokenDataset.open(changed, **options), 10)
    resumed.load_state_dict(loader.state_dict())
    assert np.array_equal(next(resumed).input_ids, next(loader).input_ids)


# ---- what batches carry ----


def test_labels_of_signed_types_are_ignored_where_masked(folder):
    for dtype in (np.int64, np.int32):
        dataset = TokenDataset.open(folder, sequence_length=LENGTH, dtype=dtype)
        batch = next(TokenLoader(dataset, 8, select=TopShare(keep=0.5), prefetch=0))
        assert batch.labels.dtype == batch.input_ids.dtype == dtype
        assert np.array_equal(batch.labels == -100, ~batch.loss_mask) and not batch.loss_mask.all()
        plain = next(TokenLoader(dataset, 8, prefetch=0))
        assert np.array_equal(plain.labels[batch.loss_mask], batch.labels[batch.loss_mask])
    stored = next(TokenLoader(TokenDataset.open(folder, sequence_length=LENGTH), 8, labels=False, prefetch=0))
    assert stored.input_ids.dtype == np.uint16 and stored.labels is None


@pytest.mark.parametrize("packing", PACKINGS)
def test_document_boundaries(folder, packing):
    """The three forms say the same."""
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, packing=PACKINGS[packing])
    forms = ("cu_seqlens", "position_ids", "document_ids")
    for batch in itertools.islice(TokenLoader(dataset, 6, boundaries=forms), 10):
        begins = np.ones((6, LENGTH), dtype=bool)
        begins[:, 1:] = np.diff(batch.document_ids, axis=1) > 0
        assert np.array_equal(batch.position_ids == 0, begins)
        assert batch.cu_seqlens.tolist() == [*np.flatnonzero(begins), 6 * LENGTH]


@pytest.mark.parametrize("scope", ["batch", "sequence"])
def test_selection_equals_sorting_the_scores(folder, scope):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, seed=2, columns=["excess"])
    loader = TokenLoader(dataset, 4, select=TopShare(keep=0.3, scope=scope), within_documents=True)
    for batch in itertools.islice(loader, 30):
        groups = [slice(None)] if scope == "batch" else [slice(row, row + 1) for row in range(4)]
        valid = TokenLoader(dataset, 4, within_documents=True, prefetch=0).batch(int(batch.samples[0])).loss_mask
        for rows in groups:
            scores, mask = batch.columns["excess"][rows].ravel().tolist(), batch.loss_mask[rows].ravel().tolist()
            known = [p for p, s in enumerate(scores) if valid[rows].ravel()[p] and not math.isnan(s)]
            known.sort(key=lambda p: -scores[p])
            chosen = set(known[: math.floor(len(known) * 3 / 10 + 0.5)])
            assert mask == [place in chosen for place in range(len(scores))]


def test_missing_scores_are_those_of_first_tokens(folder):
    """`missing="keep"` adds exactly the labels that begin a document."""
    dataset = TokenDataset.open(folder, sequence_length=LENGTH)
    make = {m: TokenLoader(dataset, len(dataset), select=Threshold(low=-100, missing=m), prefetch=0) for m in ("drop", "keep")}
    drop, keep = (make[m].batch(0) for m in ("drop", "keep"))
    plain = TokenLoader(dataset, len(dataset), prefetch=0).batch(0)
    inside = TokenLoader(dataset, len(dataset), within_documents=True, prefetch=0).batch(0)
    assert np.array_equal(keep.loss_mask, plain.loss_mask) and np.array_equal(drop.loss_mask, inside.loss_mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"world_size": 3}, "batch_size is 4 .* must be a multiple of world_size, 3"),
        ({"rank": 2, "world_size": 2}, "rank is 2 of world_size 2; rank must be from 0 to"),
        ({"boundaries": ["segments"]}, "boundaries: 'segments' is not known; there are cu_seqlens, position_ids, document_ids"),
        ({"select": TopShare(column="loss")}, "per-token column 'loss' is not in every shard; there are: rho1.excess"),
    ],
)
def test_mistakes_in_arguments(folder, options, message):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH)
    with pytest.raises(ValueError, match=message):
        TokenLoader(dataset, 4, **options)
    with pytest.raises(ValueError, match="the state's sample is -1; it must be at least 0"):
        TokenLoader(dataset, 4).load_state_dict({"sample": -1})
    with pytest.raises(ValueError, match="batch_size is 0"):
        TokenLoader(dataset, 0)
    with pytest.raises(IndexError, match="no samples -1 to 2: they are numbered from 0 without end"):
        TokenLoader(dataset, 4).batch(-1)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_reading_ahead_ends_with_the_order(folder, other_folder, shuffle):
    """The last batches of a limited mixture have nothing behind them that could be asked for."""
    sources = {"a": Source(path=folder, max_epochs=1), "b": Source(path=other_folder, max_epochs=2)}
    dataset = TokenDataset.open(sources, sequence_length=LENGTH, shuffle=SHUFFLES[shuffle])
    maker = BatchMaker(dataset, TokenLoader(dataset, 1).wanted, one_by_one=True)
    maker._cold = dataset.total  # as if the disk had been waited for
    assert [int(maker.next(sample).samples[0]) for sample in range(dataset.total)] == [*range(dataset.total)]
    with pytest.raises(StopIteration):
        maker.next(dataset.total)
    assert dataset.runs(dataset.total + 9, 5) == dataset.runs(3, -1) == []


@pytest.mark.parametrize("packing", PACKINGS)
def test_states_of_another_packing_algorithm(folder, monkeypatch, packing):
    """Rows that another version packs otherwise are another order; cut rows are what they always were."""
    loader = TokenLoader(TokenDataset.open(folder, sequence_length=LENGTH, packing=PACKINGS[packing]), 4)
    state = loader.state_dict()
    monkeypatch.setattr("gristmill.reader.dataset.ALGORITHM", "another")
    if packing == "concat":
        loader.load_state_dict(state)
    else:
        with pytest.raises(ValueError, match="order"):
            loader.load_state_dict(state)


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_rank_reads_only_its_own_rows_ahead(mixed, monkeypatch, packing):
    """Ranks on other machines have disks of their own: what is asked of this one is for this rank's rows."""
    dataset = TokenDataset.open(mixed, sequence_length=LENGTH, packing=PACKINGS[packing])
    asked = []
    through = TokenStream.will_need

    def will_need(stream, names, begins, ends):
        asked.extend((stream.manifest.build, begin) for begin in begins.tolist())
        through(stream, names, begins, ends)

    monkeypatch.setattr(TokenStream, "will_need", will_need)
    monkeypatch.setattr("gristmill.reader.batching.AHEAD", 8)
    maker = BatchMaker(dataset, TokenLoader(dataset, 8, rank=2, world_size=4).wanted, one_by_one=True)
    maker._cold = 96  # as if the disk had been waited for
    needed = set()
    for sample in range(0, 128, 8):  # the last four were asked for ahead
        batch = maker.next(sample) if sample < 96 else maker.run(sample, 1)[0]
        for source, sequence in zip(batch.sources.tolist(), batch.sequences.tolist(), strict=True):
            opened = dataset._opened[source]
            begins = opened.packing.pieces(np.array([sequence])).begins.tolist()
            needed |= {(opened.stream.manifest.build, begin) for begin in begins}
    assert asked and set(asked) <= needed
    assert len(asked) >= 0.9 * len(needed)
