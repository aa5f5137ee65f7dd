"""What the machine writes down of its work: the manifest of a unit, the record of a run, the record of a finished plan.

Reads and writes small JSON files of a store. Each holds a hash of its own content (`check`), so a damaged one is known from a
missing one and from a sound one, and every error names the file. What a record says is checked before it is used: the names of
files in it lead nowhere outside of the store.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import xxhash

from gristmill.errors import Damaged, FormatError, StoreError
from gristmill.format import fields
from gristmill.format.build import MANIFEST, RUNS
from gristmill.storage.store import Store
from pipeline.accounts import parse_languages, parse_ledger, parse_measures, parse_run, parse_seconds
from pipeline.lineage import BuildInput, BuildStage, parse_inputs, parse_stages

READERS = 16  # threads that read small files: latency-bound on S3
CHECK = "check"  # the key of a record's hash of itself
DATA = re.compile(r"data/[0-9a-f]{2}/[0-9a-f]{64}\.arrow")
UNIT = re.compile(r"steps/(?!\.)[^/\x00]+/[0-9a-f]{32}\.json")
RUN = re.compile(rf"{RUNS}/[A-Za-z0-9][A-Za-z0-9._-]*\.json")
RUN_NUMBER = re.compile(r"run-([0-9]{8,})\.json")


@dataclass(frozen=True, kw_only=True)
class Data:
    """A committed file: its name in the store, the sha256 of its bytes, its size and rows.

    `ends` are the positions at which its checked ranges end, one for each record batch and one for what is behind the last;
    `hashes` are their xxh3_64. So a reader of some record batches checks what it reads. Both are empty for files of a sink.
    """

    data: str
    sha256: str
    bytes: int
    rows: int
    ends: tuple[int, ...] = ()
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PartData(Data):
    """A committed file of a sink, with what the sink says of it."""

    kind: str
    number: int
    stats: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class UnitRecord:
    """The manifest of a unit: what it committed, and the account of its documents; nothing of the unit's place in a plan."""

    unit: str
    fingerprint: str
    outputs: Mapping[str, Data]
    parts: tuple[PartData, ...]
    ledger: tuple[Mapping[str, Any], ...]
    measures: Mapping[str, Any]
    seconds: Mapping[str, float]
    stage: str | None = None  # of a barrier's reduce or settle

    def files(self) -> tuple[Data, ...]:
        """Return all files that it committed."""
        return (*self.outputs.values(), *self.parts)


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """A step of a run: the manifests of its units in the order of the plan, and how many of them the run computed."""

    name: str
    kind: str
    stages: tuple[str, ...]
    units: tuple[str, ...]
    done: int


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run that led to a build. Addresses of verdicts number the inputs as `inputs` stand here."""

    build: str
    manifest: str
    name: str
    inputs: tuple[BuildInput, ...]
    stages: tuple[BuildStage, ...]
    run: Mapping[str, Any]
    steps: tuple[StepRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Lead:
    """What every record of a run says: the build it led to. `again`: the run that made it, where there was nothing to do."""

    build: str
    manifest: str
    again: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a plan came to: the build, the run that made it, and the sizes of the files in the build's folder by name.

    `content`: the xxh3_64 of the build's manifest.
    """

    build: str
    manifest: str
    record: str
    files: Mapping[str, int]
    content: str


Record = UnitRecord | RunRecord | Lead | Finished


# ---- writing ----


def pack(content: Record) -> bytes:
    """Return a record as JSON with the hash of itself."""
    return pack_plain(asdict(content, dict_factory=_without_empty))


def pack_plain(content: Mapping[str, Any]) -> bytes:
    """Return plain data as JSON with the hash of itself."""
    # There and back, so that the hash is over what a reader will see.
    plain = json.loads(json.dumps(content, ensure_ascii=False))
    return json.dumps({**plain, CHECK: _hash(plain)}, indent=1, ensure_ascii=False).encode()


def add_run(store: Store, content: RunRecord | Lead) -> str:
    """Write the record of a run under the next number; return its name.

    Numbers, not times: which run is the newest does not depend on anyone's clock. They sort behind names that begin with a time,
    as they were before.
    """
    numbers = (RUN_NUMBER.fullmatch(name) for name in store.list("runs"))
    number = max((int(found[1]) for found in numbers if found), default=0) + 1
    while not store.put_new(f"runs/run-{number:08d}.json", pack(content)):
        number += 1
    return f"runs/run-{number:08d}.json"


def _without_empty(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a record without those that say nothing."""
    return {key: value for key, value in pairs if value is not None and not (key in ("ends", "hashes") and not value)}


# ---- reading ----


def find_unit(store: Store, name: str) -> UnitRecord | None:
    """Return the manifest of a unit, or None when it is not committed. Raises Damaged."""
    content = find_plain(store, name)
    if content is None:
        return None
    with reading(store, name) as where:
        return UnitRecord(
            unit=fields.get(content, "unit", str, where),
            fingerprint=fields.get(content, "fingerprint", str, where),
            outputs={role: _data(each, f"{where}: {role}") for role, each in _object(content, "outputs", where).items()},
            parts=tuple(_part(each, f"{where}: parts") for each in _objects(content, "parts", where)),
            ledger=parse_ledger(_objects(content, "ledger", where), f"{where}: ledger"),
            measures=parse_measures(_object(content, "measures", where), f"{where}: measures"),
            seconds=parse_seconds(_object(content, "seconds", where), f"{where}: seconds"),
            stage=None if fields.absent(content, "stage") else fields.get(content, "stage", str, where),
        )


def read_unit(store: Store, name: str) -> UnitRecord:
    """Return the manifest of a unit that was committed. Raises Damaged when it is missing too."""
    found = find_unit(store, name)
    if found is None:
        raise Damaged(f"{store.uri(name)} was committed and is missing", name)
    return found


def read_units(store: Store, names: Sequence[str]) -> list[UnitRecord]:
    """Read the manifests of units side by side, in the order of their names.

    Raises:
        Damaged: one cannot be read.
        StoreError: one is missing.
    """
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda name: find_unit(store, name), names))
    missing = [name for name, unit in zip(names, found, strict=True) if unit is None]
    if missing:
        advice = "`python -m jobs build CONFIG --verify` puts it back"
        raise StoreError(f"{store.uri(missing[0])} was committed and is gone; {advice}")
    return [unit for unit in found if unit is not None]


def find_finished(store: Store, name: str) -> Finished | None:
    """Return what a plan came to, or None when it is not finished. Raises Damaged."""
    content = find_plain(store, name)
    if content is None:
        return None
    with reading(store, name) as where:
        lead, files = _lead(content, where), _object(content, "files", where)
        record = fields.matching(content, "record", RUN, where)
        hash_ = fields.get(content, "content", str, where)
        return Finished(build=lead.build, manifest=lead.manifest, record=record, files=files, content=hash_)


def runs(store: Store) -> list[str]:
    """Return the names of the records of runs, the newest first."""
    return [f"runs/{name}" for name in sorted(store.list("runs"), reverse=True) if name.endswith(".json")]


def find_lead(store: Store, name: str) -> Lead | None:
    """Return what the record of a run leads to, or None when there is none of this name. Raises Damaged."""
    content = find_plain(store, name)
    if content is None:
        return None
    with reading(store, name) as where:
        return _lead(content, where)


def read_run(store: Store, name: str) -> RunRecord:
    """Return the record of a run; of one that had nothing to do, the record of the run that made its build. Raises Damaged."""
    content = find_plain(store, name)
    if content is not None and "again" in content:
        with reading(store, name) as where:
            name = fields.matching(content, "again", RUN, where)
        content = find_plain(store, name)
    if content is None:
        raise Damaged(f"{store.uri(name)} is missing", name)
    with reading(store, name) as where:
        lead = _lead(content, where)
        return RunRecord(
            build=lead.build,
            manifest=lead.manifest,
            name=fields.get(content, "name", str, where),
            inputs=parse_inputs(fields.get(content, "inputs", list, where), f"{where}: inputs"),
            stages=parse_stages(fields.get(content, "stages", list, where), f"{where}: stages"),
            run=parse_run(_object(content, "run", where), f"{where}: run"),
            steps=tuple(_step(each, f"{where}: steps") for each in _objects(content, "steps", where)),
        )


@contextlib.contextmanager
def reading(store: Store, name: str) -> Iterator[str]:
    """Give the name of a record for messages, and turn what is found wrong with its content into Damaged."""
    where = store.uri(name)
    try:
        yield where
    except FormatError as error:
        raise Damaged(f"{error}: the record is damaged, or of another version", name) from error


def find_plain(store: Store, name: str) -> dict[str, Any] | None:
    """Return the content of a record without its hash, which is compared; None when there is none. Raises Damaged."""
    try:
        raw = store.read(name)
    except FileNotFoundError:
        return None
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise Damaged(f"{store.uri(name)} is damaged: it cannot be read as JSON ({why})", name) from error
    if not isinstance(content, dict):
        raise Damaged(f"{store.uri(name)} is damaged: it holds no object but {type(content).__name__}", name)
    check = content.pop(CHECK, None)
    # Records of runs had none when their names began with a time.
    if check is None and name.startswith("runs/") and not RUN_NUMBER.fullmatch(name.removeprefix("runs/")):
        return content
    if check != _hash(content):
        raise Damaged(f"{store.uri(name)} is damaged: it is not what was written ({CHECK!r} is no hash of it)", name)
    return content


def _hash(content: object) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return xxhash.xxh3_64_hexdigest(canonical.encode("utf-8", "surrogatepass"))


def _lead(content: object, where: str) -> Lead:
    build = fields.matching(content, "build", fields.FILE, where)
    manifest = fields.matching(content, "manifest", MANIFEST, where)
    again = None if fields.absent(content, "again") else fields.matching(content, "again", RUN, where)
    return Lead(build=build, manifest=manifest, again=again)


def _data(content: object, where: str) -> Data:
    return Data(**_file(content, where))


def _part(content: object, where: str) -> PartData:
    own = {"kind": str, "number": int, "stats": dict}
    parse_languages(_object(content, "stats", where), f"{where}: stats")
    return PartData(**_file(content, where), **{key: fields.get(content, key, kind, where) for key, kind in own.items()})


def _file(content: object, where: str) -> dict[str, Any]:
    found = {
        "data": fields.matching(content, "data", DATA, where),
        "sha256": fields.matching(content, "sha256", fields.SHA256, where),
        "bytes": fields.get(content, "bytes", int, where),
        "rows": fields.get(content, "rows", int, where),
    }
    for key in ("ends", "hashes"):
        found[key] = () if fields.absent(content, key) else tuple(fields.get(content, key, list, where))
    if len(found["ends"]) != len(found["hashes"]):
        raise FormatError(f"{where}: {len(found['ends'])} ends of ranges and {len(found['hashes'])} hashes")
    return found


def _step(content: object, where: str) -> StepRecord:
    units = tuple(fields.get(content, "units", list, where))
    for name in units:
        if not isinstance(name, str) or not UNIT.fullmatch(name):
            raise FormatError(f"{where}: unit {name!r} must match {UNIT.pattern}")
    return StepRecord(
        name=fields.get(content, "name", str, where),
        kind=fields.get(content, "kind", str, where),
        stages=tuple(fields.get(content, "stages", list, where)),
        units=units,
        done=fields.get(content, "done", int, where),
    )


def _object(content: object, key: str, where: str) -> dict[str, Any]:
    found: dict[str, Any] = fields.get(content, key, dict, where)
    return found


def _objects(content: object, key: str, where: str) -> tuple[dict[str, Any], ...]:
    found = fields.get(content, key, list, where)
    if not all(isinstance(each, dict) for each in found):
        raise FormatError(f"{where}: {key!r} must be a list of objects")
    return tuple(found)
