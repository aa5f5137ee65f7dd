"""A build with a stage that fits scores, run in several ways, one of whose documents kills its process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.storage.store import expand
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import make_plan
from pipeline.stage import Fit
from stages.source.jsonl import JsonlSource
from tests.toy import Files, Upper

WAYS = ((1, 50, 1), (2, 7, 4))
"""Workers, rows of a table and reduces: the build must not show them."""


def documents_of_every_way(tmp_path: Path, name: str, stage: Fit) -> list[dict[str, Any]]:
    """Return what is left of three files of 60 documents with a `quality`, which is the same however it was built."""
    rng = np.random.default_rng(5)
    for file in "abc":
        rows = [{"text": f"{file} {n}" + " word" * (n % 7), "quality": float(rng.normal())} for n in range(60)]
        if file == "b":
            rows[33]["text"] = "crash"
        (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = f"{tmp_path}/*.jsonl"
    source = JsonlSource(paths=paths, carry={"quality": "float32"})
    stages = [("jsonl", source), ("upper", Upper()), (name, stage), ("files", Files())]
    builds = set()
    for number, (workers, batch_rows, partitions) in enumerate(WAYS):
        plan = make_plan("t", stages, expand(paths), partitions)
        options = Options(str(tmp_path / f"out-{number}"), batch_rows)
        outcome = drive(plan, lambda workers=workers: LocalEngine(workers), options)
        assert outcome.build is not None, outcome.failures
        builds.add(outcome.build)
    (build,) = builds
    files = (tmp_path / f"out-0/builds/{build}").glob("*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
