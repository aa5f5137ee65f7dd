"""The stage: buckets as numpy and Nemotron-CC's recipe make them, by groups, in real builds cut and killed in any way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.errors import InputError
from gristmill.models.fasttext.fasttext import FastText
from stages.classify.buckets import Buckets, Edges, Quantiles
from stages.classify.classify import Classify
from stages.classify.kinds import FastTextModel
from tests.contract.running import met
from tests.stages.classify.same_builds import documents_of_every_way
from tests.toy import documents

NEMOTRON = {"high": (19, 19), "medium_high": (18, 18), "medium": (12, 17), "medium_low": (7, 11), "low": (0, 6)}
THREE = ("edu", "mixtral", "fasttext")


def scored(rng: np.random.Generator, file: str, count: int = 400) -> pa.Table:
    """Return documents with three scores that are tied at times, and a language that some lack."""
    docs = documents(file, ["é" * n for n in rng.integers(0, 90, count).tolist()])
    for name in THREE:
        values = np.round(rng.normal(size=count), 2 if name == "edu" else 9).astype(np.float32)
        docs = docs.append_column(name, pa.array(values))
    languages = rng.choice(["en", "fr", None], count, p=[0.7, 0.2, 0.1]).tolist()
    return docs.append_column("language", pa.array(languages, pa.string()))


@pytest.fixture(scope="module")
def shards() -> list[pa.Table]:
    rng = np.random.default_rng(3)
    return [scored(rng, f"{number}.txt") for number in range(3)]


def run(stage: Buckets, shards: list[pa.Table], order: tuple[int, ...] = (0, 1, 2)) -> pa.Table:
    model = met(stage, [[shards[n].slice(0, 123), shards[n].slice(123)] for n in order])
    return pa.concat_tables([stage.apply(model)(shard) for shard in shards])


def sizes_of(docs: pa.Table) -> np.ndarray:
    return np.array([len(text.encode()) for text in docs["text"].to_pylist()])


def curators(docs: pa.Table) -> np.ndarray:
    """Return the maximum bucket of three scores, as Curator's recipe for Nemotron-CC has it in numpy's words."""
    percentiles, found = np.arange(5, 100, 5), []
    for name in THREE:
        scores = docs[name].to_numpy()
        thresholds = np.percentile(scores, percentiles, weights=sizes_of(docs), method="inverted_cdf")
        found.append(np.digitize(scores, thresholds))
    return np.max(found, axis=0)


def test_an_ensemble_is_that_of_nemotron_cc(shards: list[pa.Table]) -> None:
    docs = pa.concat_tables(shards)
    found = run(Buckets(scores={name: Quantiles(quantiles=20) for name in THREE}, levels=NEMOTRON), shards)
    expected = curators(docs)
    assert found["bucket"].to_pylist() == expected.tolist() and len(set(expected.tolist())) > 15
    named = {number: name for name, (low, high) in NEMOTRON.items() for number in range(low, high + 1)}
    assert found["bucket_level"].to_pylist() == [named[number] for number in expected.tolist()]
    each = np.stack([found[f"bucket_{name}"].to_numpy() for name in THREE])
    np.testing.assert_array_equal(each.max(axis=0), expected)
    shares = np.bincount(each[1], sizes_of(docs)) / sizes_of(docs).sum()
    assert len(shares) == 20 and abs(shares - 0.05).max() < 0.003


def test_scores_of_a_classifier_on_the_crawl_fall_where_numpy_has_them(texts: pa.Table) -> None:
    model = str(Path(__file__).parents[2] / "contract/golden/classifier.bin")
    labels = ("prose", "Q-A", "code")
    docs = Classify(models={"of": FastTextModel(fasttext=FastText(path=model), labels=labels)}).open()(texts)
    docs = docs.rename_columns(
        [dict(zip(("of_prose", "of_q_a", "of_code"), THREE, strict=True)).get(n, n) for n in docs.column_names]
    )
    found = run(Buckets(scores={name: Quantiles(quantiles=20) for name in THREE}), [docs.slice(0, 400), docs.slice(400)], (1, 0))
    assert found["bucket"].to_pylist() == curators(docs).tolist()


@pytest.mark.parametrize("ensemble", ["mean", {"edu": 1.0, "mixtral": 2.0, "fasttext": 0.25}])
def test_means_are_rounded_half_up_over_the_scores_that_are_there(ensemble, shards: list[pa.Table]) -> None:
    lacking = pa.array([None if n % 3 else 0.5 for n in range(1200)], pa.float32())
    gone = [shard.set_column(8, "edu", lacking.slice(400 * n, 400)) for n, shard in enumerate(shards)]
    found = run(Buckets(scores={name: Quantiles(quantiles=9) for name in THREE}, ensemble=ensemble), gone)
    for row in found.select(["bucket", *(f"bucket_{name}" for name in THREE)]).to_pylist():
        there = {name: row[f"bucket_{name}"] for name in THREE if row[f"bucket_{name}"] is not None}
        weights = {name: 1 if ensemble == "mean" else ensemble[name] for name in there}
        mean = sum(weights[name] * number for name, number in there.items()) / sum(weights.values())
        assert row["bucket"] == int(mean + 0.5)
    assert found["bucket_edu"].null_count == 800


def test_groups_have_edges_of_their_own_and_small_ones_those_of_all(shards: list[pa.Table]) -> None:
    docs = pa.concat_tables(shards)
    stage = Buckets(scores={"mixtral": Quantiles(quantiles=4)}, by=("language",), min_documents=200)
    found, scores = run(stage, shards)["bucket"].to_numpy(), docs["mixtral"].to_numpy()
    language = np.array([str(each) for each in docs["language"].to_pylist()])
    for group in ("en", "fr", "None"):
        mine = language == group
        taken = mine if mine.sum() >= 200 else np.ones(len(mine), bool)
        assert (mine.sum() >= 200) == (group != "None"), "the smallest group must be too small"
        parts = [0.25, 0.5, 0.75]
        edges = np.quantile(scores[taken], parts, weights=sizes_of(docs)[taken], method="inverted_cdf")
        np.testing.assert_array_equal(found[mine], np.digitize(scores[mine], edges))
    common = run(Buckets(scores={"mixtral": Quantiles(quantiles=4)}), shards)["bucket"]
    assert run(Buckets(scores=stage.scores, by=("language",), own_edges=False), shards)["bucket"].equals(common)
    assert not run(stage, shards)["bucket"].equals(common)


def test_the_model_has_what_lies_in_each_bucket_by_both_kinds_of_edges(shards: list[pa.Table]) -> None:
    docs = pa.concat_tables(shards)
    stage = Buckets(scores={"edu": Quantiles(quantiles=5)}, by=("language",), min_documents=10)
    model = met(stage, [[shard] for shard in shards])
    own = run(stage, shards)["bucket"].to_numpy()
    common = run(Buckets(scores=stage.scores), shards)["bucket"].to_numpy()
    assert model["group"].to_pylist() == ["", '["en"]', '["fr"]', "[null]"] and model["own"].to_pylist() == [True] * 4
    for row in model.to_pylist():
        mine = np.array([row["group"] in ("", json.dumps([each])) for each in docs["language"].to_pylist()])
        assert (row["documents"], row["bytes"]) == (mine.sum(), sizes_of(docs)[mine].sum())
        for kind, numbers in (("bucket", own if row["group"] else common), ("common", common)):
            assert row[f"{kind}_documents"] == np.bincount(numbers[mine], minlength=5).tolist()
            assert row[f"{kind}_bytes"] == np.bincount(numbers[mine], sizes_of(docs)[mine], 5).astype(int).tolist()


def test_given_edges_and_low_scores_that_are_the_best() -> None:
    docs = documents("a", ["x"] * 6).append_column("loss", pa.array([0.5, 1.0, 1.5, 2.0, np.nan, None], pa.float64()))
    for best, expected in (("high", [0, 1, 1, 2, None, None]), ("low", [2, 1, 1, 0, None, None])):
        stage = Buckets(scores={"loss": Edges(edges=(1.0, 2.0), best=best)}, levels={"l": (0, 0), "h": (1, 2)})
        found = stage.apply(met(stage, [[docs]]))(docs)
        assert found["bucket"].to_pylist() == expected
        assert found["bucket_level"].to_pylist() == [None if each is None else "lhh"[each] for each in expected]


def test_neither_the_order_of_shards_nor_a_language_that_was_not_there_matters(shards: list[pa.Table]) -> None:
    stage = Buckets(scores={name: Quantiles(quantiles=6) for name in THREE}, by=("language",), min_documents=50)
    expected = met(stage, [[shard] for shard in shards])
    assert met(stage, [[shard] for shard in reversed(shards)], 40).equals(expected)
    other = shards[0].set_column(shards[0].column_names.index("language"), "language", pa.array(["xx"] * 400))
    common = Buckets(scores=stage.scores)
    known = common.apply(met(common, [[shard] for shard in shards]))(shards[0])
    assert stage.apply(expected)(other)["bucket"].equals(known["bucket"])


def test_fewer_bits_of_mantissa_keep_edges_near_and_counts_few(shards: list[pa.Table]) -> None:
    exact, rough = (Buckets(scores={"fasttext": Quantiles(quantiles=20)}, mantissa_bits=bits) for bits in (23, 4))
    one, other = (np.array(met(stage, [[s] for s in shards])["edges"][0].as_py()) for stage in (exact, rough))
    assert (other <= one).all() and (one - other <= np.maximum(abs(one), abs(other)) / 16).all()
    rows = [stage.combine()(pa.concat_tables([stage.open()(shard) for shard in shards])).num_rows for stage in (exact, rough)]
    assert rows[0] > 1100 and rows[1] < 450
    lines = met(rough, [[shard] for shard in shards])
    found = rough.apply(lines)(pa.concat_tables(shards))["bucket"].to_numpy()
    assert np.bincount(found).tolist() == lines["bucket_documents"][0].as_py()


def test_what_the_makers_of_scores_note_is_in_the_id_and_is_held_to(shards: list[pa.Table]) -> None:
    stage = Buckets(scores={"edu": Quantiles(quantiles=3)})

    def of(docs: pa.Table, sha256: str) -> pa.Table:
        field = pa.field("edu", pa.float32(), metadata={"about": json.dumps({"sha256": sha256})})
        return docs.set_column(docs.column_names.index("edu"), field, docs["edu"])

    def about(docs: pa.Table) -> dict:
        return json.loads(stage.apply(met(stage, [[docs]]))(docs).schema.field("bucket").metadata[b"about"])

    plain, one, other = about(shards[0]), about(of(shards[0], "aa")), about(of(shards[0], "bb"))
    assert len({plain["id"], one["id"], other["id"], about(shards[1])["id"]}) == 4
    assert one["scores"]["edu"]["edges"] == plain["scores"]["edu"]["edges"] and one["scores"]["edu"]["model"] == {"sha256": "aa"}
    assert about(of(shards[0], "aa")) == one
    with pytest.raises(InputError, match=r"'edu' is of another model .*bb.* than its edges were found for .*aa"):
        stage.apply(met(stage, [[of(shards[0], "aa")]]))(of(shards[0], "bb"))


def test_scores_of_another_model_than_edges_were_found_for_are_refused(tmp_path: Path) -> None:
    """By what `classify` notes: the file's content and the form of the text, not where the file lies."""
    docs = documents("a", [f"some words {n} of prose" for n in range(40)])
    model = Path(__file__).parents[2] / "contract/golden/classifier.bin"
    copy = tmp_path / "copy.bin"
    copy.write_bytes(model.read_bytes())

    def scored_by(**parameters: object) -> pa.Table:
        return Classify(models={"q": FastTextModel(fasttext=FastText(**parameters), label="code")}).open()(docs)

    stage = Buckets(scores={"q": Quantiles(quantiles=4)})
    edges = met(stage, [[scored_by(path=str(model))]])
    about = json.loads(stage.apply(edges)(scored_by(path=str(copy))).schema.field("bucket").metadata[b"about"])
    noted = about["scores"]["q"]["model"]
    assert (noted["kind"], noted["label"], noted["lowercase"]) == ("FastText", "code", None) and "path" not in noted
    assert noted["sha256"] == [hashlib.sha256(model.read_bytes()).hexdigest()]
    with pytest.raises(InputError, match="'q' is of another model"):
        stage.apply(edges)(scored_by(path=str(model), lowercase=True))


def test_what_cannot_be_counted_is_said(shards: list[pa.Table]) -> None:
    stage = Buckets(scores={"edu": Quantiles(quantiles=3)})
    with pytest.raises(InputError, match=r"column 'edu' is string; it must be of numbers"):
        stage.open()(shards[0].set_column(8, "edu", pa.array(["a"] * 400)))
    empty = shards[0].set_column(7, "text", pa.array([""] * 400))
    with pytest.raises(InputError, match=r"quantiles by bytes, and none of its documents has a byte of text.* weight: documents"):
        met(stage, [[empty]])
    assert met(Buckets(scores=stage.scores, weight="documents"), [[empty]])["bytes"].to_pylist() == [0]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"scores": {}}, "scores names no column"),
        (
            {"scores": {"a": Quantiles(quantiles=3), "b": Edges(edges=(1.0,))}},
            "the same number of buckets, found {'a': 3, 'b': 2}",
        ),
        ({"name": "A"}, "name must be of"),
        ({"ensemble": {"b": 1.0}}, r"ensemble must weigh all of scores \(a\), found b"),
        ({"ensemble": {"a": 0.0}}, "ensemble must have weights above 0"),
        ({"levels": {"low": (0, 0), "high": (2, 2)}}, "levels must have each of the buckets 0 to 2 once"),
        ({"levels": {"low": (0, 1), "high": (1, 2)}}, "levels must have each of the buckets 0 to 2 once"),
        ({"min_documents": 0}, "min_documents must be at least 1"),
        ({"mantissa_bits": 24}, "mantissa_bits must be from 0 to 23"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(parameters, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Buckets(**{"scores": {"a": Quantiles(quantiles=3)}, **parameters})


@pytest.mark.parametrize("edges", [(), (1.0, 1.0), (2.0, 1.0), (float("inf"),), (float("nan"),)])
def test_edges_ascend(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="edges must be 1 to 254 ascending numbers"):
        Edges(edges=edges)
    with pytest.raises(ValueError, match="quantiles must be from 2 to 255, found 1"):
        Quantiles(quantiles=1)


def test_a_build_is_the_same_whatever_runs_and_dies(tmp_path: Path) -> None:
    """One document kills its process; it is quarantined, and the others are counted once."""
    stage = Buckets(scores={"quality": Quantiles(quantiles=20)}, by=("file",), min_documents=60)
    lines = documents_of_every_way(tmp_path, "buckets", stage)
    found = {file: [line["bucket"] for line in lines if line["file"] == f"{file}.jsonl"] for file in "abc"}
    assert {file: len(buckets) for file, buckets in found.items()} == {"a": 60, "b": 59, "c": 60}
    assert set(found["a"]) == set(found["c"]) == set(range(20)), "edges of their own"
