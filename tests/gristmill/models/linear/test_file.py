"""The file of a linear model: written, read, damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from gristmill.errors import InputError
from gristmill.models.linear.file import Features, Model, decode, encode, load


def model() -> Model:
    """A model of three labels, most of whose rows have no weights."""
    weights = np.zeros((1 << 10, 3), np.int16)
    weights[[0, 7, 1023]] = [[1, -2, 3], [0, 0, 32767], [-32767, 5, 0]]
    return Model(Features(bits=10, max_chars=500), ("a", "b", "ç"), 0.1, weights, np.array([0.1, -1e-300, 3.0]))


def test_what_was_written_is_read() -> None:
    content = encode(model())
    again = decode(content)
    assert (again.features, again.labels, again.unit) == (model().features, model().labels, model().unit)
    assert again.weights.tobytes() == model().weights.tobytes() and again.biases.tobytes() == model().biases.tobytes()
    assert encode(again) == content and len(content) < 600  # bits for 1024 rows, weights for three


def test_every_byte_is_checked() -> None:
    content = encode(model())
    for at in range(len(content)):
        damaged = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        with pytest.raises(InputError, match="not a linear model" if at < 8 else "not those that were written"):
            decode(damaged)
    for size in range(len(content)):
        with pytest.raises(InputError):
            decode(content[:size])


def test_a_header_that_does_not_fit() -> None:
    content = encode(model())[:-32]
    for old, new in (
        (b'"bits": 10', b'"bits": 11'),
        (b'"rows": 3', b'"rows": 4'),
        (b'"ngrams": 2', b'"ngrams": 9'),
        (b'"unit"', b'"tinu"'),
    ):
        changed = content.replace(old, new)
        assert changed != content
        with pytest.raises(InputError, match="do not fit each other"):
            decode(changed + hashlib.sha256(changed).digest())


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "fasttext.bin").write_bytes((793712314).to_bytes(4, "little") + bytes(100))
    with pytest.raises(InputError, match=r"fasttext.bin: not a linear model: it begins with b'\\xba"):
        load(tmp_path / "fasttext.bin")
    with pytest.raises(InputError, match="cannot be read there: No such file"):
        load(tmp_path / "none.bin")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"words": "some"}, "words is 'some'"),
        ({"ngrams": 9}, "ngrams is 9"),
        ({"bits": 40}, "bits is 40"),
        ({"max_chars": 0}, "max_chars is 0"),
    ],
)
def test_features_out_of_range(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Features(**wrong)  # type: ignore[arg-type]
