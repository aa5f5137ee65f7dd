"""The page: what it shows is what the ledger says, crawl text stays text, and nothing is loaded from anywhere."""

import base64
import copy
import hashlib
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.report.page import TEMPLATES, faults, page
from tests.jobs.reading import Reader, measure, sample, stage

HOSTILE = "<script>alert('text')</script> <img src=x onerror=alert(1)> & \"quoted\" \x00\x1b \u202eback\u202c ]]> --> </style> …"
EVIL_URL = "http://evil.test/?q=\"><script>alert('url')</script>"
EVIL_REASON = 'odd"reason<b>'


@pytest.fixture
def summary():
    draw = random.Random(7)
    stages = [
        stage("warc", 840, {}, {"undecodable": 3}, paths="examples/crawl/*.warc.gz"),
        stage("extract_html", 837, {"empty": 11, EVIL_REASON: 1}, {"killed its worker": 1}),
        stage("language", 824, {"wrong_language": 97, "low_score": 40}, keep=["en", "fr", "de"], min_score=0.65),
        stage("gopher_quality", 687, {f"rule_{i}": 2 + i for i in range(12)}),
        stage("dedup_minhash", 597, {"near_duplicate": 69}, ngram=5),
        stage("encode", 528, tokenizer="build/tokenizers/superbpe-8k"),
        stage("shards", 528, tokens_per_shard=50_000_000),
    ]
    lengths = [int(draw.lognormvariate(7, 1.2)) + 1 for _ in range(528)]
    files = ["docs-00000", "docs-00001"]
    return {
        "build": "b7c41f0e92ad5d13",
        "name": "demo <& co>",
        "manifest": "builds/b7c41f0e92ad5d13/manifest.json",
        "run": {"started": "2025-11-22T02:14:07Z", "seconds": 31.42, "on": "ray", "workers": 2, "version": "0.1.0"},
        "inputs": [
            {"name": f"{f}.warc.gz", "uri": f"examples/crawl/{f}.warc.gz", "bytes": 3_225_001 + i} for i, f in enumerate(files)
        ],
        "stages": stages,
        "steps": [
            {
                "name": "1 warc … gopher_quality",
                "kind": "segment",
                "stages": [],
                "units": 12,
                "reused": 5,
                "cpu_s": 20.5,
                "wall_s": 11.25,
                "bytes": 3_412_003,
            },
            {
                "name": "2 dedup_minhash",
                "kind": "reduce",
                "stages": [],
                "units": 4,
                "reused": 4,
                "cpu_s": 0.5,
                "wall_s": 0.25,
                "bytes": 19_001,
            },
        ],
        "samples": {
            "extract_html": {"empty": [sample(1, "  \n", "http://a.test/1")], EVIL_REASON: [sample(2, HOSTILE, EVIL_URL)]},
            "language": {"low_score": [sample(3, "x" * 5000, "javascript:alert(1)"), sample(4, "bonjour", None)]},
            "dedup_minhash": {"near_duplicate": [sample(5, "twin", "https://b.test/twin")]},
        },
        "quarantine": [{**sample(9, "", EVIL_URL), "stage": "extract_html", "error": "RecursionError: <deep>"}],
        "measures": {
            "language.language": {"kind": "category", "counts": {"en": 500, "fr": 20, "<de>": 8}},
            "language.language_score": measure([draw.random() for _ in range(528)], pa.float64()),
            "encode.n_tokens": measure(lengths, pa.int64()),
            "dedup_minhash.minhash_cluster_size": measure([1] * 500 + [2] * 20 + [43], pa.int64()),
            "score.excess": measure([draw.gauss(0.4, 4) for _ in range(3000)], pa.float64()),
            "made_up.share_of_x": measure([0.5, 0.5], pa.float64()),
            "made_up.nothing": {"kind": "number", "count": 0, "sum": 0, "min": None, "max": None, "bins": []},
        },
        "shards": [
            {
                "file": f"{f}-0.tokens.arrow",
                "documents": 264,
                "tokens": 371_001 + i,
                "text_bytes": 1_654_388 + i,
                "bytes": 751_003 + i,
                "sha256": hashlib.sha256(f.encode()).hexdigest(),
                "input": f"{f}.warc.gz",
                "sidecars": {"scores-rho1": {"file": f"{f}-0.scores-rho1.arrow"}},
            }
            for i, f in enumerate(files)
        ],
        "tokens": 742_003,
        "documents": 528,
        "text_bytes": 3_308_777,
    }


@pytest.fixture
def read(summary):
    return Reader(page(summary, "build/my demo"))


def test_nothing_is_loaded_from_anywhere(read, summary):
    assert not read.attributes("src") and not read.attributes("srcset") and not read.attributes("action")
    assert not {"link", "iframe", "object", "embed", "img", "base", "form"} & {name for name, _ in read.elements}
    urls = {s["url"] for reasons in summary["samples"].values() for shown in reasons.values() for s in shown} | {
        q["url"] for q in summary["quarantine"]
    }
    outside = [(name, target) for name, target in read.attributes("href") if not target.startswith("#")]
    assert outside and all(
        name == "a" and target in urls and target.startswith(("http://", "https://")) for name, target in outside
    )
    for kind in ("style", "script"):
        (content,) = read.raw[kind]
        assert not any(word in content for word in ("http:", "https:", "url(", "@import", "fetch(", "XMLHttpRequest", "import("))


def test_links_inside_the_page_lead_somewhere_and_ids_are_unique(read):
    ids = [value for _, value in read.attributes("id")]
    assert len(ids) == len(set(ids))
    inside = {target[1:] for _, target in read.attributes("href") if target.startswith("#")}
    assert inside <= set(ids) and {"flow", "quarantine"} < inside and any(name.startswith("drop-") for name in inside)


def test_crawl_text_stays_text(read, summary):
    (script,) = read.raw["script"]
    assert script == (TEMPLATES / "report.js").read_text() and len([e for e, _ in read.elements if e == "script"]) == 1
    assert not [key for _, found in read.elements for key in found if key.startswith("on")]
    for shown in (
        HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd"),
        EVIL_URL,
        EVIL_REASON,
        "javascript:alert(1)",
        summary["name"],
    ):
        assert shown in read.text
    assert not {"b>", "script>"} & {name for name, _ in read.elements}
    assert "x" * 600 in read.text and "x" * 601 not in read.text


def test_the_policy_allows_our_script_alone(read):
    (script,) = read.raw["script"]
    (policy,) = [found["content"] for name, found in read.elements if found.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy


def test_headline_and_flow_show_the_ledgers_figures(read, summary):
    cpu = sum(s["cpu_s"] for s in summary["stages"])
    assert read.figures["headline"] == [840, 528, 742_003, 3_308_777 / 742_003, 31.42, cpu, 6_450_003]
    expected = []
    for s in summary["stages"]:
        expected += [s["in"], s["kept"], sum(s["dropped"].values()), sum(s["quarantined"].values())]
        expected += sorted(s["dropped"].values(), reverse=True) + sorted(s["quarantined"].values(), reverse=True)
    assert read.figures["flow"] == expected
    assert "840 in = 528 kept + 308 dropped + 4 quarantined" in read.text


def test_every_reason_is_listed_with_its_samples_and_commands(read, summary):
    counts = [n for s in summary["stages"] for n in s["dropped"].values()]
    offsets = [s["offset"] for reasons in summary["samples"].values() for shown in reasons.values() for s in shown]
    assert sorted(read.figures["dropped"]) == sorted(counts + offsets)
    for number in (1, 2, 3, 4, 5):
        assert f"python -m jobs explain 'build/my demo' {number:032x}" in read.text
    assert all(f"rule_{i}" in read.text for i in range(12))


def test_measures_show_count_mean_and_range(read, summary):
    expected = []
    for m in summary["measures"].values():
        if m["kind"] == "category":
            expected += m["counts"].values()
        elif m["count"]:
            expected += [m["sum"] / m["count"], m["min"], m["max"], m["count"]] + ([m["min"]] if m["min"] == m["max"] else [])
    assert sorted(read.figures["content"]) == sorted(expected)
    assert "Share of x" in read.text and "Every value is 0.5" in read.text


def test_time_shards_quarantine_and_lineage_show_the_ledgers_figures(read, summary):
    assert read.figures["quarantine"] == [summary["quarantine"][0]["offset"]]
    times = []
    for s in summary["stages"]:
        times += [s["cpu_s"], s["wall_s"], s["in"], s["in"] / s["cpu_s"], s["in"] / s["wall_s"]]
    times += [value for s in summary["steps"] for value in (s["units"], s["cpu_s"], s["wall_s"], s["bytes"])]
    assert read.figures["time"] == times
    assert "5 reused" in read.text and "all reused" in read.text
    assert read.figures["shards"] == [
        v for s in summary["shards"] for v in (s["documents"], s["tokens"], s["text_bytes"] / s["tokens"], s["bytes"])
    ]
    assert [
        found["data-copy"] for _, found in read.elements if found.get("data-copy") in {s["sha256"] for s in summary["shards"]}
    ]
    assert read.figures["lineage"] == [i["bytes"] for i in summary["inputs"]]
    assert '["en", "fr", "de"]' in read.text and "build/tokenizers/superbpe-8k" in read.text and "version 2" in read.text


def test_tokens_by_language_where_the_ledger_has_them(summary):
    summary["languages"] = {
        "fr": {"documents": 28, "tokens": 2, "text_bytes": 9},
        "en": {"documents": 500, "tokens": 7, "text_bytes": 21},
    }
    assert Reader(page(summary, ".")).figures["content"][-6:] == [500, 7, 3.0, 28, 2, 4.5]


def test_a_sound_ledger_raises_no_alarm(read, summary):
    assert faults(summary) == [] and not read.attributes("role").count(("div", "alert"))
    assert "Every document is accounted for" in read.text and "missing" not in read.text


@pytest.mark.parametrize(
    ("where", "key", "value", "says"),
    [
        (3, "kept", 590, "gopher_quality took in 687, but 590 kept + 90 dropped + 0 quarantined = 680: 7 documents are missing."),
        (3, "kept", 600, "687, but 600 kept + 90 dropped + 0 quarantined = 690: 3 too many."),
        (4, "in", 600, "dedup_minhash took in 600 documents, but gopher_quality before it kept 597."),
        (None, "documents", 527, "The build holds 527 documents, but its last stage shards kept 528."),
    ],
)
def test_a_ledger_that_does_not_add_up_is_shown_as_broken(summary, where, key, value, says):
    (summary if where is None else summary["stages"][where])[key] = value
    read = Reader(page(summary, "."))
    assert ("div", "alert") in read.attributes("role")
    assert says in read.text and "Every document is accounted for" not in read.text
    if key == "kept":
        assert ("li", "broken") in read.attributes("class") and "✗" in read.text


def test_a_run_that_added_columns_counts_the_documents_that_it_lost_and_the_build_keeps_them(summary):
    stages = [stage("tokens", 528), stage("score_lm", 528, {}, {"no_score": 3}), stage("sidecars", 525)]
    read = Reader(page({**summary, "stages": stages}, "."))
    assert faults({**summary, "stages": stages}) == [] and "528 in = 525 kept + 0 dropped + 3 quarantined" in read.text
    found_faults = faults({**summary, "stages": stages, "documents": 527})
    assert found_faults == ["The build holds 527 documents, but its source tokens kept 528."]


def test_documents_made_of_others_are_told_where_there_are_any(read, summary):
    assert "made of" not in read.text
    chunks = {**stage("chunk", 100, {"empty": 4}), "made": 50, "kept": 146}
    made = {**summary, "stages": [stage("warc", 100), chunks, stage("documents", 146)], "samples": {}, "documents": 146}
    assert faults(made) == []
    read = Reader(page(made, "."))
    assert "Of 100 documents and 50 made of them, 146 (97.3%) are left." in read.text
    assert "100 in + 50 made = 146 kept + 4 dropped + 0 quarantined, checked" in read.text
    assert read.figures["flow"] == [100, 100, 0, 0, 100, 146, 4, 0, 50, 4, 146, 146, 0, 0]
    assert "146.0%" in read.text, "of the crawl"
    chunks["made"] = 49
    assert faults(made) == ["chunk took in 100 and made 49, but 146 kept + 4 dropped + 0 quarantined = 150: 1 too many."]


COUNTS = st.integers(0, 10**9)


@given(
    st.integers(-5, 5),
    COUNTS,
    st.dictionaries(st.text(max_size=3), COUNTS, max_size=4),
    st.dictionaries(st.text(max_size=3), COUNTS, max_size=3),
)
def test_the_sum_holds_exactly_when_nothing_is_missing(gone, kept, dropped, quarantined):
    made = {"stage": "s", "in": kept + sum(dropped.values()) + sum(quarantined.values()) + gone, "kept": kept}
    found = faults({"stages": [{**made, "dropped": dropped, "quarantined": quarantined}], "documents": kept})
    assert bool(found) == (gone != 0)


def test_empty_builds_have_their_own_words(summary):
    nothing = [
        {**s, "in": 0, "kept": 0, "dropped": {}, "quarantined": {}, "cpu_s": 0.0, "wall_s": 0.0} for s in summary["stages"]
    ]
    empty = {
        **summary,
        "stages": nothing,
        "steps": [],
        "samples": {},
        "quarantine": [],
        "measures": {},
        "shards": [],
        "tokens": 0,
        "documents": 0,
    }
    empty["text_bytes"] = 0
    text = Reader(page(empty, ".")).text
    for words in (
        "No document came in",
        "Nothing was dropped",
        "Nothing is in quarantine",
        "No stage of this build measures",
        "no shards",
        "no steps",
    ):
        assert words in text
    empty["stages"], empty["inputs"], empty["run"] = [], [], {**summary["run"], "workers": None}
    assert "on Ray" in Reader(page(empty, ".")).text


def test_a_build_of_documents_shows_no_tokens(summary):
    summary["tokens"] = 0
    for shard in summary["shards"]:
        shard["tokens"] = 0
    read = Reader(page(summary, "."))
    assert "Bytes per token" not in read.text and read.figures["shards"] == [264, 751_003, 264, 751_004]


def test_a_crawl_of_many_shards_still_gives_a_page_that_opens(summary):
    summary["shards"] = [copy.copy(summary["shards"][0]) for _ in range(20_000)]
    text = page(summary, ".")
    assert len(text) < 1_000_000 and "200 of 20,000 shards are shown" in Reader(text).text


def test_what_was_asked_is_shown_where_somebody_was_asked(summary):
    assert 'id="asked"' not in page(summary, "out")
    summary["stages"][3]["asked"] = {"answers": 1234, "cost_millionths": 5_250_000, "tokens_in": 98_765}
    section = page(summary, "out").partition('id="asked"')[2].partition("</section>")[0]
    for words in ("gopher_quality", ">answers<", ">1,234<", ">tokens in<", ">98,765<", ">cost<", ">5.25<"):
        assert words in section
    summary["stages"][3]["asked"]["cost_millionths"] = 4_321
    assert 'value="0.004321">0.00432<' in page(summary, "out")
