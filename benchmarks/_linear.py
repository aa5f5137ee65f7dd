"""The linear model beside fastText's engines: trained on the same documents, asked about the same texts.

Reads documents of the crawl and the labels of `jobs/recipes/classifier-prose.yaml`. fastText has pairs of words in 200,000
buckets, 25 epochs and a rate of 0.5, with which it does best on the hosts held out; its engines are given lines, made before the
clock runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import fasttext_new
import numpy as np
import pyarrow as pa

from benchmarks import _datatrove
from benchmarks._turns import Work
from benchmarks.stages import tables_through
from gristmill.models.linear.file import encode
from gristmill.models.linear.linear import Linear, OpenedLinear
from gristmill.models.linear.training import learn
from jobs.classifier.labelled import Document, labelled_of, targets_of, texts_of, with_labels
from jobs.classifier.measures import auc
from jobs.classifier.recipe import LinearModel as Trained
from jobs.classifier.recipe import read_recipe
from stages.classify.classify import Classify
from stages.classify.kinds import LinearModel

RECIPE = Path(__file__).parents[1] / "jobs/recipes/classifier-prose.yaml"
LABELS, POSITIVE = ("prose", "reference"), "prose"
FASTTEXT = {"lr": 0.5, "epoch": 25, "wordNgrams": 2, "dim": 100, "bucket": 200_000, "thread": 1, "verbose": 0}

Ready = Callable[[pa.Table], Work]


def sides(docs: pa.Table, folder: Path, peers: bool, judged: bool) -> Iterator[tuple[str, Ready, Ready, str]]:
    """Yield a name, how to run ours and the peer, and the peer's name.

    Args:
        docs: the crawl's, with `url` and `text`.
        folder: for the models' files.
        peers: whether fasttext-numpy2's engine is there.
        judged: whether it is asserted that ours does no worse on the hosts held out.
    """
    settings = read_recipe(str(RECIPE)).settings
    found = labelled_of(with_labels(docs, settings.labels)[0], settings)
    training, held = found.training, found.held
    assert isinstance(settings.model, Trained)
    how = settings.model.linear
    model = learn(texts_of(training), targets_of(training, LABELS), LABELS, how.features, how.learning)
    file = folder / "prose.bin"
    file.write_bytes(encode(model))
    fast = _fasttext(training, folder / "prose-fasttext.bin")
    ours, theirs = _aucs(model_of=OpenedLinear(model), fast=fasttext_new.load_model(str(fast)), held=held)
    print(f"AUC on {len({each.host for each in held})} hosts held out: linear {ours:.3f}, fastText {theirs:.3f}")
    assert ours >= theirs or not judged, (ours, theirs)
    stage = Classify(models={POSITIVE: LinearModel(linear=Linear(path=str(file)), label=POSITIVE)})
    run = tables_through(stage.open())
    if peers:
        _datatrove.find_peers()
        engine = importlib.import_module("fasttext").load_model(str(fast))
        yield "linear (fasttext-numpy2)", run, _asked(partial(engine.predict, k=2)), "fasttext-numpy2 predict"
    engine = fasttext_new.load_model(str(fast))
    yield "linear (fasttext-new)", run, _asked(partial(engine.predict_batch, k=2, threads=1)), "fasttext-new predict"


def _fasttext(training: Sequence[Document], file: Path) -> Path:
    lines = [f"__label__{each.label} {_line(each.text)}\n" for each in training]
    source = file.with_suffix(".txt")
    source.write_text("".join(lines), encoding="utf-8")
    fasttext_new.train_supervised(str(source), **FASTTEXT).save_model(str(file))
    return file


def _aucs(model_of: OpenedLinear, fast: Any, held: Sequence[Document]) -> tuple[float, float]:  # noqa: ANN401 - it has no types
    positive = np.array([each.label == POSITIVE for each in held])
    names, scores = fast.predict_batch([_line(each.text) for each in held], k=2, threads=1)
    theirs = np.array([dict(zip(*row, strict=True)).get(f"__label__{POSITIVE}", 0.0) for row in zip(names, scores, strict=True)])
    ours = model_of.probabilities(texts_of(held))[:, LABELS.index(POSITIVE)].astype(np.float64)
    return auc(ours, positive), auc(theirs, positive)


def _asked(predict: Callable[[list[str]], object]) -> Ready:
    def ready(docs: pa.Table) -> Work:
        lines = [_line(text) for text in docs["text"].to_pylist()]
        return lambda: predict(lines)

    return ready


def _line(text: str) -> str:
    return text.replace("\n", " ")
