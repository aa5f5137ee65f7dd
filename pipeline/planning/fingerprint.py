"""Names for work: a hash over the code of stages, their libraries and parameters, and the fingerprints of the inputs.

Reads stages, the files they name and the versions of what is installed; writes nothing. A fingerprint says what an output will
be before it is computed, so finding the name in the store means the work is done.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from gristmill.json_values import Plain
from pipeline.conditions import libraries_of
from pipeline.fitted import Fitted, working
from pipeline.planning.code import hash_of, identity, is_ours, units_of
from pipeline.planning.contents import contents
from pipeline.stage import ASIDE, Source, Stage

# Raised when the machine itself (segments, exchange, ledger) changes what it writes for the same stages and inputs.
MACHINE = 2

PYTHON = "python"  # stands among a stage's libraries for Python itself, whose minor versions bring other tables of Unicode
ABSENT = "absent"


def digest(*parts: object) -> str:
    """Return 32 hex digits over JSON-like parts: sha256 of their canonical form (sorted keys, no spaces)."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def describe(stage: Stage) -> dict[str, Plain]:
    """Return a stage as plain data: class, version, parameters, libraries, and the sha256 of the files it names.

    The paths of a source are left out: which files there are is no property of the work on one of them. A stage that is not this
    project's is described by the hash of its code, too, and by the versions of this project's stages that it derives from. One
    with an artifact is described as the Fit, with the id of the artifact.
    """
    own = working(stage)
    described = {**code_of(type(own)), "parameters": parameters(own)}
    if isinstance(stage, Fitted):
        described["artifact"] = stage.artifact.id
    if libraries := {name: version_of(name) for name in sorted(libraries_of(stage))}:
        described["libraries"] = libraries
    if files := contents(own):
        described["files"] = files
    return described


def code_of(cls: type[Stage]) -> dict[str, Plain]:
    """Return the code of a stage as plain data: its class and version; of one that is not this project's the hash of it, too."""
    found: dict[str, Plain] = {"stage": identity(cls), "version": cls.version}
    if not is_ours(cls):
        found["code"] = {unit.name: hash_of(unit) for unit in units_of(cls)}
        bases = (base for base in cls.__mro__ if is_ours(base) and issubclass(base, Stage))
        found["bases"] = {identity(base): base.version for base in bases}
    return found


def origin(stage: Stage) -> dict[str, str]:
    """Return what a stage is made with, for people: its version, those of its libraries, and a hash of code that is not ours."""
    cls = type(working(stage))
    found = {"version": str(cls.version), **{name: version_of(name) for name in sorted(libraries_of(stage))}}
    if not is_ours(cls):
        found["code"] = digest(*(hash_of(unit) for unit in units_of(cls)))[:12]
    return found


@functools.cache
def version_of(library: str) -> str:
    """Return the version of an installed distribution (of Python: major and minor), `absent` where there is none.

    Without what stands behind a `+`: it names a build of the same release, such as torch's for CPUs.
    """
    if library == PYTHON:
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        return metadata.version(library).partition("+")[0]
    except metadata.PackageNotFoundError:
        return ABSENT


def parameters(stage: Stage) -> dict[str, Plain]:
    """Return the parameters of a stage as plain data, without the paths of a source and what leaves no trace (`ASIDE`).

    Of one with an artifact those of the Fit, and `from`: the name, the id and the build of the artifact.
    """
    if isinstance(stage, Fitted):
        artifact = stage.artifact
        return {**parameters(stage.fit), "from": {"name": artifact.name, "id": artifact.id, "build": artifact.build}}
    fields = [field for field in dataclasses.fields(stage) if not field.metadata.keys() >= ASIDE.keys()]
    values: dict[str, Plain] = {field.name: _plain(getattr(stage, field.name)) for field in fields}
    if isinstance(stage, Source):
        del values["paths"]
    if values.get("unless", "") is None:  # a filter that is asked about all is what it was before there was such a parameter
        del values["unless"]
    return values


def aside(stage: Stage) -> dict[str, Plain]:
    """Return the parameters of a stage that leave no trace in what is built (`ASIDE`), as plain data."""
    fields = [field for field in dataclasses.fields(stage) if field.metadata.keys() >= ASIDE.keys()]
    return {field.name: _plain(getattr(stage, field.name)) for field in fields}


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"": identity(type(value)), **fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    assert value is None or isinstance(value, str | int | float | bool), f"parameter of type {type(value).__name__}"
    return value
