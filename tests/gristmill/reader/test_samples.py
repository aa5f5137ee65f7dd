"""What single samples hold, how many there are, states across added sources, and how the reader's objects name themselves."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

import gristmill
from gristmill import BestFit, Cache, FormatError, Source, StoredMask, TokenDataset, TokenLoader, TopShare
from gristmill.format.build import open_build
from gristmill.format.manifest import NAME
from tests.gristmill.slow import build, corpus, some_sizes

LENGTH = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("one"), corpus(some_sizes(5)))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return build(tmp_path_factory.mktemp("two"), corpus(some_sizes(6)[::-1], first=20_000))


@pytest.fixture(scope="module")
def third(tmp_path_factory):
    return build(tmp_path_factory.mktemp("three"), corpus(some_sizes(7), first=30_000))


def opened(path, **options):
    return TokenDataset.open(path, **{"sequence_length": LENGTH, "seed": 3} | options)


# ---- one sample ----


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint32", None])
@pytest.mark.parametrize("packing", ["concat", BestFit(window=12)], ids=["concat", "best_fit"])
def test_samples_are_rows_of_batches(folder, packing, dtype):
    dataset = opened(folder, packing=packing, dtype=dtype, columns=["excess"])
    batch = TokenLoader(dataset, len(dataset), prefetch=0).batch(0)
    for number in range(len(dataset)):
        sample = dataset[number]
        for name in ("input_ids", "labels", "loss_mask"):
            np.testing.assert_array_equal(sample[name], getattr(batch, name)[number])
            assert sample[name].dtype == getattr(batch, name).dtype
        np.testing.assert_array_equal(sample["excess"], batch.columns["excess"][number])
    if dtype in ("int64", "int32"):
        assert 0 < (batch.labels == -100).sum() == (~batch.loss_mask).sum()


# ---- how many ----


@pytest.mark.parametrize(
    "limits",
    [(0.5, None), (1.5, None), (0.25, 0.5), (2, 0.1), (None, 0.3)],
    ids=str,
)
@pytest.mark.parametrize("phases", [False, True])
def test_a_length_is_what_iterating_gives(folder, other, limits, phases):
    """Of an order with an end all of it; without one each source as far as it may be seen."""
    weights = [{0: 1.0, 5: 3.0}, {0: 2.0, 5: 1.0}] if phases else [1.0, 2.0]
    dataset = opened(
        {n: Source(path=p, weight=w, max_epochs=m) for n, p, w, m in zip("ab", (folder, other), weights, limits, strict=True)}
    )
    sizes = [len(opened(path)) for path in (folder, other)]
    most = [size if limit is None else int(size * limit) for size, limit in zip(sizes, limits, strict=True)]
    if None in limits:
        assert dataset.total is None and len(dataset) == sum(map(min, sizes, most))
    else:
        assert len(dataset) == dataset.total == sum(most)
    assert sum(1 for _ in dataset) == len(dataset)
    dataset[len(dataset) - 1]


def test_a_length_obeys_the_limit_of_a_single_source(folder):
    whole = len(opened(folder))
    for epochs, expected in ((0.5, whole // 2), (1, whole), (3, 3 * whole), (None, whole)):
        assert len(opened({"a": Source(path=folder, max_epochs=epochs)})) == expected


def test_no_batch_at_all_is_an_error(folder):
    dataset = opened({"a": Source(path=folder, max_epochs=1)})
    size = len(dataset) // 2 * 2
    assert sum(1 for _ in TokenLoader(dataset, size, rank=1, world_size=2)) == 1
    message = rf"batch_size is {size + 2} \(rows of all 2 ranks together\), but the dataset ends after {len(dataset)} samples"
    with pytest.raises(ValueError, match=message):
        TokenLoader(dataset, size + 2, world_size=2)
    assert next(TokenLoader(opened(folder), size + 2)).input_ids.shape == (
        size + 2,
        LENGTH,
    )


# ---- states where sources are added ----


def states(dataset, steps, batch_size=4):
    loader = TokenLoader(dataset, batch_size, prefetch=0)
    for _ in range(steps):
        next(loader)
    return loader, loader.state_dict()


@pytest.mark.parametrize("steps", [0, 3, 10])
@pytest.mark.parametrize("alone", [False, True])
def test_a_source_may_be_added_before_its_weight_begins(folder, other, third, steps, alone):
    """With weight 0 up to a sample to come: the state is good, and what follows is as if the source had been there always."""
    before = {"web": Source(path=folder)} if alone else {"web": Source(path=folder, weight=2.0), "code": Source(path=other)}
    added = {**before, "late": Source(path=third, weight={0: 0.0, 40: 3.0})}
    _, state = states(opened(before), steps)
    straight, _ = states(opened(added), steps)
    loader = TokenLoader(opened(added), 4, prefetch=0)
    loader.load_state_dict(json.loads(json.dumps(state)))
    for _ in range(15):
        batch, expected = next(loader), next(straight)
        np.testing.assert_array_equal(batch.input_ids, expected.input_ids)
        np.testing.assert_array_equal(batch.samples, expected.samples)
    assert 2 - alone in batch.sources


def test_states_that_an_added_source_changes_are_refused(folder, other, third):
    """Its weight began before the state, its changes cut the mixture, or it stands before the others and takes their number."""
    before = {"web": Source(path=folder, weight=2.0), "code": Source(path=other)}
    _, state = states(opened(before), 10)
    late = Source(path=third, weight={0: 0.0, 40: 3.0})
    for added in (
        {**before, "late": Source(path=third, weight={0: 0.0, 39: 3.0})},
        {**before, "late": Source(path=third, weight={0: 0.0, 20: 0.0, 40: 3.0})},
        {"late": late, **before},
        {"web": before["web"], "late": late, "code": before["code"]},
    ):
        with pytest.raises(ValueError, match=r"other .*mixture"):
            TokenLoader(opened(added), 4).load_state_dict(state)
    _, alone = states(opened({"web": before["web"]}), 10)
    with pytest.raises(ValueError, match=r"other .*mixture"):
        TokenLoader(opened({"late": late, "web": before["web"]}), 4).load_state_dict(alone)


def test_states_of_before_sources_could_be_added(folder, other):
    """They tell of all sources, those without a weight so far as well; and of sources that all have one they are the same."""
    late = opened({"web": Source(path=folder), "code": Source(path=other, weight={0: 0.0, 40: 1.0})})
    loader = TokenLoader(late, 4)
    loader.load_state_dict({"sample": 20, **late.fingerprint(20, idle=True)})
    assert loader.sample == 20
    assert late.fingerprint(20) != late.fingerprint(20, idle=True)
    assert late.fingerprint(44) == late.fingerprint(44, idle=True)
    with pytest.raises(ValueError, match="other data"):
        loader.load_state_dict({"sample": 20, **late.fingerprint(20, idle=True), "data": 1})


# ---- counts of the manifest ----


def test_a_manifest_with_other_counts_is_refused(tmp_path):
    """Even where its sums agree with themselves; the id of a build is of its files alone."""
    folder = build(tmp_path, corpus(some_sizes(5)))
    right = json.loads((folder / NAME).read_text())
    numbers = [n for n, shard in enumerate(right["shards"]) if shard["tokens"] > 1]
    for changes in ([("tokens", 1)], [("documents", -1)], [("tokens", -1), ("documents", 1)]):
        content = json.loads(json.dumps(right))
        for key, by in changes:
            content["shards"][numbers[-1]][key] += by
            content["totals"][key] += by
        (folder / NAME).write_text(json.dumps(content))
        entry = content["shards"][numbers[-1]]
        counts = f"the manifest says {entry['tokens']} in {entry['documents']}"
        message = rf"{entry['file']}: input_ids has \d+ tokens in \d+ documents, {counts}"
        for verify in (False, True):
            with pytest.raises(FormatError, match=message):
                opened(folder, verify=verify)
    (folder / NAME).write_text(json.dumps(right))
    assert len(opened(folder, verify=True))


# ---- names ----


def test_public_objects_say_what_they_are(folder):
    dataset = opened({"web": Source(path=folder, max_epochs=2)}, packing=BestFit(window=12), dtype="int64")
    shown = repr(dataset)
    assert shown.startswith("TokenDataset(web: ") and f"sequences of {LENGTH}" in shown and f"{len(dataset):,} samples" in shown
    assert "BestFit(window=12)" in shown and "endless" in repr(opened(folder))
    loader = TokenLoader(dataset, 4, rank=1, world_size=2)
    batch = next(loader)
    assert repr(loader).startswith("TokenLoader(batch_size=4, rank=1, world_size=2, at sample 4 of TokenDataset(web: ")
    assert "input_ids: int64 (2, 16)" in repr(batch) and len(repr(batch)) < 400
    manifest, _ = open_build(folder, "tokens")
    assert manifest.build in repr(manifest) and len(repr(manifest)) < 200
    others = (Cache(), Source(path="x"), TopShare(keep=0.5), StoredMask(column="m"), BestFit(), dataset.locate(0, 0))
    for each in itertools.chain((dataset, loader, batch, manifest), others):
        assert type(each).__name__ in gristmill.__all__
        assert repr(each).startswith(f"{type(each).__name__}(") and " at 0x" not in repr(each)
