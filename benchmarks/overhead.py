"""What a shard costs beyond its work: on Ray, in a child process, and in a plain loop.

Makes many tiny shards (JSON Lines of a few documents, one cheap filter, the texts written again) and runs them three ways, each
into an output of its own: `run_unit` in a loop in this process, the local engine with one child, the Ray engine with one worker
on a cluster that runs already and is warm. Prints CPU seconds and milliseconds of wall time a shard, and one JSON line of
ratios. With tiny shards nearly all of it is overhead: reading, committing with fsync, and what the engine adds.

CPU seconds are those of every process of the side: this one, its children and, for Ray, all that the cluster consists of
(raylet, GCS, agents, the worker). Ray's daemons also work while nothing runs; that is measured before and taken off.

Goals: what Ray adds to a shard of 30 CPU seconds is less than one per cent of it. Lower is better in every row.

    python -m benchmarks.overhead [--quick]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks import _table
from gristmill.storage.store import expand
from pipeline.engines.drive import Engine
from pipeline.engines.failure import Failure
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import Plan, make_plan
from pipeline.units.segment import Task, run_unit
from stages import STAGES

SHARDS, DOCUMENTS = 64, 5
QUICK_ROUNDS, ROUNDS = 3, 7
KINDS = {"plain": ("driver",), "local": ("driver", "child"), "ray": ("driver", "worker", "daemons")}
SHARD_S = 30.0  # CPU seconds of a shard as one would cut them
IDLE_S = 3.0

GOALS = {"ray_over_plain": 2.0, "local_over_plain": 1.5, "ray_share_of_30s_shard": 0.01, "local_share_of_30s_shard": 0.01}


def shards(folder: Path) -> Path:
    """Write the shards; return their folder."""
    folder.mkdir()
    for shard in range(SHARDS):
        lines = [json.dumps({"text": f"Document {number} of shard {shard}, some words long."}) for number in range(DOCUMENTS)]
        (folder / f"{shard:03d}.jsonl").write_text("\n".join(lines))
    return folder


def plan_of(folder: Path) -> Plan:
    """Return one fused segment over the shards."""
    pattern = f"{folder}/*.jsonl"
    source = STAGES["jsonl"](paths=pattern)  # type: ignore[call-arg]
    stages = [("jsonl", source), ("language", STAGES["language"](min_score=0.0)), ("documents", STAGES["documents"]())]  # type: ignore[call-arg]
    return make_plan("overhead", stages, expand(pattern))


def tasks_of(plan: Plan, root: Path) -> list[Task]:
    """Return the units as the driver would hand them to an engine."""
    (step,) = plan.steps
    return [Task(str(root), step.spec, unit, len(plan.inputs), 256) for unit in step.units]


@dataclass
class Account:
    """CPU seconds by process; one that ended keeps what it was last seen with (none ends while it is measured)."""

    seen: dict[tuple[int, float], tuple[str, float]] = field(default_factory=dict)

    def read(self) -> dict[str, float]:
        """Return the CPU seconds by kind of process: of this one and all below it."""
        own = psutil.Process()
        for process in [own, *own.children(recursive=True)]:
            try:
                times = process.cpu_times()
                self.seen[process.pid, process.create_time()] = (_kind(process, own), times.user + times.system)
            except psutil.Error:
                continue
        found: dict[str, float] = {}
        for kind, seconds in self.seen.values():
            found[kind] = found.get(kind, 0.0) + seconds
        return found


def _kind(process: psutil.Process, own: psutil.Process) -> str:
    if process == own:
        return "driver"
    line = process.cmdline()
    if any("pipeline.engines.child" in part for part in line):
        return "child"
    if line and line[0].startswith("ray::"):
        return "worker"
    return "daemons"


@dataclass
class Cost:
    """CPU seconds by kind of process and wall seconds of all shards together, one entry a round; `kinds` take part."""

    kinds: tuple[str, ...]
    cpu: list[dict[str, float]] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def kind(self, name: str) -> float | None:
        """Return the median CPU seconds a shard of one kind of process; None where that kind has no part."""
        if name not in self.kinds:
            return None
        return statistics.median(each.get(name, 0.0) for each in self.cpu) / SHARDS

    def all(self) -> float:
        """Return the median CPU seconds a shard of the processes that take part."""
        return statistics.median(sum(each.get(kind, 0.0) for kind in self.kinds) for each in self.cpu) / SHARDS


def timed(work: Callable[[], None], cost: Cost | None, account: Account, idle: dict[str, float]) -> None:
    """Do the work and add what it took, less what Ray's daemons take anyhow."""
    before, start = account.read(), time.perf_counter()
    work()
    wall = time.perf_counter() - start
    after = account.read()
    if cost is None:
        return
    cost.wall.append(wall)
    cost.cpu.append({kind: max(0.0, after[kind] - before.get(kind, 0.0) - idle.get(kind, 0.0) * wall) for kind in after})


def plain(tasks: Sequence[Task]) -> None:
    """Run the units one after another, here."""
    for task in tasks:
        run_unit(task)


def through(engine: Engine) -> Callable[[Sequence[Task]], None]:
    """Return how to run units on an engine."""

    def run(tasks: Sequence[Task]) -> None:
        for _, result in engine.run(tasks):
            assert not isinstance(result, Failure), result

    return run


def measure(rounds: int, place: Path) -> tuple[dict[str, Cost], float]:
    """Run all ways in turns, each round into new outputs; return their costs and the idle daemons' CPU share of a core."""
    # Ray takes two seconds to import.
    from pipeline.engines.on_ray.cluster import RayEngine

    plan = plan_of(shards(place / "shards"))
    local, ray = LocalEngine(1), RayEngine(1)
    ways = {"plain": plain, "local": through(local), "ray": through(ray)}
    costs = {name: Cost(KINDS[name]) for name in ways}
    account = Account()
    try:
        for name, run in ways.items():  # loads the stages, starts the child and Ray's worker
            run(tasks_of(plan, place / f"{name}-warm"))
        before = account.read()
        time.sleep(IDLE_S)
        idle = {kind: (seconds - before.get(kind, 0.0)) / IDLE_S for kind, seconds in account.read().items()}
        for number in range(rounds):
            for name, run in ways.items():
                tasks = tasks_of(plan, place / f"{name}-{number}")
                timed(lambda run=run, tasks=tasks: run(tasks), costs[name], account, idle)  # type: ignore[misc]
    finally:
        local.close()
        ray.close()
    return costs, sum(idle.values())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds; within a minute")
    quick = parser.parse_args(argv).quick
    with tempfile.TemporaryDirectory() as place:
        costs, idle = measure(QUICK_ROUNDS if quick else ROUNDS, Path(place))
    base = costs["plain"].all()
    added = {name: costs[name].all() - base for name in ("ray", "local")}
    print(f"{SHARDS} shards of {DOCUMENTS} documents, medians of {len(costs['plain'].wall)} rounds, one worker; ms a shard")
    kinds = ("driver", "child", "worker", "daemons")
    rows = []
    for name, cost in costs.items():
        seconds = (cost.all(), *map(cost.kind, kinds), statistics.median(cost.wall) / SHARDS)
        more = [cost.all() / base, added[name] / SHARD_S] if name in added else [None, None]
        rows.append([name, *(_table.number(value and 1e3 * value) for value in seconds), *map(_table.number, more)])
    head = ["", "CPU ms", *kinds, "wall ms", "over plain", f"added, of {SHARD_S:g} s"]
    print(_table.table(head, rows))
    print(f"Ray's daemons with nothing to do: {1e3 * idle:.1f} CPU ms a second, taken off above")
    ratios = {f"{name}_over_plain": costs[name].all() / base for name in added}
    ratios |= {f"{name}_share_of_30s_shard": added[name] / SHARD_S for name in added}
    print(_table.closing({row: (ratios[row], goal) for row, goal in GOALS.items()}))


if __name__ == "__main__":
    main()
