"""How well scores tell documents with a label from others: AUC, rank correlation, reliability, thresholds.

Reads arrays; gives plain data. Intervals are by hosts, since pages of one host are alike: hosts are drawn with replacement,
by a generator that never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.models.linear.training import mixed

RESAMPLES, TAIL, FEWEST_HOSTS = 1000, 0.025, 3
BINS = 10
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def auc(scores: Doubles, positive: Bools, weights: Doubles | None = None) -> float:
    """Return the chance that a positive document scores higher than another, ties count half; NaN without both kinds.

    Args:
        scores: [documents].
        positive: [documents].
        weights: [documents], how often each counts; once where there are none.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    _, place = np.unique(scores, return_inverse=True)
    good = np.bincount(place, weights * positive)
    bad = np.bincount(place, weights * ~positive)
    if not good.sum() or not bad.sum():
        return float("nan")
    below = np.cumsum(bad) - bad
    return float(np.sum(good * (below + bad / 2)) / (good.sum() * bad.sum()))


def interval(scores: Doubles, positive: Bools, hosts: Sequence[str], seed: int) -> list[float] | None:
    """Return the middle 95% of AUC over draws of hosts with replacement, or None where there are too few hosts."""
    names, host = np.unique(np.array(hosts), return_inverse=True)
    if len(names) < FEWEST_HOSTS:
        return None
    found = []
    for draw in range(RESAMPLES):
        drawn = (mixed(len(names), seed, draw) % np.uint64(len(names))).astype(np.int64)
        found.append(auc(scores, positive, np.bincount(drawn, minlength=len(names)).astype(np.float64)[host]))
    valid = np.array(found)[~np.isnan(found)]
    if len(valid) < RESAMPLES // 2:
        return None
    return [_rounded(float(np.quantile(valid, share))) for share in (TAIL, 1 - TAIL)]


def ranks(values: Doubles) -> Doubles:
    """Return the rank of each value from 1, equal ones their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: Doubles = ((ends - counts + 1 + ends) / 2)[place]
    return mean


def spearman(scores: Doubles, positive: Bools) -> float:
    """Return the rank correlation of scores with the label."""
    first, second = ranks(scores), ranks(positive.astype(np.float64))
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt(np.sum(first**2) * np.sum(second**2)))
    return float(np.sum(first * second)) / norm if norm else float("nan")


def reliability(scores: Doubles, positive: Bools) -> list[dict[str, Any]]:
    """Return of the documents in each tenth of the scores how many there are, their mean score, and which share is positive."""
    place = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    rows = []
    for number in range(BINS):
        there = place == number
        count = int(there.sum())
        means = [_rounded(float(each[there].mean())) if count else None for each in (scores, positive)]
        rows.append({"from": number / BINS, "documents": count, "score": means[0], "positive": means[1]})
    return rows


def thresholds(scores: Doubles, positive: Bools) -> list[dict[str, Any]]:
    """Return what is kept at each threshold: its share of all documents, the share of positive ones in it, their share in it."""
    rows = []
    for limit in THRESHOLDS:
        kept = scores >= limit
        hits, count, all_positive = int((kept & positive).sum()), int(kept.sum()), int(positive.sum())
        precision = _rounded(hits / count) if count else None
        rows.append(
            {
                "at_least": limit,
                "kept": _rounded(count / len(scores)),
                "precision": precision,
                "recall": _rounded(hits / all_positive) if all_positive else None,
            }
        )
    return rows


def measured(scores: Doubles, positive: Bools, hosts: Sequence[str], seed: int) -> dict[str, Any]:
    """Return all figures of one label on documents held out.

    Args:
        scores: float64 [documents], probabilities.
        positive: [documents], which have the label.
        hosts: [documents].
        seed: of the draws for the interval.
    """
    by_host = {}
    for name in sorted(set(hosts)):
        there = np.array([host == name for host in hosts])
        value = auc(scores[there], positive[there])
        by_host[name] = {
            "documents": int(there.sum()),
            "positive": int(positive[there].sum()),
            "auc": None if np.isnan(value) else _rounded(value),
        }
    return {
        "documents": len(scores),
        "positive": int(positive.sum()),
        "auc": _rounded(auc(scores, positive)),
        "auc_interval": interval(scores, positive, hosts, seed),
        "spearman": _rounded(spearman(scores, positive)),
        "brier": _rounded(float(np.mean((scores - positive) ** 2))),
        "reliability": reliability(scores, positive),
        "thresholds": thresholds(scores, positive),
        "by_host": by_host,
    }


def _rounded(value: float) -> float:
    return round(value, 6)
