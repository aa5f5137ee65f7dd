"""`build` and `plan`: run what a YAML describes, or tell what that would do.

Reads the config; writes the build into its output. Standard output ends with `build <id> <path of the manifest>`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from jobs.config import build_config
from jobs.build.progress import BuildProgress
from jobs.terminal import command, say, show_json, tell, warn
from pipeline.barren import told
from pipeline.drive import Engine, Options, Outcome, drive
from gristmill.errors import ConfigError, Damaged, StoreError, UserError
from pipeline.finish import is_finished
from pipeline.heartbeat import Heartbeat, Rhythm
from pipeline.plan import Plan, make_plan
from gristmill.storage.store import expand, open_store

BUILT, FAILED = 0, 3
AGAIN = 64  # input files up to which a finished build says again what is odd about it: their accounts are read for it


def plan_of(build: build_config.Build) -> Plan:
    """Return the plan of a build over the files that its source names now."""
    stages = [(build.source_name, build.source), *build.stages]
    try:
        inputs = expand(build.source.patterns(), warn)
    except UserError as error:
        raise ConfigError(f"source {build.source_name!r}: {error}", build.places[build_config.SOURCE]) from error
    if not inputs:
        advice = "paths is an empty list; give at least one file or pattern"
        raise ConfigError(f"source {build.source_name!r}: {advice}", build.places[build_config.SOURCE])
    return make_plan(build.name, stages, inputs, build.run.partitions)


def engine_of(build: build_config.Build, note: Callable[[str], None]) -> Engine:
    """Return the engine that `run.on` names; lines about how it goes are given to `note`."""
    run = build.run
    heart = Heartbeat(Rhythm(run.heartbeat, run.stalled_after, run.replace_stalled), note)
    if run.on == "ray":
        # Ray takes two seconds to import; a local build need not wait.
        from pipeline.cluster import RayEngine

        return RayEngine(run.workers, run.address, run.retries, run.pools, heart)
    from pipeline.local import LocalEngine

    return LocalEngine(run.workers or len(os.sched_getaffinity(0)), run.retries, run.pools, heart)


def run(path: str, overrides: Mapping[str, str], *, verify: bool = False) -> int:
    """Build; return the exit code. With `verify` all that is done is read and compared with its hashes first."""
    build = build_config.load(path, overrides)
    plan = plan_of(build)
    record = {
        "on": build.run.on,
        "workers": build.run.workers,
        "version": version("gristmill"),
        "config": build.text,
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
        for line in told(open_store(build.output), plan):
            warn(line)
    except (Damaged, StoreError) as error:  # of a build that is finished: its own files are whole
        warn(str(error))


def _tell(outcome: Outcome, build: build_config.Build, path: str) -> int:
    if outcome.build is None:
        mistakes = [f"{step}, {label}: {failure.message}" for step, label, failure in outcome.failures if failure.kind == "user"]
        if mistakes:
            raise UserError(mistakes[0])
        for step, label, failure in outcome.failures:
            tell(f"failed: {step}, {label}: {failure.message}")
        shards = f"{len(outcome.failures)} shard{'s' * (len(outcome.failures) > 1)}"
        tell(f"not built: {shards} failed; mend the cause and run `{command('build', path)}` again")
        return FAILED
    if outcome.reused:
        tell("nothing to do: this very build is finished")
    tell(f"next: {command('report', build.output)}")
    say(f"build {outcome.build} {outcome.manifest}")
    return BUILT


def show_plan(path: str, overrides: Mapping[str, str], *, as_json: bool) -> int:
    """Print the segments, what is built already and what would be computed; return the exit code."""
    build = build_config.load(path, overrides)
    plan = plan_of(build)
    store = open_store(build.output)
    steps = []
    for step in plan.steps:
        missing = {unit.fingerprint for unit in step.missing(store)}
        steps.append(
            {
                "name": step.name,
                "kind": step.spec.kind,
                "stages": [name for name, _ in step.spec.all()],
                "actors": step.spec.actor(),
                "units": len(step.units),
                "done": len(step.units) - len(missing),
                "folder": step.folder,
                "missing": [unit.label for unit in step.units if unit.fingerprint in missing],
            }
        )
    whole = {"name": plan.name, "plan": plan.fingerprint, "finished": is_finished(store, plan), "segments": steps}
    if as_json:
        show_json({**whole, "inputs": plan.lineage()["inputs"]})
        return BUILT
    say("\n".join(_lines(whole, len(plan.inputs), build, path)))
    return BUILT


def _lines(whole: Mapping[str, Any], inputs: int, build: build_config.Build, path: str) -> list[str]:
    lines = [f"{whole['name']} → {build.output} on {build.run.on}: {inputs} input file{'s' * (inputs != 1)}"]
    for step in whole["segments"]:
        todo = step["units"] - step["done"]
        state = "done" if not todo else f"{todo} of {step['units']} to compute" if step["done"] else f"{todo} to compute"
        where = " (actors)" if step["actors"] else ""
        lines.append(f"  {step['name']:<44} {' → '.join(step['stages'])}{where}: {state}")
    lines.append("finished: a rerun computes nothing" if whole["finished"] else f"run it: {command('build', path)}")
    return lines
