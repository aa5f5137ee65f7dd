"""Names say what output depends on: code, versions, libraries, parameters, files; and nothing else."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gristmill.errors import InputError
from pipeline.planning import code, fingerprint
from pipeline.planning.code import Unit, files_of, hash_of, identity, load_file, unit_of, units_of
from pipeline.planning.fingerprint import describe, digest, version_of
from pipeline.stage import Filter, Map
from stages import STAGES
from stages.filter.heuristics import C4Quality
from tests.toy import Pooled, Short, Upper

STAGE = """
from dataclasses import dataclass
from pipeline.stage import Filter

@dataclass(frozen=True, kw_only=True)
class Odd(Filter):
    most: int = 1
"""


@dataclass(frozen=True, kw_only=True)
class Bound:
    most: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Bounded(Map):
    bound: Any = None


@dataclass(frozen=True, kw_only=True)
class Leaning(Map):
    """Depends on what is installed, as its parameter says."""

    engine: str = "pyarrow"

    def libraries(self) -> tuple[str, ...]:
        return (self.engine, "python")


@dataclass(frozen=True, kw_only=True)
class Derived(C4Quality):
    """Of somebody's own, with a version of its own."""

    version: ClassVar[int] = 7


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def imported(folder: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module(module)


def test_a_digest_is_of_the_content_and_not_of_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": (2, None)}) == digest({"b": [2, None], "a": 1})
    assert len({digest(1), digest("1"), digest(True), digest([1]), digest(1, [])}) == 5


def test_our_stages_are_named_by_their_class_and_version_wherever_they_lie() -> None:
    described = describe(STAGES["gopher_quality"]())
    assert described["stage"] == "GopherQuality" and described["version"] == 1 and "code" not in described
    assert set(described["libraries"]) == {"datatrove", "spacy", "python"}


def test_two_classes_of_one_name_are_two_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"gm_one/__init__.py": "", "gm_one/a.py": STAGE, "gm_one/b.py": STAGE})
    a, b = (imported(tmp_path, f"gm_one.{name}", monkeypatch).Odd() for name in "ab")
    assert describe(a)["stage"] == "gm_one.a:Odd" and describe(a)["code"] == describe(b)["code"]
    assert digest(describe(a)) != digest(describe(b))


def test_two_parameters_of_one_class_name_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Bound:\n    most: float = 1.0\n"
    write(tmp_path, {"gm_bound.py": text})
    other = imported(tmp_path, "gm_bound", monkeypatch).Bound()
    assert digest(describe(Bounded(bound=Bound()))) != digest(describe(Bounded(bound=other)))


def test_another_version_of_a_library_is_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    version_of.cache_clear()
    before = {engine: digest(describe(Leaning(engine=engine))) for engine in ("pyarrow", "numpy", "no-such-library")}
    assert describe(Leaning())["libraries"].keys() == {"pyarrow", "python"}
    assert version_of("no-such-library") == fingerprint.ABSENT and version_of("python") in sys.version
    assert describe(Short()) == describe(Short()) and "libraries" not in describe(Short())
    found = fingerprint.metadata.version
    monkeypatch.setattr(fingerprint.metadata, "version", lambda name: "99.1+cpu" if name == "pyarrow" else found(name))
    version_of.cache_clear()
    assert version_of("pyarrow") == "99.1", "what stands behind + is a build, not a release"
    after = {engine: digest(describe(Leaning(engine=engine))) for engine in before}
    version_of.cache_clear()
    assert {engine for engine in before if before[engine] != after[engine]} == {"pyarrow"}


def test_a_stage_that_derives_from_ours_follows_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe(Derived())
    assert before["version"] == 7 and before["bases"]["C4Quality"] == C4Quality.version
    monkeypatch.setattr(C4Quality, "version", C4Quality.version + 1)
    assert digest(describe(Derived())) != digest(before)


def test_the_code_of_a_stage_is_all_of_its_package_and_of_those_it_derives_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived = "from gm_base.deep.kinds import Odd\nclass Odder(Odd):\n    pass\n"
    write(tmp_path, {"gm_base/__init__.py": "", "gm_base/deep/__init__.py": "", "gm_base/deep/kinds.py": STAGE})
    write(tmp_path, {"gm_top/__init__.py": "", "gm_top/odder.py": derived, "gm_top/words.txt": "a\n"})
    write(tmp_path, {"gm_top/.git/x.py": "", "gm_top/__pycache__/odder.pyc": ""})
    odder = imported(tmp_path, "gm_top.odder", monkeypatch).Odder
    assert [unit.name for unit in units_of(odder)] == ["gm_top", "gm_base"]
    top = Unit("gm_top", tmp_path / "gm_top")
    assert unit_of("gm_top.odder") == top and list(files_of(top)) == ["__init__.py", "odder.py", "words.txt"]
    assert describe(odder())["code"].keys() == {"gm_top", "gm_base"}
    seen = {digest(describe(odder()))}
    for change in ({"gm_top/words.txt": "b\n"}, {"gm_top/more.py": ""}, {"gm_base/deep/kinds.py": f"{STAGE}\n# longer"}):
        write(tmp_path, change)
        assert digest(describe(odder())) in seen, "what is loaded does not change with the files"
        hash_of.cache_clear()
        name = digest(describe(odder()))
        assert name not in seen, change
        seen.add(name)
    (tmp_path / "gm_top/more.py").rename(tmp_path / "gm_top/less.py")
    hash_of.cache_clear()
    assert digest(describe(odder())) not in seen


def test_what_the_code_imports_is_part_of_it_unless_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = (
        f"{STAGE}\ndef later():\n    import gm_helper\n    from gm_folder import part, missing\n    import numpy, no_such, json\n"
    )
    write(tmp_path, {"gm_user/__init__.py": "from gm_user.odd import Odd", "gm_user/odd.py": lazy})
    write(tmp_path, {"gm_helper.py": "import gm_deeper.x\nimport gm_user", "gm_folder/part.py": ""})
    write(tmp_path, {"gm_deeper/__init__.py": "", "gm_deeper/x.py": "", "gm_unused.py": ""})
    write(tmp_path, {"gm_user/template.py": "import {{ name }}", "gm_user/zero.py": "\0"})
    odd = imported(tmp_path, "gm_user", monkeypatch).Odd
    assert {unit.name for unit in units_of(odd)} == {"gm_user", "gm_helper", "gm_folder.part", "gm_deeper"}
    before = digest(describe(odd()))
    write(tmp_path, {"gm_deeper/x.py": "x = 1", "gm_unused.py": "x = 1"})
    hash_of.cache_clear()
    assert digest(describe(odd())) != before


def test_a_module_of_a_folder_without_init_is_code_of_its_own() -> None:
    assert unit_of("tests.toy").name == "tests.toy" and unit_of("tests.toy").path.name == "toy.py"
    assert [unit.name for unit in units_of(Pooled)] == ["tests.toy"]
    assert identity(Upper) == "tests.toy:Upper" and identity(C4Quality) == "C4Quality"


def test_a_file_is_a_module_by_its_content(tmp_path: Path) -> None:
    write(tmp_path, {"a/odd.rules.py": STAGE, "b/odd.rules.py": STAGE, "c/odd.rules.py": f"{STAGE}# other"})
    modules = [load_file(tmp_path / name / "odd.rules.py") for name in "abc"]
    assert modules[0] is modules[1] and modules[0].__name__ != modules[2].__name__
    assert modules[0].__name__.startswith("odd_rules@")
    assert digest(describe(modules[0].Odd())) != digest(describe(modules[2].Odd()))
    assert str(tmp_path / "a/odd.rules.py") in code.loaded_files()
    write(tmp_path, {"bad.py": "raise RuntimeError('no')"})
    with pytest.raises(RuntimeError, match="no"):
        load_file(tmp_path / "bad.py")
    assert not any(name.startswith("bad@") for name in sys.modules)


def test_code_without_a_file_or_with_much_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed_in = type("Typed", (Filter,), {"__module__": "gm_typed_in"})
    with pytest.raises(InputError, match="'gm_typed_in' has no file"):
        describe(typed_in())
    write(tmp_path, {"gm_big/__init__.py": "", "gm_big/data.bin": "x" * 100})
    monkeypatch.setattr(code, "LARGEST", 99)
    with pytest.raises(InputError, match=r"'gm_big' .* has 100 bytes of files, at most 99 are allowed; move data out"):
        files_of(Unit("gm_big", tmp_path / "gm_big"))


def test_another_process_gives_the_same_names_wherever_the_code_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
        import sys
        from pathlib import Path
        from pipeline.planning.code import load_file
        from pipeline.planning.fingerprint import describe, digest
        from gm_far.odd import Odd
        print(digest(describe(Odd())), digest(describe(load_file(Path("alone.py")).Odd())))
    """
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        write(folder, {"gm_far/__init__.py": "", "gm_far/odd.py": STAGE, "alone.py": STAGE})
    classes = imported(here, "gm_far.odd", monkeypatch).Odd, load_file(here / "alone.py").Odd
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(there), *sys.path]), "PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=there, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [digest(describe(made())) for made in classes], done.stderr
