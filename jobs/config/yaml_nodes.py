"""YAML as nodes that know their place, and nothing that executes.

Reads a file, the value of a `--set` or plain data, gives `yaml.Node` trees. Scalars follow the core schema of YAML 1.2, not
the YAML 1.1 of PyYAML: only `true` and `false` are booleans, so that `keep: [en, no]` keeps Norwegian, `1e-3` is a number
and `12:30` is text. Underscores in numbers are allowed: `50_000_000`.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from gristmill.errors import ConfigError, InputError

Node = yaml.Node
Scalar = str | int | float | bool | None

OVERRIDE = "--set"
EXPANDED = 100_000  # values that aliases may stand for beyond those that are written
DIGITS = 4_300
CHARACTERS = 64  # of a text that count as a further value

_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*|0x_*[0-9a-fA-F][0-9a-fA-F_]*|0o_*[0-7][0-7_]*")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)")
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}


def resolve(node: Node) -> Scalar:
    """Return the value of a scalar node: quoted ones are text, plain ones follow the core schema.

    A number of more than `DIGITS` characters is text, too: no parameter has such a value, and Python reads no longer ones.
    """
    assert isinstance(node, yaml.ScalarNode)
    text: str = node.value
    if node.style is not None or len(text) > DIGITS:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        return int(digits, 0) if digits[:2] in ("0x", "0o") else int(digits)
    if _NUMBER.fullmatch(text):
        return float(text.replace("_", "").replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf"))
    return text


def plain(node: Node) -> Any:  # noqa: ANN401 - any YAML
    """Return the node as dicts, lists and scalars."""
    if isinstance(node, yaml.MappingNode):
        return {key.value: plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    return resolve(node)


def from_data(value: object, name: str) -> Node:
    """Return the node that `plain` would give `value` for; its place is `name`, line 1."""
    mark = yaml.Mark(name, 0, 0, 0, "", 0)
    if isinstance(value, Mapping):
        entries = [(from_data(key, name), from_data(item, name)) for key, item in value.items()]
        return yaml.MappingNode("tag:yaml.org,2002:map", entries, mark, mark)
    if isinstance(value, list | tuple):
        return yaml.SequenceNode("tag:yaml.org,2002:seq", [from_data(item, name) for item in value], mark, mark)
    text = {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, float):
        text = text.replace("inf", ".inf")
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, mark, mark, style='"' if isinstance(value, str) else None)


def place(node: Node) -> str:
    """Return `file:line:column` of the node's first character, or `--set key` when it came from the command line."""
    return _place(node.start_mark)


def nothing(node: Node) -> Node:
    """Return an empty value at the place of `node`."""
    return yaml.ScalarNode(node.tag, "", node.start_mark, node.end_mark)


def found(node: Node) -> str:
    """Say what a node is, for the "found ..." of a message."""
    if isinstance(node, yaml.MappingNode):
        return f"a mapping with {', '.join(repr(key.value) for key, _ in node.value)}" if node.value else "an empty mapping"
    if isinstance(node, yaml.SequenceNode):
        return f"a list of {len(node.value)}"
    value = resolve(node)
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {_shortened(value)!r}"
    return f"the {'integer' if isinstance(value, int) else 'number'} {node.value}"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ` did you mean 'x'?` for the known name nearest to `name`, or an empty text."""
    folded = {option.lower().replace("-", "_"): option for option in known}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return f" did you mean {folded[close[0]]!r}?" if close else ""


def pairs(node: Node, what: str) -> list[tuple[yaml.ScalarNode, Node]]:
    """Return the entries of a mapping; nothing at all (`key:`) counts as an empty one.

    Raises:
        ConfigError: `node` is not a mapping.
    """
    if isinstance(node, yaml.ScalarNode) and resolve(node) is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{what} must be a mapping (`key: value`), found {found(node)}", place(node))
    return list(node.value)


def parse(text: str, name: str) -> Node:
    """Return the root node of `text`; `name` stands in places.

    Raises:
        ConfigError: a syntax error, a key given twice, a tag, aliases without bound, too deep nesting, or nothing there.
    """
    try:
        root = yaml.compose(_named(text, name), Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "unreadable"
        raise ConfigError(f"not valid YAML: {problem}{_hint(problem)}", _place(mark) if mark else name) from error
    except RecursionError as error:
        raise ConfigError("lists and mappings are nested too deeply to be read", f"{name}:1:1") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        raise ConfigError(
            f"not valid YAML: the character U+{ord(text[error.position]):04X} is not allowed; delete it",
            f"{name}:{line}:{column}",
        ) from error
    if root is None:
        raise ConfigError("the file is empty; see jobs/recipes/ for examples", f"{name}:1:1")
    _Checked().check(root)
    return root


def load_node(path: str | Path) -> Node:
    """Return the root node of a YAML file.

    Raises:
        InputError: the file is not there or cannot be read.
        ConfigError: see `parse`; or bytes that are not UTF-8.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        siblings = [str(other) for other in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
        hint = suggest(str(path), siblings) or (f" there are {', '.join(siblings)}" if siblings else "")
        raise InputError(f"config {str(path)!r}: file does not exist;{hint or ' give the path of a YAML file'}") from error
    except OSError as error:
        raise InputError(f"config {str(path)!r}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8", f"{path}:{line}:1") from error
    return parse(text, str(path))


def override(root: Node, key: str, value: str) -> Node:
    """Return the tree with the value at a dotted key replaced or added; the given tree is left as it was.

    Inside a list, a part of the key is the name of the one entry (`stages.language.min_score`) or its index from 0. A name that
    has a colon is called by what follows that (`stages.Digits.most` for `mypkg.filters:Digits`).

    Raises:
        ConfigError: an empty part, a list entry that is not there or there twice, or a value that is not YAML.
    """
    where = f"{OVERRIDE} {key}"
    parts = key.split(".")
    if not all(parts):
        raise ConfigError(f"{key!r} has an empty part; write for example {OVERRIDE} run.workers=2", where)
    return _replaced(root, parts, parse(value, where) if value.strip() else _scalar("", where), where)


def _replaced(node: Node, parts: list[str], value: Node, where: str) -> Node:
    if not parts:
        return value
    if isinstance(node, yaml.SequenceNode):
        index = _entry(node, parts[0], where)
        items = list(node.value)
        # A stage is one key in its entry, so its name is needed again inside; an index stands for itself.
        items[index] = _replaced(items[index], parts[1:] if parts[0].isdigit() else parts, value, where)
        return yaml.SequenceNode(node.tag, items, node.start_mark, node.end_mark)
    if isinstance(node, yaml.MappingNode):
        entries, start, end = list(node.value), node.start_mark, node.end_mark
    else:  # a bare name (`- extract_html`) or null becomes the mapping that it stands for
        name = resolve(node)
        entries = [] if name is None else [(node, _scalar("", where))]
        start, end = node.start_mark, node.end_mark
    for i, (key, old) in enumerate(entries):
        if _is_called(key.value, parts[0]):
            entries[i] = (key, _replaced(old, parts[1:], value, where))
            break
    else:
        entries.append((_scalar(parts[0], where), _replaced(_scalar("", where), parts[1:], value, where)))
    return yaml.MappingNode("tag:yaml.org,2002:map", entries, start, end)


def _entry(node: yaml.SequenceNode, part: str, where: str) -> int:
    """Return the index of the list entry that `part` names."""
    names = [item.value[0][0].value if isinstance(item, yaml.MappingNode) and item.value else item.value for item in node.value]
    matches = (
        [int(part)] if part.isdigit() and int(part) < len(names) else [i for i, n in enumerate(names) if _is_called(n, part)]
    )
    known = [_called(name) for name in names if isinstance(name, str)]
    if not matches:
        raise ConfigError(f"no entry {part!r} in the list;{suggest(part, known)} it has {', '.join(known)}", where)
    if len(matches) > 1:
        raise ConfigError(f"{part!r} is there {len(matches)} times; use its index: {' or '.join(map(str, matches))}", where)
    return matches[0]


def _is_called(name: object, part: str) -> bool:
    return isinstance(name, str) and part in (name, _called(name))


def _called(name: str) -> str:
    """Return the part of a name that a dotted key has for it: a module or a file before it would have dots of its own."""
    return name.rpartition(":")[2]


def _scalar(text: str, name: str) -> yaml.ScalarNode:
    mark = yaml.Mark(name, 0, 0, 0, "", 0)
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, mark, mark)


def _named(text: str, name: str) -> Any:  # noqa: ANN401 - PyYAML takes the marks' name from a stream's attribute
    stream = io.StringIO(text)
    stream.name = name
    return stream


def _place(mark: yaml.Mark) -> str:
    return mark.name if mark.name.startswith(OVERRIDE) else f"{mark.name}:{mark.line + 1}:{mark.column + 1}"


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _hint(problem: str) -> str:
    if "'\\t'" in problem:
        return "; indent with spaces, not tabs"
    if "mapping values are not allowed" in problem:
        return "; check the indentation, and quote text that contains ': '"
    if "another document" in problem or "document start" in problem:
        return "; one file holds one config (remove `---`)"
    return ""


class _Checked:
    """What a tree holds that was checked: refuses tags, keys given twice, keys that are no text, and aliases without bound.

    An alias makes no copy, but all that reads the tree goes into it each time: nine lists of nine aliases each are 10^9 values.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}  # of a node, by its identity, with all aliases written out
        self._written = 0  # of all nodes once

    def check(self, node: Node, above: tuple[Node, ...] = ()) -> int:
        """Check a node and all below it, each once; return its size."""
        if any(node is parent for parent in above):
            raise ConfigError("an anchor that contains itself", place(node))
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        if node.tag not in _TAGS:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise ConfigError(f"tags are not supported, found {tag!r}; delete it", place(node))
        own = 1 + len(node.value) // CHARACTERS if isinstance(node, yaml.ScalarNode) else 1
        self._written += own
        size = own + sum(self.check(below, (*above, node)) for below in _children(node))
        if size - self._written > EXPANDED:
            raise ConfigError(
                f"its aliases (`*name`) stand for {size:,} values, {EXPANDED:,} more than are written are allowed; write out "
                "what is meant",
                place(node),
            )
        self._sizes[id(node)] = size
        return size


def _children(node: Node) -> list[Node]:
    """Return the nodes directly in a list, or the values of a mapping, whose keys are checked."""
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    seen: dict[str, Node] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or resolve(key) is None:
            raise ConfigError(f"a key must be text, found {found(key)}", place(key))
        if key.value in seen:
            first = seen[key.value].start_mark.line + 1
            raise ConfigError(f"key {key.value!r} is given twice (first on line {first}); delete one", place(key))
        seen[key.value] = key
    return [value for _, value in node.value]
