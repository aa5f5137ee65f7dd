"""Cross-fitting: folds by ids, models that have not seen what they score, on models that say who they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.models.ngram.cross_fit import counts_for, folds_of, losses_of
from gristmill.models.ngram.kneser_ney import Counts, count


def test_folds_come_from_ids_alone_and_are_even() -> None:
    ids = [f"{i:032x}" for i in range(4000)]
    for folds in (2, 5):
        found = folds_of(ids, folds)
        assert np.array_equal(folds_of(ids[17:26], folds), found[17:26])
        assert np.bincount(found, minlength=folds).min() > 0.9 * 4000 / folds
    assert folds_of(ids[:8], 5).tolist() == [1, 1, 0, 4, 2, 1, 2, 0]  # those of builds that are there already
    assert len(folds_of([], 2)) == 0


def counted(*documents: list[int]) -> Counts:
    bounds = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    return count(np.array([token for document in documents for token in document], np.uint32), bounds, order=2, vocab_size=9)


def test_a_fold_is_scored_with_the_counts_of_the_others() -> None:
    folds = [counted([1, 2]), counted([3, 4], [3, 5]), counted([6])]
    for fold, others in enumerate([([3, 4], [3, 5], [6]), ([1, 2], [6]), ([1, 2], [3, 4], [3, 5])]):
        found, expected = counts_for(folds, fold), counted(*others)
        assert found.keys.tolist() == expected.keys.tolist()
        assert found.counts.tolist() == expected.counts.tolist()
    assert counts_for(folds[:1], 0) is folds[0]


def test_each_document_is_scored_by_the_model_of_its_fold() -> None:
    def model(number: int) -> object:
        def losses(ids: npt.NDArray[np.uint32], bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            places = np.arange(len(ids)) - np.repeat(bounds[:-1], np.diff(bounds))
            return (100 * number + 10 * ids + places).astype(np.float32)

        return losses

    ids, bounds = np.array([1, 2, 3, 4, 5, 6], np.uint32), np.array([0, 2, 2, 3, 6])
    found = losses_of([model(0), model(1)], ids, bounds, np.array([1, 0, 0, 1]))
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, [np.nan, 121, np.nan, np.nan, 151, 162])
