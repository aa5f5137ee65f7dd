"""Drive a plan to its end on any engine: which units are still to do, what to do when some fail, and the finished build.

Reads the store's listings to see what is done; `finish.py` writes the build and the records of it. What a unit finds missing or
damaged of an earlier one is computed again.
"""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gristmill.errors import Stopped, StoreFull
from gristmill.json_values import Plain
from gristmill.secrets import without_secrets
from gristmill.storage.store import Store, open_store, probe
from pipeline.builds.finish import Note, finish, sound_units, still_finished
from pipeline.engines.failure import Failure
from pipeline.planning.plan import Plan, Step, Unit
from pipeline.records import Finished, UnitRecord
from pipeline.units.segment import Task

MENDED = 3  # times that a unit is computed again because something of it is damaged

Result = UnitRecord | Failure
Failed = tuple[str, str, Failure]  # step, label of the unit


class Engine(Protocol):
    """Where units run."""

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield each task with its manifest or failure, in any order; raise only what stops the build."""
        ...

    def close(self) -> None:
        """End the engine's processes."""
        ...


class Watcher(Protocol):
    """Is called as a build goes on, for a progress display."""

    def step(self, step: Step, todo: int) -> None:
        """A step begins with `todo` units to do."""
        ...

    def unit(self, step: Step, manifest: UnitRecord) -> None:
        """A unit is done."""
        ...

    def failed(self, step: Step, label: str, failure: Failure) -> None:
        """A unit failed for good."""
        ...

    def note(self, line: str) -> None:
        """Something happened that a person should know of, such as damage that is mended."""
        ...


@dataclass(frozen=True)
class Options:
    """How a plan is run; nothing here changes what comes out."""

    root: str
    batch_rows: int = 256
    memory: int | None = None
    record: Mapping[str, Plain] | None = None  # on, workers, version, config: kept in the run record
    verify: bool = False  # read everything that is done and compare it with its hashes


@dataclass(frozen=True)
class Outcome:
    """What a run came to: the build, or the failures that stopped it after `step`."""

    build: str | None
    manifest: str | None
    record: str | None
    failures: tuple[Failed, ...] = ()
    reused: bool = False


def drive(plan: Plan, engine: Callable[[], Engine], options: Options, watcher: Watcher | None = None) -> Outcome:
    """Do all units that are not done yet, step by step, and assemble the build.

    The engine is only made when there is work for it. When units fail, the others of the step are still done, and the steps
    behind it are not begun: what they depend on is not complete.

    Raises:
        StoreRefused: the output cannot commit safely.
        StoreFull: no room; everything committed so far stays.
        Stopped: a stage cannot ask on; everything committed so far stays.
    """
    store = open_store(options.root)
    work = _Work(plan, store, engine, options, watcher)
    if options.verify:
        work.verify()
    finished = None if work.damaged or options.verify else still_finished(store, plan, _note_of(watcher))
    if finished is not None:
        return _outcome(store, finished, reused=True)
    probe(store)
    store.sweep()
    with store.alive():
        return _carry_out(plan, store, work, options, watcher)


def _carry_out(plan: Plan, store: Store, work: _Work, options: Options, watcher: Watcher | None) -> Outcome:
    """Do all units that are not done, and assemble the build."""
    started = datetime.datetime.now(datetime.UTC)
    clock = time.perf_counter()
    done: dict[str, int] = {}
    try:
        failures = work.mend()
        for step in () if failures else plan.steps:
            missing = step.missing(store)
            done[step.name] = len(missing)
            if watcher is not None:
                watcher.step(step, len(missing))
            failures = work.run(step, missing)
            if failures:
                break
        found, failures = ([], failures) if failures else work.last()
    finally:
        work.close()
    if failures:
        return Outcome(None, None, None, tuple(failures))
    seconds = time.perf_counter() - clock
    run = without_secrets({"started": started.isoformat(timespec="seconds"), "seconds": seconds, **(options.record or {})})
    finished = finish(plan, store, run, done, found, whole=options.verify, note=_note_of(watcher))
    return _outcome(store, finished)


def _note_of(watcher: Watcher | None) -> Note:
    return watcher.note if watcher is not None else lambda line: None


def _outcome(store: Store, finished: Finished, *, reused: bool = False) -> Outcome:
    return Outcome(finished.build, store.uri(finished.manifest), store.uri(finished.record), reused=reused)


class _Work:
    """The units of a plan under way on an engine, which is made when there is the first thing to do.

    `damaged` are the manifests of units with something missing or damaged, and what it is: whoever reads it finds it, and the
    unit is computed again before the reader is.
    """

    def __init__(self, plan: Plan, store: Store, engine: Callable[[], Engine], options: Options, watcher: Watcher | None) -> None:
        self._plan, self._store, self._make, self._options, self._watcher = plan, store, engine, options, watcher
        self._engine: Engine | None = None
        self._mended: Counter[str] = Counter()
        self.damaged: dict[str, str] = {}

    def close(self) -> None:
        """End the engine."""
        if self._engine is not None:
            self._engine.close()

    def verify(self) -> None:
        """Read all that is done of the plan and note what is damaged."""
        names = [unit.manifest for step in self._plan.steps for unit in step.units]
        found = zip(names, sound_units(self._store, names, whole=True), strict=True)
        self.damaged |= {name: each for name, each in found if isinstance(each, str)}

    def run(self, step: Step, units: Sequence[Unit], *, again: bool = False) -> list[Failed]:
        """Do units of a step, and before another try what they found damaged; return what failed for good."""
        while units:
            self._engine = self._engine or self._make()
            failures, waiting = self._round(step, units, again)
            failures = failures or self.mend()
            if failures:
                return failures
            units = waiting
        return []

    def mend(self) -> list[Failed]:
        """Compute the units anew of which something is damaged, in the order of the steps; return what failed for good."""
        for step in self._plan.steps:
            units = [unit for unit in step.units if unit.manifest in self.damaged]
            for unit in units:
                what = self.damaged.pop(unit.manifest)
                self._mended[unit.manifest] += 1
                if self._mended[unit.manifest] > MENDED:
                    return [(step.name, unit.label, Failure("failed", f"{what}, after it was computed again {MENDED} times"))]
                if self._watcher is not None:
                    self._watcher.note(f"{what}; computed again ({step.name}, {unit.label})")
                # Its files are put back by whoever commits them and finds damage under their names.
                self._store.remove(unit.manifest)
            failures = self.run(step, units, again=True)
            if failures:
                return failures
        assert not self.damaged, f"not of this plan: {self.damaged}"
        return []

    def last(self) -> tuple[list[UnitRecord], list[Failed]]:
        """Return the manifests of the last step, in order, when their files are there; or what failed for good."""
        names = [unit.manifest for unit in self._plan.steps[-1].units]
        while True:
            found = sound_units(self._store, names, whole=False)
            sound = [each for each in found if isinstance(each, UnitRecord)]
            if len(sound) == len(names):
                return sound, []
            for name, each in zip(names, found, strict=True):
                if not isinstance(each, UnitRecord):
                    self.damaged[name] = each or f"{self._store.uri(name)} was committed and is missing"
            failures = self.mend()
            if failures:
                return [], failures

    def _round(self, step: Step, units: Sequence[Unit], again: bool) -> tuple[list[Failed], list[Unit]]:
        """Give units to the engine once; return what failed for good, and those that wait for others."""
        assert self._engine is not None
        failures, waiting = [], []
        for task, result in self._engine.run([_task(self._plan, step, unit, self._options) for unit in units]):
            if not isinstance(result, Failure):
                if self._watcher is not None and not again:
                    self._watcher.unit(step, result)
            elif result.kind == "full":
                raise StoreFull(result.message)
            elif result.kind == "stop":
                raise Stopped(result.message)
            elif result.kind == "damaged":
                self.damaged[result.record] = result.message
                waiting.append(task.unit)
            else:
                failures.append((step.name, task.unit.label, result))
                if self._watcher is not None:
                    self._watcher.failed(step, task.unit.label, result)
        return failures, waiting


def _task(plan: Plan, step: Step, unit: Unit, options: Options) -> Task:
    return Task(options.root, step.spec, unit, len(plan.inputs), options.batch_rows, options.memory)
