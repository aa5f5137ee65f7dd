"""The n-grams that stand in many texts, as words: what a model can be asked about. Reads texts; gives n-grams with counts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gristmill.columns import flat_texts
from gristmill.models.linear.characters import characters
from gristmill.models.linear.file import Features
from gristmill.models.linear.linear import ends_of


def common(texts: pa.StringArray, features: Features, least: int) -> list[tuple[str, int]]:
    """Return the n-grams that are in at least `least` texts, as they stand in the first, and the number of these texts.

    Those of equal hashes count as one; the most common come first, equal ones in the order of their rows.
    """
    from gristmill.models.linear import kernels

    data, bounds = flat_texts(texts)
    ends = ends_of(data, bounds, features.max_chars)
    longest, rows = int(np.max(ends - bounds[:-1], initial=0)) + 2, 1 << features.bits
    counts, last, first = np.zeros(rows, np.int64), np.full(rows, -1, np.int64), np.zeros((rows, 3), np.int64)
    kernels.count(
        data, bounds[:-1], ends, characters(features.words, features.lowercase), features.ngrams, 64 - features.bits,
        np.zeros(longest, np.uint64), np.zeros((longest, 2), np.uint64), counts, last, first,
    )  # fmt: skip
    wanted = np.flatnonzero(counts >= least)
    wanted = wanted[np.argsort(-counts[wanted], kind="stable")]
    return [(data[first[row, 0] : first[row, 1]].tobytes().decode(), int(counts[row])) for row in wanted.tolist()]
