"""Quantiles and buckets beside numpy's own, on random scores with many ties."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gristmill.selection.quantiles import LARGEST, buckets_of, cdf_distance, edges_of, ranks_of, scores_of, total_variation
from tests.random_examples import examples

FLOATS = st.floats(-float(LARGEST), float(LARGEST), allow_nan=False, allow_subnormal=False, width=32)


@given(st.lists(FLOATS, min_size=1, max_size=50))
@examples(200)
def test_ranks_are_in_the_order_of_scores_and_lead_back(scores):
    given_ = np.array(scores, np.float32)
    np.testing.assert_array_equal(scores_of(ranks_of(given_)), given_)
    order = np.argsort(given_, kind="stable")
    assert (np.diff(ranks_of(given_)[order].astype(np.int64)) >= 0).all()
    assert np.array_equal(np.diff(ranks_of(given_)[order].astype(np.int64)) == 0, np.diff(given_[order]) == 0)


@given(st.lists(FLOATS, min_size=1, max_size=50), st.integers(0, 22))
@examples(200)
def test_a_score_of_fewer_bits_is_the_next_below(scores, bits):
    given_ = np.array(scores, np.float32)
    rough = scores_of(ranks_of(given_, bits))
    far = given_.astype(np.float64) - rough
    assert (far >= 0).all() and (far <= np.maximum(np.abs(rough), np.abs(given_)) * 2.0**-bits).all()
    np.testing.assert_array_equal(ranks_of(rough, bits), ranks_of(given_, bits))


@given(st.lists(st.tuples(st.integers(-20, 20), st.integers(0, 9)), min_size=1, max_size=60), st.integers(2, 40))
@examples(300)
def test_edges_and_buckets_are_those_of_numpy(rows, buckets):
    scores = np.array([score for score, _ in rows], np.float32) / np.float32(7)
    weights = np.array([weight for _, weight in rows], np.int64)
    weights[0] += 1
    values, places = np.unique(scores, return_inverse=True)
    mass = np.bincount(places, weights).astype(np.int64)
    edges = edges_of(values, mass, buckets)
    parts = np.arange(1, buckets) / buckets
    np.testing.assert_array_equal(edges, np.quantile(scores, parts, method="inverted_cdf", weights=weights))
    np.testing.assert_array_equal(buckets_of(scores, edges), np.digitize(scores, edges))


def test_a_score_that_is_none_has_no_bucket():
    assert buckets_of(np.array([np.nan, 0.5], np.float32), np.array([0.5], np.float32)).tolist() == [-1, 1]


def test_large_weights_are_exact():
    mass = np.array([2**53, 1, 2**53], np.int64)
    edges = edges_of(np.array([1, 2, 3], np.float32), mass, 2)
    assert edges.tolist() == [2.0], "half of 2^54 + 1 is above 2^53, which float64 cannot tell"


def test_distances_are_shares_of_the_mass():
    one, other = np.array([1, 1, 2]), np.array([10, 20, 10])
    assert total_variation(one, other) == 0.25 and cdf_distance(one, other) == 0.25
    assert total_variation(one, one * 7) == cdf_distance(one, one * 7) == 0
    shifted = np.array([0, 0, 4, 0]), np.array([4, 0, 0, 0])
    assert total_variation(*shifted) == cdf_distance(*shifted) == 1
