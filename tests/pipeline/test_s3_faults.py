"""Builds on S3, on servers that fail, cut connections and answer slowly: the same build as on a disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.storage import retry
from gristmill.storage.store import expand, open_store
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import make_plan
from tests.pipeline.toy_corpus import plan_of, run
from tests.s3_servers import BUCKET, Faults, Proxy, moto, seaweed, use
from tests.toy import Lines

PARTITIONS = 2  # key ranges of the barriers: each is a unit with files of its own


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    with moto() as first, seaweed(tmp_path_factory.mktemp("seaweed")) as second:
        yield {"moto": first, "seaweed": second}


@pytest.mark.parametrize(("server", "workers"), [("moto", 2), ("seaweed", 0)])
def test_same_build_on_a_failing_store(
    server: str,
    workers: int,
    servers: dict[str, int],
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "BACKOFF", retry.Backoff(first_s=0.02, longest_s=0.2))  # in this process, not in workers
    (tmp_path / "in").mkdir()
    for path in sorted(corpus.glob("*.txt"))[1:4]:  # one is empty
        shutil.copy(path, tmp_path / "in")
    local = run(plan_of(tmp_path / "in", partitions=PARTITIONS), tmp_path / "local")
    faults = Faults(errors=0.012, burst=3, cuts=0.02, slow=0.02)
    root = f"s3://{BUCKET}/{tmp_path.name}"
    use(monkeypatch, servers[server])
    source = open_store(f"{root}/in")
    for path in sorted((tmp_path / "in").glob("*.txt")):
        source.put_new(path.name, path)
    with Proxy(servers[server], faults, seed=4) as proxy:
        use(monkeypatch, proxy.port)
        pattern = f"{root}/in/*.txt"
        stages = [("lines", Lines(paths=pattern)), *plan_of(corpus).stages[1:]]
        plan = make_plan("toy", stages, expand(pattern), PARTITIONS)
        outcome = drive(plan, lambda: LocalEngine(workers), Options(f"{root}/out", 20))
        assert outcome.build == local.build, outcome.failures
        assert min(proxy.count.values()) > 0, proxy.count
