"""What the report says of tokens: shares against a count token by token, and documents with every byte in its place."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.format.sidecar_writer import write_sidecar
from gristmill.storage.store import expand, open_store
from jobs.report.score_sections import tokens as section
from jobs.report.token_scores import _pieces, token_scores
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import make_plan
from stages.encode.encode import Encode
from stages.filter.language import Language
from stages.sink.shards import Shards
from stages.source.text import TextSource
from tests.jobs.reading import Reader

TEXTS = {
    "a.txt": "The quick brown fox jumps over the lazy dog <script>alert('x')</script> & so on, again and again. " * 3,
    "b.txt": "Der schnelle braune Fuchs springt über den faulen Hund, und das immer wieder, auch größer. " * 3,
    "c.txt": "Le renard brun rapide saute par-dessus le chien paresseux 👩‍👩‍👧 à plusieurs reprises. " * 3,
}


@pytest.fixture(scope="module")
def output(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("scored")
    for name, text in TEXTS.items():
        (place / name).write_text(text)
    paths = f"{place}/*.txt"
    stages = [
        ("text", TextSource(paths=paths, per="file")),
        ("language", Language(min_score=0.0)),
        ("encode", Encode(tokenizer=str(tokenizer))),
        ("shards", Shards()),
    ]
    plan = make_plan("t", stages, expand(paths))
    assert drive(plan, lambda: LocalEngine(0), Options(str(place / "out"))).build
    return place / "out"


def add(output: Path, name: str, soft: bool) -> None:
    def score(ids: np.ndarray, bounds: np.ndarray) -> dict[str, np.ndarray]:
        scores = (ids.astype(np.int64) * 37 % 101).astype(np.float16)
        scores[bounds[:-1]] = np.nan
        if soft:
            return {f"weight.{name}": np.where(np.isnan(scores), np.nan, scores / 101).astype(np.float16)}
        return {f"selected.{name}": np.nan_to_num(scores, nan=-1) > 60, f"score.{name}": scores}

    columns = {f"weight.{name}": "float16"} if soft else {f"selected.{name}": "bool", f"score.{name}": "float16"}
    kept = next(iter(columns))
    write_sidecar(output, name, columns, score, about={kept: {"threshold": 60}})


def manifest_of(output: Path) -> str:
    return str(next(output.glob("builds/*/manifest.json")).relative_to(output))


def read(output: Path, pattern: str) -> pa.Table:
    return pa.concat_tables(pa.ipc.open_file(path).read_all() for path in sorted(output.glob(f"builds/*/{pattern}")))


def test_shares_are_those_of_a_count_token_by_token(output: Path, tokenizer: Path) -> None:
    store = open_store(str(output))
    assert token_scores(store, manifest_of(output)) is None
    add(output, "hard", soft=False)
    add(output, "soft", soft=True)
    found = token_scores(store, manifest_of(output))
    assert found is not None and [policy.name for policy in found.policies] == ["hard", "soft"]
    vocabulary = json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"]
    letters = {i: len(piece) for piece, i in vocabulary.items()}  # byte-level: a letter is a byte
    tokens = read(output, "tokens-*.arrow")
    assert found.tokens == found.of == sum(map(len, tokens["input_ids"].to_pylist()))
    for policy, column in zip(found.policies, ("selected.hard", "weight.soft"), strict=True):
        kept = read(output, f"scores-{policy.name}-*.arrow")[column].to_pylist()
        total: dict[tuple[str, str], list[float]] = {}
        for row, weights in zip(tokens.to_pylist(), kept, strict=True):
            for token, weight in list(zip(row["input_ids"], weights, strict=True))[1:]:
                size = letters.get(token, 0)
                for key in (("", ""), ("language", row["language"]), ("file", row["file"])):
                    entry = total.setdefault(key, [0, 0, 0, 0])
                    for i, value in enumerate((1, weight, size, weight * size)):
                        entry[i] += value
        shares = {("", ""): policy.all} | {(g, v): s for g, values in policy.shares.items() for v, s in values.items()}
        assert shares.keys() == total.keys()
        for key, share in shares.items():
            assert [share.tokens, share.kept_tokens, share.bytes, share.kept_bytes] == pytest.approx(total[key]), key
        assert len(policy.documents) == 3 and policy.about == {"threshold": 60}


def test_the_section_shows_every_token_once_and_nothing_of_a_page_is_markup(output: Path) -> None:
    found = token_scores(open_store(str(output)), manifest_of(output))
    shown = section(found)
    assert shown is not None and section(None) is None
    page = Reader("<html><body>" + shown + "</body></html>")
    assert "script" not in {name for name, *_ in page.elements}
    assert "<script>alert" not in shown and "&lt;" in shown
    assert found is not None
    for policy in found.policies:
        for document in policy.documents:
            whole = "".join(document.pieces)
            assert any(text.strip().startswith(whole[:40]) for text in TEXTS.values())
            assert len(document.pieces) == len(document.scores) == len(document.weights)


@given(st.text(max_size=30), st.lists(st.integers(0, 90), max_size=8))
def test_pieces_join_to_the_text_wherever_tokens_are_cut(text: str, cuts: list[int]) -> None:
    data = text.encode()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    tokens = [data[a:b] for a, b in itertools.pairwise(places)]
    pieces = _pieces(tokens)
    assert len(pieces) == len(tokens) and "".join(pieces) == text


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert _pieces([b"a", b"\xff", b"b\xc3", b"\xa9"]) == ["a", "\ufffd", "b", "é"]
