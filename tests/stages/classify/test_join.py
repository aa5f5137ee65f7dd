"""Annotations of others as columns: against a dict of Python, in every format, and what is said of tables that are none."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.errors import InputError
from gristmill.storage.store import open_store
from pipeline.finding import Finding, Limit
from pipeline.planning.fingerprint import describe
from stages.classify import matching
from stages.classify.join import Join, Joined
from tests.s3_servers import BUCKET, moto, use

ROWS = [
    {"url": "http://a/", "grade": 1.5, "topic": "law", "count": 3},
    {"url": "http://b/", "grade": None, "topic": "2024-01-01", "count": 4},
    {"url": None, "grade": 9.0, "topic": "lost", "count": 5},
    {"url": "http://c/é", "grade": 2.0, "topic": None, "count": 6},
]
URLS = ["http://c/é", None, "http://b/", "http://a", "http://a/", "", "http://c/é"]
Writer = Callable[[Path, list[dict[str, Any]]], None]


def as_arrow(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(path, table.schema) as out:
        out.write_table(table)


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


WRITERS: dict[str, Writer] = {
    "parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
    "arrow": as_arrow,
    "jsonl": lambda path, rows: path.write_bytes(lines(rows)) and None,
    "jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress(lines(rows))) and None,
}


def documents(texts: pa.Table, urls: list[str | None]) -> pa.Table:
    docs = texts.slice(0, len(urls))
    return docs.set_column(docs.column_names.index("url"), "url", pa.array(urls, pa.string()))


def written(tmp_path: Path, rows: list[dict[str, Any]], ending: str = "jsonl") -> str:
    path = tmp_path / f"table.{ending}"
    WRITERS[ending](path, rows)
    return str(path)


@pytest.mark.parametrize("ending", WRITERS)
def test_columns_of_every_format(ending: str, texts: pa.Table, tmp_path: Path) -> None:
    stage = Join(
        tables=written(tmp_path, ROWS, ending),
        columns={
            "grade": "float32",
            "about": Joined(column="topic", type="string"),
            "n": Joined(column="count", type="int8", default=-1),
        },
    )
    out = stage.open()(documents(texts, URLS))
    assert out.column_names[-3:] == ["grade", "about", "n"] and out.schema.field("n").type == pa.int8()
    assert out["grade"].to_pylist() == [2.0, None, None, None, 1.5, None, 2.0]
    assert out["about"].to_pylist() == [None, None, "2024-01-01", None, "law", None, None]
    assert out["n"].to_pylist() == [6, -1, 4, -1, 3, -1, 6]


def test_documents_without_a_row_may_go(texts: pa.Table, tmp_path: Path) -> None:
    stage = Join(tables=written(tmp_path, ROWS), columns={"grade": "float64"}, missing="drop")
    docs = documents(texts, URLS)
    out = stage.open()(docs)
    none = "not_annotated"
    assert out["drop"].to_pylist() == [None, none, None, none, None, none, None]
    kept, gone = (stage.explain(docs.slice(row, 1), out.slice(row, 1)) for row in (4, 3))
    assert kept == [Finding("url", "http://a/", (Limit("tables", stage.tables, "among"),)), Finding("grade", 1.5)]
    assert gone[0] == Finding("url", "http://a", (Limit("tables", stage.tables, "not among", True),), decisive=True)


def test_ids_of_several_files_in_the_order_of_their_names(texts: pa.Table, tmp_path: Path) -> None:
    ids = texts["id"].to_pylist()
    for name, start in (("b.jsonl", 10), ("a.jsonl", 0)):
        (tmp_path / name).write_bytes(lines([{"document": ids[row], "n": start + row} for row in range(2)]))
    parameters: dict[str, Any] = {
        "tables": str(tmp_path / "*.jsonl"),
        "columns": {"n": "int64"},
        "key": "id",
        "key_column": "document",
    }
    out = Join(**parameters, duplicates="first").open()(texts)
    assert out["n"].to_pylist() == [0, 1, *[None] * (texts.num_rows - 2)]
    with pytest.raises(
        InputError, match=rf"^tables: document '{ids[0]}|{ids[1]}' stands in two rows; make keys differ, or take the"
    ):
        Join(**parameters).check()


def test_random_keys_against_a_dict(texts: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(11)
    keys = ["".join(rng.choice(list("abé"), rng.integers(0, 5))) for _ in range(900)]
    expected: dict[str, int] = {}
    for number, key in enumerate(keys):
        expected.setdefault(key, number)
    table = written(tmp_path, [{"url": key, "n": number} for number, key in enumerate(keys)], "parquet")
    stage = Join(tables=table, columns={"n": "int32"}, duplicates="first")
    asked = ["".join(rng.choice(list("abé"), rng.integers(0, 6))) for _ in range(texts.num_rows)]
    docs = documents(texts, asked)  # type: ignore[arg-type]
    wanted = [expected.get(key) for key in asked]
    assert None in wanted and stage.open()(docs)["n"].to_pylist() == wanted
    # All keys of one hash: their bytes tell.
    monkeypatch.setattr(matching, "hash_texts", lambda data, bounds, out: out.fill(7))
    assert stage.open()(docs)["n"].to_pylist() == wanted


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        (ROWS, {"grades": "float32"}, "has 0 columns 'grades'; it has 'url', 'grade', 'topic', 'count'"),
        (ROWS, {"topic": "float32"}, "column 'topic' is string, expected float"),
        (ROWS, {"count": "string"}, "column 'count' is int64, expected string"),
        ([{"url": "u", "count": 300}], {"count": "int8"}, "column 'count' does not fit int8: "),
        ([{"url": "u", "x": None}], {"x": "int8"}, "tables: no row has a value of column 'x'; is that its name?"),
    ],
)
def test_tables_that_do_not_fit(rows: list[dict[str, Any]], columns: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as told:
        Join(tables=written(tmp_path, rows, "parquet"), columns=columns).check()  # type: ignore[arg-type]
    assert said in str(told.value)


@pytest.mark.parametrize("ending", WRITERS)
def test_files_that_are_no_tables(ending: str, tmp_path: Path) -> None:
    path = Path(written(tmp_path, ROWS, ending))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=rf"table\.{ending}: cannot be read as a table: "):
        Join(tables=str(path), columns={"grade": "float32"}).check()
    (tmp_path / "table.csv").write_text("url,grade\n")
    with pytest.raises(
        InputError, match=r"table\.csv: is no table by its name; those that are read end in \.parquet, \.arrow, \.jsonl"
    ):
        Join(tables=str(tmp_path / "table.csv"), columns={"grade": "float32"}).check()
    with pytest.raises(InputError, match=r"none\*"):
        Join(tables=str(tmp_path / "none*"), columns={"grade": "float32"}).files()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"columns": {}}, "columns names none"),
        ({"columns": {"text": "string"}}, "columns: documents have 'text' already"),
        ({"columns": {"n": "int"}}, "columns: 'n' is of type 'int'; it can be string, bool, int8"),
        ({"columns": {"n": "int8"}, "key": "host"}, "key is 'host'; it can be"),
        ({"columns": {"n": "int8"}, "missing": "keep"}, "missing is 'keep'; it can be"),
        ({"columns": {"n": "int8"}, "duplicates": "last"}, "duplicates is 'last'; it can be"),
    ],
)
def test_mistakes_in_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        Join(tables="t.parquet", **parameters)


def test_a_default_of_another_type() -> None:
    with pytest.raises(ValueError, match=r"^default is 300, no int8: "):
        Joined(type="int8", default=300)
    with pytest.raises(ValueError, match=r"^type is 'text'; it can be string"):
        Joined(type="text")


def test_tables_on_s3(texts: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with moto() as port:
        use(monkeypatch, port)
        store = open_store(f"s3://{BUCKET}/tables")
        for number, ending in enumerate(WRITERS):
            store.put_new(
                f"{number}.{ending}", Path(written(tmp_path, [{**row, "url": f"{number}{row['url']}"} for row in ROWS], ending))
            )
        stage = Join(tables=f"s3://{BUCKET}/tables/*", columns={"count": "int8"})
        urls = [f"{number}http://{host}/" for number in range(len(WRITERS)) for host in "ab"]
        assert stage.open()(documents(texts, urls))["count"].to_pylist() == [3, 4] * len(WRITERS)  # type: ignore[arg-type]
        assert len(describe(stage)["files"]) == len(WRITERS)  # type: ignore[arg-type]
