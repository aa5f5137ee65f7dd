"""Files that are no fastText classifiers: cut ones, damaged ones, ones of other kinds."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.errors import InputError
from gristmill.models.fasttext.fasttext import FastText
from gristmill.models.fasttext.file import read
from tests.gristmill.models.fasttext.training import Shape, train

NUMBERS = ["dim", "ws", "epoch", "count", "neg", "ngrams", "loss", "kind", "bucket", "minn", "maxn"]
ARGUMENTS = {name: 8 + 4 * place for place, name in enumerate(NUMBERS)}
SIZES = 8 + 12 * 4 + 8  # of the dictionary


@pytest.fixture(scope="module", params=[False, True], ids=["bin", "ftz"])
def content(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    shape = Shape(dim=6, minn=2, maxn=3, loss="hs", quantized=request.param, cutoff=300 * request.param, qnorm=request.param)
    return train(shape, 7, tmp_path_factory.mktemp("whole")).read_bytes()


def refused(content: bytes, path: Path) -> str:
    path.write_bytes(content)
    with pytest.raises(InputError) as told:
        FastText(path=str(path)).open()
    assert str(path) in str(told.value)
    return str(told.value)


def test_a_file_that_is_cut_anywhere(content: bytes, tmp_path: Path) -> None:
    assert "it is empty" in refused(b"", tmp_path / "model")
    rng = np.random.default_rng(3)
    for size in sorted({1, 7, SIZES - 1, SIZES + 3, len(content) - 1, *rng.integers(1, len(content), 60).tolist()}):
        said = refused(content[:size], tmp_path / "model")
        assert "it may be cut" in said, (size, said)


@pytest.mark.parametrize(
    ("place", "form", "value", "said"),
    [
        (0, "i", 1, "it begins with 1 and 12, expected 793712314 and 11 or 12"),
        (4, "i", 13, "it begins with 793712314 and 13"),
        (ARGUMENTS["dim"], "i", 0, "its vectors have 0 numbers"),
        (ARGUMENTS["dim"], "i", 2**31 - 1, "expected 2147483647"),
        (ARGUMENTS["loss"], "i", 9, "its loss is number 9"),
        (ARGUMENTS["bucket"], "i", 0, "in 0 buckets"),
        (ARGUMENTS["minn"], "i", -1, "of -1 to 3 characters"),
        (ARGUMENTS["maxn"], "i", 2**31 - 1, "of 2 to 2147483647 characters"),
        (SIZES, "i", 5, "its dictionary has 5 entries"),
        (SIZES, "iii", (2**31 - 1, 2**31 - 4, 3), "its words at byte"),
        (SIZES + 20, "q", 2**62, "the n-grams that were kept at byte"),
    ],
)
def test_numbers_that_cannot_be(
    place: int, form: str, value: int | tuple[int, ...], said: str, content: bytes, tmp_path: Path
) -> None:
    changed = bytearray(content)
    struct.pack_into(f"<{form}", changed, place, *(value if isinstance(value, tuple) else (value,)))
    assert said in refused(bytes(changed), tmp_path / "model")


def test_n_grams_that_have_no_rows(content: bytes, tmp_path: Path) -> None:
    changed, path = bytearray(content), tmp_path / "model"
    struct.pack_into("<i", changed, ARGUMENTS["bucket"], 10**6)
    pruned = struct.unpack_from("<q", content, SIZES + 20) != (-1,)
    if not pruned:
        assert "1000000 n-grams" in refused(bytes(changed), path)
        return
    path.write_bytes(content)
    kept, place = read(str(path)).pruned, content.index(read(str(path)).pruned.tobytes())  # type: ignore[union-attr]
    assert kept is not None
    for row, said in ((10**6, "1000001 n-grams"), (-1, "row -1 of an n-gram")):
        struct.pack_into("<i", changed, place + 4, row)
        assert said in refused(bytes(changed), path)


def test_word_vectors_are_no_classifier(content: bytes, tmp_path: Path) -> None:
    changed = bytearray(content)
    struct.pack_into("<i", changed, ARGUMENTS["kind"], 1)
    assert "holds word vectors, no classifier; give a model that was trained with labels" in refused(
        bytes(changed), tmp_path / "m"
    )


def test_random_damage_is_refused_or_gives_scores(content: bytes, tmp_path: Path) -> None:
    rng, refusals = np.random.default_rng(5), 0
    for _ in range(60):
        changed = bytearray(content)
        for place in rng.integers(0, min(len(changed), 20_000), 3):
            changed[place] = rng.integers(256)
        (tmp_path / "model").write_bytes(changed)
        try:
            FastText(path=str(tmp_path / "model")).open().classify(pa.array(["some words", "字" * 99, ""]))
        except InputError:
            refusals += 1
    assert 0 < refusals < 60
