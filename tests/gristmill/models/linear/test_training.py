"""Learning of linear models: the same bytes for the same texts, against the same steps in plain Python."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from gristmill.models.linear.file import Features, encode
from gristmill.models.linear.linear import OpenedLinear
from gristmill.models.linear.training import Learning, learn
from tests.gristmill.models.linear import slow

GOOD = [f"the river runs along the valley and number {i} follows" for i in range(20)]
BAD = [f"int f{i}(void); return x{i};" for i in range(20)]
ODD = [f"buy now cheap {i} offer!" for i in range(20)]
FEATURES = Features(words="marks", bits=12)


def texts_of(*kinds: list[str]) -> tuple[pa.StringArray, np.ndarray]:  # type: ignore[type-arg]
    return pa.array([text for kind in kinds for text in kind]), np.repeat(np.arange(len(kinds), dtype=np.int32), 20)


def test_labels_of_texts_that_were_not_seen() -> None:
    texts, targets = texts_of(BAD, GOOD, ODD)
    model = learn(texts, targets, ("code", "prose", "spam"), FEATURES, Learning())
    found = OpenedLinear(model).classify(pa.array(["a valley and the river", "void g(int x7);", "cheap offer, buy!"]))
    assert [model.labels[i] for i in found.labels[:, 0]] == ["prose", "code", "spam"]
    two = learn(*texts_of(BAD, GOOD), ("code", "prose"), FEATURES, Learning())
    assert two.weights.shape == (1 << 12, 1)
    assert OpenedLinear(two).probabilities(pa.array(["the river runs"]))[0, 1] > 0.7


def test_one_epoch_is_adagrad_as_written_down() -> None:
    texts, targets = texts_of(BAD, GOOD)
    how = Learning(epochs=1, rate=0.3, decay=0.01, seed=5)
    weights, squares, bias, bias_square = np.zeros(1 << 12, np.float32), np.full(1 << 12, 1e-8, np.float32), 0.0, 1e-8
    seen: list[int] = []

    def order(count: int) -> list[int]:
        mask, mixed = 2**64 - 1, []
        for i in range(1, count + 1):
            value = (i * 0x9E3779B97F4A7C15 + 5 * 0x9E3779B97F4A7C15) & mask
            value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & mask
            value = ((value ^ value >> 27) * 0x94D049BB133111EB) & mask
            mixed.append(value ^ value >> 31)
        return sorted(range(count), key=mixed.__getitem__)

    for number in order(len(texts)):
        seen.append(number)
        rows = slow.rows(texts[number].as_py(), FEATURES)
        norm = 1 / math.sqrt(len(rows))
        slope = 1 / (1 + math.exp(-(bias + norm * sum(float(weights[row]) for row in rows)))) - float(targets[number])
        bias_square += slope**2
        bias -= how.rate * slope / math.sqrt(bias_square)
        for row in rows:
            gradient = slope * norm + how.decay * float(weights[row])
            squares[row] = np.float32(float(squares[row]) + gradient * gradient)
            weights[row] = np.float32(float(weights[row]) - how.rate * gradient / math.sqrt(float(squares[row])))
    model = learn(texts, targets, ("code", "prose"), FEATURES, how)
    assert sorted(seen) == list(range(40))
    np.testing.assert_allclose(model.weights[:, 0] * model.unit, weights, atol=1.01 * model.unit)
    assert model.biases[0] == pytest.approx(bias, rel=1e-5)


def test_the_same_bytes_in_another_process_and_others_with_another_seed() -> None:
    texts, targets = texts_of(BAD, GOOD)
    program = (
        "import sys; from tests.gristmill.models.linear.test_training import *;"
        "sys.stdout.buffer.write(encode(learn(*texts_of(BAD, GOOD), ('code', 'prose'), FEATURES, Learning())))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert encode(learn(texts, targets, ("code", "prose"), FEATURES, Learning())) == other
    assert encode(learn(texts, targets, ("code", "prose"), FEATURES, Learning(seed=1))) != other


def test_what_cannot_be_learned() -> None:
    texts, targets = texts_of(BAD, GOOD)
    with pytest.raises(ValueError, match="labels: no text has 'spam'"):
        learn(texts, targets, ("code", "prose", "spam"), FEATURES, Learning())
    with pytest.raises(ValueError, match="labels: 1 given"):
        learn(texts, np.zeros(40, np.int32), ("code",), FEATURES, Learning())
    for wrong, message in (({"epochs": 0}, "epochs is 0"), ({"rate": 0.0}, "rate is 0"), ({"decay": -1.0}, "decay is -1")):
        with pytest.raises(ValueError, match=message):
            Learning(**wrong)  # type: ignore[arg-type]


def test_texts_without_a_word_teach_nothing() -> None:
    texts, targets = pa.array(["", "  ", *GOOD, *BAD]), np.array([0, 1] + [1] * 20 + [0] * 20, np.int32)
    steps: list[tuple[int, float]] = []
    learn(texts, targets, ("code", "prose"), FEATURES, Learning(epochs=3), lambda epochs, error: steps.append((epochs, error)))
    assert [epochs for epochs, _ in steps] == [1, 2, 3] and steps[2][1] < steps[0][1] < 0.5
