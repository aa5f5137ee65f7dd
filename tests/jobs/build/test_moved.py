"""`plan` tells which library or version has moved since the newest run of an output, `explain` since the run it explains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.__main__ import main
from pipeline.planning import fingerprint
from pipeline.planning.fingerprint import version_of
from stages.dedup.exact import DedupExact

CONFIG = """
name: t
output: out
source: {jsonl: {paths: in.jsonl}}
stages: [dedup_exact, documents]
run: {on: local, workers: 1}
"""


def test_plan_says_what_moved_since_the_newest_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.yaml").write_text(CONFIG)
    Path("in.jsonl").write_text('{"text": "one", "url": "http://a.test/1"}\n')
    assert main(["plan", "t.yaml"]) == 0 and "moved" not in capsys.readouterr().out, "nothing was built yet"
    assert main(["build", "t.yaml"]) == 0
    assert main(["plan", "t.yaml"]) == 0 and "finished" in capsys.readouterr().out
    found = fingerprint.metadata.version
    monkeypatch.setattr(fingerprint.metadata, "version", lambda name: "99.1" if name == "pyarrow" else found(name))
    old = version_of("pyarrow")
    version_of.cache_clear()
    monkeypatch.setattr(DedupExact, "version", DedupExact.version + 1)
    assert main(["plan", "t.yaml", "--json"]) == 0
    assert main(["explain", "out", "http://a.test/1"]) == 0
    version_of.cache_clear()
    out, err = capsys.readouterr()
    told = json.loads(out.splitlines()[0])
    run = f"moved since runs/{max(Path('out/runs').iterdir()).name}"
    dedup = f"dedup_exact: version {DedupExact.version - 1} → {DedupExact.version}"
    assert told["moved"] == [f"{run}: {dedup}", f"{run}: documents: pyarrow {old} → 99.1"]
    assert [each["done"] for each in told["segments"]] == [0, 0, 0, 0]
    now = "what it says of a document is what it says now"
    assert err.splitlines() == [f"warning: {line}; {now}" for line in told["moved"]], "explain asks the stages as they are"
