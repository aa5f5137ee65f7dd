"""Batches made ahead by a thread: the same batches, errors that come through, and ends, forks and other processes."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

from gristmill import Source, TokenDataset, TokenLoader
from gristmill.reader.prefetch import Prefetched
from tests.conftest import ROOT
from tests.gristmill.reader.other_process import send_batch, send_next
from tests.gristmill.slow import build, corpus, some_sizes

LENGTH = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("build"), corpus(some_sizes(5)))


@pytest.fixture(scope="module")
def mixed(folder, tmp_path_factory):
    other = build(tmp_path_factory.mktemp("other"), corpus(some_sizes(6), first=20_000))
    return {"web": Source(path=folder, weight=2.0), "code": Source(path=other)}


def test_prefetched_batches_are_the_same(mixed):
    dataset = TokenDataset.open(mixed, sequence_length=LENGTH, columns=["excess"])
    for depth in (1, 2, 7):
        for ours, plain in itertools.islice(
            zip(TokenLoader(dataset, 8, prefetch=depth), TokenLoader(dataset, 8, prefetch=0), strict=False), 20
        ):
            assert np.array_equal(ours.input_ids, plain.input_ids)
            np.testing.assert_array_equal(ours.columns["excess"], plain.columns["excess"])


def test_abandoned_loaders_leave_no_thread(folder):
    dataset = TokenDataset.open(folder, sequence_length=LENGTH)
    before = threading.active_count()
    for _ in range(5):
        next(TokenLoader(dataset, 4, prefetch=2))
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "gristmill prefetch":
            thread.join(timeout=30)
    assert threading.active_count() <= before  # those of earlier tests may have ended meanwhile


def test_errors_of_the_thread_reach_who_asks():
    def make(number: int) -> int:
        if number == 3:
            raise FileNotFoundError("gone")
        return number

    values = Prefetched(make, 2)
    assert [next(values) for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="gone"):
            next(values)


def test_seeking_while_batches_are_made_ahead(folder):
    loader = TokenLoader(TokenDataset.open(folder, sequence_length=LENGTH), 4)
    first = [next(loader).input_ids for _ in range(5)]
    loader.seek(4)
    assert all(np.array_equal(next(loader).input_ids, batch) for batch in first[1:])
    loader.close()
    assert np.array_equal(next(loader).input_ids, loader.batch(20).input_ids)


# ---- other processes ----


def test_forks_while_the_thread_is_at_work(folder, monkeypatch):
    """Few shards may be open, so the thread opens and closes them all the time, and holds the lock while it does."""
    monkeypatch.setattr("gristmill.reader.stream.OPEN_SHARDS", 2)
    dataset = TokenDataset.open(folder, sequence_length=LENGTH)
    expected = TokenLoader(dataset, 8, prefetch=0).batch(80).input_ids
    loader = TokenLoader(dataset, 8, prefetch=4)
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        next(loader)
        ours, theirs = context.Pipe()
        process = context.Process(target=send_batch, args=(dataset, theirs))
        process.start()
        assert ours.poll(60) and np.array_equal(ours.recv(), expected)
        process.join()
    loader.close()


def test_a_process_may_end_while_the_thread_is_at_work(folder):
    program = f"""
from gristmill import TokenDataset, TokenLoader
loader = TokenLoader(TokenDataset.open({str(folder)!r}, sequence_length={LENGTH}), 4096, prefetch=8)
next(loader)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loaders_go_to_other_processes(mixed, method):
    """After some batches, with the thread at work: the child makes the next batch, and so does the parent."""
    if method == "fork" and threading.active_count() > 8:
        pytest.skip("too many threads of other tests to fork safely")
    loader = TokenLoader(TokenDataset.open(mixed, sequence_length=LENGTH), 8)
    for _ in range(3):
        next(loader)
    loader.close()
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=send_next, args=(pickle.loads(pickle.dumps(loader)), theirs))
    process.start()
    assert ours.poll(60) and np.array_equal(ours.recv(), next(loader).input_ids)
    process.join()
    assert process.exitcode == 0
