"""`build`: run what a YAML describes.

Reads the config; writes the build into its output. Standard output ends with `build <id> <path of the manifest>`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence

import gristmill
from gristmill.errors import Damaged, StoreError, UserError
from gristmill.storage.store import open_store
from jobs.build.moved import ORIGINS, origins
from jobs.build.plan import add_config, overrides_of, plan_of
from jobs.config import build_config
from jobs.html.markup import plural
from jobs.progress import BuildProgress
from jobs.terminal import command, say, tell, warn
from pipeline.builds.barren import remarks
from pipeline.engines.drive import Engine, Failed, Options, Outcome, drive
from pipeline.engines.heartbeat import Heartbeat, Rhythm
from pipeline.planning.plan import Plan

BUILT, FAILED = 0, 3
AGAIN = 64  # input files up to which a finished build says again what is odd about it: their accounts are read for it


def engine_of(build: build_config.Build, note: Callable[[str], None]) -> Engine:
    """Return the engine that `run.on` names; lines about how it goes are given to `note`."""
    run = build.run
    heart = Heartbeat(Rhythm(run.heartbeat, run.stalled_after, run.replace_stalled), note)
    if run.on == "ray":
        # Ray takes two seconds to import; a local build need not wait.
        from pipeline.engines.on_ray.cluster import RayEngine

        return RayEngine(run.workers, run.address, run.retries, run.pools, heart)
    from pipeline.engines.local import LocalEngine

    return LocalEngine(run.workers or len(os.sched_getaffinity(0)), run.retries, run.pools, heart)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `build` takes."""
    add_config(parser)
    wanted = "read all that is done, compare it with its hashes, and compute again what is damaged"
    parser.add_argument("--verify", action="store_true", help=wanted)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    return build_of(arguments.config, overrides_of(arguments), verify=arguments.verify)


def build_of(path: str, overrides: Mapping[str, str], *, verify: bool = False) -> int:
    """Build; return the exit code. With `verify` all that is done is read and compared with its hashes first."""
    build = build_config.load(path, overrides)
    plan = plan_of(build)
    record = {
        "on": build.run.on,
        "workers": build.run.workers,
        "version": gristmill.__version__,
        "config": build.text,
        ORIGINS: origins(build),
        "path": path,
    }
    options = Options(build.output, build.run.batch_rows, build.run.memory_bytes, record, verify)
    with BuildProgress() as progress:
        outcome = drive(plan, lambda: engine_of(build, progress.note), options, progress)
    if outcome.build is not None and (not outcome.reused or len(plan.inputs) <= AGAIN):
        _warn_of_inputs(build, plan)
    return _tell(outcome, build, path)


def _warn_of_inputs(build: build_config.Build, plan: Plan) -> None:
    try:
        for line in remarks(open_store(build.output), plan):
            warn(line)
    except (Damaged, StoreError) as error:  # of a build that is finished: its own files are whole
        warn(str(error))


def _by_message(failures: Sequence[Failed]) -> dict[str, list[str]]:
    """Return the units that failed by what they failed of: a stage that cannot be opened fails all of them alike."""
    found: dict[str, list[str]] = {}
    for step, label, failure in failures:
        found.setdefault(failure.message, []).append(f"{step}, {label}")
    return found


def _tell(outcome: Outcome, build: build_config.Build, path: str) -> int:
    if outcome.build is None:
        mistakes = [f"{step}, {label}: {failure.message}" for step, label, failure in outcome.failures if failure.kind == "user"]
        if mistakes:
            raise UserError(mistakes[0])
        for message, (first, *others) in _by_message(outcome.failures).items():
            tell(f"failed: {first}{f' and {len(others)} more' if others else ''}: {message}")
        units = plural(len(outcome.failures), "unit")
        tell(f"not built: {units} failed; mend the cause and run `{command('build', path)}` again")
        return FAILED
    if outcome.reused:
        tell("nothing to do: this very build is finished")
    tell(f"next: {command('report', build.output)}")
    say(f"build {outcome.build} {outcome.manifest}")
    return BUILT
