"""What a classifier goes by, for people: the n-grams that it gives the highest and lowest scores, and its worst mistakes.

Reads documents and asks the model; gives plain data. Any model is asked alike: about an n-gram as if it were a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.models.linear.file import Features
from gristmill.models.linear.ngrams import common
from jobs.classifier.labelled import Document
from jobs.classifier.measures import Doubles
from jobs.classifier.models import Probabilities

NGRAMS = Features(words="letters", ngrams=2, bits=20)
SHARE, FEWEST, MOST_ASKED = 0.01, 3, 50_000  # an n-gram is in this share of the texts, and in so many at least
SHOWN, MISTAKES, BEGINNING = 30, 12, 240


def ngrams(texts: pa.StringArray, probabilities: Probabilities, label: int) -> dict[str, list[dict[str, Any]]]:
    """Return the common n-grams of texts that speak most for and against a label: `for` and `against`, the strongest first."""
    found = common(texts, NGRAMS, max(FEWEST, int(SHARE * len(texts))))[:MOST_ASKED]
    words = [" ".join(name.split()) for name, _ in found]
    scores = probabilities(pa.array(words, pa.string()))[:, label]
    order = np.argsort(-scores, kind="stable").tolist()
    rows = [{"ngram": words[i], "score": round(float(scores[i]), 6), "documents": found[i][1]} for i in order]
    return {"for": rows[:SHOWN], "against": rows[::-1][:SHOWN]}


def mistakes(documents: Sequence[Document], scores: Doubles, label: str) -> dict[str, list[dict[str, Any]]]:
    """Return the documents held out whose score is farthest from their label: `missed` have it, `mistaken` do not.

    Args:
        documents: held out.
        scores: [documents], of the label.
        label: whose scores these are.
    """

    def row(number: int) -> dict[str, Any]:
        each = documents[number]
        text = " ".join(each.text[: 4 * BEGINNING].split())[:BEGINNING]
        return {"id": each.id, "url": each.url, "label": each.label, "score": round(float(scores[number]), 6), "begins": text}

    order = sorted(range(len(documents)), key=lambda number: (float(scores[number]), documents[number].id))
    missed = [number for number in order if documents[number].label == label]
    mistaken = [number for number in reversed(order) if documents[number].label != label]
    return {"missed": [row(number) for number in missed[:MISTAKES]], "mistaken": [row(number) for number in mistaken[:MISTAKES]]}
