"""What a Fit settled on, taken by another build: the same documents without a barrier, and every way in which it does not fit."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.__main__ import main
from tests.jobs.bucket_builds import FIT, built, config, prepare, published, record

OWN = '''
"""The share of documents that begin with each letter, as a Fit of somebody else."""
from dataclasses import dataclass
import pyarrow as pa
from pipeline.stage import Fit
from tests.toy import Share

@dataclass(frozen=True, kw_only=True)
class Shares(Share):
    """Add the share of each first letter."""
    scale: float = 1.0

    def apply(self, model):
        work = super().apply(model)
        def scaled(docs):
            found = work(docs)
            return found.set_column(found.num_columns - 1, "share", pa.array(found["share"].to_numpy() * self.scale))
        return scaled
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(OWN)
    return prepare(tmp_path, monkeypatch)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err


def test_a_build_with_an_artifact_is_the_one_that_fitted_without_a_barrier(folder: Path, capsys) -> None:
    first = published(folder, capsys)
    path = config(folder, "second", "buckets: {from: kept/q1}")
    assert main(["plan", path]) == 0
    told = capsys.readouterr().out
    assert f"jsonl → buckets (from q1, {record(folder)['id'][:8]}) → documents: 2 to compute" in told and "reduce" not in told
    assert built(folder, capsys, "second", "buckets: {from: kept/q1}") == first
    manifest = json.loads((folder / f"second/builds/{first}/manifest.json").read_text())
    (stage,) = (each for each in manifest["lineage"]["stages"] if each["stage"] == "buckets")
    assert stage["parameters"]["from"] == {"name": "q1", "id": record(folder)["id"], "build": first}
    assert stage["parameters"]["by"] == ["language"], "what is not said is what the artifact was fitted with"
    documents = folder / f"second/builds/{first}"
    assert main(["explain", "second", explained(documents)]) == 0
    assert f"q1 ({record(folder)['id']})" in capsys.readouterr().out
    assert "buckets has the artifact" not in refused(capsys, "publish", "second", "nothing", "x")
    assert "has the artifact in 'kept/q1' and fits nothing; copy that folder" in refused(
        capsys, "publish", "second", "buckets", "x"
    )


def explained(build_folder: Path) -> str:
    """Return the id of a document of a build."""
    with pa.ipc.open_file(str(build_folder / "documents-00000.arrow")) as file:
        return file.get_batch(0)["id"][7].as_py()


def test_documents_that_come_later_take_edges_that_are_there(folder: Path, capsys) -> None:
    published(folder, capsys)
    (folder / "c.jsonl").write_text(json.dumps({"text": "late", "quality": 9.0, "language": "de"}) + "\n")
    found = built(folder, capsys, "second", "buckets: {from: kept/q1, name: part, levels: {low: [0, 3], high: [4, 4]}}")
    with pa.ipc.open_file(str(folder / f"second/builds/{found}/documents-00002.arrow")) as file:
        assert file.read_all().select(["part", "part_level"]).to_pylist() == [{"part": 4, "part_level": "high"}]


def test_the_units_are_named_by_the_artifacts_content_wherever_it_lies(folder: Path, capsys) -> None:
    published(folder, capsys)
    assert main(["plan", config(folder, "second", "buckets: {from: kept/q1}"), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    shutil.move("kept/q1", "elsewhere")
    assert main(["plan", config(folder, "second", "buckets: {from: elsewhere}"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"] == plan
    built(folder, capsys, "other", FIT.replace("5", "4"))
    assert main(["publish", "other", "buckets", "kept/q1"]) == 0
    capsys.readouterr()
    assert main(["plan", config(folder, "second", "buckets: {from: kept/q1}"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"] != plan


def test_a_fit_of_somebody_else_is_published_and_taken_too(folder: Path, capsys) -> None:
    first = published(folder, capsys, "mine.py:Shares: {scale: 2.0}", "Shares")
    assert record(folder)["stage"] == "mine.py:Shares" and record(folder)["code"]["code"]
    assert built(folder, capsys, "second", "mine.py:Shares: {from: kept/q1}") == first
    err = refused(capsys, "plan", config(folder, "third", "mine.py:Shares: {from: kept/q1, scale: 3.0}"))
    assert "parameter 'scale' is 3.0, but artifact 'q1' was fitted with 2.0; leave it out" in err
    sys.modules.pop("mine", None)
    Path("mine.py").write_text(OWN + "\n# other code\n")
    from pipeline.planning import code

    code.hash_of.cache_clear()
    err = refused(capsys, "plan", config(folder, "third", "mine.py:Shares: {from: kept/q1}"))
    assert "artifact 'q1' was made by other code than it has now; publish one of a build that was made with this" in err


def test_publishing_again_changes_nothing_and_over_another_is_refused(folder: Path, capsys) -> None:
    published(folder, capsys)
    before = {path.name: path.read_bytes() for path in Path("kept/q1").iterdir()}
    assert main(["publish", "first", "buckets", "kept/q1"]) == 0
    assert "was there already" in capsys.readouterr().err
    built(folder, capsys, "other", FIT.replace("5", "4"))
    assert "holds another artifact" in refused(capsys, "publish", "other", "buckets", "kept/q1")
    assert {path.name: path.read_bytes() for path in Path("kept/q1").iterdir()}.items() >= before.items()
    err = refused(capsys, "publish", "first", "bucket", "x")
    assert "no stage 'bucket' that settles on a model; did you mean 'buckets'? those of this build are buckets" in err


def test_damage_is_said(folder: Path, capsys) -> None:
    published(folder, capsys)
    path = config(folder, "second", "buckets: {from: kept/q1}")
    model = next(Path("kept/q1").glob("model-*.arrow"))
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    err = refused(capsys, "build", path)
    assert f"second.yaml:5:5: stage 'buckets': {model} is damaged: it is not what was published" in err
    model.unlink()
    assert f"{model} is missing; copy the artifact anew" in refused(capsys, "build", path)
    text = Path("kept/q1/artifact.json").read_text()
    Path("kept/q1/artifact.json").write_text(text.replace('"max"', '"min"'))
    assert "is damaged: it is not what was written" in refused(capsys, "plan", path)
    Path("kept/q1/artifact.json").unlink()
    assert "'kept/q1': no artifact there" in refused(capsys, "plan", path)
    assert not Path("second").exists()


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (
            "buckets: {from: kept/q1, weight: documents}",
            "parameter 'weight' is 'documents', but artifact 'q1' was fitted with 'bytes'",
        ),
        ("buckets: {from: kept/q1, levels: {low: [0, 3]}}", "levels must have each of the buckets 0 to 4 once"),
        ("buckets: {from: kept/q1, lvels: {}}", "it has no parameter 'lvels'"),
        ("buckets: {from: [a]}", "'from' must be the folder of an artifact, found a list of 1"),
        ("buckets: {from: nowhere}", "'nowhere': no artifact there"),
        ("mine.py:Shares: {from: kept/q1}", "artifact 'q1' is of stage 'buckets', another"),
        ("dedup_exact: {from: kept/q1}", "it has no parameter 'from'"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_stands(folder: Path, capsys, stage: str, said: str) -> None:
    published(folder, capsys)
    err = refused(capsys, "plan", config(folder, "second", stage))
    assert said in err and "second.yaml:5:" in err and "Traceback" not in err


def test_edges_that_were_found_on_no_score_are_refused_for_documents_that_have_one(folder: Path, capsys) -> None:
    built(folder, capsys, "first", 'keep_if: "quality > 100"', FIT)
    assert main(["publish", "first", "buckets", "kept/q1"]) == 0
    capsys.readouterr()
    assert main(["build", config(folder, "second", "buckets: {from: kept/q1}")]) != 0
    assert "'quality' has quantiles that were found where no document had a score" in capsys.readouterr().err
    nothing = built(folder, capsys, "third", 'keep_if: "quality > 100"', "buckets: {from: kept/q1}")
    assert len(nothing) == 32, "where there is nothing to put into buckets they do no harm"
