"""Stages of the user's own package or file: found, made by a config, shown, and every mistake told with its place."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest

from gristmill.errors import ConfigError, UserError
from gristmill.storage.store import open_store
from jobs.__main__ import main
from jobs.build.build import plan_of
from jobs.config import build_config
from jobs.config.own_stages import own_stage
from pipeline import checked
from pipeline.records import read_units
from pipeline.stage import Filter, Source
from stages import STAGES

GOOD = '''
    """Filters of somebody's own."""

    from __future__ import annotations

    import dataclasses
    from dataclasses import dataclass
    from typing import Literal

    import pyarrow as pa
    import pyarrow.compute as pc

    from pipeline.stage import Filter, Judge


    @dataclass(frozen=True, kw_only=True)
    class Bound:
        most: float = 0.1


    @dataclass(frozen=True, kw_only=True)
    class Digits(Filter):
        """Drop documents of digits (`digits`).

        `bound`: their largest share.
        """

        bound: Bound = dataclasses.field(default_factory=Bound)
        which: Literal["ascii", "all"] = "ascii"

        def __post_init__(self) -> None:
            if self.bound.most < 0:
                raise ValueError(f"bound.most is {self.bound.most}; give at least 0")

        def open(self) -> Judge:
            def judge(docs: pa.Table) -> pa.Array:
                found = pc.count_substring_regex(docs["text"], "[0-9]")
                allowed = pc.multiply(pc.utf8_length(docs["text"]), self.bound.most)
                return pc.if_else(pc.greater(found, allowed), "digits", pa.scalar(None, pa.string())).combine_chunks()

            return judge
'''
CONFIG = """
name: own
output: out
source: {jsonl: {paths: in.jsonl}}
stages:
  - %s
  - documents
run: {on: local, workers: 1}
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of somebody else, as the current directory."""
    name = f"own_{tmp_path.name.replace('-', '_')}"  # a name of its own: what is imported once stays
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "filters.py").write_text(textwrap.dedent(GOOD))
    (tmp_path / "alone.py").write_text(textwrap.dedent(GOOD))
    (tmp_path / "in.jsonl").write_text('{"text": "prose"}\n{"text": "2,310 of 48,112"}\n{"text": "more prose"}\n')
    monkeypatch.chdir(tmp_path)
    return package


def config(entry: str) -> Path:
    path = Path("own.yaml")
    path.write_text(CONFIG % entry)
    return path


def test_a_stage_of_a_package_and_one_of_a_file_are_made_by_a_config(repository: Path) -> None:
    for where in (f"{repository.name}.filters", "alone.py"):
        build = build_config.load(config(f"{where}:Digits: {{bound: {{most: 0.02}}}}"))
        (name, stage), _ = build.stages
        assert name == "Digits" and isinstance(stage, Filter) and stage.bound.most == 0.02  # type: ignore[attr-defined]
        assert build.text["stages"][0] == {f"{where}:Digits": {"unless": None, "bound": {"most": 0.02}, "which": "ascii"}}
        assert plan_of(build_config.from_record(build.text)).fingerprint == plan_of(build).fingerprint
        with pytest.raises(ConfigError, match=r"no entry 'digits' in the list; did you mean 'Digits'\? it has Digits, documents"):
            build_config.load(config(f"{where}:Digits"), {"stages.digits.which": "all"})
        changed = build_config.load(config(f"{where}:Digits"), {"stages.Digits.which": "all"})
        assert changed.stages[0][1].which == "all"  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match=r"stage .*:Digits': it has no parameter 'bond'; did you mean 'bound'\?") as raised:
            build_config.load(config(f"{where}:Digits: {{bond: 1}}"))
        assert raised.value.place == "own.yaml:6:" + str(len(f"  - {where}:Digits: {{") + 1)
        with pytest.raises(ConfigError, match=r"bound.most is -1.0; give at least 0"):
            build_config.load(config(f"{where}:Digits: {{bound: {{most: -1}}}}"))


def test_two_of_one_class_name_have_accounts_of_their_own(repository: Path) -> None:
    build = build_config.load(config(f"{repository.name}.filters:Digits\n  - alone.py:Digits"))
    assert [name for name, _ in build.stages] == ["Digits", "Digits-2", "documents"]
    plan = plan_of(build)
    assert plan.steps[0].folder.startswith("steps/jsonl-documents-")


def test_its_page_is_printed_as_ours(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stages", f"{repository.name}.filters:Digits"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{repository.name}.filters:Digits (filter, version 1)\n") and "their largest share" in said
    assert "which: " in said and '"ascii"' in said
    assert main(["stages", "alone.py:Digit"]) == 2
    assert "did you mean 'Digits'? it has Digits" in capsys.readouterr().err


def test_a_source_is_named_under_source(repository: Path) -> None:
    (repository / "sources.py").write_text(
        textwrap.dedent(
            """
            from dataclasses import dataclass
            from stages.source.jsonl import JsonlSource

            @dataclass(frozen=True, kw_only=True)
            class Mine(JsonlSource):
                '''Ours under another name.'''
            """
        )
    )
    name = f"{repository.name}.sources:Mine"
    text = CONFIG.replace("{jsonl: {paths: in.jsonl}}", f"{{{name}: {{paths: in.jsonl}}}}") % "dedup_exact"
    Path("own.yaml").write_text(text)
    build = build_config.load("own.yaml", {"source.Mine.text_key": "content"})
    assert isinstance(build.source, Source) and build.source_name == "Mine" and build.source.text_key == "content"  # type: ignore[attr-defined]
    Path("own.yaml").write_text(CONFIG % name)
    with pytest.raises(ConfigError, match=r"Mine' is a source, not a stage; put it under `source:`"):
        build_config.load("own.yaml")
    Path("own.yaml").write_text(CONFIG.replace("jsonl:", "alone.py:Digits:") % "dedup_exact")
    with pytest.raises(ConfigError, match=r"'alone.py:Digits' is a stage, not a source;"):
        build_config.load("own.yaml")


def test_it_works_in_processes_of_its_own_and_is_computed_again_when_its_code_changes(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Built, explained, reused; a document that it cannot take is quarantined."""
    raises = "def judge(docs: pa.Table) -> pa.Array:\n            assert 'odd' not in ' '.join(docs['text'].to_pylist())"
    alone = Path("alone.py")
    alone.write_text(alone.read_text().replace("def judge(docs: pa.Table) -> pa.Array:", raises))
    Path("in.jsonl").write_text(
        '{"text": "prose"}\n{"text": "2,310 of 48,112"}\n{"text": "an odd one"}\n{"text": "more prose"}\n'
    )
    path = config("alone.py:Digits")
    assert main(["build", str(path)]) == 0
    first = capsys.readouterr().out.split()[-2]
    assert main(["report", "out", "--json"]) == 0
    (_, digits, _) = json.loads(capsys.readouterr().out)["stages"]
    assert digits["stage"] == "Digits" and digits["dropped"] == {"digits": 1}
    assert (digits["in"], digits["kept"], list(digits["quarantined"])) == (4, 2, ["AssertionError"])
    lost = read_ids(Path("out"))
    assert main(["explain", "out", lost]) == 0
    assert "dropped: digits" in capsys.readouterr().out
    assert plan_of(build_config.load(path)).steps[0].missing(open_store("out")) == []
    alone.write_text(alone.read_text() + "# another version\n")
    assert len(plan_of(build_config.load(path)).steps[0].missing(open_store("out"))) == 1
    assert main(["plan", str(path)]) == 0
    assert re.search(r"^moved since runs/\S+: Digits: code [0-9a-f]{12} → [0-9a-f]{12}$", capsys.readouterr().out, re.MULTILINE)
    assert main(["build", str(path)]) == 0
    assert capsys.readouterr().out.split()[-2] == first


def read_ids(output: Path) -> str:
    """Return the id of the document that was dropped."""
    plan = plan_of(build_config.load("own.yaml"))
    (unit,) = read_units(open_store(str(output)), [unit.manifest for unit in plan.steps[0].units])
    with checked.reading(open_store(str(output)), unit.outputs["dropped"], "") as file:
        found: str = file.read_all()["id"][0].as_py()
    return found


WRONG = """
    from dataclasses import dataclass
    from pathlib import Path
    from pipeline.stage import Barrier, Exchange, Filter, Map, Stage
    from stages.filter.heuristics import C4Quality

    def helper():
        pass

    class Plain:
        pass

    class Loose(Filter):
        most: float = 0.1
        def open(self): ...

    @dataclass(frozen=True)
    class Positional(Filter):
        most: float = 0.1
        def open(self): ...

    @dataclass(frozen=True, kw_only=True)
    class Kindless(Stage):
        pass

    @dataclass(frozen=True, kw_only=True)
    class Idle(Filter):
        pass

    @dataclass(frozen=True, kw_only=True)
    class Unsettled(Exchange):
        def open(self): ...
        def reduce(self): ...

    @dataclass(frozen=True, kw_only=True)
    class Typed(Map):
        where: Path = Path(".")
        def open(self): ...

    @dataclass(frozen=True, kw_only=True)
    class Unread(Map):
        where: "Nothing" = None
        def open(self): ...
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PKG.filterz:Digits", r"there is no module 'PKG\.filterz' \(looked in .*\); did you mean 'PKG\.filters'\?"),
        ("no_such_package:Digits", r"there is no module 'no_such_package' \(looked in .* Python's path\);"),
        ("alonee.py:Digits", r"there is no file 'alonee\.py' \(looked in .*\); did you mean 'alone\.py'\?"),
        ("my-pkg.filters:Digits", r"'my-pkg\.filters' is no module; a stage of your own is module:Class"),
        ("PKG.filters:Digit", r"'PKG\.filters' has no 'Digit'; did you mean 'Digits'\? it has Digits"),
        ("PKG:Digits", r"'PKG' has no 'Digits'; it has no stage at all"),
        ("PKG.wrong:helper", r"is a function that is no stage; a stage is a class that derives from one of Source, Map, "),
        ("PKG.wrong:Plain", r"is a class that is no stage"),
        ("PKG.wrong:Filter", r"is a kind of stages; derive a class of your own from it"),
        ("PKG.wrong:C4Quality", r"is a stage of this project; write 'c4_quality'"),
        ("PKG.wrong:Loose", r"is no frozen dataclass with keywords alone; write @dataclass\(frozen=True, kw_only=True\)"),
        ("PKG.wrong:Positional", r"is no frozen dataclass with keywords alone"),
        ("PKG.wrong:Kindless", r"derives from no kind of stages; derive it from one of Source"),
        ("PKG.wrong:Idle", r"has no open\(\), which each Filter must have"),
        ("PKG.wrong:Unsettled", r"has no settle\(\), which each Exchange must have"),
        (
            "PKG.wrong:Typed",
            r"has the parameter 'where': parameters cannot have the type <class 'pathlib\.Path'>; allowed are str",
        ),
        ("PKG.wrong:Unread", r"has a type hint that cannot be read: name 'Nothing' is not defined"),
        ("PKG.needs:Digits", r"module 'PKG\.needs' cannot be imported: ModuleNotFoundError: No module named 'no_such_library' "),
        ("PKG.raises:Digits", r"'PKG\.raises' cannot be imported: ZeroDivisionError: .*raises\.py:1\); mend it"),
        ("PKG.mixed:Digits", r"'PKG\.mixed' cannot be imported: TypeError: cannot inherit .*mixed\.py:4\); mend it"),
        ("PKG.broken:Digits", r"'PKG\.broken' cannot be imported: SyntaxError: .*broken\.py, line 1\); mend it"),
        (
            "a/beside.py:Digits",
            r"'a/beside\.py' cannot be imported: ModuleNotFoundError: .*; its folder is not on Python's path: ",
        ),
    ],
)
def test_mistakes_are_told_with_their_place(name: str, said: str, repository: Path) -> None:
    (repository / "wrong.py").write_text(textwrap.dedent(WRONG))
    (repository / "needs.py").write_text("import no_such_library\n")
    (repository / "raises.py").write_text("1 / 0\n")
    mixed = (
        "from dataclasses import dataclass\nfrom pipeline.stage import Filter\n\n@dataclass\nclass Digits(Filter):\n    pass\n"
    )
    (repository / "mixed.py").write_text(mixed)
    (repository / "broken.py").write_text("def (\n")
    Path("a").mkdir()
    Path("a/beside.py").write_text("import gm_helper_beside\n")
    Path("a/gm_helper_beside.py").write_text("")
    name, said = name.replace("PKG", repository.name), said.replace("PKG", repository.name)
    with pytest.raises(UserError, match=said):
        own_stage(name, STAGES)
    with pytest.raises(ConfigError, match=said) as raised:
        build_config.load(config(name))
    assert raised.value.place == "own.yaml:6:5"
