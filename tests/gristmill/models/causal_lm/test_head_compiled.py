"""What the head's kernel becomes on Hopper; compiling needs no card."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed: python -m pip install --no-deps triton==3.7.1"
)
def test_compiled_for_hopper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from gristmill.models.causal_lm import head_triton

    tiles, kernel = head_triton.LARGE, head_triton._fused
    constants = {"EVEN": True, "SCALED": False, "CAPPED": False, "ENTROPY": True, "FLAT": tiles.flat, "bias_at": None}
    constants |= {"ROWS": tiles.rows, "COLUMNS": tiles.columns, "DEPTH": tiles.depth}
    types = {"hidden_at": "*bf16", "weight_at": "*bf16", "targets_at": "*i64", "made_at": "*fp32", "found_at": "*fp32"}
    numbers = {"scale": "fp32", "softcap": "fp32", "rows": "i32", "vocabulary": "i32", "splits": "i32", "width": "i32"}
    signature = {name: "constexpr" if name in constants else (types | numbers)[name] for name in kernel.arg_names}
    aligned = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in [*types, "width"]}
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(name),): value for name, value in constants.items()}, aligned)
    made = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": tiles.warps, "num_stages": tiles.stages}
    )
    ptx = made.asm["ptx"]
    assert "wgmma.mma_async" in ptx and "cp.async" in ptx, "Hopper's matrix instructions, loads ahead of them"
    assert made.metadata.shared <= 227 * 1024
    assert not re.search(r"\b(atom|red)\.", ptx), "sums have one order"
    (tmp_path / "head.ptx").write_text(ptx)
    assembler = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    command = [str(assembler), "-v", "--gpu-name=sm_90a", str(tmp_path / "head.ptx"), "-o", str(tmp_path / "head.cubin")]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "0 bytes spill stores, 0 bytes spill loads" in report, report
