"""One YAML file → one validated build.

Reads the file, the overrides of the command line and the dict of known stages; gives a `Build` whose stages are
constructed, checked and in an order that can run. Strict: whatever is not understood is a ConfigError with its place, what
was found, what is allowed and a suggestion. Paths are relative to the current directory; nothing is expanded from the
environment. The file is the same for a laptop and a cluster: only `run` differs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import yaml

from gristmill.errors import ConfigError, UserError
from gristmill.json_values import Json
from jobs.config.artifacts import data_of, stage_of
from jobs.config.own_stages import account, is_own, own_stage
from jobs.config.parameters import as_data, build, required
from jobs.config.run import Run
from jobs.config.yaml_nodes import Node, found, from_data, load_node, nothing, override, pairs, place, resolve, suggest
from pipeline.fitted import working
from pipeline.planning.asking import asked, may_have_pool
from pipeline.planning.plan_check import Fault, column_faults, order_faults
from pipeline.stage import Sink, Source, Stage
from stages import STAGES

SOURCE = -1  # the index of the source in `Build.places`


@dataclass(frozen=True, kw_only=True)
class Build:
    """A build that can be planned.

    `stages`: (name, stage) in the order of the file, without the source; a stage used twice is `name` and `name-2`.
    `text`: the whole config with defaults and overrides as plain data, for the record of the run. `places`: where each stage
    stands in the file, by its index in `stages`; the source has the index -1.
    """

    name: str
    output: str
    source_name: str
    source: Source
    stages: tuple[tuple[str, Stage], ...]
    run: Run
    text: Mapping[str, Json]
    places: Mapping[int, str]


@dataclass(frozen=True)
class _Named:
    """A stage as the config names it."""

    name: str
    stage: Stage
    place: str


_KEYS = tuple(field.name for field in fields(Build) if field.name not in ("source_name", "text", "places"))


def load(path: str | Path, overrides: Mapping[str, str] | None = None, known: Mapping[str, type[Stage]] = STAGES) -> Build:
    """Return the build that a YAML file describes.

    Args:
        path: the file.
        overrides: dotted keys to YAML values, as `--set` gives them: {"run.workers": "2", "stages.language.min_score": "0.7"}.
        known: the stages that a config may name.

    Raises:
        UserError: one message about the first mistake; a ConfigError wherever it has a place in the file.
    """
    root = load_node(path)
    for key, value in (overrides or {}).items():
        root = override(root, key, value)
    return _build(root, known)


def from_record(data: Mapping[str, Json]) -> Build:
    """Return the build that a run's record holds (`Build.text`), for asking about it later.

    Raises:
        UserError: the stages or the files that it names have changed since.
    """
    return _build(from_data(data, "the run's record"), STAGES)


def _build(root: Node, known: Mapping[str, type[Stage]]) -> Build:
    entries = _top(root, known)
    source = _source(entries["source"], known)
    stages = _stages(entries["stages"], known)
    run = build(Run, entries.get("run", nothing(root)), "run")
    name, output = (_text(entries[key], key) for key in ("name", "output"))
    source_name, *names = _different([account(each.name) for each in (source, *stages)])
    _check((source_name, *names), (source, *stages), known)
    pooled = [name for name, each in zip(names, stages, strict=True) if may_have_pool(each.stage)]
    _check_pools(run, entries.get("run", nothing(root)), pooled)
    _check_home(stages[-1], output, entries["output"])
    _check_finished(source, stages[-1], known)
    text = {
        "name": name,
        "output": output,
        "source": {source.name: as_data(source.stage)},
        "stages": [{each.name: data_of(each.stage)} for each in stages],
        "run": as_data(run),
    }
    assert isinstance(source.stage, Source)
    return Build(
        name=name,
        output=output,
        source_name=source_name,
        source=source.stage,
        stages=tuple(zip(names, (each.stage for each in stages), strict=True)),
        run=run,
        text=text,
        places={SOURCE: source.place} | {i: each.place for i, each in enumerate(stages)},
    )


def _different(names: Sequence[str]) -> list[str]:
    """Return the names with a number where one comes again, so that each stage has an account of its own."""
    return [f"{name}-{n}" if (n := names[: i + 1].count(name)) > 1 else name for i, name in enumerate(names)]


def _check_pools(run: Run, node: Node, pooled: Sequence[str]) -> None:
    """Check that `run.pools` names stages of the build that have a pool."""
    for name in run.pools:
        if name not in pooled:
            those = f"those that have one are {', '.join(pooled)}" if pooled else "none of this build has one"
            entries = next(value for key, value in pairs(node, "run") if key.value == "pools")
            where = next(key for key, _ in pairs(entries, "run.pools") if key.value == name)
            raise ConfigError(f"run: 'pools' names {name!r}, no stage with a pool;{suggest(name, pooled)} {those}", place(where))


def _top(root: Node, known: Mapping[str, type[Stage]]) -> dict[str, Node]:
    """Return the values of the file's own keys."""
    entries: dict[str, Node] = {}
    for key, value in pairs(root, "a config"):
        name = key.value
        if name in _KEYS:
            entries[name] = value
            continue
        advice = suggest(name, _KEYS)
        if name in known:
            kind = "source" if issubclass(known[name], Source) else "stage"
            advice = f" {name!r} is a {kind}, put it under `{'source' if kind == 'source' else 'stages'}:`;"
        raise ConfigError(f"unknown key {name!r};{advice} a config has {', '.join(_KEYS)}", place(key))
    for name in _KEYS:
        if name != "run" and name not in entries:
            raise ConfigError(f"key {name!r} is missing; a config has {', '.join(_KEYS)}", place(root))
    return entries


def _text(node: Node, key: str) -> str:
    value = resolve(node) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{key!r} must be text, found {found(node)}", place(node))
    return os.path.expanduser(value) if value.startswith("~/") else value


def _source(node: Node, known: Mapping[str, type[Stage]]) -> _Named:
    name_node, arguments = _one(node, "the source", "source: {warc: {paths: ...}}")
    name = name_node.value
    known = _with_own(known, name_node)
    sources = {name: cls for name, cls in known.items() if issubclass(cls, Source)}
    if name not in sources:
        problem = f"{name!r} is a stage, not a source;" if name in known else f"unknown source {name!r};{suggest(name, sources)}"
        raise ConfigError(f"{problem} the sources are {', '.join(sources)}", place(name_node))
    made = _Named(name, build(sources[name], arguments, f"source {name!r}"), place(name_node))
    assert isinstance(made.stage, Source)
    try:
        return replace(made, stage=asked(type(made.stage), "resolved", made.stage.resolved))
    except UserError as error:
        raise _placed(error, made) from error


def _stages(node: Node, known: Mapping[str, type[Stage]]) -> list[_Named]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise ConfigError(f"'stages' must be a list (`- extract_html`, ...), found {found(node)}", place(node))
    stages = []
    for item in node.value:
        name_node, arguments = _one(item, "an entry of 'stages'", "- language: {keep: [en]}")
        name = name_node.value
        there = _with_own(known, name_node)
        allowed = [other for other, cls in there.items() if not issubclass(cls, Source)]
        if name not in there:
            raise ConfigError(
                f"unknown stage {name!r};{suggest(name, allowed)} the stages are {', '.join(allowed)}", place(name_node)
            )
        if name not in allowed:
            raise ConfigError(f"{name!r} is a source, not a stage; put it under `source:`", place(name_node))
        stages.append(_Named(name, stage_of(name, there[name], arguments), place(name_node)))
    return stages


def _with_own(known: Mapping[str, type[Stage]], node: yaml.ScalarNode) -> Mapping[str, type[Stage]]:
    """Return the known stages, with the one of the user's own that a name stands for."""
    name = node.value
    if name in known or not is_own(name):
        return known
    try:
        return {**known, name: own_stage(name, known)}
    except UserError as error:
        raise ConfigError(str(error), place(node)) from error


def _one(node: Node, what: str, example: str) -> tuple[yaml.ScalarNode, Node]:
    """Return the name and the parameters of `name` or `{name: parameters}`."""
    if isinstance(node, yaml.ScalarNode) and isinstance(resolve(node), str):
        return node, nothing(node)
    if isinstance(node, yaml.MappingNode) and len(node.value) == 1:
        name, arguments = node.value[0]
        return name, arguments
    advice = f"write `{example}`"
    if isinstance(node, yaml.MappingNode) and len(node.value) > 1:
        advice = f"if {node.value[1][0].value!r} is a parameter of {node.value[0][0].value!r}, indent it further, or {advice}"
    raise ConfigError(f"{what} must be one name, with or without parameters, found {found(node)}; {advice}", place(node))


def _check(names: Sequence[str], all_stages: Sequence[_Named], known: Mapping[str, type[Stage]]) -> None:
    """Check what stages, with the source before them, ask of files and of each other."""
    plan = [(name, each.stage) for name, each in zip(names, all_stages, strict=True)]
    for fault in order_faults(plan):
        raise _placed_fault(fault, all_stages[fault.at], known)
    for each in all_stages:
        try:
            asked(type(working(each.stage)), "check", each.stage.check)
        except UserError as error:
            raise _placed(error, each) from error
    for fault in column_faults(plan):
        raise _placed_fault(fault, all_stages[fault.at], known)


def _placed_fault(fault: Fault, each: _Named, known: Mapping[str, type[Stage]]) -> ConfigError:
    """Return a fault of the plan with the place of its stage, and the stages that would mend it."""
    advice = ""
    if fault.lacks == "sink":
        advice = f"; those that write are {', '.join(name for name, cls in known.items() if issubclass(cls, Sink))}"
    if fault.lacks == "column":
        givers = [name for name, cls in known.items() if fault.column in _gives_by_default(cls)]
        which = "it" if len(givers) == 1 else "one"
        advice = f"; it is added by stage {' or '.join(map(repr, givers))}, put {which} before {each.name!r}" if givers else ""
    return ConfigError(fault.message + advice, each.place)


def _check_home(last: _Named, output: str, node: Node) -> None:
    assert isinstance(last.stage, Sink)
    try:
        home = asked(type(last.stage), "home", last.stage.home)
    except UserError as error:
        raise _placed(error, last) from error
    if home is not None and os.path.normpath(home) != os.path.normpath(output):
        advice = f"its files belong to the build in {home!r}; write `output: {home}`"
        raise ConfigError(f"stage {last.name!r}: output is {output!r}, but {advice}", place(node))


def _check_finished(source: _Named, last: _Named, known: Mapping[str, type[Stage]]) -> None:
    """Check that what adds to a finished build is given the tokens of that, and what reads one adds to it."""
    assert isinstance(source.stage, Source) and isinstance(last.stage, Sink)
    read, added = (_build_of(each) for each in (source, last))
    if read == added:
        return
    if added is None:
        sinks = ", ".join(name for name, cls in known.items() if issubclass(cls, Sink) and cls.of_build is not Sink.of_build)
        raise ConfigError(
            f"source {source.name!r} gives the tokens of a finished build, without their texts, for adding to it; the last stage "
            f"must be one that does ({sinks}), found {last.name!r}",
            last.place,
        )
    if read is None:
        sources = [name for name, cls in known.items() if issubclass(cls, Source) and cls.of_build is not Source.of_build]
        raise ConfigError(
            f"stage {last.name!r} adds to the finished build {added}, whose documents source {source.name!r} does not give; the "
            f"source must be one that does ({', '.join(sources)})",
            source.place,
        )
    raise ConfigError(
        f"stage {last.name!r} adds to build {added}, source {source.name!r} reads build {read}; name the same one in both",
        last.place,
    )


def _build_of(each: _Named) -> str | None:
    """Return the id of the finished build that a source reads or a sink adds to."""
    assert isinstance(each.stage, Source | Sink)
    try:
        return asked(type(each.stage), "of_build", each.stage.of_build)
    except UserError as error:
        raise _placed(error, each) from error


def _gives_by_default(cls: type[Stage]) -> set[str]:
    """Return the columns that a stage gives with default parameters; none where it has required ones."""
    if required(cls):
        return set()
    try:
        return set(cls().gives())
    except UserError:
        return set()


def _placed(error: UserError, each: _Named) -> UserError:
    if isinstance(error, ConfigError) and error.place:
        return error
    kind = "source" if isinstance(each.stage, Source) else "stage"
    return ConfigError(f"{kind} {each.name!r}: {error}", each.place)
