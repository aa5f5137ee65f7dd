"""The interfaces between the machine and the work: Source, Map, FlatMap, Filter, the two barriers, and Sink.

A stage is a frozen keyword-only dataclass whose fields are its parameters (they come straight from the YAML, see
`jobs/config/build_config.py`: str, int, float, bool, None, tuples of these, Literal, nested frozen dataclasses, unions). It does
nothing until `open()`, which loads what the work needs and returns the function that does it. That function is pure:
tables in, tables out, the same output for any split of the input into tables.

    Source    file                → tables of documents
    Map       table               → the same rows with columns added or replaced
    FlatMap   table               → one or several documents of each row (chunks)
    AskingMap table, answers      → the same, made of what somebody answers whose answers are kept (rephrasings)
    Filter    table               → a reason to drop each row, or null
    Exchange  rows by key         → verdicts on single documents (deduplication)
    Fit       rows by key         → one model, then a map with it (n-gram counts)
    Sink      tables of one input → files
    Save      a point where documents are kept

Mistakes in parameters raise ValueError in `__post_init__` (cheap checks) or `open()` raises UserError (files).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa

from gristmill.json_values import Json, Plain
from gristmill.storage.store import InputFile
from pipeline.finding import Finding
from pipeline.journal import Journal
from pipeline.lineage import Lineage
from pipeline.resources import Resources
from pipeline.schema import DOCUMENT, PARENT

Transform = Callable[[pa.Table], pa.Table]
Judge = Callable[[pa.Table], pa.Array]
Asker = Callable[[pa.Table, Journal], pa.Table]
Named = tuple[str, "Stage"]  # a stage with its name in the plan

# Metadata of a field of a stage that leaves no trace in what is built: where something is asked, how often it is tried again.
# It is in no fingerprint and in no manifest.
ASIDE: Mapping[str, bool] = {"aside": True}
# Of one that is a condition on columns in SQL, or None (`gristmill/expressions.py`): these must exist before the stage.
CONDITION: Mapping[str, bool] = {"condition": True}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What all stages share.

    `version` is raised whenever the output for the same input and parameters changes; it is part of the fingerprint. Of a stage
    that is not this project's the hash of its code is part of it, too.
    """

    version: ClassVar[int] = 1

    def needs(self) -> tuple[str, ...]:
        """Return the columns beyond `schema.DOCUMENT` that must exist before this stage; checked when planning."""
        return ()

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the columns that this stage adds (or whose type it changes).

        The machine holds it to that before any document is worked on: a column lost, added or of another type ends the unit.
        """
        return {}

    def gives(self) -> Mapping[str, pa.DataType]:
        """Return the columns that a document has from this stage on: those of `adds()`, and any that the machine adds for it."""
        return self.adds()

    def replaces(self) -> tuple[str, ...]:
        """Return those of `adds()` that another stage above it may give too: its own take their place.

        A column of any other stage that is given already is refused when planning.
        """
        return ()

    def measures(self) -> tuple[str | tuple[str, ...], ...]:
        """Return which columns are worth a histogram (numbers, short strings, lists of numbers), and tuples to count together."""
        return ()

    def files(self) -> tuple[str, ...]:
        """Return paths whose content decides the output (models, tokenizers): hashed into the fingerprint."""
        return ()

    def libraries(self) -> tuple[str, ...]:
        """Return the distributions whose releases decide the output (parsers, models' engines, writers): as pip names them.

        Their installed versions are part of the fingerprint, and the same on all nodes. Not those that only compute what a
        standard or an exact test defines. `python` stands for Python itself, where its tables of Unicode decide.
        """
        return ()

    def attachments(self) -> Mapping[str, str]:
        """Return those of `files()` that a build may keep a copy of, so that others understand it: name there → path."""
        return {}

    def resources(self) -> Resources | None:
        """Return what processes of its own hold, where it needs such: it loads a model. `run.pools` may say otherwise.

        A Map with resources has a pool: processes apart from the segments, each of which opens it once, on every engine
        (`pipeline/engines/remote_pool.py`). The model of a Fit is opened in the segments' processes; with resources these are
        kept for a step on Ray. None: it is opened in the processes of segments.
        """
        return None

    def check(self) -> None:
        """Raise UserError when something the parameters name cannot be used; called once by the driver when planning."""

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return what decided on one document: the numbers that were looked at, each with its limits (for `explain`).

        They must come from the code that decides: a second formula would be right until one of the two is changed.

        Args:
            before: the document as this stage was given it: a table of one row.
            after: the same as it left the stage, with the columns of `adds()` and with `drop`.
        """
        return ()


@dataclass(frozen=True, kw_only=True)
class Source(Stage):
    """Yields the documents of one input file in tables of bounded size, in file order.

    Tables have the columns of `schema.DOCUMENT`, and may have `drop` and `error`: rows with a reason there are counted
    as dropped or quarantined with their address. A damaged file never raises: what is readable comes, then one row with
    `error` stands for the rest. Errors of the store (OSError) propagate. A line in a table's metadata, under `schema.NOTE`, is
    told to whoever builds.
    """

    addresses_unpacked: ClassVar[bool] = False  # its offsets count what a compressed file holds, not the bytes of the file

    paths: str | tuple[str, ...]

    def patterns(self) -> str | tuple[str, ...]:
        """Return the files to read: paths, and patterns of such. Raises UserError when they cannot be named."""
        return self.paths

    def resolved(self) -> Self:
        """Return the source with all that it takes from its files written out as parameters: called once, for a config.

        So what a unit does is in its parameters, whatever files there are when it is done. Raises UserError.
        """
        return self

    def of_build(self) -> str | None:
        """Return the id of the finished build whose tokens it yields; None: it yields documents to make one of."""
        return None

    def schema(self) -> pa.Schema:
        """Return the schema of its tables: the columns of `schema.DOCUMENT` and of `adds()`, fields with their metadata."""
        return pa.schema([*DOCUMENT, *(pa.field(name, kind) for name, kind in self.adds().items())])

    def open(self) -> Callable[[InputFile, int], Iterator[pa.Table]]:
        """Return f(file, batch_rows) → tables of at most `batch_rows` rows."""
        raise NotImplementedError

    def fetch(self, file: InputFile, offset: int, length: int) -> pa.Table:
        """Read the one document at this address again (for `explain`): a table of one row."""
        raise NotImplementedError

    def explain_record(self, file: InputFile, offset: int, length: int) -> Sequence[Finding]:
        """Return what decided on the document at this address, as `explain` does for a stage behind the source.

        A source decides on bytes that no table has, so it reads them again, by the code of `fetch`.
        """
        return ()


@dataclass(frozen=True, kw_only=True)
class Map(Stage):
    """Returns the same rows with the columns of `adds()` added or replaced.

    It may also return `drop` and `error` columns (string, null = keep).
    """

    def open(self) -> Transform:
        """Load what is needed and return f(docs) → docs."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Making(Stage):
    """Makes documents of documents: one or several of each. What `FlatMap` and `AskingMap` share.

    Its function returns a row for each document that it makes, in the order of the parents:

        parent_row  int64, never null   the row of the parent in the given table
        text        string              and `media`, where that is another
        itself      bool                may be there: true in a row that is the parent, unchanged but for the columns of `adds()`
        adds()                          columns of its own
        drop error  string, null = keep may be there, as in a Map

    Each parent has at least one row: one of which nothing is made has a row with the reason in `drop` or `error`. In rows with a
    reason all else may be null. The machine gives the other columns: `id` (`schema.made_id`), `parent` (the id of the parent),
    and the parent's own, so that the address still leads to the raw record. A parent whose only row has a reason is itself what
    is dropped or quarantined, under its own id, which a row that is `itself` keeps, too. A chunker of three documents, the second
    of which is empty, may return

        parent_row  0      0       1        2
        text        one    two     null     three
        drop        null   null    empty    null

    Columns that were computed on the parent's text (tokens, scores) are the parent's still: such a stage stands before them.
    """

    def gives(self) -> Mapping[str, pa.DataType]:
        """Return `adds()` and `parent`."""
        return {**self.adds(), PARENT: pa.string()}


@dataclass(frozen=True, kw_only=True)
class FlatMap(Making):
    """Makes documents of documents, such as chunks of their text; see `Making`."""

    def open(self) -> Transform:
        """Load what is needed and return f(docs) → the rows of what is made of them."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class AskingMap(Making):
    """Makes documents of documents by answers that cannot be computed again: of a model behind an endpoint, say; see `Making`.

    Its function is pure in the documents and the answers. It asks through the journal that it is given with each table, which
    asks for what is not kept yet alone (`pipeline/journal.py`). So a unit that is run again gives the same bytes.
    """

    def subject(self) -> Mapping[str, Plain]:
        """Return what names its journal: what all its questions have in common, such as the model."""
        raise NotImplementedError

    def open(self) -> Asker:
        """Load what is needed and return f(docs, journal) → the rows of what is made of them."""
        raise NotImplementedError


AnyMap = Map | FlatMap


@dataclass(frozen=True, kw_only=True)
class Filter(Stage):
    """Names a reason for each row to drop, but for those for which `unless`, a parameter of all filters, is true."""

    unless: str | None = field(default=None, metadata=CONDITION)

    def open(self) -> Judge:
        """Return f(docs) → string array of drop reasons, null = keep; length = docs.num_rows."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Save(Stage):
    """Keep the documents as they are here, so that what stands behind can be changed without computing what stands before.

    It changes nothing: with it or without, the build is the same. It costs the disk that the documents take, compressed. Put it
    behind what is slow (an extractor, a model) and before what you are still trying out; deduplication keeps documents anyway, as
    they are before it.
    """


@dataclass(frozen=True, kw_only=True)
class Barrier(Stage):
    """A stage that needs rows of all inputs before it can decide on any.

    1. `open()`: on each table of each input, emit rows with a `key: uint64` (all rows of one key meet) and payload; an
       Exchange also emits `row: int64`, the index of the document in the given table (the machine turns it into the
       document's number in its input).
    2. `combine()`: optional, on all rows of one input before they are written (same columns).
    3. `reduce()`: on all rows of a range of keys, sorted by (key, shard, row); keys are never split between two calls.
       Exchange rows have `shard: int32`, the number of the input, and `row: int64`. How many keys share one call must not change
       the result.
    4. `settle()`: once, on the list of all the reduced tables in key order.
    """

    def open(self) -> Transform:
        """Return f(docs) → rows."""
        raise NotImplementedError

    def combine(self) -> Transform | None:
        """Return f(rows of an input) → fewer rows, or None."""
        return None

    def reduce(self) -> Transform:
        """Return f(rows sorted by key) → rows for `settle`."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Exchange(Barrier):
    """A barrier that ends in verdicts: rows of (shard, row, drop, and the columns of `adds()`).

    A document without a verdict is kept and gets `defaults()`.
    """

    def settle(self) -> Callable[[Sequence[pa.Table]], pa.Table]:
        """Return f(reduced tables) → verdicts: `shard: int32`, `row: int64`, `drop: string`, and `adds()`; a row a document."""
        raise NotImplementedError

    def defaults(self) -> Mapping[str, Json]:
        """Return the value of each column of `adds()` for documents without a verdict."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Fit(Barrier):
    """A barrier that ends in one model (a table of any columns), applied to every document after it.

    With `from: FOLDER` in a config it takes a published model (`pipeline/fitted.py`); only parameters of `applying` may differ.
    """

    applying: ClassVar[tuple[str, ...]] = ()

    def settle(self) -> Callable[[Sequence[pa.Table]], pa.Table]:
        """Return f(reduced tables) → the model as a table."""
        raise NotImplementedError

    def apply(self, model: pa.Table) -> Transform:
        """Open the model and return f(docs) → docs with the columns of `adds()`; like a Map."""
        raise NotImplementedError


@dataclass(frozen=True)
class Part:
    """One file that a sink wrote: its kind (`tokens`, `scores-rho1`), its number in its input, and figures for the manifest."""

    kind: str
    number: int
    path: Path
    rows: int
    stats: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """A committed part: where its bytes lie (relative to the output), their sha256 and size, and the input it is of.

    `shard`: the number of that input, in the order of the build.
    """

    shard: int
    input: str
    kind: str
    number: int
    data: str
    sha256: str
    bytes: int
    rows: int
    stats: Mapping[str, Any]


@dataclass(frozen=True)
class Attachment:
    """A file that a stage of the build attaches (its tokenizer): the name it would have in the build's folder, and its bytes."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Assembly:
    """A finished build: its id, and the files of its folder to link (name → data path) and to write in order (name → bytes)."""

    id: str
    links: Mapping[str, str]
    files: Mapping[str, bytes]
    manifest: str  # the name of the file that makes the others known: the last to be written


@dataclass(frozen=True, kw_only=True)
class Sink(Stage):
    """Writes the documents of one input to files; what has a column of `makes`, which it makes itself, is no plan."""

    makes: ClassVar[tuple[str, ...]] = ()

    def home(self) -> str | None:
        """Return the output that its files belong to, where they are for a build that is there already; else None."""
        return None

    def of_build(self) -> str | None:
        """Return the id of the finished build that it adds to; None: it makes one."""
        return None

    def open(self) -> Callable[[Iterator[pa.Table], Path], list[Part]]:
        """Return f(tables of one input, empty folder) → the parts written there; bytes depend on the documents alone."""
        raise NotImplementedError

    def assemble(self, parts: Iterable[Stored], lineage: Lineage, attachments: Sequence[Attachment] = ()) -> Assembly:
        """Name the files of the build and write its manifest; depends on its arguments alone (same id, same bytes).

        `lineage` is what the machine knows of the build's origin. `attachments`: those of all stages, in their order; the sink
        keeps what it has use for.
        """
        raise NotImplementedError
