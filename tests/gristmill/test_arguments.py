"""Every wrong argument gives one ValueError that says what it is and what is allowed; numbers of numpy do as well as Python's."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal

import numpy as np
import pyarrow as pa
import pytest

from gristmill import BestFit, Blocks, Cache, Source, TokenDataset, TokenLoader, TopShare
from tests.gristmill.slow import build, corpus, some_sizes

LENGTH = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("build"), corpus(some_sizes(5)))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A build that stores a column in float32 which `folder` stores in float16, with values that float16 rounds."""
    shards = corpus(some_sizes(6)[::-1], first=20_000)
    return build(tmp_path_factory.mktemp("wide"), shards, types={"excess": pa.float32()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packing": "best_fit"}, r"packing is 'best_fit'; it can be \"concat\" or BestFit"),
        ({"packing": BestFit}, r"packing is <class .*; it can be"),
        ({"shuffle": "block"}, r"shuffle is 'block'; it can be \"global\", \"none\" or Blocks"),
        ({"shuffle": None}, r"shuffle is None; it can be"),
        ({"columns": "excess"}, r"columns is 'excess'; it must be a list of names"),
        ({"sequence_length": "16"}, r"sequence_length is '16'; it must be a whole number"),
        ({"sequence_length": 16.0}, r"sequence_length is 16.0; it must be a whole number"),
        ({"sequence_length": True}, r"sequence_length is True; it must be a whole number"),
        ({"seed": 1.5}, r"seed is 1.5; it must be a whole number"),
        ({"seed": 1 << 63}, r"seed is 9223372036854775808; it must fit into 64 bits"),
        ({"dtype": "int"[::-1]}, r"dtype is 'tni', no type of numpy"),
        ({"cache": "/tmp"}, r"cache is '/tmp'; it must be a Cache\(folder="),
    ],
)
def test_mistakes_in_opening(folder, options, message):
    with pytest.raises(ValueError, match=message):
        TokenDataset.open(folder, **{"sequence_length": LENGTH, **options})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ({}, "there are no sources to mix; give at least one"),
        (["a"], r"path is \['a'\]; it must be a path"),
        ({"web": "build"}, r"source web is 'build'; it must be a Source, such as Source\(path=...\)"),
    ],
)
def test_mistakes_in_paths(path, message):
    with pytest.raises(ValueError, match=message):
        TokenDataset.open(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1}, "Source: weight is -1 from sample 0 on; it must be a finite number, 0 or more"),
        ({"weight": math.nan}, "weight is nan"),
        ({"weight": "1"}, "weight is '1'"),
        ({"weight": {}}, "weight is empty"),
        ({"weight": {0: 1, 1.5: 2}}, "first sample of a weight is 1.5; it must be a whole number"),
        ({"weight": {-1: 1}}, "first sample of a weight is -1; it must be at least 0"),
        ({"max_epochs": 0}, "Source: max_epochs is 0; it must be a number above 0, or None"),
        ({"max_epochs": "2"}, "max_epochs is '2'"),
        ({"path": None}, "Source: path is None"),
    ],
)
def test_mistakes_in_sources(options, message):
    with pytest.raises(ValueError, match=message):
        Source(**{"path": "build", **options})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blocks(sequences="4"), "Blocks: sequences is '4'; it must be a whole number"),
        (lambda: Blocks(open=0), "Blocks: open is 0; it must be at least 1"),
        (lambda: BestFit(window=2.0), "BestFit: window is 2.0; it must be a whole number"),
        (lambda: Cache(limit_bytes="10 GB"), "Cache: limit_bytes is '10 GB'; it must be a whole number"),
    ],
)
def test_mistakes_in_parts(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": "16"}, "batch_size is '16'; it must be a whole number"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"world_size": "2"}, "world_size is '2'; it must be a whole number"),
        ({"rank": 0.0}, "rank is 0.0; it must be a whole number"),
        ({"prefetch": -1}, "prefetch is -1; it must be at least 0"),
        ({"boundaries": "cu_seqlens"}, "boundaries is 'cu_seqlens'; it must be a list of some of cu_seqlens, position_ids"),
        ({"boundaries": None}, "boundaries is None; it must be a list"),
        ({"select": "TopShare"}, "select is 'TopShare'; it must be a selection such as"),
    ],
)
def test_mistakes_in_loading(folder, options, message):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH)
    with pytest.raises(ValueError, match=message):
        TokenLoader(dataset, **{"batch_size": 4, **options})


@pytest.mark.parametrize("state", [{}, None, {"sample": -4}, {"sample": 1.5}])
def test_what_is_no_state(folder, state):
    loader = TokenLoader(TokenDataset.open(folder, sequence_length=LENGTH), 4)
    with pytest.raises(ValueError, match=r"the state('s sample)? is .*; it must be "):
        loader.load_state_dict(state)
    with pytest.raises(ValueError, match="sample is -4; it must be at least 0"):
        loader.seek(-4)


def test_sources_are_named_or_numbered(folder):
    dataset = TokenDataset.open({"web": Source(path=folder)}, sequence_length=LENGTH)
    for wrong in ("books", 1, -1):
        with pytest.raises(ValueError, match=r"no source .*; there are: web, numbered from 0"):
            dataset.locate(0, 0, source=wrong)


def test_numbers_of_numpy_make_the_same_state(folder):
    """States are saved as JSON, which knows Python's numbers only; a whole float such as 1e6 numbers a sample as well."""
    plain = {"a": Source(path=folder, weight={0: 1, 100: 3}, max_epochs=4), "b": Source(path=folder)}
    numpys = {
        "x": Source(path=folder, weight={np.int64(0): np.float32(1), 1e2: 3.0}, max_epochs=np.float32(4)),
        "y": Source(path=folder, weight=np.int64(1)),
    }
    states = []
    for sources, number in ((plain, int), (numpys, np.int64)):
        dataset = TokenDataset.open(
            sources, sequence_length=number(LENGTH), seed=number(3), shuffle=Blocks(sequences=number(4), open=number(2))
        )
        loader = TokenLoader(dataset, number(8))
        loader.seek(number(96))
        next(loader)
        states.append(json.dumps(loader.state_dict()))
    assert states[0] == states[1]
    assert len(states[0]) <= 200


def test_the_longest_state_has_200_bytes(folder):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, seed=-(1 << 63) + 1)
    loader = TokenLoader(dataset, 4)
    loader.seek((1 << 62) - 1)
    assert len(json.dumps({**loader.state_dict(), "data": 2**32 - 1, "order": 2**32 - 1, "mixture": 2**32 - 1})) <= 200


def test_limits_may_change_until_they_are_reached(folder, wide):
    """`max_epochs` matters from the sample after the one that reaches it; of a lone source it ends the order only."""

    def opened(*limits: float | None) -> TokenLoader:
        sources = {str(n): Source(path=(folder, wide)[n], max_epochs=limit) for n, limit in enumerate(limits)}
        return TokenLoader(TokenDataset.open(sources, sequence_length=LENGTH), 1)

    lone = opened(1.0)
    for _ in lone:
        pass
    more = opened(2.0)
    more.load_state_dict(lone.state_dict())
    assert next(more).samples[0] == lone.dataset.total

    for limits, others in (((1.0, None), (2.0, None)), ((2.0, None), (1.0, None)), ((1.0, None), (None, 3.0))):
        before, after = opened(*limits), opened(*others)
        agreeing = 0
        orders = [[(int(b.sources[0]), int(b.sequences[0])) for b in map(one.batch, range(300))] for one in (before, after)]
        while agreeing < 300 and orders[0][agreeing] == orders[1][agreeing]:
            agreeing += 1
        assert 100 < agreeing < 300  # the limits are reached on the way
        for sample in (0, 1, agreeing - 20):
            before.seek(sample)
            after.load_state_dict(before.state_dict())
        before.seek(agreeing + 1)
        with pytest.raises(ValueError, match="mixture"):
            after.load_state_dict(before.state_dict())


def test_types_of_columns_do_not_depend_on_who_is_in_the_batch(folder, wide):
    """Two builds store a column in two types: batches have the wider one, whatever the rank's rows come from."""
    for sources in ({"a": folder, "b": wide}, {"b": wide, "a": folder}):
        mixed = TokenDataset.open(
            {name: Source(path=path) for name, path in sources.items()}, sequence_length=LENGTH, columns=["excess"]
        )
        whole = TokenLoader(mixed, 8, select=TopShare()).batch(16)
        assert {len(set(whole.sources.tolist())), whole.columns["excess"].dtype} == {2, np.dtype(np.float32)}
        for rank in range(8):
            mine = TokenLoader(mixed, 8, rank=rank, world_size=8, select=TopShare()).batch(16)
            assert mine.columns["excess"].dtype == np.float32
            np.testing.assert_array_equal(mine.columns["excess"], whole.columns["excess"][rank : rank + 1])
            np.testing.assert_array_equal(mine.loss_mask, whole.loss_mask[rank : rank + 1])


def test_masks_and_scores_do_not_mix(folder, tmp_path):
    masks = build(tmp_path, corpus(some_sizes(5)), types={"excess": pa.bool_()})
    with pytest.raises(ValueError, match="column 'excess' is float16 in a, bool in b"):
        TokenDataset.open({"a": Source(path=folder), "b": Source(path=masks)}, sequence_length=LENGTH, columns=["excess"])


def test_a_loader_goes_on_in_a_forked_child(folder):
    """The thread stays behind in the parent, perhaps with batches half made."""
    dataset = TokenDataset.open(folder, sequence_length=LENGTH)
    loader = TokenLoader(dataset, 4)
    next(loader)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that waits for the thread is killed
        os._exit(0 if [int(next(loader).samples[0]) for _ in range(8)] == [*range(4, 36, 4)] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert next(loader).samples[0] == 4


def test_a_busy_loader_can_be_pickled(folder):
    loader = TokenLoader(TokenDataset.open(folder, sequence_length=LENGTH), 4)
    next(loader)
    small = len(pickle.dumps(loader))
    for _ in range(50):
        next(loader)
        assert abs(len(pickle.dumps(loader)) - small) < 50  # nothing of what was made ahead
    again = pickle.loads(pickle.dumps(loader))
    np.testing.assert_array_equal(next(again).input_ids, next(loader).input_ids)
