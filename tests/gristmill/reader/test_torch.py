"""Batches as tensors, and torch's DataLoader with any number of workers against the loader by itself."""

from __future__ import annotations

import gc
import itertools
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from gristmill import Source, TokenDataset, TokenLoader, TopShare  # noqa: E402
from gristmill.reader.batch import Batch  # noqa: E402
from gristmill.reader.tensors import to_torch  # noqa: E402
from gristmill.reader.torch import TorchTokens  # noqa: E402
from tests.gristmill.builds import documents, publish  # noqa: E402

# The number of processors of the machine is not ours to choose.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

FIELDS = ("samples", "sources", "sequences", "input_ids", "labels", "loss_mask", "cu_seqlens", "position_ids", "document_ids")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("torch")
    rng = np.random.default_rng(0)
    shards = []
    for shard in range(2):
        ids = [rng.integers(2, 900, size).tolist() for size in rng.integers(1, 40, 20)]
        losses = [[np.nan, *rng.gamma(2.0, 2.0, len(row) - 1)] for row in ids]
        shards.append([documents(ids, file=f"f{shard}", scores={"ref_loss": losses}, schemes={"ref_loss": "rho1"})])
    publish(shards, output)
    return output


def loader_of(folder, *, max_epochs=None, **options):
    source = folder if max_epochs is None else {"all": Source(path=folder, max_epochs=max_epochs)}
    dataset = TokenDataset.open(source, sequence_length=16, seed=3, columns=["ref_loss"])
    options = {"batch_size": 4, "select": TopShare(column="ref_loss", keep=0.5), "boundaries": ["cu_seqlens"], **options}
    return TokenLoader(dataset, **options)


def plain(batch):
    """Return a batch as bytes."""
    values = [getattr(batch, name) for name in FIELDS] + [batch.columns["ref_loss"]]
    return [None if value is None else np.asarray(value).tobytes() for value in values]


def take(batches, count):
    return [plain(batch) for batch in itertools.islice(batches, count)]


# ---- tensors ----


def test_tensors_equal_the_arrays(folder):
    everything = {"boundaries": ["cu_seqlens", "position_ids", "document_ids"]}
    arrays, tensors = next(loader_of(folder, **everything)), next(loader_of(folder, as_torch=True, **everything))
    for made in (tensors, to_torch(arrays)):
        kinds = {name: getattr(made, name).dtype for name in FIELDS}
        assert [name for name, kind in kinds.items() if kind == torch.int64] == [*FIELDS[:5], "position_ids"]
        assert kinds["loss_mask"] == torch.bool
        assert kinds["cu_seqlens"] == kinds["document_ids"] == torch.int32
        assert made.columns["ref_loss"].dtype == torch.float16
        for name in set(FIELDS) - {"labels"}:
            np.testing.assert_array_equal(getattr(made, name), getattr(arrays, name))
        np.testing.assert_array_equal(made.labels, np.where(arrays.loss_mask, arrays.labels.astype(np.int64), -100))
        np.testing.assert_array_equal(made.columns["ref_loss"], arrays.columns["ref_loss"])


def test_nothing_is_copied_that_fits():
    ids, mask, score = np.arange(6).reshape(2, 3), np.ones((2, 3), np.bool_), np.zeros((2, 3), np.float16)
    numbers = np.arange(2)
    numbers.flags.writeable = False
    made = to_torch(Batch(numbers, numbers, numbers, ids, ids, mask, {"s": score}))
    ids[1, 2], mask[0, 0], score[0, 1] = 77, False, 5.0
    assert made.input_ids[1, 2] == made.labels[1, 2] == 77
    assert not made.loss_mask[0, 0]
    assert made.columns["s"][0, 1] == 5
    made.samples[0] = 9  # read-only memory is copied: a tensor cannot say that it is
    assert numbers[0] == 0


def test_labels_of_weights():
    ids = np.array([[5, 6]], np.uint16)
    made = to_torch(Batch(ids[0], ids[0], ids[0], ids, ids, np.array([[0.0, 0.5]], np.float32), {}))
    assert made.labels.tolist() == [[-100, 6]]
    assert made.loss_mask.tolist() == [[0.0, 0.5]]


def test_batches_without_labels(folder):
    assert next(loader_of(folder, as_torch=True, labels=False)).labels is None


# ---- torch's DataLoader ----


@pytest.mark.parametrize(("workers", "as_torch"), [(0, False), (0, True), (2, True), (3, False)])
def test_order_is_the_loaders(folder, workers, as_torch):
    expected = take(loader_of(folder, as_torch=True), 40)
    tokens = TorchTokens(loader_of(folder, as_torch=as_torch))
    assert take(DataLoader(tokens, batch_size=None, num_workers=workers), 40) == expected


def test_order_in_a_spawned_worker(folder):
    """Nothing but a pickle reaches it: no memory map, no thread."""
    tokens = TorchTokens(loader_of(folder))
    next(tokens.loader)
    expected = take(loader_of(folder, as_torch=True), 15)[1:]
    worker = DataLoader(tokens, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert take(worker, 14) == expected


def test_persistent_workers_begin_at_the_state_again(folder):
    tokens = TorchTokens(loader_of(folder))
    next(tokens.loader)  # with its thread running when the workers are forked
    expected = take(loader_of(folder, as_torch=True), 20)[1:]
    workers = DataLoader(tokens, batch_size=None, num_workers=2, persistent_workers=True)
    for _ in range(2):
        assert take(workers, 19) == expected


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_end_is_the_same_end(folder, workers):
    limited = loader_of(folder, max_epochs=1.5, as_torch=True)
    expected = take(limited, None)
    assert len(expected) == limited.dataset.total // 4
    tokens = TorchTokens(loader_of(folder, max_epochs=1.5))
    assert take(DataLoader(tokens, batch_size=None, num_workers=workers), None) == expected


def test_ranks_in_workers_share_the_batch(folder):
    """A selection over the whole batch, of which each rank's workers make their rows."""
    whole = list(itertools.islice(loader_of(folder, as_torch=True), 5))
    parts = []
    for rank in range(2):
        tokens = TorchTokens(loader_of(folder, rank=rank, world_size=2))
        parts.append(list(itertools.islice(DataLoader(tokens, batch_size=None, num_workers=2 - rank), 5)))
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch.labels, torch.cat([first.labels, second.labels]))
        assert torch.equal(batch.loss_mask, torch.cat([first.loss_mask, second.loss_mask]))


# ---- resuming ----


def test_state_without_workers_is_exact(folder):
    tokens = TorchTokens(loader_of(folder))
    expected = take(loader_of(folder, as_torch=True), 12)
    batches = iter(DataLoader(tokens, batch_size=None))
    for step in range(8):
        again = TorchTokens(loader_of(folder))
        again.load_state_dict(json.loads(json.dumps(tokens.state_dict())))
        assert take(DataLoader(again, batch_size=None), 3) == expected[step : step + 3]
        assert plain(next(batches)) == expected[step]


@pytest.mark.parametrize(("before", "after"), [(0, 2), (3, 0)])
def test_state_after_a_batch_resumes_with_any_workers(folder, before, after):
    """The workers are several batches ahead; the last of two ranks goes on as the only one."""
    tokens = TorchTokens(loader_of(folder, rank=1, world_size=2))
    seen = list(itertools.islice(DataLoader(tokens, batch_size=None, num_workers=before), 7))
    state = tokens.state_after(seen[-1])
    straight = loader_of(folder, as_torch=True)
    expected = take(straight, 7) and straight.state_dict()
    assert state == expected
    again = TorchTokens(loader_of(folder, batch_size=6))
    again.load_state_dict(state)
    rows = [batch.samples for batch in itertools.islice(DataLoader(again, batch_size=None, num_workers=after), 5)]
    assert torch.cat(rows).tolist() == list(range(28, 28 + 30))


def test_a_state_of_another_order_is_refused(folder):
    state = loader_of(folder).state_dict() | {"seed": 4}
    with pytest.raises(ValueError, match=r"other seed \(4, here 3\)"):
        TorchTokens(loader_of(folder)).load_state_dict(state)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize(("stop", "workers", "as_torch"), [(0, 0, True), (5, 0, False), (0, 2, False), (5, 3, True)])
def test_stateful_data_loader(folder, workers, stop, as_torch):
    """torchdata's loader saves each worker's place by itself."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def make():
        tokens = TorchTokens(loader_of(folder, as_torch=as_torch))
        next(tokens.loader)  # not from the beginning
        return stateful.StatefulDataLoader(tokens, batch_size=None, num_workers=workers)

    expected = take(loader_of(folder, as_torch=True), 20)[1:]
    loader = make()
    assert take(loader, stop) == expected[:stop]
    again = make()
    again.load_state_dict(loader.state_dict())
    assert take(again, 19 - stop) == expected[stop:]


# ---- iterating again, and states of other shapes ----


@pytest.fixture
def impatient(monkeypatch):
    """Workers of torchdata that refused a state are killed soon: they do not end by themselves, and each is waited for, 5 s."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    yield
    gc.collect()  # the exception holds what waits for them


@pytest.mark.parametrize(("workers", "as_torch"), [(0, False), (0, True), (2, False)])
def test_every_pass_begins_where_the_loader_was_put(folder, workers, as_torch):
    """After a part of a pass and after a whole one; from the beginning, from a state, from where `seek` went."""
    straight = take(loader_of(folder, max_epochs=1.5, as_torch=True), None)
    tokens = TorchTokens(loader_of(folder, max_epochs=1.5, as_torch=as_torch))
    batches = DataLoader(tokens, batch_size=None, num_workers=workers)
    for count in (3, None, 3):
        assert take(batches, count) == straight[:count]
    state = {"sample": 12, **tokens.loader.dataset.fingerprint(12)}
    take(tokens, 3)  # the state is where this part of a pass ends, and is a place to begin at all the same
    tokens.load_state_dict(state)
    for _ in range(2):
        assert take(batches, None) == straight[3:]
    tokens.loader.seek(8)
    assert take(batches, 2) == straight[2:4]


def test_passes_with_workers_and_without_in_turn(folder):
    """Of one dataset: a pass leaves no trace on where the next begins, whoever makes it."""
    straight = take(loader_of(folder, max_epochs=1.5, as_torch=True), None)
    tokens = TorchTokens(loader_of(folder, max_epochs=1.5))
    for workers, count in ((0, None), (2, None), (0, 3), (2, None), (0, None)):
        assert take(DataLoader(tokens, batch_size=None, num_workers=workers), count) == straight[:count]


def test_passes_side_by_side(folder):
    """Each goes its own way, as with workers."""
    straight = take(loader_of(folder, as_torch=True), 6)
    one = iter(TorchTokens(loader_of(folder)))
    assert take(one, 2) == straight[:2]
    tokens = TorchTokens(loader_of(folder))
    one, other = iter(tokens), iter(tokens)
    assert [take(one, 2), take(other, 1), take(one, 2), take(other, 3)] == [
        straight[:2],
        straight[:1],
        straight[2:4],
        straight[1:4],
    ]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_workers_refuse_a_state_of_another_batch_size(folder, impatient):
    """A worker's state tells where its own next batch begins, and nothing of the others'."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def make(size):
        return stateful.StatefulDataLoader(TorchTokens(loader_of(folder, batch_size=size)), batch_size=None, num_workers=2)

    before = make(4)
    assert len(take(before, 3)) == 3
    for size in (2, 8):
        after = make(size)
        after.load_state_dict(before.state_dict())
        with pytest.raises(ValueError, match=f"saved with batch_size 4, here it is {size}: samples would be"):
            next(iter(after))


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_without_workers_another_batch_size_goes_on_exactly(folder):
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    before, after = (
        stateful.StatefulDataLoader(TorchTokens(loader_of(folder, batch_size=size)), batch_size=None) for size in (4, 6)
    )
    seen = [batch.samples for batch in itertools.islice(before, 3)]
    after.load_state_dict(before.state_dict())
    seen += [batch.samples for batch in itertools.islice(after, 3)]
    assert torch.cat(seen).tolist() == list(range(30))
