"""What many tests start from, made once a session: a small crawl, its pages, a tokenizer and a finished build.

The small crawl is a folder in which `python -m jobs` runs as in a checkout: the recipes in it are the real ones, its two WARC
files hold pages of `examples/crawl`, whose compressed records are copied byte for byte.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from gristmill.storage.store import expand
from gristmill.tokenizer import Bpe
from gristmill.tokenizer.files import save
from gristmill.tokenizer.training.corpus import make_corpus
from jobs.__main__ import main
from stages.extract.html import ExtractHtml
from stages.source.warc import WarcSource
from tests.classifiers import train_small
from tests.random_examples import of

ROOT = Path(__file__).parents[1]

# Random tests that name no number of examples; those that do ask tests/random_examples.py.
settings.register_profile("default", deadline=None, max_examples=of(100))
settings.load_profile("default")

# The files that need the finished build of the small crawl: one worker takes them all, so that it is made once.
ON_THE_SMALL_BUILD = ("jobs/test_commands.py", "jobs/explain/test_explain.py", "test_readme.py")

# The files that take longest, the longest first. The first two are begun at once: one compiles the loops, the other needs none.
SLOWEST = (
    *ON_THE_SMALL_BUILD,
    "pipeline/engines/on_ray/test_cluster.py",
    "jobs/test_on_nodes.py",
    "pipeline/test_s3_faults.py",
    "contract/test_stages.py",
    "jobs/test_survival.py",
    "stages/rephrase/test_rephrase.py",
    "pipeline/test_asking.py",
    "jobs/tokenizer/test_train.py",
    "pipeline/test_same_bytes.py",
    "gristmill/reader/test_torch.py",
    "gristmill/storage/test_location.py",
    "gristmill/storage/test_store.py",
    "gristmill/tokenizer/test_mixture.py",
    "jobs/reference/test_train.py",
    "benchmarks/test_gpu_day.py",
    "pipeline/test_damage.py",
    "gristmill/reader/test_loader.py",
    "jobs/test_mistakes.py",
    "pipeline/test_damaged_crawl.py",
    "pipeline/engines/test_heartbeat.py",
    "gristmill/format/test_sidecar.py",
    "pipeline/test_growing.py",
    "gristmill/test_tools.py",
    "stages/dedup/test_minhash.py",
    "gristmill/storage/test_cache.py",
    "gristmill/tokenizer/test_merges.py",
    "gristmill/tokenizer/test_cutting.py",
    "stages/extract/test_html.py",
    "benchmarks/test_reader.py",
    "stages/sink/test_sidecars.py",
    "gristmill/tokenizer/test_published.py",
    "benchmarks/test_form.py",
    "gristmill/tokenizer/test_schemes.py",
    "gristmill/archives/test_unpacked.py",
    "pipeline/builds/test_prune.py",
    "gristmill/reader/test_samples.py",
    "gristmill/storage/test_s3_silence.py",
    "gristmill/reader/test_prefetch.py",
)

# Where files lie in memory. On a disk each commit of each build waits until it is safe there, which no test can see: a quarter
# of the time of many files. A run leaves about 1 GB; containers often have 64 MB there, and then their disk is used.
MEMORY = Path("/dev/shm")
LEAST_MEMORY = 6 << 30

# Where the pages begin that are taken, by what the demo does with them.
PAGES = {
    "docs-00000.warc.gz": {
        "kept": [3935, 314703, 326075, 380450, 456143, 1178808, 1542384],
        "exact_duplicate": [383541, 394803, 646341],
        "language": [11909],
        "language_score": [102562],
        "gopher_below_alpha_threshold": [16318],
        "gopher_short_doc": [141944],
        "gopher_too_many_bullets": [479392],
    },
    "docs-00001.warc.gz": {
        "kept": [234011, 1046529],
        "exact_duplicate": [257198, 345858],  # of pages in the other file
        "language": [67868],
        "language_score": [2769880],
        "gopher_below_alpha_threshold": [852, 1759693],
        "gopher_short_doc": [12175, 476655],
    },
}


def pytest_configure() -> None:
    """Put the folders of all tests into memory where there is room."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > LEAST_MEMORY:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first.

    Workers take whole files in this order (`make test`). Were a long one among the last, its worker would end long after the
    others. The order is the same in every worker, as it must be.
    """
    place = {ROOT / "tests" / name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without searching for cycles, and never search what there is by then.

    What the imports and the items allocate stays until the end. To search it takes two of the 15 seconds of a collection, and
    four more when a worker ends.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


class Together(LoadFileScheduling):
    """Gives each worker whole files, those on the small build as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return ON_THE_SMALL_BUILD[0] if file.removeprefix("tests/") in ON_THE_SMALL_BUILD else file


@pytest.hookimpl(optionalhook=True)  # there is none without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together | None:
    """Tell xdist who takes what, where it is asked for whole files."""
    return Together(config, log) if config.getvalue("dist") == "loadfile" else None


@dataclass(frozen=True)
class Checkout:
    """A folder to run the commands in."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "jobs", *arguments]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT)}

    def jobs(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in a process of its own and check its exit code."""
        done = subprocess.run(self.command(*arguments), cwd=self.folder, env=self.environment(), capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def here(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Run a command in this process, which has imported the heavy libraries already; return its two streams."""
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            found = main(list(arguments))
        assert found == code, out.getvalue() + errors.getvalue()
        return out.getvalue(), errors.getvalue()


def member(data: bytes, start: int) -> bytes:
    """Return the gzip member that begins at `start`."""
    decoder = zlib.decompressobj(wbits=31)
    decoder.decompress(data[start:])
    return data[start : len(data) - len(decoder.unused_data)]


def write_crawl(folder: Path) -> None:
    """Write the two files of the small crawl into a new folder."""
    folder.mkdir(parents=True)
    for name, pages in PAGES.items():
        data = (ROOT / "examples/crawl" / name).read_bytes()
        starts = [0, *sorted(start for taken in pages.values() for start in taken)]
        (folder / name).write_bytes(b"".join(member(data, start) for start in starts))


@pytest.fixture(scope="session")
def small_crawl(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """25 pages in two files, below `examples/crawl` of a folder that has the recipes too."""
    folder = tmp_path_factory.mktemp("checkout")
    write_crawl(folder / "examples/crawl")
    (folder / "jobs").symlink_to(ROOT / "jobs")
    return Checkout(folder)


@pytest.fixture(scope="session")
def pages(small_crawl: Checkout) -> pa.Table:
    """The pages of the small crawl as documents of HTML."""
    files = expand(str(small_crawl.folder / "examples/crawl/*.warc.gz"))
    tables = [table for file in files for table in WarcSource(paths="").open()(file, 100)]
    return pa.concat_tables(tables).drop_columns(["drop", "error"]).combine_chunks()


@pytest.fixture(scope="session")
def texts(pages: pa.Table) -> pa.Table:
    """The pages as documents of plain text."""
    docs = ExtractHtml().open()(pages)
    return docs.filter(pc.is_null(docs["drop"])).drop_columns(["drop"]).combine_chunks()


@pytest.fixture(scope="session")
def tokenizer(texts: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of 600 tokens, trained on the pages."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save(Bpe(vocab_size=600).train(make_corpus(texts["text"].to_pylist())), folder)
    return folder


@dataclass(frozen=True)
class Built:
    """What came out of the commands: the demo's build of tokens over the small crawl."""

    checkout: Checkout
    output: Path
    stdout: str
    stderr: str

    @property
    def id(self) -> str:
        return self.stdout.split()[-2]

    def record(self) -> dict[str, Any]:
        """Return the record of the run."""
        return newest_record(self.output)


def newest_record(output: Path) -> dict[str, Any]:
    """Return the record of the newest run of an output."""
    record: dict[str, Any] = json.loads(max((output / "runs").iterdir()).read_text())
    return record


@pytest.fixture(scope="session")
def small_build(small_crawl: Checkout) -> Built:
    """The demo's recipes run one after the other, here alone: texts, tokenizer, shards; the classifier has other texts."""
    local = ("--set", "run.on=local", "--set", "run.workers=1")
    small_crawl.here("build", "jobs/recipes/demo-text.yaml", *local)
    small_crawl.here("train-tokenizer", "jobs/recipes/tokenizer-superbpe-8k.yaml")
    train_small(small_crawl.folder / "build/classifiers/prose", {"linear": {"features": {"bits": 10}}})
    out, errors = small_crawl.here("build", "jobs/recipes/demo.yaml", *local)
    return Built(small_crawl, small_crawl.folder / "build/demo", out, errors)
