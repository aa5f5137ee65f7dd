"""Run one unit of work in this process and commit it: a segment on an input, a reduce on a key range, or a settle.

Reads the unit's input (a source file, or what earlier units committed), writes data files named by their sha256, and last the
unit's manifest (`records.UnitRecord`), named by its fingerprint. What is committed already is not computed again; what is read of
it is compared with the hashes that were taken when it was written. Application errors on a document end in the ledger; errors
that stop the whole unit are raised.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from gristmill.errors import UnitFailed
from gristmill.json_values import Json
from gristmill.storage.store import Store, open_store
from pipeline import checked
from pipeline.conditions import judge_of
from pipeline.planning.plan import Spec, Unit
from pipeline.records import Data, PartData, UnitRecord, find_unit, pack, read_unit
from pipeline.schema import NOTE, check, odd_documents, undecided, undeclared
from pipeline.stage import AnyMap, AskingMap, Barrier, Exchange, Filter, Fit, Part, Sink, Source, Transform
from pipeline.units import exchange
from pipeline.units.answers import StoredAnswers
from pipeline.units.bisection import Watch
from pipeline.units.flow import Flow, Pool, StageRun
from pipeline.units.ledger import Tally, joint_name
from pipeline.units.opened import function_of, opened


@dataclass(frozen=True)
class Task:
    """A unit with all that a process anywhere needs to run it."""

    root: str
    spec: Spec
    unit: Unit
    inputs: int  # how many the plan has
    batch_rows: int
    memory: int | None = None  # bytes of private memory the process may take beyond what it has at the start
    poison: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # document id → (stage, error kind)
    careful: frozenset[int] = frozenset()  # numbers of the tables to take one document at a time


# (table number, stage, document id, documents that entered so far); of a barrier's unit what `_progress_of` says
Report = Callable[[int, str, str | None, int], None]


@dataclass
class _UnitResult:
    """What the work on a unit came to; `elsewhere_s` is CPU time of pools."""

    outputs: dict[str, Data] = field(default_factory=dict)
    parts: tuple[PartData, ...] = ()
    ledger: tuple[Mapping[str, Json], ...] = ()
    measures: Mapping[str, Json] = field(default_factory=dict)
    stage: str | None = None
    elsewhere_s: float = 0.0


def run_unit(task: Task, report: Report | None = None, pools: Mapping[str, Pool] | None = None) -> UnitRecord:
    """Run a unit unless it is committed already; return its manifest.

    Args:
        task: the unit.
        report: told before each piece of work where it is.
        pools: who does the work of these stages, by name; all others, and all without it, work in this process.

    Raises:
        UnitFailed: a stage that raises on everything.
        Damaged: what an earlier unit committed is missing or damaged.
        StoreError: the store failed, for a retry.
        Exception: whatever a stage raises in `open()`, a barrier in `reduce`, `settle`, or a sink.
    """
    store = open_store(task.root)
    committed = find_unit(store, task.unit.manifest)
    if committed is not None:
        return committed
    started = time.perf_counter()
    cpu = time.process_time()
    if report is not None:
        report(-1, "", None, 0)
    with store.scratch() as folder:
        if task.spec.kind == "segment":
            result = _segment(task, store, folder, report, pools or {})
        else:
            result = {"reduce": _reduce, "settle": _settle}[task.spec.kind](task, store, folder, _progress_of(task, report))
    seconds = {"wall": time.perf_counter() - started, "cpu": time.process_time() - cpu + result.elsewhere_s}
    record = UnitRecord(
        unit=task.unit.label,
        fingerprint=task.unit.fingerprint,
        outputs=result.outputs,
        parts=result.parts,
        ledger=result.ledger,
        measures=result.measures,
        seconds=seconds,
        stage=result.stage,
    )
    store.put_new(task.unit.manifest, pack(record))
    # Whoever was first decides; the data is the same, the timings are theirs.
    return read_unit(store, task.unit.manifest)


@dataclass
class _Emit:
    """The last stage run before a barrier: numbers the documents as they pass and writes the rows they emit."""

    emit: Transform
    writer: exchange.RunWriter
    next_row: int = 0

    def __call__(self, table: pa.Table) -> pa.Table:
        self.writer.add(self.emit(table), self.next_row)
        self.next_row += table.num_rows
        return table


@dataclass
class _Way:
    """How far a segment is: the number of the table that entered it last, and the documents of all that did."""

    report: Report | None
    number: int = -1
    entered: int = 0
    last: tuple[str, str | None] = ("", None)

    def at(self, stage: str, document: str | None) -> None:
        """Report the next piece of work."""
        self.last = (stage, document)
        if self.report is not None:
            self.report(self.number, stage, document, self.entered)

    def alive(self) -> None:
        """Report the same piece of work again: it takes long, and goes on."""
        self.at(*self.last)


def _segment(task: Task, store: Store, folder: Path, report: Report | None, pools: Mapping[str, Pool]) -> _UnitResult:
    way = _Way(report)
    tables, entry = _entry(task, store, way.at)
    stage_runs = _stage_runs(task, store, pools, way)
    writer = None
    if task.spec.after is not None:
        name, barrier = task.spec.after
        assert isinstance(barrier, Barrier)
        writer = exchange.RunWriter(folder, barrier.combine())
        stage_runs.append(StageRun(name, barrier, _Emit(opened(barrier, barrier.open), writer), "before"))
    flow = Flow(stage_runs, task.poison, way.at if report is not None else None, batch_rows=task.batch_rows)
    flowing = _flowing(task, tables, entry, flow, way)
    result = _UnitResult()
    accounts = [*([entry] if entry is not None else []), *stage_runs]
    if task.spec.sink is None:
        result.outputs["docs"] = _write(store, folder / "docs.arrow", flowing, "zstd")
        for index, (path, rows, ends) in enumerate(writer.close() if writer is not None else ()):
            result.outputs[f"rows-{index}"] = checked.commit(store, path, rows, ends)
    else:
        sink = StageRun(*task.spec.sink)
        result.parts = tuple(_commit_part(store, part) for part in _parts(sink, flowing, folder))
        accounts.append(sink)
    flow.finish()
    result.outputs |= _lost_outputs(store, folder, flow)
    result.elsewhere_s = flow.elsewhere_s
    assert all(run.tally.balanced() for run in accounts), [run.tally.plain() for run in accounts]
    result.ledger = tuple({**run.tally.plain(), **run.answered(), "phase": run.phase} for run in accounts)
    result.measures = {f"{r.name}.{column}": m.plain() for r in accounts for column, m in r.measures.items()}
    result.measures |= {f"{r.name}.{joint_name(columns)}": m.plain() for r in accounts for columns, m in r.joint.items()}
    return result


def _flowing(task: Task, tables: Iterator[pa.Table], entry: StageRun | None, flow: Flow, way: _Way) -> Iterator[pa.Table]:
    """Yield an empty table with the schema behind the last stage, then what is left of the documents."""

    def entering(tables: Iterator[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
        for way.number, table in enumerate(tables):
            way.entered += table.num_rows
            flow.careful = way.number in task.careful
            kept = flow.enter(entry, way.number, table) if entry is not None else table
            if kept.num_rows:
                yield way.number, kept

    first = next(tables)
    yield flow.schema(undecided(first.slice(0, 0)))
    yield from flow.stream(entering(itertools.chain([first], tables)))
    way.at((task.spec.after or task.spec.sink or task.spec.save or ("", None))[0], None)


def _entry(task: Task, store: Store, at: Watch) -> tuple[Iterator[pa.Table], StageRun | None]:
    """Return the tables that enter the segment, with decisions of the source or verdicts, and the run of that stage."""
    spec, unit = task.spec, task.unit
    if spec.source is not None:
        run = StageRun(*spec.source)
        return _timed(_read_source(task, at), run.tally), run
    before, *settles = unit.inputs
    tables = _read_docs(store, read_unit(store, before).outputs["docs"], before, task.batch_rows)
    if spec.before is None or isinstance(spec.before[1], Fit):
        return tables, None
    name, barrier = spec.before
    (settle,) = settles
    assert isinstance(barrier, Exchange)
    with checked.reading(store, read_unit(store, settle).outputs["settled"], settle) as file:
        verdicts = pa.Table.from_batches([file.get_batch(unit.index)])
    run = StageRun(name, barrier, phase="after")
    return _timed(_judged(tables, verdicts, barrier), run.tally), run


def _timed(tables: Iterator[pa.Table], tally: Tally) -> Iterator[pa.Table]:
    while True:
        cpu, wall = time.process_time(), time.perf_counter()
        table = next(tables, None)
        tally.cpu_s += time.process_time() - cpu
        tally.wall_s += time.perf_counter() - wall
        if table is None:
            return
        facts = table.schema.metadata or {}
        if NOTE in facts:
            tally.note(facts[NOTE].decode())
            table = table.replace_schema_metadata({key: value for key, value in facts.items() if key != NOTE})
        yield table


def _read_source(task: Task, at: Watch) -> Iterator[pa.Table]:
    assert task.spec.source is not None and task.unit.file is not None
    name, source = task.spec.source
    assert isinstance(source, Source)
    at("source", None)
    expected = source.schema()
    yield expected.empty_table()
    for table in opened(source, source.open)(task.unit.file, task.batch_rows):
        odd = undeclared(expected, table.schema, {})
        if odd:
            raise UnitFailed(
                f"source {name!r} breaks its contract: {'; '.join(odd)}; its tables have the columns of its schema()"
            )
        lacking = odd_documents(undecided(table))
        if lacking is not None:
            raise UnitFailed(f"source {name!r} breaks its contract: {lacking} (pipeline.schema says what its tables hold)")
        check(table, expected, f"source {name!r}")
        yield table
        at("source", None)


def _read_docs(store: Store, docs: Data, maker: str, batch_rows: int) -> Iterator[pa.Table]:
    with checked.reading(store, docs, maker) as file:
        yield file.schema.empty_table()
        for index in range(file.num_record_batches):
            table = pa.Table.from_batches([file.get_batch(index)])
            for start in range(0, table.num_rows, batch_rows):
                yield table.slice(start, batch_rows)


def _judged(tables: Iterator[pa.Table], verdicts: pa.Table, barrier: Exchange) -> Iterator[pa.Table]:
    row = 0
    for table in tables:
        yield exchange.apply_verdicts(table, row, verdicts, barrier.defaults())
        row += table.num_rows


def _stage_runs(task: Task, store: Store, pools: Mapping[str, Pool], way: _Way) -> list[StageRun]:
    found = []
    if task.spec.before is not None and isinstance(task.spec.before[1], Fit):
        name, fit = task.spec.before[0], task.spec.before[1]
        settle = task.unit.inputs[1]
        settled = read_unit(store, settle).outputs["settled"]

        def model() -> Transform:
            with checked.reading(store, settled, settle) as file:
                return fit.apply(file.read_all())

        found.append(StageRun(name, fit, opened(fit, model, settled.sha256, "apply"), "after"))
    for name, stage in task.spec.stages:
        pool = pools.get(name)
        if isinstance(stage, AskingMap):
            found.append(_asking(name, stage, task, store, way))
            continue
        assert isinstance(stage, AnyMap | Filter), "between a segment's ends are no others"
        how = functools.partial(judge_of, stage) if isinstance(stage, Filter) else stage.open
        found.append(StageRun(name, stage, opened(stage, how)) if pool is None else StageRun(name, stage, pool=pool))
    return found


def _asking(name: str, stage: AskingMap, task: Task, store: Store, way: _Way) -> StageRun:
    """Return the run of a stage that asks, with the journal of this unit's shard."""
    assert task.unit.file is not None, "the units of segments are of an input file"
    ask = opened(stage, stage.open)
    journal = StoredAnswers(store, stage.subject(), task.unit.file.name, way.alive)
    return StageRun(name, stage, lambda docs: ask(docs, journal), asked=journal.account)


def _parts(run: StageRun, tables: Iterator[pa.Table], folder: Path) -> list[Part]:
    assert isinstance(run.stage, Sink)
    parts_folder = folder / "parts"
    parts_folder.mkdir()

    before = Tally(run.name)

    def counted() -> Iterator[pa.Table]:
        for table in _timed(tables, before):
            run.tally.entered += table.num_rows
            run.tally.kept += table.num_rows
            yield table

    cpu, wall = time.process_time(), time.perf_counter()
    parts: list[Part] = opened(run.stage, run.stage.open)(counted(), parts_folder)
    # The sink pulls the documents through all stages: what is left without them is its own.
    run.tally.cpu_s = time.process_time() - cpu - before.cpu_s
    run.tally.wall_s = time.perf_counter() - wall - before.wall_s
    left = sum(table.num_rows for table in tables)
    assert not left, f"sink {run.name} left {left} documents unread"
    return parts


def _commit_part(store: Store, part: Part) -> PartData:
    data = checked.commit(store, part.path, part.rows)
    return PartData(**vars(data), kind=part.kind, number=part.number, stats=dict(part.stats))


def _lost_outputs(store: Store, folder: Path, flow: Flow) -> dict[str, Data]:
    lost = {"dropped": flow.dropped(), "quarantined": flow.quarantined()}
    return {
        role: _write(store, folder / f"{role}.arrow", iter([table]), "zstd") for role, table in lost.items() if table.num_rows
    }


def _write(store: Store, path: Path, tables: Iterator[pa.Table], compression: str | None = None) -> Data:
    """Write tables of one schema (that of the first) to an IPC file and commit it."""
    first = next(tables)
    with checked.Writer(path, first.schema, compression) as writer:
        for table in itertools.chain([first], tables):
            # One record batch a table; the cast fails where an input's documents gave another type.
            for batch in table.cast(first.schema).combine_chunks().to_batches():
                writer.write(batch)
    return checked.commit(store, path, writer.rows, tuple(writer.ends))


def _progress_of(task: Task, report: Report | None) -> exchange.Progress:
    """Return what a reduce or a settle tells how far it is, which reports it: what is counted stands with the stage."""

    def progress(done: int, whole: int, what: str) -> None:
        if report is not None:
            report(-1, f"{task.spec.stages[0][0]} (of {whole:,} {what})", None, done)

    return progress


def _reduce(task: Task, store: Store, folder: Path, progress: exchange.Progress) -> _UnitResult:
    ((stage, barrier),) = task.spec.stages
    assert isinstance(barrier, Barrier)
    work = function_of(barrier, barrier.reduce, "reduce")
    emitted = [
        (shard, name, record.outputs[f"rows-{index}"])
        for shard, (name, record) in enumerate((name, read_unit(store, name)) for name in task.unit.inputs)
        for index in range(sum(role.startswith("rows-") for role in record.outputs))
    ]
    mapped = len(emitted) <= exchange.MAPPED_RUNS
    runs = [(shard, functools.partial(checked.reading, store, rows, maker, mapped=mapped)) for shard, maker, rows in emitted]
    reduced = (work(rows) for rows in exchange.read_range(runs, task.unit.index, task.spec.partitions, progress=progress))
    return _UnitResult({"reduced": _write(store, folder / "reduced.arrow", reduced)}, stage=stage)


def _settle(task: Task, store: Store, folder: Path, progress: exchange.Progress) -> _UnitResult:
    ((stage, barrier),) = task.spec.stages
    assert isinstance(barrier, Exchange | Fit)
    tables = []
    for number, name in enumerate(task.unit.inputs):
        progress(number, len(task.unit.inputs), "reduced files")
        with checked.reading(store, read_unit(store, name).outputs["reduced"], name) as file:
            tables.append(file.read_all())
    progress(0, sum(table.num_rows for table in tables), "rows to settle")
    settled = function_of(barrier, barrier.settle, "settle")(tables)
    path = folder / "settled.arrow"
    if isinstance(barrier, Exchange):
        found = checked.commit(store, path, *exchange.write_verdicts(barrier, settled, task.inputs, path))
    else:
        found = _write(store, path, iter([settled]))
    return _UnitResult({"settled": found}, stage=stage)
