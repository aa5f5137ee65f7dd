"""How a path leads to a finished run: its output, its build's folder or manifest, or the record of the run itself.

Reads the records of runs, the newest first. `gristmill/format/build.py` takes the same paths to a build's manifest, for those who
need no records.
"""

from __future__ import annotations

from dataclasses import dataclass

from gristmill.errors import InputError
from gristmill.format import manifest as mf
from gristmill.format.build import RUNS
from gristmill.storage.store import Store, open_store
from pipeline.records import RunRecord, find_lead, read_run, runs

ADDING = "sidecars"  # the sink of a run that adds columns to a build that was there


@dataclass(frozen=True)
class LocatedRun:
    """A finished run: its store, the output as a person typed it, the run's record, and the name of that in the store."""

    store: Store
    output: str
    record: RunRecord
    name: str

    @property
    def added(self) -> bool:
        """Tell whether the run added columns to a build that was there."""
        return [each.stage for each in self.record.stages[-1:]] == [ADDING]


def locate_run(path: str, *, made: bool = False) -> LocatedRun:
    """Find the run that `path` names: an output (its newest run), `runs/*.json`, `builds/<id>`, or the manifest in that.

    Args:
        path: local, `s3://` or `az://`.
        made: pass over runs that only added columns to a build.

    Raises:
        InputError: there is no finished run; says where it was looked for and what is allowed.
        Damaged: a record of a run that had to be looked at.
    """
    parts = path.rstrip("/").split("/")
    if parts[-1] == mf.NAME and parts[-3:-2] == ["builds"]:
        parts = parts[:-1]
    output, name, wanted = parts, None, None
    if parts[-1].endswith(".json") and parts[-2:-1] == [RUNS]:
        output, name = parts[:-2], f"{RUNS}/{parts[-1]}"
    elif parts[-2:-1] == ["builds"]:
        output, wanted = parts[:-2], parts[-1]
    root = "/".join(output) or ("/" if path.startswith("/") else ".")
    store = open_store(root)
    for each in [name] if name is not None else runs(store):
        lead = find_lead(store, each)
        if lead is None or wanted not in (None, lead.build):
            continue
        found = LocatedRun(store, root, read_run(store, each), each)
        if not (made and found.added):
            return found
    looked = store.uri(name or f"{RUNS}/")
    raise InputError(
        f"{path!r}: no finished build there (looked in {looked!r}). Give the output folder of a build, one of its builds/<id> or "
        f"one of its {RUNS}/*.json; `python -m jobs build CONFIG` makes them"
    )
