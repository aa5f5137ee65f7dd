"""What moved under a build since one of its runs: versions of stages and of their libraries, code of the user's own.

Reads a run's record, in which `origins` has put what that was made with; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from gristmill.errors import Damaged, InputError
from jobs.config.build_config import Build
from pipeline.builds.locate import LocatedRun, locate_run
from pipeline.planning.fingerprint import origin

ORIGINS = "origins"  # the key in a run's record


def origins(build: Build) -> dict[str, dict[str, str]]:
    """Return what each stage of a build is made with, by its name in the ledger."""
    return {name: origin(stage) for name, stage in ((build.source_name, build.source), *build.stages)}


def moved(build: Build) -> Iterator[str]:
    """Yield a line for each stage of the newest run that has other code or libraries now: why it is computed again."""
    try:
        found = locate_run(build.output)
    except (InputError, Damaged):  # nothing was built there, or its record cannot be read
        return
    yield from moved_since(found, build)


def moved_since(run: LocatedRun, build: Build) -> Iterator[str]:
    """Yield a line for each stage of a run that has other code or libraries in this build now."""
    now = origins(build)
    for name, then in run.record.run.get(ORIGINS, {}).items():
        changes = [f"{what} {then.get(what, 'none')} → {new}" for what, new in now.get(name, {}).items() if then.get(what) != new]
        if changes:
            yield f"moved since {run.name}: {name}: {', '.join(changes)}"
