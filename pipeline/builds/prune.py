"""What an output folder holds that no finished build needs: which files, and how to take them away.

Reads the records of runs and the manifests of the units that they name; removes files. A build is finished when the folder
`builds/<id>/` has a manifest; needed is whatever the runs that led to finished builds computed or found there, since reports,
explanations and the next night's build read it. All else was left by configs that never came to an end, by builds whose folder
was deleted, by versions of before, and by killed processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gristmill.errors import Damaged, InputError
from gristmill.storage.store import Store
from pipeline.records import DATA, READERS, RUN, UNIT, Lead, find_finished, find_lead, read_run, read_unit, runs

FINISHED = re.compile(r"finished/[0-9a-f]{32}\.json")


@dataclass(frozen=True)
class Unneeded:
    """A file that nothing needs, by its name in the store, with its bytes."""

    name: str
    bytes: int


def unneeded(store: Store) -> list[Unneeded]:
    """Return the files that no finished build needs, in the order in which they may be removed.

    What leads to a file comes before it, so that a removal that is stopped leaves nothing that leads nowhere.

    Raises:
        InputError: a record that cannot be read, so that what it needs is not known.
    """
    finished = {folder for folder in store.folders("builds") if _manifests(store, folder)}
    kept_runs, kept_units = _kept(store, finished)
    kept_data = _data(store, kept_units)
    found = [file for file in _files(store, "finished", FINISHED) if not _leads_to_one(store, file.name, kept_runs)]
    found += [file for file in _files(store, "runs", RUN) if file.name not in kept_runs]
    for folder in store.folders("steps"):
        found += [file for file in _files(store, f"steps/{folder}", UNIT) if file.name not in kept_units]
    for folder in store.folders("builds"):
        found += _files(store, f"builds/{folder}", None) if folder not in finished else []
    for folder in store.folders("data"):
        found += [file for file in _files(store, f"data/{folder}", DATA) if file.name not in kept_data]
    return found


def refuse_live(store: Store) -> None:
    """Raise InputError while a build is running in the output: what it has committed is not needed by a finished one yet."""
    live = store.live()
    if live:
        raise InputError(
            f"{store.root}: a build is running there ({store.uri(live[0])}); wait for its end. If it was killed on another "
            "machine, delete that file"
        )


def _manifests(store: Store, folder: str) -> list[str]:
    """Return the files by which a build's folder is finished: they are the last to be written."""
    return [name for name in store.list(f"builds/{folder}") if name == "manifest.json"]


def _kept(store: Store, finished: set[str]) -> tuple[set[str], set[str]]:
    """Return the records of runs that led to finished builds, and the manifests of units that they name."""
    kept_runs, kept_units = set(), set()
    for name in runs(store):
        try:
            lead = find_lead(store, name)
            if lead is None or (lead.build not in finished and not _stands(store, lead)):
                continue
            record = read_run(store, name)
        except Damaged as error:
            raise InputError(
                f"{error.what}; what it needs is not known. Run its build again and delete the file, or put it back"
            ) from error
        kept_runs |= {name} | ({lead.again} if lead.again else set())
        kept_units |= {unit for step in record.steps for unit in step.units}
    return kept_runs, kept_units


def _stands(store: Store, lead: Lead) -> bool:
    """Tell whether a build has a manifest in a folder that is a link; raise InputError where it has lost the manifest alone."""
    if store.exists(lead.manifest):
        return True
    if store.sizes(f"builds/{lead.build}"):
        raise InputError(
            f"{store.uri(lead.manifest)} was written and is missing, other files of the build are there; run its build again, "
            "which puts it back, or delete the folder, if the build is not wanted"
        )
    return False


def _data(store: Store, units: set[str]) -> set[str]:
    """Return the files that units committed."""
    with ThreadPoolExecutor(READERS) as pool:
        return {data.data for unit in pool.map(lambda name: read_unit(store, name), sorted(units)) for data in unit.files()}


def _leads_to_one(store: Store, name: str, kept_runs: set[str]) -> bool:
    try:
        finished = find_finished(store, name)
    except Damaged:
        return False  # the next run of its plan writes it again
    return finished is not None and finished.record in kept_runs


def _files(store: Store, folder: str, pattern: re.Pattern[str] | None) -> Iterator[Unneeded]:
    """Yield the files of a folder whose names are of the machine's making."""
    for name, size in store.sizes(folder).items():
        if pattern is None or pattern.fullmatch(f"{folder}/{name}"):
            yield Unneeded(f"{folder}/{name}", size)
