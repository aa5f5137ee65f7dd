"""A config that is right, and stages whose parameters have every type that a config knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from gristmill.errors import InputError
from jobs.config.build_config import Build, load
from pipeline.resources import Resources
from pipeline.stage import Filter, Map, Sink, Source, Stage


@dataclass(frozen=True, kw_only=True)
class Warc(Source):
    """A source with the inherited parameter only."""


@dataclass(frozen=True, kw_only=True)
class Extract(Map):
    """No parameters."""


@dataclass(frozen=True, kw_only=True)
class Language(Filter):
    """Columns, ranges, optional and repeated parameters."""

    keep: tuple[str, ...] | None = None
    min_score: float = 0.65
    model: str | None = None
    fast: bool = False
    label: Literal["short", "long"] = "short"
    characters: int = 1000

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score must be from 0 to 1, found {self.min_score}")
        if self.keep == ():
            raise ValueError("no language would be kept")

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"language": pa.string()}

    def replaces(self) -> tuple[str, ...]:
        return ("language",)


@dataclass(frozen=True, kw_only=True)
class Encode(Map):
    """A required path that is checked when planning."""

    tokenizer: str

    def check(self) -> None:
        if "missing" in self.tokenizer:
            raise InputError(f"tokenizer {self.tokenizer!r}: no such folder")

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"tokens": pa.list_(pa.uint16())}


@dataclass(frozen=True, kw_only=True)
class Ngram:
    """A kind of reference."""

    order: int = 3


@dataclass(frozen=True, kw_only=True)
class Causal:
    """Another kind of reference."""

    model: str


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Exactly one kind of reference, chosen by its key."""

    ngram: Ngram | None = None
    causal: Causal | None = None

    def __post_init__(self) -> None:
        if (self.ngram is None) == (self.causal is None):
            raise ValueError("give one of ngram, causal")


@dataclass(frozen=True, kw_only=True)
class Score(Map):
    """Nested parameters; needs what others add; has a pool."""

    def resources(self) -> Resources:
        return Resources()

    scheme: Literal["rho1", "eslm"] = "rho1"
    reference: Reference
    weights: dict[str, float] | None = None
    share: float | tuple[float, float] = 0.6

    def needs(self) -> tuple[str, ...]:
        return ("tokens", "language")


@dataclass(frozen=True, kw_only=True)
class Shards(Sink):
    """The sink."""

    tokens_per_shard: int = 50_000_000


KNOWN: dict[str, type[Stage]] = {
    "warc": Warc,
    "extract_html": Extract,
    "language": Language,
    "encode": Encode,
    "score": Score,
    "shards": Shards,
}

GOOD = """\
name: demo
output: build/demo
source:
  warc: {paths: "examples/crawl/*.warc.gz"}
stages:
  - extract_html
  - language: {keep: [en, no], min_score: 1}
  - encode: {tokenizer: build/tokenizers/superbpe-8k}
  - score:
      scheme: rho1
      reference: {ngram: {order: 3}}
      weights: {nll: 1, on: 5e-1}
  - shards: {tokens_per_shard: 50_000_000}
run: {on: ray, memory_per_worker: 512MiB}
"""


def loaded(tmp_path: Path, text: str, overrides: Mapping[str, str] | None = None) -> Build:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, overrides, KNOWN)
