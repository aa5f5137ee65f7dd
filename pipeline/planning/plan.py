"""From a list of stages to units of work with names: segments fused between barriers and saves, reduces, settles.

Reads the stages and the list of input files; writes nothing. For every barrier B with documents before and after:

    segment  a unit an input     … stages …, B.open            → docs, rows (sorted by key)
    reduce   a unit a key range  B.reduce                      → rows
    settle   one unit            B.settle                      → verdicts or model
    segment  a unit an input     B applied, … stages …, sink   → parts

A save ends a segment, too: its documents are kept, and the next segment begins with them.

A unit's fingerprint covers everything its output depends on, so the units can be named before any of them has run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gristmill.errors import ConfigError
from gristmill.secrets import masked, without_secrets
from gristmill.storage.store import InputFile, Store
from pipeline.fitted import working
from pipeline.lineage import BuildInput, BuildStage, Lineage
from pipeline.planning.fingerprint import MACHINE, describe, digest, parameters
from pipeline.planning.plan_check import column_faults, content_faults, order_faults
from pipeline.resources import Resources
from pipeline.stage import AnyMap, Barrier, Named, Save, Sink

SLICES = 64  # a run file holds its rows in this many slices of the key space; a reduce reads whole slices


@dataclass(frozen=True)
class Spec:
    """What one step does to each of its units: at most a source or an applied barrier, then stages, then an end.

    A segment without `source` and `before` begins with the documents of a save; one without `after` and `sink` ends in one. The
    save itself does nothing, so it is in no fingerprint.
    """

    kind: Literal["segment", "reduce", "settle"]
    stages: tuple[Named, ...]
    source: Named | None = None
    before: Named | None = None
    after: Named | None = None
    sink: Named | None = None
    save: Named | None = None
    partitions: int = 0  # of a reduce: into how many parts the key space is cut

    def all(self) -> tuple[Named, ...]:
        """Return its stages in the order documents meet them."""
        ends = (self.after, self.sink, self.save)
        return tuple(s for s in (self.source, self.before, *self.stages, *ends) if s is not None)

    def title(self) -> str:
        """Return a name for people and folders: first … last."""
        names = [name for name, _ in self.all()]
        if self.kind != "segment":
            return f"{names[0]}-{self.kind}"
        return names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}"

    def actor(self) -> bool:
        """Tell whether the model of the barrier before it wants processes that are kept for the step."""
        return self.kind == "segment" and self.before is not None and self.before[1].resources() is not None

    def pools(self, asked: Mapping[str, Resources]) -> dict[str, tuple[AnyMap, Resources]]:
        """Return the stages with processes of their own, by name, and what these are to have.

        Args:
            asked: `run.pools`: stages that are to have such, and what they are to have in place of what they say themselves.
        """
        found = {}
        for name, stage in self.stages if self.kind == "segment" else ():
            own = stage.resources()
            if isinstance(stage, AnyMap) and (own is not None or name in asked):
                found[name] = (stage, asked.get(name, Resources()).over(own))
        return found


@dataclass(frozen=True)
class Unit:
    """One piece of work: its position in the step, its fingerprint, and where its inputs come from.

    `index` is the position that the unit has in this plan. The same unit has another one in a plan over other inputs, so it is in
    no record: what is committed is in the order of the plan that reads it.

    `inputs` are the names of unit manifests: of the input's previous segment and, where a barrier is between, of its settle (a
    segment), of all segments (a reduce), of all reduces (a settle).
    """

    index: int
    label: str
    fingerprint: str
    manifest: str
    file: InputFile | None = None
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """All the units that do the same."""

    number: int
    spec: Spec
    folder: str
    units: tuple[Unit, ...]

    @property
    def name(self) -> str:
        """Its number and title."""
        return f"{self.number} {self.spec.title()}"

    def missing(self, store: Store) -> list[Unit]:
        """Return the units whose manifest is not in the store yet."""
        there = set(store.list(self.folder))
        return [unit for unit in self.units if f"{unit.fingerprint}.json" not in there]


@dataclass(frozen=True)
class Plan:
    """The steps of a build in order, over the given inputs."""

    name: str
    inputs: tuple[InputFile, ...]
    stages: tuple[Named, ...]
    steps: tuple[Step, ...]
    fingerprint: str

    def sink(self) -> Sink:
        """Return the sink that ends it."""
        sink = self.stages[-1][1]
        assert isinstance(sink, Sink)
        return sink

    def lineage(self) -> Lineage:
        """Return what the machine knows about the origin of the build, for its manifest; secrets in URLs are hidden."""
        inputs = (BuildInput(masked(file.name), masked(file.uri), file.size) for file in self.inputs)
        stages = (
            BuildStage(name, working(stage).version, without_secrets(parameters(stage)))
            for name, stage in self.stages
            if not isinstance(stage, Save)  # which leaves no trace in the build
        )
        return Lineage(name=masked(self.name), inputs=tuple(inputs), stages=tuple(stages))

    def finished(self) -> str:
        """Return the name of the record that says this very plan is done."""
        return f"finished/{self.fingerprint}.json"


def make_plan(name: str, stages: Sequence[Named], inputs: Sequence[InputFile], partitions: int | None = None) -> Plan:
    """Cut the stages at the barriers and name every unit.

    Args:
        name: of the build; not part of any fingerprint.
        stages: a Source, then maps, flat maps, filters, barriers and saves, then a Sink.
        inputs: the source's files; their order is the order of the documents.
        partitions: reduces a barrier, a power of two up to 64; the result does not depend on it. By default about one for
            four inputs.

    Raises:
        ConfigError: `partitions` is none of these, or the stages are no plan (`plan_check`).
    """
    for check in (order_faults, column_faults, content_faults):
        for fault in check(stages):
            raise ConfigError(fault.message)
    if partitions is None:
        partitions = min(SLICES, 1 << max(0, (len(inputs) - 1).bit_length() - 2))
    if partitions not in {1 << k for k in range(SLICES.bit_length())}:
        raise ConfigError(f"partitions: {partitions} is not a power of two from 1 to {SLICES}")
    steps: list[Step] = []
    previous: Sequence[Unit] = ()
    settle: Unit | None = None  # of the barrier that is right before
    for spec in _segments(stages):
        segment = _segment(len(steps), spec, inputs, previous, settle)
        steps.append(segment)
        previous, settle = segment.units, None
        if spec.after is not None:
            reduce = _reduce(len(steps), spec.after, segment, partitions)
            final = _settle(len(steps) + 1, spec.after, reduce)
            steps += [reduce, final]
            settle = final.units[0]
    fingerprint = digest("plan", [step.folder for step in steps], [unit.fingerprint for unit in steps[-1].units])
    return Plan(name, tuple(inputs), tuple(stages), tuple(steps), fingerprint)


def _segments(stages: Sequence[Named]) -> Iterator[Spec]:
    """Cut at barriers and saves."""
    source: Named | None = stages[0]
    before: Named | None = None
    fused: list[Named] = []
    for named in stages[1:-1]:
        if isinstance(named[1], Barrier | Save):
            barrier = named if isinstance(named[1], Barrier) else None
            yield Spec("segment", tuple(fused), source=source, before=before, after=barrier, save=None if barrier else named)
            source, before, fused = None, barrier, []
        else:
            fused.append(named)
    yield Spec("segment", tuple(fused), source=source, before=before, sink=stages[-1])


def _folder(spec: Spec) -> str:
    described = {key: value and describe(value[1]) for key, value in _ends(spec).items()}
    name = digest(MACHINE, spec.kind, described, [describe(stage) for _, stage in spec.stages], spec.partitions)
    return f"steps/{spec.title()}-{name[:12]}"


def _ends(spec: Spec) -> Mapping[str, Named | None]:
    return {"source": spec.source, "before": spec.before, "after": spec.after, "sink": spec.sink}


def _unit(index: int, label: str, folder: str, parents: object, file: InputFile | None, inputs: tuple[str, ...]) -> Unit:
    fingerprint = digest(folder.rsplit("-", 1)[-1], parents)
    return Unit(index, label, fingerprint, f"{folder}/{fingerprint}.json", file, inputs)


def _segment(number: int, spec: Spec, inputs: Sequence[InputFile], previous: Sequence[Unit], settle: Unit | None) -> Step:
    folder = _folder(spec)
    if spec.source is not None:
        units = [_unit(i, file.name, folder, [file.name, file.stamp], file, ()) for i, file in enumerate(inputs)]
    elif settle is None:
        units = [_unit(unit.index, unit.label, folder, [unit.fingerprint], unit.file, (unit.manifest,)) for unit in previous]
    else:
        # The input's position is in the verdicts' addresses, so it is part of what a unit depends on.
        units = [
            _unit(i, unit.label, folder, [unit.fingerprint, settle.fingerprint, i], unit.file, (unit.manifest, settle.manifest))
            for i, unit in enumerate(previous)
        ]
    return Step(number, spec, folder, tuple(units))


def _reduce(number: int, barrier: Named, segment: Step, partitions: int) -> Step:
    spec = Spec("reduce", (barrier,), partitions=partitions)
    folder = _folder(spec)
    inputs = tuple(unit.manifest for unit in segment.units)
    parents = digest([unit.fingerprint for unit in segment.units])
    units = [_unit(p, f"{p + 1}/{partitions}", folder, [parents, p], None, inputs) for p in range(partitions)]
    return Step(number, spec, folder, tuple(units))


def _settle(number: int, barrier: Named, reduce: Step) -> Step:
    spec = Spec("settle", (barrier,))
    folder = _folder(spec)
    inputs = tuple(unit.manifest for unit in reduce.units)
    unit = _unit(0, "all", folder, [unit.fingerprint for unit in reduce.units], None, inputs)
    return Step(number, spec, folder, (unit,))
