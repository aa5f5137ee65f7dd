"""docs/classifiers.md: its files are written, its commands run one after the other, its code runs on what they made."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.__main__ import main
from jobs.build import build
from pipeline.engines.local import LocalEngine
from tests.conftest import ROOT

PAGE = (ROOT / "docs/classifiers.md").read_text()
NAMED = re.compile(r"`([\w.]+)`:\n\n```yaml\n(.*?)```", re.DOTALL)  # a file, and the block that it holds
GOOD, BAD = "The river runs along the valley, and {} people came.", "BUY NOW!!! cheap offer {}, click here"


def put_texts(path: Path) -> None:
    """Write texts of two kinds from thirty hosts."""
    path.parent.mkdir()
    kinds = (("good", GOOD), ("bad", BAD))
    rows = [
        {"text": text.format(n), "kind": kind, "url": f"https://h{n % 30}.test/{kind}/{n}"}
        for n in range(90)
        for kind, text in kinds
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_every_command_and_the_code_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "engine_of", lambda *_: LocalEngine(0))
    put_texts(tmp_path / "labelled/a.jsonl")
    put_texts(tmp_path / "pages/a.jsonl")
    files = dict(NAMED.findall(PAGE))
    assert set(files) == {"quality.yaml", "scored.yaml"} and PAGE.count("```yaml") == 2
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in commands.splitlines():
        assert main(shlex.split(line)[3:]) == 0, (line, capsys.readouterr().err)
    (shard,) = (tmp_path / "build/scored/builds").glob("*/documents-*.arrow")
    table = pa.ipc.open_file(shard).read_all()
    quality = dict(zip(table["text"].to_pylist(), table["quality"].to_pylist(), strict=True))
    assert min(quality[GOOD.format(n)] for n in range(90)) > 0.5 > max(quality[BAD.format(n)] for n in range(90))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/classifiers.md", "exec"), names)
    assert names["classifier"].labels == ("bad", "good") and names["scores"][0, 1] > 0.5 > names["scores"][1, 1]
