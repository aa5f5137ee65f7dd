"""What a record says of documents and time, checked as decoded from JSON: accounts of stages, histograms, figures of a run.

Reads objects that `json.loads` returned; raises FormatError that begins with the place and names the key. So whoever adds them up
needs no check of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.errors import FormatError
from gristmill.format import fields
from gristmill.json_values import shown

PHASE = re.compile("whole|before|after")
ENGINE = re.compile("local|ray")
BIN = re.compile(r"[lo]-?[0-9]{1,18}")  # of a histogram of numbers, as `ledger.Measure` names them


def parse_ledger(content: Sequence[Mapping[str, Any]], where: str) -> tuple[Mapping[str, Any], ...]:
    """Check the accounts of a unit's stages, as `ledger.Tally` gives them. Raises FormatError."""
    for number, account in enumerate(content):
        at = f"{where}[{number}]"
        fields.get(account, "stage", str, at)
        fields.matching(account, "phase", PHASE, at)
        for key in ("in", "kept", *(("made",) if "made" in account else ())):
            fields.get(account, key, int, at)
        for key in ("cpu_s", "wall_s"):
            _finite(account, key, at)
        for key in ("dropped", "quarantined"):
            _counts(account, key, at)
        if "asked" in account:
            _counts(account, "asked", at)
        for reason, rows in fields.get(account, "samples", dict, at).items():
            _samples(rows, f"{at}: samples: {reason}")
        if not all(isinstance(line, str) for line in fields.get({"notes": [], **account}, "notes", list, at)):
            raise FormatError(f"{at}: 'notes' must be a list of texts")
    return tuple(content)


def parse_measures(content: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Check histograms, as `ledger.Measure` gives them. Raises FormatError."""
    for name, measure in content.items():
        at = f"{where}: {name}"
        kind = fields.get(measure, "kind", str, at)
        if kind == "category":
            _counts(measure, "counts", at)
            continue
        if kind == "joint":
            _joint(measure, at)
            continue
        count = fields.get(measure, "count", int, at)
        for key in ("sum", *(("min", "max") if count else ())):
            _finite(measure, key, at)
        for bin_ in _counts(measure, "sparse", at):
            if not BIN.fullmatch(bin_):
                raise FormatError(f"{at}: sparse: {bin_!r} must match {BIN.pattern}")
    return content


def parse_seconds(content: Mapping[str, Any], where: str) -> Mapping[str, float]:
    """Check the time that a unit took. Raises FormatError."""
    return {key: _finite(content, key, where) for key in ("wall", "cpu")}


def parse_languages(stats: Mapping[str, Any], where: str) -> None:
    """Check what a file of a sink says of languages, where it does: documents, tokens and bytes of text. Raises FormatError."""
    for language, counts in fields.get({"languages": {}, **stats}, "languages", dict, where).items():
        if not isinstance(counts, list) or len(counts) != 3 or not all(type(count) is int and count >= 0 for count in counts):
            raise FormatError(f"{where}: languages: {language!r} is {shown(counts)}, must be three counts")


def parse_run(content: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Check what a run says of itself, as far as it does. Raises FormatError."""
    for key in ("started", "version", "path"):
        if key in content:
            fields.get(content, key, str, where)
    if "seconds" in content:
        _finite(content, "seconds", where)
    if "on" in content:
        fields.matching(content, "on", ENGINE, where)
    if "config" in content:
        fields.get(content, "config", dict, where)
    fields.number(content, "workers", where)
    origins = fields.get({"origins": {}, **content}, "origins", dict, where)
    for stage in origins:
        for name, version in fields.get(origins, stage, dict, f"{where}: origins").items():
            if not isinstance(version, str):
                raise FormatError(f"{where}: origins: {stage}: {name!r} must be text, found {shown(version)}")
    return content


def _samples(rows: object, where: str) -> None:
    for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
        at = f"{where}[{number}]"
        fields.get(row, "id", str, at)
        fields.get(row, "file", str, at)
        fields.get(row, "offset", int, at)
        for key in ("url", "text"):
            if not fields.absent(row, key):
                fields.get(row, key, str, at)


def _counts(content: object, key: str, where: str) -> dict[str, int]:
    found: dict[str, int] = fields.get(content, key, dict, where)
    for name in found:
        fields.get(found, name, int, f"{where}: {key}")
    return found


def _joint(content: object, where: str) -> None:
    if not all(isinstance(column, str) for column in fields.get(content, "columns", list, where)):
        raise FormatError(f"{where}: 'columns' must be a list of texts")
    for key, counts in fields.get(content, "joint", dict, where).items():
        if not isinstance(counts, list) or len(counts) != 2 or not all(type(count) is int and count >= 0 for count in counts):
            raise FormatError(f"{where}: joint: {key!r} is {shown(counts)}, must be two counts")


def _finite(content: object, key: str, where: str) -> float:
    """Return a number that is one; small ones below zero come of clocks."""
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise FormatError(f"{where}: {key!r} must be a number, found {shown(value)}")
    return value
