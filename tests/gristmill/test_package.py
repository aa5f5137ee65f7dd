"""What is installed, and what importing it loads."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import gristmill
from tests.conftest import ROOT


def test_all_folders_are_in_the_wheel() -> None:
    found = {path.parent.relative_to(ROOT) for path in (ROOT / "gristmill").rglob("*.py")}
    assert not [str(folder) for folder in found if not (ROOT / folder / "__init__.py").exists()]
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"] == {
        "find": {"include": ["gristmill", "gristmill.*"]}
    }


def test_importing_loads_nothing_heavy() -> None:
    heavy = "{'torch', 's3fs', 'obstore', 'numba', 'ray', 'pandas', 'tokenizers', 'pipeline', 'stages'}"
    program = f"import sys, gristmill; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_version_is_said_once_more_alike() -> None:
    assert gristmill.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_public_names() -> None:
    assert all(hasattr(gristmill, name) for name in gristmill.__all__)
    assert sorted(gristmill.__all__) == gristmill.__all__
    documented = (ROOT / "docs" / "reading.md").read_text() + (ROOT / "README.md").read_text()
    ours = set(gristmill.__all__) - {"Batch", "FormatError", "Manifest", "Selection", "TokenAddress"}
    assert not [name for name in ours if name not in documented]
