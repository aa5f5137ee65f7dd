"""Configs: what loads, and one clear message with its place for each mistake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import ConfigError, InputError, UserError
from jobs.config.build_config import Build, Run, build, load
from jobs.config.yaml_nodes import from_data, parse, plain, resolve
from pipeline.resources import Resources
from pipeline.stage import Filter, Map, Sink, Source, Stage


@dataclass(frozen=True, kw_only=True)
class Warc(Source):
    """A source with the inherited parameter only."""


@dataclass(frozen=True, kw_only=True)
class Extract(Map):
    """No parameters."""


@dataclass(frozen=True, kw_only=True)
class Language(Filter):
    """Columns, ranges, optional and repeated parameters."""

    keep: tuple[str, ...] | None = None
    min_score: float = 0.65
    model: str | None = None
    fast: bool = False
    label: Literal["short", "long"] = "short"
    characters: int = 1000

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score must be from 0 to 1, found {self.min_score}")
        if self.keep == ():
            raise ValueError("no language would be kept")

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"language": pa.string()}

    def replaces(self) -> tuple[str, ...]:
        return ("language",)


@dataclass(frozen=True, kw_only=True)
class Encode(Map):
    """A required path that is checked when planning."""

    tokenizer: str

    def check(self) -> None:
        if "missing" in self.tokenizer:
            raise InputError(f"tokenizer {self.tokenizer!r}: no such folder")

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"tokens": pa.list_(pa.uint16())}


@dataclass(frozen=True, kw_only=True)
class Ngram:
    """A kind of reference."""

    order: int = 3


@dataclass(frozen=True, kw_only=True)
class Causal:
    """Another kind of reference."""

    model: str


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Exactly one kind of reference, chosen by its key."""

    ngram: Ngram | None = None
    causal: Causal | None = None

    def __post_init__(self) -> None:
        if (self.ngram is None) == (self.causal is None):
            raise ValueError("give one of ngram, causal")


@dataclass(frozen=True, kw_only=True)
class Score(Map):
    """Nested parameters; needs what others add; has a pool."""

    def resources(self) -> Resources:
        return Resources()

    scheme: Literal["rho1", "eslm"] = "rho1"
    reference: Reference
    weights: dict[str, float] | None = None
    share: float | tuple[float, float] = 0.6

    def needs(self) -> tuple[str, ...]:
        return ("tokens", "language")


@dataclass(frozen=True, kw_only=True)
class Shards(Sink):
    """The sink."""

    tokens_per_shard: int = 50_000_000


KNOWN: dict[str, type[Stage]] = {
    "warc": Warc,
    "extract_html": Extract,
    "language": Language,
    "encode": Encode,
    "score": Score,
    "shards": Shards,
}

GOOD = """\
name: demo
output: build/demo
source:
  warc: {paths: "examples/crawl/*.warc.gz"}
stages:
  - extract_html
  - language: {keep: [en, no], min_score: 1}
  - encode: {tokenizer: build/tokenizers/superbpe-8k}
  - score:
      scheme: rho1
      reference: {ngram: {order: 3}}
      weights: {nll: 1, on: 5e-1}
  - shards: {tokens_per_shard: 50_000_000}
run: {on: ray, memory_per_worker: 512MiB}
"""


def loaded(tmp_path: Path, text: str, overrides: Mapping[str, str] | None = None) -> Build:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, overrides, KNOWN)


def test_a_good_config(tmp_path: Path) -> None:
    made = loaded(tmp_path, GOOD)
    assert (made.name, made.output, made.source_name) == ("demo", "build/demo", "warc")
    assert made.source == Warc(paths="examples/crawl/*.warc.gz")
    assert made.stages == (
        ("extract_html", Extract()),
        ("language", Language(keep=("en", "no"), min_score=1.0)),
        ("encode", Encode(tokenizer="build/tokenizers/superbpe-8k")),
        ("score", Score(reference=Reference(ngram=Ngram(order=3)), weights={"nll": 1.0, "on": 0.5})),
        ("shards", Shards(tokens_per_shard=50_000_000)),
    )
    assert made.run == Run(on="ray", memory_per_worker="512MiB") and made.run.memory_bytes == 512 * 2**20
    assert isinstance(dict(made.stages)["language"].min_score, float)  # type: ignore[attr-defined]
    assert made.places[-1] == f"{tmp_path}/a.yaml:4:3" and made.places[1] == f"{tmp_path}/a.yaml:7:5"


def test_the_text_of_a_build_is_plain_has_the_defaults_and_loads_again(tmp_path: Path) -> None:
    made = loaded(tmp_path, GOOD, {"run.workers": "2"})
    assert made.text["stages"][1]["language"]["characters"] == 1000 and made.text["run"]["workers"] == 2
    again = loaded(tmp_path, json.dumps(made.text))
    assert (again.stages, again.source, again.run, again.text) == (made.stages, made.source, made.run, made.text)


def test_a_list_of_paths_and_a_named_union(tmp_path: Path) -> None:
    made = loaded(tmp_path, GOOD.replace('"examples/crawl/*.warc.gz"', "[a.gz, b.gz]").replace("scheme: rho1", "share: [0, 1]"))
    assert made.source.paths == ("a.gz", "b.gz")
    assert dict(made.stages)["score"].share == (0.0, 1.0)  # type: ignore[attr-defined]


def test_anchors_are_understood(tmp_path: Path) -> None:
    made = loaded(tmp_path, GOOD.replace("name: demo", "name: &n demo").replace("build/demo", "*n"))
    assert made.output == "demo"


@pytest.mark.parametrize(
    ("key", "value", "get", "expected"),
    [
        ("run.on", "local", lambda b: b.run.on, "local"),
        ("run.workers", "2", lambda b: b.run.workers, 2),
        ("output", "s3://bucket/x y", lambda b: b.output, "s3://bucket/x y"),
        ("source.warc.paths", "[a, b]", lambda b: b.source.paths, ("a", "b")),
        ("stages.language.min_score", "0.7", lambda b: b.stages[1][1].min_score, 0.7),
        ("stages.1.language.fast", "true", lambda b: b.stages[1][1].fast, True),
        ("stages.language.keep.1", "nn", lambda b: b.stages[1][1].keep, ("en", "nn")),
        ("stages.score.reference.ngram.order", "5", lambda b: b.stages[3][1].reference.ngram.order, 5),
    ],
)
def test_overrides(tmp_path: Path, key: str, value: str, get: Any, expected: object) -> None:
    assert get(loaded(tmp_path, GOOD, {key: value})) == expected


def test_pools(tmp_path: Path) -> None:
    run = "run: {on: ray, pools: {score: {actors: 4, gpus: 0.5}}}\n"
    made = loaded(tmp_path, GOOD.rpartition("run:")[0] + run, {"run.pools.score.cpus": "2"})
    assert made.run.pools == {"score": Resources(actors=4, gpus=0.5, cpus=2.0)}
    assert loaded(tmp_path, json.dumps(made.text)).run == made.run
    assert loaded(tmp_path, GOOD, {"run.pools.score.gpus": "1"}).run.pools == {"score": Resources(gpus=1.0)}


def test_an_override_adds_what_the_file_leaves_out(tmp_path: Path) -> None:
    text = GOOD.replace("run: {on: ray, memory_per_worker: 512MiB}\n", "").replace(": {tokens_per_shard: 50_000_000}", "")
    made = loaded(tmp_path, text, {"run.workers": "3", "stages.shards.tokens_per_shard": "1000"})
    assert made.run.workers == 3 and made.stages[-1][1] == Shards(tokens_per_shard=1000)


# what is replaced in GOOD, by what; where the message must point; what it must say
MISTAKES = [
    # the file's own keys
    ("stages:\n", "stagse:\n", "5:1", ["unknown key 'stagse'", "did you mean 'stages'?", "name, output, source, stages, run"]),
    ("name: demo\n", "", "1:1", ["'name' is missing"]),
    ("name: demo", "name:", "1:6", ["'name' must be text", "nothing (null)"]),
    ("name: demo", "name: 7", "1:7", ["'name' must be text", "the integer 7"]),
    ("output: build/demo", 'output: " "', "2:9", ["'output' must be text", "' '"]),
    ("name: demo", "name: demo\nname: other", "2:1", ["'name' is given twice", "line 1"]),
    ("run: {on", "language: {}\nrun: {on", "14:1", ["unknown key 'language'", "is a stage", "`stages:`"]),
    ("run: {on", "{a: b}: {on", "14:1", ["a key must be text", "a mapping with 'a'"]),
    # the source
    ("warc:", "wrac:", "4:3", ["unknown source 'wrac'", "did you mean 'warc'?"]),
    ("warc:", "language:", "4:3", ["'language' is a stage, not a source", "the sources are warc"]),
    ("  warc: {paths", "  warc: {}\n  x: {paths", "4:3", ["the source must be one name", "'warc', 'x'"]),
    ('{paths: "examples/crawl/*.warc.gz"}', "{}", "4:9", ["'paths' is missing", "text or a list (text each)"]),
    ('"examples/crawl/*.warc.gz"', "[a, 5]", "4:21", ["'paths[1]' must be text", "the integer 5", 'in quotes: "5"']),
    # stage names and their form
    ("- extract_html", "- extract-htm", "6:5", ["unknown stage 'extract-htm'", "did you mean 'extract_html'?", "encode, score"]),
    ("- extract_html", "- xyz", "6:5", ["unknown stage 'xyz'; the stages are extract_html"]),
    ("- extract_html", "- warc: {paths: a}", "6:5", ["'warc' is a source, not a stage", "`source:`"]),
    ("- extract_html", "- 5", "6:5", ["must be one name", "the integer 5"]),
    ("- encode: {tok", "- encode:\n      {tok", None, None),  # a control: this one is right
    (
        "- encode: {tokenizer: build",
        "- encode:\n    tokenizer: {build",
        "8:5",
        ["'tokenizer' is a parameter of 'encode', indent it"],
    ),
    # parameters
    (
        "min_score",
        "min_scroe",
        "7:32",
        ["stage 'language'", "'min_scroe'", "did you mean 'min_score'?", "keep, min_score, model"],
    ),
    ("- extract_html", "- extract_html: {fast: true}", "6:20", ["no parameter 'fast'", "it takes no parameters"]),
    ("{tokenizer: build/tokenizers/superbpe-8k}", "", "8:12", ["parameter 'tokenizer' is missing", "it is text"]),
    ("- encode: {tokenizer: build/tokenizers/superbpe-8k}", "- encode", "8:5", ["parameter 'tokenizer' is missing"]),
    ("{tokenizer: build/tokenizers/superbpe-8k}", "[a]", "8:13", ["must be a mapping", "a list of 1"]),
    ("min_score: 1", "min_score: high", "7:43", ["must be a number", "the text 'high'"]),
    ("min_score: 1", 'min_score: "1"', "7:43", ["must be a number", "the text '1'", "remove the quotes"]),
    ("min_score: 1", "min_score: 3", "7:43", ["stage 'language': min_score must be from 0 to 1, found 3"]),
    ("[en, no]", "[]", "7:15", ["stage 'language': no language would be kept"]),
    ("[en, no]", "en", "7:22", ["'keep' must be a list (text each) or null", "write [en]"]),
    ("min_score: 1", "fast: yes", "7:38", ["must be true or false", "the text 'yes'", "did you mean true?"]),
    ("min_score: 1", "label: shrt", "7:39", ["one of short, long", "'shrt'", "did you mean 'short'?"]),
    ("min_score: 1", "characters: 1e3", "7:44", ["an integer", "the number 1e3", "did you mean 1_000?"]),
    ("min_score: 1", "characters: true", "7:44", ["an integer", "found true"]),
    ("min_score: 1", "min_score: 1, min_score: 0", "7:46", ["'min_score' is given twice"]),
    ("order: 3", "ordre: 3", "11:27", ["stage 'score': 'reference.ngram' has no parameter 'ordre'", "did you mean 'order'?"]),
    ("order: 3", "order: x", "11:34", ["'reference.ngram.order' must be an integer"]),
    ("{ngram: {order: 3}}", "{ngrm: {order: 3}}", "11:19", ["no parameter 'ngrm'", "did you mean 'ngram'?"]),
    ("{ngram: {order: 3}}", "{}", "11:18", ["give one of ngram, causal"]),
    ("{ngram: {order: 3}}", "{causal: {}}", "11:27", ["parameter 'reference.causal.model' is missing"]),
    ("nll: 1", "nll: one", "12:22", ["'weights.nll' must be a number"]),
    ("scheme: rho1", "share: [0, 1, 2]", "10:14", ["must be a list of 2: a number, a number", "a list of 3"]),
    # run
    ("{on: ray", "{on: rya", "14:11", ["run: parameter 'on' must be one of local, ray", "did you mean 'ray'?"]),
    ("{on: ray", "{workers: 0", "14:16", ["run: workers must be at least 1, found 0"]),
    ("512MiB", "much", "14:35", ["memory_per_worker must be bytes or text such as 4GB", "'much'"]),
    ("{on: ray", "{wokers: 2", "14:7", ["no parameter 'wokers'", "did you mean 'workers'?"]),
    # the order of stages
    (
        "  - shards: {tokens_per_shard: 50_000_000}\n",
        "",
        "9:5",
        ["the last stage must be one that writes, found 'score'; those that write are shards"],
    ),
    ("- extract_html", "- shards", "6:5", ["'shards'", "must be the last, found before 'shards-2'"]),
    (
        "  - language: {keep: [en, no], min_score: 1}\n",
        "",
        "8:5",
        ["stage 'score' needs column 'language', which no stage above it", "is added by stage 'language', put it before 'score'"],
    ),
    (
        "  - score:\n",
        "  - encode: {tokenizer: build/tokenizers/other}\n  - score:\n",
        "9:5",
        ["stage 'encode-2' adds column 'tokens', which stage 'encode' gives already; give one of the two another name"],
    ),
    ("  - extract_html", "  - score: {reference: {ngram: }}", "6:24", ["stage 'score': give one of ngram, causal"]),
    (
        "  - extract_html",
        "  - score: {reference: {ngram: {}}}",
        "6:5",
        ["stage 'score' needs column 'tokens'", "by stage 'encode'; put it before 'score'"],
    ),
    # files
    ("build/tokenizers", "missing", "8:5", ["stage 'encode': tokenizer 'missing/superbpe-8k': no such folder"]),
    # YAML itself
    ("name: demo", "name: a: b", "1:8", ["not valid YAML", "quote text that contains ': '"]),
    ("  - extract_html", "\t- extract_html", "6:1", ["not valid YAML", "spaces, not tabs"]),
    ("[en, no]", "[en, no", "7:43", ["not valid YAML"]),
    ("name: demo", "name: *other", "1:7", ["not valid YAML", "other"]),
    ("name: demo", "name: !!python/name:os.system x", "1:7", ["tags are not supported"]),
    ("name: demo", "name: &a [*a]", "1:7", ["an anchor that contains itself"]),
    ("run: {on", "---\nrun: {on", "14:1", ["not valid YAML", "one file holds one config"]),
    ("name: demo", "name: de\x07mo", "1:9", ["U+0007"]),
    (GOOD, "", "1:1", ["the file is empty"]),
    (GOOD, "# only a comment\n", "1:1", ["the file is empty"]),
    (GOOD, "- a\n- b\n", "1:1", ["must be a mapping", "a list of 2"]),
    (GOOD, "name\n", "1:1", ["must be a mapping", "the text 'name'"]),
    (GOOD[GOOD.index("stages:") : GOOD.index("run:")], "stages: []\n", "5:9", ["'stages' must be a list", "found a list of 0"]),
    (
        GOOD[GOOD.index("stages:") : GOOD.index("run:")],
        "stages: {shards: {}}\n",
        "5:9",
        ["'stages' must be a list", "a mapping with"],
    ),
]


@pytest.mark.parametrize(("old", "new", "where", "says"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes(tmp_path: Path, old: str, new: str, where: str | None, says: list[str] | None) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if where is None:
        loaded(tmp_path, text)
        return
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    message = str(caught.value)
    assert caught.value.place == f"{tmp_path}/a.yaml:{where}", message
    assert message.startswith(caught.value.place + ": ") and "\n" not in message
    for part in says or []:
        assert part in message, message


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("rnu.on", "local", ["--set rnu.on: unknown key 'rnu'", "did you mean 'run'?"]),
        ("run.wokers", "2", ["--set run.wokers: run: it has no parameter 'wokers'", "did you mean 'workers'?"]),
        ("run.workers", "two", ["--set run.workers: run: parameter 'workers' must be an integer", "'two'"]),
        (
            "run.pools.scores.gpus",
            "1",
            ["'pools' names 'scores', no stage with a pool; did you mean 'score'? those that"],
        ),
        ("run.pools.language.gpus", "1", ["'pools' names 'language', no stage with a pool; those that have one are score"]),
        ("run.pools.score.gpu", "1", ["'pools.score' has no parameter 'gpu'; did you mean 'gpus'?"]),
        ("run.pools.score.gpus", "1.5", ["gpus must be 0, a fraction of 1 to four digits, or a whole number, found 1.5"]),
        ("run.pools.score.actors", "0", ["actors must be at least 1, found 0"]),
        ("stages.langage.fast", "true", ["--set stages.langage.fast: no entry 'langage'", "did you mean 'language'?"]),
        ("stages.9", "x", ["--set stages.9: no entry '9'"]),
        ("output", "", ["--set output: 'output' must be text"]),
        ("run..on", "ray", ["'run..on' has an empty part"]),
        ("run.on", "[ray", ["--set run.on: not valid YAML"]),
    ],
)
def test_mistakes_in_overrides(tmp_path: Path, key: str, value: str, says: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, GOOD, {key: value})
    assert caught.value.place == f"--set {key}"
    for part in says:
        assert part in str(caught.value)


def test_a_stage_that_is_there_twice_needs_its_index(tmp_path: Path) -> None:
    text = GOOD.replace("- extract_html", "- language")
    with pytest.raises(ConfigError, match=r"'language' is there 2 times; use its index: 0 or 1"):
        loaded(tmp_path, text, {"stages.language.fast": "true"})
    assert loaded(tmp_path, text, {"stages.0.language.fast": "true"}).stages[0][1] == Language(fast=True)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(InputError, match=r"does not exist; did you mean '.*/demo\.yaml'\?"):
        load(tmp_path / "dmeo.yaml", known=KNOWN)
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path, known=KNOWN)
    with pytest.raises(ConfigError, match=r"demo\.yaml:1:1: byte 0xe9 is not UTF-8"):
        load(tmp_path / "demo.yaml", known=KNOWN)


def test_build_makes_any_dataclass_and_keeps_the_cause() -> None:
    assert build(Ngram, parse("order: 0x10", "r.yaml"), "recipe") == Ngram(order=16)
    with pytest.raises(ConfigError, match=r"r\.yaml:1:1: recipe: it has no parameter 'odrer'; did you mean 'order'\?"):
        build(Ngram, parse("odrer: 1", "r.yaml"), "recipe")
    with pytest.raises(UserError) as caught:
        build(Language, parse("min_score: -1", "r.yaml"), "recipe")
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("true", True), ("False", False), ("~", None), ("null", None),
        ("1_000", 1000), ("-12", -12), ("012", 12), ("0o17", 15), ("0xff", 255), ("1e-3", 0.001), (".5", 0.5), ("1.", 1.0),
        ("-.inf", float("-inf")), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("'5'", "5"), ('"true"', "true"), 
        ("1.2.3", "1.2.3"),         ("=", "="), ("0b11", "0b11"), ("0x_", "0x_"), ("0o__", "0o__"), ("0x_f", 15),
        ("9" * 4301, "9" * 4301), ("1" + "_" * 4301, "1" + "_" * 4301),
    ],
    ids=range(28),
)  # fmt: skip
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = resolve(parse(text, "t"))
    assert found == value == resolve(from_data(value, "t")) and type(found) is type(value)


# PyYAML reads JSON's escapes of characters above U+FFFF as two surrogates.
TEXT = st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT


@given(st.recursive(SCALARS, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text("abcdeno", min_size=1), x, max_size=4)))
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert plain(parse(json.dumps(value), "t")) == value == plain(from_data(value, "t"))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("heartbeat", "0", "heartbeat must be seconds above 0, or null, found 0"),
        ("stalled_after", "-1", "stalled_after must be seconds above 0"),
        ("stalled_after", ".inf", "stalled_after must be seconds above 0"),
        ("replace_stalled", "maybe", "replace_stalled"),
    ],
)
def test_the_seconds_of_silence_are_checked(key: str, value: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        loaded(tmp_path, GOOD, {f"run.{key}": value})


def test_replacing_what_stalls_needs_to_know_after_what_time(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="replace_stalled needs stalled_after"):
        loaded(tmp_path, GOOD, {"run.stalled_after": "null", "run.replace_stalled": "true"})
    run = loaded(tmp_path, GOOD, {"run.heartbeat": "null", "run.stalled_after": "30", "run.replace_stalled": "true"}).run
    assert (run.heartbeat, run.stalled_after, run.replace_stalled) == (None, 30, True)
