"""`train-classifier`: a classifier from labelled documents, as a recipe describes it.

Reads the recipe and the documents; writes a folder with `model.bin`, `manifest.json` (what it was made from, document by
document, and how it does on hosts that it has not seen) and `page.html`, the same for people. The same recipe and documents give
the same bytes.
Standard output ends with `classifier <sha256> <folder>`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.errors import UserError
from gristmill.secrets import without_secrets
from jobs.classifier.evidence import mistakes, ngrams
from jobs.classifier.labelled import Document, Labelled, labelled, targets_of, texts_of
from jobs.classifier.measures import measured
from jobs.classifier.models import Trained, train_model
from jobs.classifier.page import page
from jobs.classifier.recipe import Recipe, read_recipe
from jobs.progress import TrainingProgress
from jobs.terminal import say, tell
from jobs.tokenizer.train import write_folder

FORMAT, VERSION = "gristmill.classifier", 1
MODEL, MANIFEST, PAGE = "model.bin", "manifest.json", "page.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `train-classifier` takes."""
    parser.add_argument("recipe", help="the classifier's YAML")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    return train(arguments.recipe)


def train(path: str) -> int:
    """Train as the recipe says, or find that it was done before; return the exit code.

    Raises:
        UserError: a mistake in the recipe, documents that cannot be used, or an output that holds something else.
    """
    recipe = read_recipe(path)
    output = Path(recipe.settings.output)
    with TrainingProgress() as shown:
        documents = labelled(recipe, lambda read: shown("read documents", read, 0, "documents"))
        made_from = _made_from(recipe, documents)
        if not _is_finished(output, made_from):
            texts, labels = texts_of(documents.training), documents.labels
            shown.say(f"training on {len(documents.training)} documents, {len(documents.held)} are held out")
            trained = train_model(
                texts,
                targets_of(documents.training, labels),
                labels,
                recipe.settings,
                lambda done, all_of_them: shown("train", done, all_of_them, "epochs"),
            )
            write_folder(output, _contents(recipe, documents, trained, made_from))
    manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    for line in _lines(manifest):
        tell(line)
    say(f"classifier {manifest['files'][MODEL]['sha256']} {output}")
    return 0


def _made_from(recipe: Recipe, documents: Labelled) -> dict[str, Any]:
    """Return what decides the model, as JSON gives it back: the recipe, and the documents of both sides by label."""
    digest = hashlib.sha256()
    for each in (*documents.training, *documents.held):
        digest.update(f"{each.id}\n{each.label}\n{len(each.text)}\n{each.text}\n".encode())
    made: dict[str, Any] = {
        "recipe": without_secrets(dict(recipe.text)),
        "documents": {
            "sha256": digest.hexdigest(),
            "read": documents.read,
            "without_label_or_text": documents.without,
            "undecided": documents.undecided,
            "of_equal_text": documents.twins,
            "of_equal_text_and_other_labels": documents.contradicting,
        },
        "training": _side(documents.training),
        "held_out": _side(documents.held),
    }
    found: dict[str, Any] = json.loads(json.dumps(made))
    return found


def _side(documents: Sequence[Document]) -> dict[str, Any]:
    by_label: dict[str, list[str]] = {}
    for each in documents:
        by_label.setdefault(each.label, []).append(each.id)
    hosts = Counter(each.host for each in documents)
    return {
        "documents": {label: len(by_label[label]) for label in sorted(by_label)},
        "hosts": {host: hosts[host] for host in sorted(hosts)},
        "ids": {label: sorted(by_label[label]) for label in sorted(by_label)},
    }


def _contents(recipe: Recipe, documents: Labelled, trained: Trained, made_from: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of the result, the model first."""
    labels, seed = documents.labels, recipe.settings.seed
    positive = recipe.settings.positive or labels[-1]
    scores = trained.probabilities(texts_of(documents.held)).astype(np.float64)
    hosts, found = [each.host for each in documents.held], [each.label for each in documents.held]
    measures = {
        label: measured(scores[:, number], np.array([name == label for name in found]), hosts, seed)
        for number, label in enumerate(labels)
    }
    place = labels.index(positive)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "kind": trained.kind,
        "model": MODEL,
        "files": {MODEL: {"bytes": len(trained.content), "sha256": hashlib.sha256(trained.content).hexdigest()}},
        "labels": list(labels),
        "positive": positive,
        "preprocessing": trained.preprocessing,
        "hyperparameters": trained.hyperparameters,
        "libraries": trained.libraries,
        "measures": measures,
        **made_from,
    }
    shown = page(
        manifest,
        ngrams(texts_of(documents.training), trained.probabilities, place),
        mistakes(documents.held, scores[:, place], positive),
    )
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    return {MODEL: trained.content, MANIFEST: text.encode(), PAGE: shown.encode()}


def _is_finished(output: Path, made_from: Mapping[str, Any]) -> bool:
    """Tell whether `output` holds what was made from the same. Raises UserError where it holds something else."""
    if not output.exists():
        return False
    what = "something that is no classifier of this command"
    file, model = output / MANIFEST, output / MODEL
    if file.is_file() and model.is_file():
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            manifest = {}
        if isinstance(manifest, dict) and manifest.get("format") == FORMAT:
            whole = hashlib.sha256(model.read_bytes()).hexdigest() == manifest["files"][MODEL]["sha256"]
            if whole and all(manifest.get(key) == value for key, value in made_from.items()):
                return True
            what = "a classifier made from another recipe or other documents, or changed since"
    raise UserError(
        f"output {str(output)!r} exists and holds {what}; builds may use it. Name another output, or delete it yourself"
    )


def _lines(manifest: Mapping[str, Any]) -> list[str]:
    """Return what is said of a classifier when it is done."""
    lines = []
    for side, words in (("training", "trained on"), ("held_out", "held out")):
        counts = ", ".join(f"{count} {label}" for label, count in manifest[side]["documents"].items())
        lines.append(f"{words}: {counts}, of {len(manifest[side]['hosts'])} hosts")
    for label in manifest["labels"] if len(manifest["labels"]) > 2 else [manifest["positive"]]:
        figures = manifest["measures"][label]
        between = figures["auc_interval"]
        span = f" ({between[0]:.3f} to {between[1]:.3f} over hosts)" if between else " (too few hosts for an interval)"
        lines.append(f"{label}: AUC {figures['auc']:.3f}{span} on hosts held out")
    return lines
