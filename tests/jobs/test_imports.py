"""Commands that compute nothing load nothing that is made for computing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.tokenizer.files import save
from gristmill.tokenizer.scheme import END_TOKEN
from gristmill.tokenizer.token_names import alphabet
from gristmill.tokenizer.vocabulary import Vocabulary
from tests.classifiers import train_small
from tests.conftest import ROOT

HEAVY = ("datatrove", "numba", "ray", "s3fs", "scipy", "spacy", "tokenizers", "torch", "transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a checkout, with the tokenizer that the demo names."""
    found = tmp_path_factory.mktemp("checkout")
    for name in ("jobs", "examples"):
        (found / name).symlink_to(ROOT / name)
    tokenizer = found / "build/tokenizers/superbpe-8k"
    tokenizer.mkdir(parents=True)
    save(Vocabulary((END_TOKEN.encode(), *alphabet()), special_tokens={END_TOKEN: 0}), tokenizer)
    train_small(found / "build/classifiers/prose", {"linear": {"features": {"bits": 10}}})
    return found


@pytest.mark.parametrize("command", ["stages", "stages encode", "plan jobs/recipes/demo.yaml"])
def test_nothing_heavy_is_imported(folder: Path, command: str) -> None:
    program = (
        "import sys\nfrom jobs.__main__ import main\n"
        f"code = main({command.split()!r})\n"
        f"print(code, sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] in ("0 []", "None []"), done.stderr
    assert len(done.stdout.splitlines()) > 5
