"""The report's section on tokens: what each policy keeps, and documents with their tokens coloured by it.

Reads `token_scores.TokenScores`; returns markup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.html.charts import meter
from jobs.html.markup import Html, data, join, number, percent, plural, tag
from jobs.report.sections import isolated, table_of
from jobs.report.token_scores import MOST_GROUPS, Policy, Share, Shown, TokenScores

LEVELS = 5  # of colour, by the rank of a score among those shown
GROUPS = {"language": "language", "file": "input", "bucket": "quality bucket"}


def tokens(scores: TokenScores | None) -> Html | None:
    """Return the section's content, or None for a build without policies."""
    if scores is None:
        return None
    lead = f"Counted on {plural(scores.tokens, 'token')} with their scores"
    lead += "." if scores.tokens == scores.of else f", the beginnings of shards evenly spaced over the build's {scores.of:,}."
    return join(tag("p", lead, class_="lead"), [_policy(policy) for policy in scores.policies])


def _policy(policy: Policy) -> Html:
    share = policy.all
    kept = tag(
        "p",
        "Keeps ",
        data(share.kept_tokens, percent(share.kept_tokens, share.tokens)),
        " of the tokens that have a score and ",
        data(share.kept_bytes, percent(share.kept_bytes, share.bytes)),
        " of their bytes.",
    )
    tables = [_by(GROUPS.get(column, column), shares) for column, shares in policy.shares.items() if len(shares) > 1]
    legend = tag(
        "p",
        "Sample documents, token by token: ",
        tag("span", "kept", class_="kept h3"),
        ", ",
        tag("span", "dropped", class_="gone h3"),
        ", each the stronger the higher its score, which shows on hover.",
        class_="more",
    )
    documents = tag("div", legend, [_document(document) for document in policy.documents], class_="heat")
    facts = tag("details", tag("summary", "How it decides"), tag("pre", json.dumps(policy.about, indent=1, sort_keys=True)))
    return tag("div", tag("h3", policy.name), kept, facts if policy.about else None, tables, documents, class_="policy")


def _by(title: str, shares: Mapping[str, Share]) -> Html:
    rows: list[dict[str, Any]] = [
        {"name": name, "share": share} for name, share in sorted(shares.items(), key=lambda item: (-item[1].tokens, item[0]))
    ]
    return table_of(
        rows[:MOST_GROUPS],
        (title, "", lambda r: tag("b", r["name"])),
        ("tokens", "n", lambda r: data(r["share"].tokens)),
        ("kept", "n", lambda r: percent(r["share"].kept_tokens, r["share"].tokens)),
        ("", "", lambda r: meter(r["share"].kept_tokens, r["share"].tokens)),
        ("bytes kept", "n", lambda r: percent(r["share"].kept_bytes, r["share"].bytes)),
    )


def _document(shown: Shown) -> Html:
    levels = _levels(shown.scores)
    spans = [
        tag("span", piece, class_=f"{'kept' if weight > 0 else 'gone'} h{level}", title=_hint(score, weight))
        for piece, score, weight, level in zip(shown.pieces, shown.scores, shown.weights, levels, strict=True)
        if piece
    ]
    rest = tag("p", f"… and {plural(shown.left, 'more token')}", class_="more") if shown.left else None
    return tag("figure", tag("figcaption", isolated(shown.url or shown.id)), tag("p", spans, dir="auto"), rest)


def _hint(score: float, weight: float) -> str:
    if np.isnan(score):
        return "no score"
    word = "dropped" if weight <= 0 else "kept" if weight >= 1 else f"weight {number(round(weight, 3))}"
    return f"{word}, score {number(round(float(score), 3))}"


def _levels(scores: npt.NDArray[np.float64]) -> list[int]:
    """Return the colour of each token, 0 to LEVELS - 1 by the rank of its score among those of the document."""
    scored = ~np.isnan(scores)
    cuts = np.quantile(scores[scored], np.arange(1, LEVELS) / LEVELS) if scored.any() else np.zeros(LEVELS - 1)
    return list(np.where(scored, np.searchsorted(cuts, np.nan_to_num(scores), side="right"), 0).tolist())
