"""The command `train-classifier`: from labelled documents to a folder that `classify` takes, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gristmill.models.fasttext.fasttext import FastText
from gristmill.models.linear.linear import Linear
from jobs.__main__ import main
from jobs.classifier.recipe import read_recipe
from pipeline import schema
from stages.classify.classify import Classify
from stages.classify.kinds import FastTextModel, LinearModel
from tests.jobs.tokenizer.test_train import table, write_build

PROSE = "the old river runs along the valley, and {} people followed it for {} days until the rain came"
CODE = "int f{}(void) {{ return x{}; }} // void pointer, see struct and typedef"
RECIPE = """\
documents: {{jsonl: {{paths: "{folder}/in.jsonl", carry: [kind]}}}}
labels: {{column: kind}}
held_out: 0.4
model: {model}
output: {folder}/{output}
"""
LINEAR = "{linear: {features: {bits: 12}}}"
FASTTEXT = "{fasttext: {recipe: fineweb2_hq, dim: 8, bucket: 1000, lowercase: true}}"

Train = Callable[..., int]


def documents() -> list[dict[str, Any]]:
    """Sixty documents of ten hosts; one stands twice, one text has two labels, three have no label."""
    rows: list[dict[str, Any]] = []
    for number in range(30):
        rows.append({"text": PROSE.format(number, number * 7), "kind": "prose", "url": f"https://h{number % 10}.test/a/{number}"})
        rows.append(
            {"text": CODE.format(number, number * 3), "kind": "code", "url": f"http://H{number % 10}.test:8000/b/{number}"}
        )
    rows.append({**rows[0], "url": "https://mirror.test/a/0"})
    rows += [{"text": "the same", "kind": kind, "url": None} for kind in ("prose", "code")]
    unknown = [{"text": f"nobody knows {kind!r}", "kind": kind, "url": "https://h1.test/"} for kind in (None, "", " ")]
    return [*rows, *unknown]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents()))

    def run(output: str = "out", model: str = LINEAR, more: str = "", **replaced: str) -> int:
        text = RECIPE.format(folder=tmp_path, output=output, model=model) + more
        for key, value in replaced.items():
            text = re.sub(f"(?m)^{key}: .*$", value and f"{key}: {value}", text)
        (tmp_path / "recipe.yaml").write_text(text)
        return main(["train-classifier", str(tmp_path / "recipe.yaml")])

    return run


@pytest.mark.parametrize("model", [LINEAR, FASTTEXT], ids=["linear", "fasttext"])
def test_twice_the_same_bytes(train: Train, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(model=model) == 0
    first = capsys.readouterr().out
    lines = (tmp_path / "in.jsonl").read_text()
    program = "import sys; from jobs.__main__ import main; sys.exit(main(sys.argv[1:]))"
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path, output="again", model=model))
    subprocess.run(
        [sys.executable, "-c", program, "train-classifier", str(tmp_path / "recipe.yaml")], check=True, capture_output=True
    )
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["manifest.json", "model.bin", "page.html"]
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    assert re.fullmatch(r"classifier [0-9a-f]{64} \S+/out\n", first) and lines


def test_the_manifest_names_every_document(train: Train, tmp_path: Path) -> None:
    assert train() == 0
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["kind"], manifest["model"], manifest["labels"], manifest["positive"]) == (
        "linear",
        "model.bin",
        ["code", "prose"],
        "prose",
    )
    assert manifest["preprocessing"] == {"lowercase": True, "max_chars": None}
    counts = manifest["documents"]
    assert (counts["read"], counts["without_label_or_text"]) == (66, 3)
    assert (counts["of_equal_text"], counts["of_equal_text_and_other_labels"]) == (1, 2)
    sides = [manifest["training"], manifest["held_out"]]
    assert not set(sides[0]["hosts"]) & set(sides[1]["hosts"]) and all(side["hosts"] for side in sides)
    assert len(sides[0]["ids"]["code"]) == len(sides[0]["ids"]["prose"]) == sides[0]["documents"]["code"]
    named = [identity for side in sides for ids in side["ids"].values() for identity in ids]
    assert len(named) == len(set(named)) <= 60
    figures = manifest["measures"]["prose"]
    assert figures["auc"] > 0.95 and figures["documents"] == sum(sides[1]["documents"].values())
    assert manifest["measures"]["code"]["auc"] == pytest.approx(figures["auc"], abs=1e-6)


def test_classify_takes_the_folder(train: Train, tmp_path: Path) -> None:
    assert train() == 0
    stage = Classify(models={"quality": LinearModel(linear=Linear(path=str(tmp_path / "out")), label="prose")})
    stage.check()
    texts = pa.table({"text": [PROSE.format(1, 2), CODE.format(1, 2)]})
    good, bad = stage.open()(texts)["quality"].to_pylist()
    assert good > 0.5 > bad
    assert train(output="ft", model=FASTTEXT) == 0
    manifest = json.loads((tmp_path / "ft/manifest.json").read_text())
    assert manifest["preprocessing"] == {"newlines": "space", "lowercase": True, "max_chars": None, "trailing_newline": True}
    assert manifest["hyperparameters"]["wordNgrams"] == 2 and manifest["hyperparameters"]["dim"] == 8
    stage = Classify(models={"quality": FastTextModel(fasttext=FastText(path=str(tmp_path / "ft")), label="prose")})
    alone = FastText(path=str(tmp_path / "ft/model.bin"), lowercase=True).open()
    expected = alone.classify(texts["text"], most=2).by_label(2)[:, alone.labels.index("prose")]
    assert stage.open()(texts)["quality"].to_pylist() == expected.tolist() and expected[0] > expected[1]


def test_the_page_shows_figures_and_mistakes(train: Train, tmp_path: Path) -> None:
    rows = documents()
    rows.append({"text": CODE.format(99, 1), "kind": "prose", "url": "https://h3.test/<script>"})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train(held_out="[h3.test, h4.test, h5.test]") == 0
    page = (tmp_path / "out/page.html").read_text()
    for words in ("AUC on hosts held out", "What a threshold would keep", "along the", "h4.test", "&lt;script&gt;"):
        assert words in page, words
    assert "/<script>" not in page and "src=" not in page
    worst = page[page.index("Is prose, with a low score") :]
    assert worst.index("int f99(void)") < worst.index("the old river")


def test_done_before_and_something_else_there(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    before = (tmp_path / "out/model.bin").stat().st_mtime_ns
    assert train() == 0 and (tmp_path / "out/model.bin").stat().st_mtime_ns == before
    capsys.readouterr()
    assert train(more="seed: 1\n") == 2
    assert "a classifier made from another recipe or other documents" in capsys.readouterr().err
    (tmp_path / "out/model.bin").write_bytes(b"changed")
    assert train() == 2
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    assert train() == 2 and "something that is no classifier" in capsys.readouterr().err


def test_labels_by_rules_and_by_a_list_of_addresses(train: Train, tmp_path: Path) -> None:
    rules = "{rules: [{label: a, host: [h1.test, h2.test], url: '/a/'}, {label: b, url: '/b/'}, {label: c, host: [test]}]}"
    assert train(labels=rules, held_out="[h2.test, h3.test]", more="positive: b\nbalance: false\n") == 0
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    totals = {label: sum(manifest[side]["documents"][label] for side in ("training", "held_out")) for label in "abc"}
    assert totals == {"a": 6, "b": 30, "c": 27} and set(manifest["measures"]) == set("abc")
    assert "Label by label" in (tmp_path / "out/page.html").read_text()
    by_column = '{rules: [{label: x, where: "kind = \'code\'"}, {label: y, host: [test], where: "length(text) > 20"}]}'
    assert train(output="where", labels=by_column, more="balance: false\n") == 0
    manifest = json.loads((tmp_path / "where/manifest.json").read_text())
    assert {label: sum(manifest[side]["documents"][label] for side in ("training", "held_out")) for label in "xy"} == {
        "x": 31,
        "y": 30,
    }
    (tmp_path / "seeds.txt").write_text(
        "# good ones\nhttps://h1.test/a/\nhttps://h2.test/a/2\n" + "".join(f"https://h{i}.test/a/\n" for i in range(3, 9))
    )
    assert train(output="seeds", labels=f"{{seeds: {tmp_path}/seeds.txt}}", more="most: 10\n") == 0
    manifest = json.loads((tmp_path / "seeds/manifest.json").read_text())
    assert manifest["labels"] == ["other", "seed"] and manifest["training"]["documents"] == {"other": 10, "seed": 10}


def test_documents_that_a_rule_cannot_decide_on(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = (
        '{rules: [{label: a, url: "/a/1$"}, {label: b, url: "/b/"}, {label: a, url: "/a/", where: "cast(kind as double) > 1"}]}'
    )
    lines = [json.loads(line) for line in (tmp_path / "in.jsonl").read_text().splitlines()]
    numbered = [{**row, "kind": "2"} if "/a/2" in str(row["url"]) else row for row in lines]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbered))
    assert train(labels=rules, more="balance: false\n") == 0
    assert "where of 'a' cannot be evaluated for 19 documents, such as " in capsys.readouterr().err
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    totals = {label: sum(manifest[side]["documents"][label] for side in ("training", "held_out")) for label in "ab"}
    assert totals == {"a": 12, "b": 30}
    assert {key: manifest["documents"][key] for key in ("read", "without_label_or_text", "undecided")} == {
        "read": 66,
        "without_label_or_text": 5,
        "undecided": 19,
    }
    assert "condition cannot be evaluated" in (tmp_path / "out/page.html").read_text()


def test_documents_of_a_build_in_any_order(train: Train, tmp_path: Path) -> None:
    rows = documents()[:60]
    whole = table([row["text"] for row in rows])
    whole = whole.set_column(1, schema.DOCUMENT.field("url"), pa.array([row["url"] for row in rows]))
    for name, order in (("one", range(60)), ("two", range(59, -1, -1))):
        write_build(tmp_path / f"build-{name}", [whole.take(list(order)).slice(0, 25), whole.take(list(order)).slice(25)])
        rules = "{rules: [{label: prose, url: '/a/'}, {label: code, url: '/b/'}]}"
        assert train(output=name, documents=str(tmp_path / f"build-{name}"), labels=rules) == 0
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "two")]
    assert {key for key in manifests[0] if manifests[0][key] != manifests[1][key]} == {"recipe"}
    assert (tmp_path / "one/model.bin").read_bytes() == (tmp_path / "two/model.bin").read_bytes()


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"labels": "{column: topic}"}, "labels: the documents have no column 'topic'; they have id, url"),
        ({"labels": "{column: tags}", "documents": "{jsonl: {paths: FOLDER/in.jsonl, carry: {tags: 'list<string>'}}}"},
         "labels: column 'tags' is list<item: string>, and a label is one text or number"),
        ({"labels": "{rules: [{label: a, host: [h1.test]}]}"}, "rules gives one label alone, 'a'"),
        ({"labels": "{rules: [{label: a, host: [h1.test]}, {label: b, host: [no]}]}"}, "two labels at least, found only 'a'"),
        ({"labels": "{rules: [{label: a}, {label: b, url: x}]}"}, "label 'a' has a rule that says nothing"),
        ({"labels": "{rules: [{label: a, url: '('}, {label: b, url: x}]}"}, "url '(' is not a regular expression"),
        ({"labels": "{rules: [{label: a, where: 'kind ='}, {label: b, url: x}]}"}, "where: "),
        ({"labels": "{rules: [{label: a, where: 'kid = 3'}, {label: b, url: x}]}"}, "labels: where of 'a': "),
        ({"labels": "{seeds: none.txt}"}, "seeds 'none.txt' cannot be read"),
        ({"labels": ""}, "parameter 'labels' is missing"),
        ({"held_out": "[nowhere.test]"}, "held_out: no document of 'code' is held out; its hosts are h0.test, h1.test"),
        ({"held_out": "[test]"}, "no document of 'code' is left to train on"),
        ({"held_out": "1.5"}, "held_out is 1.5; give a share between 0 and 1"),
        ({"model": "{fasttext: {autotune: true}}"}, "autotune tries settings until a time is up"),
        ({"model": "{linear: {features: {bits: 50}}}"}, "bits is 50; give 10 to 24"),
        ({"documents": "nowhere"}, "documents 'nowhere': no finished build of documents there"),
        ({"documents": ""}, "key 'documents' is missing"),
    ],
)  # fmt: skip
def test_mistakes(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], replaced: dict[str, str], message: str
) -> None:
    assert train(**{key: value.replace("FOLDER", str(tmp_path)) for key, value in replaced.items()}) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said, said
    assert not (tmp_path / "out").exists()


def test_a_positive_label_that_nothing_has_and_labels_with_spaces(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(more="positive: novel\n") == 2
    assert "positive is 'novel', which no document has; the labels are code, prose" in capsys.readouterr().err
    rules = "{rules: [{label: a b, url: '/a/'}, {label: c, url: '/b/'}]}"
    assert train(labels=rules, model=FASTTEXT) == 2
    assert "'a b' has white space" in capsys.readouterr().err


def test_the_recipe_of_the_example_loads() -> None:
    recipe = read_recipe(str(Path(__file__).parents[3] / "jobs/recipes/classifier-prose.yaml"))
    assert recipe.documents == "build/demo" and recipe.settings.held_out == ("python.test", "postgresql.test")
    assert np.isclose(recipe.settings.model.linear.learning.rate, 0.05)  # type: ignore[union-attr]
