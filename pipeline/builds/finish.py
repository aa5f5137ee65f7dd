"""The end of a plan: a finished build's folder, the record of the run that made it, and the record that the plan is done.

Reads the manifests of the last step's units; links the files of the sink into `builds/<id>/`, writes the build's manifest beside
them, then `runs/run-<number>.json`, and last `finished/<plan>.json`, which makes the next run of the same plan a few reads.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import xxhash

from gristmill.errors import Damaged
from gristmill.format import manifest as mf
from gristmill.json_values import Plain
from gristmill.storage.store import Store, open_read
from pipeline import records
from pipeline.checked import fault
from pipeline.planning.plan import Plan, Step
from pipeline.records import READERS, Finished, Lead, RunRecord, StepRecord, UnitRecord
from pipeline.stage import Assembly, Attachment, Stored

Note = Callable[[str], None]  # is given what was found damaged


def manifests(store: Store, step: Step) -> list[UnitRecord]:
    """Return the manifests of all units of a step, in order; raises as `read_units`."""
    return records.read_units(store, [unit.manifest for unit in step.units])


def stored_parts(step: Step, found: Sequence[UnitRecord]) -> list[Stored]:
    """Return the parts that the units of the last step committed, in the order of the plan.

    Where a part stands is what the plan says now: its unit may have been computed when the inputs were others, in another place.

    Args:
        step: the last.
        found: the manifests of its units, in order.
    """
    parts = [
        Stored(place, unit.label, p.kind, p.number, p.data, p.sha256, p.bytes, p.rows, p.stats)
        for place, (unit, record) in enumerate(zip(step.units, found, strict=True))
        for p in record.parts
    ]
    addresses = [(part.shard, part.number, part.kind) for part in parts]
    assert len(set(addresses)) == len(addresses), f"two parts of one place: {Counter(addresses).most_common(1)}"
    return parts


def read_attachments(plan: Plan) -> list[Attachment]:
    """Read the files that the stages of a plan attach, in the order of the stages."""
    found = []
    for _, stage in plan.stages:
        for name, path in stage.attachments().items():
            with open_read(path) as file:
                found.append(Attachment(name, file.read()))
    return found


def sound_units(store: Store, names: Iterable[str], *, whole: bool) -> list[UnitRecord | str | None]:
    """Return the manifest of each unit; what is missing or damaged of it, if anything is; or None if the unit is not done.

    Args:
        store: of the build's output.
        names: of the units' manifests.
        whole: compare the content of all their files with its hash; else only the sizes of the files of sinks.
    """

    def one(name: str) -> UnitRecord | str | None:
        try:
            record = records.find_unit(store, name)
        except Damaged as error:
            return error.what
        for data in () if record is None else record.files() if whole else record.parts:
            wrong = fault(store, data.data, data.bytes, data.sha256 if whole else None)
            if wrong is not None:
                return f"{store.uri(data.data)} {wrong}"
        return record

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(one, names))


def is_finished(store: Store, plan: Plan) -> bool:
    """Tell whether there is a sound record that the plan is finished, without a look at the build."""
    with contextlib.suppress(Damaged):
        return records.find_finished(store, plan.finished()) is not None
    return False


def still_finished(store: Store, plan: Plan, note: Note) -> Finished | None:
    """Return what this plan came to if all of it is there: its record, that of its run, the build's files in their sizes.

    Of the build's manifest the content is compared, too: it is small, and says what the others should be.

    If another build was made after it in this output, a record says that this one is the newest again.
    """
    try:
        finished = records.find_finished(store, plan.finished())
        if finished is None:
            return None
        run = records.read_run(store, finished.record)
        if run.build != finished.build:
            raise Damaged(f"{store.uri(finished.record)} is of another build", finished.record)
    except Damaged as error:
        note(f"{error.what}; written again")
        return None
    folder, there = str(PurePosixPath(finished.manifest).parent), store.sizes(str(PurePosixPath(finished.manifest).parent))
    wrong = {name: there.get(name) for name, size in finished.files.items() if there.get(name) != size}
    for name, size in wrong.items():
        found = "is missing" if size is None else f"has {size} bytes, {finished.files[name]} were written"
        note(f"{store.uri(f'{folder}/{name}')} {found}; put back")
    if wrong:
        return None
    if finished.content != xxhash.xxh3_64_hexdigest(store.read(finished.manifest)):
        note(f"{store.uri(finished.manifest)} is not what was written; looked at again")
        return None
    newest = next(iter(records.runs(store)), None)
    if newest is not None and newest != finished.record and _leads_to(store, newest) != finished.record:
        records.add_run(store, Lead(build=finished.build, manifest=finished.manifest, again=finished.record))
    return finished


def _leads_to(store: Store, name: str) -> str | None:
    """Return the record that the record of a run with nothing to do refers to; None for all others."""
    with contextlib.suppress(Damaged):
        lead = records.find_lead(store, name)
        return None if lead is None else lead.again
    return None


def finish(
    plan: Plan,
    store: Store,
    run: Mapping[str, Plain],
    done: Mapping[str, int],
    found: Sequence[UnitRecord],
    *,
    whole: bool,
    note: Note,
) -> Finished:
    """Make the build's folder and write the records.

    Args:
        plan: all of whose units are done.
        store: of its output.
        run: when, how long and with what settings it ran, for the record.
        done: units that this run computed, by the names of steps.
        found: the manifests of the last step's units, in order.
        whole: compare what lies in the build's folder already with its hashes; else only sizes.
        note: is given what was damaged there.
    """
    parts = stored_parts(plan.steps[-1], found)
    lineage = plan.lineage()
    assembly = plan.sink().assemble(parts, lineage, read_attachments(plan))
    folder = f"builds/{assembly.id}"
    _link(store, folder, assembly, {part.data: part for part in parts}, whole=whole, note=note)
    for name, content in assembly.files.items():
        if not store.put_new(f"{folder}/{name}", content) and not _readable(store, f"{folder}/{name}", content):
            note(f"{store.uri(f'{folder}/{name}')} is damaged; put back")
            store.remove(f"{folder}/{name}")
            store.put_new(f"{folder}/{name}", content)
    manifest = f"{folder}/{assembly.manifest}"
    steps = tuple(_step(step, done[step.name]) for step in plan.steps)
    record = records.add_run(store, RunRecord(build=assembly.id, manifest=manifest, **vars(lineage), run=run, steps=steps))
    there = store.sizes(folder)
    files = {name: there[name] for name in (*assembly.links, *assembly.files)}
    hash_ = xxhash.xxh3_64_hexdigest(store.read(manifest))
    finished = Finished(build=assembly.id, manifest=manifest, record=record, files=files, content=hash_)
    store.remove(plan.finished())  # one that is there leads to what was damaged
    store.put_new(plan.finished(), records.pack(finished))
    return finished


def _link(store: Store, folder: str, assembly: Assembly, parts: Mapping[str, Stored], *, whole: bool, note: Note) -> None:
    """Make the files of the sink appear in the build's folder; what is there and is not what it should be is replaced."""
    there = store.sizes(folder)

    def link(name: str, data: str) -> None:
        part = parts[data]
        if name in there:
            wrong = fault(store, f"{folder}/{name}", part.bytes, part.sha256 if whole else None)
            if wrong is not None:
                note(f"{store.uri(f'{folder}/{name}')} {wrong}; put back")
                store.remove(f"{folder}/{name}")
        store.link_new(data, f"{folder}/{name}")

    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda each: link(*each), assembly.links.items()))


def _readable(store: Store, name: str, content: bytes) -> bool:
    """Tell whether a file that is there already can be what it should be.

    Of JSON only that it can be read, and of a manifest that it agrees with itself: manifests of one build may name other places
    of the inputs, and the first one stays.
    """
    there = store.read(name)
    if there == content or not name.endswith(".json"):
        return there == content
    try:
        found = json.loads(there)
        if name.endswith(f"/{mf.NAME}") and json.loads(content).get("format") == mf.FORMAT:
            mf.parse(found, name)
    except (ValueError, RecursionError):
        return False
    return True


def _step(step: Step, done: int) -> StepRecord:
    stages = tuple(name for name, _ in step.spec.all())
    return StepRecord(
        name=step.name, kind=step.spec.kind, stages=stages, units=tuple(unit.manifest for unit in step.units), done=done
    )
