"""Training of the models that a recipe can name.

Reads texts and their labels; gives the bytes of a model's file with what its manifest says of it, and the model, opened. fastText
is trained in a scratch folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import InputError
from gristmill.models.fasttext.fasttext import FastText
from gristmill.models.fasttext.file import PREFIX
from gristmill.models.linear.file import encode
from gristmill.models.linear.linear import OpenedLinear
from gristmill.models.linear.training import learn
from gristmill.models.protocols import Singles
from jobs.classifier.recipe import FASTTEXT, FastTextModel, FastTextTraining, LinearTraining, Settings

Targets = npt.NDArray[np.int32]
Probabilities = Callable[[pa.StringArray], Singles]
"""f(texts) → float32 [texts, labels], 0 where the model has none."""
Shown = Callable[[int, int], None]


@dataclass(frozen=True)
class Trained:
    """A model as bytes, what the manifest says of it, and what it says of texts."""

    kind: str
    content: bytes
    preprocessing: Mapping[str, Any]
    hyperparameters: Mapping[str, Any]
    libraries: Mapping[str, str]
    probabilities: Probabilities


def train_model(texts: pa.StringArray, targets: Targets, labels: tuple[str, ...], settings: Settings, shown: Shown) -> Trained:
    """Return the model of a recipe.

    Args:
        texts: in the order in which they are seen.
        targets: [texts], numbers of labels.
        labels: in ascending order.
        settings: of the recipe.
        shown: called with epochs done and all.

    Raises:
        InputError: a label that the model cannot have.
    """
    if isinstance(settings.model, FastTextModel):
        return _fasttext(texts, targets, labels, settings.model.fasttext)
    return _linear(texts, targets, labels, settings.model.linear, shown)


def _linear(texts: pa.StringArray, targets: Targets, labels: tuple[str, ...], how: LinearTraining, shown: Shown) -> Trained:
    epochs = how.learning.epochs
    model = learn(texts, targets, labels, how.features, how.learning, lambda done, error: shown(done, epochs))
    opened, features = OpenedLinear(model), asdict(how.features)
    preprocessing = {name: features.pop(name) for name in ("lowercase", "max_chars")}
    return Trained(
        "linear",
        encode(model),
        preprocessing,
        features | asdict(how.learning),
        {},
        lambda asked: np.nan_to_num(opened.probabilities(asked)),
    )


def _fasttext(texts: pa.StringArray, targets: Targets, labels: tuple[str, ...], how: FastTextTraining) -> Trained:
    import fasttext_new

    for label in labels:
        if label != "".join(label.split()):
            raise InputError(f"labels: {label!r} has white space, which fastText's files cannot say; rename it")
    given = {name: getattr(how, name) for name in ("dim", "bucket") if getattr(how, name) is not None}
    arguments = {**FASTTEXT[how.recipe], **given}
    with tempfile.TemporaryDirectory(prefix="gristmill-classifier-") as folder:
        lines, file = Path(folder, "lines.txt"), Path(folder, "model.bin")
        with lines.open("w", encoding="utf-8") as out:
            for target, text in zip(targets.tolist(), _formed(texts, how).to_pylist(), strict=True):
                out.write(f"{PREFIX}{labels[target]} {text}\n")
        model = fasttext_new.train_supervised(str(lines), thread=1, seed=0, verbose=0, **arguments)
        model.save_model(str(file))
        content = file.read_bytes()
        form = {"newlines": how.newlines, "lowercase": how.lowercase, "max_chars": how.max_chars, "trailing_newline": True}
        opened = FastText(path=str(file), newlines=how.newlines, lowercase=how.lowercase, max_chars=how.max_chars).open()
    order = [opened.labels.index(label) for label in labels]

    def probabilities(asked: pa.StringArray) -> Singles:
        found: Singles = np.nan_to_num(opened.classify(asked, most=len(labels)).by_label(len(labels)))[:, order]
        return found

    libraries = {"fasttext-new": version("fasttext-new")}
    return Trained("fasttext", content, form, {"recipe": how.recipe, **arguments, "thread": 1}, libraries, probabilities)


def _formed(texts: pa.StringArray, how: FastTextTraining) -> pa.StringArray:
    """Return texts as lines of the form in which the model is given them; a newline ends each, as `trailing_newline` has it."""
    if how.max_chars is not None:
        texts = pc.utf8_slice_codeunits(texts, 0, how.max_chars)
    texts = pc.replace_substring(texts, "\n", " " if how.newlines == "space" else "")
    return pa.array([text.lower() for text in texts.to_pylist()], pa.string()) if how.lowercase else texts
