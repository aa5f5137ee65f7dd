"""`publish`: what a Fit of a finished build settled on, as an artifact that other builds take (`from: FOLDER`).

Reads the record of a run, and the file that its settle committed; writes the artifact's two files into a folder of any store.
"""

from __future__ import annotations

import argparse

from gristmill.errors import InputError
from jobs.config import build_config
from jobs.config.artifacts import data_of
from jobs.config.yaml_nodes import suggest
from jobs.terminal import say, tell
from pipeline import artifact as artifacts
from pipeline.artifact import Artifact, id_of, model_name
from pipeline.builds.locate import LocatedRun, locate_run
from pipeline.checked import fault
from pipeline.fitted import Fitted
from pipeline.planning.contents import contents
from pipeline.planning.fingerprint import code_of
from pipeline.records import read_unit
from pipeline.stage import Fit

DONE = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `publish` takes."""
    parser.add_argument("build", help="a build's output folder, or one of its builds/<id>")
    parser.add_argument("stage", help="the stage whose model is wanted, by its name in the build, such as buckets")
    parser.add_argument("folder", help="where the artifact is to lie: a folder of its own, local, s3:// or az://")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    return publish(arguments.build, arguments.stage, arguments.folder)


def publish(path: str, stage: str, folder: str) -> int:
    """Write the artifact, and tell its id; return the exit code.

    Raises:
        InputError: there is no such build or stage, the stage settles on no model, or the folder holds another artifact.
        Damaged: what the build committed is missing or damaged.
    """
    located = locate_run(path, made=True)
    named, fit = _fit(located, stage)
    settled, content = _settled(located, stage)
    code = code_of(type(fit))
    name = folder.rstrip("/").rpartition("/")[2] or stage
    artifact = Artifact(
        name=name,
        id=id_of(code, settled),
        stage=named,
        code=code,
        parameters=data_of(fit),
        files=contents(fit),
        build=located.record.build,
        model=model_name(settled),
        sha256=settled,
        bytes=len(content),
    )
    fresh = artifacts.publish(artifact, content, folder)
    tell(f"{'published' if fresh else 'was there already'}: {stage} of build {artifact.build} in {folder}")
    say(f"artifact {artifact.id} {folder}")
    return DONE


def _fit(located: LocatedRun, stage: str) -> tuple[str, Fit]:
    """Return a stage of the run's build that settles on a model, and its name as a config has it."""
    config = located.record.run.get("config")
    if config is None:
        raise InputError(f"{located.output!r}: the record of the run holds no config; run the build again")
    build = build_config.from_record(config)
    fits = {name: each for name, each in build.stages if isinstance(each, Fit)}
    for name, each in build.stages:
        if name == stage and isinstance(each, Fitted):
            raise InputError(
                f"stage {stage!r} of this build has the artifact in {each.folder!r} and fits nothing; copy that folder"
            )
    if stage not in fits:
        there = f"those of this build are {', '.join(fits)}" if fits else "none of this build does"
        raise InputError(f"no stage {stage!r} that settles on a model;{suggest(stage, fits)} {there}")
    place = [name for name, _ in build.stages].index(stage)
    (named,) = config["stages"][place]
    return named, fits[stage]


def _settled(located: LocatedRun, stage: str) -> tuple[str, bytes]:
    """Return the sha256 and the bytes of the file that the stage's settle committed."""
    step = next(each for each in located.record.steps if each.kind == "settle" and stage in each.stages)
    (unit,) = step.units
    data = read_unit(located.store, unit).outputs["settled"]
    wrong = fault(located.store, data.data, data.bytes, data.sha256)
    if wrong is not None:
        raise InputError(f"{located.store.uri(data.data)} {wrong}; `python -m jobs build CONFIG --verify` puts it back")
    return data.sha256, located.store.read(data.data)
