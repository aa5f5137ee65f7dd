"""The stage: counts by a slow reading of the curve, sums that are the budget, groups, and builds cut and killed in any way."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.errors import InputError
from gristmill.format.schema import INPUT_IDS
from gristmill.selection.upsampling import solve
from stages.classify.upsample import Bytes, Group, Share, Tokens, Upsample
from tests.contract.running import met
from tests.stages.classify.same_builds import documents_of_every_way
from tests.toy import documents


def scored(rng: np.random.Generator, file: str, count: int = 3000) -> pa.Table:
    """Return documents of many lengths with a score that is tied at times, a bucket, a topic that some lack, and tokens."""
    sizes = np.minimum(rng.lognormal(3, 1, count).astype(int), 900)
    docs = documents(file, ["x" * n for n in sizes.tolist()])
    quality = np.round(rng.uniform(0, 1, count), 4).astype(np.float32)
    docs = docs.append_column("quality", pa.array(quality))
    docs = docs.append_column("bucket", pa.array((quality * 20).astype(np.uint8)))
    topics = rng.choice(["math", "law", None], count, p=[0.3, 0.6, 0.1]).tolist()
    docs = docs.append_column("topic", pa.array(topics, pa.string()))
    return docs.append_column(INPUT_IDS, pa.array([[7] * (n // 4) for n in sizes.tolist()], pa.list_(pa.uint16())))


@pytest.fixture(scope="module")
def shards() -> list[pa.Table]:
    rng = np.random.default_rng(3)
    return [scored(rng, f"{number}.txt") for number in range(3)]


def run(stage: Upsample, shards: list[pa.Table], order: tuple[int, ...] = (0, 1, 2)) -> pa.Table:
    model = met(stage, [[shards[n].slice(0, 123), shards[n].slice(123)] for n in order])
    return pa.concat_tables([stage.apply(model)(shard) for shard in shards])


def bytes_of(docs: pa.Table) -> np.ndarray:
    return np.array([len(text) for text in docs["text"].to_pylist()])


def tokens_of(docs: pa.Table) -> np.ndarray:
    return np.array([len(ids) for ids in docs[INPUT_IDS].to_pylist()])


def slow_rates(scores: np.ndarray, weights: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return how often each document is to be read: the mean of the slices over the percentiles of its score, by small steps."""
    found, total, slices = np.zeros(len(scores)), int(weights.sum()), len(means)
    for score in np.unique(scores):
        mine = scores == score
        low, high = int(weights[scores < score].sum()), int(weights[scores <= score].sum())
        units = np.arange(low, high) if high > low else np.array([min(low, total - 1)])  # a unit of weight each
        ends = np.minimum((units + 1) * slices / total, slices)
        starts = units * slices / total
        whole = np.minimum(starts.astype(int), slices - 1)
        cut = np.minimum(ends, whole + 1)
        after = np.minimum(whole + 1, slices - 1)
        found[mine] = np.mean(((cut - starts) * means[whole] + (ends - cut) * means[after]) / (ends - starts))
    return found


@pytest.mark.parametrize("score", ["quality", "bucket"])
@pytest.mark.parametrize("weight", ["bytes", "tokens"])
@pytest.mark.parametrize(("share", "cap", "zero_below"), [(1.2, 7.0, 0.4), (0.4, 7.0, 0.4), (2.0, 3.0, 0.0), (3.9, 7.0, 0.4)])
def test_counts_are_those_of_the_curve_and_their_sum_is_the_budget(score, weight, share, cap, zero_below, shards) -> None:
    stage = Upsample(score=score, budget=Share(share=share), cap=cap, zero_below=zero_below, weight=weight, mantissa_bits=23)
    found = run(stage, shards)
    counts, scores = found["repeats"].to_numpy().astype(int), found[score].to_numpy()
    weights = bytes_of(found) if weight == "bytes" else tokens_of(found)
    total = int(weights.sum())
    assert abs(int((counts * weights).sum()) - share * total) <= 1e-3 * share * total
    rates = slow_rates(scores, weights, solve(share, cap, zero_below).means)
    assert (counts >= np.floor(rates - 1e-6)).all() and (counts <= np.ceil(rates + 1e-6)).all() and counts.max() <= cap
    order = np.argsort(scores, kind="stable")
    for part in np.array_split(order, 12):
        assert abs((counts[part] - rates[part]).mean()) < 0.08
    averages = [counts[part].mean() for part in np.array_split(order, 5)]
    assert all(b >= a - 0.05 for a, b in itertools.pairwise(averages)), "the better the more"
    assert [drop for drop in found["drop"].to_pylist() if drop] == ["not_sampled"] * int((counts == 0).sum())
    assert (np.array(found["drop"].to_pylist(), dtype=object)[counts == 0] == "not_sampled").all()
    if zero_below:
        assert counts[order][: int(0.2 * len(order))].max() == 0


def test_an_amount_of_tokens(shards: list[pa.Table]) -> None:
    found = run(Upsample(score="quality", budget=Tokens(tokens=50_000)), shards)
    assert abs(int((found["repeats"].to_numpy().astype(int) * tokens_of(found)).sum()) - 50_000) <= 50


def test_few_documents_come_as_near_the_budget_as_they_can() -> None:
    """Of thirty alike the sum is exact, whatever their hashes are."""
    for seed in range(8):
        docs = documents(f"{seed}.txt", ["word"] * 30).append_column("quality", pa.array(np.arange(30) / 30))
        stage = Upsample(score="quality", budget=Share(share=1.5), weight="bytes", zero_below=0.0, slices=5)
        counts = stage.apply(met(stage, [[docs]]))(docs)["repeats"].to_numpy()
        assert int(counts.astype(int).sum()) == 45


def test_low_scores_may_be_the_best(shards: list[pa.Table]) -> None:
    high = run(Upsample(score="quality", budget=Share(share=1.2)), shards)
    turned = [
        shard.set_column(shard.column_names.index("quality"), "quality", pa.array(-shard["quality"].to_numpy()))
        for shard in shards
    ]
    assert run(Upsample(score="quality", budget=Share(share=1.2), best="low"), turned)["repeats"].equals(high["repeats"])


def test_groups_have_budgets_of_their_own(shards: list[pa.Table]) -> None:
    own = {"math": Group(budget=Share(share=2.5), cap=5.0, zero_below=0.0), "law": Group(cap=2.0)}
    stage = Upsample(score="quality", budget=Bytes(bytes=150_000), weight="bytes", by="topic", groups=own, zero_below=0.1)
    found = run(stage, shards)
    counts, weights = found["repeats"].to_numpy().astype(int), bytes_of(found)
    topics = np.array(found["topic"].to_pylist(), dtype=object)
    sums = {topic: int((counts * weights)[topics == topic].sum()) for topic in ("math", "law", None)}
    totals = {topic: int(weights[topics == topic].sum()) for topic in ("math", "law", None)}
    assert sums["math"] == pytest.approx(2.5 * totals["math"], rel=1e-3)
    rest = 150_000 / (totals["law"] + totals[None])
    assert sums["law"] == pytest.approx(rest * totals["law"], rel=2e-3)
    assert sums[None] == pytest.approx(rest * totals[None], rel=5e-3), "of those without a topic there are few"
    assert counts[topics == "math"].max() <= 5 and counts[topics == "law"].max() <= 2
    about = json.loads(found.schema.field("repeats").metadata[b"about"])
    assert about["groups"].keys() == {'["math"]', '["law"]', "[null]"}
    math = about["groups"]['["math"]']
    assert (math["weight"], math["read"]) == (totals["math"], sums["math"])
    assert sum(each["documents"] for each in math["repeats"].values()) == math["documents"] == int((topics == "math").sum())
    for count, each in math["repeats"].items():
        mine = (topics == "math") & (counts == int(count))
        assert (each["documents"], each["weight"]) == (int(mine.sum()), int(weights[mine].sum()))


def test_documents_without_a_score_are_read_once() -> None:
    docs = documents("a", ["word"] * 40)
    docs = docs.append_column("quality", pa.array([None, float("nan"), *np.arange(38).tolist()], pa.float64()))
    stage = Upsample(score="quality", budget=Share(share=2.0), weight="bytes")
    found = stage.apply(met(stage, [[docs]]))(docs)
    assert found["repeats"].to_pylist()[:2] == [1, 1] and found["drop"].to_pylist()[:2] == [None, None]
    assert sum(found["repeats"].to_pylist()[2:]) == 76


def test_neither_the_order_of_shards_nor_how_keys_share_calls_matters(shards: list[pa.Table]) -> None:
    stage = Upsample(score="quality", budget=Share(share=1.2), by="topic")
    expected = met(stage, [[shard] for shard in shards])
    assert met(stage, [[shard] for shard in reversed(shards)], 40).equals(expected)
    assert run(stage, shards, (2, 0, 1)).equals(run(stage, shards))


def test_few_bits_keep_rows_few(shards: list[pa.Table]) -> None:
    rough, exact = (Upsample(score="quality", budget=Share(share=1.2), mantissa_bits=bits) for bits in (3, 23))
    rows = [met_rows(stage, shards) for stage in (rough, exact)]
    found = run(rough, shards)
    weights = tokens_of(found)
    assert int((found["repeats"].to_numpy().astype(int) * weights).sum()) == pytest.approx(1.2 * weights.sum(), rel=1e-3)
    assert len(met(rough, [[shard] for shard in shards])) < len(met(exact, [[shard] for shard in shards])) + 40
    assert rows[0] <= rows[1] <= 9000


def met_rows(stage: Upsample, shards: list[pa.Table]) -> int:
    return stage.combine()(pa.concat_tables([stage.open()(shard) for shard in shards])).num_rows


def test_what_cannot_be_counted_is_said(shards: list[pa.Table]) -> None:
    stage = Upsample(score="quality", budget=Share(share=1.2), weight="bytes")
    texts = shards[0].set_column(shards[0].column_names.index("quality"), "quality", pa.array(["a"] * 3000))
    with pytest.raises(InputError, match=r"score: column 'quality' is string; it must be of numbers"):
        stage.open()(texts)
    empty = shards[0].set_column(7, "text", pa.array([""] * 3000))
    with pytest.raises(InputError, match=r"the documents of all have no bytes: .*; set another weight"):
        met(stage, [[empty]])
    greedy = Upsample(score="quality", budget=Share(share=4.5), by="topic")
    with pytest.raises(
        InputError, match=r"budget of law: the budget is 4.5 of what there is, but a cap of 7 over the 0.6 .* allows 4.2; lower"
    ):
        met(greedy, [[shards[0]]])
    unknown = Upsample(score="quality", budget=Share(share=1.0), by="topic", groups={"art": Group(cap=2.0)})
    with pytest.raises(InputError, match=r"groups: no document has art; there are law, math, none"):
        met(unknown, [[shards[0]]])
    by_topic = Upsample(score="quality", budget=Share(share=1.0), by="topic")
    other = shards[0].set_column(shards[0].column_names.index("topic"), "topic", pa.array(["art"] * 3000))
    with pytest.raises(InputError, match="no document had art when the counts were settled"):
        by_topic.apply(met(by_topic, [[shards[0]]]))(other)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"cap": 0}, "cap must be above 0 and at most 255, found 0"),
        ({"cap": 300.0}, "cap must be above 0 and at most 255"),
        ({"zero_below": 1.0}, "zero_below must be from 0 and below 1, found 1.0"),
        ({"slices": 1}, "slices must be from 2 to 1000, found 1"),
        ({"mantissa_bits": 24}, "mantissa_bits must be from 0 to 23"),
        ({"budget": Bytes(bytes=3)}, "budget is one of bytes, and weight is tokens"),
        ({"groups": {"a": Group()}}, "groups are of the values of a column; name it with by"),
        ({"by": "topic", "groups": {"a": Group(cap=-1.0)}}, "groups: a: cap must be above 0"),
        ({"by": "topic", "groups": {"a": Group(budget=Bytes(bytes=1))}}, "groups: a: budget is one of bytes"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(parameters, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Upsample(**{"score": "quality", "budget": Share(share=1.2), **parameters})


def test_budgets_are_above_nothing() -> None:
    for wrong in (lambda: Share(share=0.0), lambda: Tokens(tokens=0), lambda: Bytes(bytes=-1), lambda: Share(share=float("inf"))):
        with pytest.raises(ValueError, match="must be"):
            wrong()


def test_a_build_is_the_same_whatever_runs_and_dies(tmp_path: Path) -> None:
    """One document kills its process; it is quarantined, and the others are read for the budget."""
    stage = Upsample(score="quality", budget=Share(share=1.5), weight="bytes", zero_below=0.2)
    lines = documents_of_every_way(tmp_path, "upsample", stage)
    assert 0 < len(lines) < 179 and min(line["repeats"] for line in lines) == 1
    read = sum(line["repeats"] * len(line["text"]) for line in lines)
    total = sum(len(f"{file} {n}" + " word" * (n % 7)) for file in "abc" for n in range(60) if (file, n) != ("b", 33))
    assert read == pytest.approx(1.5 * total, abs=40)
