"""Sequences from documents: every token once, plans that are packed once, kept, shared and repaired."""

from __future__ import annotations

import multiprocessing
import pickle
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.reader.bestfit import plan
from gristmill.reader.packing import BestFit, BestFitPacking, Concatenated
from tests.gristmill.reader.other_process import Lengths, packed


def rows_of(packing, sequences):
    """The pieces of sequences as lists of (begin, length)."""
    begins, lengths, bounds = packing.pieces(np.asarray(sequences, dtype=np.int64))
    assert begins.dtype == lengths.dtype == bounds.dtype == np.int64
    pieces = list(zip(begins.tolist(), lengths.tolist(), strict=True))
    assert bounds[0] == 0 and bounds[-1] == len(pieces)
    return [pieces[begin:end] for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]


def everything(packing):
    """All rows of a packing."""
    return rows_of(packing, np.arange(packing.count))


@given(st.integers(1, 500), st.integers(1, 60), st.lists(st.integers(0, 10**9), max_size=8))
def test_concatenated_rows_have_every_token_once(tokens, length, choice):
    packing = Concatenated(tokens, length)
    rows = everything(packing)
    assert all(len(row) == 1 and row[0][1] == length for row in rows[:-1])
    assert [token for ((begin, size),) in rows for token in range(begin, begin + size)] == [*range(tokens)]
    assert packing.padding == packing.count * length - tokens
    sequences = [number % packing.count for number in choice]
    assert rows_of(packing, sequences) == [rows[number] for number in sequences]


@st.composite
def streams(draw):
    """Shards of documents of every kind, some shards empty; a row's length, a window."""
    length = draw(st.integers(1, 16))
    special = st.sampled_from([0, 1, length - 1, length, length + 1, 2 * length, 3 * length + 1, 40 * length + 5])
    shards = draw(st.lists(st.lists(st.one_of(st.integers(0, length), special), max_size=20), min_size=1, max_size=6))
    return Lengths(shards), length, draw(st.integers(1, 20))


@given(streams(), st.integers(1, 30), st.lists(st.integers(0, 10**9), max_size=8))
def test_best_fit_rows_have_every_token_once_and_cut_nothing_that_fits(tmp_path_factory, example, run, choice):
    stream, length, window = example
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "RUN_DOCUMENTS", run)
        packing = BestFitPacking(stream, length, window, tmp_path_factory.mktemp("plans"))
    rows = everything(packing)
    assert all(0 < sum(size for _, size in row) <= length for row in rows)
    documents = [size for shard in stream.shards for size in shard]
    begins = np.cumsum([0, *documents]).tolist()
    expected = []
    for begin, size in zip(begins, documents, strict=False):
        expected += [(begin + place, min(length, size - place)) for place in range(0, size, length)]
    assert sorted(piece for row in rows for piece in row) == expected
    assert rows == sorted(rows) and all(row == sorted(row) for row in rows)
    for number, (first, end) in enumerate(zip(packing.shard_bounds[:-1], packing.shard_bounds[1:], strict=True)):
        tokens = range(stream.first_token(number), stream.first_token(number + 1))
        assert all(begin in tokens for row in rows[first:end] for begin, _ in row)
    assert packing.padding == packing.count * length - sum(documents)
    assert packing.padding_share == (packing.padding / (packing.count * length) if packing.count else 0)
    sequences = [number % packing.count for number in choice] if packing.count else []
    assert rows_of(packing, sequences) == [rows[number] for number in sequences]


def example(shards=7, documents=300, seed=5):
    """A stream of some size."""
    generator = np.random.default_rng(seed)
    return Lengths([generator.lognormal(3, 1, documents).astype(int).tolist() for _ in range(shards)])


def test_plans_are_packed_once(tmp_path):
    stream = example()
    rows = everything(BestFitPacking(stream, 64, 100, tmp_path))
    assert stream.asked == 7
    assert everything(BestFitPacking(stream, 64, 100, tmp_path)) == rows
    assert stream.asked == 7
    assert everything(BestFitPacking(stream, 64, 100, tmp_path / "other")) == rows
    assert stream.asked == 14


def test_plans_depend_on_length_and_window_and_only_on_the_shards_of_their_run(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "RUN_DOCUMENTS", 600)  # two shards a file
    stream = example()
    first = BestFitPacking(stream, 64, 100, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    grown = Lengths([*stream.shards, [5] * 300, [6] * 300])
    second = BestFitPacking(grown, 64, 100, tmp_path)
    assert grown.asked == 3, "the last run, which was not full, and the new shard"
    assert rows_of(second, np.arange(first.count)) == everything(first)
    assert everything(BestFitPacking(stream, 65, 100, tmp_path)) != everything(first)
    assert everything(BestFitPacking(stream, 64, 150, tmp_path)) != everything(first)


@pytest.mark.parametrize("runs", [1, 4])
@pytest.mark.parametrize("damage", ["empty", "short", "odd", "magic", "head", "shards", "rows", "pieces"])
def test_a_damaged_plan_is_packed_again(tmp_path, monkeypatch, runs, damage):
    monkeypatch.setattr(plan, "RUN_DOCUMENTS", 2100 if runs == 1 else 600)
    stream = example()
    rows = everything(BestFitPacking(stream, 64, 100, tmp_path))
    path = sorted(tmp_path.iterdir())[0]
    whole = path.read_bytes()
    body = 8 * (plan.HEADER + int.from_bytes(whole[8:16], "little"))
    at = {"magic": 0, "head": 16, "shards": 8 * plan.HEADER, "rows": body + 3, "pieces": len(whole) - 5}
    if damage in at:
        path.write_bytes(whole[: at[damage]] + bytes([whole[at[damage]] ^ 64]) + whole[at[damage] + 1 :])
    else:
        path.write_bytes(whole[: {"empty": 0, "short": len(whole) - 8, "odd": len(whole) - 3}[damage]])
    asked = stream.asked
    assert everything(BestFitPacking(stream, 64, 100, tmp_path)) == rows
    assert stream.asked > asked
    assert path.read_bytes() == whole
    assert len(list(tmp_path.iterdir())) == runs


def test_opening_does_not_read_the_rows(tmp_path):
    stream = example()
    packing = BestFitPacking(stream, 64, 100, tmp_path)
    path = next(tmp_path.iterdir())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # a damage that opening would see if it read so far
    path.write_bytes(content)
    asked = stream.asked
    again = BestFitPacking(stream, 64, 100, tmp_path)
    assert again.count == packing.count and stream.asked == asked


def test_a_pickled_packing_opens_its_own_maps(tmp_path):
    packing = BestFitPacking(example(), 64, 100, tmp_path)
    data = pickle.dumps(packing)
    again = pickle.loads(data)
    assert everything(again) == everything(packing)
    assert again._stream.asked == packing._stream.asked == 7
    assert b"gmplan" not in data


def test_processes_that_pack_at_once_agree(tmp_path):
    stream = example(documents=3000)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(packed, [(stream, tmp_path)] * 2, chunksize=1)
    assert found == [packed(stream, tmp_path / "alone")] * 2
    files = {path.name: path.read_bytes() for path in tmp_path.glob("*.plan")}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "alone").iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {*files, "alone"}


def test_where_plans_are_kept(monkeypatch):
    monkeypatch.setenv("GRISTMILL_CACHE", "/somewhere")
    assert plan.default_folder() == Path("/somewhere/plans")
    monkeypatch.delenv("GRISTMILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert plan.default_folder() == Path("/caches/gristmill/plans")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert plan.default_folder() == Path.home() / ".cache/gristmill/plans"


@pytest.mark.parametrize("place", ["a file", "below a file", "/proc/1/plans", "no home"])
def test_plans_stay_in_memory_where_nothing_can_be_written(tmp_path, monkeypatch, caplog, place):
    """With the same rows, in a pickled copy too, and one warning that says what to set."""
    (tmp_path / "file").write_text("")
    for name in ("GRISTMILL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if place == "no home":
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", dict[int, str]().__getitem__)  # the user is in no list of the system
    else:
        folder = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "x"}.get(place, place)
        monkeypatch.setenv("GRISTMILL_CACHE", str(folder))
    expected = everything(BestFitPacking(example(), 64, 100, tmp_path / "plans"))
    packing = BestFitPacking(example(), 64, 100)
    assert everything(packing) == expected
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "set GRISTMILL_CACHE" in caplog.text
    assert everything(pickle.loads(pickle.dumps(packing))) == expected


def test_a_full_disk_keeps_plans_in_memory(tmp_path, caplog):
    """Written files are bounded, as on a disk that is full: nothing of the plan is left there."""
    expected = everything(BestFitPacking(example(), 64, 100, tmp_path / "plans"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        packing = BestFitPacking(example(), 64, 100, tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert everything(packing) == expected
    assert list((tmp_path / "full").iterdir()) == [] and "requested and" in caplog.text


def test_mistakes(tmp_path):
    with pytest.raises(ValueError, match="BestFit: window is 0; it must be at least 1"):
        BestFit(window=0)
    with pytest.raises(ValueError, match="rows of 1 to 16777215 tokens, not 16777216"):
        BestFitPacking(example(), 1 << 24, 100, tmp_path)
    for packing in (BestFitPacking(example(), 64, 100, tmp_path), Concatenated(100, 64)):
        for number in (-1, packing.count):
            with pytest.raises(IndexError, match=rf"each must be in \[0, {packing.count}\)"):
                packing.pieces(np.array([0, number]))
