"""A linear model and its file: the weights of rows of hashed n-grams, in fixed point.

Reads and writes `model.bin`: the magic, the size of the header (uint32), the header (JSON), a bit for each row that says whether
it has weights (the first row's is the highest of its byte), the weights of those rows (int16, row by row), and the sha256 of all
before it. All little endian. The bytes are the same for the same model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gristmill.arguments import one_of
from gristmill.errors import InputError

MAGIC = b"GMLINEAR"
VERSION = 1
HASH = 32
LEAST_BITS, MOST_BITS, MOST_NGRAMS, MOST_LABELS = 10, 24, 5, 1000


@dataclass(frozen=True, kw_only=True)
class Features:
    """What of a text is counted.

    Args:
        words: what a word is: `letters`: runs of letters and digits; `marks`: the same, and each character of punctuation;
            `spaces`: runs of all that is no white space, as fastText has them. But for `spaces`, characters of scripts that are
            written without spaces are a word each.
        lowercase: capitals count as small letters.
        ngrams: words of the longest n-gram; all shorter ones count too.
        bits: n-grams are hashed to 2^bits rows of weights.
        max_chars: characters that are read, from the beginning; null: all.
    """

    words: Literal["letters", "marks", "spaces"] = "letters"
    lowercase: bool = True
    ngrams: int = 2
    bits: int = 20
    max_chars: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        one_of("words", self.words, ("letters", "marks", "spaces"))
        if not 1 <= self.ngrams <= MOST_NGRAMS:
            raise ValueError(f"ngrams is {self.ngrams}; give 1 to {MOST_NGRAMS}")
        if not LEAST_BITS <= self.bits <= MOST_BITS:
            raise ValueError(f"bits is {self.bits}; give {LEAST_BITS} to {MOST_BITS}")
        if self.max_chars is not None and self.max_chars < 1:
            raise ValueError(f"max_chars is {self.max_chars}; give at least 1, or leave it out for whole documents")


@dataclass(frozen=True)
class Model:
    """A linear model of texts.

    Attributes:
        features: what of a text is counted.
        labels: at least two, in ascending order. Of two labels one output is computed, the log odds of the second.
        unit: what a weight of 1 stands for.
        weights: int16 [2^bits, outputs].
        biases: float64 [outputs].
    """

    features: Features
    labels: tuple[str, ...]
    unit: float
    weights: npt.NDArray[np.int16]
    biases: npt.NDArray[np.float64]


def outputs_of(labels: tuple[str, ...]) -> int:
    """Return how many numbers are computed for these labels."""
    return 1 if len(labels) == 2 else len(labels)


def encode(model: Model) -> bytes:
    """Return the bytes of the model's file."""
    used = model.weights.any(axis=1)
    header = {
        "version": VERSION,
        "labels": model.labels,
        **asdict(model.features),
        "unit": model.unit,
        "biases": model.biases.tolist(),
        "rows": int(used.sum()),
    }
    text = json.dumps(header, ensure_ascii=False).encode()
    rows = np.ascontiguousarray(model.weights[used], "<i2")
    content = MAGIC + len(text).to_bytes(4, "little") + text + np.packbits(used).tobytes() + rows.tobytes()
    return content + hashlib.sha256(content).digest()


def decode(content: bytes, path: str = "a linear model") -> Model:
    """Return the model of a file's bytes. Raises InputError when they are none, or not those that were written."""
    if not content.startswith(MAGIC):
        raise InputError(f"{path}: not a linear model: it begins with {content[: len(MAGIC)]!r}, not {MAGIC!r}; train one")
    if len(content) < len(MAGIC) + 4 + HASH or hashlib.sha256(content[:-HASH]).digest() != content[-HASH:]:
        found = f"its {len(content):,} bytes are not those that were written (sha256 differs)"
        raise InputError(f"{path}: {found}; copy it or train it again")
    begin = len(MAGIC) + 4
    end = begin + int.from_bytes(content[len(MAGIC) : begin], "little")
    header = json.loads(content[begin:end])
    if header["version"] != VERSION:
        raise InputError(f"{path}: its version is {header['version']}, this is version {VERSION}; train it again")
    try:
        return _assembled(header, content[end:-HASH])
    except (KeyError, TypeError, ValueError) as error:  # its hash is right, so somebody else wrote it
        raise InputError(f"{path}: its header and its arrays do not fit each other ({error}); train the model again") from error


def _assembled(header: dict[str, Any], arrays: bytes) -> Model:
    features = Features(**{name: header[name] for name in Features.__dataclass_fields__})
    labels = tuple(header["labels"])
    rows, outputs = 1 << features.bits, outputs_of(labels)
    used = np.unpackbits(np.frombuffer(arrays, np.uint8, rows // 8)).astype(bool)
    weights = np.zeros((rows, outputs), np.int16)
    weights[used] = np.frombuffer(arrays, "<i2", offset=rows // 8).reshape(header["rows"], outputs)
    return Model(features, labels, header["unit"], weights, np.array(header["biases"], np.float64))


def load(path: Path) -> Model:
    """Return the model of a file. Raises InputError when it is not there, is none, or was changed since it was written."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: a linear model cannot be read there: {error.strerror}") from error
    return decode(content, str(path))
