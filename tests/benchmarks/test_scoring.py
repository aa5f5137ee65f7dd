"""What the benchmark of decoders counts and compares: documents, padding, FLOPs, and the peer's losses beside ours."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks import _scoring_models, _scoring_peers, scoring_gpu
from benchmarks._scoring_models import SIZES, WINDOW, Documents, Size, flops, make_documents, make_engine, make_model
from benchmarks._turns import take_turns
from benchmarks.scoring_gpu import CPU_ROWS, GPU_ROWS

SMALL = Size(32, 48, 2, 4, 2, 200, False)


def documents_of(*lengths: int) -> Documents:
    ids = np.random.default_rng(1).integers(0, SMALL.vocabulary, sum(lengths), dtype=np.uint32)
    return Documents(ids, np.concatenate([[0], np.cumsum(lengths)]), "here")


def test_batches_and_what_padding_costs() -> None:
    documents = documents_of(*[5] * 31, 50, *[7] * 31, 100, 2)
    assert [len(batch) for batch in _scoring_peers.in_batches(documents, by_length=False)] == [32, 32, 1]
    assert _scoring_peers.waste(documents, by_length=False) == (32 * 50 + 32 * 100 + 2) / len(documents.ids)
    assert _scoring_peers.waste(documents, by_length=True) == (32 * 5 + 32 * 50 + 100) / len(documents.ids)


def test_flops_are_those_of_the_weights_and_of_causal_attention() -> None:
    model = make_model(SMALL, "cpu", torch.float32)
    weights = sum(each.weight.numel() for each in model.modules() if isinstance(each, torch.nn.Linear))
    pairs = sum(seen for length in (3, 10) for seen in range(1, length + 1))
    assert flops(SMALL, np.array([3, 10])) == 2 * weights * 13 + 4 * SMALL.layers * SMALL.hidden * pairs
    for name, known in {"1.1b": 2.25e9, "135m": 0.34e9}.items():
        assert abs(flops(SIZES[name], np.array([2048])) / 2048 / known - 1) < 0.02


def test_the_peer_scores_what_we_score() -> None:
    documents = documents_of(2, 40, 9, 17, *[5] * 40)
    model = make_model(SMALL, "cpu", torch.float32)
    peers = [_scoring_peers.losses(model, documents, by_length=by) for by in (False, True)]
    ours = make_engine(model, WINDOW, compile=False).score(documents.ids, documents.bounds).nll
    for each in peers:
        assert np.array_equal(np.isnan(each), np.isnan(ours)) and np.nanmax(np.abs(each - ours)) < 1e-5
    assert np.flatnonzero(np.isnan(ours)).tolist() == documents.bounds[:-1].tolist()


def test_documents_are_as_long_as_those_of_the_newest_build(tmp_path: Path) -> None:
    lengths = [3000, 800, 16]
    (tmp_path / "build").mkdir()
    table = pa.table({"input_ids": pa.array([[1] * length for length in lengths], pa.list_(pa.uint16()))})
    with pa.OSFile(str(tmp_path / "build" / "tokens-0.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    found = make_documents(9000, 100, builds=tmp_path)
    assert found.lengths()[:3].tolist() == [2048, 800, 16] and set(found.lengths().tolist()) == {2048, 800, 16}
    assert 9000 <= len(found.ids) < 9000 + WINDOW and found.ids.max() < 100
    assert set(make_documents(9000, 100, part=8, builds=tmp_path).lengths().tolist()) == {256, 100, 2}
    assert "log-normal" in (drawn := make_documents(100_000, 100, builds=tmp_path / "none")).origin
    assert 100_000 <= len(drawn.ids) < 100_000 + WINDOW and 300 < np.median(drawn.lengths()) < 500
    assert _scoring_models.BUILDS.parts[-3:] == ("build", "demo", "builds")


def test_rows_without_hardware_have_no_ratio() -> None:
    assert all(ratio is None and goal > 0 for ratio, goal in (GPU_ROWS | CPU_ROWS).values())
    assert not GPU_ROWS.keys() & CPU_ROWS.keys() and all(name.endswith("_cpu") for name in CPU_ROWS)


def test_peer_and_engine_take_turns_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine leaves its own attention in its model, with which the peer's padded batches cannot be computed."""
    monkeypatch.setitem(SIZES, "tiny", SMALL)
    monkeypatch.setattr(scoring_gpu, "cpu_documents", lambda quick: documents_of(2, 40, 9, 17))
    monkeypatch.setattr(scoring_gpu, "take_turns", partial(take_turns, least_s=0.01))
    rows: scoring_gpu.Rows = {}
    scoring_gpu.on_cpu(quick=True, rows=rows)
    same, _ = rows["same_losses_cpu"]
    assert rows.keys() == {"arrival_cpu", "sorted_cpu", "same_losses_cpu"} and same is not None and same > 1
