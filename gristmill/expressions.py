"""SQL expressions over the columns of a table: `quality >= 0.5 and language in ('en', 'fr')`.

Reads an expression and Arrow tables; gives true, false or null for each row. DuckDB parses and evaluates; this is the only file
that imports it. It compares a float32 column with 0.7 as float32, so that a score stored as 0.7 passes `>= 0.7` (DataFusion
compares as float64, where it does not), and gives its tree of the expression with places.

An expression is what one row decides: columns, constants, operators, CASE, casts and the functions of `FUNCTIONS`. That is a list
of what is allowed, not of what is not: no files, settings, clock, chance, subqueries, aggregates or windows. Left out on purpose:
exp, ln and their like, whose last bit depends on the machine's libm. Times are UTC.

    Expression("quality >= 0.5").open()(table)  →  BooleanArray

Null is SQL's: a comparison with null is null. Who asks decides what that means.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gristmill.columns import whole
from gristmill.errors import UserError
from gristmill.extras import needs

if TYPE_CHECKING:
    import duckdb

Evaluate = Callable[[pa.Table], pa.BooleanArray]
Node = Mapping[str, Any]  # of DuckDB's tree of a statement, decoded from JSON

LIBRARIES = ("duckdb",)  # whose releases may change what an expression says
MOST_CHARACTERS = 20_000
MOST_LEVELS = 100  # of nesting; DuckDB's time to bind grows with the square, 900 take 5 seconds

_OPERATORS = "+ - * / // % || ~~ !~~ ~~* !~~* ~~~ ^@ && @> <@"
_ON_NUMBERS = "abs ceil ceiling floor round trunc sign sqrt mod greatest least isnan isinf isfinite nullif if"
_ON_TEXTS = (
    "length len strlen lower upper trim ltrim rtrim substring substr left right starts_with prefix ends_with suffix contains "
    "concat replace strpos instr position split_part string_split regexp_matches regexp_full_match regexp_extract regexp_replace "
    "md5 sha256"
)
_ON_LISTS = (
    "list_value list_contains list_has list_has_any list_has_all list_position list_extract array_extract array_length list_min "
    "list_max list_sum list_avg struct_extract cardinality"
)
_ON_TIMES = "date_part year month day to_years to_months to_days"
FUNCTIONS = frozenset(" ".join((_OPERATORS, _ON_NUMBERS, _ON_TEXTS, _ON_LISTS, _ON_TIMES)).split(" "))
_KINDS = (
    "BOOLEAN BOOL TINYINT SMALLINT INTEGER INT BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT FLOAT REAL DOUBLE DECIMAL "
    "NUMERIC VARCHAR TEXT STRING DATE TIMESTAMP"
)
TYPES = frozenset((*_KINDS.split(" "), "TIMESTAMP WITH TIME ZONE"))

_TOO_DEEP = f"the expression is nested more than {MOST_LEVELS} levels deep; write it flatter"
_BRACKETS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|(?P<opens>[(\[{])|(?P<closes>[)\]}])""")
_BEFORE, _AFTER = "SELECT (\n", "\n)"
_FREE = ("select_list", "named_param_map", "query_location", "query_location_length")  # in which expressions differ
_TABLE = "the documents"  # a name that no expression can mean
_ALLOWED = ("COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "CASE", "CAST", "FUNCTION", "TYPE")
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "LAMBDA": "a function of a list's elements",
    "COLLATE": "a collation",
    "POSITIONAL_REFERENCE": "the number of a column",
}
_NUMBERS = ("INT", "FLOAT", "DOUBLE", "DECIMAL")


@dataclass(frozen=True)
class _Parsed:
    """What an expression says of itself.

    `columns`: in the order of their first place. `paths`: each column as it is written, with its fields, and its place (the
    character, from 1). `terms`: those that a top-level AND joins. `conditions`: what must be true or false. `compared`: two
    operands each.
    """

    columns: tuple[str, ...]
    paths: tuple[tuple[tuple[str, ...], int], ...]
    terms: tuple[str, ...]
    conditions: tuple[str, ...]
    compared: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Expression:
    """A condition on the columns of a row, in SQL.

    Raises UserError when the text is no expression, holds what is not allowed (with the place), or names no column.
    """

    sql: str

    def __post_init__(self) -> None:
        """Parse."""
        _parsed(self.sql)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names, in order: of `meta.score` it is `meta`."""
        return _parsed(self.sql).columns

    @property
    def terms(self) -> tuple[Expression, ...]:
        """The conditions that must all hold: those that `and` joins at the top, as SQL in DuckDB's spelling; or itself."""
        terms = _parsed(self.sql).terms
        return tuple(map(Expression, terms)) if len(terms) > 1 else (self,)

    def check(self, schema: pa.Schema) -> None:
        """Raise UserError unless all columns exist, with these names and cases, and the result is true or false."""
        _check_names(self.sql, _parsed(self.sql), schema.names)
        _check_types(self.sql, _parsed(self.sql), pa.schema([schema.field(name) for name in self.columns]))

    def open(self) -> Evaluate:
        """Return f(table) → bool [rows], null where the answer is null; only the columns that are named are read.

        What a row makes impossible (a cast of text that is no number, an overflow) raises duckdb.Error.
        """
        connection = _connect()

        def evaluate(table: pa.Table) -> pa.BooleanArray:
            if not table.num_rows:
                return pa.array([], pa.bool_())
            (column,) = _select(connection, table.select(self.columns), (self.sql,)).columns
            return whole(column)

        return evaluate

    def tried(self, table: pa.Table) -> pa.ListArray:
        """Return a list of one answer for each row; null in its place where the row makes an answer impossible (see `open`)."""
        (column,) = _select(_connect(), table.select(self.columns), (f"try([({self.sql}\n)])",)).columns
        return whole(column)


@lru_cache(maxsize=256)
def _parsed(sql: str) -> _Parsed:
    if len(sql) > MOST_CHARACTERS:
        raise UserError(f"the expression has {len(sql):,} characters, at most {MOST_CHARACTERS:,} are read; split it")
    if not sql.strip():
        raise UserError("the expression is empty; write a condition such as quality >= 0.5")
    if _depth(sql) > MOST_LEVELS:
        raise UserError(_TOO_DEEP)
    connection = _connect()
    try:
        statement = _statement(connection, sql)
        (root,) = statement["node"]["select_list"]
        nodes = list(_walk(root))
        for node in nodes:
            _check_node(node, sql)
        written = [(tuple(node["column_names"]), _place(node, sql)) for node in nodes if node["class"] == "COLUMN_REF"]
        if not written:
            raise UserError("the expression names no column, so it says the same of every document")
        terms = root["children"] if root["type"] == "CONJUNCTION_AND" else [root]

        def text(node: Node) -> str:
            return _written(connection, statement, node)

        return _Parsed(
            columns=tuple(dict.fromkeys(path[0] for path, _ in written)),
            paths=tuple(sorted(written, key=lambda path: path[1])),
            terms=tuple(map(text, terms)),
            conditions=tuple(map(text, _conditions(nodes))),
            compared=tuple((text(left), text(right)) for left, right in _compared(nodes)),
        )
    finally:
        connection.close()


def _depth(sql: str) -> int:
    """Return how deep brackets are nested, closed or not: DuckDB takes minutes for thousands that nobody closes."""
    depth = most = 0
    for token in _BRACKETS.finditer(sql):
        depth += (token["opens"] is not None) - (token["closes"] is not None)
        most = max(most, depth)
    return most


def _connect() -> duckdb.DuckDBPyConnection:
    """Return a connection of one thread to an empty database in memory, which reads no files, variables or extensions."""
    with needs("pipeline"):
        import duckdb
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "enable_external_access": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "max_expression_depth": MOST_LEVELS,
        },
    )
    connection.execute("SET TimeZone = 'UTC'").fetchall()
    connection.execute("SET lock_configuration = true").fetchall()
    return connection


def _statement(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """Return DuckDB's tree of `SELECT (sql)`, or raise UserError where that is anything else."""
    tree = _tree(connection, sql)
    if tree["error"]:
        message = str(tree["error_message"])
        if "depth" in message:
            raise UserError(_TOO_DEEP)
        place = _place_of(tree.get("position"), sql)
        ended = "position" in tree and not 0 < place <= len(sql)
        what = "it ends where something must follow" if ended else f"{message}{_at(place, sql)}"
        raise UserError(f"the expression cannot be read: {what}")
    (pattern,) = _tree(connection, "true")["statements"]
    statements = tree["statements"]
    if len(statements) != 1 or len(statements[0]["node"]["select_list"]) != 1 or _shape(statements[0]) != _shape(pattern):
        raise UserError(f"{sql!r:.80} is more than one expression; write a condition on columns alone, no SELECT, FROM or comma")
    (statement,) = statements
    return dict(statement)


def _tree(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    import duckdb

    try:
        ((answer,),) = connection.execute("SELECT json_serialize_sql(?)", [_BEFORE + sql + _AFTER]).fetchall()
    except duckdb.Error as error:
        raise UserError(f"the expression cannot be read: {_first(error)}") from error
    tree: dict[str, Any] = json.loads(answer)
    return tree


def _shape(statement: Node) -> object:
    """Return a statement without what it selects and without places."""

    def bare(value: object) -> object:
        if isinstance(value, dict):
            return {key: bare(each) for key, each in value.items() if key not in _FREE}
        return [bare(each) for each in value] if isinstance(value, list) else value

    return bare(statement)


def _walk(value: object) -> Iterator[Node]:
    """Yield all nodes of an expression, from the top."""
    if isinstance(value, dict):
        if "class" in value:
            yield value
        for each in value.values():
            yield from _walk(each)
    if isinstance(value, list):
        for each in value:
            yield from _walk(each)


def _check_node(node: Node, sql: str) -> None:
    """Raise UserError for what no expression may hold."""
    kind = str(node["class"])
    here = _at(_place(node, sql), sql)
    if kind not in _ALLOWED:
        what = _REFUSED.get(kind, kind.lower().replace("_", " "))
        raise UserError(
            f"an expression cannot hold {what}{here}; it has columns, constants, operators, CASE, casts and functions"
        )
    if kind == "FUNCTION":
        name = str(node["function_name"])
        if len(node["qualified_name"]["path"]) > 1:
            raise UserError(f"{'.'.join(node['qualified_name']['path'])}(…) is no function{here}; write {name}(column)")
        if name not in FUNCTIONS:
            raise UserError(
                f"an expression cannot call {name!r}{here};{_meant(name, FUNCTIONS)} allowed are {_listed(FUNCTIONS)}"
            )
    if kind == "TYPE" and str(node["type_name"]).upper() not in TYPES:
        raise UserError(f"an expression cannot cast to {node['type_name']!r}{here}; allowed are {_listed(TYPES)}")


def _conditions(nodes: Sequence[Node]) -> list[Node]:
    """Return what must be true or false: the whole, and what AND, OR and NOT take."""
    inner = [node["children"] for node in nodes if node["class"] == "CONJUNCTION" or node["type"] == "OPERATOR_NOT"]
    return [nodes[0], *(child for children in inner for child in children)]


def _compared(nodes: Sequence[Node]) -> list[tuple[Node, Node]]:
    """Return each two operands that are compared, but for two constants."""
    pairs: list[tuple[Node, Node]] = []
    for node in nodes:
        if node["class"] == "COMPARISON":
            pairs.append((node["left"], node["right"]))
        elif node["class"] == "BETWEEN":
            pairs += [(node["input"], node["lower"]), (node["input"], node["upper"])]
        elif node["type"] in ("COMPARE_IN", "COMPARE_NOT_IN"):
            first, *others = node["children"]
            kinds = {(other["class"], json.dumps(other.get("literal", {}).get("kind"))): other for other in others}
            pairs += [(first, other) for other in kinds.values()]
    # A constant in quotes is read as what it is compared with; only a column of text against a number is a mistake.
    return [
        pair for pair in pairs if not any(each["class"] == "CONSTANT" and each["literal"]["kind"] == "STRING" for each in pair)
    ]


def _written(connection: duckdb.DuckDBPyConnection, statement: Node, node: Node) -> str:
    """Return a part of an expression as SQL."""
    alone = {**statement, "node": {**statement["node"], "select_list": [node]}}
    given = json.dumps({"error": False, "statements": [alone]})
    ((answer,),) = connection.execute("SELECT json_deserialize_sql(?::JSON)", [given]).fetchall()
    return str(answer).removeprefix("SELECT ")


def _check_names(sql: str, parsed: _Parsed, names: Sequence[str]) -> None:
    for path, place in parsed.paths:
        if path[0] in names:
            continue
        whole_path = ".".join(path)
        meant = f' did you mean "{whole_path}", in double quotes?' if whole_path in names else _meant(path[0], names)
        raise UserError(f"{path[0]!r} is no column{_at(place, sql)};{meant} the columns are {', '.join(names)}")
    lower = [name.lower() for name in parsed.columns]
    for name, other in zip(parsed.columns, lower, strict=True):
        if lower.count(other) > 1:
            raise UserError(f"column {name!r} differs from another of the expression in case alone; SQL cannot tell them apart")


def _check_types(sql: str, parsed: _Parsed, schema: pa.Schema) -> None:
    """Raise UserError for types that do not fit."""
    import duckdb

    empty = pa.table(
        [pa.nulls(1, field.type) for field in schema], schema=pa.schema([field.with_nullable(True) for field in schema])
    )
    connection = _connect()
    try:
        _select(connection, empty, (sql,))
        conditions = _kinds(connection, parsed.conditions)
        operands = _kinds(connection, [each for pair in parsed.compared for each in pair])
    except duckdb.Error as error:
        raise UserError(f"the expression {sql!r:.200} does not fit its columns: {_first(error)}") from error
    finally:
        connection.close()
    for text, kind in zip(parsed.conditions, conditions, strict=True):
        if kind != "BOOLEAN":
            raise UserError(f"{text} is {kind}, neither true nor false; compare it with something, as in {text} >= 1")
    for (left, right), one, other in zip(parsed.compared, operands[::2], operands[1::2], strict=True):
        if {"VARCHAR"} < {one, other} and any(kind.lstrip("U").startswith(_NUMBERS) or "INT" in kind for kind in (one, other)):
            text, number = (left, right) if one == "VARCHAR" else (right, left)
            raise UserError(
                f"{text} is text, {number} a number; put the number in single quotes, or write try_cast({text} as double)"
            )


def _kinds(connection: duckdb.DuckDBPyConnection, texts: Sequence[str]) -> list[str]:
    """Return the types of expressions over the table that is registered."""
    return [str(kind) for kind in connection.sql(_query(texts)).types] if texts else []


def _select(connection: duckdb.DuckDBPyConnection, table: pa.Table, texts: Sequence[str]) -> pa.Table:
    connection.register(_TABLE, table)
    return connection.sql(_query(texts)).to_arrow_table()


def _query(texts: Sequence[str]) -> str:
    return f'SELECT {", ".join(f"({text}{chr(10)}) AS c{i}" for i, text in enumerate(texts))} FROM "{_TABLE}"'


def _place(node: Node, sql: str) -> int:
    """Return the character at which a node stands, from 1; 0 where the parser does not say."""
    return _place_of(node.get("query_location"), sql)


def _place_of(position: int | str | None, sql: str) -> int:
    data = sql.encode()
    at = int(position) - len(_BEFORE) if position is not None else -1
    return len(data[:at].decode(errors="ignore")) + 1 if 0 <= at <= len(data) else 0


def _at(place: int, sql: str) -> str:
    if not place:
        return ""
    before = sql[: place - 1]
    lines = f"line {before.count(chr(10)) + 1}, " if "\n" in sql.strip() else ""
    return f" ({lines}character {len(before) - before.rfind(chr(10))}: {' '.join(sql[place - 1 :].split())[:30]!r})"


def _meant(name: str, known: Sequence[str] | frozenset[str]) -> str:
    near = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.6)
    return f" did you mean {near[0]!r}?" if near else ""


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(name for name in names if name[0].isalpha()))


def _first(error: Exception) -> str:
    """Return the first line of an error of DuckDB, whose others quote the query."""
    return " ".join(str(error).split("\n\nLINE")[0].split())
