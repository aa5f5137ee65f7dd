"""The texts that the tokenizer benchmarks train and encode: crawled pages, extracted, labelled by language, without twins.

Reads .warc.gz files (`examples/crawl` unless others are given); keeps the build in `build/benchmarks`, so that the second
benchmark finds it done.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gristmill.storage.store import expand
from jobs.tokenizer.corpus import documents_of
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import make_plan
from stages import STAGES

ROOT = Path(__file__).parents[1]
CRAWL = ROOT / "examples" / "crawl"
HELD_EVERY = 10


@dataclass(frozen=True)
class Texts:
    """Documents and the language of each."""

    texts: tuple[bytes, ...]
    languages: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Return the bytes of all texts."""
        return sum(map(len, self.texts))

    def split(self) -> tuple[Texts, Texts]:
        """Return nine tenths of the documents, and the others; a document's text decides."""
        held = [zlib.crc32(text) % HELD_EVERY == 0 for text in self.texts]
        return self.part([not each for each in held]), self.part(held)

    def part(self, keep: Sequence[bool]) -> Texts:
        """Return the documents where `keep` is true."""
        chosen = [i for i, each in enumerate(keep) if each]
        return Texts(tuple(self.texts[i] for i in chosen), tuple(self.languages[i] for i in chosen))


def read_texts(warcs: Sequence[Path]) -> Texts:
    """Return the texts of crawled pages, each text once, without near duplicates, in a fixed random order."""
    paths = [str(path.resolve()) for path in warcs] or [str(CRAWL / "*.warc.gz")]
    stages = [
        ("warc", STAGES["warc"](paths=tuple(paths))),  # type: ignore[call-arg]
        ("extract_html", STAGES["extract_html"]()),
        ("language", STAGES["language"](keep=(), min_score=0.5)),  # type: ignore[call-arg]
        ("dedup_exact", STAGES["dedup_exact"]()),
        ("dedup_minhash", STAGES["dedup_minhash"]()),
        ("documents", STAGES["documents"]()),
    ]
    plan = make_plan("texts", stages, expand(tuple(paths)))
    output = ROOT / "build" / "benchmarks" / plan.fingerprint[:12]
    outcome = drive(plan, lambda: LocalEngine(len(os.sched_getaffinity(0))), Options(str(output)))
    assert outcome.build is not None, outcome.failures
    rows = [
        (zlib.crc32(text.encode(), 1), text.encode(), language)
        for table in documents_of(str(output))
        for text, language in zip(table["text"].to_pylist(), table["language"].to_pylist(), strict=True)
    ]
    rows.sort()
    return Texts(tuple(text for _, text, _ in rows), tuple(language for _, _, language in rows))
