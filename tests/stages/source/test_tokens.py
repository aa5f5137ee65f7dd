"""The `tokens` source on files that no build wrote, damaged ones, and builds in places with odd names."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill import TokenDataset
from gristmill.errors import ConfigError, InputError, StoreError
from gristmill.format import manifest as mf
from gristmill.format import schema as fmt
from gristmill.storage import retry
from gristmill.storage.store import expand
from pipeline.planning.plan import make_plan
from stages.sink.shards import Shards
from stages.source.tokens import TokensSource
from tests.gristmill.builds import documents, folder_of, publish
from tests.jobs.byte_builds import byte_documents, publish_bytes
from tests.random_examples import examples

SHARD = "tokens-00000.arrow"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a build."""
    output = tmp_path_factory.mktemp("made")
    publish_bytes([byte_documents(["the mill grinds", "slow and fine", ""], file="a.txt", quality=(0.5, None, 1.0))], output)
    return next(path.parent for path in output.rglob("manifest.json"))


def replaced(made: Path, folder: Path, content: bytes) -> Path:
    """Return a copy of the build with another shard, which its manifest vouches for."""
    shutil.copytree(made, folder)
    (folder / SHARD).unlink()
    (folder / SHARD).write_bytes(content)
    told = json.loads((folder / mf.NAME).read_text())
    told["shards"][0] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    digest = mf.build_id(fmt.TOKENS, [mf.Shard(**{**told["shards"][0], "sidecars": {}})])
    (folder / mf.NAME).write_text(json.dumps({**told, "build": digest, "order": digest}))
    return folder


def read_all(folder: Path) -> pa.Table:
    source = TokensSource(paths=str(folder))
    source.schema()
    read = source.open()
    return pa.concat_tables(table for file in expand(source.patterns()) for table in read(file, 100))


def stored(table: pa.Table) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def shard_of(made: Path) -> pa.Table:
    return pa.ipc.open_file(made / SHARD).read_all()


def retyped(name: str, values: list[object], kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    return lambda t: t.set_column(t.column_names.index(name), pa.field(name, kind), pa.array(values, kind))


FOREIGN: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "no metadata": (lambda t: t.replace_schema_metadata(None), "format version and kind are \\(None, None\\)"),
    "another version": (lambda t: t.replace_schema_metadata({**t.schema.metadata, b"gristmill.version": b"9"}), "'9', 'tokens'"),
    "texts": (lambda t: t.replace_schema_metadata({**t.schema.metadata, b"gristmill.kind": b"documents"}), "'1', 'documents'"),
    "metadata that is no text": (lambda t: t.replace_schema_metadata({b"\xff": b"\xfe"}), "damaged, or no file of a build"),
    "no ids": (lambda t: t.drop_columns(["input_ids"]), "no column 'input_ids'; it has 'doc_id'"),
    "no names": (lambda t: t.drop_columns(["doc_id"]), "no column 'doc_id'"),
    "two of a name": (lambda t: t.append_column("url", t["url"]), "has 2 columns called 'url'"),
    "ids that are texts": (
        retyped("input_ids", [["a"]] * 3, pa.list_(pa.string())),
        "'input_ids' is list<.*string>, not a list of uint16",
    ),
    "ids of 64 bits": (retyped("input_ids", [[1]] * 3, pa.list_(pa.int64())), "not a list of uint16 or uint32"),
    "ids without a list": (retyped("input_ids", [1] * 3, pa.uint16()), "'input_ids' is uint16"),
    "ids with nulls": (retyped("input_ids", [[1, None], [2], []], pa.list_(pa.uint16())), "'input_ids' has nulls"),
    "documents that are null": (retyped("input_ids", [[1], None, []], pa.list_(pa.uint16())), "'input_ids' has nulls"),
    "offsets that are numbers of 32 bits": (retyped("offset", [1, 2, 3], pa.int32()), "'offset' is int32, not int64"),
    "names that are bytes": (retyped("doc_id", [b"a"] * 3, pa.binary()), "'doc_id' is binary, not string"),
}


@pytest.mark.parametrize("how", FOREIGN)
def test_a_file_of_another_shape_is_refused_by_name(how: str, made: Path, tmp_path: Path) -> None:
    change, said = FOREIGN[how]
    with pytest.raises(InputError, match=f"{SHARD}: .*{said}"):
        read_all(replaced(made, tmp_path / "b", stored(change(shard_of(made)))))


def _parquet(made: Path) -> bytes:
    out = io.BytesIO()
    pq.write_table(shard_of(made), out)
    return out.getvalue()


def _stream(made: Path) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, shard_of(made).schema) as writer:
        writer.write_table(shard_of(made))
    return out.getvalue()


def _cut(made: Path) -> bytes:
    return (made / SHARD).read_bytes()[:-20]


def _wrong_offsets(made: Path) -> bytes:
    table = shard_of(made).combine_chunks()
    lists = table["input_ids"].chunk(0)
    offsets = pa.array([0, 10_000, 3, len(lists.values)], pa.int32())
    wrong = pa.Array.from_buffers(lists.type, 3, [None, offsets.buffers()[1]], children=[lists.values])
    return stored(table.set_column(table.column_names.index("input_ids"), table.schema.field("input_ids"), wrong))


@pytest.mark.parametrize(
    "make", [lambda made: b"", lambda made: b"ARROW1\0\0" * 9, _parquet, _stream, _cut, _wrong_offsets], ids=range(6)
)
def test_a_file_that_arrow_does_not_read_is_refused_by_name(make: Callable[[Path], bytes], made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{SHARD}: damaged, or no file of a build"):
        read_all(replaced(made, tmp_path / "b", make(made)))


@given(st.data())
@examples(60)
def test_a_flipped_byte_that_the_manifest_vouches_for_raises_nothing_else(
    made: Path, tmp_path_factory, data: st.DataObject
) -> None:
    content = bytearray((made / SHARD).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    folder = replaced(made, tmp_path_factory.mktemp("flip") / "b", bytes(content))
    try:
        read_all(folder)
    except InputError as error:
        assert SHARD in str(error)


def test_what_the_manifest_does_not_vouch_for_is_damage(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "b")
    content = bytearray((made / SHARD).read_bytes())
    content[200] ^= 1
    (tmp_path / "b" / SHARD).unlink()
    (tmp_path / "b" / SHARD).write_bytes(bytes(content))
    with pytest.raises(InputError, match=f"{SHARD}: damaged"):
        read_all(tmp_path / "b")
    (tmp_path / "b" / SHARD).unlink()
    with pytest.raises(InputError, match=f"{SHARD}: missing"):
        TokensSource(paths=str(tmp_path / "b")).schema()


@pytest.mark.parametrize("name", ["run[1]", "what?", "a*b", "sp ace", "50%25#1", "ünï"])
def test_a_build_is_read_wherever_it_lies(name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name / "b"
    shutil.copytree(made, folder)
    shutil.copytree(made, tmp_path / name.replace("*", "x").replace("?", "x").replace("[1]", "1") / "b", dirs_exist_ok=True)
    docs = read_all(folder)
    assert docs.equals(read_all(made)) and docs.num_rows == 3
    assert set(docs["file"].to_pylist()) == {SHARD}
    assert len(TokenDataset.open(str(folder), sequence_length=4)) > 0
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_all(Path("~") / name / "b").equals(docs)


def test_a_server_that_is_not_there_is_the_stores_failure(monkeypatch):
    monkeypatch.setattr(retry, "BACKOFF", retry.Backoff(first_s=0.01, longest_s=0.01))
    with pytest.raises(StoreError, match=r"127\.0\.0\.1.*attempt"):
        TokensSource(paths="http://127.0.0.1:9/build").patterns()


def test_counts_of_a_build_come_with_its_documents(tmp_path: Path) -> None:
    """With those of several record batches; damage is told."""
    ids = [[row] * (row % 5) for row in range(40)]
    counts = [1 + row % 4 for row in range(40)]
    tables = [[documents(ids[:25], repeats=counts[:25])], [documents(ids[25:], file="other", repeats=counts[25:])]]
    folder = folder_of(publish(tables, tmp_path / "a", sink=Shards(tokens_per_shard=30), batch_tokens=12), tmp_path / "a")
    read = read_all(folder)
    assert read["repeats"].to_pylist() == counts and read.schema.field("repeats").type == pa.uint8()
    assert TokensSource(paths=str(folder)).adds()["repeats"] == pa.uint8()
    path = folder / "repeats-00001.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"repeats-00001.arrow: damaged, sha256 is"):
        read_all(folder)


def test_a_build_is_not_written_anew(made: Path) -> None:
    """Its documents have no texts, and columns that `shards` makes itself: said in planning."""
    stages = [("tokens", TokensSource(paths=str(made))), ("shards", Shards())]
    said = r"^stage 'shards' makes column 'text_bytes' itself, which source 'tokens' gives already; documents of a finished build"
    with pytest.raises(ConfigError, match=said):
        make_plan("t", stages, [])
