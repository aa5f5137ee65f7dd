"""`train-tokenizer`: a tokenizer from a sample of documents, as a recipe describes it.

Reads the recipe and the documents; writes a folder with `tokenizer.json` and `tokenizer_config.json` (so that transformers
opens it), or `gristmill-tokenizer.json` for a scheme that no `tokenizer.json` can say, and `recipe.json` (what it was made
from, how it does on documents held out). Standard output ends with `tokenizer <sha256> <path of the tokenizer's file>`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from gristmill.errors import ConfigError, UserError
from gristmill.secrets import without_secrets
from gristmill.tokenizer import SCHEMES
from gristmill.tokenizer.files import as_file
from gristmill.tokenizer.scheme import Scheme
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.vocabulary import Vocabulary, is_superword
from jobs.config.parameters import as_data, build
from jobs.config.yaml_nodes import Node, found, load_node, nothing, pairs, place, resolve, suggest
from jobs.progress import TrainingProgress
from jobs.terminal import say, tell
from jobs.tokenizer.corpus import Sample, sample
from jobs.tokenizer.record import CONFIG, decided, end_token, lines, measures, transformers_config
from jobs.tokenizer.workers import Spread, Where
from pipeline.stage import Source

RECORD = "recipe.json"
HELD_OUT, MOST_HELD_OUT = 0.01, 0.1  # of the sample: not trained on, but measured; and what `held_out_bytes` takes at most


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The plain keys of a recipe.

    `output`: folder of the result. `bytes`: of text to train on, at most. `seed`: of the sample. `stratify`: the column in
    whose groups the sample has the same shares of bytes as all documents; null for none. `held_out_bytes`: of text that is
    measured on and not trained on, at least: a hundredth of the documents, or as many more as it takes, up to a tenth of the
    sample; with less than this the figures are given and said to be no measurement.
    """

    output: str
    bytes: int = 50_000_000
    seed: int = 0
    stratify: str | None = "language"
    held_out_bytes: int = 250_000
    run: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.bytes < 1:
            raise ValueError(f"bytes must be at least 1, found {self.bytes}")
        if self.held_out_bytes < 0:
            raise ValueError(f"held_out_bytes must be at least 0, found {self.held_out_bytes}")
        if not self.output.strip():
            raise ValueError("output must name a folder, found nothing")


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read: the scheme, where the documents are, and the whole as plain data with defaults."""

    scheme: Scheme
    documents: str | Source
    settings: Settings
    text: Mapping[str, Any]


_KEYS = ("scheme", "documents", "bytes", "seed", "stratify", "held_out_bytes", "output", "run")


def read_recipe(path: str) -> Recipe:
    """Return the recipe of a YAML file.

    Raises:
        UserError: one message about the first mistake, with its place.
    """
    root = load_node(path)
    entries = dict[str, Node]()
    for key, value in pairs(root, "a recipe"):
        if key.value not in _KEYS:
            advice = f"unknown key {key.value!r};{suggest(key.value, _KEYS)} a recipe has {', '.join(_KEYS)}"
            raise ConfigError(advice, place(key))
        entries[key.value] = value
    for name in ("scheme", "documents"):
        if name not in entries:
            raise ConfigError(f"key {name!r} is missing; a recipe has {', '.join(_KEYS)}", place(root))
    rest = [(key, value) for key, value in pairs(root, "a recipe") if key.value not in ("scheme", "documents")]
    settings = build(Settings, yaml.MappingNode(root.tag, rest, root.start_mark, root.end_mark), "recipe")
    name, scheme = named(entries["scheme"], "scheme", SCHEMES)
    text: dict[str, Any] = {"scheme": {name: as_data(scheme)}, "documents": None, **as_data(settings)}
    del text["run"]  # it changes nothing
    documents, text["documents"] = documents_at(entries["documents"])
    return Recipe(scheme, documents, settings, text)


def documents_at(node: Node) -> tuple[str | Source, Any]:
    """Return the build's folder, or the source, and the same as plain data."""
    if isinstance(node, yaml.ScalarNode) and isinstance(folder := resolve(node), str) and folder.strip():
        return folder, folder
    known = {name: cls for name, cls in importlib.import_module("stages").STAGES.items() if issubclass(cls, Source)}
    name, source = named(node, "documents", known)
    assert isinstance(source, Source)
    try:
        source.check()
    except UserError as error:
        raise ConfigError(f"documents {name!r}: {error}", place(node)) from error
    return source, {name: as_data(source)}


def named(node: Node, key: str, known: Mapping[str, type[Any]]) -> tuple[str, Any]:
    """Return the name of `name` or `{name: parameters}`, and what it stands for."""
    if isinstance(node, yaml.MappingNode) and len(node.value) == 1:
        name, parameters = node.value[0]
    elif isinstance(node, yaml.ScalarNode) and isinstance(resolve(node), str):
        name, parameters = node, nothing(node)
    else:
        example = f"{key}: {{{next(iter(known))}: {{...}}}}"
        folder = " or the output folder of a build" if key == "documents" else ""
        raise ConfigError(
            f"{key!r} must be one name with its parameters{folder}, found {found(node)}; write `{example}`", place(node)
        )
    if name.value not in known:
        message = f"unknown {key} {name.value!r};{suggest(name.value, known)} known are {', '.join(known)}"
        raise ConfigError(message, place(name))
    return name.value, build(known[name.value], parameters, f"{key} {name.value!r}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `train-tokenizer` takes."""
    parser.add_argument("recipe", help="the tokenizer's YAML")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    return train(arguments.recipe)


def train(recipe: str) -> int:
    """Train as the recipe says, or find that it was done before; return the exit code.

    Raises:
        UserError: a mistake in the recipe, documents that cannot be used, or an output that holds another tokenizer.
    """
    plan = read_recipe(recipe)
    with TrainingProgress() as shown:
        taken = sample(
            plan.documents,
            plan.settings.bytes,
            plan.settings.seed,
            plan.settings.stratify,
            lambda what, rows: shown(what, rows, 0, "documents"),
        )
        shown.say(f"sample: {len(taken)} documents, {taken.bytes:,} bytes")
        corpus = _describe(taken)
        output = Path(plan.settings.output)
        file = _finished(output, plan, corpus)
        if file is None:
            training, held = taken.split(HELD_OUT, plan.settings.held_out_bytes, MOST_HELD_OUT)
            begun = time.monotonic()
            notes = dict[str, Any]()
            with Spread(plan.settings.run) as spread:
                texts = replace(make_corpus(training.texts, training.strata), run=spread)
                vocabulary = plan.scheme.train(texts, shown, notes.__setitem__)
            shown.say(f"trained {vocabulary.size} tokens in {time.monotonic() - begun:.1f} s")
            found = decided(plan.scheme, vocabulary, notes, held, corpus["strata"])
            file = write_folder(output, _contents(vocabulary, plan, corpus, held, found))
    record = json.loads((output / RECORD).read_text())
    for line in lines(record, plan.settings.held_out_bytes):
        tell(line)
    say(f"tokenizer {record['tokenizer']['sha256']} {file}")
    return 0


def _describe(taken: Sample) -> dict[str, Any]:
    """Return what identifies the sampled corpus, and its strata, as plain data."""
    strata: dict[str, dict[str, int]] = {}
    for name, text in zip(taken.strata, taken.texts, strict=True):
        entry = strata.setdefault(name, {"documents": 0, "bytes": 0})
        entry["documents"] += 1
        entry["bytes"] += len(text)
    described = {"sha256": taken.fingerprint(), "documents": len(taken), "bytes": taken.bytes}
    return {**described, "strata": {name: strata[name] for name in sorted(strata)}}


def _contents(
    vocabulary: Vocabulary, plan: Recipe, corpus: Mapping[str, Any], held: Sample, training: Mapping[str, Any]
) -> dict[str, bytes]:
    """Return the files of the result, the tokenizer's own first."""
    name, text = as_file(vocabulary)
    data = text.encode()
    record = {
        "recipe": without_secrets(plan.text),
        "corpus": corpus,
        "tokenizer": {
            "file": name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "vocab_size": vocabulary.size,
            "superwords": sum(map(is_superword, vocabulary.ordinary()[: vocabulary.size])),
            "eos_token": end_token(plan.scheme, vocabulary),
            **measures(vocabulary, held, plan.settings.held_out_bytes),
        },
        "training": training,
    }
    files = {name: data, RECORD: json.dumps(record, indent=1).encode()}
    if vocabulary.standard:  # or transformers could not open it
        config = transformers_config(plan.scheme, vocabulary)
        files[CONFIG] = json.dumps(config, indent=1, ensure_ascii=False).encode()
    return files


def _finished(output: Path, plan: Recipe, corpus: Mapping[str, Any]) -> Path | None:
    """Return the tokenizer in `output` if it was made from the same; None where there is nothing yet."""
    if not output.exists():
        return None
    sidecar = output / RECORD
    record = json.loads(sidecar.read_text()) if sidecar.is_file() else None
    file = output if record is None else output / str(record["tokenizer"]["file"])
    if record is not None and file.is_file():
        given = without_secrets(json.loads(json.dumps({key: plan.text[key] for key in ("scheme", "held_out_bytes")})))
        same = all(record["recipe"].get(key) == value for key, value in given.items()) and record["corpus"] == corpus
        if same and hashlib.sha256(file.read_bytes()).hexdigest() == record["tokenizer"]["sha256"]:
            return file
        what = "a tokenizer made from another scheme or other documents, or changed since"
    else:
        what = "something that is no tokenizer of this command"
    raise UserError(
        f"output {str(output)!r} exists and holds {what}; builds may use it. Name another output, or delete it yourself"
    )


def write_folder(output: Path, files: Mapping[str, bytes]) -> Path:
    """Make the folder appear at once, with all files; return the path of the first, the tokenizer."""
    first = next(iter(files))
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        temporary.chmod(0o755)
        for name, data in files.items():
            with (temporary / name).open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        temporary.rename(output)
    except OSError:
        twin = output / first  # of another process with the same recipe
        if not twin.is_file() or twin.read_bytes() != files[first]:
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output / first
