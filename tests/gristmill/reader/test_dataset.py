"""Builds opened for training: single samples, columns, types, the way back to a record, and what cannot be read."""

from __future__ import annotations

import itertools
import json
import pickle

import numpy as np
import pyarrow as pa
import pytest

from gristmill import BestFit, Blocks, FormatError, Source, TokenDataset, TokenLoader, TopShare
from gristmill.format.column import read_row
from gristmill.format.manifest import NAME
from gristmill.format.sidecar_writer import write_sidecar
from gristmill.reader.stream import OPEN_MAPS
from stages.sink.documents import Documents
from tests.gristmill.builds import EOS, documents, folder_of, publish
from tests.gristmill.slow import Slow, build, corpus, scores_of, some_sizes

LENGTH = 16


@pytest.fixture(scope="module")
def shards():
    return corpus(some_sizes(5))


@pytest.fixture(scope="module")
def folder(shards, tmp_path_factory):
    return build(tmp_path_factory.mktemp("build"), shards)


def test_the_build_has_all_kinds_of_borders(folder):
    """Or these tests would not cross them."""
    stream = TokenDataset.open(folder, sequence_length=LENGTH)._streams["source"]
    assert len(stream.manifest.shards) > 10
    extents = [len(stream._column("input_ids").column(shard).extents) for shard in range(len(stream.manifest.shards))]
    assert max(extents) > 1
    assert any(shard.tokens > 100 for shard in stream.manifest.shards)


@pytest.mark.parametrize("shuffle", ["global", Blocks(sequences=3, open=2), "none"])
def test_a_sample_is_a_pure_function(folder, shards, shuffle):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, seed=3, shuffle=shuffle, columns=["excess"])
    loader = TokenLoader(dataset, 1, prefetch=0)
    slow = Slow(shards, dataset)
    for number in [5, 0, 3 * len(dataset) + 1, 5, 10**9]:
        batch, sample = loader.batch(number), dataset[number]
        slow.check_row(batch, 0, number)
        for name in ("input_ids", "labels", "loss_mask"):
            assert np.array_equal(sample[name], getattr(batch, name)[0])
        np.testing.assert_array_equal(sample["excess"], batch.columns["excess"][0])
    for number in (-1, -(10**9)):
        with pytest.raises(IndexError, match="numbered from 0 without end"):
            dataset[number]


def test_iterating_ends_with_the_epoch(folder):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH)
    assert len(list(dataset)) == len(dataset)
    limited = TokenDataset.open({"a": Source(path=folder, max_epochs=0.5)}, sequence_length=LENGTH)
    assert len(list(limited)) == limited.total == len(dataset) // 2


def test_many_sources_share_the_memory_maps(folder):
    """However many builds and columns are read together, the system's bound on maps is not passed."""
    alone = TokenDataset.open(folder, sequence_length=LENGTH)._streams["source"]
    mixed = TokenDataset.open({str(n): Source(path=folder) for n in range(20)}, sequence_length=LENGTH)
    columns = 1 + len(alone._schemes)
    assert sum(stream.capacity * columns for stream in mixed._streams.values()) <= OPEN_MAPS
    assert alone.capacity * columns <= OPEN_MAPS < 65_530


def test_orders_differ_between_seeds_and_epochs(folder):
    a, b = (TokenDataset.open(folder, sequence_length=LENGTH, seed=seed) for seed in (0, 1))
    epochs = [d.draw(e * len(a), len(a)).sequences for d in (a, b) for e in (0, 1)]
    for left, right in itertools.combinations(epochs, 2):
        assert np.count_nonzero(left == right) < len(a) / 2
        assert sorted(left) == sorted(right)


def test_more_shards_than_may_be_open(folder, shards, monkeypatch):
    """Maps are closed and opened again; what is read stays the same."""
    monkeypatch.setattr("gristmill.reader.stream.OPEN_SHARDS", 2)
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, columns=["excess"])
    slow = Slow(shards, dataset)
    batch = TokenLoader(dataset, len(dataset), boundaries=["document_ids"], prefetch=0).batch(0)
    for row in range(len(dataset)):
        slow.check_row(batch, row, row, within=True)
    assert len(dataset._streams["source"]._held) <= 4, "two shards of each of two columns"


def test_columns_by_scheme(tmp_path):
    ids = [[2, 3, 4], [5, 6]]
    scores = {"excess": scores_of(ids), "eslm_excess": [[2.0] * len(row) for row in ids]}
    table = documents(ids, scores=scores, schemes={"excess": "rho1", "eslm_excess": "eslm"})
    folder = folder_of(publish([[table]], tmp_path), tmp_path)
    dataset = TokenDataset.open(folder, sequence_length=4, columns=["rho1.excess", "eslm_excess"])
    sample = dataset[0] if dataset.draw(0, 1).sequences[0] == 0 else dataset[1]
    assert sample["eslm_excess"].tolist() == [2.0] * 4
    assert np.isnan(sample["rho1.excess"]).tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match=r"column 'loss' is not in every shard; there are: eslm.eslm_excess, rho1.excess"):
        TokenDataset.open(folder, sequence_length=4, columns=["loss"])


def test_columns_that_were_added_later(folder, shards, tmp_path):
    """A sidecar of a finished build is there the next time it is opened; the order and the tokens stay as they were."""
    own = build(tmp_path, shards)
    before = TokenDataset.open(own, sequence_length=LENGTH, seed=1)
    state = TokenLoader(before, 4).state_dict()

    def score(ids, bounds):
        firsts = np.isin(np.arange(len(ids)), bounds)
        return {"mask": (ids % 3 == 0) & ~firsts, "loss": np.where(firsts, np.nan, ids).astype(np.float32)}

    write_sidecar(own, "later", {"mask": "bool", "loss": "float32"}, score)
    dataset = TokenDataset.open(own, sequence_length=LENGTH, seed=1, columns=["later.mask", "loss", "excess"])
    loader = TokenLoader(dataset, 4, prefetch=0)
    loader.load_state_dict(state)
    batch = next(loader)
    assert np.array_equal(batch.input_ids, TokenLoader(before, 4, prefetch=0).batch(0).input_ids)
    loss, mask = batch.columns["loss"], batch.columns["later.mask"]
    assert loss.dtype == np.float32 and mask.dtype == np.bool_
    inside = TokenLoader(dataset, 4, within_documents=True, prefetch=0).batch(0).loss_mask
    assert np.array_equal(loss[inside], batch.labels[inside]) and np.isnan(loss[batch.loss_mask & ~inside]).all()
    assert np.array_equal(mask[inside], batch.labels[inside] % 3 == 0) and not mask[~inside].any()


def test_types_of_ids(tmp_path):
    ids = [[2, 70_000, 3]]
    wide = folder_of(publish([[documents(ids, kind=pa.uint32(), vocab_size=80_000)]], tmp_path), tmp_path)
    for dtype, expected in ((None, np.uint32), (np.int64, np.int64), ("uint32", np.uint32)):
        batch = TokenLoader(TokenDataset.open(wide, sequence_length=2, dtype=dtype), 2, prefetch=0).batch(0)
        assert batch.input_ids.dtype == expected
        assert sorted(batch.input_ids.ravel().tolist()) == [EOS, 2, 3, 70_000]
    for dtype in ("int32", "uint16", "float64"):
        with pytest.raises(ValueError, match=rf"dtype {dtype} cannot hold the ids stored as uint32"):
            TokenDataset.open(wide, sequence_length=2, dtype=dtype)


@pytest.mark.parametrize("packing", ["concat", BestFit(window=10)])
def test_every_token_leads_back_to_its_record(folder, shards, packing):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, seed=8, packing=packing)
    origin = {
        token: (f"crawl-{number}", row, place)
        for number, ids in enumerate(shards)
        for row, document in enumerate(ids)
        for place, token in enumerate(document)
    }
    slow = Slow(shards, dataset)
    found = padded = 0
    for sample in range(0, len(dataset), 3):
        sequence, ids = slow.sequence(sample), dataset[sample]["input_ids"].tolist()
        for position, at in enumerate(slow.addresses(sequence)):
            if at is None:
                padded += 1
                with pytest.raises(IndexError):
                    dataset.locate(sequence, position)
                continue
            address = dataset.locate(sequence, position)
            stored = read_row(folder / address.file, address.row)
            assert stored["input_ids"][address.position] == ids[position]
            assert (stored["file"], stored["offset"], address.position) == origin[ids[position]]
            found += 1
    assert found > 100 and (padded or packing == "concat")
    for sequence, position in ((0, LENGTH), (0, -1), (-1, 0), (len(dataset), 0)):
        with pytest.raises(IndexError, match=f"no position {position} of sequence {sequence}"):
            dataset.locate(sequence, position)


def test_pickles_without_the_data(folder):
    options = {"sequence_length": LENGTH, "seed": 6, "columns": ["excess"], "dtype": "int64", "packing": BestFit(window=5)}
    dataset = TokenDataset.open(folder, **options)
    expected = TokenLoader(dataset, 4, prefetch=0).batch(0)
    data = pickle.dumps(dataset)
    assert len(data) < 30_000
    found = TokenLoader(pickle.loads(data), 4, prefetch=0).batch(0)
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
    with pytest.raises(FormatError, match=rf"{kind}-00003.arrow: .*sha256 .*[0-9a-f]{{64}}.*[0-9a-f]{{64}}"):
        TokenDataset.open(fresh, sequence_length=LENGTH, verify=True)
    assert len(TokenDataset.open(fresh, sequence_length=LENGTH)) > 0, "verification was not asked for"


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
    dataset = TokenDataset.open(fresh, sequence_length=LENGTH)
    with pytest.raises(FormatError, match=r"input_ids has \d+ tokens in \d+ documents, the manifest says"):
        TokenLoader(dataset, len(dataset), prefetch=0).batch(0)


def test_another_version_of_the_format(fresh):
    content = json.loads((fresh / NAME).read_text())
    (fresh / NAME).write_text(json.dumps(content | {"version": 7}))
    with pytest.raises(FormatError, match=rf"{NAME}: format version is 7; this gristmill reads 1"):
        TokenDataset.open(fresh)


def test_sequences_longer_than_the_data(folder, shards):
    total = sum(len(row) for ids in shards for row in ids)
    assert len(TokenDataset.open(folder, sequence_length=total)) == 1
    with pytest.raises(ValueError, match=rf"sequence_length is {total + 1}, but all shards together have {total} tokens"):
        TokenDataset.open(folder, sequence_length=total + 1)
    with pytest.raises(ValueError, match="sequence_length is 0; it must be at least 1"):
        TokenDataset.open(folder, sequence_length=0)


def test_builds_without_tokens(tmp_path):
    empty = folder_of(publish([[]], tmp_path / "a"), tmp_path / "a")
    with pytest.raises(FormatError, match="the build has no tokens"):
        TokenDataset.open(empty)
    texts = folder_of(publish([[documents([[2, 3]])]], tmp_path / "b", sink=Documents()), tmp_path / "b")
    with pytest.raises(
        FormatError, match=r"a build of kind 'documents'; only 'tokens' can be read here \(end the build with `shards`\)"
    ):
        TokenDataset.open(texts)


def test_sources_must_fit_together(folder, tmp_path):
    other = folder_of(publish([[documents([list(range(2, 60))], tokenizer="cd" * 32)]], tmp_path), tmp_path)
    sources = {"web": Source(path=folder), "code": Source(path=other)}
    with pytest.raises(FormatError, match=r"different tokenizers \(web: abab.*, code: cdcd.*\); encode them with one"):
        TokenDataset.open(sources, sequence_length=LENGTH)
    with pytest.raises(ValueError, match="there are no sources to mix; give at least one"):
        TokenDataset.open({})
    with pytest.raises(ValueError, match=r"column 'excess' is not in every shard; there are: none; the build has no scores"):
        TokenLoader(TokenDataset.open(other, sequence_length=LENGTH), 1, select=TopShare())


def test_output_folder_means_its_newest_run(tmp_path):
    for run, ids in (("0001", [[2, 3]]), ("0002", [[4, 5]])):
        publish([[documents(ids)]], tmp_path, run=run)
    publish([[documents([[6, 7]])]], tmp_path, run="0003", sink=Documents())
    assert TokenDataset.open(tmp_path, sequence_length=2)[0]["input_ids"].tolist() == [4, 5], "the newest of tokens"
