"""Where a build came from: its inputs and its stages, as its manifest and the records of its runs say.

Pure data. Secrets of URLs are hidden before it gets here; nothing of it is part of a build's id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from gristmill.format import fields
from gristmill.json_values import Plain


@dataclass(frozen=True)
class BuildInput:
    """A file that a build has read: its name among the inputs, where it lies, and its size."""

    name: str
    uri: str
    bytes: int


@dataclass(frozen=True)
class BuildStage:
    """A stage of a build, by its name there, with the version of its code and its parameters as plain data."""

    stage: str
    version: int
    parameters: Mapping[str, Plain]


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The origin of a build: its name, its inputs in the order of its documents, its stages in that of the config."""

    name: str
    inputs: tuple[BuildInput, ...]
    stages: tuple[BuildStage, ...]

    def plain(self) -> dict[str, Plain]:
        """Return inputs and stages as a manifest has them, which has the name beside them."""
        return {"inputs": [asdict(each) for each in self.inputs], "stages": [asdict(each) for each in self.stages]}


def parse_inputs(content: Sequence[object], where: str) -> tuple[BuildInput, ...]:
    """Check inputs as decoded from JSON. Raises FormatError that begins with `where` and the number of the input."""
    return tuple(
        BuildInput(fields.get(each, "name", str, at), fields.get(each, "uri", str, at), fields.get(each, "bytes", int, at))
        for at, each in ((f"{where}[{number}]", each) for number, each in enumerate(content))
    )


def parse_stages(content: Sequence[object], where: str) -> tuple[BuildStage, ...]:
    """Check stages as decoded from JSON. Raises FormatError that begins with `where` and the number of the stage."""
    return tuple(
        BuildStage(
            fields.get(each, "stage", str, at), fields.get(each, "version", int, at), fields.get(each, "parameters", dict, at)
        )
        for at, each in ((f"{where}[{number}]", each) for number, each in enumerate(content))
    )
