"""`stages.filter.keep_if`, and `unless` of every filter: decisions by conditions, in a build and in its explanation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import ConfigError
from jobs.__main__ import main
from jobs.config import build_config
from pipeline.conditions import judge_of
from pipeline.planning.fingerprint import describe, origin
from pipeline.stage import Filter, Judge
from stages import STAGES
from stages.filter.heuristics import C4Quality, GopherQuality
from stages.filter.keep_if import KeepIf

DOCS = pa.table(
    {
        "text": ["one two", "three", "four five", "six"],
        "quality": pa.array([0.7, 0.3, None, 0.9], pa.float32()),
        "bucket": pa.array([19, 3, 18, None], pa.uint8()),
        "language": ["en", "en", "en", "de"],
    }
)


def config(folder: Path, stages: list[object]) -> Path:
    lines = [{"url": f"http://a.b/{i}", "text": "word " * i, "quality": i / 10} for i in range(1, 10)]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"jsonl": {"paths": str(folder / "in.jsonl"), "carry": {"quality": "float32"}}}
    data = {"name": "a", "output": str(folder / "out"), "source": source, "stages": [*stages, "documents"], "run": {"workers": 1}}
    (folder / "a.yaml").write_text(json.dumps(data))
    return folder / "a.yaml"


def test_reasons() -> None:
    stage = KeepIf(where="quality >= 0.5 and language = 'en'", reason="low_quality")
    assert stage.open()(DOCS).to_pylist() == [None, "low_quality", "low_quality_unknown", "low_quality"]
    assert KeepIf(where="coalesce(quality, 1) >= 0.5").open()(DOCS).to_pylist() == [None, "keep_if", None, None]
    assert judge_of(KeepIf(where="quality > 0.8", unless="bucket > 18")).__call__(DOCS).to_pylist() == [
        None,
        "keep_if",
        "keep_if_unknown",
        None,
    ]


@pytest.mark.parametrize("reason", ["Low", "low quality", "", "x" * 33])
def test_a_reason_is_a_word(reason: str) -> None:
    with pytest.raises(ValueError, match="reason is"):
        KeepIf(where="quality > 1", reason=reason)


def test_explain_says_which_parts_failed() -> None:
    stage = KeepIf(where="quality >= 0.5 and bucket > 1 and language in ('en', 'fr') and quality < 2")
    said = stage.explain(DOCS.slice(1, 1), DOCS.slice(1, 1))
    assert [each.name for each in said] == ["quality", "bucket", "language"]
    assert [(limit.value, limit.relation, limit.broken) for limit in said[0].limits] == [
        ("(quality >= 0.5)", "fails", True),
        ("(quality < 2)", "passes", False),
    ]
    assert [each.decisive for each in said] == [True, False, False]
    (unknown,) = KeepIf(where="bucket > 1").explain(DOCS.slice(3, 1), DOCS.slice(3, 1))
    assert unknown.value is None and [limit.relation for limit in unknown.limits] == ["without a value for"]


def test_unless_leaves_documents_out() -> None:
    """The filter is not asked about those that are exempt: it sees the others alone."""
    stage = GopherQuality(unless="bucket >= 18")
    assert judge_of(GopherQuality())(DOCS).to_pylist() == ["gopher_short_doc"] * 4
    assert judge_of(stage)(DOCS).to_pylist() == [None, "gopher_short_doc", None, "gopher_short_doc"]
    assert judge_of(stage)(DOCS.slice(0, 1)).to_pylist() == [None]
    assert judge_of(stage)(DOCS.slice(0, 0)).to_pylist() == []
    assert judge_of(stage)(DOCS.slice(1, 1)).to_pylist() == ["gopher_short_doc"]


def test_a_filter_that_breaks_its_contract_is_told_so() -> None:
    """The machine gets what the filter returned, not an error of the condition."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Odd(Filter):
        def open(self) -> Judge:
            return lambda docs: pa.nulls(docs.num_rows + 5, pa.string())

    assert len(judge_of(Odd(unless="bucket >= 18"))(DOCS)) == 2 + 5


def test_unless_of_c4_leaves_texts_alone() -> None:
    text = "A short line\nThis is a whole sentence here."
    docs = pa.table({"text": [text, text], "bucket": pa.array([19, 1], pa.uint8()), "language": ["en", "en"]})
    done = C4Quality(min_num_sentences=1, unless="bucket >= 18").open()(docs)
    assert done["text"].to_pylist() == [text, "This is a whole sentence here."] and done["drop"].null_count == 2
    assert C4Quality(unless="bucket >= 0").open()(docs)["drop"].null_count == 2


@pytest.mark.parametrize("name", [name for name, cls in STAGES.items() if issubclass(cls, Filter)])
def test_every_filter_has_unless_and_is_what_it_was_without(name: str) -> None:
    given = {"where": "quality > 1"} if name == "keep_if" else {}
    stage = STAGES[name](**given)
    assert "unless" not in describe(stage)["parameters"]  # type: ignore[operator]
    other = dataclasses.replace(stage, unless="bucket > 1")  # type: ignore[call-arg]
    assert describe(other) != describe(stage)
    assert "duckdb" in describe(other)["libraries"] and "duckdb" in origin(other)  # type: ignore[operator]


def test_a_build_and_its_explanation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(
        tmp_path,
        [
            {"keep_if": "quality >= 0.5"},
            {"gopher_quality": {"unless": "quality >= 0.85", "min_doc_words": 7, "min_stop_words": None}},
        ],
    )
    assert main(["build", str(path)]) == 0
    assert main(["report", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    stages = {each["stage"]: each for each in said["stages"]}
    assert stages["keep_if"]["dropped"] == {"keep_if": 4}
    assert stages["gopher_quality"]["dropped"] == {"gopher_short_doc": 2}
    assert main(["explain", str(tmp_path / "out"), "http://a.b/9"]) == 0
    shown = capsys.readouterr().out
    assert "quality = 0.9, not asked, as unless = quality >= 0.85" in shown
    assert main(["explain", str(tmp_path / "out"), "http://a.b/2"]) == 0
    assert "quality = 0.2, fails where = quality >= 0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"keep_if": "qualty >= 0.5"}], "'keep_if': where: 'qualty' is no column.*did you mean 'quality'.*columns are id, url"),
        ([{"keep_if": "quality"}], "where: quality is FLOAT, neither true nor false"),
        ([{"keep_if": "quality >"}], "where: the expression cannot be read"),
        ([{"keep_if": {"where": "now() > date"}}], "where: an expression cannot call 'now'"),
        ([{"gopher_quality": {"unless": "bucket >= 18"}}], "'gopher_quality': unless: 'bucket' is no column"),
        ([{"gopher_quality": {"unless": "language = 'en'"}}], "unless: 'language' is no column.*added by stage 'language'"),
        (
            [{"c4_quality": {"unless": "language = 'en'"}}, "language"],
            "needs column 'language', which is added by stage 'language'; put it before",
        ),
        ([{"keep_if": {}}], "parameter 'where' is missing"),
        ([{"keep_if": 3}], "parameter 'where' must be text"),
        ([{"keep_if": ["a", "b"]}], "must be a mapping"),
        ([{"gopher_quality": "quality > 1"}], "must be a mapping"),
    ],
)
def test_mistakes(tmp_path: Path, stages: list[object], message: str) -> None:
    path = config(tmp_path, stages)
    with pytest.raises(ConfigError, match=message) as found:
        build_config.load(path)
    assert found.value.place.startswith(f"{path}:1:")


def test_a_scalar_is_the_one_parameter_without_a_default(tmp_path: Path) -> None:
    build = build_config.load(config(tmp_path, [{"keep_if": "quality >= 0.5"}]))
    assert build.stages[0] == ("keep_if", KeepIf(where="quality >= 0.5"))
    assert build.text["stages"][0] == {"keep_if": {"unless": None, "where": "quality >= 0.5", "reason": "keep_if"}}  # type: ignore[index,call-overload]
