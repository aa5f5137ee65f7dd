"""One contract over every source: files in, documents out, each of which can be read again by its address."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from gristmill.storage.store import InputFile, expand
from pipeline.schema import DOCUMENT, check, document_id
from pipeline.stage import Source
from stages import STAGES
from tests.conftest import Checkout
from tests.contract.stage_cases import ON_A_BUILD

SOURCES = [name for name, stage in STAGES.items() if issubclass(stage, Source) and name not in ON_A_BUILD]

Files = Callable[[str], list[InputFile]]


@pytest.fixture(scope="module")
def files(texts: pa.Table, small_crawl: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Give the files of a source: more than one a source, of one compression each."""
    place = tmp_path_factory.mktemp("files")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in texts.select(["url", "text"]).to_pylist()).encode()
    (place / "0.jsonl").write_bytes(lines)
    (place / "1.jsonl").write_bytes(gzip.compress(lines, mtime=0))
    pq.write_table(texts.select(["url", "date", "text"]), place / "0.parquet", row_group_size=7)
    pq.write_table(texts.select(["text"]), place / "1.parquet", compression="zstd")
    # Where plain text ends too soon it is still text, so that only compressed files can tell. To read a document again is to
    # unpack all before it, so the texts are short.
    short = [text[:400].encode() + b"\n\n" for text in texts["text"].to_pylist()]
    for number, pack in enumerate((partial(gzip.compress, mtime=0), zstandard.compress)):
        (place / f"{number}.text").write_bytes(b"".join(map(pack, short)))
    for number, path in enumerate(sorted((small_crawl.folder / "examples/crawl").glob("*.gz"))):
        (place / f"{number}.warc").write_bytes(path.read_bytes() if number else gzip.decompress(path.read_bytes()))
    assert {path.suffix[1:] for path in place.iterdir()} == set(SOURCES), "a new source needs files here"
    return lambda name: expand(str(place / f"*.{name}"))


def source(name: str) -> Source:
    made = STAGES[name](paths="")  # type: ignore[call-arg]
    assert isinstance(made, Source)
    return made


def scan(name: str, file: InputFile, batch_rows: int = 1000) -> pa.Table:
    return pa.concat_tables(source(name).open()(file, batch_rows))


@pytest.mark.parametrize("name", SOURCES)
def test_documents_have_the_schema_and_their_address_for_a_name(name: str, files: Files) -> None:
    for file in files(name):
        docs = scan(name, file)
        check(docs, DOCUMENT, name)
        assert docs.num_rows >= 10 and set(docs.column_names) <= {*source(name).schema().names, "drop", "error"}
        assert set(docs["file"].to_pylist()) == {file.name}
        offsets = docs["offset"].to_pylist()
        assert offsets == sorted(set(offsets)), "in the order of the file, each at its own place"
        assert docs["id"].to_pylist() == [document_id(file.name, offset) for offset in offsets]
        assert min(map(len, docs["text"].to_pylist())) > 0


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("batch_rows", [1, 2, 5, 13])
def test_tables_are_no_larger_than_asked_for_and_the_same_documents_together(name: str, batch_rows: int, files: Files) -> None:
    for file in files(name):
        tables = list(source(name).open()(file, batch_rows))
        assert all(0 < table.num_rows <= batch_rows for table in tables)
        assert pa.concat_tables(tables).equals(scan(name, file))


@pytest.mark.parametrize("name", SOURCES)
def test_each_document_is_read_again_by_its_address(name: str, files: Files) -> None:
    for file in files(name):
        docs = scan(name, file)
        for row in range(docs.num_rows):
            again = source(name).fetch(file, docs["offset"][row].as_py(), docs["length"][row].as_py())
            assert again.equals(docs.slice(row, 1)), row


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_a_file_that_ends_too_soon_gives_what_is_readable_and_says_so(
    name: str, share: float, files: Files, tmp_path: Path
) -> None:
    for file in files(name):
        whole = scan(name, file)
        with file.open() as stream:
            content = stream.read()
        path = tmp_path / file.name
        path.write_bytes(content[: int(len(content) * share)])
        tables = list(source(name).open()(InputFile(file.name, str(path), path.stat().st_size, ""), 3))
        if not share:
            # No bytes are no documents, but a table of a format with a footer they are not.
            assert sum(table.num_rows for table in tables) == (name == "parquet")
            continue
        docs = pa.concat_tables(tables)
        errors = [error is not None for error in docs["error"].to_pylist()]
        assert errors == [False] * (len(errors) - 1) + [True]
        assert docs.slice(0, docs.num_rows - 1).equals(whole.slice(0, docs.num_rows - 1))
        assert name == "parquet" or docs.num_rows > 2
