"""`stages.filter.language_threshold` against a transcription of FineWeb2's formula with numpy, in any order of shards."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from stages.filter.language_threshold import LanguageThreshold


def documents(seed: int, rows: int) -> pa.Table:
    random = np.random.default_rng(seed)
    scores = random.beta(5, 1, rows).astype(np.float32)
    scores[random.random(rows) < 0.3] = np.float32(0.97)
    languages = random.choice(["en", "de", "gsw"], rows, p=[0.7, 0.28, 0.02])
    scores[languages == "gsw"] *= np.float32(0.4)
    return pa.table({"language": pa.array(languages, mask=random.random(rows) < 0.05), "language_score": pa.array(scores)})


def model_of(stage: LanguageThreshold, shards: list[pa.Table]) -> pa.Table:
    rows, combine, reduce = stage.open(), stage.combine(), stage.reduce()
    assert combine is not None
    made = pa.concat_tables([combine(rows(shard)) for shard in shards]).sort_by("key")
    middle = made.num_rows // 2
    while 0 < middle < made.num_rows and made["key"][middle] == made["key"][middle - 1]:
        middle += 1
    return stage.settle()([reduce(made.slice(0, middle)), reduce(made.slice(middle))])


def fineweb2(scores: np.ndarray, low: float, high: float, deviations: float) -> float:
    scores = scores.astype(np.float64)
    return float(np.clip(np.median(scores) - deviations * np.std(scores), low, high))


@pytest.mark.parametrize("given", [{}, {"low": 0.0, "high": 1.0}, {"deviations": 2.5, "low": 0.1}])
def test_thresholds_are_fineweb2s_in_any_order(given: dict[str, float]) -> None:
    stage = LanguageThreshold(**given)  # type: ignore[arg-type]
    docs = documents(1, 2001)
    shards = [docs.slice(0, 3), docs.slice(3, 1500), docs.slice(1503, 0), docs.slice(1503)]
    models = [model_of(stage, list(order)) for order in itertools.permutations(shards)]
    assert all(model.equals(models[0]) for model in models)
    assert models[0]["language"].to_pylist() == ["de", "en", "gsw"]
    for row in models[0].to_pylist():
        own = docs.filter(pa.compute.equal(docs["language"], row["language"]))["language_score"].to_numpy()
        assert row["threshold"] == pytest.approx(fineweb2(own, stage.low, stage.high, stage.deviations), abs=1e-7)
        assert row["median"] == np.median(own.astype(np.float64)) and row["documents"] == len(own)


def test_what_is_below_is_dropped_and_what_has_no_language_is_kept() -> None:
    stage = LanguageThreshold()
    scores = pa.array([0.5, 0.9, 0.9, 1.0, 0.2, 0.2, None, 0.1], pa.float32())
    docs = pa.table({"language": ["en", "en", "en", "en", "gsw", "gsw", "en", None], "language_score": scores})
    out = stage.apply(model_of(stage, [docs]))(docs)
    least = np.float32(0.9 - np.std(np.array([0.5, 0.9, 0.9, 1.0], np.float32).astype(np.float64)))
    assert out["language_threshold"].to_pylist()[:4] == pytest.approx([least] * 4)
    assert out["language_threshold"].to_pylist()[4:] == pytest.approx([0.3, 0.3, least, None])
    assert out["drop"].to_pylist() == ["language_score", None, None, None, "language_score", "language_score", None, None]
    score, threshold, language = stage.explain(docs.slice(0, 1), out.slice(0, 1))
    assert (score.value, score.decisive, language.value) == (0.5, True, "en") and threshold.value == pytest.approx(least)
    other = pa.table({"language": ["fr"], "language_score": pa.array([0.1], pa.float32())})
    assert stage.apply(model_of(stage, [docs]))(other)["drop"].to_pylist() == [None], "a language that the model does not know"


def test_no_documents_at_all() -> None:
    stage, none = LanguageThreshold(), documents(1, 0)
    assert model_of(stage, [none]).num_rows == 0
    assert stage.apply(model_of(stage, [none]))(documents(1, 5))["drop"].null_count == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"low": 0.95}, "low is 0.95 and high 0.9"),
        ({"high": 1.5}, "high 1.5"),
        ({"deviations": -1.0}, "deviations is -1.0"),
    ],
)
def test_mistakes(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageThreshold(**given)  # type: ignore[arg-type]
