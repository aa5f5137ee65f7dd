"""README and docs/: each block of code runs or is checked, each link leads somewhere, each figure is what the commands print."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import re
import shlex
import struct
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from examples import read_batches
from gristmill.storage.store import open_store
from jobs.__main__ import main, parser_of
from jobs.build.plan import plan_of
from jobs.config import build_config
from jobs.config.run import Run
from jobs.reference.recipe import read_recipe as read_model_recipe
from jobs.tokenizer.train import read_recipe
from pipeline.builds.summary import summarize
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.records import read_run
from stages import STAGES
from tests.conftest import ROOT, Built
from tests.fenced_blocks import Block, read_blocks
from tests.gristmill.test_tools import HEADINGS

README = "README.md"
PAGES = sorted([README, "CHANGELOG.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
LANGUAGES = {"python", "yaml", "console", "bash"}
GAP = "…"
DEMO = "What came out"  # the section whose figures are those of the whole demo


RUN_ELSEWHERE = (
    "docs/extend.md",
    "docs/buckets.md",
    "docs/classify.md",
    "docs/classifiers.md",
    "docs/decisions.md",
)  # in a folder of their own: tests/test_extend.py, and test_<page>_page.py
BLOCKS = [block for page in PAGES if page not in RUN_ELSEWHERE for block in read_blocks(page)]


def of(language: str, *, demo: bool = False) -> Any:
    found = [block for block in BLOCKS if block.language == language and (block.heading == DEMO) == demo]
    assert found or demo
    return pytest.mark.parametrize("block", found, ids=[f"{block.page}:{block.line}" for block in found])


def commands(block: Block) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the words of each command of a console block with the lines that it is said to print."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *printed = part.splitlines()
        yield shlex.split(command), printed


def masked(line: str) -> str:
    """Return the line with every figure and hash replaced."""
    return re.sub(r" *\b[\d,.]*\d", " #", re.sub(r"\b[0-9a-f]{32}\b", "0", line))


def assert_printed(expected: list[str], found: str, *, shape: bool = False) -> None:
    """The lines are there in this order, next to each other except where `…` stands between them."""
    lines = [masked(line) if shape else line for line in found.rstrip().splitlines()]
    at, loose = 0, False
    for line in expected:
        if line == GAP:
            loose = True
            continue
        wanted = masked(line) if shape else line
        assert wanted in lines[at:], f"{wanted!r} is not in\n" + "\n".join(lines[at:])
        where = lines.index(wanted, at)
        assert loose or where == at, f"{wanted!r} stands after {lines[at]!r}"
        at, loose = where + 1, False
    assert loose or at == len(lines), f"printed behind it: {lines[at:]}"


@pytest.fixture
def checkout(small_build: Built, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the small build, as the current directory."""
    folder = small_build.checkout.folder
    monkeypatch.chdir(folder)
    return folder


def put_config(page: str, folder: Path) -> Path:
    """Write the config that a page shows, under the name by which its commands call it."""
    path = folder / "mine.yaml"
    path.write_text(next(block.text for block in BLOCKS if block.page == page and block.language == "yaml"))
    return path


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {block.language for block in BLOCKS} == LANGUAGES
    assert {block.page for block in BLOCKS} >= {README, "docs/config.md", "docs/format.md"}


@of("yaml")
def test_configs_load(block: Block, checkout: Path) -> None:
    path = checkout / "block.yaml"
    path.write_text(block.text)
    if re.search(r"^scheme:", block.text, re.MULTILINE):
        assert read_recipe(str(path)).settings.output
    elif re.search(r"^model:", block.text, re.MULTILINE):
        assert read_model_recipe(str(path)).output
    else:
        build = build_config.load(path)
        assert plan_of(build).steps


@of("console")
def test_commands_print_what_is_shown(block: Block, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_config(block.page, checkout)
    for words, printed in commands(block):
        assert words[:3] == ["python", "-m", "jobs"] and words[3] in {"plan", "stages", "explain"}, words
        code = main(words[3:])
        out = capsys.readouterr()
        assert code == (2 if out.err else 0)
        assert_printed(printed, out.out + out.err)


@of("bash")
def test_commands_are_real(block: Block, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_config(block.page, checkout)
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:3] == ["python", "-m", "jobs"]:
            parsed = parser_of(words[3]).parse_args(words[3:])
            if words[3] == "train-reference":  # of minutes; tests/jobs trains
                assert read_model_recipe(words[4])
                continue
            if words[3] == "prune":
                words = [word for word in words if word != "--yes"]  # the build is for other tests too
            runs = ["plan", *(word for word in words[4:] if word != "--verify")] if words[3] == "build" else words[3:]
            assert main(runs) == 0, (parsed, capsys.readouterr().err)
        else:
            assert words[:2] in (["ray", "up"], ["docker", "build"], ["kubectl", "create"]), line
            named = [word for word in words if word.startswith("infra/")]
            assert named and all((ROOT / word).is_file() for word in named), line


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:^    |`)make ([a-z]+)", (ROOT / page).read_text(), re.MULTILINE)}
    assert {"demo", "test"} <= named <= targets


def python(page: str, heading: str) -> str:
    (text,) = (block.text for block in BLOCKS if (block.page, block.language, block.heading) == (page, "python", heading))
    return text


def test_every_python_block_is_run_below() -> None:
    run = {(README, "Read it from training code"), (README, "Add a stage"), *(("docs/format.md", each) for each in HEADINGS)}
    run |= {("docs/reading.md", each) for each in ("Opening", "Batches", "In torch")}
    run |= {("docs/reference_models.md", "Using it"), ("docs/upsampling.md", "Reading")}
    run |= {(f"docs/{page}.md", "In training and serving code") for page in ("tokenizers", "scoring")}
    assert {(block.page, block.heading) for block in BLOCKS if block.language == "python"} == run


def test_reading(checkout: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(python(README, "Read it from training code"), README, "exec"), names)
    assert names["batch"].loss_mask.any() and names["state"]["sample"] == 16 and len(names["state"]) == 6


def test_reading_in_detail(checkout: Path) -> None:
    names: dict[str, Any] = {}
    for heading in ("Opening", "Batches", "In torch"):
        exec(compile(python("docs/reading.md", heading), "docs/reading.md", "exec"), names)
    assert len(names["sample"]["input_ids"]) == 1024 and names["loss"].isfinite()
    assert next(names["other"]).samples[0] == 64


def test_upsampling(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The build that is shown reads its budget in an epoch, each token as often as its document says, and the report has it."""
    (text,) = (block.text for block in BLOCKS if (block.page, block.language) == ("docs/upsampling.md", "yaml"))
    (checkout / "upsampled.yaml").write_text(text)
    assert main(["build", "upsampled.yaml"]) == 0
    names: dict[str, Any] = {}
    exec(compile(python("docs/upsampling.md", "Reading"), "docs/upsampling.md", "exec"), names)
    dataset, manifest = names["dataset"], names["manifest"]
    capsys.readouterr()
    assert main(["report", "build/upsampled", "--json", "--verify"]) == 0
    summary = json.loads(capsys.readouterr().out)
    ledger = next(stage for stage in summary["stages"] if stage["stage"] == "upsample")
    (curve,) = summary["repeats"]["about"]["groups"].values()
    assert ledger["dropped"].keys() == {"not_sampled"} and ledger["kept"] == manifest.documents
    assert curve["documents"] == ledger["in"] and curve["read"] == manifest.epoch_tokens == summary["repeats"]["tokens"]
    seen: Counter[tuple[str, int]] = Counter()
    for sequence in range(len(dataset)):
        with contextlib.suppress(IndexError):  # padding, where a pass ends
            for place in range(256):
                address = dataset.locate(sequence, place)
                seen[address.file, address.row] += 1
    folder = next((checkout / "build/upsampled/builds").glob("*/manifest.json")).parent
    counts: dict[tuple[str, int], dict[str, int]] = {}
    for shard in manifest.shards:
        assert shard.repeats is not None
        counted = pa.ipc.open_file(folder / shard.repeats.file).read_all().to_pylist()
        counts |= {(shard.file, row): each for row, each in enumerate(counted)}
        assert abs(manifest.epoch_tokens - 1.5 * curve["weight"]) <= max(each["tokens"] for each in counted)
    assert seen == Counter({address: each["repeats"] * each["tokens"] for address, each in counts.items()})
    times, file, row = max((each["repeats"], shard, row) for (shard, row), each in counts.items() if each["tokens"])
    number = [shard.file for shard in manifest.shards].index(file)
    assert main(["explain", "build/upsampled", "--token", f"{number}:{row}:0"]) == 0
    assert f"read {times} times an epoch" in capsys.readouterr().out and times > 1
    assert 1 < names["mean"] == manifest.epoch_tokens / manifest.tokens and len(names["passes"]) > 1


def test_a_tokenizer_in_training_code(checkout: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(python("docs/tokenizers.md", "In training and serving code"), "docs/tokenizers.md", "exec"), names)
    assert names["text"] == "that is the question" and names["prompt"][-1] == names["tokenizer"].special_tokens["<|endoftext|>"]
    assert 0 < max(names["prompt"]) < names["rows"] and len(names["second"]) < len(names["text"])


def test_a_reference_model_is_used_as_is_shown(checkout: Path, tmp_path: Path) -> None:
    (text,) = (block.text for block in BLOCKS if (block.page, block.language) == ("docs/reference_models.md", "yaml"))
    shown = yaml.safe_load(text)
    small = {"hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate": 32}
    less = {"model": {"shape": small}, "steps": 1, "length": 32, "batch_tokens": 128, "rows": 4, "device": "cpu", "peak": 1e-3}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**shown, **less}))
    assert main(["train-reference", str(tmp_path / "small.yaml")]) == 0
    names: dict[str, Any] = {}
    exec(compile(python("docs/reference_models.md", "Using it"), "docs/reference_models.md", "exec"), names)
    assert names["loss"].isfinite() and names["first"] == {"policy": "eos", "id": 0}
    assert names["record"]["data"]["conditions"] == ["language == 'en'", "500 <= text_bytes <= 200000"]


def test_models_in_code() -> None:
    names: dict[str, Any] = {}
    exec(compile(python("docs/scoring.md", "In training and serving code"), "docs/scoring.md", "exec"), names)
    assert names["languages"] == ["en", "fr"] and names["found"].scores.shape == (2, 2)


def test_reading_without_us(small_build: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_build.output / "builds" / small_build.id)
    names: dict[str, Any] = {}
    for heading in ("pyarrow", "The tokenizer"):
        exec(compile(python("docs/format.md", heading), "docs/format.md", "exec"), names)
    assert names["table"].num_rows > 0 and len(names["stream"]) == len(names["losses"]) > 0
    assert names["table"]["input_ids"][0].as_py()[-1] == names["manifest"]["tokenizer"]["eos_id"] and len(names["text"]) > 100


def test_the_stage_works_in_a_build(small_build: Built, texts: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits.py").write_text(python(README, "Add a stage"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(small_build.checkout.folder)
    written = importlib.import_module("digits")
    written.test_digits()
    shown = re.search(r"`- (digits: \{.*?\})`", (ROOT / README).read_text())
    assert shown
    path = tmp_path / "digits.yaml"
    source = 'source: {warc: {paths: "examples/crawl/*.warc.gz"}}'
    path.write_text(f"name: digits\noutput: {tmp_path}/out\n{source}\nstages: [extract_html, {{{shown[1]}}}, documents]\n")
    build = build_config.load(path, {}, {**STAGES, "digits": written.Digits})
    outcome = drive(plan_of(build), lambda: LocalEngine(0), Options(build.output))
    assert outcome.record is not None
    store = open_store(build.output)
    ledger = summarize(store, read_run(store, f"runs/{Path(outcome.record).name}"))["stages"][2]
    many = sum(sum(c in "0123456789" for c in text) > 0.02 * len(text) for text in texts["text"].to_pylist())
    assert 0 < many < texts.num_rows
    assert (ledger["in"], ledger["dropped"]) == (texts.num_rows, {"digits": many})


@of("console", demo=True)
def test_the_demo_prints_such_lines(
    block: Block, small_build: Built, checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, built), (reading, read) = commands(block)
    assert_printed([line for line in built if line != GAP], small_build.stdout, shape=True)
    monkeypatch.setattr("sys.argv", reading[2:])
    read_batches.main()
    assert_printed(read, capsys.readouterr().out, shape=True)


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of `make demo`, if this checkout has one that its code, config and crawl would make again."""
    monkeypatch.chdir(ROOT)
    output = Path("build/demo")
    if not (output / "finished").is_dir() or not Path("build/tokenizers/superbpe-8k/recipe.json").is_file():
        pytest.skip("there is no build/demo to compare the figures with: run `make demo`")
    if not (output / plan_of(build_config.load("jobs/recipes/demo.yaml")).finished()).is_file():
        pytest.skip("build/demo is by other code or another config than this: run `make demo`")
    return output


@of("console", demo=True)
def test_the_figures_are_what_the_demo_prints(
    block: Block, demo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (building, built), (reading, read) = commands(block)
    assert main(building[3:]) == 0
    assert_printed([line for line in built if line != GAP], capsys.readouterr().out)
    monkeypatch.setattr("sys.argv", reading[2:])
    read_batches.main()
    assert_printed(read, capsys.readouterr().out)


def test_the_funnel_is_that_of_the_demo(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(demo), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    text = (ROOT / README).read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \|(.*)\|$", text, re.MULTILINE)
    shown = [
        (stage, int(taken), int(kept), {reason: int(n) for reason, n in re.findall(r"`(\w+)` (\d+)", dropped)})
        for stage, taken, kept, dropped in rows
    ]
    assert shown == [(each["stage"], each["in"], each["kept"], each["dropped"]) for each in summary["stages"]]
    tokens, size = summary["tokens"], summary["text_bytes"]
    assert f"{size:,} bytes of text became {tokens:,} tokens: {size / tokens:.2f} bytes per token" in " ".join(text.split())
    held_out = json.loads((demo.parent / "tokenizers/superbpe-8k/recipe.json").read_text())["tokenizer"]["bytes_per_token"]
    assert f"({held_out:.2f} on the few" in " ".join(text.split())


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)|(?:src|srcset)=\"([^\"]+)\"", text):
        path = target[0] or target[1]
        assert "://" in path or ((ROOT / page).parent / path).exists(), path
    used, defined = set(re.findall(r"\]\[(\w+)\]", text)), set(re.findall(r"^\[(\w+)\]: ", text, re.MULTILINE))
    assert used == defined


def test_pictures_are_light() -> None:
    sizes = set()
    for path in (ROOT / "docs/images").glob("*.png"):
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) <= 300_000
        sizes.add(struct.unpack(">II", data[16:24]))
    assert len(sizes) == 1, "light and dark are the same picture"


def test_ratios_name_real_rows_of_benchmarks() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| `(\w+)` \| .* \| ([\d.]+)(?: \([\d.]+-[\d.]+\))? \|$", (ROOT / README).read_text(), re.MULTILINE
    )
    assert rows
    for name, row, _ in rows:
        assert f'"{row}"' in (ROOT / "benchmarks" / f"{name}.py").read_text()


def test_what_the_reader_needs_is_what_is_said() -> None:
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert sorted(re.split(r"[^a-z]", line)[0] for line in needed) == ["fsspec", "numpy", "pyarrow"]


def test_the_run_section_is_described_whole() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `?([\w{}]+)`? \|", (ROOT / "docs/config.md").read_text(), re.MULTILINE)
    defaults = {name: getattr(Run(), name) for name in (field.name for field in dataclasses.fields(Run))}
    assert rows == [(name, shown(value)) for name, value in defaults.items()]


def shown(value: Any) -> str:
    """Return a default as YAML has it."""
    if value is None or value is False:
        return "null" if value is None else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_keys_for_machines_are_there(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join((ROOT / "docs/config.md").read_text().split())
    for command, arguments in (("plan", "jobs/recipes/demo.yaml"), ("report", "build/demo")):
        said = re.search(rf"`{command} --json` prints (.*?) - |`{command} --json` prints (.*?)\. A benchmark", text)
        assert said
        assert main([command, arguments, "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        inner = printed["segments"][0] if command == "plan" else printed["stages"][0]
        names = set(re.findall(r"`(\w+)`", said[1] or said[2]))
        assert names and names <= printed.keys() | inner.keys()
