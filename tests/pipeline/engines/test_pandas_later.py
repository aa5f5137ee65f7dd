"""pandas is imported when somebody asks for it, and pyarrow then knows it as ever; in a process that has imported nothing yet."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

UNASKED = """
import sys
import pyarrow as pa
from pipeline.engines.pandas_later import pandas_later
pandas_later()
assert pa.array(["a", None]).null_count == 1
assert "pandas" not in sys.modules
"""
IMPORTED = """
import pandas
nan = float("nan")
assert pa.array(pandas.Series([1.0, nan])).null_count == 1, "its NaN is null"
assert pa.array([1.0, nan]).null_count == 0
assert not any(type(each).__module__ == pandas_later.__module__ for each in sys.meta_path)
"""
ASKED = """
frame = pa.table({"a": [1, 2]}).to_pandas()
assert frame["a"].sum() == 3 and pa.Table.from_pandas(frame).num_rows == 2
assert pa.array(frame["a"]).to_pylist() == [1, 2]
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    return done.stderr


def test_a_stage_that_imports_pandas_finds_its_values_known_to_pyarrow() -> None:
    assert run(UNASKED + IMPORTED) == ""


def test_a_table_becomes_a_frame_though_nobody_has_imported_pandas() -> None:
    assert run(UNASKED + ASKED) == ""
