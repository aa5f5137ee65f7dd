"""A stage with a pool on this machine: opened once a GPU, or once, not once a worker; the same build as in the workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.errors import UserError
from gristmill.storage.store import expand, open_store
from pipeline.builds.finish import manifests
from pipeline.engines import local_pools
from pipeline.engines.drive import Options, Outcome, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import Plan, make_plan
from pipeline.resources import Resources
from tests.toy import Files, Lines, Pooled, Short


def plan_of(folder: Path, log: Path | str = "", deadly: str = "", files: int = 3) -> Plan:
    texts = folder / "texts"
    texts.mkdir(exist_ok=True)
    for shard in range(files):
        (texts / f"{shard}.txt").write_text("\n".join([*(f"line {shard} {n}" for n in range(20)), "it dies", "it raises"]))
    pooled = Pooled(segfault_on=deadly, raise_on="raises", grow_on="", log=str(log))
    stages = [("lines", Lines(paths="")), ("short", Short(least=3)), ("pooled", pooled), ("files", Files())]
    return make_plan("toy", stages, expand(f"{texts}/*.txt"))


def run(plan: Plan, root: Path, pools: dict[str, Resources], workers: int = 2) -> Outcome:
    return drive(plan, lambda: LocalEngine(workers, pools=pools), Options(str(root), 5))


@pytest.mark.parametrize(
    ("asked", "processes", "workers"), [(None, 1, 2), (Resources(actors=2, cpus=0), 2, 1)], ids=["by-default", "asked"]
)
def test_a_stage_is_opened_once_a_process_of_its_pool_not_once_a_worker(
    asked: Resources | None, processes: int, workers: int, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.mkdir()
    built = run(plan_of(tmp_path, log), tmp_path / "out", {"pooled": asked} if asked else {}, workers)
    assert built.build is not None, built.failures
    assert len(list(log.iterdir())) == processes
    assert run(plan_of(tmp_path), tmp_path / "inside", {}, workers=0).build == built.build


def test_a_document_that_kills_is_quarantined_and_nothing_else(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, deadly="dies", files=1)
    assert run(plan, tmp_path / "out", {}).build is not None
    (unit,) = manifests(open_store(str(tmp_path / "out")), plan.steps[0])
    (account,) = [account for account in unit.ledger if account["stage"] == "pooled"]
    assert account["quarantined"] == {"RuntimeError": 1, "killed_by_SIGSEGV": 1} and account["in"] == 22
    assert 0 < account["cpu_s"] < unit.seconds["cpu"], "the seconds of the pool are the unit's too"


def test_what_cannot_be_opened_or_is_not_there_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no folder '/nowhere'$"):
        run(plan_of(tmp_path, "/nowhere"), tmp_path / "out", {})
    with pytest.raises(UserError, match=r"^run\.pools\.pooled: asks for 1 actor with 99 GPUs .*lower actors, gpus or cpus"):
        run(plan_of(tmp_path), tmp_path / "out", {"pooled": Resources(actors=1, gpus=99)})


@pytest.mark.parametrize(
    ("named", "found"),
    [("0,2", ["0", "2"]), ("GPU-ab12, GPU-cd34", ["GPU-ab12", "GPU-cd34"]), ("", []), ("-1,0", []), ("1,-1,0", ["1"])],
)
def test_gpus_are_those_that_the_environment_leaves(named: str, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert local_pools.visible_gpus() == found


def test_without_the_environment_they_are_those_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local_pools, "DRIVER", tmp_path / "gpus")
    assert local_pools.visible_gpus() == []
    for name in ("0000:17:00.0", "0000:65:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    assert local_pools.visible_gpus() == ["0", "1"]


def test_each_process_sees_its_own_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    pooled = Pooled()
    (pool,) = local_pools.local_pools({"pooled": (pooled, Resources(gpus=0.5, cpus=0))}, None, None).values()
    found = [child._environment["CUDA_VISIBLE_DEVICES"] for child in pool._children]
    pool.close()
    assert found == ["4", "4", "7", "7"]
