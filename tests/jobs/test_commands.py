"""The commands as a person runs them: processes of their own, their two streams, their exit codes, what they leave on disk."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stages import STAGES
from tests.conftest import PAGES, Built, Checkout, newest_record

DEMO = "jobs/recipes/demo.yaml"
LOCAL = ("--set", "run.on=local", "--set", "run.workers=1")
STEPS = ["segment", "reduce", "settle"] * 5 + ["segment"]
UNITS = [2, 1, 1] * 5 + [2]

SHORT = """
name: short
output: build/short
source:
  warc: {paths: "examples/crawl/*.warc.gz"}
stages:
  - extract_html
  - language: {keep: [en, fr, de]}
  - dedup_exact
  - language: {keep: [en], min_score: 0.8}
  - dedup_exact
  - documents
run: {on: local, workers: 1}
"""


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, size and time of change of everything below a folder."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.stat()
        found[str(path.relative_to(folder))] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def planned(checkout: Checkout, *arguments: str) -> dict[str, Any]:
    out, errors = checkout.here("plan", DEMO, "--json", *arguments)
    assert errors == ""
    plan: dict[str, Any] = json.loads(out)
    return plan


@pytest.fixture
def copy(small_build: Built, tmp_path: Path) -> Checkout:
    """A copy of the finished build to change."""
    shutil.copytree(small_build.checkout.folder, tmp_path / "checkout", symlinks=True)
    return Checkout(tmp_path / "checkout")


def test_a_build_says_its_id_and_manifest_on_its_last_line_and_all_else_on_standard_error(small_build: Built) -> None:
    assert re.fullmatch(r"build [0-9a-f]{32} build/demo/builds/[0-9a-f]{32}/manifest\.json\n", small_build.stdout)
    _, build, path = small_build.stdout.split()
    manifest = json.loads((small_build.checkout.folder / path).read_text())
    assert manifest["build"] == build == small_build.id
    assert "9 buckets-score_ngram: 2/2" in small_build.stderr and "15 select-shards: 2/2" in small_build.stderr
    assert "5 dedup_minhash-settle: all 1 done before" in small_build.stderr, "the build of texts did that"
    assert small_build.stderr.splitlines()[-1] == "next: python -m jobs report build/demo"
    assert "Traceback" not in small_build.stderr and "\x1b" not in small_build.stderr


def test_a_rerun_prints_the_same_line_and_touches_nothing(small_build: Built) -> None:
    before = snapshot(small_build.output)
    again = small_build.checkout.jobs("build", DEMO, *LOCAL)
    assert again.stdout == small_build.stdout
    assert "nothing to do" in again.stderr
    assert snapshot(small_build.output) == before


def test_plan_tells_what_is_to_compute_and_writes_nothing(small_build: Built) -> None:
    checkout = small_build.checkout
    told = checkout.jobs("plan", DEMO, "--json", "--set", "output=build/never")
    plan = json.loads(told.stdout)
    assert told.stderr == "" and planned(checkout, "--set", "output=build/never") == plan
    assert [step["kind"] for step in plan["segments"]] == STEPS
    assert [step["units"] for step in plan["segments"]] == UNITS and not any(step["done"] for step in plan["segments"])
    assert plan["segments"][0]["missing"] == sorted(PAGES) and not plan["finished"]
    assert [file["name"] for file in plan["inputs"]] == sorted(PAGES)
    lines = checkout.here("plan", DEMO, "--set", "output=build/never")[0].splitlines()
    assert (
        lines[0].startswith("demo → build/never on ray: 2 input files")
        and lines[-1] == f"run it: python -m jobs build {DEMO} --set output=build/never"
    )
    assert [line.rsplit(": ", 1)[1] for line in lines[1:-1]] == [f"{units} to compute" for units in UNITS]
    assert not (checkout.folder / "build/never").exists()


def test_plan_tells_that_a_finished_build_is_done(small_build: Built) -> None:
    before = snapshot(small_build.output)
    plan = planned(small_build.checkout)
    assert plan["finished"] and [step["done"] for step in plan["segments"]] == UNITS
    lines = small_build.checkout.here("plan", DEMO)[0].splitlines()
    assert lines[-1] == "finished: a rerun computes nothing" and all(line.endswith(": done") for line in lines[1:-1])
    assert snapshot(small_build.output) == before


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ("stages.shards.tokens_per_shard=1000", 15),
        ("stages.select.scores=false", 12),
        ("stages.score_ngram.models.base.order=2", 9),
        ("stages.dedup_minhash.threshold=0.9", 3),
        ("stages.gopher_quality.min_doc_words=10", 0),
        ("run.batch_rows=3", 16),
        ("name=other", 16),
    ],
)
def test_plan_tells_that_a_changed_parameter_changes_what_depends_on_it(small_build: Built, change: str, first: int) -> None:
    plan = planned(small_build.checkout, "--set", change)
    missing = [len(step["missing"]) for step in plan["segments"]]
    assert missing == [0] * first + UNITS[first:] and plan["finished"] == (first == len(UNITS))


def test_a_changed_late_parameter_computes_only_what_plan_said(copy: Checkout, small_build: Built) -> None:
    change = ("--set", "stages.shards.tokens_per_shard=1000")
    output = copy.folder / "build/demo"
    before = snapshot(output)
    out, _ = copy.here("build", DEMO, *LOCAL, *change)
    assert out.split()[1] != small_build.id
    assert [step["done"] for step in newest_record(output)["steps"]] == [0] * 15 + [2]
    after = snapshot(output)
    for name, (inode, size, changed) in before.items():
        if not (output / name).is_dir():
            assert after[name] == (inode, size, changed), name
    units = [name for name in after.keys() - before.keys() if name.startswith("steps/") and name.endswith(".json")]
    assert len(units) == 2
    assert planned(copy, *change)["finished"] and planned(copy)["finished"]


def test_a_changed_input_file_computes_that_shard_and_what_all_shards_decide(copy: Checkout) -> None:
    target = copy.folder / "examples/crawl" / max(PAGES)
    os.utime(target, ns=(1, 1))
    missing = [step["missing"] for step in planned(copy)["segments"]]
    assert missing[0] == [max(PAGES)] and all(missing)
    assert [len(names) for names in missing] == [1, *UNITS[1:]]


def test_stages_lists_them_all_in_order(small_crawl: Checkout) -> None:
    stages, *others = small_crawl.here("stages")[0].split("\n\n")
    lines = stages.splitlines()
    assert [line.split()[0] for line in lines] == list(STAGES)
    kinds = {"source", "map", "filter", "exchange", "fit", "sink"}
    assert {line.split()[1] for line in lines} >= kinds and all(len(line.split()) > 4 for line in lines)
    assert [other.split(":")[0] for other in others] == ["Tokenizer schemes", "Policies", "Keys of the files"]


def test_stages_describes_one_with_its_parameters(small_crawl: Checkout) -> None:
    told, _ = small_crawl.here("stages", "language")
    assert told.startswith("language (map, version 2)\n")
    for line in ("keep: list of text = []", "min_score: number = 0.65", "max_chars: integer or null = null"):
        assert f"  {line}\n" in told
    assert "  paths: text or list of text, required\n" in small_crawl.here("stages", "warc")[0]


def test_stages_knows_what_was_meant(small_crawl: Checkout) -> None:
    out, errors = small_crawl.here("stages", "langage", code=2)
    assert out == ""
    assert errors.startswith("error: unknown stage 'langage'; did you mean 'language'? the stages are warc, ")
    assert small_crawl.here("stages", "xyz", code=2)[1].startswith("error: unknown stage 'xyz'; the stages are warc, ")


def test_report_writes_a_page_beside_the_build(copy: Checkout, small_build: Built) -> None:
    out, errors = copy.here("report", "build/demo")
    page = f"build/demo/builds/{small_build.id}/report.html"
    assert out == "" and errors == f"report: {page}\n"
    text = (copy.folder / page).read_text()
    assert text.startswith("<!doctype html>") and small_build.id[:12] in text
    assert copy.here("report", f"build/demo/builds/{small_build.id}/") == (out, errors)


def test_a_store_that_lost_a_file_stops_a_command_with_a_message(copy: Checkout) -> None:
    lost = newest_record(copy.folder / "build/demo")["steps"][0]["units"][1]
    (copy.folder / "build/demo" / lost).unlink()
    out, errors = copy.here("report", "build/demo", code=3)
    assert out == "" and errors.startswith(f"stopped: build/demo/{lost} was committed and is gone")


def told(small_build: Built) -> dict[str, Any]:
    out, errors = small_build.checkout.here("report", "build/demo", "--json")
    assert errors == ""
    summary: dict[str, Any] = json.loads(out)
    return summary


def manifests(output: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for step in newest_record(output)["steps"]:
        for name in step["units"]:
            yield step["kind"], json.loads((output / name).read_text())


def test_the_ledger_adds_up_and_is_the_sum_of_its_units(small_build: Built) -> None:
    summary = told(small_build)
    stages = {stage["stage"]: stage for stage in summary["stages"]}
    assert list(stages) == [stage["stage"] for stage in small_build.record()["stages"]]
    before = sum(map(len, (page for pages in PAGES.values() for page in pages.values())))
    lost = 0
    for name, stage in stages.items():
        assert stage["in"] == before == stage["kept"] + sum(stage["dropped"].values()) + sum(stage["quarantined"].values()), name
        before = stage["kept"]
        lost += stage["in"] - stage["kept"]
    entered, kept, dropped = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    rows = Counter[str]()
    for kind, manifest in manifests(small_build.output):
        assert kind == "segment" or manifest["ledger"] == []
        for account in manifest["ledger"]:
            gone = sum(account["dropped"].values()) + sum(account["quarantined"].values())
            assert account["in"] == account["kept"] + gone, "in each unit too"
            entered[account["stage"]] += account["in"] * (account["phase"] != "after")
            kept[account["stage"]] += account["kept"] * (account["phase"] != "before")
            dropped.update({(account["stage"], reason): count for reason, count in account["dropped"].items()})
        for role in ("dropped", "quarantined"):
            rows[role] += manifest["outputs"].get(role, {"rows": 0})["rows"]
    for name, stage in stages.items():
        assert (stage["in"], stage["kept"]) == (entered[name], kept[name])
        assert stage["dropped"] == {reason: count for (where, reason), count in sorted(dropped.items()) if where == name}
    assert rows["dropped"] + rows["quarantined"] == lost
    expected = Counter(reason for pages in PAGES.values() for reason, starts in pages.items() for _ in starts)
    assert expected.pop("kept") == summary["documents"]
    assert Counter({reason: count for (_, reason), count in dropped.items()}) == expected


def test_the_shards_of_the_ledger_are_the_files_of_the_build(small_build: Built) -> None:
    summary = told(small_build)
    folder = small_build.output / "builds" / small_build.id
    assert [shard["input"] for shard in summary["shards"]] == sorted(PAGES)
    documents = tokens = 0
    for shard in summary["shards"]:
        content = (folder / shard["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard["sha256"] and len(content) == shard["bytes"]
        table = pa.ipc.open_file(content).read_all()
        documents += table.num_rows
        tokens += sum(map(len, table["input_ids"].to_pylist()))
        assert (table.num_rows, len(table["input_ids"].combine_chunks().values)) == (shard["documents"], shard["tokens"])
        for side in shard["sidecars"].values():
            assert hashlib.sha256((folder / side["file"]).read_bytes()).hexdigest() == side["sha256"]
    assert (documents, tokens) == (summary["documents"], summary["tokens"])


@pytest.fixture(scope="module")
def undisturbed(small_crawl: Checkout) -> str:
    (small_crawl.folder / "short.yaml").write_text(SHORT)
    return small_crawl.here("build", "short.yaml")[0].split()[1]


def _heed_interrupts() -> None:
    # What a shell starts with `&` ignores them, and so does all that it starts.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(checkout: Checkout, line: str, whole_group: bool, *arguments: str) -> tuple[int, str, str]:
    """Start a build, interrupt it (its workers too, as a terminal does) when it says `line`; return exit code and streams."""
    process = subprocess.Popen(
        checkout.command("build", *arguments),
        cwd=checkout.folder,
        env=checkout.environment() | {"PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    )
    with process, contextlib.ExitStack() as at_the_end:
        at_the_end.callback(process.kill)  # where a line does not come, nothing else ends it
        assert process.stderr is not None
        said = ""
        while line not in said:
            more = process.stderr.readline()
            assert more, said
            said += more
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        try:
            out, rest = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # where its threads stand
            out, rest = process.communicate()
    return process.returncode, out, said + rest


WAITING = """
name: waiting
output: build/undisturbed
source:
  jsonl: {paths: "waiting/*.jsonl"}
stages:
  - tests.toy:Waits: {until: waiting/first}
  - dedup_exact
  - tests.toy:Waits: {until: waiting/second}
  - documents
run: {on: local, workers: 1}
"""


def test_an_interrupted_build_says_so_and_goes_on_to_the_same_id(small_crawl: Checkout) -> None:
    """However busy the machine is: what is to be interrupted waits for a file."""
    (small_crawl.folder / "waiting.yaml").write_text(WAITING)
    folder = small_crawl.folder / "waiting"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.jsonl").write_text(f'{{"text": "page {number}"}}\n{{"text": "wait"}}\n')
    (folder / "first").touch()
    (folder / "second").touch()
    undisturbed = small_crawl.here("build", "waiting.yaml")[0].split()[1]
    (folder / "first").unlink()
    (folder / "second").unlink()
    arguments = ("waiting.yaml", "--set", "output=build/interrupted")
    ended = [interrupt(small_crawl, "0 jsonl-dedup_exact: 2 of 2 to do", True, *arguments)]
    (folder / "first").touch()
    ended.append(interrupt(small_crawl, "-documents: 2 of 2 to do", False, *arguments))
    (folder / "second").touch()
    for code, out, errors in ended:
        assert (code, out) == (130, ""), errors
        assert errors.splitlines()[-1] == "interrupted: what is done is kept; run the same command again to go on"
        assert "Traceback" not in errors
    out, errors = small_crawl.here("build", *arguments)
    assert out.split()[1] == undisturbed
    assert "0 jsonl-dedup_exact: all 2 done before" in errors


def test_a_shard_that_cannot_be_read_fails_alone(small_crawl: Checkout, undisturbed: str) -> None:
    # Reading its first byte is an input/output error, as on a broken disk.
    paths = "source.warc.paths=[examples/crawl/docs-00000.warc.gz, examples/crawl/docs-00001.warc.gz, /proc/self/mem]"
    arguments = ("short.yaml", "--set", "output=build/broken")
    out, errors = small_crawl.here("build", *arguments, "--set", paths, "--set", "run.retries=0", code=3)
    assert out == ""
    lines = errors.splitlines()
    assert lines[-1] == "not built: 1 unit failed; mend the cause and run `python -m jobs build short.yaml` again"
    assert "0 warc-dedup_exact: mem failed: OSError: [Errno 5] Input/output error" in lines
    out, errors = small_crawl.here("build", *arguments)
    assert out.split()[1] == undisturbed
    assert "0 warc-dedup_exact: all 2 done before" in errors


def test_a_stage_used_twice_has_two_accounts(small_crawl: Checkout, undisturbed: str) -> None:
    ledger = json.loads(small_crawl.here("report", "build/short", "--json")[0])
    names = ["warc", "extract_html", "language", "dedup_exact", "language-2", "dedup_exact-2", "documents"]
    assert [stage["stage"] for stage in ledger["stages"]] == names
    for before, after in itertools.pairwise(ledger["stages"]):
        assert before["kept"] == after["in"]
    dropped = ledger["samples"]["language-2"]["language_score"][0]
    told, _ = small_crawl.here("explain", "build/short", dropped["id"])
    assert "language: kept" in told and "language-2: dropped: language_score" in told
