"""What a machine must have in common with the driver before it works: code, imports, files, and one output.

Knows no engine: `Exam` is written by the driver, `sit` is done on the node, `faults` compares. Ray takes it to the nodes
(`pipeline/engines/on_ray/preflight.py`).
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gristmill.errors import GristmillError, InputError
from gristmill.storage.store import Store, open_store, probe
from pipeline.conditions import libraries_of
from pipeline.engines.cargo import travelling
from pipeline.fitted import working
from pipeline.planning.code import hash_of, unit_of
from pipeline.planning.fingerprint import ABSENT, version_of
from pipeline.units.segment import Task

FOLDER = "preflight"  # in the output: what driver and nodes show each other, for the moment
OWN = ("gristmill", "pipeline")  # packages that must be the driver's own wherever units run
SEEN_S = 10.0  # for which a file that was put may stay unseen: network disks remember what was not there
LOOK_S = 0.25


@dataclass(frozen=True)
class Exam:
    """What the driver has: its output, a file it has put there, its code, and what a step reads.

    `code`: the hash of the files of each package. `modules`: of the step's stages. `libraries`: that decide what these do, with
    their versions. `files`: local paths that they read.
    """

    root: str
    token: str
    code: Mapping[str, str]
    modules: tuple[str, ...]
    libraries: Mapping[str, str]
    files: tuple[str, ...]

    @property
    def shown(self) -> str:
        """Return the name of the driver's file."""
        return f"{FOLDER}/{self.token}-driver"

    def answer(self, node: str) -> str:
        """Return the name of the file that a node puts."""
        return f"{FOLDER}/{self.token}-{node}"


@dataclass(frozen=True)
class Paper:
    """What a node found: its code, its libraries, what could not be imported (module → why), missing files, and its output."""

    code: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    unimportable: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    output: str = ""  # why it cannot be used
    elsewhere: bool = False  # it does not have the driver's file


def modules_of(task: Task) -> tuple[str, ...]:
    """Return the modules of the stages of a task's step."""
    modules = (type(working(stage)).__module__ for _, stage in task.spec.all())
    return tuple(dict.fromkeys(module for module in modules if module != "__main__"))


def set_exam(task: Task, token: str) -> Exam:
    """Put the driver's file and return the exam for the nodes that are to work on the step of `task`."""
    stages = [stage for _, stage in task.spec.all()]
    modules = modules_of(task)
    packages = dict.fromkeys((*OWN, *(unit_of(module).name for module in modules)))
    libraries = {name: version_of(name) for stage in stages for name in libraries_of(stage)}
    inputs = [task.unit.file.uri] if task.unit.file is not None else []
    there = [unit.path for unit in travelling(stages)]
    named = [path for stage in stages for path in stage.files() if not any(Path(path).is_relative_to(unit) for unit in there)]
    files = [path for path in (*inputs, *named) if "://" not in path]
    exam = Exam(task.root, token, {name: code_of(name) for name in packages}, modules, libraries, tuple(files))
    open_store(exam.root).put_new(exam.shown, token.encode())
    return exam


def code_of(package: str) -> str:
    """Return a hash over the files of a package or module; empty when it is not there."""
    try:
        return hash_of(unit_of(package))[:12]
    except (InputError, ImportError):
        return ""


def sit(exam: Exam, node: str) -> Paper:
    """Find out how this machine stands; run on the node, from the driver's folder where there is one."""
    unimportable = {}
    for module in exam.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            unimportable[module] = f"{type(error).__name__}: {error}"
    output, elsewhere = "", False
    try:
        store = open_store(exam.root)
        elsewhere = not seen(store, exam.shown, exam.token)
        if not elsewhere:
            probe(store)
            store.put_new(exam.answer(node), exam.token.encode())
    except GristmillError as error:
        output = str(error)
    except OSError as error:
        output = f"{type(error).__name__}: {error}"
    missing = tuple(path for path in exam.files if not os.path.exists(path))
    libraries = {name: version_of(name) for name in exam.libraries}
    return Paper({name: code_of(name) for name in exam.code}, libraries, unimportable, missing, output, elsewhere)


def seen(store: Store, name: str, content: str) -> bool:
    """Tell whether a file that another machine has put can be read here, within some seconds."""
    end = time.monotonic() + SEEN_S
    while True:
        try:
            return store.read(name) == content.encode()
        except FileNotFoundError:
            if time.monotonic() >= end:
                return False
        time.sleep(LOOK_S)


def faults(exam: Exam, paper: Paper, node: str) -> list[str]:
    """Return what keeps a node from working, each with what to do about it; nothing when it is fit."""
    found = [f"cannot import {module} ({why}); install the driver's packages there" for module, why in paper.unimportable.items()]
    other = [name for name, code in exam.code.items() if paper.code.get(name) != code]
    if other:
        hashes = ", ".join(f"{name} {paper.code.get(name) or 'is not there'} (driver: {exam.code[name]})" for name in other)
        found.append(f"has other code than the driver: {hashes}; give it the driver's checkout or image")
    absent = [name for name, version in paper.libraries.items() if version == ABSENT]
    if absent:
        lacks = ", ".join(f"{name} (driver: {exam.libraries[name]})" for name in absent)
        found.append(f"lacks libraries that a stage names in libraries(): {lacks}; install them there; names are those of pip")
    other = [name for name, version in exam.libraries.items() if paper.libraries.get(name) not in (version, ABSENT)]
    if other:
        versions = ", ".join(f"{name} {paper.libraries.get(name)} (driver: {exam.libraries[name]})" for name in other)
        found.append(f"has other libraries than the driver: {versions}; what they make would differ; install the driver's there")
    if paper.missing:
        more = f" and {len(paper.missing) - 1} more" if len(paper.missing) > 1 else ""
        found.append(f"has no {paper.missing[0]!r}{more}; put inputs and models where every node has them, or on s3://")
    if paper.output:
        found.append(f"cannot use the output {exam.root!r}: {paper.output}; give it the driver's credentials and mounts")
    elif paper.elsewhere or not seen(open_store(exam.root), exam.answer(node), exam.token):
        found.append(
            f"its output {exam.root!r} is another folder: what one puts there the other does not see; use a folder that all "
            "nodes mount, or s3://"
        )
    return found


def put_away(exam: Exam, nodes: Iterable[str]) -> None:
    """Remove the files of an exam from the output."""
    store = open_store(exam.root)
    for name in (exam.shown, *map(exam.answer, nodes)):
        store.remove(name)


def report_of(found: Mapping[str, Sequence[str]], nodes: int) -> str:
    """Return the faults of nodes (name → faults) as one message."""
    lines = [f"  node {node} {fault}" for node, each in found.items() for fault in each]
    return "\n".join([f"{len(found)} of {nodes} node{'s' * (nodes != 1)} cannot work on this build:", *lines])
