"""The figures of `measure-tokenizer` as lines for a terminal.

Reads the summary that `measure_tokenizer.py` makes, returns lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines: a row a tokenizer, then a row a language, then the mixtures where they were asked for."""
    tokenizers = summary["tokenizers"]
    rows = [["tokenizer", "tokens", "bytes/token", "NSL", "Rényi", "never", "rare", "round trip", "re-encoding", "superwords"]]
    rows += [_row(each) for each in tokenizers]
    heads = [f"{what} {each['name']}" for what in ("bytes/token", "premium") for each in tokenizers]
    by_language = [["language", "bytes", *heads]]
    for name, facts in summary["languages"].items():
        figures = [each["languages"][name][key] for key in ("bytes_per_token", "premium") for each in tokenizers]
        by_language.append([name, f"{facts['bytes']:,}", *map(_figure, figures)])
    return [*_aligned(rows), "", *_aligned(by_language), *_mixtures(summary)]


def _row(each: Mapping[str, Any]) -> list[str]:
    trip, again, words = each["round_trip"], each["reencoding"], each["vocabulary"]
    return [
        each["name"],
        f"{each['vocab_size']:,}",
        f"{each['bytes_per_token']:.3f}",
        f"{each['nsl']:.3f}",
        _figure(each["renyi_efficiency"]),
        f"{len(words['never']):,}",
        f"{len(words['rare']):,}",
        f"{trip['same']:,}/{trip['documents']:,}",
        f"{again['same']:,}/{again['windows']:,}",
        f"{each['superwords']['tokens']:,}",
    ]


def _mixtures(summary: Mapping[str, Any]) -> list[str]:
    mixed = [each for each in summary["tokenizers"] if "shares" in each.get("mixture", {})]
    lines = []
    if mixed:
        rows = [["trained on (inferred)", *(each["name"] for each in mixed)]]
        for name in summary["languages"]:
            rows.append([name, *(f"{100 * each['mixture']['shares'][name]:.1f}%" for each in mixed)])
        lines += ["", *_aligned(rows)]
    failed = [each for each in summary["tokenizers"] if "error" in each.get("mixture", {})]
    return lines + [f"no mixture of {each['name']}: {each['mixture']['error']}" for each in failed]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
