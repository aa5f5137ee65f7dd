"""The reader against a slow transcription: every token once an epoch, one order for every world, exact resume."""

from __future__ import annotations

import itertools
import math
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill import FormatError, Threshold, TokenDataset, TopShare
from gristmill.format import read_row
from gristmill.order import permute
from stages.sink.documents import Documents
from stages.sink.shards import Shards
from tests.gristmill.builds import EOS, documents, folder_of, publish

LENGTH = 16


def corpus(sizes: list[list[int]]) -> list[list[list[int]]]:
    """Return shards of documents whose tokens are all distinct, counted from 2; each ends with its own last number, not eos."""
    numbers = itertools.count(2)
    return [[[next(numbers) for _ in range(size)] for size in shard] for shard in sizes]


def scores_of(ids: list[list[int]]) -> list[list[float]]:
    """Return a score a token, NaN for the first of a document: a few values that float16 holds exactly, with many ties."""
    return [[math.nan if place == 0 else token * 7 % 11 / 4 for place, token in enumerate(row)] for row in ids]


def build(output: Path, shards: list[list[list[int]]], *, tokens_per_shard: int = 50, batch_tokens: int = 20, **options) -> Path:
    """Publish documents with scores `excess` and `ref_loss` in shards of several files of several record batches."""
    tables = []
    for number, ids in enumerate(shards):
        scores = {"excess": scores_of(ids), "ref_loss": [[1.5] * len(row) for row in ids]}
        tables.append([documents(ids, file=f"crawl-{number}", scores=scores, vocab_size=60_000, **options)])
    sink = Shards(tokens_per_shard=tokens_per_shard)
    return folder_of(publish(tables, output, sink=sink, batch_tokens=batch_tokens), output)


class Slow:
    """What the dataset promises, in plain Python."""

    def __init__(self, shards: list[list[list[int]]], length: int, seed: int) -> None:
        rows = [row for ids in shards for row in ids]
        self.tokens = [token for row in rows for token in row]
        self.starts = [place == 0 for row in rows for place, _ in enumerate(row)]
        self.scores = [score for row in scores_of(rows) for score in row]
        self.length, self.seed = length, seed
        self.count = math.ceil(len(self.tokens) / length)

    def window(self, stream: list, sequence: int, padding: object) -> list:
        found = stream[sequence * self.length : (sequence + 1) * self.length]
        return found + [padding] * (self.length - len(found))

    def sequence(self, sample: int) -> int:
        epoch, place = divmod(sample, self.count)
        return int(permute(place, self.count, (self.seed, epoch)))

    def check(self, batch, samples: list[int]) -> None:
        sequences = [self.sequence(sample) for sample in samples]
        assert batch.samples.tolist() == samples
        assert batch.sequences.tolist() == sequences
        assert batch.input_ids.tolist() == [self.window(self.tokens, s, EOS) for s in sequences]
        if "starts" in batch.columns:
            assert batch.columns["starts"].tolist() == [self.window(self.starts, s, False) for s in sequences]
        valid = [[token is not None for token in self.window(self.tokens, s, None)] for s in sequences]
        assert batch.loss_mask.tolist() == valid
        if "excess" in batch.columns:
            expected = np.array([self.window(self.scores, s, math.nan) for s in sequences], np.float16)
            np.testing.assert_array_equal(batch.columns["excess"], expected)


@pytest.fixture(scope="module")
def shards():
    random = np.random.default_rng(5)
    sizes = [[int(s) for s in random.integers(0, 40, rows)] for rows in (30, 1, 20, 7)]
    sizes[1] = [130]  # longer than a file and than many sequences
    return corpus(sizes)


@pytest.fixture(scope="module")
def folder(shards, tmp_path_factory):
    return build(tmp_path_factory.mktemp("build"), shards)


sizes_of_shards = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8), min_size=1, max_size=4).filter(
    lambda shards: sum(map(sum, shards)) > 0
)


@given(sizes_of_shards, st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_token_exactly_once_an_epoch(tmp_path_factory, sizes, length, per_shard, per_batch, seed):
    """Any documents, any files, any record batches: an epoch is the corpus, token by token, and equals the transcription."""
    shards = corpus(sizes)
    tokens = [token for ids in shards for row in ids for token in row]
    length = min(length, len(tokens))
    folder = build(tmp_path_factory.mktemp("any"), shards, tokens_per_shard=per_shard, batch_tokens=per_batch)
    dataset = TokenDataset.open(folder, sequence_length=length, seed=seed, columns=["excess", "starts"])
    slow = Slow(shards, length, seed)
    assert len(dataset) == slow.count
    for epoch in range(2):
        batch = dataset.batch(epoch, len(dataset))
        slow.check(batch, list(range(epoch * len(dataset), (epoch + 1) * len(dataset))))
        assert sorted(batch.input_ids[batch.loss_mask].tolist()) == tokens


def test_the_build_has_all_kinds_of_borders(folder):
    """Or the tests below would not cross them."""
    stream = TokenDataset.open(folder, sequence_length=LENGTH).stream
    assert len(stream.manifest.shards) > 10
    batches = [len(stream._column(shard, "input_ids").values) for shard in range(len(stream.manifest.shards))]
    assert max(batches) > 1
    assert any(shard.tokens > 100 for shard in stream.manifest.shards)


def test_sample_is_a_pure_function(folder, shards):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, seed=3)
    slow = Slow(shards, LENGTH, 3)
    for sample in [5, 0, 3 * len(dataset) + 1, 5, 10**9]:
        slow.check(dataset.sample(sample), [sample])


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
def test_world_sizes_share_one_order(folder, shards, world_size):
    """The ranks' rows, put together, are the global batch: tokens and masks, across two epochs."""
    select = TopShare(keep=0.6, scope="batch")
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, seed=1)
    whole = dataset.batches(24, select=select)
    ranks = [
        TokenDataset.open(folder, sequence_length=LENGTH, seed=1).batches(24, select=select, rank=r, world_size=world_size)
        for r in range(world_size)
    ]
    for _ in range(2 * len(dataset) // 24 + 1):
        expected, parts = next(whole), [next(rank) for rank in ranks]
        for name in ("samples", "sequences", "input_ids", "loss_mask"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            assert np.array_equal(joined, getattr(expected, name)), name


@given(st.integers(0, 40), st.sampled_from([1, 2, 3, 6]), st.sampled_from([6, 12, 18]), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_resume_at_any_step(folder, shards, steps, world_size, batch_size, more):
    """A state saved after any step goes on in a fresh process's dataset, with other ranks and another batch size."""
    first = TokenDataset.open(folder, sequence_length=LENGTH, seed=9).batches(6)
    for _ in range(steps):
        next(first)
    state = pickle.loads(pickle.dumps(first.state_dict()))
    assert state == {"sample": 6 * steps}
    fresh = TokenDataset.open(folder, sequence_length=LENGTH, seed=9, verify=False)
    ranks = [fresh.batches(batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    for rank in ranks:
        rank.load_state_dict(state)
    seen = [number for _ in range(more) for rank in ranks for number in next(rank).samples.tolist()]
    assert seen == list(range(6 * steps, 6 * steps + more * batch_size))
    assert np.array_equal(next(fresh.batches(6, state=state["sample"])).input_ids, next(first).input_ids)


def test_orders_differ_between_seeds_and_epochs(folder):
    a, b = (TokenDataset.open(folder, sequence_length=LENGTH, seed=seed) for seed in (0, 1))
    epochs = [d.sequence_numbers(np.arange(e * len(a), (e + 1) * len(a))) for d in (a, b) for e in (0, 1)]
    for left, right in itertools.combinations(epochs, 2):
        assert np.count_nonzero(left == right) < len(a) / 2
        assert sorted(left) == sorted(right)


def test_sequence_numbers_across_blocks_and_epochs(tmp_path):
    """More sequences than are permuted at once, and a batch that spans three blocks and two epochs."""
    folder = build(tmp_path, corpus([[5000]]), tokens_per_shard=10**6, batch_tokens=10**6)
    dataset = TokenDataset.open(folder, sequence_length=1, seed=4)
    assert len(dataset) == 5000
    numbers = np.random.default_rng(0).permutation(np.arange(3000, 12_000))
    expected = [int(permute(n % 5000, 5000, (4, n // 5000))) for n in numbers.tolist()]
    assert dataset.sequence_numbers(numbers).tolist() == expected


@pytest.mark.parametrize("scope", ["batch", "sequence"])
def test_selection_equals_sorting_the_scores(folder, shards, scope):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, seed=2, columns=["excess"])
    for batch in itertools.islice(dataset.batches(4, select=TopShare(keep=0.3, scope=scope)), 30):
        groups = [slice(None)] if scope == "batch" else [slice(row, row + 1) for row in range(4)]
        for rows in groups:
            scores, mask = batch.columns["excess"][rows].ravel().tolist(), batch.loss_mask[rows].ravel().tolist()
            known = sorted((place for place, s in enumerate(scores) if not math.isnan(s)), key=lambda p: -scores[p])
            chosen = set(known[: math.floor(len(known) * 3 / 10 + 0.5)])
            assert mask == [place in chosen for place in range(len(scores))]


def test_missing_scores_are_only_the_first_tokens_of_documents(folder):
    """`missing="keep"` adds exactly the tokens that begin a document, and never padding."""
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, columns=["starts"])
    drop, keep = (dataset.batch(0, len(dataset), select=Threshold(low=-100, missing=m)) for m in ("drop", "keep"))
    plain = dataset.batch(0, len(dataset))
    assert np.array_equal(keep.loss_mask, plain.loss_mask)
    assert np.array_equal(keep.loss_mask & ~drop.loss_mask, plain.columns["starts"])


def test_columns_by_scheme(tmp_path):
    ids = [[2, 3, 4], [5, 6]]
    scores = {"excess": scores_of(ids), "eslm_excess": [[2.0] * len(row) for row in ids]}
    table = documents(ids, scores=scores, schemes={"excess": "rho1", "eslm_excess": "eslm"})
    folder = folder_of(publish([[table]], tmp_path), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "scores-eslm-00000.arrow",
        "scores-rho1-00000.arrow",
        "tokens-00000.arrow",
    ]
    dataset = TokenDataset.open(folder, sequence_length=5, columns=["rho1.excess", "eslm_excess"])
    batch = dataset.sample(0)
    assert batch.columns["eslm_excess"].tolist() == [[2.0] * 5]
    assert np.isnan(batch.columns["rho1.excess"][0]).tolist() == [True, False, False, True, False]
    with pytest.raises(ValueError, match=r"column 'loss' is not in every shard; there are: eslm.eslm_excess, rho1.excess"):
        TokenDataset.open(folder, sequence_length=5, columns=["loss"])
    with pytest.raises(ValueError, match="column 'loss' is not in every shard"):
        dataset.batch(0, 1, select=TopShare(column="loss"))


def test_types_of_ids(tmp_path):
    ids = [[2, 70_000, 3]]
    wide = folder_of(publish([[documents(ids, kind=pa.uint32(), vocab_size=80_000)]], tmp_path), tmp_path)
    for dtype, expected in ((None, np.uint32), (np.int64, np.int64), ("uint32", np.uint32)):
        batch = TokenDataset.open(wide, sequence_length=2, dtype=dtype).batch(0, 2)
        assert batch.input_ids.dtype == expected
        assert sorted(batch.input_ids.ravel().tolist()) == [EOS, 2, 3, 70_000]
    for dtype in ("int32", "uint16", "float64"):
        with pytest.raises(ValueError, match=rf"dtype {dtype} cannot hold the ids stored as uint32"):
            TokenDataset.open(wide, sequence_length=2, dtype=dtype)


def test_every_token_leads_back_to_its_record(folder, shards):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, seed=8)
    origin = {
        token: (f"crawl-{number}", row, place)
        for number, ids in enumerate(shards)
        for row, document in enumerate(ids)
        for place, token in enumerate(document)
    }
    batch = dataset.batch(0, 8)
    for row, sequence in enumerate(batch.sequences.tolist()):
        for position in range(LENGTH):
            token = int(batch.input_ids[row, position])
            if batch.loss_mask[row, position]:
                address = dataset.locate(sequence, position)
                stored = read_row(folder / address.file, address.row)
                assert stored["input_ids"][address.position] == token
                assert (stored["file"], stored["offset"], address.position) == origin[token]
    for sequence, position in ((0, LENGTH), (0, -1), (-1, 0), (len(dataset) - 1, LENGTH - 1)):
        with pytest.raises(IndexError):
            dataset.locate(sequence, position)


def test_pickles_without_the_data(folder):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, seed=6, columns=["excess"], dtype="int64")
    expected = dataset.batch(0, 4)
    data = pickle.dumps(dataset)
    assert len(data) < 20_000
    found = pickle.loads(data).batch(0, 4)
    assert np.array_equal(found.input_ids, expected.input_ids) and found.input_ids.dtype == np.int64
    np.testing.assert_array_equal(found.columns["excess"], expected.columns["excess"])


# ---- what cannot be read ----


@pytest.fixture
def fresh(tmp_path, shards):
    return build(tmp_path, shards)


@pytest.mark.parametrize("kind", ["tokens", "scores-rho1"])
def test_one_flipped_bit_is_found(fresh, kind):
    path = fresh / f"{kind}-00003.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # the store holds the same file by a hard link
    path.write_bytes(content)
    with pytest.raises(
        FormatError, match=rf"{kind}-00003.arrow: sha256 is [0-9a-f]{{64}}, the manifest says .* damaged, copy it again"
    ):
        TokenDataset.open(fresh, sequence_length=LENGTH)
    assert len(TokenDataset.open(fresh, sequence_length=LENGTH, verify=False)) > 0, "verification was asked off"


@pytest.mark.parametrize("verify", [True, False])
def test_missing_and_cut_files_are_found(fresh, verify):
    path = fresh / "tokens-00002.arrow"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(FormatError, match=r"tokens-00002.arrow: missing; the manifest names \d+ files"):
        TokenDataset.open(fresh, verify=verify)
    path.write_bytes(content[:-1])
    with pytest.raises(FormatError, match=rf"tokens-00002.arrow: has {len(content) - 1} bytes, the manifest says {len(content)}"):
        TokenDataset.open(fresh, verify=verify)


def test_shards_must_agree_with_the_manifest(fresh):
    """Two shards changed places, with hashes left unchecked: counts are compared when a file is opened."""
    sizes = {path: path.stat().st_size for path in sorted(fresh.glob("tokens-*.arrow"))}
    a, b = next((a, b) for a, b in itertools.combinations(sizes, 2) if sizes[a] == sizes[b])
    swap = a.read_bytes(), b.read_bytes()
    for path, content in ((a, swap[1]), (b, swap[0])):
        path.unlink()
        path.write_bytes(content)
    dataset = TokenDataset.open(fresh, sequence_length=LENGTH, verify=False)
    with pytest.raises(FormatError, match=r"input_ids has \d+ tokens in \d+ documents, the manifest says"):
        dataset.batch(0, len(dataset))


def test_sequences_longer_than_the_data(folder, shards):
    total = sum(len(row) for ids in shards for row in ids)
    assert len(TokenDataset.open(folder, sequence_length=total)) == 1
    with pytest.raises(ValueError, match=rf"sequence_length is {total + 1}, but all shards together have {total} tokens"):
        TokenDataset.open(folder, sequence_length=total + 1)


def test_builds_without_tokens(tmp_path):
    empty = folder_of(publish([[]], tmp_path / "a"), tmp_path / "a")
    with pytest.raises(FormatError, match="the build has no tokens"):
        TokenDataset.open(empty)
    texts = folder_of(publish([[documents([[2, 3]])]], tmp_path / "b", sink=Documents()), tmp_path / "b")
    with pytest.raises(
        FormatError, match=r"a build of kind 'documents'; only 'tokens' can be read \(end the build with `shards`\)"
    ):
        TokenDataset.open(texts)


def test_output_folder_means_its_newest_run(tmp_path):
    for run, ids in (("0001", [[2, 3]]), ("0002", [[4, 5]])):
        publish([[documents(ids)]], tmp_path, run=run)
    publish([[documents([[6, 7]])]], tmp_path, run="0003", sink=Documents())
    assert TokenDataset.open(tmp_path, sequence_length=2).sample(0).input_ids.tolist() == [[4, 5]], "the newest of tokens"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.sample(-1), "sample number -1 is negative"),
        (lambda d: d.batches(4, state=-1), "state is sample -1; samples are numbered from 0"),
        (lambda d: d.batches(4, world_size=3), "batch_size is 4 .* must be a multiple of world_size, 3"),
        (lambda d: d.batches(0), "batch_size is 0"),
        (lambda d: d.batch(0, 4, rank=2, world_size=2), "rank is 2 of world_size 2; rank must be from 0 to"),
        (lambda d: TokenDataset.open(d.stream.root, sequence_length=0), "sequence_length is 0; it must be at least 1"),
    ],
)
def test_mistakes_in_arguments(folder, call, message):
    with pytest.raises(ValueError, match=message):
        call(TokenDataset.open(folder, sequence_length=LENGTH))
