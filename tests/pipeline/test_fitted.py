"""A Fit with an artifact is a map: what the machine makes of it, in a plan, in pools, on stores, and in what travels to nodes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import InputError
from gristmill.storage.store import expand
from pipeline import artifact as artifacts
from pipeline.artifact import Artifact, id_of, model_name
from pipeline.engines.cargo import travelling
from pipeline.engines.drive import Options, drive
from pipeline.engines.examine import modules_of
from pipeline.engines.local import LocalEngine
from pipeline.fitted import Fitted
from pipeline.planning.fingerprint import code_of, describe, digest, origin, parameters
from pipeline.planning.plan import Plan, make_plan
from pipeline.records import pack_plain
from pipeline.stage import Named
from pipeline.units.segment import Task
from tests.contract.running import met
from tests.s3_servers import BUCKET, moto, use
from tests.toy import Files, Lines, Share, Short, documents

LINES = ["apple", "avocado", "banana", "cherry", "to", "blue"]


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    for name, lines in {"a": LINES[:3], "b": LINES[3:]}.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    return tmp_path


def publish_shares(folder: str) -> Artifact:
    """Publish what the toy Fit settles on for the lines."""
    model = met(Share(), [[documents("x", LINES)]])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, model.schema) as out:
        out.write_table(model)
    content = bytes(sink.getvalue())
    sha256, code = hashlib.sha256(content).hexdigest(), code_of(Share)
    about = {"stage": "tests.toy:Share", "code": code, "parameters": {}, "files": {}, "build": "0" * 32}
    made = Artifact(name="shares", id=id_of(code, sha256), model=model_name(sha256), sha256=sha256, bytes=len(content), **about)
    assert artifacts.publish(made, content, folder) and not artifacts.publish(made, content, folder)
    return made


def fitted(folder: str) -> Fitted:
    return Fitted(fit=Share(), artifact=artifacts.read(folder), folder=folder)


def plan_of(crawl: Path, stage: Fitted | Share) -> Plan:
    paths = f"{crawl}/*.txt"
    stages: list[Named] = [("lines", Lines(paths=paths)), ("share", stage), ("short", Short()), ("files", Files())]
    return make_plan("t", stages, expand(paths))


def test_it_is_a_map_in_the_plan_and_says_what_the_fit_says(crawl: Path) -> None:
    made = publish_shares(str(crawl / "kept"))
    stage = fitted(str(crawl / "kept"))
    (step,) = plan_of(crawl, stage).steps
    assert [name for name, _ in step.spec.all()] == ["lines", "share", "short", "files"]
    assert (stage.adds(), stage.needs(), stage.resources()) == (Share().adds(), (), Share().resources())
    assert set(step.spec.pools({})) == {"share"}, "a model with processes of its own keeps them"
    assert parameters(stage) == {"from": {"name": "shares", "id": made.id, "build": "0" * 32}}
    assert digest(describe(stage)) != digest(describe(Share())) and origin(stage) == origin(Share())
    again = Fitted(fit=Share(), artifact=made, folder="elsewhere")
    assert digest(describe(again)) == digest(describe(stage)), "where it lies leaves no trace"
    (lineage,) = (each for each in plan_of(crawl, stage).lineage().stages if each.stage == "share")
    assert lineage.version == Share.version


@pytest.mark.parametrize("workers", [0, 1])
def test_documents_are_those_of_the_build_that_fitted(workers: int, crawl: Path) -> None:
    publish_shares(str(crawl / "kept"))
    found = {
        drive(plan_of(crawl, stage), lambda count=count: LocalEngine(count), Options(str(crawl / out))).build
        for stage, count, out in ((Share(), 0, "one"), (fitted(str(crawl / "kept")), workers, "other"))
    }
    assert len(found) == 1 and None not in found


def test_its_code_travels_to_nodes(crawl: Path) -> None:
    publish_shares(str(crawl / "kept"))
    stage = fitted(str(crawl / "kept"))
    assert travelling([stage]) == travelling([Share()]) != ()
    plan = plan_of(crawl, stage)
    step = plan.steps[0]
    assert "tests.toy" in modules_of(Task(str(crawl / "out"), step.spec, step.units[0], 2, 10))
    assert [Path(file).name for file in stage.files()] == ["artifact.json", stage.artifact.model]


def test_damage_ends_a_unit_that_opens_it(crawl: Path) -> None:
    made = publish_shares(str(crawl / "kept"))
    stage = fitted(str(crawl / "kept"))
    (crawl / "kept" / made.model).write_bytes(b"other")
    with pytest.raises(InputError, match="is damaged: it is not what was published"):
        stage.open()
    with pytest.raises(InputError, match="is damaged: it is not what was published"):
        stage.check()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "x"}, "format 'x', version 1; expected 'gristmill artifact', 1"),
        ({"version": 2}, "version 2; expected"),
        ({"model": "../../x"}, "'model' is '../../x', must match"),
        ({"sha256": "x"}, "'sha256' is 'x', must match"),
        ({"parameters": []}, "'parameters' must be an object, found a list of 0"),
        ({"id": "../x"}, "'id' is '../x', must match"),
    ],
)
def test_a_forged_record_is_named_with_the_key(change: dict[str, object], said: str, tmp_path: Path) -> None:
    publish_shares(str(tmp_path / "kept"))
    path = tmp_path / "kept/artifact.json"
    content = {key: value for key, value in json.loads(path.read_text()).items() if key != "check"}
    path.write_bytes(pack_plain({**content, **change}))
    with pytest.raises(InputError) as raised:
        artifacts.read(str(tmp_path / "kept"))
    assert said in str(raised.value)


def test_an_artifact_on_s3(crawl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with moto() as port:
        use(monkeypatch, port)
        folder = f"s3://{BUCKET}/models/shares"
        publish_shares(folder)
        stage = fitted(folder)
        stage.check()
        assert stage.files() == (f"{folder}/artifact.json", f"{folder}/{stage.artifact.model}")
        found = stage.open()(documents("x", LINES))
        assert found["share"].to_pylist() == [2 / 6, 2 / 6, 2 / 6, 1 / 6, 1 / 6, 2 / 6]
