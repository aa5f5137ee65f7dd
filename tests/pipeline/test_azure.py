"""A build on Azure is the build on a disk. Skipped where Azurite, a server of Azure's protocol, is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.storage.store import expand, open_store
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import make_plan
from tests.azure_server import CONTAINER, azurite, use_azure
from tests.pipeline.toy_corpus import plan_of, run
from tests.toy import Lines


def test_same_build_on_azure(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = run(plan_of(corpus), tmp_path / "local")
    with azurite(tmp_path / "azurite") as port:
        use_azure(monkeypatch, port)
        root = f"az://{CONTAINER}/a"
        for path in sorted(corpus.glob("*.txt")):
            open_store(f"{root}/in").put_new(path.name, path)
        stages = [("lines", Lines(paths=f"{root}/in/*.txt")), *plan_of(corpus).stages[1:]]
        plan = make_plan("toy", stages, expand(f"{root}/in/*.txt"))
        outcome = drive(plan, lambda: LocalEngine(1), Options(f"{root}/out", 20))
        assert outcome.build == local.build, outcome.failures
        assert sorted(open_store(f"{root}/out").list(f"builds/{outcome.build}")) == sorted(
            path.name for path in (tmp_path / "local/builds" / str(outcome.build)).iterdir()
        )
