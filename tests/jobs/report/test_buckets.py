"""The section on buckets and its figures for machines: counts, both kinds of edges, and the drift of an artifact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.__main__ import main
from tests.jobs.bucket_builds import built, prepare, published, record

TWO = (
    "buckets: {scores: {quality: {quantiles: 4}, n: {edges: [1.0, 2.0, 3.0], best: low}}, by: [language], own_edges: false, "
    "levels: {good: [3, 3], bad: [0, 2]}, weight: documents}"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return prepare(tmp_path, monkeypatch)


def figures(capsys: pytest.CaptureFixture[str], output: str) -> dict:
    capsys.readouterr()
    assert main(["report", output, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["buckets"]
    return found


def page(folder: Path, output: str, build: str) -> str:
    assert main(["report", output]) == 0
    return (folder / output / "builds" / build / "report.html").read_text()


def documents(folder: Path, output: str, build: str) -> pa.Table:
    tables = []
    for path in sorted((folder / output / "builds" / build).glob("*.arrow")):
        with pa.ipc.open_file(str(path)) as file:
            tables.append(file.read_all())
    return pa.concat_tables(tables)


def test_figures_are_those_of_the_documents(folder: Path, capsys) -> None:
    build = published(folder, capsys)
    docs, found = documents(folder, "first", build), figures(capsys, "first")
    buckets, sizes = docs["bucket"].to_numpy(), np.array([len(text.encode()) for text in docs["text"].to_pylist()])
    assert found["documents"] == found["scores"]["quality"]["documents"] == np.bincount(buckets, minlength=5).tolist()
    assert found["bytes"] == np.bincount(buckets, sizes, 5).astype(int).tolist() and found["none"] == [0, 0]
    assert found["artifact"] is None and found["scores"]["quality"]["drift"] is None
    about = json.loads(docs.schema.field("bucket").metadata[b"about"]) if docs.schema.field("bucket").metadata else None
    assert about is None or found["id"] == about["id"]
    for group in found["scores"]["quality"]["groups"]:
        mine = np.array([each == group["group"][0] for each in docs["language"].to_pylist()])
        own = np.bincount(buckets[mine], sizes[mine], 5) / sizes[mine].sum()
        np.testing.assert_allclose(group["own_shares"], own)
        edges = np.array(found["scores"]["quality"]["edges"], np.float32)
        common = np.bincount(np.digitize(docs["quality"].to_numpy()[mine], edges), sizes[mine], 5) / sizes[mine].sum()
        np.testing.assert_allclose(group["common_shares"], common)
        assert group["own"] and max(abs(common - own)) > 0.01, "the two kinds of edges must differ"
    text = page(folder, "first", build)
    assert "What each bucket holds" in text and "Drift" not in text and found["id"] in text and "its own" in text


def test_an_artifact_on_the_same_documents_has_not_drifted_and_on_others_has(folder: Path, capsys) -> None:
    build = published(folder, capsys)
    built(folder, capsys, "same", "buckets: {from: kept/q1}")
    same = figures(capsys, "same")
    assert [row["group"] for row in same["scores"]["quality"]["drift"]] == [None, ["fr"], ["en"]]
    assert all(row["total_variation"] == row["cdf_distance"] == 0 for row in same["scores"]["quality"]["drift"])
    assert same["artifact"] == {"name": "q1", "id": record(folder)["id"], "build": build}
    first = figures(capsys, "first")
    assert (same["id"], same["documents"]) == (first["id"], first["documents"])
    late = [{"text": "late", "quality": 9.0, "language": "en"}] * 400 + [{"text": "none", "quality": None, "language": "de"}]
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in late))
    other = built(folder, capsys, "other", "buckets: {from: kept/q1}")
    found = figures(capsys, "other")
    drift = found["scores"]["quality"]["drift"]
    then = next(group for group in first["scores"]["quality"]["groups"] if group["group"] == ["en"])
    now = np.array(found["bytes"]) - np.array(first["bytes"])
    assert now.tolist() == [0, 0, 0, 0, 1600] and found["none"] == [1, 4]
    en = next(row for row in drift if row["group"] == ["en"])
    assert en["documents"] == 400 + then["documents"] and en["total_variation"] == pytest.approx(en["cdf_distance"])
    assert en["total_variation"] == pytest.approx((1 - then["own_shares"][4]) * 1600 / (1600 + then["bytes"]))
    assert next(row for row in drift if row["group"] == ["fr"])["total_variation"] == 0 < drift[0]["total_variation"] < 1
    text = page(folder, "other", other)
    assert "Drift" in text and "of artifact <b><bdi>q1</bdi></b>" in text and "1 document has no score and no bucket" in text


def test_a_report_without_its_artifact_says_so(folder: Path, capsys) -> None:
    published(folder, capsys)
    build = built(folder, capsys, "second", "buckets: {from: kept/q1}")
    shutil.rmtree(folder / "kept")
    found = figures(capsys, "second")
    assert "no artifact there" in found["why"] and sum(found["documents"]) == 106 and "drift" not in found["scores"]["quality"]
    assert "Its edges cannot be shown" in page(folder, "second", build)
    built(folder, capsys, "third", "buckets: {scores: {quality: {quantiles: 3}}}")
    assert main(["publish", "third", "buckets", "kept/q1"]) == 0
    assert "is another now" in figures(capsys, "second")["why"]


def test_several_scores_levels_and_strange_names_are_shown(folder: Path, capsys) -> None:
    rows = [{"text": "x" * (n + 1), "quality": n / 7, "n": n % 5, "language": "<script>" if n % 2 else None} for n in range(50)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "b.jsonl").unlink()
    path = folder / "first.yaml"
    source = '{jsonl: {paths: "*.jsonl", carry: {quality: float32, language: string, n: float32}}}'
    path.write_text(f"name: first\noutput: first\nsource: {source}\nstages:\n  - {TWO}\n  - documents\n")
    assert main(["build", "first.yaml"]) == 0
    build = capsys.readouterr().out.split()[1]
    found = figures(capsys, "first")
    assert found["levels"] == ["bad", "bad", "bad", "good"] and set(found["scores"]) == {"quality", "n"}
    assert found["scores"]["n"]["documents"] == [20, 10, 10, 10] and sum(found["documents"]) == 50
    groups = found["scores"]["quality"]["groups"]
    assert [group["group"] for group in groups] == [["<script>"], [None]] and not any(group["own"] for group in groups)
    text = page(folder, "first", build)
    assert "&lt;script&gt;" in text and "<b><bdi>none</bdi></b>" in text and "of all" in text
    assert "below 1" in text and "from 3" in text
