"""The `documents` sink: every column comes back, the bytes depend on the documents alone."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.format import manifest as mf
from pipeline.lineage import Lineage
from stages.sink import documents as module
from stages.sink.documents import Documents
from tests.gristmill.builds import documents, folder_of, manifest_of, publish
from tests.random_examples import examples


def table() -> pa.Table:
    """Return 60 documents with a struct, a list and nulls among their columns, and no ids."""
    plain = documents([[0]] * 60).drop_columns(["input_ids"])
    notes = pa.array([None if row % 5 == 0 else {"rule": f"r{row}", "score": row / 4} for row in range(60)])
    return plain.append_column("notes", notes).append_column("tags", pa.array([["a"] * (row % 3) for row in range(60)]))


def write(tables, folder: Path, **options) -> dict[str, bytes]:
    parts = Documents(**options).open()(iter(tables), folder)
    assert {part.path for part in parts} == set(folder.iterdir())
    return {part.path.name: part.path.read_bytes() for part in parts}


@given(st.lists(st.integers(0, 60), max_size=8), st.booleans())
@examples(40)
def test_bytes_do_not_depend_on_how_documents_arrive(tmp_path_factory, cuts, encoded):
    whole = table()
    if encoded:
        place = whole.schema.get_field_index("language")
        whole = whole.set_column(place, "language", whole.column(place).dictionary_encode())
    borders = sorted({0, *cuts, 60})
    tables = [whole.slice(a, b - a) for a, b in pairwise(borders)]
    found = write(tables, tmp_path_factory.mktemp("any"), bytes_per_shard=700)
    assert found == write([table()], tmp_path_factory.mktemp("one"), bytes_per_shard=700)
    assert len(found) > 3


@pytest.mark.parametrize("batch", [100, 1 << 25])
def test_everything_comes_back(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(module, "BATCH_BYTES", batch)
    assembly = publish([[table().slice(0, 25)], [], [table().slice(25)]], tmp_path, sink=Documents(bytes_per_shard=700))
    folder = folder_of(assembly, tmp_path)
    manifest = manifest_of(assembly)
    found = ds.dataset([str(folder / shard.file) for shard in manifest.shards], format="ipc").to_table()
    assert found.equals(table())
    sizes = [len(text.encode()) for text in table()["text"].to_pylist()]
    assert (manifest.kind, manifest.documents, manifest.text_bytes, manifest.tokens) == ("documents", 60, sum(sizes), 0)
    assert all(shard.text_bytes <= 700 for shard in manifest.shards)
    assert (manifest.tokenizer, manifest.dtype) == (None, None)


def test_what_is_said_of_columns_is_in_the_manifest_alone(tmp_path):
    about = {"id": "0a", "scores": {"quality": {"edges": [0.5]}}}
    field = pa.field("bucket", pa.uint8(), metadata={"about": json.dumps(about), "unit": "bucket"})
    bare = table().append_column(pa.field("bucket", pa.uint8(), metadata={"unit": "bucket"}), pa.array([1] * 60, pa.uint8()))
    noted = bare.set_column(bare.num_columns - 1, field, bare["bucket"])
    plain = publish([[bare]], tmp_path / "plain", sink=Documents())
    told = publish([[noted.slice(0, 25), noted.slice(25)], []], tmp_path / "told", sink=Documents(bytes_per_shard=700))
    assert manifest_of(told).about == {"documents": {"bucket": about}} and manifest_of(plain).about == {}
    assert publish([[noted]], tmp_path / "whole", sink=Documents()).id == plain.id


def test_files_are_compressed(tmp_path):
    text = pa.array(["the same words again and again " * 100] * 60)
    whole = table()
    content = write([whole.set_column(whole.schema.get_field_index("text"), "text", text)], tmp_path)
    assert sum(map(len, content.values())) < 20_000


def test_no_documents_no_parts(tmp_path):
    assert write([], tmp_path) == write([table().slice(0, 0)], tmp_path) == {}
    manifest = json.loads(Documents().assemble([], Lineage(name="demo", inputs=(), stages=())).files["manifest.json"])
    assert mf.parse(manifest, "here").kind == "documents"


def test_a_column_that_cannot_be_stored_is_named(tmp_path):
    kind = pa.map_(pa.string(), pa.int8())
    with pytest.raises(ValueError, match=r"map<string, int8> cannot be stored"):
        write([table().append_column("headers", pa.array([[("a", 1)]] * 60, kind))], tmp_path)


def test_parameters():
    with pytest.raises(ValueError, match="bytes_per_shard is 0; it must be at least 1"):
        Documents(bytes_per_shard=0)
