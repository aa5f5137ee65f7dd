"""The commands: `python -m jobs build | plan | stages | train-tokenizer | measure-tokenizer | train-reference | report |
explain | prune`.

Exit codes: 0 done, 2 a mistake of the user (one message, no traceback), 3 finished with failed shards, or stopped by
the store, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

from gristmill.errors import StoreError, UserError
from jobs.terminal import tell

USER_MISTAKE, STOPPED, INTERRUPTED, PIPE_CLOSED = 2, 3, 130, 141


def _overrides(arguments: argparse.Namespace) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in arguments.set]
    for key, equals, _ in pairs:
        if not equals:
            raise UserError(f"--set {key}: give KEY=VALUE, such as --set run.workers=4")
    return {key: value for key, _, value in pairs}


def _build(arguments: argparse.Namespace) -> int:
    from jobs.build.build import run

    return run(arguments.config, _overrides(arguments), verify=arguments.verify)


def _plan(arguments: argparse.Namespace) -> int:
    from jobs.build.build import show_plan

    return show_plan(arguments.config, _overrides(arguments), as_json=arguments.json)


def _stages(arguments: argparse.Namespace) -> int:
    from jobs.config.stages import run

    return run(arguments.name)


def _train_tokenizer(arguments: argparse.Namespace) -> int:
    from jobs.tokenizer.train import run

    return run(arguments.recipe)


def _measure_tokenizer(arguments: argparse.Namespace) -> int:
    from jobs.tokenizer.measure import Request, run

    asked = {key: value for key, value in vars(arguments).items() if key not in ("work", "json")}
    return run(Request(**asked | {"tokenizers": tuple(asked["tokenizers"])}), as_json=arguments.json)


def _train_reference(arguments: argparse.Namespace) -> int:
    from jobs.reference.train import run

    return run(arguments.recipe)


def _report(arguments: argparse.Namespace) -> int:
    from jobs.report.report import run

    return run(arguments.build, as_json=arguments.json, verify=arguments.verify)


def _explain(arguments: argparse.Namespace) -> int:
    from jobs.explain.explain import run

    return run(arguments.build, arguments.document, token=arguments.token)


def _prune(arguments: argparse.Namespace) -> int:
    from jobs.build.prune import run

    return run(arguments.output, yes=arguments.yes)


class _Parser(argparse.ArgumentParser):
    """One whose complaints pass the door to the terminal, as all else does."""

    def error(self, message: str) -> NoReturn:
        """Tell of a mistake in the arguments and end."""
        tell(f"{self.format_usage()}{self.prog}: error: {message}")
        sys.exit(USER_MISTAKE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m jobs", description="From web crawl to training-ready tokens.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, work: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(work=work)
        return added

    for name, work, text in (("build", _build, "run a build"), ("plan", _plan, "show what a build would compute")):
        added = command(name, work, text)
        added.add_argument("config", help="the build's YAML")
        added.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a key, such as run.on=ray")
        if name == "build":
            wanted = "read all that is done, compare it with its hashes, and compute again what is damaged"
            added.add_argument("--verify", action="store_true", help=wanted)
        if name == "plan":
            added.add_argument("--json", action="store_true", help="for machines")
    added = command("stages", _stages, "list the stages, or one stage with its parameters")
    added.add_argument("name", nargs="?")
    added = command("train-tokenizer", _train_tokenizer, "train a tokenizer on the documents of a build")
    added.add_argument("recipe", help="the tokenizer's YAML")
    added = command("measure-tokenizer", _measure_tokenizer, "compare tokenizers on the documents of a build")
    added.add_argument("tokenizers", nargs="+", metavar="TOKENIZER", help="a tokenizer's folder or file")
    added.add_argument("--on", required=True, metavar="BUILD", help="the output folder of a build of documents")
    added.add_argument("--baseline", metavar="TOKENIZER", help="the one that others are compared with; the first if not given")
    added.add_argument("--bytes", type=int, default=20_000_000, help="of text to measure on, at most (20000000)")
    added.add_argument("--seed", type=int, default=0, help="another one takes other documents (0)")
    added.add_argument("--mixture", action="store_true", help="infer from the merges which languages each was trained on")
    added.add_argument("--first-stage", metavar="PATTERN", help="how words were cut for a superword tokenizer's first merges")
    added.add_argument(
        "--page", default="build/measure-tokenizer.html", help="where the page goes (build/measure-tokenizer.html)"
    )
    added.add_argument("--json", action="store_true", help="print all figures instead")
    added = command("train-reference", _train_reference, "train a model to score tokens with on documents of a build")
    added.add_argument("recipe", help="the model's YAML")
    added = command("report", _report, "write the report of a build: where every document went")
    added.add_argument("build", help="a build's output folder, or one of its builds/<id>")
    added.add_argument("--json", action="store_true", help="print the ledger instead")
    added.add_argument("--verify", action="store_true", help="compare the build's files with their sha256, not their sizes alone")
    added = command("explain", _explain, "tell why a document was kept or dropped, or where a token came from")
    added.add_argument("build", help="a build's output folder")
    added.add_argument("document", nargs="?", help="a URL or a document id")
    added.add_argument("--token", metavar="SHARD:ROW:POS", help="a token of the build, such as 0:12:345")
    added = command("prune", _prune, "list what no finished build of an output needs, or delete it")
    added.add_argument("output", help="the output folder of builds")
    added.add_argument("--yes", action="store_true", help="delete it")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        work: Callable[[argparse.Namespace], int] = arguments.work
        return work(arguments)
    except UserError as error:
        tell(f"error: {error}")
        return USER_MISTAKE
    except StoreError as error:
        tell(f"stopped: {error}\nwhat is done is kept; run the same command again to go on")
        return STOPPED
    except BrokenPipeError:
        # `… | head` has read enough; without this Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        tell("interrupted: what is done is kept; run the same command again to go on")
        return INTERRUPTED


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    tell("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"))


if __name__ == "__main__":
    sys.excepthook = _unexpected
    sys.exit(main())
