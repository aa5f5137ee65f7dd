"""Builds that rephrase by a real endpoint in trouble: the same bytes, the same account, nothing lost, nothing asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.rephrasing.endpoint import Endpoint
from gristmill.rephrasing.prompt import read_prompt
from jobs.__main__ import main
from pipeline.schema import DOCUMENT, document_id, made_id
from pipeline.units.bisection import work_through
from stages.rephrase.rephrase import Rephrase
from tests.chat_server import ChatServer, chat_server
from tests.conftest import ROOT
from tests.contract.running import Canned
from tests.contract.world import SPLITS, state
from tests.s3_servers import free_port

TEXTS = [
    "The old mill stands at the river, where the water turns its wheel.",
    "Bakers buy flour from the mill and bake bread of it in the morning.",
    "A flood came in the spring and carried the wooden bridge away, so that carts from the villages on the far side had to go "
    "all the way round by the ford until the carpenters had built another bridge of oak in the following year.",
    "The miller keeps a cat, for mice like the grain as much as he does.",
    "In summer the river is low, and the stones rest until it rains again.",
]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as found:
        yield found


def config(folder: Path, url: str, *, texts: Sequence[str] = TEXTS, behind: Sequence[Any] = (), **parameters: Any) -> str:
    """Write documents, and the config of a build that rephrases them; return its path."""
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    endpoint = {"url": url, "longest_wait": 0.05, "attempts": 3, **parameters.pop("endpoint", {})}
    rephrase = {"endpoint": endpoint, "model": "small", "prompts": ["distill"], **parameters}
    content = {
        "name": "t",
        "output": str(folder / "out"),
        "source": {"jsonl": {"paths": str(folder / "*.jsonl")}},
        "stages": [{"rephrase": rephrase}, *behind, "documents"],
        "run": {"workers": 1, "batch_rows": parameters.pop("batch_rows", 256)},
    }
    path = folder / "build.yaml"
    path.write_text(json.dumps(content))
    return str(path)


def built(capsys: pytest.CaptureFixture[str], path: str) -> tuple[str, list[dict[str, Any]]]:
    """Build; return the id and the documents."""
    assert main(["build", path]) == 0, capsys.readouterr().err
    _, build, manifest = capsys.readouterr().out.splitlines()[-1].split()
    files = sorted(Path(manifest).parent.glob("documents-*.arrow"))
    return build, [row for file in files for row in pa.ipc.open_file(file).read_all().to_pylist()]


def stage_of(capsys: pytest.CaptureFixture[str], path: str, name: str = "rephrase") -> dict[str, Any]:
    """Return the account of the stage in the report for machines."""
    assert main(["report", json.loads(Path(path).read_text())["output"], "--json"]) == 0
    (found,) = [stage for stage in json.loads(capsys.readouterr().out)["stages"] if stage["stage"] == name]
    return dict(found)


def identify(row: int) -> str:
    return document_id("in.jsonl", sum(len(json.dumps({"text": text})) + 1 for text in TEXTS[:row]))


def test_a_document_of_each_answer_with_where_it_is_from(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, docs = built(capsys, config(tmp_path, server.url, prompts=["distill", "table"], keep_original=True))
    expected = [
        (name, parent, prompt)
        for row in range(len(TEXTS))
        for name, parent, prompt in (
            (identify(row), None, None),
            (made_id(identify(row), 1), identify(row), "distill"),
            (made_id(identify(row), 2), identify(row), "table"),
        )
    ]
    assert [(doc["id"], doc["parent"], doc["prompt"]) for doc in docs] == expected
    assert [doc["text"] for doc in docs[::3]] == TEXTS
    for doc in docs[1::3]:
        assert doc["text"].startswith("This is the answer with the number") and "exactly" not in doc["text"]
        assert (doc["prompt_hash"], doc["model"], doc["segment"]) == (read_prompt("distill").hash, "small", 0)
    assert docs[0]["model"] is None and docs[0]["segment"] is None


def test_a_long_document_is_asked_about_in_segments(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\n".join(f"{line} It is line {number} of many." for number, line in enumerate(TEXTS * 10))
    _, docs = built(capsys, config(tmp_path, server.url, texts=[text], prompts=["wikipedia"]))
    assert [doc["segment"] for doc in docs] == list(range(len(docs))) and len(docs) > 1
    assert "\n".join(server.passages()).split() != [] and sorted("\n".join(server.passages()).split()) == sorted(text.split())


GUARDED = {
    "mill stands": ("Sorry, but I cannot rewrite this.", "refusal"),
    "Bakers": ("Here is the condensed passage:\nShort.", "too_short"),
    "flood": (f"Here is the condensed passage:\n{TEXTS[2]}", "copy"),
    "cat": ("Something else altogether. " * 20, "preamble_missing"),
    "summer": (
        "Here is the condensed passage:\n"
        + "Im Sommer steht der Fluss niedrig, und die Mühlsteine ruhen, bis es im Herbst endlich wieder regnet. " * 3,
        "language_changed",
    ),
}


def test_each_guard_gives_its_reason_and_all_are_accounted_for(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.texts = {word: text for word, (text, _) in GUARDED.items()}
    texts = [*TEXTS, "The long story of the mill never ends.", "A page that is too long.", "A page that breaks the model."]
    server.finishes = {"long story": "length"}
    server.always = {"too long": "400", "breaks": "500"}
    path = config(tmp_path, server.url, texts=texts)
    assert main(["build", path]) == 0
    capsys.readouterr()
    stage = stage_of(capsys, path)
    assert stage["dropped"] == {**dict.fromkeys((reason for _, reason in GUARDED.values()), 1), "cut": 1}
    assert stage["quarantined"] == {"endpoint_failed": 1, "endpoint_refused": 1}
    assert stage["in"] == 8 and stage["kept"] == 0 and not stage.get("made") and stage["asked"]["answers"] == 8


def test_a_later_stage_another_use_and_another_endpoint_ask_nothing_again(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, docs = built(capsys, config(tmp_path, server.url))
    before = stage_of(capsys, str(tmp_path / "build.yaml"))
    _, filtered = built(
        capsys, config(tmp_path, server.url, behind=[{"gopher_quality": {"min_doc_words": 5, "min_stop_words": 0}}])
    )
    assert {doc["text"] for doc in filtered} <= {doc["text"] for doc in docs}
    _, kept = built(capsys, config(tmp_path, server.url, keep_original=True))
    assert [doc["text"] for doc in kept[1::2]] == [doc["text"] for doc in docs]
    assert stage_of(capsys, str(tmp_path / "build.yaml"))["asked"] == before["asked"]
    assert server.passages() == dict.fromkeys(TEXTS, 1)
    server.down = "500"
    assert built(capsys, config(tmp_path, server.url, endpoint={"concurrency": 3}))[0] == first, "the endpoint is in no name"
    (tmp_path / "two.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    server.down = None
    _, more = built(capsys, config(tmp_path, server.url))
    assert [doc["text"] for doc in more[:5]] == [doc["text"] for doc in docs] and len(more) == 6
    assert more[5]["text"] != more[0]["text"], "equal texts of two documents have answers of their own"


def test_another_prompt_or_temperature_asks_for_its_own_answers_alone(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built(capsys, config(tmp_path, server.url))
    built(capsys, config(tmp_path, server.url, prompts=["distill", "faq"]))
    assert len(server.bodies) == 10
    built(capsys, config(tmp_path, server.url, temperature=0.1, seed=7, max_tokens=300, options={"top_p": 0.5}))
    assert len(server.bodies) == 15
    said = {key: server.bodies[-1][key] for key in ("model", "temperature", "seed", "max_tokens", "top_p")}
    assert said == {"model": "small", "temperature": 0.1, "seed": 7, "max_tokens": 300, "top_p": 0.5}


def test_documents_that_are_not_chosen_pass_as_they_are(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, docs = built(capsys, config(tmp_path, server.url, only="text like '%mill%' and url is null"))
    chosen = ["mill" in text for text in TEXTS]
    assert [doc["id"] for doc in docs] == [made_id(identify(row), 0) if yes else identify(row) for row, yes in enumerate(chosen)]
    assert [doc["text"] for doc in docs if doc["prompt"] is None] == [
        text for text, yes in zip(TEXTS, chosen, strict=True) if not yes
    ]
    assert server.passages() == {text: 1 for text, yes in zip(TEXTS, chosen, strict=True) if yes}
    _, unsure = built(capsys, config(tmp_path, server.url, only="length(url) > 3"))
    assert [doc["text"] for doc in unsure] == TEXTS, "null is not true"


def test_each_prompt_may_be_for_some_documents_alone(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mills = {"prompt": "wikipedia", "only": "contains(text, 'mill')"}
    _, docs = built(capsys, config(tmp_path, server.url, prompts=[mills, {"prompt": "faq", "only": "contains(text, 'river')"}]))
    expected = [
        (text, [name for name, word in (("wikipedia", "mill"), ("faq", "river")) if word in text] or [None]) for text in TEXTS
    ]
    assert [doc["prompt"] for doc in docs] == [prompt for _, prompts in expected for prompt in prompts]
    assert [doc["parent"] for doc in docs if doc["prompt"] is None] == [None] * sum(prompts == [None] for _, prompts in expected)
    assert server.passages() == {text: sum(map(bool, prompts)) for text, prompts in expected if prompts != [None]}


def test_explain_tells_the_numbers_that_decided(server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.texts = {word: text for word, (text, _) in GUARDED.items()}
    path = config(tmp_path, server.url)
    built(capsys, path)
    output = json.loads(Path(path).read_text())["output"]
    for row, words in ((1, ("dropped: too_short", "answer_tokens", "50")), (2, ("dropped: copy", "copied", "max_copied"))):
        assert main(["explain", output, identify(row)]) == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in words), shown


def test_trouble_leaves_no_trace_but_in_the_time_it_takes(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.trouble = {
        "mill stands": ["429 0.05", "cut"],
        "Bakers": ["nonsense", "500"],
        "flood": ["reset"],
        "cat": ["empty", "503"],
    }
    path = config(tmp_path, server.url)
    _, docs = built(capsys, path)
    assert len(docs) == 5 and stage_of(capsys, path)["quarantined"] == {}
    assert server.passages() == dict.fromkeys(TEXTS, 1)


def test_a_build_that_is_killed_asks_for_what_is_missing_alone(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With tables of one document each answer is put before the next is asked for."""
    path = config(tmp_path, server.url)
    content = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps({**content, "run": {"workers": 1, "batch_rows": 1}}))
    server.always = {"cat": "slow"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobs", "build", path]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while len(list((tmp_path / "out").glob("answers/*/*/*.jsonl.gz"))) < 3 or server.under_way == 0:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert server.passages() == dict.fromkeys(TEXTS[:3], 1)
    server.always = {}
    build, docs = built(capsys, path)
    assert server.passages() == dict.fromkeys(TEXTS, 1)
    account = stage_of(capsys, path)["asked"]
    again, same = built(capsys, config(tmp_path, server.url, behind=[{"save": {}}]))
    assert (again, same) == (build, docs), "the same bytes, in tables of another size"
    assert stage_of(capsys, path)["asked"] == account and len(server.bodies) == 5


def test_workers_on_ray_ask_too(server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, server.url)
    content = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps({**content, "run": {"on": "ray", "workers": 2}}))
    build, docs = built(capsys, path)
    assert len(docs) == 5 and server.passages() == dict.fromkeys(TEXTS, 1)
    Path(path).write_text(json.dumps({**content, "output": str(tmp_path / "other"), "run": {"on": "ray", "workers": 2}}))
    server.down = "503"
    assert main(["build", path]) == 3
    assert "is down: HTTP 503" in capsys.readouterr().err
    assert built(capsys, config(tmp_path, server.url, behind=["save"])) == (build, docs), "as is made here of the same answers"


def test_an_endpoint_that_is_down_stops_the_build_and_a_rerun_goes_on(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, f"http://127.0.0.1:{free_port()}/v1")
    assert main(["build", path]) == 3
    err = capsys.readouterr().err
    assert "stopped: endpoint http://127.0.0.1" in err and "is down: ClientConnectorError" in err and "Traceback" not in err
    assert "what is done is kept; run the same command again to go on" in err
    _, docs = built(capsys, config(tmp_path, server.url))
    assert len(docs) == 5


def test_a_budget_stops_the_build_and_a_higher_one_goes_on(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = {"price_in": 100_000.0, "price_out": 200_000.0, "concurrency": 1}  # 0.1 and 0.2 a token
    path = config(tmp_path, server.url, endpoint={**prices, "budget": 600.0})
    assert main(["build", path]) == 3
    err = capsys.readouterr().err
    assert "stopped: the budget of 600 has no room for the next request" in err and "run the same command again" in err
    assert 0 < len(server.bodies) < 5
    some = len(server.bodies)
    assert main(["build", path]) == 3, "the same budget has no room still"
    assert len(server.bodies) == some
    path = config(tmp_path, server.url, endpoint={**prices, "budget": 6000.0})
    _, docs = built(capsys, path)
    assert len(docs) == 5 and server.passages() == dict.fromkeys(TEXTS, 1)
    asked = stage_of(capsys, path)["asked"]
    told = [(len(body["messages"][0]["content"]) // 4) for body in server.bodies]
    assert asked["answers"] == 5 and asked["tokens_in"] == sum(told)
    assert asked["cost_millionths"] == asked["tokens_in"] * 100_000 + asked["tokens_out"] * 200_000


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"prompts": ["distil"]}, 2, "prompt 'distil' is no file, and none of the package's"),
        ({"prompts": []}, 2, "prompts must be one or several, found none"),
        ({"endpoint": {"api_key_env": "NO_SUCH_KEY"}}, 2, "the environment variable NO_SUCH_KEY is not set"),
        ({"endpoint": {"budget": 3.0}}, 2, "budget must be above 0, beside price_in and price_out"),
        ({"options": {"seed": 3}}, 2, "options must not hold 'seed'"),
        ({"only": "quality >="}, 2, "the expression cannot be read"),
        ({"only": "quality >= 18"}, 2, "quality"),
        ({"only": "url"}, 2, "url"),
        ({"prompts": [{"prompt": "faq", "only": "quality > 1"}]}, 2, "needs column 'quality', which no stage above it adds"),
        ({"prompts": [{"prompt": "faq", "only": "url"}]}, 2, "url"),
        ({"prompts": [{"prompt": "faq", "only": "1 = 1"}]}, 2, "only: the expression names no column"),
        ({"prompts": ["faq", {"prompt": "faq", "only": "length > 3"}]}, 2, "prompts: two of them are called 'faq'"),
        ({"tokenizer": "nowhere"}, 2, "nowhere"),
        ({"model": "gone"}, 2, "HTTP 404"),
    ],
)
def test_mistakes_end_with_one_message(
    change: Mapping[str, Any], code: int, said: str, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.down = "404" if "model" in change else None
    assert main(["build", config(tmp_path, server.url, **change)]) == code
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err and not server.bodies


def test_no_secret_is_in_any_record(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_KEY", "sk-very-secret")
    server.always = {"flood": "422"}
    built(capsys, config(tmp_path, server.url, endpoint={"api_key_env": "CHAT_KEY"}))
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-very-secret"}
    assert [file for file in tmp_path.rglob("*") if file.is_file() and b"very-secret" in file.read_bytes()] == []


def test_explain_tells_what_was_made_and_asks_nobody(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, server.url, keep_original=True)
    _, docs = built(capsys, path)
    server.down = "500"
    output = json.loads(Path(path).read_text())["output"]
    for doc in docs[:2]:
        assert main(["explain", output, doc["id"]]) == 0
        assert doc["text"][:40] in capsys.readouterr().out
    for chunk in (tmp_path / "out").glob("answers/*/*/*.jsonl.gz"):
        chunk.unlink()
    assert main(["explain", output, docs[0]["id"]]) == 2
    assert "no answer is kept to 1 of 1 questions, and nobody is asked now" in capsys.readouterr().err


def test_no_split_of_the_documents_into_tables_shows_in_the_output() -> None:
    stage = Rephrase(endpoint=Endpoint(url="http://127.0.0.1:1/v1"), model="m", prompts=("distill", "table"), keep_original=True)
    work = stage.open()
    texts = [*TEXTS * 5, "", " ", "é" * 9000]
    rows = [
        {"id": document_id("f", at), "file": "f", "offset": at, "length": 0, "media": "text/plain", "text": text}
        for at, text in enumerate(texts)
    ]
    docs = pa.Table.from_pylist(rows, schema=DOCUMENT)

    def done(table: pa.Table) -> pa.Table:
        return work_through("rephrase", stage, lambda each: work(each, Canned()), table, {}, None, careful=False).table

    expected = done(docs)
    assert expected.num_rows > 60 and expected["drop"].null_count < expected.num_rows
    for split, cut in SPLITS.items():
        assert state(pa.concat_tables([done(table) for table in cut(docs) if table.num_rows])) == state(expected), split
    assert done(docs.slice(0, 0)).schema == expected.schema
