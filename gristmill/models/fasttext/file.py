"""A fastText classifier's file (.bin, .ftz) as arrays.

Reads the format of fastText 0.9 (versions 11 and 12), plain or quantized; writes nothing. A plain model's rows stay in the file,
mapped into memory. Those of a quantized one are written out as float32 numbers, which
take rows × dim × 4 bytes in each process.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import InputError
from gristmill.models.fasttext import entries

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]
Singles = npt.NDArray[np.float32]

MAGIC, VERSIONS = 793712314, (11, 12)
SUPERVISED = 3
HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4  # as the file numbers losses
PREFIX = "__label__"
LARGEST, LONGEST_WORD = 1 << 40, 1 << 24  # bytes
LONGEST_PART = 1 << 16  # characters of a part of a word; fastText's own are 6 at most
MOST_COUNT = 10**15  # of a label, below which the tree of a hierarchical loss is made
CODES = 256  # centroids of a part of a row


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        dim: numbers of a row.
        word_ngrams: words of an n-gram at most. `bucket`: rows that n-grams share before any are pruned.
        minn, maxn: characters of a part of a word; `maxn` 0: whole words alone.
        loss: how scores are made of the output: HIERARCHICAL, NEGATIVE, SOFTMAX or ONE_VS_ALL.
        data: uint8 [bytes], the whole file.
        starts: int64 [words + labels], where each word lies in it, words before labels. `sizes`: int32, their bytes.
        words: how many are words.
        labels: without their prefix. `counts`: int64 [labels], how often each was in the training data, in falling order.
        pruned: int32 [kept, 2], bucket and row (behind those of words) of the n-grams that were kept; None where all were.
        rows: float32 [rows, dim], of words, then of n-grams.
        output: float32 [labels, dim]; of a hierarchical loss the rows of the tree's inner nodes.
    """

    dim: int
    word_ngrams: int
    bucket: int
    minn: int
    maxn: int
    loss: int
    data: Bytes
    starts: Ints
    sizes: Small
    words: int
    labels: tuple[str, ...]
    counts: Ints
    pruned: Small | None
    rows: Singles
    output: Singles


def read(path: str) -> Contents:
    """Return what a file holds. Raises InputError where it is no classifier of fastText, or is cut or damaged."""
    with open(path, "rb") as stream:
        if stream.seek(0, 2) == 0:
            raise InputError(f"model: {path!r} is not a fastText model: it is empty")
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return _contents(_Cursor(path, np.frombuffer(mapped, np.uint8)))


class _Cursor:
    """A place in the file; whatever is read there is checked to be there."""

    def __init__(self, path: str, data: Bytes) -> None:
        self.path, self.data, self.at = path, data, 0

    def wrong(self, message: str) -> InputError:
        """Return the error for a file that is none."""
        return InputError(f"model: {self.path!r} is not a fastText model: {message}")

    def need(self, size: int, what: str) -> None:
        """Raise InputError unless so many bytes are left."""
        if not 0 <= size <= len(self.data) - self.at:
            left = len(self.data) - self.at
            raise self.wrong(f"{what} at byte {self.at} take {size} bytes and {left} are left; it may be cut: copy it again")

    def numbers(self, form: str, what: str) -> tuple[Any, ...]:
        """Return numbers by a format of `struct`."""
        size = struct.calcsize(f"<{form}")
        self.need(size, what)
        found = struct.unpack_from(f"<{form}", self.data.data, self.at)
        self.at += size
        return found

    def array(self, kind: type[np.generic], shape: tuple[int, ...], what: str) -> npt.NDArray[Any]:
        """Return an array that lies here, without a copy."""
        count = 1
        for each in shape:
            count *= each
        self.need(count * np.dtype(kind).itemsize if min(shape) >= 0 else -1, what)
        found = np.frombuffer(self.data, kind, count, self.at).reshape(shape)
        self.at += found.nbytes
        return found


def _contents(file: _Cursor) -> Contents:
    magic, version = file.numbers("ii", "magic number and version")
    if magic != MAGIC or version not in VERSIONS:
        known = f"{MAGIC} and {' or '.join(map(str, VERSIONS))}"
        raise file.wrong(f"it begins with {magic} and {version}, expected {known}; give a .bin or .ftz of fastText")
    dim, _, _, _, _, ngrams, loss, kind, bucket, minn, maxn, _, _ = file.numbers("12id", "its arguments")
    if kind != SUPERVISED:
        raise InputError(f"model: {file.path!r} holds word vectors, no classifier; give a model that was trained with labels")
    if version == VERSIONS[0]:
        maxn = 0  # classifiers of that time had no parts of words, whatever their files say
    if dim < 1 or loss not in (HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL):
        raise file.wrong(f"its vectors have {dim} numbers and its loss is number {loss}")
    if (bucket < 1 and (maxn > 0 or ngrams > 1)) or min(ngrams, minn, maxn) < 0 or maxn > LONGEST_PART:
        raise file.wrong(f"it has n-grams of {ngrams} words and of {minn} to {maxn} characters in {bucket} buckets")
    starts, sizes, words, labels, counts, pruned = _dictionary(file)
    (quantized,) = file.numbers("?", "whether it is quantized")
    rows = _quantized(file, dim, "rows") if quantized else _dense(file, dim, "rows")
    (quantized_output,) = file.numbers("?", "whether its output is quantized")
    output = _quantized(file, dim, "output") if quantized and quantized_output else _dense(file, dim, "output")
    if pruned is not None and pruned[:, 1].min(initial=0) < 0:
        raise file.wrong(f"it has row {pruned[:, 1].min()} of an n-gram")
    ngram_rows = (bucket if maxn > 0 or ngrams > 1 else 0) if pruned is None else int(pruned[:, 1].max(initial=-1)) + 1
    if len(rows) < words + ngram_rows or len(output) != len(labels):
        rows_of = f"{len(rows)} rows for {words} words and {ngram_rows} n-grams"
        raise file.wrong(f"it has {rows_of}, and output for {len(output)} of {len(labels)} labels")
    if loss == HIERARCHICAL and not 0 <= counts.min() <= counts.max() < MOST_COUNT:
        raise file.wrong(f"its labels are counted {counts.min()} to {counts.max()} times")
    return Contents(
        dim, ngrams, bucket, minn, maxn, loss, file.data, starts, sizes, words, labels, counts, pruned, rows, output
    )  # fmt: skip


def _dictionary(file: _Cursor) -> tuple[Ints, Small, int, tuple[str, ...], Ints, Small | None]:
    """Return where words and labels lie, how many are words, the labels and their counts, and which n-grams were kept."""
    size, words, labels, _, kept = file.numbers("iiiqq", "the sizes of its dictionary")
    if words < 0 or labels < 1 or size != words + labels:
        raise file.wrong(f"its dictionary has {size} entries, {words} words and {labels} labels")
    file.need(size * entries.LEAST, "its words")
    if len(file.data) >= LARGEST:
        raise file.wrong(f"it has {len(file.data)} bytes, at most {LARGEST} can be read")
    starts, counts = np.empty(size, np.int64), np.empty(size, np.int64)
    sizes, kinds = np.empty(size, np.int32), np.empty(size, np.uint8)
    file.at = int(entries.find(file.data, file.at, starts, sizes, counts, kinds))
    if file.at < 0 or kinds[:words].any() or (kinds[words:] != 1).any():
        raise file.wrong("its words do not end where they should; it may be cut or damaged: copy it again")
    if sizes.max() >= LONGEST_WORD:
        raise file.wrong(f"it has a word of {sizes.max()} bytes")
    try:
        names = tuple(file.data[at : at + n].tobytes().decode() for at, n in zip(starts[words:], sizes[words:], strict=True))
    except UnicodeDecodeError as error:
        raise file.wrong(f"a label is not UTF-8 ({error})") from error
    names = tuple(name.removeprefix(PREFIX) for name in names)
    if len(set(names)) != labels:
        raise file.wrong("two of its labels are the same")
    pruned = file.array(np.int32, (kept, 2), "the n-grams that were kept") if kept >= 0 else None
    return starts, sizes, words, names, counts[words:], pruned


def _dense(file: _Cursor, dim: int, what: str) -> Singles:
    """Return a plain matrix, float32 [rows, dim], as it lies in the file."""
    count, width = file.numbers("qq", f"the sizes of its {what}")
    if width != dim:
        raise file.wrong(f"its {what} have {width} numbers each, expected {dim}")
    return file.array(np.float32, (count, width), f"its {what}")


def _quantized(file: _Cursor, dim: int, what: str) -> Singles:
    """Return a matrix that is stored as codes of product quantization, float32 [rows, dim] (Joulin et al. 2016, FastText.zip)."""
    norms, count, width, size = file.numbers("?qqi", f"the sizes of its quantized {what}")
    parts = size // count if count > 0 else 0
    if width != dim or count < 0 or parts * count != size:
        raise file.wrong(f"its quantized {what} are {size} codes of {count} rows of {width} numbers, expected {dim}")
    codes = file.array(np.uint8, (count, parts), f"the codes of its {what}")
    values = _decoded(file, codes, dim, what)
    if norms:
        scales = _decoded(file, file.array(np.uint8, (count, 1), f"the norms of its {what}"), 1, f"norms of {what}")
        values *= scales
    return values


def _decoded(file: _Cursor, codes: Bytes, dim: int, what: str) -> Singles:
    """Return the numbers that codes stand for, float32 [rows, dim]."""
    width, parts, size, last = file.numbers("4i", f"the sizes of the centroids of its {what}")
    if width != dim or size < 1 or parts != codes.shape[1] or parts != -(-dim // size) or last != dim - (parts - 1) * size:
        raise file.wrong(f"the centroids of its {what} are {parts} parts of {size} and {last} numbers, expected {dim} in all")
    centroids = file.array(np.float32, (dim * CODES,), f"the centroids of its {what}")
    found = np.empty((len(codes), dim), np.float32)
    for part in range(parts):
        end = min(dim, (part + 1) * size)
        table = centroids[part * size * CODES : end * CODES].reshape(CODES, end - part * size)
        found[:, part * size : end] = table[codes[:, part]]
    return found
