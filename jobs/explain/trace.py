"""Find a document in a finished build and take it through the stages again, one decision at a time.

Reads the record of a run, the unit manifests and data it names, and the raw record of the document from its input file.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import InputError, UserError
from gristmill.format import fields
from gristmill.format.manifest import Repeats, Shard, Sidecar
from gristmill.storage.store import InputFile, Store
from jobs.config import build_config
from jobs.html.markup import plural
from jobs.report.token_scores import whole_manifest
from pipeline.checked import Reader, reading
from pipeline.conditions import exempted, judge_of
from pipeline.finding import Finding, Value
from pipeline.planning.asking import asked
from pipeline.planning.code import is_ours
from pipeline.records import Data, RunRecord, read_unit, read_units
from pipeline.schema import DROP, ERROR, PARENT, undecided
from pipeline.stage import AskingMap, Exchange, Filter, Fit, FlatMap, Map, Save, Sink, Stage
from pipeline.units import exchange
from pipeline.units.answers import StoredAnswers
from pipeline.units.making import made_of

CHILDREN = 100  # of the documents made of one listed
ADDRESS = ["id", "url", "file", "offset", "length"]


@dataclass(frozen=True)
class Found:
    """A document of a build by its address; `lost` is the record of its drop or quarantine, if there is one.

    `parent`: the id of the document that it was made of, if it was.
    """

    id: str
    url: str | None
    file: str
    offset: int
    length: int
    lost: Mapping[str, Any] | None = None
    parent: str | None = None


@dataclass(frozen=True)
class Decision:
    """What one stage did: its verdict, what it looked at, the text after it.

    The verdict is `kept`, `dropped: reason`, `quarantined: error`, or `made N documents`, where the way of this one ends.
    `findings`: the numbers that decided first, then the columns that it added or changed.
    """

    stage: str
    verdict: str
    findings: Sequence[Finding] = ()
    text: str = ""
    changed: bool = False


class Trace:
    """A finished run, opened for questions about single documents."""

    def __init__(self, store: Store, record: RunRecord) -> None:
        self.store = store
        self.record = record
        self.build = build_config.from_record(fields.get(record.run, "config", dict, f"the run of build {record.build}"))
        self._steps = [(step.kind, step.units) for step in record.steps]

    def find(self, wanted: str) -> list[Found]:
        """Return every document with this id or URL, in the order of the inputs; of those made of others the one they are of.

        Raises:
            InputError: there is none.
        """
        found: dict[str, Found] = {}
        for kind, units in self._steps:
            if kind != "segment":
                continue
            for name, unit in zip(units, read_units(self.store, units), strict=True):
                for role, output in unit.outputs.items():
                    if role in ("docs", "dropped", "quarantined"):
                        with reading(self.store, output, name) as file:
                            _search(file, role, wanted, found)
                for part in unit.parts:
                    with reading(self.store, part, name) as file:
                        _search(file, "part", wanted, found)
        if not found:
            raise InputError(
                f"no document {wanted!r} in build {self.record.build[:12]} ({plural(len(self.record.inputs), 'input file')}); "
                "give a URL exactly as crawled or a document id of 32 hex digits, as the report lists them"
            )
        names = [file.name for file in self.record.inputs]
        return sorted(found.values(), key=lambda each: (names.index(each.file), each.offset))

    def raw(self, found: Found) -> pa.Table:
        """Read the document from its input file again: a table of one row.

        Raises:
            InputError: the input file is not where it was.
        """
        with self._input(found) as file:
            return self.build.source.fetch(file, found.offset, found.length)

    @contextlib.contextmanager
    def _input(self, found: Found) -> Iterator[InputFile]:
        entry = next(each for each in self.record.inputs if each.name == found.file)
        try:
            yield InputFile(found.file, entry.uri, entry.bytes, "")
        except FileNotFoundError as error:
            raise InputError(f"input file {entry.uri!r} is no longer there; put it back to see the raw record") from error

    def decisions(self, found: Found) -> Iterator[Decision]:
        """Take the document through the stages again, up to where it was lost or stored, or others were made of it.

        One that was made of another begins as that.
        """
        source, docs = self.build.source, self.raw(found)
        verdict = _verdict(docs)
        with self._input(found) as file:
            looked_at = _explanation(source, "explain_record", lambda: source.explain_record(file, found.offset, found.length))
        yield Decision(self.build.source_name, verdict, _with_columns(looked_at, docs.select([]), docs), _text(docs))
        docs = undecided(docs)
        barrier = 0
        for name, stage in self.build.stages:
            if verdict != "kept":
                return
            if found.lost is not None and found.lost["stage"] == name and found.lost["role"] == "quarantined":
                # It may have killed its process: that it did is on record, and not to be seen again here.
                error = Finding("error", found.lost["detail"])
                yield Decision(name, f"quarantined: {found.lost['reason']}", [error], _text(docs))
                return
            before = docs
            if isinstance(stage, Save):
                continue
            if isinstance(stage, Sink):
                yield Decision(name, "kept", self.stored(found), _text(docs))
                return
            if isinstance(stage, Exchange | Fit):
                docs = self._meet(stage, barrier, found, docs)
                barrier += 1
            elif isinstance(stage, FlatMap | AskingMap):
                children = made_of(docs, self._made(stage, found, docs), name, stage)
                docs = _followed(children, found)
                if not docs.num_rows:
                    yield _made(name, children, before)
                    return
            else:
                docs = _step(stage, docs)
            verdict = _verdict(docs)
            changed = _text(docs) != _text(before)
            skipped = exempted(stage, before)
            looked_at = skipped or _explanation(stage, "explain", functools.partial(stage.explain, before, docs))
            yield Decision(name, verdict, _with_columns(looked_at, before, docs), _text(docs), changed)
            docs = undecided(docs)

    def _made(self, stage: FlatMap | AskingMap, found: Found, docs: pa.Table) -> pa.Table:
        """Return what a stage makes of the document; one that asks has the answers that are kept, and asks nobody."""
        if isinstance(stage, FlatMap):
            return stage.open()(docs)
        return stage.open()(docs, StoredAnswers(self.store, stage.subject(), found.file, asking=False))

    def _meet(self, stage: Exchange | Fit, number: int, found: Found, docs: pa.Table) -> pa.Table:
        """Give the document the verdict or the model that all documents together came to."""
        settles = [units[0] for kind, units in self._steps if kind == "settle"]
        settled = read_unit(self.store, settles[number]).outputs["settled"]
        with reading(self.store, settled, settles[number]) as reader:
            if isinstance(stage, Fit):
                return stage.apply(reader.read_all())(docs)
            number_of_input = [each.name for each in self.record.inputs].index(found.file)
            row = self._row(number, number_of_input, docs["id"][0].as_py())
            verdicts = pa.Table.from_batches([reader.get_batch(number_of_input)])
            return exchange.apply_verdicts(docs, row, verdicts, stage.defaults())

    def _row(self, number: int, number_of_input: int, document: str) -> int:
        """Return the document's number in the segment before barrier `number`."""
        # The segment that ends in the barrier: others end in a save.
        before = [units for (_, units), (kind, _) in itertools.pairwise(self._steps) if kind == "reduce"]
        unit = before[number][number_of_input]
        with reading(self.store, read_unit(self.store, unit).outputs["docs"], unit) as file:
            ids = file.read_all()["id"]
        return int(pc.index(ids, document).as_py())

    def stored(self, found: Found) -> list[Finding]:
        """Return where the build holds the document: file and row."""
        name = self.record.manifest
        for shard in whole_manifest(self.store, name).shards:
            if shard.input != found.file:
                continue
            with of_build(self.store, name, shard) as file:
                table = file.read_all()
                ids = table["doc_id" if "doc_id" in table.column_names else "id"]
                row = pc.index(ids, found.id).as_py()
            if row >= 0:
                return [Finding("file", self.store.uri(f"{name.rpartition('/')[0]}/{shard.file}")), Finding("row", row)]
        return []


def of_build(store: Store, manifest: str, file: Shard | Repeats | Sidecar) -> contextlib.AbstractContextManager[Reader]:
    """Open a file that a build's manifest names. Raises Damaged where it is missing or not what was written."""
    folder = manifest.rpartition("/")[0]
    return reading(store, Data(data=f"{folder}/{file.file}", sha256=file.sha256, bytes=file.bytes, rows=0), manifest)


def _search(file: Reader, role: str, wanted: str, found: dict[str, Found]) -> None:
    for rows in _matching(file, wanted):
        for row in rows.to_pylist():
            if row["id"] != wanted and row["parent"] is not None:
                # By its URL, which it has of the document that it was made of, or by that document itself.
                row = {**row, "id": row["parent"], "parent": None}
                found.setdefault(row["id"], _found(row, None))
            elif role in ("dropped", "quarantined"):
                found[row["id"]] = _found(row, {**row, "role": role})
            else:
                found.setdefault(row["id"], _found(row, None))


def _matching(file: Reader, wanted: str) -> Iterator[pa.Table]:
    """Yield the rows that have this id or URL, or are made of the document with this id; `parent` is null where there is none."""
    names = ["doc_id" if name == "id" and "doc_id" in file.schema.names else name for name in ADDRESS]
    if not set(names) <= set(file.schema.names):
        return  # a sidecar
    extra = [name for name in ("stage", "reason", "detail") if name in file.schema.names]
    for index in range(file.num_record_batches):
        table = pa.Table.from_batches([file.get_batch(index)])
        parents = table[PARENT] if PARENT in table.column_names else pa.nulls(table.num_rows, pa.string())
        same = pc.equal(table[names[0]], wanted)
        for other in (table["url"], parents):
            same = pc.or_(same, pc.fill_null(pc.equal(other, wanted), False))
        hits = table.select([*names, *extra]).append_column(PARENT, parents).filter(same)
        if hits.num_rows:
            yield hits.rename_columns([*ADDRESS, *extra, PARENT])


def _found(row: Mapping[str, Any], lost: Mapping[str, Any] | None) -> Found:
    return Found(row["id"], row["url"], row["file"], row["offset"], row["length"], lost, row[PARENT])


def _followed(children: pa.Table, found: Found) -> pa.Table:
    """Return which of the documents made of one is wanted, or is what the wanted one was made of; no row where none is."""
    for name in (found.id, found.parent):
        row = pc.index(children["id"], name).as_py() if name is not None else -1
        if row >= 0:
            return children.slice(row, 1)
    return children.slice(0, 0)


def _made(name: str, children: pa.Table, parent: pa.Table) -> Decision:
    """Return the decision that ends the way of a document: the first of those that were made of it, id → verdict and size."""
    shown = []
    for row in range(min(children.num_rows, CHILDREN)):
        child = children.slice(row, 1)
        shown.append(Finding(child["id"][0].as_py(), f"{_verdict(child)}, {plural(len(_text(child).encode()), 'byte')} of text"))
    return Decision(name, f"made {plural(children.num_rows, 'document')}", shown, _text(parent))


def _step(stage: Stage, docs: pa.Table) -> pa.Table:
    if isinstance(stage, Filter):
        return docs.append_column(pa.field(DROP, pa.string()), judge_of(stage)(docs))
    assert isinstance(stage, Map)
    return stage.open()(docs)


def _explanation(stage: Stage, method: str, how: Callable[[], object]) -> Sequence[Finding]:
    """Return what a stage says of its decision. Raises UserError when a stage of the user's own raises, or says no findings."""
    name = type(stage).__name__
    try:
        found = asked(type(stage), method, how)
    except UserError as error:
        if is_ours(type(stage)):
            raise
        raise UserError(f"stage {name}: {error}") from error
    if not isinstance(found, Sequence) or not all(isinstance(each, Finding) for each in found):
        raise UserError(f"stage {name}: its {method}() returns {found!r:.80}, expected a tuple of pipeline.finding.Finding")
    return found


def _with_columns(found: Sequence[Finding], before: pa.Table, after: pa.Table) -> list[Finding]:
    """Return what a stage says of its decision, and the columns that it added or changed."""
    shown = {each.name for each in found}
    return [*found, *(Finding(name, value) for name, value in _columns(after, before).items() if name not in shown)]


def _verdict(docs: pa.Table) -> str:
    for column, word in ((ERROR, "quarantined"), (DROP, "dropped")):
        value = docs[column][0].as_py() if column in docs.column_names else None
        if value is not None:
            return f"{word}: {value}"
    return "kept"


def _columns(docs: pa.Table, before: pa.Table) -> dict[str, Value]:
    """Return the small values that the stage added or changed."""
    hidden = {"text", DROP, ERROR}
    row = {}
    for f in docs.schema:
        if f.name in hidden:
            continue
        value = docs[f.name][0].as_py()
        # As text, since a document's first token has NaN for a score, which equals nothing.
        if f.name not in before.column_names or repr(before[f.name][0].as_py()) != repr(value):
            row[f.name] = _short(value) if pa.types.is_nested(f.type) else value
    return row


def _short(values: list[object] | dict[str, object] | None) -> str | None:
    """Return how many values there are; of marks how many are set."""
    if isinstance(values, list) and values and isinstance(values[0], bool):
        return f"{values.count(True)} of {len(values)} set"
    return f"{len(values)} values" if values is not None else None


def _text(docs: pa.Table) -> str:
    return str(docs["text"][0].as_py())
