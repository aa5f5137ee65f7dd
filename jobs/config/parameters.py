"""A frozen dataclass from a YAML node, by its type hints.

Reads the hints that stages use: str, int, float (takes integers), bool, None, `X | Y`, `tuple[X, ...]`, `tuple[X, Y]`,
Literal, `dict[str, X]` and other dataclasses. Nothing is converted silently: text for a number is a mistake; only text
that begins with `~/` is taken for a path in the home folder. Every mistake raises one ConfigError with the place, what was found,
what is allowed and, where a name is nearly right, the right one.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml

from gristmill.errors import ConfigError
from jobs.config.yaml_nodes import Node, found, pairs, place, plain, resolve, suggest
from pipeline.planning.asking import asked

T = TypeVar("T")

_SCALARS: Mapping[Any, str] = {
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    Any: "anything",
}
_SWITCHES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def parameters(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the parameters of a dataclass by name, in the order of its definition."""
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


def required(cls: type) -> list[str]:
    """Return the names of the parameters without a default."""
    missing = dataclasses.MISSING
    return [name for name, field in parameters(cls).items() if field.default is missing and field.default_factory is missing]


def build(cls: type[T], node: Node, where: str) -> T:
    """Return `cls` made from a mapping node (or from nothing, when all its parameters have defaults).

    A scalar is the one parameter that has no default, where there is one such: `keep_if: quality >= 0.5`.

    Args:
        cls: a dataclass.
        node: its parameters.
        where: what is being made, for messages: "stage 'language'".

    Raises:
        ConfigError: an unknown, missing or mistyped parameter, or a ValueError of `cls` itself.
    """
    return _build(cls, _written_out(cls, node), where, "")


def as_data(value: Any) -> Any:  # noqa: ANN401 - any parameter
    """Return parameters as plain data (dicts, lists, scalars), defaults included."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: as_data(getattr(value, name)) for name in parameters(type(value))}
    if isinstance(value, tuple | list):
        return [as_data(item) for item in value]
    if isinstance(value, Mapping):
        return {key: as_data(item) for key, item in value.items()}
    return value


def describe(hint: object) -> str:
    """Say what a type hint allows."""
    if hint in _SCALARS:
        return _SCALARS[hint]
    if dataclasses.is_dataclass(hint):
        return f"a mapping of {', '.join(parameters(typing.cast(type, hint)))}"
    origin, arguments = get_origin(hint), get_args(hint)
    if _is_union(hint):
        return " or ".join(describe(member) for member in arguments)
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(_written(option) for option in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list ({describe(arguments[0])} each)"
    if origin is tuple:
        return f"a list of {len(arguments)}: {', '.join(describe(member) for member in arguments)}"
    if origin is dict:
        return f"a mapping of names to {describe(arguments[1])}"
    raise TypeError(f"parameters cannot have the type {hint!r}")


def _build(cls: type[T], node: Node, where: str, path: str) -> T:
    known = parameters(cls)
    hints = typing.get_type_hints(cls)
    prefix = f"{path}." if path else ""
    nodes: dict[str, Node] = {}
    values: dict[str, Any] = {}
    for key, value in pairs(node, f"{where}: {f'parameter {path!r}' if path else 'what it takes'}"):
        if key.value not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes no parameters"
            owner = f"{path!r}" if path else "it"
            message = f"{where}: {owner} has no parameter {key.value!r};{suggest(key.value, known)} {takes}"
            raise ConfigError(message, place(key))
        nodes[key.value] = value
        values[key.value] = _convert(hints[key.value], value, where, prefix + key.value)
    for name in required(cls):
        if name not in values:
            raise ConfigError(f"{where}: parameter {prefix + name!r} is missing; it is {describe(hints[name])}", place(node))
    try:
        return asked(cls, "__post_init__", lambda: cls(**values), ValueError)
    except ValueError as error:
        first = (str(error).split() or [""])[0].strip("'\"`:,")
        raise ConfigError(f"{where}: {prefix if first in known else ''}{error}", place(nodes.get(first, node))) from error


def _written_out(cls: type, node: Node) -> Node:
    """Return the mapping that a scalar stands for: of a class with one parameter without a default."""
    needed = required(cls)
    if not isinstance(node, yaml.ScalarNode) or resolve(node) is None or len(needed) != 1:
        return node
    name = yaml.ScalarNode("tag:yaml.org,2002:str", needed[0], node.start_mark, node.end_mark)
    return yaml.MappingNode("tag:yaml.org,2002:map", [(name, node)], node.start_mark, node.end_mark)


def _convert(hint: Any, node: Node, where: str, path: str) -> Any:  # noqa: ANN401 - a type hint and its value
    """Return the value of `node` as `hint` has it, or raise ConfigError."""
    if hint is Any:
        return plain(node)
    if _is_union(hint):
        best = max(get_args(hint), key=lambda member: _closeness(member, node))
        if _closeness(best, node) == 0:
            raise _wrong(hint, node, where, path)
        return _convert(best, node, where, path)
    if _closeness(hint, node) == 0:
        raise _wrong(hint, node, where, path)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), node, where, path)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        items = node.value
        members = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else list(arguments)
        if len(members) != len(items):
            raise _wrong(hint, node, where, path)
        return tuple(_convert(members[i], items[i], where, f"{path}[{i}]") for i in range(len(items)))
    if origin is dict:
        return {key.value: _convert(arguments[1], value, where, f"{path}.{key.value}") for key, value in node.value}
    assert isinstance(node, yaml.ScalarNode)
    value = resolve(node)
    if origin is Literal and not _is_option(value, arguments):
        raise _wrong(hint, node, where, path)
    if isinstance(value, str) and value.startswith("~/"):
        return os.path.expanduser(value)
    return float(value) if hint is float and isinstance(value, int) else value


def _closeness(hint: object, node: Node) -> float:
    """Return 0 when the node's shape cannot be `hint`, from 1 to 2 the better it fits: picks the member of a union."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return 1
    if _is_union(hint):
        return max(_closeness(member, node) for member in arguments)
    if isinstance(node, yaml.SequenceNode):
        if origin is not tuple:
            return 0
        return 1 + min((_closeness(arguments[0], item) for item in node.value), default=2) / 2
    if isinstance(node, yaml.MappingNode):
        if origin is dict:
            return 1
        if not dataclasses.is_dataclass(hint):
            return 0
        known = parameters(typing.cast(type, hint))
        return 1 + sum(key.value in known for key, _ in node.value) / max(1, len(node.value))
    value = resolve(node)
    if origin is Literal:
        return 2 if _is_option(value, arguments) else float(type(value) in {type(option) for option in arguments})
    if hint is float and type(value) is int:
        return 1.5
    if value is None and dataclasses.is_dataclass(hint):
        return 1
    return 2 if type(value) is hint else 0


def _wrong(hint: object, node: Node, where: str, path: str) -> ConfigError:
    """Return the error for a value that is not what `hint` allows, with the likely remedy."""
    advice = ""
    members = get_args(hint) if _is_union(hint) else (hint,)
    if isinstance(node, yaml.ScalarNode):
        value = resolve(node)
        options = [option for member in members if get_origin(member) is Literal for option in get_args(member)]
        if isinstance(value, str) and options:
            advice = suggest(value, [option for option in options if isinstance(option, str)])
        elif bool in members and isinstance(value, str) and value.lower() in _SWITCHES:
            advice = f" did you mean {_SWITCHES[value.lower()]}?"
        elif int in members and isinstance(value, float) and value.is_integer():
            advice = f" did you mean {int(value):_}?"
        elif isinstance(value, str) and node.style is not None and {int, float, bool} & set(members):
            advice = " remove the quotes"
        elif str in members and value is not None:
            advice = f' put it in quotes: "{node.value}"'
        elif any(get_origin(member) is tuple for member in members) and value is not None:
            advice = f" write [{node.value}]"
    message = f"{where}: parameter {path!r} must be {describe(hint)}, found {found(node)}"
    return ConfigError(f"{message};{advice}" if advice else message, place(node))


def _is_union(hint: object) -> bool:
    return get_origin(hint) in (typing.Union, types.UnionType)


def _is_option(value: object, options: tuple[Any, ...]) -> bool:
    """Tell whether a Literal has this value; 1 is not True there."""
    return any(type(option) is type(value) and option == value for option in options)


def _written(value: object) -> str:
    return {True: "true", False: "false", None: "null"}.get(value, str(value)) if isinstance(value, bool | None) else str(value)
