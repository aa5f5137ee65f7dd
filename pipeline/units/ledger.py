"""Where every document of a unit went: counts by stage and reason, samples of what was dropped, histograms.

Each stage of a segment fills a `Tally`, which is checked (`in + made = kept + dropped + quarantined`) and stored in the unit's
manifest as plain JSON; these are added up by `pipeline/builds/summary.py`.
"""

from __future__ import annotations

import heapq
import json
import math
import operator
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import whole

ADDRESS = ("id", "url", "file", "offset")
SAMPLES = 3  # kept a unit, stage and reason
SAMPLE_CHARS = 500
CATEGORIES = 300  # different values of a category kept a unit
COMBINATIONS = 3000  # of values of columns that are counted together
REST = "…"
LINEAR_BIN = 0.02  # width of a bin of a real number
OCTAVE_BINS = 4  # bins a doubling of an integer


@dataclass
class Tally:
    """The account of one stage in one unit.

    `made`: by how many the documents behind the stage, with those lost there, are more than those that entered it. A FlatMap that
    makes three of one has made two.
    """

    stage: str
    entered: int = 0
    made: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # of a source on its file
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def note(self, line: str) -> None:
        """Keep a line, once."""
        if line not in self.notes:
            self.notes.append(line)

    def balanced(self) -> bool:
        """Tell whether in + made = kept + dropped + quarantined."""
        return self.entered + self.made == self.kept + self.dropped.total() + self.quarantined.total()

    def plain(self) -> dict[str, Any]:
        """Return the account as JSON-ready data."""
        return {
            "stage": self.stage,
            "in": self.entered,
            **({"made": self.made} if self.made else {}),
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "quarantined": dict(sorted(self.quarantined.items())),
            "samples": {reason: self.samples[reason] for reason in sorted(self.samples)},
            "cpu_s": round(self.cpu_s, 6),
            "wall_s": round(self.wall_s, 6),
            **({"notes": self.notes} if self.notes else {}),
        }

    def sample(self, reason: str, rows: pa.Table) -> None:
        """Keep the few of the rows dropped for `reason` that have the smallest ids, with their language and scores.

        Ids are hashes, so these are spread over all documents, and the same however the rows are split into tables.
        """
        names = [*ADDRESS, "text", *(field.name for field in rows.schema if _tells(field))]
        found = rows.take(pc.select_k_unstable(rows, SAMPLES, sort_keys=[("id", "ascending")])).select(names).to_pylist()
        shown = [{name: _short(value) for name, value in row.items()} for row in found]
        self.samples[reason] = smallest([*self.samples.get(reason, []), *shown], SAMPLES)


def smallest(samples: Iterable[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return the samples with the smallest ids, in their order."""
    return heapq.nsmallest(count, samples, key=operator.itemgetter("id"))


def _tells(field: pa.Field) -> bool:
    """Tell whether a column is a language or a score of the document, not of its tokens."""
    kind = pa.types
    scalar = kind.is_string(field.type) or kind.is_integer(field.type) or kind.is_floating(field.type)
    return scalar and ("language" in field.name or "score" in field.name)


def _short(value: Any) -> Any:  # noqa: ANN401 - of any column
    """Return a value as it stands in a sample: texts cut, numbers as JSON knows them, with six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value[:SAMPLE_CHARS] if isinstance(value, str) else value


@dataclass
class Measure:
    """A histogram that can be added up: sparse bins of a number, or counts of a category."""

    kind: str
    count: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, values: pa.ChunkedArray) -> None:
        """Count the non-null, finite values; lists are flattened, list elements counted one by one."""
        array = whole(values)
        if pa.types.is_list(array.type):
            array = array.flatten()
        if self.kind == "category":
            for pair in pc.value_counts(array.drop_null()).to_pylist():
                self.counts[str(pair["values"])] += pair["counts"]
            self.count = self.counts.total()
            return
        numbers = array.drop_null().to_numpy(zero_copy_only=False).astype(np.float64)
        numbers = numbers[np.isfinite(numbers)]
        if numbers.size == 0:
            return
        self.count += numbers.size
        self.total += float(numbers.sum())
        self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))
        octaves = pa.types.is_integer(array.type)
        bins, counts = np.unique(_octave_bin(numbers) if octaves else np.floor(numbers / LINEAR_BIN), return_counts=True)
        prefix = "o" if octaves else "l"
        for number, count in zip(bins.astype(np.int64).tolist(), counts.tolist(), strict=True):
            self.counts[f"{prefix}{number}"] += count

    def merge(self, other: Measure) -> None:
        """Add another unit's histogram of the same column."""
        self.count += other.count
        self.total += other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.counts.update(other.counts)

    def plain(self) -> dict[str, Any]:
        """Return the histogram as JSON-ready data; of a category only the most frequent values, the others as `…`."""
        if self.kind == "category":
            common = dict(self.counts.most_common(CATEGORIES))
            rest = self.counts.total() - sum(common.values())
            return {"kind": self.kind, "counts": {**common, "…": rest} if rest else common}
        bounds = {"min": self.low, "max": self.high} if self.count else {"min": None, "max": None}
        return {"kind": self.kind, "count": self.count, "sum": self.total, **bounds, "sparse": dict(sorted(self.counts.items()))}

    @staticmethod
    def read(data: dict[str, Any]) -> Measure:
        """Read what `plain()` gave."""
        if data["kind"] == "category":
            return Measure("category", sum(data["counts"].values()), counts=Counter(data["counts"]))
        low, high = (data["min"], data["max"]) if data["count"] else (math.inf, -math.inf)
        return Measure("number", data["count"], data["sum"], low, high, Counter(data["sparse"]))

    def bins(self) -> list[tuple[float, float, int]]:
        """Return (low, high, count) of each non-empty bin, in order."""
        edges = [(*_edges(name), count) for name, count in self.counts.items()]
        return sorted(edges)


@dataclass
class Joint:
    """Documents and bytes of text by the values of several columns together, which can be added up.

    `counts`: a JSON list of the values, as text or null → [documents, bytes].
    """

    columns: tuple[str, ...]
    counts: dict[str, list[int]] = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        """Count the rows of a table."""
        names = [f"c{number}" for number in range(len(self.columns))]
        values = [table.column(name).cast(pa.string()) for name in self.columns]
        rows = pa.table([*values, pc.binary_length(table.column("text")).cast(pa.int64())], names=[*names, "bytes"])
        found = rows.group_by(names, use_threads=False).aggregate([([], "count_all"), ("bytes", "sum")])
        for row in found.to_pylist():
            self._count(json.dumps([row[name] for name in names], ensure_ascii=False), row["count_all"], row["bytes_sum"])

    def merge(self, other: Joint) -> None:
        """Add another unit's counts of the same columns."""
        for key, (documents, size) in other.counts.items():
            self._count(key, documents, size)

    def plain(self) -> dict[str, Any]:
        """Return the counts as JSON-ready data; of many values only the most frequent, the others under `…`."""
        order = sorted(self.counts.items(), key=lambda item: (item[0] == REST, -item[1][0], item[0]))
        counts = dict(sorted(order[:COMBINATIONS]))
        if rest := [each for _, each in order[COMBINATIONS:]]:
            counts[REST] = [sum(unit) for unit in zip(*rest, strict=True)]
        return {"kind": "joint", "columns": list(self.columns), "joint": counts}

    @staticmethod
    def read(data: dict[str, Any]) -> Joint:
        """Read what `plain()` gave."""
        return Joint(tuple(data["columns"]), {key: list(counts) for key, counts in data["joint"].items()})

    def _count(self, key: str, documents: int, size: int) -> None:
        total = self.counts.setdefault(key, [0, 0])
        total[0] += documents
        total[1] += size


def joint_name(columns: Iterable[str]) -> str:
    """Return under which name columns that are counted together stand."""
    return " × ".join(columns)


def measure_of(kind: pa.DataType) -> Measure:
    """Return an empty histogram for a column of this type."""
    inner = kind.value_type if pa.types.is_list(kind) else kind
    return Measure("category" if pa.types.is_string(inner) or pa.types.is_boolean(inner) else "number")


def _octave_bin(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the bin of integers ≥ 0: 0 for 0, else 1 + 4·log2(n) rounded down."""
    return np.where(numbers < 1, 0, 1 + np.floor(np.log2(np.maximum(numbers, 1)) * OCTAVE_BINS + 1e-9))


def _edges(name: str) -> tuple[float, float]:
    number = int(name[1:])
    if name[0] == "l":
        return number * LINEAR_BIN, (number + 1) * LINEAR_BIN
    if number == 0:
        return 0.0, 1.0
    return 2 ** ((number - 1) / OCTAVE_BINS), 2 ** (number / OCTAVE_BINS)
