"""The stage `language_threshold`: the least score of a language that its own documents ask for.

Reads `language` and `language_score` of all documents; adds `language_threshold`. Dropped: `language_score` (below it). Scores of
languages with much data lie near 1, of others far below: one threshold for all keeps noise of the ones or loses the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import append
from pipeline.finding import Finding
from pipeline.schema import DROP
from pipeline.stage import Fit, Transform

STEPS = 2**40  # a score counts as a whole number of such parts of 1: exact from 2^-16 on
MIX = 0x9E3779B97F4A7C15  # an odd constant that spreads the bits of a product
ROWS = pa.schema([("key", pa.uint64()), ("language", pa.string()), ("score", pa.float32()), ("documents", pa.int64())])
MODEL = pa.schema(
    [
        ("language", pa.string()),
        ("threshold", pa.float32()),
        ("median", pa.float64()),
        ("deviation", pa.float64()),
        ("documents", pa.int64()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class LanguageThreshold(Fit):
    """Drop documents whose score of the language is below that language's threshold, as FineWeb2 has it.

    The threshold is the median of the scores of all documents of the language, less `deviations` of their standard deviations
    (of the population), but at least `low` and at most `high` (Penedo et al. 2025, "FineWeb2": 1, .3 and .9). Both are exact, so
    neither the order of shards nor how they are split shows. `language` and `score` name the columns: those of the stage
    `language`, or of one identifier of `languages`. Put it behind such a stage with `min_score: 0`: what is dropped before is
    not counted. A document without a language or a score is not counted and is kept.
    """

    low: float = 0.3
    high: float = 0.9
    deviations: float = 1.0
    language: str = "language"
    score: str = "language_score"

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"low is {self.low} and high {self.high}; give probabilities, low not above high")
        if not (math.isfinite(self.deviations) and self.deviations >= 0):
            raise ValueError(f"deviations is {self.deviations}; give a number of 0 or more")

    def needs(self) -> tuple[str, ...]:
        """Return the two columns."""
        return (self.language, self.score)

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the column that has the threshold of each document's language."""
        return {"language_threshold": pa.float32()}

    def open(self) -> Transform:
        """Return f(docs) → `ROWS`: the different scores of each language, and how many documents have them."""

        def rows(docs: pa.Table) -> pa.Table:
            scores = docs[self.score].cast(pa.float32())
            given = pa.table({"language": docs[self.language], "score": scores})
            given = given.filter(pc.and_(pc.is_valid(given["language"]), pc.fill_null(pc.is_finite(scores), False)))
            # The whole hash is of the score: a language's rows are dealt out to all key ranges.
            bits = given["score"].to_numpy().astype(np.float32).view(np.uint32).astype(np.uint64)
            keys = pa.array(bits * np.uint64(MIX), pa.uint64())
            ones = pa.array(np.ones(given.num_rows, np.int64))
            return _add_up(pa.table([keys, given["language"], given["score"], ones], schema=ROWS))

        return rows

    def combine(self) -> Transform:
        """Return f(rows) → one row a language and score."""
        return _add_up

    def reduce(self) -> Transform:
        """Return f(rows) → one row a language and score."""
        return _add_up

    def settle(self) -> Callable[[Sequence[pa.Table]], pa.Table]:
        """Return f(reduced tables) → `MODEL`, a row a language."""

        def settle(tables: Sequence[pa.Table]) -> pa.Table:
            rows = pa.concat_tables(tables).sort_by([("language", "ascending"), ("score", "ascending")])
            found = []
            languages = rows["language"].combine_chunks()
            for language in pc.unique(languages).to_pylist():
                own = rows.filter(pc.equal(languages, language))
                found.append({"language": language, **self._threshold(own["score"].to_numpy(), own["documents"].to_numpy())})
            return pa.Table.from_pylist(found, schema=MODEL)

        return settle

    def apply(self, model: pa.Table) -> Transform:
        """Return f(docs) → docs with `language_threshold` and `drop`."""
        languages, thresholds = model["language"].combine_chunks(), model["threshold"].combine_chunks()
        none = pa.scalar(None, pa.string())

        def apply(docs: pa.Table) -> pa.Table:
            threshold = thresholds.take(pc.index_in(docs[self.language], languages)).combine_chunks()
            low = pc.fill_null(pc.less(docs[self.score].cast(pa.float32()), threshold), False)
            fields = pa.schema([("language_threshold", pa.float32()), (DROP, pa.string())])
            return append(docs, dict(zip(fields, (threshold, pc.if_else(low, "language_score", none)), strict=True)))

        return apply

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return the score and its language's threshold; see `Stage.explain`."""
        score, threshold = before[self.score][0].as_py(), after["language_threshold"][0].as_py()
        low = score is not None and threshold is not None and score < threshold
        found = [Finding(self.score, score, decisive=low), Finding("language_threshold", threshold)]
        return [*found, Finding(self.language, before[self.language][0].as_py())]

    def _threshold(self, scores: np.ndarray, documents: np.ndarray) -> dict[str, float | int]:
        """Return the threshold of different scores, ascending, with the documents that have each."""
        ends = np.cumsum(documents)
        total = int(ends[-1])
        middle = scores[np.searchsorted(ends, [(total - 1) // 2, total // 2], side="right")].astype(np.float64)
        median = float(middle.mean())
        parts = np.rint(scores.astype(np.float64) * STEPS).astype(np.int64).tolist()
        first = sum(number * part for number, part in zip(documents.tolist(), parts, strict=True))
        second = sum(number * part * part for number, part in zip(documents.tolist(), parts, strict=True))
        deviation = math.sqrt(Fraction(total * second - first * first, (total * STEPS) ** 2))
        threshold = min(max(median - self.deviations * deviation, self.low), self.high)
        return {"threshold": threshold, "median": median, "deviation": deviation, "documents": total}


def _add_up(rows: pa.Table) -> pa.Table:
    """Return one row a language and score, in the order of the keys."""
    summed = rows.group_by(["key", "language", "score"], use_threads=False).aggregate([("documents", "sum")])
    summed = summed.rename_columns({"documents_sum": "documents"}).select(ROWS.names).cast(ROWS)
    return summed.sort_by([("key", "ascending"), ("language", "ascending")])
