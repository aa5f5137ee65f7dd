"""One clear message with its place for each mistake in a config or an override."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.errors import ConfigError
from tests.jobs.config.known import GOOD, loaded

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
