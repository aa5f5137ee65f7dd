"""Every recipe loads and can be planned, so that none names a stage or parameter that is no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from jobs.build.plan import plan_of
from jobs.classifier.recipe import read_recipe as read_classifier_recipe
from jobs.config import build_config
from jobs.reference.recipe import read_recipe as read_model_recipe
from jobs.tokenizer.train import read_recipe
from pipeline.stage import Sink
from stages import STAGES
from tests.classifiers import train_small
from tests.conftest import ROOT

RECIPES = sorted((ROOT / "jobs/recipes").glob("*.yaml"))
OF_TOKENIZERS = [path for path in RECIPES if "scheme" in yaml.safe_load(path.read_text())]
OF_CLASSIFIERS = [path for path in RECIPES if "labels" in yaml.safe_load(path.read_text())]
OF_MODELS = [path for path in RECIPES if "model" in yaml.safe_load(path.read_text()) and path not in OF_CLASSIFIERS]
OF_BUILDS = [path for path in RECIPES if path not in (*OF_TOKENIZERS, *OF_CLASSIFIERS, *OF_MODELS)]


def named(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each recipe of a classifier one of its kind, trained on four short texts: output → folder."""
    folder, made = tmp_path_factory.mktemp("classifiers"), {}
    for path in OF_CLASSIFIERS:
        recipe = yaml.safe_load(path.read_text())
        ((kind, settings),) = recipe["model"].items()
        train_small(folder / path.stem, {kind: {**settings, "bucket": 10} if kind == "fasttext" else settings})
        made[recipe["output"]] = folder / path.stem
    return made


@pytest.fixture
def checkout(tmp_path: Path, tokenizer: Path, classifiers: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the crawl, and with a tokenizer and classifiers wherever a recipe writes one."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    tokenizers = {yaml.safe_load(path.read_text())["output"]: tokenizer for path in OF_TOKENIZERS}
    for output, stored in {**tokenizers, **classifiers}.items():
        made = tmp_path / output
        made.parent.mkdir(parents=True, exist_ok=True)
        made.symlink_to(stored)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_recipes_of_all_kinds() -> None:
    assert {"demo", "demo-text"} <= set(map(named, OF_BUILDS))
    assert OF_TOKENIZERS and all(named(path).startswith("tokenizer-") for path in OF_TOKENIZERS)
    assert OF_CLASSIFIERS and all(named(path).startswith("classifier-") for path in OF_CLASSIFIERS)
    assert OF_MODELS and all(named(path).startswith("reference-") for path in OF_MODELS)


@pytest.mark.parametrize("path", OF_BUILDS, ids=named)
def test_a_build_recipe_loads_and_can_be_planned(path: Path, checkout: Path) -> None:
    build = build_config.load(path)
    assert build.name == named(path) and build.output.startswith("build/")
    plan = plan_of(build)
    assert plan.inputs and isinstance(plan.sink(), Sink)
    assert [name for name, _ in plan.stages] == [build.source_name, *(name for name, _ in build.stages)]
    again = build_config.from_record(json.loads(json.dumps(build.text)))
    assert plan_of(again).fingerprint == plan.fingerprint, "what a run records must mean the same build"
    assert path.read_text().startswith("# "), "a recipe says what it is for"


@pytest.mark.parametrize("path", OF_BUILDS, ids=named)
def test_where_and_how_wide_a_build_runs_changes_nothing_that_is_named(path: Path, checkout: Path) -> None:
    plan = plan_of(build_config.load(path))
    other = plan_of(
        build_config.load(path, {"run": "{on: local, workers: 7, batch_rows: 3, memory_per_worker: 1GB, retries: 0}"})
    )
    assert other.fingerprint == plan.fingerprint
    renamed = plan_of(build_config.load(path, {"name": "other", "output": "build/other"}))
    assert renamed.fingerprint == plan.fingerprint


@pytest.mark.parametrize("path", OF_TOKENIZERS, ids=named)
def test_a_tokenizer_recipe_loads_and_names_the_output_of_a_build(path: Path) -> None:
    recipe = read_recipe(str(path))
    assert recipe.settings.output == f"build/tokenizers/{named(path).removeprefix('tokenizer-')}"
    outputs = {yaml.safe_load(build.read_text())["output"] for build in OF_BUILDS}
    assert recipe.documents in outputs
    assert recipe.text["scheme"] and path.read_text().startswith("# ")


@pytest.mark.parametrize("path", OF_CLASSIFIERS, ids=named)
def test_a_classifier_recipe_loads_and_names_the_output_of_a_build(path: Path) -> None:
    recipe = read_classifier_recipe(str(path))
    assert recipe.settings.output == f"build/classifiers/{named(path).removeprefix('classifier-')}"
    assert recipe.documents in {yaml.safe_load(build.read_text())["output"] for build in OF_BUILDS}
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", OF_MODELS, ids=named)
def test_a_model_recipe_loads_and_names_the_output_of_a_build(path: Path) -> None:
    recipe = read_model_recipe(str(path))
    assert recipe.output == f"build/models/{named(path)}" and path.read_text().startswith("# ")
    assert recipe.build in {yaml.safe_load(build.read_text())["output"] for build in OF_BUILDS}
    assert recipe.model.size is None or named(path).endswith(recipe.model.size)


def test_every_tokenizer_that_a_build_names_has_a_recipe() -> None:
    made = {yaml.safe_load(path.read_text())["output"] for path in OF_TOKENIZERS}
    for path in OF_BUILDS:
        for entry in yaml.safe_load(path.read_text())["stages"]:
            if isinstance(entry, dict) and "encode" in entry:
                assert entry["encode"]["tokenizer"] in made, path


def test_the_demo_shares_its_first_segments_with_the_build_of_texts(checkout: Path) -> None:
    texts, tokens = (plan_of(build_config.load(ROOT / "jobs/recipes" / name)) for name in ("demo-text.yaml", "demo.yaml"))
    shared = {step.folder for step in texts.steps} & {step.folder for step in tokens.steps}
    assert len(shared) == len(texts.steps) - 1, "all but the one that ends in the sink"
    assert set(STAGES) >= {name for name, _ in tokens.stages}
