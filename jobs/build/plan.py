"""`plan`: tell what a build would compute.

Reads the config, and which units are done in its output; writes nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from gristmill.errors import ConfigError, UserError
from gristmill.storage.store import expand, open_store
from jobs.build.moved import moved
from jobs.config import build_config
from jobs.terminal import command, quoted, say, show_json, warn
from pipeline.builds.finish import is_finished
from pipeline.fitted import Fitted
from pipeline.planning.asking import asked
from pipeline.planning.plan import Plan, make_plan
from pipeline.planning.plan_check import content_faults
from pipeline.stage import Making

DONE = 0


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add what names a build: its config and `--set`."""
    parser.add_argument("config", help="the build's YAML")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a key, such as run.on=ray")


def overrides_of(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what `--set` overrides: dotted key → YAML. Raises UserError where one is no KEY=VALUE."""
    pairs = [pair.partition("=") for pair in arguments.set]
    for key, equals, _ in pairs:
        if not equals:
            raise UserError(f"--set {key}: give KEY=VALUE, such as --set run.workers=4")
    return {key: value for key, _, value in pairs}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `plan` takes."""
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="for machines")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    return show_plan(arguments.config, overrides_of(arguments), as_json=arguments.json)


def plan_of(build: build_config.Build) -> Plan:
    """Return the plan of a build over the files that its source names now."""
    stages = [(build.source_name, build.source), *build.stages]
    try:
        patterns = asked(type(build.source), "patterns", build.source.patterns)
        inputs = expand(patterns, warn)
    except UserError as error:
        raise ConfigError(f"source {build.source_name!r}: {error}", build.places[build_config.SOURCE]) from error
    if not inputs:
        advice = "paths is an empty list; give at least one file or pattern"
        raise ConfigError(f"source {build.source_name!r}: {advice}", build.places[build_config.SOURCE])
    for fault in content_faults(stages):
        raise ConfigError(fault.message, build.places[fault.at - 1])
    return make_plan(build.name, stages, inputs, build.run.partitions)


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
                "from": {
                    name: f"from {each.artifact.name}, {each.artifact.id[:8]}"
                    for name, each in step.spec.all()
                    if isinstance(each, Fitted)
                },
                "makes": [name for name, stage in step.spec.all() if isinstance(stage, Making)],
                "actors": step.spec.actor(),
                "units": len(step.units),
                "done": len(step.units) - len(missing),
                "folder": step.folder,
                "missing": [unit.label for unit in step.units if unit.fingerprint in missing],
            }
        )
    whole = {"name": plan.name, "plan": plan.fingerprint, "finished": is_finished(store, plan), "segments": steps}
    whole["moved"] = [] if whole["finished"] else list(moved(build))
    if as_json:
        show_json({**whole, "inputs": plan.lineage().plain()["inputs"]})
        return DONE
    changed = "".join(f" --set {quoted(f'{key}={value}')}" for key, value in overrides.items())
    say("\n".join(_lines(whole, len(plan.inputs), build, command("build", path) + changed)))
    return DONE


def _lines(whole: Mapping[str, Any], inputs: int, build: build_config.Build, run: str) -> list[str]:
    lines = [f"{whole['name']} → {build.output} on {build.run.on}: {inputs} input file{'s' * (inputs != 1)}"]
    for step in whole["segments"]:
        todo = step["units"] - step["done"]
        state = "done" if not todo else f"{todo} of {step['units']} to compute" if step["done"] else f"{todo} to compute"
        where = " (actors)" if step["actors"] else ""
        about = {**dict.fromkeys(step["makes"], "makes documents"), **step["from"]}
        stages = (f"{name} ({about[name]})" if name in about else name for name in step["stages"])
        lines.append(f"  {step['name']:<44} {' → '.join(stages)}{where}: {state}")
    lines += whole["moved"]
    lines.append("finished: a rerun computes nothing" if whole["finished"] else f"run it: {run}")
    return lines
