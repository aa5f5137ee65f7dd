"""Figures of a classifier: against their definitions, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from jobs.classifier.measures import RESAMPLES, auc, interval, measured, reliability, spearman, thresholds
from tests.random_examples import examples

PAIRS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30
)


@given(PAIRS)
@examples(100)
def test_auc_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[float, bool, int]]) -> None:
    scores, positive, weights = (
        np.array([r[0] for r in rows]),
        np.array([r[1] for r in rows]),
        np.array([float(r[2]) for r in rows]),
    )
    right = whole = 0.0
    for good in np.flatnonzero(positive):
        for bad in np.flatnonzero(~positive):
            both = weights[good] * weights[bad]
            whole += both
            right += both * ((scores[good] > scores[bad]) + (scores[good] == scores[bad]) / 2)
    found = auc(scores, positive, weights)
    assert np.isnan(found) if whole == 0 else found == pytest.approx(right / whole)


def test_spearman_is_scipys() -> None:
    random = np.random.default_rng(0)
    scores, positive = np.round(random.random(200), 1), random.random(200) < 0.3
    assert spearman(scores, positive) == pytest.approx(spearmanr(scores, positive).statistic)
    assert np.isnan(spearman(scores, np.ones(200, bool)))


def test_thresholds_and_reliability() -> None:
    scores, positive = np.array([0.05, 0.3, 0.55, 0.55, 0.97, 1.0]), np.array([False, True, False, True, True, True])
    rows = {row["at_least"]: row for row in thresholds(scores, positive)}
    assert rows[0.5] == {"at_least": 0.5, "kept": 0.666667, "precision": 0.75, "recall": 0.75}
    assert rows[0.99] == {"at_least": 0.99, "kept": 0.166667, "precision": 1.0, "recall": 0.25}
    tenths = reliability(scores, positive)
    assert [row["documents"] for row in tenths] == [1, 0, 0, 1, 0, 2, 0, 0, 0, 2]
    assert tenths[5] == {"from": 0.5, "documents": 2, "score": 0.55, "positive": 0.5} and tenths[1]["score"] is None


def test_an_interval_is_over_hosts_not_documents() -> None:
    random = np.random.default_rng(1)
    hosts = [f"h{number}" for number in range(8) for _ in range(50)]
    positive = random.random(400) < 0.5
    good = np.array(
        [number % 2 == 0 for number in range(8) for _ in range(50)]
    )  # half of the hosts are told well, half not at all
    scores = np.where(good, positive * 0.5, 0.0) + random.random(400) / 2
    ends = interval(scores, positive, hosts, seed=0)
    assert ends is not None and ends[1] - ends[0] > 0.15  # over documents it is a third as wide
    assert ends[0] < auc(scores, positive) < ends[1]
    assert interval(scores, positive, hosts, seed=0) == ends != interval(scores, positive, hosts, seed=1)
    assert interval(scores[:100], positive[:100], hosts[:100], seed=0) is None and RESAMPLES == 1000
    by_host = measured(scores, positive, hosts, 0)["by_host"]
    assert by_host["h0"]["auc"] > 0.9 and abs(by_host["h1"]["auc"] - 0.5) < 0.2
