"""What a stage, a scheme, a policy or a part of a config takes, read from its definition: types, defaults, what its text says.

Reads dataclasses and functions with type hints; writes nothing. Types are in the words of a config: text, number, list of text.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, get_origin

import yaml

REQUIRED = object()
"""The default of a parameter that has none."""

QUOTED = frozenset("[]{},:#&*!|>'\"%@`")
"""Characters that mean something in YAML."""

_WORDS: Mapping[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    type(None): "null",
    Any: "anything",
}


@dataclass(frozen=True)
class Parameter:
    """A parameter: its name, its type as a hint and in words, its default (`REQUIRED` where it has none), and what it is.

    `note`: empty where the text around the parameters says it.
    """

    name: str
    hint: Any
    type: str
    default: Any
    note: str = ""

    @property
    def required(self) -> bool:
        """Tell whether it has no default."""
        return self.default is REQUIRED

    @property
    def shown(self) -> str:
        """Return the default as a config would give it."""
        return as_yaml(self.default)


@dataclass(frozen=True)
class Described:
    """Something with parameters: its name, its text, and the mappings that its parameters hold, each once."""

    name: str
    text: str
    parameters: tuple[Parameter, ...]
    inner: tuple[Described, ...] = ()


def described(name: str, thing: Callable[..., Any], *, without: tuple[str, ...] = ()) -> Described:
    """Return the description of a dataclass, or of a function that takes parameters.

    Args:
        name: what a config calls it.
        thing: the dataclass or the function.
        without: parameters that are left out.
    """
    own = tuple(each for each in _parameters(thing) if each.name not in without)
    seen: dict[type, Described] = {}
    for each in own:
        _collect(each.hint, seen)
    return Described(name, text_of(thing), own, tuple(seen.values()))


def text_of(thing: object) -> str:
    """Return the docstring without its `Args:`; nothing where it is the one that a dataclass makes of its signature."""
    return _divided(thing)[0]


def _divided(thing: object) -> tuple[str, dict[str, str]]:
    """Return the docstring without its `Args:`, and what these say of each parameter, on one line."""
    text = inspect.getdoc(thing) or ""
    if isinstance(thing, type) and text.startswith(f"{thing.__name__}("):
        return "", {}
    before, heading, rest = text.partition("\n\nArgs:\n")
    if not heading:
        return text, {}
    listed, blank, behind = rest.partition("\n\n")
    notes = dict[str, str]()
    for name, note in re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE):
        notes[name] = " ".join(note.split())
    return before + blank + behind, notes


def first_line(thing: object) -> str:
    """Return the first line of the docstring."""
    return text_of(thing).split("\n", 1)[0]


def words(hint: object) -> str:
    """Return a type in the words of a config: `list of text`, `names → Scheme or Policy`, `"gpt2" or "llama3"`."""
    if hint in _WORDS:
        return _WORDS[hint]
    if dataclasses.is_dataclass(hint):
        return cast(type, hint).__name__
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(words, arguments))
    if origin is Literal:
        return " or ".join(as_yaml(each) if each is None or isinstance(each, bool) else json.dumps(each) for each in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        inner = words(arguments[0])
        return f"list of ({inner})" if " or " in inner else f"list of {inner}"
    if origin is tuple:
        return f"[{', '.join(map(words, arguments))}]"
    if origin is dict:
        return f"names → {words(arguments[1])}"
    raise TypeError(f"a parameter cannot have the type {hint!r}")


def as_yaml(value: object) -> str:
    """Return a value on one line as a config gives it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {as_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, str):
        return value if not set(value) & QUOTED and yaml.safe_load(value) == value else json.dumps(value)
    return json.dumps(value)


def _parameters(thing: Callable[..., Any]) -> Iterator[Parameter]:
    hints, (_, notes) = typing.get_type_hints(thing), _divided(thing)
    if not dataclasses.is_dataclass(thing):
        for name, each in inspect.signature(thing).parameters.items():
            default = REQUIRED if each.default is each.empty else each.default
            yield Parameter(name, hints[name], words(hints[name]), default, notes.get(name, ""))
        return
    for field in dataclasses.fields(thing):
        if field.init:
            default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
            shown = REQUIRED if default is dataclasses.MISSING else default
            yield Parameter(field.name, hints[field.name], words(hints[field.name]), shown, notes.get(field.name, ""))


def _collect(hint: object, seen: dict[type, Described]) -> None:
    """Describe the dataclasses in a hint, and those that their parameters hold, in the order of first mention."""
    if not dataclasses.is_dataclass(hint):
        for each in get_args(hint):
            _collect(each, seen)
        return
    kind = cast(type, hint)
    if kind not in seen:
        own = tuple(_parameters(kind))
        seen[kind] = Described(kind.__name__, text_of(kind), own)
        for each in own:
            _collect(each.hint, seen)
