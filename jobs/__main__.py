"""The commands: `python -m jobs COMMAND`; `COMMANDS` has them all.

A command is a module with `add_arguments(parser)` and `run(arguments)`, which returns the exit code. It is imported when it is
called, so that listing the commands and a mistake in the name of one take no time.

Exit codes: 0 done, 2 a mistake of the user (one message, no traceback), 3 finished with failed units, or stopped by
the store or by whom a stage asks, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

from gristmill.errors import Stopped, StoreError, UserError
from jobs.terminal import tell
from pipeline.engines.pandas_later import pandas_later

COMMANDS = {
    "build": ("jobs.build.build", "run a build"),
    "plan": ("jobs.build.plan", "show what a build would compute"),
    "stages": ("jobs.manual.stages", "list the stages, or one stage with its parameters"),
    "train-tokenizer": ("jobs.tokenizer.train", "train a tokenizer on the documents of a build"),
    "measure-tokenizer": ("jobs.tokenizer.measure", "compare tokenizers on the documents of a build"),
    "train-classifier": ("jobs.classifier.train", "train a classifier of texts on labelled documents"),
    "train-reference": ("jobs.reference.train", "train a model to score tokens with on documents of a build"),
    "report": ("jobs.report.report", "write the report of a build: where every document went"),
    "explain": ("jobs.explain.explain", "tell why a document was kept or dropped, or where a token came from"),
    "publish": ("jobs.build.publish", "publish what a stage of a build settled on, for other builds to take"),
    "prune": ("jobs.build.prune", "list what no finished build of an output needs, or delete it"),
}
"""Name → the module that does the work, and what `--help` says of it."""

USER_MISTAKE, STOPPED, INTERRUPTED, PIPE_CLOSED = 2, 3, 130, 141


class _Parser(argparse.ArgumentParser):
    """One whose complaints pass the door to the terminal, as all else does."""

    def error(self, message: str) -> NoReturn:
        """Tell of a mistake in the arguments and end."""
        tell(f"{self.format_usage()}{self.prog}: error: {message}")
        sys.exit(USER_MISTAKE)


def parser_of(chosen: str | None) -> argparse.ArgumentParser:
    """Return the parser of all commands, where the one that is `chosen` has its arguments."""
    parser = _Parser(prog="python -m jobs", description="From web crawl to training-ready tokens.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        added = commands.add_parser(name, help=text, description=text)
        if name == chosen:
            job = importlib.import_module(module)
            job.add_arguments(added)
            added.set_defaults(run=job.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if not words:
        tell(_listing())
        return USER_MISTAKE
    try:
        _check_name(words[0])
        arguments = parser_of(words[0]).parse_args(words)
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except UserError as error:
        tell(f"error: {error}")
        return USER_MISTAKE
    except (StoreError, Stopped) as error:
        tell(f"stopped: {error}\nwhat is done is kept; run the same command again to go on")
        return STOPPED
    except BrokenPipeError:
        # `… | head` has read enough; without this Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        tell("interrupted: what is done is kept; run the same command again to go on")
        return INTERRUPTED


def _listing() -> str:
    """Return what is printed where no command is given: each with its line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["give a command, `python -m jobs COMMAND --help` lists what it takes:", *lines])


def _check_name(name: str) -> None:
    """Raise UserError for a command that there is not; options are argparse's."""
    if not name.startswith("-") and name not in COMMANDS:
        from jobs.config.yaml_nodes import suggest  # imports yaml, which no command needs to be listed

        raise UserError(f"unknown command {name!r};{suggest(name, COMMANDS)} the commands are {', '.join(COMMANDS)}")


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    tell("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"))


if __name__ == "__main__":
    sys.excepthook = _unexpected
    pandas_later()
    sys.exit(main())
