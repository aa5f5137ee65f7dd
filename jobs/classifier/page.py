"""The page of `train-classifier`: how a classifier does on hosts that it has not seen. One HTML file that needs no network.

Reads the manifest, what the model goes by, `templates/report.css` and `templates/report.js`; returns the page, the same bytes
for the same classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.html.markup import Html, data, document, join, number, percent, plural, size, tag
from jobs.report.page import TEMPLATES
from jobs.report.sections import copy_button, table_of

Rows = Sequence[Mapping[str, Any]]
SHOWN = 200  # rows of a table


def page(manifest: Mapping[str, Any], ngrams: Mapping[str, Rows], mistakes: Mapping[str, Rows]) -> str:
    """Return the whole page.

    Args:
        manifest: of the classifier.
        ngrams: `for` and `against` the positive label: ngram, score, documents.
        mistakes: `missed` and `mistaken`: id, url, label, score, begins.
    """
    css, script = ((TEMPLATES / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    parts = [
        ("hosts", "Hosts", "Host by host", _hosts(manifest)),
        ("thresholds", "Thresholds", "What a threshold would keep", _thresholds(manifest)),
        ("reliability", "Reliability", "What a score means", _reliability(manifest)),
        ("ngrams", "N-grams", "What it goes by", _ngrams(manifest, ngrams)),
        ("mistakes", "Mistakes", "The worst mistakes", _mistakes(manifest, mistakes)),
        ("lineage", "Lineage", "What it was made from", _lineage(manifest)),
    ]
    if len(manifest["labels"]) > 2:
        parts.insert(0, ("labels", "Labels", "Label by label", _labels(manifest)))
    anchors = tag("nav", [tag("a", short, href=f"#{name}") for name, short, _, _ in parts], aria_label="Sections")
    toggle = tag("button", "◐", type="button", id="theme", title="Light or dark", aria_label="Switch between light and dark")
    brand = tag("a", tag("b", "gristmill"), " classifier", href="#top", class_="brand")
    body = tag(
        "body",
        tag("header", brand, anchors, toggle, class_="bar", id="top"),
        tag(
            "main",
            _headline(manifest),
            [tag("section", tag("h2", heading), content, id=name) for name, _, heading, content in parts],
            tag(
                "footer",
                tag("p", "The same figures for machines: manifest.json beside it. This page loads nothing from anywhere."),
            ),
        ),
        tag("script", Html(script)),
    )
    return document(f"{manifest['positive']} · {manifest['kind']} · gristmill", css, script, body)


def _headline(manifest: Mapping[str, Any]) -> Html:
    figures, model = manifest["measures"][manifest["positive"]], manifest["files"][manifest["model"]]
    between = figures["auc_interval"]
    span = f"{between[0]:.3f} to {between[1]:.3f} in 95% of draws of hosts" if between else "too few hosts for an interval"
    trained, held = manifest["training"], manifest["held_out"]
    tiles = [
        ("AUC on hosts held out", _shown(figures["auc"]), span),
        ("Rank correlation", _shown(figures["spearman"]), "Spearman's, of score and label"),
        ("Brier score", _shown(figures["brier"]), "mean squared error: 0 is best"),
        ("Trained on", data(sum(trained["documents"].values())), plural(len(trained["hosts"]), "host")),
        ("Held out", data(sum(held["documents"].values())), plural(len(held["hosts"]), "host")),
        ("Model", data(model["bytes"], size(model["bytes"])), manifest["kind"]),
    ]
    identity = tag(
        "p",
        tag("span", "model ", tag("code", model["sha256"], class_="all"), copy_button(model["sha256"])),
        tag("span", "labels ", ", ".join(manifest["labels"])),
        class_="identity",
    )
    shown = [tag("div", tag("dt", name), tag("dd", figure), tag("dd", note, class_="note")) for name, figure, note in tiles]
    title = tag("h1", f"Is it {manifest['positive']}?")
    return tag("section", title, identity, tag("dl", shown, class_="tiles"), class_="headline")


def _labels(manifest: Mapping[str, Any]) -> Html:
    rows = [{"label": label, **manifest["measures"][label]} for label in manifest["labels"]]
    return join(
        _lead("Each label against all others, on hosts held out. The sections below are about the one in the title."),
        table_of(
            rows,
            ("label", "", lambda row: row["label"]),
            ("documents", "n", lambda row: data(row["positive"])),
            ("AUC", "n", lambda row: _shown(row["auc"])),
            ("in 95% of draws of hosts", "n", lambda row: _between(row["auc_interval"])),
            ("Spearman", "n", lambda row: _shown(row["spearman"])),
        ),
    )


def _hosts(manifest: Mapping[str, Any]) -> Html:
    by_host = manifest["measures"][manifest["positive"]]["by_host"]
    rows = sorted(({"host": host, **facts} for host, facts in by_host.items()), key=lambda row: (-row["documents"], row["host"]))
    return join(
        _lead(
            f"AUC is the chance that a document that is {manifest['positive']} has a higher score than one that is not: 0.5 is "
            "chance. None of these hosts was trained on. Within a host the model cannot go by what tells hosts apart."
        ),
        table_of(
            rows[:SHOWN],
            ("host", "long", lambda row: row["host"] or "(no address)"),
            ("documents", "n", lambda row: data(row["documents"])),
            (manifest["positive"], "n", lambda row: data(row["positive"])),
            ("AUC", "n", lambda row: _shown(row["auc"])),
        ),
    )


def _thresholds(manifest: Mapping[str, Any]) -> Html:
    rows = manifest["measures"][manifest["positive"]]["thresholds"]
    return join(
        _lead(
            f"Kept: share of the documents held out. Precision: how much of it is {manifest['positive']}. Recall: how much of "
            f"all that is {manifest['positive']} is kept."
        ),
        table_of(
            rows,
            ("score at least", "n", lambda row: data(row["at_least"])),
            ("kept", "n", lambda row: percent(row["kept"], 1)),
            ("precision", "n", lambda row: _share(row["precision"])),
            ("recall", "n", lambda row: _share(row["recall"])),
        ),
    )


def _reliability(manifest: Mapping[str, Any]) -> Html:
    rows = manifest["measures"][manifest["positive"]]["reliability"]
    return join(
        _lead(
            "A score is a probability where the two right columns agree, which the shares of labels on these hosts decide too."
        ),
        table_of(
            rows,
            ("score", "n", lambda row: f"{row['from']:.1f} to {row['from'] + 0.1:.1f}"),
            ("documents", "n", lambda row: data(row["documents"])),
            ("mean score", "n", lambda row: _share(row["score"])),
            (f"are {manifest['positive']}", "n", lambda row: _share(row["positive"])),
        ),
    )


def _ngrams(manifest: Mapping[str, Any], ngrams: Mapping[str, Rows]) -> Html:
    tables = [
        join(
            tag("h3", f"{title} {manifest['positive']}"),
            table_of(
                ngrams[key],
                ("n-gram", "long", lambda row: tag("code", row["ngram"])),
                ("score alone", "n", lambda row: _shown(row["score"])),
                ("documents", "n", lambda row: data(row["documents"])),
            ),
        )
        for key, title in (("for", "For"), ("against", "Against"))
    ]
    return join(
        _lead(
            "Common words and pairs of words, and the score of each as a text of its own. Names of sites or products here mean "
            "that the model tells hosts apart, not kinds of text."
        ),
        tables,
    )


def _mistakes(manifest: Mapping[str, Any], mistakes: Mapping[str, Rows]) -> Html:
    titles = {"missed": f"Is {manifest['positive']}, with a low score", "mistaken": "Something else, with a high score"}
    return join(
        _lead("Documents held out whose score is farthest from their label. Some of them show mistakes of the labels."),
        [
            join(
                tag("h3", title),
                table_of(
                    mistakes[key],
                    ("score", "n", lambda row: _shown(row["score"])),
                    ("label", "", lambda row: row["label"]),
                    (
                        "document",
                        "long",
                        lambda row: join(row["url"] or "(no address)", " ", tag("small", tag("code", row["id"]))),
                    ),
                    ("begins", "long", lambda row: row["begins"]),
                ),
            )
            for key, title in titles.items()
        ],
    )


def _lineage(manifest: Mapping[str, Any]) -> Html:
    left_out = manifest["documents"]
    facts = {
        "kind": manifest["kind"],
        "hyperparameters": ", ".join(f"{key} {value}" for key, value in manifest["hyperparameters"].items()),
        "reads texts": ", ".join(f"{key} {value}" for key, value in manifest["preprocessing"].items()),
        "documents read": number(left_out["read"]),
        "without a label or text": number(left_out["without_label_or_text"]),
        "left out, a rule's condition cannot be evaluated": number(left_out["undecided"]),
        "left out, text of another": number(left_out["of_equal_text"]),
        "left out, one text with several labels": number(left_out["of_equal_text_and_other_labels"]),
        "sha256 of documents and labels": left_out["sha256"],
    }
    for side, words in (("training", "trained on"), ("held_out", "held out")):
        facts[words] = ", ".join(f"{count} {label}" for label, count in manifest[side]["documents"].items())
        hosts = list(manifest[side]["hosts"])
        facts[f"hosts {words}"] = ", ".join(host or "(no address)" for host in hosts[:SHOWN]) + (
            ", ..." if len(hosts) > SHOWN else ""
        )
    shown = tag("dl", [tag("div", tag("dt", key), tag("dd", value)) for key, value in facts.items()], class_="parameters")
    return join(_lead("manifest.json names every document that was trained on, by id and label."), shown)


def _lead(words: str) -> Html:
    return tag("p", words, class_="lead")


def _shown(value: float | None) -> Html | str:
    return "–" if value is None else data(value, f"{value:.3f}")


def _share(value: float | None) -> Html | str:
    return "–" if value is None else data(value, percent(value, 1))


def _between(ends: Sequence[float] | None) -> str:
    return "–" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
