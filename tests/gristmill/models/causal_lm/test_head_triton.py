"""The head's kernels in Triton's interpreter, which runs them without a card, beside the formulas in float64."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed: python -m pip install --no-deps triton==3.7.1"
)


@needs_triton
def test_in_the_interpreter_as_the_formulas_in_float64() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.gristmill.models.causal_lm.head_in_interpreter"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["errors"]) == 23 and {name: e for name, e in found["errors"].items() if not e <= 1.5e-5} == {}
    assert len(found["facts"]) == 11 and [name for name, holds in found["facts"].items() if not holds] == []
