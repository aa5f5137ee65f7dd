"""A stage with a pool on Ray: the same build as without, whatever dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cluster import RayEngine
from pipeline.drive import Options, Outcome, drive, manifests
from pipeline.local import LocalEngine
from pipeline.plan import Plan, make_plan
from pipeline.pool import PoolSize
from pipeline.store import expand, open_store
from tests.toy import Files, Lines, Pooled, Short, Unique

ray = pytest.importorskip("ray")
MEMORY = 300 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=200 << 20
    )
    yield
    ray.shutdown()


def plan_of(corpus: Path, pooled: Pooled | None = None) -> Plan:
    stages = [
        ("lines", Lines(paths=f"{corpus}/*.txt")),
        ("short", Short(least=3)),
        ("pooled", pooled or Pooled(raise_on="aab", segfault_on="", grow_on="")),
        ("unique", Unique()),
        ("files", Files()),
    ]
    return make_plan("toy", stages, expand(f"{corpus}/*.txt"))


def local(plan: Plan, root: Path, workers: int = 0) -> Outcome:
    return drive(plan, lambda: LocalEngine(workers), Options(str(root), 7, MEMORY if workers else None))


def test_same_build(cluster: None, corpus: Path, tmp_path: Path) -> None:
    plan = plan_of(corpus)
    expected = local(plan, tmp_path / "a")
    found = drive(
        plan, lambda: RayEngine(pools={"pooled": PoolSize(actors=2, gpus=0.5)}), Options(str(tmp_path / "b"), 7, MEMORY)
    )
    assert found.build == expected.build, found.failures
    for here, there in zip(*(manifests(open_store(str(tmp_path / n)), plan.steps[0]) for n in "ab"), strict=True):
        assert here["outputs"] == there["outputs"] and here["measures"] == there["measures"]
        drop = {"cpu_s", "wall_s"}
        assert [{k: v for k, v in a.items() if k not in drop} for a in here["ledger"]] == [
            {k: v for k, v in a.items() if k not in drop} for a in there["ledger"]
        ]
