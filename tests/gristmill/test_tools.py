"""Shards and sidecars in the hands of others: what docs/format.md shows runs in the folder of a build; where its bytes lie."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from tokenizers import Tokenizer, models

from gristmill.format import manifest as mf
from gristmill.format.sidecar import find_sidecars, with_sidecars
from gristmill.storage.location import LocalLocation
from pipeline.stage import Attachment
from stages.sink.shards import Shards
from tests.gristmill.builds import documents, folder_of, publish

PAGE = Path(__file__).parents[2] / "docs" / "format.md"
HEADINGS = ("Columns added later", "pyarrow", "The tokenizer", "Polars", "DuckDB", "Hugging Face datasets", "Ray Data")

IDS = [[*((7 * row + place) % 98 + 2 for place in range(row % 9)), 1][: row % 9] for row in range(80)]
LOSSES = [[np.nan, *((row * place % 16) / 4 for place in range(1, len(ids)))][: len(ids)] for row, ids in enumerate(IDS)]
LANGUAGES = ("de", "en", "fr")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two inputs in five files, of several record batches each, with losses of `reference` and a tokenizer."""
    output = tmp_path_factory.mktemp("output")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(100)}, "w0")).to_str().encode()
    sha256 = hashlib.sha256(words).hexdigest()
    scores, schemes = {"ref_loss.reference": LOSSES}, {"ref_loss.reference": "reference"}
    docs = documents(IDS, scores=scores, schemes=schemes, tokenizer=sha256, languages=LANGUAGES, vocab_size=100)
    attached = [Attachment("tokenizer.json", words)]
    shards = [[docs.slice(0, 50)], [docs.slice(50)]]
    sink = Shards(tokens_per_shard=80)
    return folder_of(publish(shards, output, sink=sink, batch_tokens=30, attachments=attached), output)


@pytest.fixture
def here(build: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(build)
    return build


def show(heading: str) -> dict[str, Any]:
    """Run the block below a heading of the page; return its names."""
    (_, text), *more = [each for each in re.findall(r"^#+ (.*)\n((?:(?!#).*\n)*)", outside(), re.MULTILINE) if each[0] == heading]
    assert not more
    (number,) = re.findall(r"^\[block (\d+)\]$", text, re.MULTILINE)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(BLOCKS[int(number)], str(PAGE), "exec"), names)
    return names


BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def outside() -> str:
    """Return the page with a number in the place of each block, whose comments look like headings."""
    numbers = iter(range(len(BLOCKS)))
    return re.sub(r"^```python\n.*?^```$", lambda _: f"[block {next(numbers)}]", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


def counts() -> list[tuple[str, int, int]]:
    """Return documents and tokens by language, sorted."""
    rows = {language: IDS[place :: len(LANGUAGES)] for place, language in enumerate(LANGUAGES)}
    return [(language, len(ids), sum(map(len, ids))) for language, ids in rows.items()]


def test_the_build_is_one_that_can_go_wrong(here: Path) -> None:
    """Many files and record batches, documents without tokens, nulls."""
    manifest = mf.parse(json.loads((here / "manifest.json").read_bytes()), "")
    assert len(manifest.shards) == 5 and [] in IDS
    assert pa.ipc.open_file("tokens-00000.arrow").num_record_batches > 2
    assert len(BLOCKS) == len(HEADINGS)


def test_pyarrow(here: Path) -> None:
    names = show("pyarrow")
    rows = names["table"].num_rows
    assert names["table"]["input_ids"].to_pylist() == IDS[:rows]
    assert names["table"]["doc_id"][3].as_py() == hashlib.blake2b(b"crawl-0.warc.gz\n3", digest_size=16).hexdigest()
    first = names["batch"].num_rows
    assert names["stream"].tolist() == [token for ids in IDS[:first] for token in ids]
    assert np.array_equal(names["losses"], np.concatenate(LOSSES[:first]).astype(np.float16), equal_nan=True)
    assert not names["stream"].flags.owndata
    whole = ds.dataset(sorted(str(path) for path in here.glob("tokens-*.arrow")), format="ipc")
    assert whole.to_table()["input_ids"].to_pylist() == IDS
    found = whole.to_table(filter=ds.field("language") == "fr", columns=["text_bytes"])
    assert found["text_bytes"].to_pylist() == [2 * (row % 50) for row in range(2, 80, 3)]


def test_the_tokenizer(here: Path) -> None:
    names = show("The tokenizer")
    assert names["ids"] == IDS[0] == []
    assert names["tokenizer"].decode(IDS[4]) == " ".join(f"w{i}" for i in IDS[4])


def test_polars(here: Path) -> None:
    import polars as pl

    names = show("Polars")
    assert names["by_language"].sort("language").rows() == counts()
    hardest = names["hardest"]
    rows = pa.ipc.open_file("tokens-00000.arrow").read_all().num_rows
    means = [np.nanmean(row) if len(row) > 1 else None for row in LOSSES[:rows]]
    assert hardest["loss"].to_list() == pytest.approx(
        sorted((m for m in means if m is not None), reverse=True) + [None] * means.count(None), abs=1e-2
    )
    read = pl.read_ipc("tokens-*.arrow")
    assert read["input_ids"].to_list() == IDS and read.schema["input_ids"] == pl.List(pl.UInt16)


def test_duckdb(here: Path) -> None:
    names = show("DuckDB")
    assert sorted(names["by_language"]) == counts()
    highest: dict[str | None, float] = {}
    for row, losses in enumerate(LOSSES):
        url = None if row % 3 == 2 else f"http://host/{row}"
        if losses[1:]:
            highest[url] = max(highest.get(url, 0), *losses[1:])
    assert dict(names["hard"]) == highest and [loss for _, loss in names["hard"]] == sorted(highest.values(), reverse=True)


def test_hugging_face_datasets(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    rows = show("Hugging Face datasets")["rows"]
    assert rows["input_ids"][:] == IDS and rows.features["input_ids"] == datasets.List(datasets.Value("uint16"))
    assert [rows[5]["language"], rows[5]["url"], rows[6]["offset"]] == ["fr", None, 6]
    sides = sorted(str(path) for path in here.glob("scores-*.arrow"))
    scores = datasets.load_dataset("arrow", data_files=sides, split="train", cache_dir=str(tmp_path))
    assert [len(row) for row in scores["ref_loss.reference"]] == [len(ids) for ids in IDS]


@pytest.fixture
def cluster() -> Iterator[None]:
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=80 << 20)
    yield
    ray.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data's of its own options
def test_ray_data(here: Path, cluster: None) -> None:
    names = show("Ray Data")
    assert sorted(row["input_ids"] for row in names["documents"].take_all()) == sorted(IDS)
    assert names["loaded"].count() == len(IDS)
    assert names["loaded"].schema().names[:2] == ["doc_id", "input_ids"]


def test_columns_added_later(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page adds is there for our reader, for pyarrow, for Polars and for DuckDB."""
    import duckdb
    import polars as pl

    folder = Path(shutil.copytree(build, tmp_path / "build"))
    monkeypatch.chdir(folder)
    show("Columns added later")
    place = LocalLocation(folder)
    manifest = with_sidecars(mf.parse(json.loads(place.read("manifest.json")), ""), find_sidecars(place))
    files = [shard.sidecars["random"].file for shard in manifest.shards]
    assert all(re.fullmatch(rf"scores-random-{n:05d}-[0-9a-f]{{12}}\.arrow", file) for n, file in enumerate(files))
    table = ds.dataset(files, format="ipc").to_table()
    losses, kept = table["ref_loss"].to_pylist(), table["keep"].to_pylist()
    assert [len(row) for row in losses] == [len(row) for row in kept] == [len(ids) for ids in IDS]
    assert all(
        np.isnan(row[0]) and not keep[0] and not np.isnan(row[1:]).any() for row, keep in zip(losses, kept, strict=True) if row
    )
    polars = pl.read_ipc(files)
    assert polars["keep"].to_list() == kept and polars.schema["ref_loss"] == pl.List(pl.Float16)
    assert polars["ref_loss"].list.len().to_list() == [len(ids) for ids in IDS]
    bits = table.select(["doc_id", "keep"])
    assert duckdb.sql("SELECT sum(len(list_filter(keep, lambda x: x))) FROM bits").fetchall() == [(sum(map(sum, kept)),)]
    assert bits.num_rows == len(IDS)


def test_where_the_bytes_lie(build: Path, tmp_path: Path) -> None:
    """Buffers in the order that the page gives, at multiples of 8 bytes; offsets from 0; bits from the lowest."""
    data = (build / "tokens-00000.arrow").read_bytes()
    base = pa.py_buffer(data).address
    done = 0
    reader = pa.ipc.open_file(pa.py_buffer(data))
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        buffers = [*batch.column("doc_id").buffers(), *batch.column("input_ids").buffers()]
        assert [buffer is None for buffer in buffers] == [True, False, False, True, False, True, False]
        places = [buffer.address - base for buffer in buffers if buffer is not None]
        assert places == sorted(places) and all(place % 8 == 0 for place in places)
        offsets = np.frombuffer(data, np.int32, batch.num_rows + 1, places[2])
        assert offsets[0] == 0 and np.diff(offsets).tolist() == [len(ids) for ids in IDS[done : done + batch.num_rows]]
        ids = np.frombuffer(data, np.uint16, offsets[-1], places[3])
        assert ids.tolist() == [token for row in IDS[done : done + batch.num_rows] for token in row]
        done += batch.num_rows
    kept = [[False, *(place % 3 == 1 for place in range(len(ids) - 1))][: len(ids)] for ids in IDS]
    docs = documents(IDS, scores={"keep": kept}, types={"keep": pa.bool_()})
    side = folder_of(publish([[docs]], tmp_path), tmp_path) / "scores-rho1-00000.arrow"
    column = pa.ipc.open_file(pa.py_buffer(side.read_bytes())).get_batch(0).column("keep")
    packed = np.frombuffer(column.buffers()[3], np.uint8)
    assert [bool(packed[i // 8] >> i % 8 & 1) for i in range(sum(map(len, IDS)))] == [keep for row in kept for keep in row]
