"""`gristmill.expressions`: what is an expression and what is not, places in errors, values, and nothing from outside."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import UserError
from gristmill.expressions import FUNCTIONS, MOST_CHARACTERS, Expression

DOCS = pa.table(
    {
        "text": ["one", "two", "three", "four"],
        "quality": pa.array([0.7, 0.3, None, float("nan")], pa.float32()),
        "language": ["en", "de", "fr", None],
        "bucket": pa.array([19, 3, 18, 0], pa.uint8()),
        "ref_loss.base": pa.array([1.5, 2.5, 3.5, 4.5], pa.float32()),
        "tags": [["a", "b"], [], None, ["c"]],
        "meta": [{"score": 1, "by": {"name": "x"}}, {"score": 2, "by": {"name": "y"}}, None, {"score": None, "by": None}],
        "date": pa.array([0, 1_700_000_000, None, 1], pa.timestamp("s", tz="UTC")),
    }
)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("quality >= 0.7", [True, False, None, True]),  # float32 0.7 is 0.7; NaN is above all numbers, as in PostgreSQL
        ("quality >= 0.5 and language in ('en', 'fr')", [True, False, None, None]),
        ("coalesce(quality, 0) >= 0.5", [True, False, False, True]),
        ("bucket between 12 and 18", [False, False, True, False]),
        ("bucket - 5 > 0", [True, False, True, False]),
        ('"ref_loss.base" < 2 or bucket = 0', [True, False, False, True]),
        ("tags[1] = 'a'", [True, None, None, False]),
        ("list_contains(tags, 'b')", [True, False, None, False]),
        ("meta.score = 1 and meta.by.name = 'x'", [True, False, None, None]),
        ("language is not null", [True, True, True, False]),
        ("language like 'e%' -- English and the like", [True, False, False, None]),
        ("year(date) = 1970", [True, False, None, True]),
        ("date >= '2000-01-01'", [False, True, None, False]),
        ("date - interval 1 day < '1970-01-01'", [True, False, None, True]),
        ("case when language = 'en' then quality > 0.6 else bucket > 10 end", [True, False, True, False]),
        ("try_cast(language as double) is null", [True, True, True, True]),
        ("not (bucket > 10)", [False, True, False, True]),
        ("if(isnan(quality), false, true)", [True, True, True, False]),
    ],
)
def test_values(sql: str, expected: list[bool | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    expression = Expression(sql)
    expression.check(DOCS.schema)
    evaluate = expression.open()
    assert evaluate(DOCS).to_pylist() == expected
    assert evaluate(DOCS.slice(1, 2)).to_pylist() == expected[1:3]
    assert evaluate(pa.concat_tables([DOCS, DOCS])).to_pylist() == expected * 2
    assert evaluate(DOCS.slice(0, 0)).type == pa.bool_()
    assert expression.tried(DOCS).to_pylist() == [[value] for value in expected]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("cast(kind as double) > 3", [[True], None, [None], [False]]),
        ("kind = '5' or cast(kind as date) > '2020-01-01'", [None, None, [None], None]),  # OR does not spare its right side
        ("size * 9000000000000000000 > 1", [[True], None, [False], [None]]),
        ("regexp_matches('x', kind)", [[False], None, [None], [False]]),
    ],
)
def test_rows_that_make_an_answer_impossible(sql: str, expected: list[list[bool | None] | None]) -> None:
    docs = pa.table({"kind": ["5", "(", None, "2"], "size": pa.array([1, 5, 0, None], pa.int64())})
    Expression(sql).check(docs.schema)
    assert Expression(sql).tried(docs).to_pylist() == expected
    assert Expression(sql).tried(docs.slice(0, 0)).to_pylist() == []


def test_columns_and_terms() -> None:
    expression = Expression("\"ref_loss.base\" > 0.50 and (language = 'it''s' or meta.score is null) and bucket > 1")
    assert expression.columns == ("ref_loss.base", "language", "meta", "bucket")
    terms = expression.terms
    assert [term.columns for term in terms] == [("ref_loss.base",), ("language", "meta"), ("bucket",)]
    assert terms[0].sql == '("ref_loss.base" > 0.50)'
    assert [term.open()(DOCS).to_pylist() for term in terms] == [
        [True] * 4,
        [False, False, True, True],
        [True, True, True, False],
    ]
    (only,) = Expression("bucket > 1 or bucket < 0").terms
    assert only.sql == "bucket > 1 or bucket < 0"


def test_only_named_columns_are_read() -> None:
    """A column that DuckDB cannot read does not matter unless it is named."""
    docs = pa.table({"a": [1, 2], "halves": pa.array([[1], [2]], pa.list_(pa.float16()))})
    assert Expression("a > 1").open()(docs).to_pylist() == [False, True]
    with pytest.raises(UserError, match="does not fit its columns"):
        Expression("len(halves) > 1").check(docs.schema)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "the expression is empty"),
        ("  ", "the expression is empty"),
        ("quality >", "it ends where something must follow"),
        ("(" * 90 + "bucket", "it ends where something must follow"),
        ("(" * 9_000 + "bucket", "nested more than 100 levels"),
        ("quality >= 0.5 annd bucket", r"near \"annd\" \(character 16: 'annd bucket'\)"),
        ("quality >= 0.5\n  and bucket >>> 5 5", r"\(line 2, character 20: '5'\)"),
        ("exists (select 1)", r"cannot hold a subquery \(character 1"),
        ("language in (select language from x)", "cannot hold a subquery"),
        ("bucket > 1 and random() < 0.5", r"cannot call 'random' \(character 16"),
        ("now() > date", "cannot call 'now'"),
        ("getenv('HOME') = language", "cannot call 'getenv'"),
        ("nextval('s') > bucket", "cannot call 'nextval'"),
        ("read_text('/etc/passwd') = language", "cannot call 'read_text'"),
        ("sum(bucket) > 1", "cannot call 'sum'"),
        ("lenght(text) > 1", "cannot call 'lenght'.*did you mean 'length'"),
        ("row_number() over () > bucket", "cannot hold a window function"),
        ("* = 1", "cannot hold a star|syntax error"),
        ("bucket = $1", "cannot hold a parameter"),
        ("#1 > 2", "cannot hold the number of a column"),
        ("list_filter(tags, x -> x = 'a') = tags", "cannot call 'list_filter'"),
        ("language collate nocase = 'EN'", "cannot hold a collation"),
        ("language.lower() = 'en'", "write lower"),
        ("language::json = '1'", "cannot cast to 'json'"),
        ("bucket > 1), (quality > 1", "is more than one expression"),
        ("bucket > 1) from read_csv('x') where (true", "is more than one expression"),
        ("bucket > 1) limit (1", "is more than one expression"),
        ("bucket > 1); select (true", "is more than one expression"),
        ("bucket > 1); drop table x; select (true", "Only SELECT|is more than one"),
        ("true", "names no column"),
        ("not " * 200 + "bucket", "nested more than 100 levels"),
        ("(" * 9_000 + "bucket" + ")" * 9_000, "nested more than 100 levels"),
        ("bucket in (" + "1," * MOST_CHARACTERS + "2)", "at most 20,000 are read"),
    ],
)
def test_no_expression(sql: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Expression(sql)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            "bucket > 1 and langage = 'en'",
            r"'langage' is no column \(character 16: .*did you mean 'language'\? the columns are text,",
        ),
        ("Quality > 0.5", "'Quality' is no column.*did you mean 'quality'"),
        ("ref_loss.base > 1", 'did you mean "ref_loss.base", in double quotes'),
        ("ä = 'ö' or quality > zzz", r"'ä' is no column \(character 1:"),
        ("quality = 'ö' or bucket > zzz", r"\(character 27: 'zzz'\)"),
        ("current_date > date", "'current_date' is no column"),
        ("rowid = 1 or bucket = 1", "'rowid' is no column"),
        ("quality", "quality is FLOAT, neither true nor false"),
        ("quality and bucket > 1", "quality is FLOAT, neither true nor false"),
        ("bucket > 1 or (bucket > 2 and not language)", "language.? is VARCHAR, neither true nor false"),
        ("language >= 0.5", "does not fit its columns: .*Cannot compare"),
        ("language = 1", "language.? is text, 1 a number; put the number in single quotes"),
        ("language in ('en', 3)", "Could not convert string 'en' to INT32"),
        ("bucket = language", "language.? is text, bucket a number"),
        ("quality = 'x'", "Could not convert string 'x' to FLOAT"),
        ("lower(quality) = 'x'", "No function matches"),
        ("meta.z = 1", 'Could not find key "z" in struct'),
    ],
)
def test_check(sql: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Expression(sql).check(DOCS.schema)


def test_names_that_differ_in_case() -> None:
    schema = pa.schema([("a", pa.int8()), ("A", pa.int8())])
    Expression("A > 1").check(schema)
    with pytest.raises(UserError, match="case alone"):
        Expression("A > 1 and a > 1").check(schema)


def test_what_only_a_row_can_say() -> None:
    """A row that cannot be read raises, so that it is quarantined, not dropped."""
    evaluate = Expression("cast(language as integer) > 1").open()
    with pytest.raises(Exception, match="Could not convert string 'en' to INT32"):
        evaluate(DOCS)


def test_files_stay_shut(tmp_path: Path) -> None:
    """The list of functions is one wall; the connection is another."""
    from gristmill.expressions import _connect

    (tmp_path / "x.csv").write_text("a\n1\n")
    here = DOCS  # a variable of Python
    assert here.num_rows
    with _connect() as connection:
        for query in (
            f"SELECT * FROM '{tmp_path / 'x.csv'}'",
            "SELECT * FROM here",
            "SET threads = 2",
            f"COPY (SELECT 1) TO '{tmp_path / 'y'}'",
        ):
            with pytest.raises(Exception, match=re.compile("disabled|not exist|locked|Cannot", re.I)):
                connection.execute(query).fetchall()
    assert not (tmp_path / "y").exists()


def test_functions_are_pure() -> None:
    """What is allowed is in DuckDB's own list a function of its arguments; the clock's zone, which some depend on, is fixed."""
    from gristmill.expressions import _connect

    with _connect() as connection:
        rows = connection.execute("SELECT function_name, function_type, stability FROM duckdb_functions()").fetchall()
    found = {name for name, _, _ in rows}
    assert found >= FUNCTIONS
    kinds = {(kind, stability) for name, kind, stability in rows if name in FUNCTIONS}
    assert kinds <= {("scalar", "CONSISTENT"), ("scalar", "CONSISTENT_WITHIN_QUERY"), ("macro", None)}
