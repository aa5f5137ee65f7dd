"""A crawl with every kind of damage and documents that kill: the same build in tables of any size, and nothing lost silently."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.storage.store import expand, open_store
from pipeline.builds.finish import manifests
from pipeline.engines.drive import Options, Outcome, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import Plan, make_plan
from stages import STAGES
from tests.toy import Upper
from tests.warcs import damaged_crawl

MEMORY = 600 << 20


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("crawl")
    damaged_crawl(place)
    return place


def plan_of(crawl: Path) -> Plan:
    stages = [
        ("warc", STAGES["warc"](paths=f"{crawl}/*.warc.gz")),
        ("extract_html", STAGES["extract_html"]()),
        ("upper", Upper(raise_on="says boom", segfault_on="says crash", grow_on="says grow")),
        ("dedup_exact", STAGES["dedup_exact"]()),
        ("dedup_minhash", STAGES["dedup_minhash"]()),
        ("documents", STAGES["documents"]()),
    ]
    return make_plan("damaged", stages, expand(f"{crawl}/*.warc.gz"))


def local(plan: Plan, root: Path, batch_rows: int = 256) -> Outcome:
    return drive(plan, lambda: LocalEngine(1), Options(str(root), batch_rows, MEMORY))


@pytest.fixture(scope="module")
def built(crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, str]:
    root = tmp_path_factory.mktemp("built")
    outcome = local(plan_of(crawl), root)
    assert outcome.build is not None, outcome.failures
    return plan_of(crawl), root, outcome.build


def test_every_damage_is_on_record(built: tuple[Plan, Path, str]) -> None:
    plan, root, _ = built
    store = open_store(str(root))
    lost: list[dict[str, str]] = []
    counts: Counter[str] = Counter()
    for step in plan.steps:
        for manifest in manifests(store, step):
            for account in manifest.ledger:
                out = sum(account["dropped"].values()) + sum(account["quarantined"].values())
                assert account["in"] == account["kept"] + out
                counts[f"{account['stage']} {account['phase']} in"] += account["in"]
                counts[f"{account['stage']} {account['phase']} kept"] += account["kept"]
            if "quarantined" in manifest.outputs:
                with store.open(manifest.outputs["quarantined"].data) as file:
                    lost += pa.ipc.open_file(file).read_all().to_pylist()
    by_url = {row["url"]: row for row in lost if row["url"]}
    url = "http://test.example"
    assert by_url[f"{url}/raises"]["reason"] == "RuntimeError"
    assert by_url[f"{url}/crashes"]["reason"] == "killed_by_SIGSEGV"
    assert by_url[f"{url}/grows"]["reason"] == "MemoryError"
    assert by_url[f"{url}/lies"]["reason"] == by_url[f"{url}/short"]["reason"] == "damaged_record"
    files = Counter(row["file"] for row in lost if row["stage"] == "warc")
    assert files["01-truncated.warc.gz"] == 1
    assert files["04-lying.warc.gz"] >= 1
    assert files["06-no-warc.warc.gz"] == 1
    assert files["02-empty.warc.gz"] == files["00-good.warc.gz"] == files["07-more.warc.gz"] == 0
    names = ["warc whole", "extract_html whole", "upper whole", "dedup_exact before", "dedup_exact after", "dedup_minhash before"]
    names += ["dedup_minhash after", "documents whole"]
    for left, right in itertools.pairwise(names):
        assert counts[f"{left} kept"] == counts[f"{right} in"], (left, right)
    assert counts["dedup_exact after kept"] < counts["dedup_exact after in"]


def test_same_build_in_small_tables(built: tuple[Plan, Path, str], tmp_path: Path) -> None:
    assert local(built[0], tmp_path, batch_rows=3).build == built[2]
