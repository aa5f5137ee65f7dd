"""`prune`: delete what no finished build of an output needs; without `--yes` only say what that is.

Reads the records of the output; prints a line `<bytes> <file>` for each file to standard output, the sum to standard error.
"""

from __future__ import annotations

import argparse

from gristmill.storage.store import open_store
from jobs.terminal import quoted, show, tell
from pipeline.builds.prune import refuse_live, unneeded

DONE = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `prune` takes."""
    parser.add_argument("output", help="the output folder of builds")
    parser.add_argument("--yes", action="store_true", help="delete it")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    return prune(arguments.output, yes=arguments.yes)


def prune(output: str, *, yes: bool = False) -> int:
    """List the files, or delete them; return the exit code.

    Raises:
        InputError: a build is running there, or a record cannot be read.
    """
    store = open_store(output)
    refuse_live(store)
    files = unneeded(store)
    if yes:
        store.sweep()
        refuse_live(store)
    for file in files:
        show(f"{file.bytes} {file.name}")
        if yes:
            store.remove(file.name)
    size = sum(file.bytes for file in files)
    counted = f"{len(files):,} file{'s' * (len(files) != 1)}, {size:,} bytes"
    if yes:
        tell(f"deleted {counted} that no finished build needs")
    else:
        advice = f"; `python -m jobs prune {quoted(output)} --yes` deletes them" if files else ""
        tell(f"no finished build needs {counted}{advice}")
    return DONE
