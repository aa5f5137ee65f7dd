"""A Fit that a config gives an artifact: `from: FOLDER` beside the stage's parameters.

Reads the artifact's record; gives the stage as the machine takes it. Parameters that are left out are those that the artifact was
fitted with. `from` is no name that a parameter can have, so it can mean nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from gristmill.errors import ConfigError, UserError
from jobs.config.parameters import as_data, build
from jobs.config.yaml_nodes import Node, found, from_data, pairs, place, resolve
from pipeline import artifact as artifacts
from pipeline.artifact import Artifact
from pipeline.fitted import Fitted
from pipeline.planning.contents import contents
from pipeline.planning.fingerprint import code_of
from pipeline.stage import Fit, Stage

FROM = "from"


def stage_of(name: str, cls: type[Stage], node: Node) -> Stage:
    """Return the stage of this name in a config, by its class and parameters.

    Raises:
        ConfigError: as `build`; there is no artifact, or it does not fit.
    """
    where = f"stage {name!r}"
    given = {key.value: (key, value) for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}
    if FROM not in given or not issubclass(cls, Fit):
        return build(cls, node, where)
    _, folder_node = given.pop(FROM)
    folder = resolve(folder_node) if isinstance(folder_node, yaml.ScalarNode) else None
    if not isinstance(folder, str) or not folder:
        raise ConfigError(f"{where}: 'from' must be the folder of an artifact, found {found(folder_node)}", place(folder_node))
    try:
        artifact = artifacts.read(folder)
    except UserError as error:
        raise ConfigError(f"{where}: from: {error}", place(folder_node)) from error
    _check_made_by(name, cls, artifact, where, folder_node)
    fit = build(cls, _merged(node, given, artifact, folder), where)
    _check_parameters(fit, artifact, where, given)
    return Fitted(fit=fit, artifact=artifact, folder=folder)


def data_of(stage: Stage) -> Any:  # noqa: ANN401 - any parameters
    """Return what a config says of a stage, as plain data."""
    return {FROM: stage.folder, **as_data(stage.fit)} if isinstance(stage, Fitted) else as_data(stage)


def _merged(node: Node, given: Mapping[str, tuple[Node, Node]], artifact: Artifact, folder: str) -> Node:
    """Return the parameters that are given, and for the others those of the artifact."""
    fitted = [pair for pair in pairs(from_data(artifact.parameters, folder), "parameters") if pair[0].value not in given]
    return yaml.MappingNode(node.tag, [*given.values(), *fitted], node.start_mark, node.end_mark)


def _check_made_by(name: str, cls: type[Fit], artifact: Artifact, where: str, node: Node) -> None:
    """Check that the code that would apply the model is that which made it."""
    now, then = code_of(cls), artifact.code
    if artifact.stage != name and now.get("stage") != then.get("stage"):
        raise ConfigError(f"{where}: from: artifact {artifact.name!r} is of stage {artifact.stage!r}, another", place(node))
    if now != then:
        versions = f"version {then.get('version')}, this is version {now.get('version')}"
        what = versions if now.get("version") != then.get("version") else "other code than it has now"
        raise ConfigError(
            f"{where}: from: artifact {artifact.name!r} was made by {what}; publish one of a build that was made with this",
            place(node),
        )


def _check_parameters(fit: Fit, artifact: Artifact, where: str, given: Mapping[str, tuple[Node, Node]]) -> None:
    """Check that nothing is asked for that would have been fitted otherwise."""
    for name, value in as_data(fit).items():
        if name in given and name not in fit.applying and value != artifact.parameters.get(name):
            raise ConfigError(
                f"{where}: parameter {name!r} is {value!r}, but artifact {artifact.name!r} was fitted with "
                f"{artifact.parameters.get(name)!r}; leave it out, or fit anew without 'from'",
                place(given[name][0]),
            )
    files = contents(fit)
    if files != artifact.files:
        raise ConfigError(
            f"{where}: the files that its parameters name ({', '.join(fit.files())}) are others than those that artifact "
            f"{artifact.name!r} was fitted with; name the same ones",
            place(next(iter(given.values()))[0]) if given else "",
        )
