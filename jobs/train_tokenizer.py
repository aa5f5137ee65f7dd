"""`train-tokenizer`: a tokenizer from a sample of documents, as a recipe describes it.

Reads the recipe and the documents; writes a folder with `tokenizer.json`, `tokenizer_config.json` (so that transformers opens
it) and `recipe.json` (what it was made from). Standard output ends with `tokenizer <sha256> <path of tokenizer.json>`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn

from jobs.corpus import Sample, sample
from jobs.parameters import as_data, build
from jobs.yaml_nodes import Node, found, load_node, nothing, pairs, place, resolve, suggest
from pipeline.errors import ConfigError, UserError
from pipeline.stage import Source
from stages.tokenizer import SCHEMES
from stages.tokenizer.scheme import Scheme

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HELD_OUT = 0.01  # of the sampled documents: not trained on, but measured
PLAIN_EVERY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The plain keys of a recipe.

    `output`: folder of the result. `bytes`: of text to train on, at most. `seed`: of the sample. `stratify`: the column in
    whose groups the sample has the same shares of bytes as all documents; null for none.
    """

    output: str
    bytes: int = 50_000_000
    seed: int = 0
    stratify: str | None = "language"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.bytes < 1:
            raise ValueError(f"bytes must be at least 1, found {self.bytes}")
        if not self.output.strip():
            raise ValueError("output must name a folder, found nothing")


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read: the scheme, where the documents are, and the whole as plain data with defaults."""

    scheme: Scheme
    documents: str | Source
    settings: Settings
    text: Mapping[str, Any]


_KEYS = ("scheme", "documents", "bytes", "seed", "stratify", "output")


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
    name, scheme = _named(entries["scheme"], "scheme", SCHEMES)
    text: dict[str, Any] = {"scheme": {name: as_data(scheme)}, "documents": None, **as_data(settings)}
    documents, text["documents"] = _documents(entries["documents"])
    return Recipe(scheme, documents, settings, text)


def _documents(node: Node) -> tuple[str | Source, Any]:
    """Return the build's folder, or the source, and the same as plain data."""
    if isinstance(node, yaml.ScalarNode) and isinstance(folder := resolve(node), str) and folder.strip():
        return folder, folder
    known = {name: cls for name, cls in importlib.import_module("stages").STAGES.items() if issubclass(cls, Source)}
    name, source = _named(node, "documents", known)
    assert isinstance(source, Source)
    try:
        source.check()
    except UserError as error:
        raise ConfigError(f"documents {name!r}: {error}", place(node)) from error
    return source, {name: as_data(source)}


def _named(node: Node, key: str, known: Mapping[str, type[Any]]) -> tuple[str, Any]:
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


def run(recipe: str) -> int:
    """Train as the recipe says, or find that it was done before; return the exit code.

    Raises:
        UserError: a mistake in the recipe, documents that cannot be used, or an output that holds another tokenizer.
    """
    plan = read_recipe(recipe)
    with _Shown() as shown:
        taken = sample(
            plan.documents,
            plan.settings.bytes,
            plan.settings.seed,
            plan.settings.stratify,
            lambda rows: shown("read documents", rows),
        )
        shown.say(f"sample: {len(taken)} documents, {taken.bytes:,} bytes")
        corpus = _describe(taken)
        output = Path(plan.settings.output)
        file = _finished(output, plan, corpus)
        if file is None:
            training, held = taken.split(HELD_OUT)
            begun = time.process_time()
            tokenizer = plan.scheme.train(training, shown)
            shown.say(f"trained {tokenizer.get_vocab_size()} tokens in {time.process_time() - begun:.1f} CPU-seconds")
            file = _write(output, _contents(tokenizer, plan, corpus, held))
    facts = json.loads((output / "recipe.json").read_text())["tokenizer"]
    print(f"bytes per token on {facts['held_out_documents']} held-out documents: {facts['bytes_per_token']}", file=sys.stderr)
    print(f"tokenizer {facts['sha256']} {file}")
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


def _contents(tokenizer: Tokenizer, plan: Recipe, corpus: Mapping[str, Any], held: Sample) -> dict[str, bytes]:
    """Return the files of the result."""
    data = tokenizer.to_str().encode()
    eos = next(iter(plan.scheme.special_tokens), None)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    record = {
        "recipe": plan.text,
        "corpus": corpus,
        "tokenizer": {
            "sha256": hashlib.sha256(data).hexdigest(),
            "vocab_size": tokenizer.get_vocab_size(),
            "held_out_documents": len(held),
            "bytes_per_token": _bytes_per_token(tokenizer, held),
            "tokenizers": version("tokenizers"),
        },
    }
    texts = {"tokenizer_config.json": config, "recipe.json": record}
    return {"tokenizer.json": data} | {name: json.dumps(value, indent=1).encode() for name, value in texts.items()}


def _bytes_per_token(tokenizer: Tokenizer, texts: Sample) -> float | None:
    tokenizer.encode_special_tokens = True
    tokens = sum(len(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids) for text in texts)
    return round(texts.bytes / tokens, 4) if tokens else None


def _finished(output: Path, plan: Recipe, corpus: Mapping[str, Any]) -> Path | None:
    """Return the tokenizer in `output` if it was made from the same; None where there is nothing yet."""
    if not output.exists():
        return None
    file, sidecar = output / "tokenizer.json", output / "recipe.json"
    if file.is_file() and sidecar.is_file():
        record = json.loads(sidecar.read_text())
        same = record["recipe"]["scheme"] == json.loads(json.dumps(plan.text["scheme"])) and record["corpus"] == corpus
        if same and hashlib.sha256(file.read_bytes()).hexdigest() == record["tokenizer"]["sha256"]:
            return file
        what = "a tokenizer made from another scheme or other documents, or changed since"
    else:
        what = "something that is no tokenizer of this command"
    raise UserError(
        f"output {str(output)!r} exists and holds {what}; builds may use it. Name another output, or delete it yourself"
    )


def _write(output: Path, files: Mapping[str, bytes]) -> Path:
    """Make the folder appear at once, with all files; return the tokenizer's path."""
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
        twin = output / "tokenizer.json"  # of another process with the same recipe
        if not twin.is_file() or twin.read_bytes() != files["tokenizer.json"]:
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output / "tokenizer.json"


class _Shown:
    """Progress on standard error: one line a step on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), TextColumn("{task.completed:,.0f} documents"), TimeElapsedColumn())
        self._lines = Progress(*columns, console=self._console)
        self._tasks: dict[str, TaskID] = {}
        self._said = time.monotonic()

    def __enter__(self) -> _Shown:
        if self._console.is_terminal:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._lines.stop()

    def __call__(self, what: str, documents: int) -> None:
        """Show how far a step is."""
        if self._console.is_terminal:
            if what not in self._tasks:
                for task in self._tasks.values():
                    self._lines.stop_task(task)
                self._tasks[what] = self._lines.add_task(what, total=None)
            self._lines.update(self._tasks[what], completed=documents)
        elif what not in self._tasks or time.monotonic() - self._said > PLAIN_EVERY_S:
            self._tasks[what] = TaskID(0)
            self._said = time.monotonic()
            self.say(f"{what}: {documents:,} documents")

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._console.print(line, markup=False, soft_wrap=True)
