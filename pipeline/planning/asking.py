"""What a stage says of itself, asked once before anything runs: the answers of its methods, and what is no answer.

Reads stages; raises UserError. These methods of a user's own stage may raise anything: the error names the method, what it
raised, and the line of the user's file.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import pyarrow as pa

from gristmill.errors import UserError
from pipeline.fitted import working
from pipeline.planning.code import is_ours
from pipeline.resources import Resources
from pipeline.stage import AnyMap, Stage

Answer = TypeVar("Answer")

_TUPLES = {
    "needs": "columns, such as ('size',)",
    "replaces": "columns, such as ('size',)",
    "measures": "columns, such as ('size',)",
    "files": "paths, such as ('model.bin',)",
    "libraries": "distributions as pip names them, such as ('numpy',)",
}


def may_have_pool(stage: Stage) -> bool:
    """Tell whether `run.pools` may give a stage processes of its own: it is a map that says what such hold, if it needs any."""
    return isinstance(stage, AnyMap) and type(stage).resources is not Stage.resources


def asked(cls: type, method: str, how: Callable[[], Answer], refusal: type[ValueError] = UserError) -> Answer:
    """Return what a method of a class gives; `how` calls it.

    Raises:
        ValueError: of the kind `refusal`, as the method raises it: that is how it says what is wrong.
        UserError: the class is not this project's, and the method raised anything else.
    """
    try:
        return how()
    except refusal:
        raise
    except (Exception, SystemExit) as error:
        if is_ours(cls):
            raise
        kind = type(error).__name__
        raise UserError(f"its {method}() raised {kind}: {error} ({line_of(cls, error)}); mend it") from error


def odd_answer(stage: Stage) -> str | None:
    """Return a message on the first method of a stage that returns a value of the wrong type; None where all are right.

    Raises:
        UserError: as `asked`.
    """
    adds: object = _answer(stage, "adds")
    if not isinstance(adds, Mapping) or not all(isinstance(kind, pa.DataType) for kind in adds.values()):
        return f"its adds() returns {adds!r}, expected a mapping of columns to types of pyarrow, such as {{'size': pa.int32()}}"
    for method, example in _TUPLES.items():
        names = _answer(stage, method)
        flat = _flat(names) if method == "measures" else names
        if not isinstance(flat, Sequence) or isinstance(flat, str) or not all(isinstance(name, str) for name in flat):
            return f"its {method}() returns {names!r}, expected a tuple of {example}"
    attached = _answer(stage, "attachments")
    if not isinstance(attached, Mapping) or not all(isinstance(text, str) for pair in attached.items() for text in pair):
        return f"its attachments() returns {attached!r}, expected a mapping of names to paths, such as {{'a.json': 'a/a.json'}}"
    asks = _answer(stage, "resources")
    if not isinstance(asks, Resources | None):
        return f"its resources() returns {asks!r}, expected pipeline.resources.Resources, or None"
    return None


def _flat(names: object) -> object:
    """Return the columns of `measures()`, those of tuples too."""
    if not isinstance(names, Sequence) or isinstance(names, str):
        return names
    return [name for each in names for name in (each if isinstance(each, tuple) else (each,))]


def _answer(stage: Stage, method: str) -> object:
    return asked(type(working(stage)), method, getattr(stage, method))


def line_of(cls: type, error: BaseException) -> str:
    """Return the innermost line that an error came through in the file of a class; where there is none, the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    own = [frame for frame in frames if frame.filename == file]
    last = (own or frames)[-1]
    return f"{last.filename}:{last.lineno}"
