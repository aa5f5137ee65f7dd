"""`python -m jobs.manual.pages`: docs/reference/, written from the same definitions as `stages` and `--help`.

Reads stages, schemes, policies, the config's parts and the commands; writes a page each. With `--check` it writes nothing and
says which pages are not what it would write.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from jobs.__main__ import COMMANDS, parser_of
from jobs.manual.describe import Described
from jobs.manual.entries import GROUPS, Group
from jobs.terminal import say, tell

FOLDER = Path(__file__).parents[2] / "docs/reference"
ADVICE = "run `make reference`"
FRESH, STALE = 0, 1


def pages() -> dict[str, str]:
    """Return all pages: file name → Markdown."""
    found = {f"{name}.md": _page(group) for name, group in GROUPS.items()}
    return {**found, "commands.md": _commands()}


def stale(folder: Path = FOLDER) -> list[str]:
    """Return the names of the pages in a folder that are missing, differ from `pages()`, or are none of them."""
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    wanted = pages()
    return sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))


def main(argv: list[str]) -> int:
    """Write the pages, or compare them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs.manual.pages", description="Write docs/reference/.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where a page is not what it should be")
    names = stale()
    if not parser.parse_args(argv).check:
        FOLDER.mkdir(exist_ok=True)
        for name in names:
            if name in (found := pages()):
                (FOLDER / name).write_text(found[name], encoding="utf-8")
            else:
                (FOLDER / name).unlink()
        say(f"{FOLDER}: wrote {', '.join(names) or 'nothing, all is as it should be'}")
        return FRESH
    for name in names:
        tell(f"docs/reference/{name} is not what the code says: {ADVICE}")
    return STALE if names else FRESH


def _page(group: Group) -> str:
    head = [f"# {group.title}", "", f"In {group.place}. Written by `make reference`: change the docstrings instead.", ""]
    parts = [line for name in group.entries for line in _section(group.described(name), "##")]
    return "\n".join([*head, *parts]).rstrip() + "\n"


def _section(found: Described, level: str) -> Iterator[str]:
    yield from (f"{level} {found.name}", "")
    if found.text:
        yield from (found.text, "")
    if found.parameters:
        noted = any(each.note for each in found.parameters)
        yield from ("| parameter | type | default |" + " |" * noted, "|---|---|---|" + "---|" * noted)
        for each in found.parameters:
            default = "required" if each.required else f"`{each.shown}`"
            yield f"| `{each.name}` | {_cell(each.type)} | {_cell(default)} |" + f" {_cell(each.note)} |" * noted
        yield ""
    for inner in found.inner:
        yield from _section(inner, level + "#")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _commands() -> str:
    lines = ["# Commands", "", "`python -m jobs COMMAND`. Written by `make reference`: change the commands instead.", ""]
    for name, (_, text) in COMMANDS.items():
        lines += [f"## {name}", "", f"{text[0].upper()}{text[1:]}.", "", "| argument | |", "|---|---|"]
        lines += [f"| `{words}` | {_cell(said)} |" for words, said in _arguments(name)]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _arguments(command: str) -> Iterator[tuple[str, str]]:
    """Yield how each argument of a command is written, and its help."""
    commands = next(each for each in parser_of(command)._actions if isinstance(each, argparse._SubParsersAction))
    for action in commands.choices[command]._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = str(action.metavar or action.dest)
        if not action.option_strings:
            yield f"[{value}]" if action.nargs == "?" else f"{value} ..." if action.nargs == "+" else value, action.help or ""
        else:
            flag = action.option_strings[-1]
            yield flag if action.nargs == 0 else f"{flag} {value}", action.help or ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
