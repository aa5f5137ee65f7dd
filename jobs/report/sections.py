"""The sections of the report, in the order that data meets them: flow, samples, content, quarantine, time, shards, lineage.

Reads the summary of a run (`pipeline/builds/summary.py`), returns markup; `page.py` makes a page of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gristmill.json_values import Json
from jobs.html.charts import arriving, by_count, categories, figures, funnel, histogram, lost, meter
from jobs.html.markup import Html, breakable, data, duration, join, number, percent, plural, size, tag
from jobs.terminal import command, one_line
from pipeline.builds.barren import Barren, warnings
from pipeline.builds.locate import ADDING
from pipeline.builds.summary import MeasureSummary, StageSummary

Summary = Mapping[str, Any]
Column = tuple[str, str, Callable[[Mapping[str, Any]], Html | str]]  # heading; "n" for figures, "long" to wrap; the cell of a row

ROWS_SHOWN = 200  # of any table; a crawl of a million shards still gives a page that opens
SAMPLE_CHARACTERS = 600

# Known measures: column → (group, title, what is counted). Others are shown under "Other measures".
MEASURES = {
    "language": ("Language", "Languages", "document"),
    "language_score": ("Language", "Confidence of the language", "document"),
    "text_bytes": ("Length", "Bytes of text", "document"),
    "n_tokens": ("Length", "Tokens per document", "document"),
    "tokens": ("Length", "Tokens per document", "document"),
    "minhash_cluster_size": ("Duplicates", "Size of near-duplicate clusters", "document"),
    "exact_copies": ("Duplicates", "Copies of the same text", "document"),
    "bucket": ("Scores", "Quality bucket", "document"),
}
# Per-token measures: what the column's name begins with → title; the model's or policy's name follows.
TOKEN_MEASURES = {"ref_loss.": "Loss of {} per token", "entropy.": "Entropy of {} per token", "score.": "Score of {} per token"}
GROUPS = ("Language", "Length", "Duplicates", "Scores", "Other measures")


# The flow and the samples


def _anchor(stage: str, reason: str) -> str:
    return "#" + _place(stage, reason)


def _place(stage: str, reason: str) -> str:
    """An id that any reason gives, however strange, and no two share."""
    return "drop-" + hashlib.sha256(f"{stage}\n{reason}".encode("utf-8", "replace")).hexdigest()[:12]


def flow(summary: Summary) -> Html:
    """Return the funnel, with the finding in words above it."""
    stages = summary["stages"]
    if not stages or not stages[0]["in"]:
        return _empty("No document came in. The inputs hold no records that the source reads.")
    worst = max(stages, key=lambda stage: sum(lost(stage)))
    taken, made, out = stages[0]["in"], made_in(summary), arrived(summary)
    whole = plural(taken, "document") + (f" and {made:,} made of them" if made else "")
    lead: list[Html | str] = [f"Of {whole}, {out:,} ({percent(out, taken + made)}) are left. "]
    if gone := sum(lost(worst)):
        lead += ["Most are lost at ", tag("b", worst["stage"]), f": {gone:,} of the {sum(arriving(worst)):,} that reached it"]
        reason = by_count(worst["dropped"])[:1]
        lead += [f", {reason[0][1]:,} of them for ", tag("b", reason[0][0]), "."] if reason else ["."]
    scale = tag(
        "p",
        "Bars show the share of ",
        tag("label", tag("input", type="radio", name="scale", checked=True), "the crawl"),
        tag("label", tag("input", type="radio", name="scale", id="by-stage"), "each stage"),
        class_="scale",
    )
    key = tag("p", [tag("span", tag("i", class_=kind), kind) for kind in ("kept", "dropped", "quarantined")], class_="key")
    return join(
        tag("p", lead, class_="lead"),
        tag("div", tag("div", key, scale, class_="legend"), funnel(stages, summary["samples"], _anchor)),
    )


def samples(summary: Summary, output: str) -> Html:
    """Return each reason with a few of the documents dropped for it, and the command that explains each."""
    blocks = []
    for stage in summary["stages"]:
        shown = summary["samples"].get(stage["stage"], {})
        reasons = [
            tag(
                "details",
                tag(
                    "summary",
                    tag("b", breakable(reason)),
                    tag("span", data(n), f" · {percent(n, stage['in'])}", class_="count"),
                    _shown_of(len(shown.get(reason, [])), n),
                ),
                tag("ol", [_sample(s, output) for s in shown.get(reason, [])], class_="samples"),
                id=_place(stage["stage"], reason),
            )
            for reason, n in by_count(stage["dropped"])
        ]
        if reasons:
            blocks.append(tag("div", tag("h3", stage["stage"]), reasons, class_="reasons"))
    if not blocks:
        return _empty("Nothing was dropped: every document that could be processed is in the build.")
    lead = (
        "A few documents for each reason, with the start of their text. They have the smallest ids; ids are hashes, so they come "
        "from all over the crawl. The command below a document shows every decision on it."
    )
    return join(tag("p", lead, class_="lead"), blocks)


def _shown_of(shown: int, count: int) -> Html:
    return tag("small", "all shown" if shown == count else plural(shown, "sample"))


def _sample(sample: Mapping[str, Any], output: str) -> Html:
    start = (sample["text"] or "")[:SAMPLE_CHARACTERS]
    shown = command("explain", output, sample["id"])
    return tag(
        "li",
        tag("p", _link(sample["url"]), class_="url"),
        tag("blockquote", start, dir="auto") if start.strip() else tag("p", "No text.", class_="empty"),
        tag("p", tag("code", shown, class_="all"), copy_button(shown), class_="command"),
        tag("p", isolated(sample["file"]), " at ", data(sample["offset"]), _columns_of(sample), class_="address"),
    )


def _columns_of(sample: Mapping[str, Any]) -> list[Html | str]:
    """Return the language and the scores of a sample, where it has any."""
    others = {key: value for key, value in sample.items() if key not in ("id", "url", "file", "offset", "text")}
    found: list[Html | str] = []
    for key, value in others.items():
        shown = "none" if value is None else isolated(value) if isinstance(value, str) else data(value)
        found += [" · ", breakable(key), " ", shown]
    return found


def isolated(name: str) -> Html:
    """Return a name that strangers gave: what steers writing or cannot be seen is spelled, and its own direction stays inside."""
    return tag("bdi", one_line(name))


def _link(url: str | None) -> Html:
    if not url:
        return tag("span", "no URL", class_="empty")
    if url.startswith(("http://", "https://")):
        return tag("bdi", tag("a", one_line(url), href=url, rel="noopener noreferrer nofollow external"))
    return isolated(url)


# The content


def content(summary: Summary) -> Html:
    """Return a card for each measure, related ones next to each other, and the tokens by language."""
    cards: dict[str, list[Html]] = {group: [] for group in GROUPS}
    for key, measure in summary["measures"].items():
        group, title, noun = _measured(key.partition(".")[2])
        cards[group].append(_card(title, key, measure, noun))
    tokens = _tokens_by_language(summary)
    if not any(cards.values()):
        return tokens or _empty("No stage of this build measures anything.")
    lead = "Measured on the documents that each stage kept. The dashed line is the median."
    return join(tag("p", lead, class_="lead"), tag("div", cards.values(), class_="cards"), tokens)


def _measured(column: str) -> tuple[str, str, str]:
    """Return the group, the title and what is counted of a column that is measured."""
    for start, title in TOKEN_MEASURES.items():
        if column.startswith(start):
            return "Scores", title.format(column[len(start) :]), "token"
    return MEASURES.get(column, ("Other measures", column.replace("_", " ").capitalize(), "value"))


def _card(title: str, key: str, measure: MeasureSummary, noun: str) -> Html:
    caption = tag("figcaption", tag("b", title), tag("code", key))
    if measure["kind"] == "category":
        return tag("figure", caption, categories(measure["counts"]))
    drawn = histogram(measure, noun) if measure["count"] else None
    return tag("figure", caption, figures(measure), drawn)


def _tokens_by_language(summary: Summary) -> Html | None:
    """Return the table of tokens by language where the ledger has it: `languages` {language: {documents, tokens, text_bytes}}."""
    rows = sorted(summary.get("languages", {}).items(), key=lambda item: (-item[1]["tokens"], item[0]))
    if not rows:
        return None
    total = sum(row["tokens"] for _, row in rows)
    table = table_of(
        [{"language": name, **row} for name, row in rows],
        ("language", "", lambda r: tag("b", r["language"])),
        ("documents", "n", lambda r: data(r["documents"])),
        ("tokens", "n", lambda r: data(r["tokens"])),
        ("share", "n", lambda r: percent(r["tokens"], total)),
        ("", "", lambda r: meter(r["tokens"], total)),
        ("bytes per token", "n", lambda r: ratio(r["text_bytes"], r["tokens"])),
    )
    return tag("div", tag("h3", "Tokens by language"), table)


def ratio(part: float, whole: float | None) -> Html:
    """Return `part / whole` with two decimals, a dash when there is nothing to divide by."""
    return data(part / whole, f"{part / whole:.2f}") if whole else Html("–")


# Quarantine, time, shards, lineage


def quarantine(summary: Summary) -> Html:
    """Return the table of documents set aside, with their addresses."""
    rows = summary["quarantine"][:ROWS_SHOWN]
    count = losses(summary)[1]
    files = [tag("li", isolated(line)) for line in warnings([Barren(**each) for each in summary.get("barren", ())])]
    barren = tag("ul", files) if files else Html("")
    if not count:
        none = _empty("Nothing is in quarantine: no document raised an error, killed its worker or was unreadable.")
        return join(barren, none)
    lead = f"{plural(count, 'document')} could not be processed and are set aside with their address; they never stop a build."
    table = table_of(
        rows,
        ("stage", "", lambda q: tag("b", q["stage"])),
        ("error", "long", lambda q: tag("code", isolated(q["error"]))),
        ("URL", "long", lambda q: _link(q["url"])),
        ("address", "", lambda q: join(isolated(q["file"]), " at ", data(q["offset"]))),
        ("document", "", lambda q: tag("code", q["id"], class_="all")),
    )
    return join(tag("p", lead, class_="lead"), barren, table, _more(len(rows), count, "documents"))


def time(summary: Summary) -> Html:
    """Return the seconds by stage, with documents a second, and by step, with what was reused."""
    stages, steps = summary["stages"], summary["steps"]
    cpu = sum(stage["cpu_s"] for stage in stages)
    most = max((stage["cpu_s"] for stage in stages), default=0)
    by_stage = table_of(
        stages,
        ("stage", "", lambda s: tag("b", s["stage"])),
        ("", "", lambda s: meter(s["cpu_s"], most, "time")),
        ("share", "n", lambda s: percent(s["cpu_s"], cpu)),
        ("CPU s", "n", lambda s: _seconds(s["cpu_s"])),
        ("wall s", "n", lambda s: _seconds(s["wall_s"])),
        ("documents", "n", lambda s: data(s["in"])),
        ("per CPU s", "n", lambda s: _rate(s["in"], s["cpu_s"])),
        ("per wall s", "n", lambda s: _rate(s["in"], s["wall_s"])),
    )
    by_step = table_of(
        steps,
        ("step", "", lambda s: tag("b", s["name"])),
        ("kind", "", lambda s: s["kind"]),
        ("units done", "", lambda s: _units(s["units"], s["reused"])),
        ("CPU s", "n", lambda s: _seconds(s["cpu_s"])),
        ("wall s", "n", lambda s: _seconds(s["wall_s"])),
        ("written", "n", lambda s: data(s["bytes"], size(s["bytes"]))),
    )
    return join(
        tag("p", _time_in_words(summary, cpu), class_="lead"),
        tag("h3", "By stage"),
        by_stage if stages else _empty("This run computed no stage."),
        tag("h3", "By step"),
        by_step if steps else _empty("This run had no steps."),
    )


def _time_in_words(summary: Summary, cpu: float) -> Html:
    run, steps = summary["run"], summary["steps"]
    words: list[Html | str] = [f"{duration(run['seconds'])}, {workers(run)}. "]
    if cpu:
        slowest = max(summary["stages"], key=lambda stage: stage["cpu_s"])
        share = percent(slowest["cpu_s"], cpu)
        words += [f"{share} of {number(round(cpu, 1))} core-seconds went to ", tag("b", slowest["stage"]), ". "]
    units, reused = sum(s["units"] for s in steps), sum(s["reused"] for s in steps)
    if reused:
        words.append(f"{reused:,} of {plural(units, 'unit')} of work came from earlier runs; the tables count their seconds too.")
    return join(words)


def _seconds(value: float) -> Html:
    return data(value, f"{value:,.2f}")


def _rate(count: int, seconds: float) -> Html:
    return data(count / seconds) if seconds else Html("–")


def _units(units: int, reused: int) -> Html:
    note = "all reused" if reused and reused == units else f"{reused:,} reused" if reused else "all new"
    return join(data(units), tag("small", " ", note))


def shards(summary: Summary) -> Html:
    """Return the table of written shards."""
    every, tokens = summary["shards"], summary["tokens"]
    if not every:
        return _empty("The build has no shards: no document was left to write.")
    columns: list[Column] = [("file", "", lambda s: tag("b", s["file"])), ("documents", "n", lambda s: data(s["documents"]))]
    if tokens:
        columns.append(("tokens", "n", lambda s: data(s["tokens"])))
        columns.append(("bytes per token", "n", lambda s: ratio(s["text_bytes"], s["tokens"])))
    columns.append(("size", "n", lambda s: data(s["bytes"], size(s["bytes"]))))
    columns.append(("sha256", "", lambda s: join(tag("code", s["sha256"][:12], title=s["sha256"]), copy_button(s["sha256"]))))
    columns.append(("input", "", lambda s: isolated(s["input"])))
    if any("repeats" in s or s.get("sidecars") for s in every):
        columns.append(
            ("beside it", "", lambda s: ", ".join([*(["repeats"] if "repeats" in s else []), *s.get("sidecars", {})]) or "–")
        )
    written = f"{plural(len(every), 'shard')}, {size(sum(s['bytes'] for s in every))}"
    documents = plural(sum(s["documents"] for s in every), "document")
    lead = tag("p", f"{written}: {documents}", f" and {plural(tokens, 'token')}." if tokens else ".", class_="lead")
    return join(lead, table_of(every[:ROWS_SHOWN], *columns), _more(min(len(every), ROWS_SHOWN), len(every), "shards"))


def lineage(summary: Summary) -> Html:
    """Return the inputs, and the stages with their versions and parameters."""
    inputs = summary["inputs"]
    files = table_of(
        inputs[:ROWS_SHOWN],
        ("input", "", lambda i: tag("b", isolated(i["name"]))),
        ("size", "n", lambda i: data(i["bytes"], size(i["bytes"]))),
        ("read from", "", lambda i: isolated(i["uri"])),
    )
    stages = [
        tag("li", tag("p", tag("b", s["stage"]), tag("small", f"version {s['version']}")), _parameters(s["parameters"]))
        for s in summary["stages"]
    ]
    facts = [("Build", summary["build"]), ("Manifest", summary["manifest"])]
    facts += [("Tokenizer", s["parameters"]["tokenizer"]) for s in summary["stages"] if "tokenizer" in s["parameters"]]
    head = tag("summary", tag("b", plural(len(inputs), "input file")))
    more = _more(min(len(inputs), ROWS_SHOWN), len(inputs), "files")
    lead = "The build’s id is a hash over its shards: the same inputs and the same parameters give the same id."
    return join(
        tag("p", lead, class_="lead"),
        tag("dl", [join(tag("dt", k), tag("dd", tag("code", v, class_="all"))) for k, v in facts], class_="facts"),
        tag("details", head, files, more, open=len(inputs) <= 10),
        tag("h3", "Stages"),
        tag("ol", stages, class_="chain"),
    )


def _parameters(parameters: Mapping[str, Json]) -> Html:
    if not parameters:
        return tag("p", "no parameters", class_="empty")
    shown = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in parameters.items()}
    return tag("dl", [tag("div", tag("dt", k), tag("dd", v)) for k, v in shown.items()], class_="parameters")


# Small parts


def workers(run: Mapping[str, Any]) -> str:
    """Say who did the work: `2 workers on Ray`; `on Ray` when the engine chose."""
    engine = {"ray": "Ray", "local": "this machine"}[run["on"]]
    return f"{plural(run['workers'], 'worker')} on {engine}" if run["workers"] else f"on {engine}"


def losses(summary: Summary) -> tuple[int, int]:
    """Return (dropped, quarantined) documents of the whole run."""
    pairs = [lost(stage) for stage in summary["stages"]]
    return sum(d for d, _ in pairs), sum(q for _, q in pairs)


def made_in(summary: Summary) -> int:
    """Return how many documents the stages of the run made of others, beyond the number of those."""
    return sum(arriving(stage)[1] for stage in summary["stages"])


def arrived(summary: Summary) -> int:
    """Return how many documents came to the end of the run: those of the build, or of them what a run added columns to."""
    stages = summary["stages"]
    return int(stages[-1]["kept"] if adds(stages) else summary["documents"])


def adds(stages: Sequence[StageSummary]) -> bool:
    """Tell whether a run of these stages added columns to a build that was there."""
    return bool(stages) and stages[-1]["stage"] == ADDING


def table_of(rows: Sequence[Mapping[str, Any]], *columns: Column) -> Html:
    """Return a table of the rows: a heading and a cell of each for each column."""
    head = tag("tr", [tag("th", name, class_=kind or None, scope="col") for name, kind, _ in columns])
    body = [tag("tr", [tag("td", cell(row), class_=kind or None) for _, kind, cell in columns]) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", body)), class_="table", tabindex="0")


def _more(shown: int, count: int, noun: str) -> Html | None:
    return (
        tag("p", f"{shown:,} of {count:,} {noun} are shown; --json has all that the ledger keeps.", class_="more")
        if shown < count
        else None
    )


def _empty(message: str) -> Html:
    return tag("p", message, class_="empty")


def copy_button(value: str) -> Html:
    """Return a button that copies `value`; shown where the script runs."""
    return tag("button", "copy", type="button", class_="copy", data_copy=value)
