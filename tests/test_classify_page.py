"""docs/classify.md: its config is written, its commands and its Python run, and what it says of them holds."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from jobs.build import build
from jobs.tokenizer.corpus import documents_of
from pipeline.engines.local import LocalEngine
from tests.conftest import ROOT

PAGE = (ROOT / "docs/classify.md").read_text()
GOOD, BAD = "the mill grinds slowly and the stone turns", "buy cheap pills now and win"


def put_models(folder: Path) -> None:
    """Train two classifiers, one of them quantized."""
    import fasttext_new

    folder.mkdir()
    lines = {"quality": ("__label__hq", "__label__cc"), "topic": ("__label__craft", "__label__shop")}
    for name, (good, bad) in lines.items():
        words = [f"{good if n % 2 else bad} {GOOD if n % 2 else BAD} {n} {n * 7}\n" for n in range(300)]
        (folder / "lines.txt").write_text("".join(words))
        model = fasttext_new.train_supervised(
            str(folder / "lines.txt"), dim=4, bucket=400, wordNgrams=2, thread=1, epoch=9, verbose=0
        )
        if name == "topic":
            model.quantize(str(folder / "lines.txt"), verbose=0)
        model.save_model(str(folder / f"{name}.{'ftz' if name == 'topic' else 'bin'}"))


def put_documents(folder: Path) -> None:
    rng = np.random.default_rng(2)
    rows = [
        {"url": f"http://a/{n}", "text": " ".join(rng.permutation((GOOD if n % 3 else BAD).split())) + f"\nline {n}"}
        for n in range(60)
    ]
    (folder / "documents").mkdir()
    (folder / "documents/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "annotations").mkdir()
    notes = [{"url": row["url"], "licence": "CC0", "score": float(n % 5)} for n, row in enumerate(rows) if n % 2]
    pq.write_table(pa.Table.from_pylist(notes), folder / "annotations/a.parquet")


def kept(output: str) -> list[dict[str, Any]]:
    return [row for table in documents_of(output) for row in table.to_pylist()]


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "engine_of", lambda *_: LocalEngine(0))
    put_models(tmp_path / "models")
    put_documents(tmp_path)
    ((name, text),) = re.findall(r"`([\w.]+)`:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / name).write_text(text)
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    found = []
    for line in commands.splitlines():
        assert main(shlex.split(line)[3:]) == 0, (line, capsys.readouterr().err)
        found.append(capsys.readouterr().out)
    first, second = (summary.split()[1] for summary in found[:2])
    assert first != second, "another threshold, another build"
    stages = {each["stage"]: each for each in json.loads(found[2])["stages"]}
    assert stages["keep_if"]["in"] == 60 and stages["keep_if"]["dropped"]
    rows = kept("build/classified")
    assert {(row["topic_label"], row["licence"]) for row in rows} >= {("craft", "CC0"), ("craft", None)}
    assert all(row["quality"] >= 0.4 and (row["grade"] == -1) == (row["licence"] is None) for row in rows)


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put_models(tmp_path / "models")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/classify.md", "exec"), names)
    hq = names["classifier"].labels.index("hq")
    assert names["scores"].shape == (2, 2) and names["scores"][0, hq] > names["scores"][1, hq]
