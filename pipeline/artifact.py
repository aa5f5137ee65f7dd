"""What a Fit settled on, published for other builds: a folder with the model's table and a record of what it is.

Reads and writes `artifact.json` and `model-<sha256>.arrow` in any folder of any store. The record comes last, so a folder
without it holds nothing; it names the model's sha256, which is compared whenever the model is read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from gristmill.errors import Damaged, InputError
from gristmill.format import fields
from gristmill.json_values import Plain
from gristmill.storage.store import open_store
from pipeline import records

NAME = "artifact.json"
FORMAT = "gristmill artifact"
VERSION = 1
ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A published model.

    `name`: that of its folder. `id`: 32 hex digits over the code that made it and its content. `stage`: as a config names it.
    `code`: the stage's class and version, and hashes of code that is not this project's. `parameters`: with which it was fitted,
    as in a config. `files`: sha256 of the files that these name, by their place among them. `build`: from which it comes.
    `model`, `sha256`, `bytes`: the file of the table.
    """

    name: str
    id: str
    stage: str
    code: Mapping[str, Plain]
    parameters: Mapping[str, Plain]
    files: Mapping[str, str]
    build: str
    model: str
    sha256: str
    bytes: int


def id_of(code: Mapping[str, Plain], sha256: str) -> str:
    """Return the id of what this code settled on."""
    return hashlib.sha256(json.dumps([code, sha256], sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


def model_name(sha256: str) -> str:
    """Return the name of a model's file."""
    return f"model-{sha256[:16]}.arrow"


def publish(artifact: Artifact, content: bytes, folder: str) -> bool:
    """Write an artifact; return False where the very same is there already.

    Raises:
        InputError: the folder holds another artifact.
    """
    store = open_store(folder)
    store.put_new(artifact.model, content)
    record = {"format": FORMAT, "version": VERSION, **vars(artifact)}
    if store.put_new(NAME, records.pack_plain(record)):
        return True
    there = read(folder)
    if there.id != artifact.id or there.parameters != artifact.parameters:
        raise InputError(
            f"{store.uri(NAME)} holds another artifact ({there.id}, of stage {there.stage!r}); what is published stays as it is, "
            "give another folder"
        )
    return False


def read(folder: str) -> Artifact:
    """Return what a folder holds.

    Raises:
        InputError: there is no artifact, or it is damaged.
    """
    store = open_store(folder)
    where = store.uri(NAME)
    try:
        content = records.find_plain(store, NAME)
        if content is None:
            advice = "`python -m jobs publish BUILD STAGE FOLDER` makes one"
            raise InputError(f"{folder!r}: no artifact there (looked for {where!r}); {advice}")
        with records.reading(store, NAME):
            if (found := content.get("format")) != FORMAT or content.get("version") != VERSION:
                raise InputError(f"{where}: format {found!r}, version {content.get('version')!r}; expected {FORMAT!r}, {VERSION}")
            return Artifact(
                **{key: fields.get(content, key, str, where) for key in ("name", "stage", "build")},
                **{key: fields.get(content, key, dict, where) for key in ("code", "parameters", "files")},
                id=fields.matching(content, "id", ID, where),
                model=fields.matching(content, "model", fields.FILE, where),
                sha256=fields.matching(content, "sha256", fields.SHA256, where),
                bytes=fields.get(content, "bytes", int, where),
            )
    except Damaged as error:
        raise InputError(f"{error.what}; copy the artifact anew, or publish it again") from error


def table_of(artifact: Artifact, folder: str) -> pa.Table:
    """Read the model of an artifact.

    Raises:
        InputError: it is missing, or not what was published.
    """
    store = open_store(folder)
    try:
        content = store.read(artifact.model)
    except FileNotFoundError:
        content = None
    if content is None or hashlib.sha256(content).hexdigest() != artifact.sha256:
        wrong = "is missing" if content is None else "is damaged: it is not what was published (its sha256 is another)"
        raise InputError(f"{store.uri(artifact.model)} {wrong}; copy the artifact anew, or publish it again")
    return pa.ipc.open_file(pa.py_buffer(content)).read_all()
