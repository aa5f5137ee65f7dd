"""`stages`: all that a config can name, in the order documents meet it, or one entry with its parameters.

Written from the entries' own docstrings and types; prints to standard output.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator

from gristmill.errors import UserError
from jobs.config.own_stages import is_own, own_stage
from jobs.config.yaml_nodes import suggest
from jobs.manual.describe import Described, described, first_line
from jobs.manual.entries import GROUPS, Group, full_name, kind
from jobs.terminal import say
from stages import STAGES

NOTE_WIDTH = 110
"""Columns of the terminal that the note of a parameter may take."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `stages` takes."""
    parser.add_argument("name", nargs="?", help="a stage, a tokenizer scheme, a policy, run, or a recipe's command")


def run(arguments: argparse.Namespace) -> int:
    """Print them; return the exit code."""
    say("\n".join(_list() if arguments.name is None else _entry(arguments.name)))
    return 0


def _list() -> Iterator[str]:
    width = max(len(name) for group in GROUPS.values() for name in group.entries)
    for title, group in GROUPS.items():
        if title != "stages":
            yield f"\n{group.title}: {group.place}"
        for name, thing in group.entries.items():
            what = f"{kind(thing):<8}  " if title == "stages" else ""
            yield f"{name:<{width}}  {what}{first_line(thing)}"


def _entry(name: str) -> list[str]:
    if is_own(name):
        stage = own_stage(name, STAGES)
        return lines(described(full_name(name, stage), stage))
    group = _group(name)
    return [*lines(group.described(name)), "", f"  in {group.place_of(name)}"]


def _group(name: str) -> Group:
    """Return the group that has this name; raises UserError where none has."""
    known = [each for group in GROUPS.values() for each in group.entries]
    for group in GROUPS.values():
        if name in group.entries:
            return group
    raise UserError(
        f"unknown stage {name!r};{suggest(name, known)} the stages are {', '.join(STAGES)}; further names are "
        f"{', '.join(each for each in known if each not in STAGES)}"
    )


def lines(found: Described) -> list[str]:
    """Return a description as text: what it is, its parameters with type and default, then the mappings that these hold."""
    out = [found.name]
    out += ["", found.text] if found.text else []
    if found.parameters:
        out.append("")
    for each in found.parameters:
        out.append(f"  {each.name}: {each.type}" + (", required" if each.required else f" = {each.shown}"))
        out += textwrap.wrap(each.note, NOTE_WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    for inner in found.inner:
        out += ["", *lines(inner)]
    return out
