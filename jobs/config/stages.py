"""`stages`: the stages in the order documents meet them, or one with its parameters; written from their own docstrings."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import typing

from gristmill.errors import UserError
from jobs.config.own_stages import is_own, own_stage
from jobs.config.yaml_nodes import suggest
from jobs.terminal import say
from pipeline.stage import Exchange, Filter, Fit, FlatMap, Map, Save, Sink, Source, Stage
from stages import STAGES

KINDS = {
    Source: "source",
    Map: "map",
    FlatMap: "flat map",
    Filter: "filter",
    Exchange: "exchange",
    Fit: "fit",
    Save: "save",
    Sink: "sink",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `stages` takes."""
    parser.add_argument("name", nargs="?")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    return show(arguments.name)


def show(name: str | None) -> int:
    """Print them; return the exit code."""
    if name is None:
        width = max(map(len, STAGES))
        for key, stage in STAGES.items():
            say(f"{key:<{width}}  {_kind(stage):<8}  {_first_line(stage)}")
        return 0
    if is_own(name):
        say("\n".join(_describe(name, own_stage(name, STAGES))))
        return 0
    if name not in STAGES:
        raise UserError(f"unknown stage {name!r};{suggest(name, STAGES)} the stages are {', '.join(STAGES)}")
    say("\n".join(_describe(name, STAGES[name])))
    return 0


def _kind(stage: type[Stage]) -> str:
    return next(word for kind, word in KINDS.items() if issubclass(stage, kind))


def _first_line(stage: type[Stage]) -> str:
    return (inspect.getdoc(stage) or "").split("\n", 1)[0]


def _describe(name: str, stage: type[Stage]) -> list[str]:
    lines = [f"{name} ({_kind(stage)}, version {stage.version})", "", inspect.getdoc(stage) or "", ""]
    hints = typing.get_type_hints(stage)
    for field in dataclasses.fields(stage):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = "required" if required else f"= {field.default!r}"
        lines.append(f"  {field.name}: {inspect.formatannotation(hints[field.name])} {default}")
    return lines
