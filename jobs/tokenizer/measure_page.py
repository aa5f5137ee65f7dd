"""The page of `measure-tokenizer`: tokenizers side by side. One HTML file that needs no network and works without its script.

Reads the summary that `measure_tokenizer.py` makes, `templates/report.css`, `templates/measure.css` and `templates/report.js`;
returns the page. The sections are in `measure_sections.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.html.markup import Html, data, document, size, tag
from jobs.report.page import TEMPLATES
from jobs.report.sections import copy_button
from jobs.tokenizer import measure_sections as sections
from jobs.tokenizer.measure_sections import Heat, Spelled


def page(summary: Mapping[str, Any], heat: Sequence[Heat], spelled: Sequence[Spelled]) -> str:
    """Return the whole page.

    Args:
        summary: what `--json` prints.
        heat: of each tokenizer, texts token by token.
        spelled: of each tokenizer, id → (text, count).
    """
    css = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "measure.css"))
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    names = [each["name"] for each in summary["tokenizers"]]
    parts = [
        ("overview", "Overview", "Side by side", sections.overview(summary)),
        ("languages", "Languages", "By language", sections.languages(summary)),
        ("vocabulary", "Vocabulary", "What of the vocabulary is used", sections.vocabulary(summary, spelled)),
        ("consistency", "Consistency", "From text to ids and back", sections.consistency(summary, spelled)),
        ("superwords", "Superwords", "Superwords", sections.superwords(summary, spelled)),
        ("text", "Text", "The same text by token", sections.texts(summary, heat)),
    ]
    if any("mixture" in each for each in summary["tokenizers"]):
        parts.append(("mixture", "Mixture", "What they were trained on", sections.mixture(summary)))
    body = tag(
        "body",
        _bar([(name, short) for name, short, _, _ in parts]),
        tag(
            "main",
            _headline(summary, names),
            [tag("section", tag("h2", heading), content, id=name) for name, _, heading, content in parts],
            tag(
                "footer",
                tag("p", "All figures for machines: the same command with ", tag("code", "--json"), "."),
                _lineage(summary),
            ),
        ),
        tag("script", Html(script)),
    )
    return document(f"{', '.join(names)} · gristmill", css, script, body)


def _bar(links: Sequence[tuple[str, str]]) -> Html:
    brand = tag("a", tag("b", "gristmill"), " tokenizers", href="#top", class_="brand")
    anchors = tag("nav", [tag("a", short, href=f"#{name}") for name, short in links], aria_label="Sections")
    toggle = tag("button", "◐", type="button", id="theme", title="Light or dark", aria_label="Switch between light and dark")
    return tag("header", brand, anchors, toggle, class_="bar", id="top")


def _headline(summary: Mapping[str, Any], names: Sequence[str]) -> Html:
    identity = tag(
        "p",
        tag("span", "on ", tag("code", summary["on"], class_="all"), copy_button(summary["on"])),
        tag("span", data(summary["documents"]), " documents, ", data(summary["bytes"], size(summary["bytes"])), " of text"),
        tag("span", f"baseline {summary['baseline']}"),
        class_="identity",
    )
    best = max(summary["tokenizers"], key=lambda each: each["bytes_per_token"])
    tiles = []
    for each in summary["tokenizers"]:
        note = (
            "baseline" if each["name"] == summary["baseline"] else f"{sections.signed(1 / each['nsl'] - 1)} against the baseline"
        )
        label = each["name"] + (" · most bytes per token" if each is best and len(names) > 1 else "")
        figure = tag("dd", data(each["bytes_per_token"], f"{each['bytes_per_token']:.3f}"), tag("small", " bytes/token"))
        tiles.append(tag("div", tag("dt", label), figure, tag("dd", note, class_="note")))
    title = tag("h1", "Tokenizers" if len(names) > 1 else names[0])
    return tag("section", title, identity, tag("dl", tiles, class_="tiles"), class_="headline")


def _lineage(summary: Mapping[str, Any]) -> Html:
    files = [tag("li", tag("code", each["file"]), f" sha256 {each['sha256']}") for each in summary["tokenizers"]]
    sample = f"The sample has seed {summary['seed']} and sha256 {summary['sha256']}. This page loads nothing from anywhere."
    return tag("div", tag("ul", files), tag("p", sample))
