"""The compiled loops that make scores of labels from the mean of a text's rows, a loss each, as fastText's `loss.cc` does.

They read means and the model's output, and fill arrays that the caller made. A score is exp(ln(p + 1e-5)), as fastText gives it
out, so one may be a little above 1. Sums are of float32, in the order of the model's numbers, and exp is of float32 too, by the
same libm: scores are those of fastText to the bit.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gristmill.compiling import inner, outer

Ints = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]
Singles = npt.NDArray[np.float32]

LEAST = 1e-5  # what fastText adds to a probability before it takes the logarithm
MOST_SIGMOID, STEPS = 8.0, 512  # its table of the sigmoid: from −8 to 8 in so many steps
SIGMOID = (1 / (1 + np.exp(-(np.arange(STEPS + 1) * 2 * MOST_SIGMOID / STEPS - MOST_SIGMOID)))).astype(np.float32)


@inner
def _log(value: np.float32) -> np.float32:
    return np.float32(math.log(np.float64(value) + LEAST))


@inner
def _given(value: np.float32) -> np.float32:
    """Return a probability as it is given out."""
    return np.float32(math.exp(_log(value)))


@inner
def _products(mean: Singles, output: Singles, row: Singles) -> None:
    """Write a mean's product with each label, float32 [labels]; `output` is [dim, labels], so that labels go side by side."""
    row[:] = 0
    for i in range(output.shape[0]):
        value = mean[i]
        for label in range(output.shape[1]):
            row[label] += value * output[i, label]


@outer
def softmax(means: Singles, counts: Ints, output: Singles, out: Singles) -> None:
    """Write the scores of a softmax, float32 [texts, labels]; texts without rows are left alone.

    Args:
        means: float32 [texts, dim].
        counts: int64 [texts], rows of each.
        output: float32 [dim, labels].
        out: to be filled.
    """
    for text in range(counts.size):
        if counts[text] == 0:
            continue
        row = out[text]
        _products(means[text], output, row)
        most, total = row[0], np.float32(0)
        for label in range(row.size):
            most = max(most, row[label])
        for label in range(row.size):
            row[label] = math.exp(np.float32(row[label] - most))
            total = np.float32(total + row[label])
        for label in range(row.size):
            row[label] = _given(np.float32(row[label] / total))


@outer
def one_vs_all(means: Singles, counts: Ints, output: Singles, out: Singles) -> None:
    """Write the scores of independent labels; see `softmax`."""
    for text in range(counts.size):
        if counts[text] == 0:
            continue
        row = out[text]
        _products(means[text], output, row)
        for label in range(row.size):
            value = np.float64(row[label])
            if value < -MOST_SIGMOID:
                row[label] = _given(np.float32(0))
            elif value > MOST_SIGMOID:
                row[label] = _given(np.float32(1))
            else:
                row[label] = _given(SIGMOID[np.int64(np.float32(np.float32(value + MOST_SIGMOID) * STEPS) / MOST_SIGMOID / 2)])


@outer
def hierarchical(
    means: Singles, counts: Ints, output: Singles, tree: Small, nodes: Small, sums: Singles, best_only: bool, out: Singles
) -> None:
    """Write the scores of a hierarchical softmax, of all labels or of the best; the others are left alone.

    Args:
        means, counts: see `softmax`.
        output: float32 [labels, dim], of the inner nodes.
        tree: int32 [2 · labels − 1, 2], what is left and right of each node; −1 for labels, which come first.
        nodes, sums: scratch, [2 · labels].
        out: to be filled.
    """
    labels = (tree.shape[0] + 1) // 2
    for text in range(counts.size):
        if counts[text] == 0:
            continue
        nodes[0], sums[0], waiting = tree.shape[0] - 1, 0, 1
        best, most = -1, np.float32(-np.inf)
        while waiting > 0:
            waiting -= 1
            node, total = nodes[waiting], sums[waiting]
            if best_only and best >= 0 and total < most:
                continue
            if node < labels:
                best, most = node, total
                if not best_only:
                    out[text, node] = math.exp(total)
                continue
            product = np.float32(0)
            for i in range(output.shape[1]):
                product = np.float32(product + means[text, i] * output[node - labels, i])
            right = np.float32(1 / np.float32(1 + math.exp(-product)))
            nodes[waiting], sums[waiting] = tree[node, 1], np.float32(total + _log(right))
            nodes[waiting + 1], sums[waiting + 1] = tree[node, 0], np.float32(total + _log(np.float32(1 - right)))
            waiting += 2
        if best_only:
            out[text, best] = math.exp(most)


def tree_of(counts: Ints) -> Small:
    """Return the Huffman tree over labels by their counts, in falling order: int32 [2 · labels − 1, 2], left and right."""
    labels = len(counts)
    tree = np.full((2 * labels - 1, 2), -1, np.int32)
    weights = [*counts.tolist(), *[10**15] * (labels - 1)]
    leaf, inner_node = labels - 1, labels
    for node in range(labels, 2 * labels - 1):
        for side in (0, 1):
            if leaf >= 0 and weights[leaf] < weights[inner_node]:
                tree[node, side], leaf = leaf, leaf - 1
            else:
                tree[node, side], inner_node = inner_node, inner_node + 1
        weights[node] = weights[tree[node, 0]] + weights[tree[node, 1]]
    return tree
