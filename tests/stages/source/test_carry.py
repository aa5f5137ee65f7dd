"""Columns that go along: of tables with the types they have, of objects with those that are asked for; values that do not fit."""

from __future__ import annotations

import datetime
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from gristmill.errors import ConfigError, InputError
from jobs.build.plan import plan_of
from jobs.config import build_config
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from stages.source.carry import Carried, name_of, type_of
from stages.source.jsonl import JsonlSource
from stages.source.parquet import ParquetSource
from tests.gristmill.archives.archives import memory, scan

NOON = datetime.datetime(2024, 5, 6, 12, tzinfo=datetime.UTC)


def packed(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def lines(*rows: object) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def test_keys_without_a_type_are_texts_and_json_where_they_are_none() -> None:
    values = ["Ann", 5, 0.5, True, None, ["a", {"b": "é"}], {"c": None}]
    source = JsonlSource(paths="", carry=("author",))
    assert dict(source.adds()) == {"author": pa.string()}
    rows = scan(source, memory(lines(*({"text": "t", "author": value} for value in values), {"text": "t"})))
    assert rows["author"].to_pylist() == ["Ann", "5", "0.5", "true", None, '["a", {"b": "é"}]', '{"c": null}', None]
    assert rows["error"].null_count == rows.num_rows == 8


TYPED = [
    ("int64", [1, -5, 2.0, None], [1, -5, 2, None]),
    ("uint8", [0, 255], [0, 255]),
    ("float64", [1, 0.5], [1.0, 0.5]),
    ("float32", [0.5], [0.5]),
    ("bool", [True, False], [True, False]),
    ("string", ["a", 1], ["a", "1"]),
    ("list<string>", [["a"], [], None], [["a"], [], None]),
    ("list<list<int32>>", [[[1], []]], [[[1], []]]),
    ("timestamp[s, tz=UTC]", ["2024-05-06T14:00:00+02:00"], [NOON]),
    ("timestamp[us]", ["2024-05-06T12:00:00"], [NOON.replace(tzinfo=None)]),
    ("date32", ["2024-05-06"], [NOON.date()]),
]


@pytest.mark.parametrize(("kind", "given", "expected"), TYPED, ids=[kind for kind, *_ in TYPED])
def test_keys_of_every_type(kind: str, given: list[object], expected: list[object]) -> None:
    source = JsonlSource(paths="", carry={"x": kind, "y": Carried(column="x", type=kind)})
    rows = scan(source, memory(lines(*({"text": "t", "x": value} for value in given))))
    assert rows.schema.field("x").type == type_of(kind)
    assert rows["x"].to_pylist() == rows["y"].to_pylist() == expected


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("int64", "5", '"5" is no int64'),
        ("int64", 0.5, "0.5 is no int64"),
        ("int64", True, "true is no int64"),
        ("int8", 128, "128 is no int8"),
        ("uint64", -1, "-1 is no uint64"),
        ("int64", 10**40, "an integer of more than 30 digits is no int64"),
        ("float64", "0.5", '"0.5" is no float64'),
        ("bool", 1, "1 is no bool"),
        ("list<int64>", [1, "a"], '"a" is no int64'),
        ("list<int64>", 5, "5 is no list"),
        ("timestamp[s]", "soon", "'soon' is no time"),
        ("date32", 20240506, "20240506 is no date32"),
        ("string", "\ud800", "half of a character at 0"),
        ("string", ["\ud800"], "half of a character at 2"),
    ],
)
def test_a_value_of_another_type_is_an_error_of_its_document_alone(kind: str, value: object, said: str) -> None:
    source = JsonlSource(paths="", carry={"x": kind})
    rows = scan(source, memory(lines({"text": "a"}, {"text": "b", "x": value}, {"text": "c"}))).to_pylist()
    assert [row["text"] for row in rows] == ["a", "", "c"]
    assert rows[1]["error"].startswith(f"bad_value: 'x': {said}") and rows[1]["drop"] is None
    assert [row["error"] for row in rows][::2] == [None, None]


COLUMNS = {
    "id": (pa.array([7, 8], pa.int64()), "int64"),
    "small": (pa.array([1, None], pa.uint16()), "uint16"),
    "score": (pa.array([0.5, None], pa.float64()), "float64"),
    "flag": (pa.array([True, False]), "bool"),
    "name": (pa.array(["a", None]), "string"),
    "view": (pa.array(["a", "b"]).cast(pa.string_view()), "string"),
    "large": (pa.array(["a", "b"], pa.large_string()), "string"),
    "coded": (pa.array(["a", "b"]).dictionary_encode(), "string"),
    "raw": (pa.array([b"\xff", b"b"], pa.large_binary()), "binary"),
    "when": (pa.array([NOON, None], pa.timestamp("us", tz="UTC")), "timestamp[us, tz=UTC]"),
    "nanos": (pa.array([5, None], pa.timestamp("ns")), "timestamp[ns]"),
    "day": (pa.array([NOON.date(), None], pa.date32()), "date32"),
    "tags": (pa.array([["a"], None], pa.large_list(pa.string())), "list<string>"),
}


def test_columns_of_a_table_keep_their_types(tmp_path: Path) -> None:
    table = pa.table({"text": ["t", "u"], **{f"my_{name}": column for name, (column, _) in COLUMNS.items()}})
    pq.write_table(table, tmp_path / "a.parquet")
    source = ParquetSource(paths=str(tmp_path / "*.parquet"), carry=tuple(f"my_{name}" for name in COLUMNS))
    assert {name: name_of(kind) for name, kind in source.adds().items()} == {f"my_{n}": kind for n, (_, kind) in COLUMNS.items()}
    rows = scan(source, memory((tmp_path / "a.parquet").read_bytes()), 1)
    for name, (column, kind) in COLUMNS.items():
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        assert rows[f"my_{name}"].combine_chunks().equals(plain.cast(type_of(kind))), name
    assert source.fetch(memory((tmp_path / "a.parquet").read_bytes()), 1, 0).equals(rows.slice(1, 1))


def test_structs_go_along_as_json_and_columns_that_a_file_lacks_are_null() -> None:
    table = pa.table({"text": ["t", "u"], "meta": [{"a": 1, "b": ["é"]}, None]})
    source = ParquetSource(paths="", carry={"about": Carried(column="meta", type="string"), "gone": "int64"})
    rows = scan(source, memory(packed(table)))
    assert rows["about"].to_pylist() == ['{"a": 1, "b": ["é"]}', None] and rows["gone"].to_pylist() == [None, None]


def test_columns_of_another_type_are_converted_or_errors_of_the_documents_that_do_not_fit() -> None:
    table = pa.table({"text": ["t", "u", "v"], "n": ["1", "two", None], "raw": [b"a", b"b", b"\xff"]})
    rows = scan(ParquetSource(paths="", carry={"n": "int64", "raw": "string"}), memory(packed(table))).to_pylist()
    assert [(row["text"], row["n"], row["raw"]) for row in rows] == [("t", 1, "a"), ("", None, None), ("", None, None)]
    assert rows[1]["error"].startswith("bad_value: 'n': ") and rows[2]["error"].startswith("bad_value: 'raw': ")


@pytest.mark.parametrize(
    ("carry", "said"),
    [
        (("id",), r"carry: documents have 'id' already; give it another name: carry: {source_id: {column: id}}"),
        (("text",), "documents have 'text' already"),
        (("error",), "documents have 'error' already"),
        (("a", "b", "a"), "carry names 'a' twice"),
        ({"a": "int"}, "type 'int' is not carried; allowed are string, bool, int8"),
    ],
)
def test_mistakes_are_told_when_the_source_is_made(carry, said: str) -> None:
    for cls in (JsonlSource, ParquetSource):
        with pytest.raises(ValueError, match=said):
            cls(paths="", carry=carry)


def written(folder: Path, source: dict, *stages: object) -> Path:
    path = folder / "a.yaml"
    path.write_text(
        yaml.safe_dump({"name": "a", "output": str(folder / "out"), "source": source, "stages": [*stages, "documents"]})
    )
    return path


def documents(path: Path) -> pa.Table:
    made = build_config.load(path)
    outcome = drive(plan_of(made), lambda: LocalEngine(0), Options(made.output))
    assert outcome.build is not None and outcome.manifest is not None, outcome.failures
    shards = sorted(Path(outcome.manifest).parent.glob("documents-*.arrow"))
    assert len({str(pa.ipc.open_file(shard).schema) for shard in shards}) == 1
    return pa.concat_tables(pa.ipc.open_file(shard).read_all() for shard in shards)


@pytest.mark.parametrize("name", ["jsonl", "parquet"])
def test_a_build_of_documents_has_them_behind_all_stages(name: str, tmp_path: Path) -> None:
    given = [{"id": 10 * n + i, "text": f"text {n} {i}", "score": i / 4, "tags": [str(n)]} for n in range(2) for i in range(3)]
    for n in range(2):
        if name == "jsonl":
            (tmp_path / f"{n}.jsonl").write_bytes(lines(*given[3 * n : 3 * n + 3]))
        else:
            pq.write_table(pa.Table.from_pylist(given[3 * n : 3 * n + 3]), tmp_path / f"{n}.parquet")
    carry = {"source_id": {"column": "id", "type": "int64"}, "score": "float64", "tags": "list<string>"}
    source = {name: {"paths": str(tmp_path / f"*.{name}"), "carry": carry}}
    docs = documents(written(tmp_path, source, "dedup_exact", {"dedup_minhash": {}}))
    found = docs.select(["source_id", "text", "score", "tags"]).rename_columns(["id", "text", "score", "tags"])
    assert found.to_pylist() == given


def test_types_of_a_list_are_taken_from_the_first_file_once_and_are_on_record(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["b"], "n": pa.array([2], pa.int32())}), tmp_path / "b.parquet")
    path = written(tmp_path, {"parquet": {"paths": str(tmp_path / "*.parquet"), "carry": ["n"]}})
    assert documents(path).schema.field("n").type == pa.int32()
    source = build_config.load(path).text["source"]["parquet"]
    assert source["carry"] == {"n": {"column": None, "type": "int32"}}
    (tmp_path / "b.parquet").unlink()
    (tmp_path / "again").mkdir()
    again = build_config.load(written(tmp_path / "again", {"parquet": source}))
    assert build_config.from_record(again.text).source.adds() == {"n": pa.int32()}
    pq.write_table(pa.table({"text": ["a"], "n": pa.array([1], pa.int64())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["b"], "n": pa.array([2], pa.int32())}), tmp_path / "b.parquet")
    docs = documents(path)
    assert docs.schema.field("n").type == pa.int64() and docs["n"].to_pylist() == [1, 2]


def test_a_column_that_the_first_file_lacks_or_a_stage_adds_is_refused_when_planning(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["b"], "language": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match="has no column 'm' to carry; it has 'text', 'language'"):
        build_config.load(written(tmp_path, {"parquet": {"paths": str(tmp_path / "*.parquet"), "carry": ["m"]}}))
    with pytest.raises(ConfigError, match="'language'"):
        build_config.load(
            written(tmp_path, {"parquet": {"paths": str(tmp_path / "*.parquet"), "carry": ["language"]}}, "language")
        )
    (tmp_path / "b.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="no Parquet table"):
        ParquetSource(paths=str(tmp_path / "*.parquet"), carry=("m",)).adds()


def test_the_largest_integers_come_through() -> None:
    rows = scan(JsonlSource(paths="", carry={"n": "uint64"}), memory(lines({"text": "t", "n": 2**64 - 1})))
    assert rows["n"].to_pylist() == [2**64 - 1] and sys.maxsize < 2**64


@pytest.mark.parametrize("number", ["9" * 5000, "1e999"], ids=["5000 digits", "1e999"])
def test_numbers_that_no_float_holds_are_never_carried_as_another_text(number):
    source = JsonlSource(paths="", carry=("n",))
    rows = scan(source, memory(f'{{"text": "x", "n": {number}}}\n'.encode())).to_pylist()
    assert rows[0]["error"].startswith("bad_value: 'n': ") and rows[0]["n"] is None
