"""The toy corpus, its plan, and how to run it; shared by the tests of the machine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from gristmill.storage.store import expand, open_store
from pipeline.builds.finish import manifests
from pipeline.engines.drive import Options, Outcome, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import Plan, make_plan
from tests.toy import Files, Lines, Share, Short, Unique, Upper

MEMORY = 300 << 20


def plan_of(corpus: Path, poison: bool = False, partitions: int | None = None, salt: int = 0) -> Plan:
    stages = [
        ("lines", Lines(paths=f"{corpus}/*.txt")),
        ("upper", Upper(raise_on="aab", segfault_on="bb " if poison else "", grow_on="ccé" if poison else "", salt=salt)),
        ("short", Short()),
        ("unique", Unique()),
        ("share", Share()),
        ("files", Files()),
    ]
    return make_plan("toy", stages, expand(f"{corpus}/*.txt"), partitions)


def run(plan: Plan, root: Path, workers: int = 0, batch_rows: int = 7) -> Outcome:
    outcome = drive(plan, lambda: LocalEngine(workers), Options(str(root), batch_rows, MEMORY if workers else None))
    assert outcome.build is not None, outcome.failures
    return outcome


def totals(plan: Plan, root: Path) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    store = open_store(str(root))
    for step in plan.steps:
        for manifest in manifests(store, step):
            for account in manifest.ledger:
                counts = found.setdefault(f"{account['stage']}/{account['phase']}", Counter())
                counts.update({"in": account["in"], "kept": account["kept"]})
                counts.update({"dropped": sum(account["dropped"].values()), "quarantined": sum(account["quarantined"].values())})
                assert account["in"] == account["kept"] + sum(account["dropped"].values()) + sum(account["quarantined"].values())
    return found
