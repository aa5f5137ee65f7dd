"""Drive a plan to its end on any engine: which units are still to do, what to do when some fail, and the finished build.

Reads the store's listings to see what is done; writes the build's folder (`builds/<id>/`), the record of the run
(`runs/<time>-<id>.json`), and last `finished/<plan>.json`, which makes the next run of the same plan a single read.
"""

from __future__ import annotations

import datetime
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from gristmill.secrets import without_secrets
from pipeline.child import Failure
from pipeline.errors import StoreError, StoreFull
from pipeline.plan import Plan, Step, Unit
from pipeline.segment import Task, read_manifest
from pipeline.stage import Attachment, Stored
from pipeline.store import Store, open_read, open_store, probe

READERS = 16  # threads that read manifests: latency-bound on S3

Result = dict[str, Any] | Failure


class Engine(Protocol):
    """Where units run."""

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield each task with its manifest or failure, in any order; raise only what stops the build."""
        ...

    def close(self) -> None:
        """End the engine's processes."""
        ...


class Watcher(Protocol):
    """Told how a build goes, for a progress display."""

    def step(self, step: Step, todo: int) -> None:
        """A step begins with `todo` units to do."""
        ...

    def unit(self, step: Step, manifest: Mapping[str, Any]) -> None:
        """A unit is done."""
        ...

    def failed(self, step: Step, label: str, failure: Failure) -> None:
        """A unit failed for good."""
        ...


@dataclass(frozen=True)
class Options:
    """How a plan is run; nothing here changes what comes out."""

    root: str
    batch_rows: int = 256
    memory: int | None = None
    record: Mapping[str, Any] | None = None  # on, workers, version, config: kept in the run record


@dataclass(frozen=True)
class Outcome:
    """What a run came to: the build, or the failures that stopped it after `step`."""

    build: str | None
    manifest: str | None
    record: str | None
    failures: tuple[tuple[str, str, Failure], ...] = ()
    reused: bool = False


def drive(plan: Plan, engine: Callable[[], Engine], options: Options, watcher: Watcher | None = None) -> Outcome:
    """Do all units that are not done yet, step by step, and assemble the build.

    The engine is only made when there is work for it. When units fail, the others of the step are still done, and the steps
    behind it are not begun: what they depend on is not complete.

    Raises:
        StoreRefused: the output cannot commit safely.
        StoreFull: no room; everything committed so far stays.
    """
    store = open_store(options.root)
    finished = read_manifest(store, plan.finished())
    if finished is not None and store.exists(finished["manifest"]):
        return Outcome(finished["build"], store.uri(finished["manifest"]), store.uri(finished["record"]), reused=True)
    probe(store)
    store.sweep()
    started = datetime.datetime.now(datetime.UTC)
    clock = time.perf_counter()
    running: Engine | None = None
    done: dict[str, int] = {}
    try:
        for step in plan.steps:
            missing = step.missing(store)
            done[step.name] = len(missing)
            if watcher is not None:
                watcher.step(step, len(missing))
            if not missing:
                continue
            running = running or engine()
            failures = _run_step(step, [_task(plan, step, unit, options) for unit in missing], running, watcher)
            if failures:
                return Outcome(None, None, None, tuple(failures))
    finally:
        if running is not None:
            running.close()
    seconds = time.perf_counter() - clock
    return _finish(plan, store, options, {"started": started.isoformat(timespec="seconds"), "seconds": seconds}, done)


def _task(plan: Plan, step: Step, unit: Unit, options: Options) -> Task:
    return Task(options.root, step.spec, unit, len(plan.inputs), options.batch_rows, options.memory)


def _run_step(step: Step, tasks: Sequence[Task], engine: Engine, watcher: Watcher | None) -> list[tuple[str, str, Failure]]:
    failures = []
    for task, result in engine.run(tasks):
        if isinstance(result, dict):
            if watcher is not None:
                watcher.unit(step, result)
            continue
        if result.kind == "full":
            raise StoreFull(result.message)
        failures.append((step.name, task.unit.label, result))
        if watcher is not None:
            watcher.failed(step, task.unit.label, result)
    return failures


def manifests(store: Store, step: Step) -> list[dict[str, Any]]:
    """Return the manifests of all units of a step, in order."""
    return read_all(store, [unit.manifest for unit in step.units])


def read_all(store: Store, names: Sequence[str]) -> list[dict[str, Any]]:
    """Read unit manifests side by side; all must be there."""
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda name: read_manifest(store, name), names))
    missing = [name for name, manifest in zip(names, found, strict=True) if manifest is None]
    if missing:
        raise StoreError(
            f"{store.uri(missing[0])} was committed and is gone; to make it anew delete {store.uri('finished')} and run the "
            "build again"
        )
    return [manifest for manifest in found if manifest is not None]


def stored_parts(step: Step, found: Sequence[Mapping[str, Any]]) -> list[Stored]:
    """Return the parts that the units of the last step committed, in the order of the plan.

    Where a part stands is what the plan says now: its unit may have been computed when the inputs were others, in another place.

    Args:
        step: the last.
        found: the manifests of its units, in order.
    """
    parts = [
        Stored(place, unit.label, p["kind"], p["number"], p["data"], p["sha256"], p["bytes"], p["rows"], p["stats"])
        for place, (unit, manifest) in enumerate(zip(step.units, found, strict=True))
        for p in manifest["parts"]
    ]
    addresses = [(part.shard, part.number, part.kind) for part in parts]
    assert len(set(addresses)) == len(addresses), f"two parts of one place: {Counter(addresses).most_common(1)}"
    return parts


def attachments(plan: Plan) -> list[Attachment]:
    """Read the files that the stages of a plan attach, in the order of the stages."""
    found = []
    for _, stage in plan.stages:
        for name, path in stage.attachments().items():
            with open_read(path) as file:
                found.append(Attachment(name, file.read()))
    return found


def _finish(plan: Plan, store: Store, options: Options, run: dict[str, Any], done: Mapping[str, int]) -> Outcome:
    parts = stored_parts(plan.steps[-1], manifests(store, plan.steps[-1]))
    assembly = plan.sink().assemble(parts, plan.lineage(), attachments(plan))
    folder = f"builds/{assembly.id}"
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda link: store.link_new(link[1], f"{folder}/{link[0]}"), assembly.links.items()))
    for name, content in assembly.files.items():
        store.put_new(f"{folder}/{name}", content)
    manifest = f"{folder}/{assembly.manifest}"
    record = _record(plan, options, run, done, assembly.id, manifest)
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%fZ")
    name = f"runs/{stamp}-{assembly.id[:12]}.json"
    store.put_new(name, json.dumps(record, indent=1, ensure_ascii=False).encode())
    store.put_new(plan.finished(), json.dumps({"build": assembly.id, "manifest": manifest, "record": name}).encode())
    return Outcome(assembly.id, store.uri(manifest), store.uri(name))


def _record(
    plan: Plan, options: Options, run: Mapping[str, Any], done: Mapping[str, int], build: str, manifest: str
) -> dict[str, Any]:
    steps = [
        {
            "name": step.name,
            "kind": step.spec.kind,
            "stages": [name for name, _ in step.spec.all()],
            "units": [unit.manifest for unit in step.units],
            "done": done[step.name],
        }
        for step in plan.steps
    ]
    told = without_secrets({**run, **(options.record or {})})
    return {"build": build, "manifest": manifest, **plan.lineage(), "run": told, "steps": steps}
