"""The report as one HTML page that needs no network: what happened to the crawl, from the first record to the last shard.

Reads the summary of a run (`pipeline/builds/summary.py`), `templates/report.css` and `templates/report.js`; returns the page.
The sections stand in the order that data meets them. The page works without its script, which only adds conveniences.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.html.charts import arriving, equation, missing
from jobs.html.markup import Html, compact, data, document, duration, join, number, percent, plural, size, tag
from jobs.report import sections as sections
from jobs.report.asked_section import asked
from jobs.report.bucket_sections import buckets as buckets_section
from jobs.report.repeat_section import repeats as repeats_section
from jobs.report.score_sections import tokens as tokens_section
from jobs.report.sections import Summary, adds, arrived, copy_button, losses, made_in, ratio, workers
from jobs.report.token_scores import TokenScores
from jobs.terminal import command
from pipeline.builds.summary import StageSummary

TEMPLATES = Path(__file__).parents[1] / "templates"


def faults(summary: Summary) -> list[str]:
    """Return what in the ledger does not add up, in sentences; empty for a sound build.

    Checked: each stage's in + made = kept + dropped + quarantined, each stage takes in what the one before kept, and the
    documents of the build are what the last stage kept; in a run that added columns to a build, what its source gave.
    """
    found = []
    before: StageSummary | None = None
    for stage in summary["stages"]:
        if before is not None and stage["in"] != before["kept"]:
            found.append(
                f"{stage['stage']} took in {stage['in']:,} documents, but {before['stage']} before it kept {before['kept']:,}."
            )
        if gone := missing(stage):
            fate = f"{plural(gone, 'document is', 'documents are')} missing" if gone > 0 else f"{-gone:,} too many"
            total, made = equation(stage)[1], arriving(stage)[1]
            came = f"took in {stage['in']:,}" + (f" and made {made:,}" if made else "")
            found.append(f"{stage['stage']} {came}, but {total} = {sum(arriving(stage)) - gone:,}: {fate}.")
        before = stage
    if before is not None:
        which, counted = ("source", summary["stages"][0]) if adds(summary["stages"]) else ("last stage", before)
        if summary["documents"] != counted["kept"]:
            total = f"The build holds {summary['documents']:,} documents"
            found.append(f"{total}, but its {which} {counted['stage']} kept {counted['kept']:,}.")
    return found


def page(summary: Summary, output: str, scores: TokenScores | None = None) -> str:
    """Return the whole page.

    Args:
        summary: of the run.
        output: the build's output as a person types it in `python -m jobs explain`.
        scores: what its policies keep, where it has any.
    """
    style, script = ((TEMPLATES / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    title = f"{summary['name']} · {summary['build'][:12]} · gristmill"
    parts = [
        ("flow", "Flow", "Where the documents went", sections.flow(summary)),
        ("dropped", "Dropped", "What was dropped, and why", sections.samples(summary, output)),
        ("content", "Content", "What is in the build", sections.content(summary)),
        ("buckets", "Buckets", "What each bucket holds", buckets_section(summary.get("buckets", []))),
        ("repeats", "Repeats", "How often documents are read", repeats_section(summary)),
        ("tokens", "Tokens", "Which tokens are trained on", tokens_section(scores)),
        ("quarantine", "Quarantine", "What could not be processed", sections.quarantine(summary)),
        ("asked", "Answers", "What was asked, and what it took", asked(summary)),
        ("time", "Time", "Where the time went", sections.time(summary)),
        ("shards", "Shards", "What was written", sections.shards(summary)),
        ("lineage", "Lineage", "What it was made from", sections.lineage(summary)),
    ]
    parts = [part for part in parts if part[-1] is not None]
    body = tag(
        "body",
        _bar(summary, [(name, short) for name, short, _, _ in parts]),
        tag(
            "main",
            _headline(summary),
            [tag("section", tag("h2", heading), content, id=name) for name, _, heading, content in parts],
            _footer(summary, output),
        ),
        tag("script", Html(script)),
    )
    return document(title, style, script, body)


def _bar(summary: Summary, links: Sequence[tuple[str, str]]) -> Html:
    brand = tag("a", tag("b", "gristmill"), " ", summary["name"], href="#top", class_="brand")
    anchors = tag("nav", [tag("a", short, href=f"#{name}") for name, short in links], aria_label="Sections")
    toggle = tag("button", "◐", type="button", id="theme", title="Light or dark", aria_label="Switch between light and dark")
    return tag("header", brand, anchors, toggle, class_="bar", id="top")


# The headline


def _headline(summary: Summary) -> Html:
    run = summary["run"]
    identity = tag(
        "p",
        tag("span", "build ", tag("code", summary["build"], class_="all"), copy_button(summary["build"])),
        tag("span", tag("time", _moment(run["started"]), datetime=run["started"])),
        tag("span", f"gristmill {run['version']}"),
        class_="identity",
    )
    tiles = [
        tag("div", tag("dt", label), tag("dd", figure), tag("dd", note, class_="note")) for label, figure, note in _tiles(summary)
    ]
    name = tag("h1", summary["name"])
    return tag("section", name, identity, tag("dl", tiles, class_="tiles"), _verdict(summary), class_="headline")


def _tiles(summary: Summary) -> list[tuple[str, Html, str]]:
    """Return (label, figure, note) of each headline figure; a build of documents has no tokens."""
    run, stages, tokens, text = summary["run"], summary["stages"], summary["tokens"], summary["text_bytes"]
    taken, out = stages[0]["in"] if stages else 0, arrived(summary)
    way = join(data(taken, compact(taken, 100_000)), tag("i", " → ", class_="to"), data(out, compact(out, 100_000)))
    made = made_in(summary)
    note = f"and {made:,} made of them" if made else f"{percent(out, taken)} kept" if taken else "nothing came in"
    tiles = [("Documents", way, note)]
    if tokens:
        exact = data(tokens, compact(tokens, 10_000_000), title=f"{tokens:,}")
        tiles.append(("Tokens", exact, f"{number(round(tokens / summary['documents'], 1))} per document"))
        tiles.append(("Bytes per token", ratio(text, tokens), f"{size(text)} of text"))
    else:
        tiles.append(("Text", data(text, size(text)), "UTF-8, not encoded"))
    tiles.append(("Time", data(run["seconds"], duration(run["seconds"])), workers(run)))
    cpu = sum(stage["cpu_s"] for stage in stages)
    rate = f"{taken / cpu:.3g} documents per core-second" if cpu else "nothing computed"
    tiles.append(("Core-seconds", data(cpu, compact(round(cpu, 1))), rate))
    read = sum(i["bytes"] for i in summary["inputs"])
    tiles.append(("Input", data(read, size(read)), plural(len(summary["inputs"]), "file")))
    return tiles


def _verdict(summary: Summary) -> Html:
    wrong = faults(summary)
    if wrong:
        lines = tag("ul", [tag("li", line) for line in wrong])
        note = "This is a bug of the pipeline, not of the data: please report it with this page."
        return tag(
            "div",
            tag("p", tag("strong", "✗ The ledger does not add up.")),
            lines,
            tag("p", note),
            class_="verdict bad",
            role="alert",
        )
    taken, made, (dropped, quarantined) = (
        summary["stages"][0]["in"] if summary["stages"] else 0,
        made_in(summary),
        losses(summary),
    )
    return tag(
        "p",
        tag("strong", "✓ Every document is accounted for: "),
        f"{taken:,} in {f'+ {made:,} made ' if made else ''}= {arrived(summary):,} kept + {dropped:,} dropped + ",
        f"{quarantined:,} quarantined, checked at every stage of every unit.",
        class_="verdict",
    )


def _footer(summary: Summary, output: str) -> Html:
    shown = f"{command('report', output)} --json"
    return tag(
        "footer",
        tag("p", "The same figures for machines: ", tag("code", shown, class_="all"), copy_button(shown)),
        tag(
            "p",
            f"Made by gristmill {summary['run']['version']} from {summary['manifest']}. This page loads nothing from anywhere.",
        ),
    )


def _moment(iso: str) -> str:
    """`2025-11-22T02:14:07Z` as `2025-11-22 02:14:07 UTC`."""
    date, _, clock = iso.partition("T")
    return f"{date} {clock[:8]} UTC" if clock.endswith(("Z", "+00:00")) else iso
