"""docs/decisions.md: its config is written, its commands run one after the other, and the documents go where it says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.build import build
from pipeline.engines.local import LocalEngine
from tests.conftest import ROOT

PAGE = (ROOT / "docs/decisions.md").read_text()
ENGLISH = "The cat sat on the mat and looked at the rain that fell on the garden. It was cold and nobody came to the house. "
GERMAN = "Der Hund lag vor dem Ofen und schlief, während draußen der Regen fiel. Niemand kam, und es wurde dunkel im Haus. "
FRENCH = "Le chat dormait devant la porte pendant que la pluie tombait sur le jardin. Personne ne vint à la maison ce soir. "

DOCUMENTS = [
    {"text": ENGLISH * 4, "quality": 0.9, "bucket": 3},
    {"text": ENGLISH, "quality": 0.9, "bucket": 19},
    {"text": ENGLISH, "quality": 0.9, "bucket": 3},
    {"text": ENGLISH * 4, "quality": 0.1, "bucket": 3},
    {"text": ENGLISH * 4, "bucket": 3},
    {"text": FRENCH * 4, "quality": 0.9, "bucket": 3},
    {"text": GERMAN * 4, "quality": 0.9, "bucket": 19},
    {"text": "1234 5678 90 " * 40, "quality": 0.9, "bucket": 19},
    {"text": ENGLISH + "shit " * 20, "quality": 0.9, "bucket": 19},
]


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "engine_of", lambda *_: LocalEngine(0))
    (tmp_path / "pages").mkdir()
    lines = [json.dumps({"url": f"http://site.example/{number}", **each}) for number, each in enumerate(DOCUMENTS)]
    (tmp_path / "pages/a.jsonl").write_text("\n".join(lines[:4]))
    (tmp_path / "pages/b.jsonl").write_text("\n".join(lines[4:]))
    ((name, text),) = re.findall(r"`([\w.]+)`:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / name).write_text(text)
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in commands.splitlines():
        assert main(shlex.split(line)[3:]) == 0, (line, capsys.readouterr().err)
    assert "quality = 0.1, fails where = (COALESCE(quality, 0) >= 0.3)" in capsys.readouterr().out
    assert main(["report", "build/decisions", "--json"]) == 0
    said = {each["stage"]: each["dropped"] for each in json.loads(capsys.readouterr().out.splitlines()[-1])["stages"]}
    assert said["languages"] == {"language": 1, "languages_disagree": 1}
    assert said["word_list"] == {"toxic_share": 1} and said["keep_if"] == {"keep_if": 2} and said["keep_if-2"] == {}
    assert said["gopher_quality"] == {"gopher_short_doc": 1}, "document 1 is as short, and of a high bucket"
