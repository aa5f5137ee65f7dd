"""`explain`: every decision on one document with its numbers and its text before and after; or a token's way back to its record.

Reads a finished build (`jobs/explain/trace.py`); prints to standard output.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from gristmill.errors import InputError, UserError
from gristmill.secrets import masked
from jobs.build.moved import moved_since
from jobs.explain.trace import Decision, Found, Trace, of_build
from jobs.report.token_scores import whole_manifest
from jobs.terminal import command, one_line, quoted, show, visible, warn
from pipeline.builds.locate import LocatedRun, locate_run
from pipeline.checked import Reader
from pipeline.finding import Finding
from stages.encode.encode import Encode

SHOWN = 700  # characters of a text
AROUND = 8  # tokens on each side
UNPACKERS = {"gz": "zcat", "zst": "zstdcat", "bz2": "bzcat", "xz": "xzcat"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `explain` takes."""
    parser.add_argument("build", help="a build's output folder")
    parser.add_argument("document", nargs="?", help="a URL or a document id")
    parser.add_argument("--token", metavar="SHARD:ROW:POS", help="a token of the build, such as 0:12:345")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    return explain(arguments.build, arguments.document, token=arguments.token)


def explain(build: str, document: str | None, *, token: str | None) -> int:
    """Explain a document or a token; return the exit code."""
    if (document is None) == (token is None):
        raise UserError("give a URL or a document id, or --token SHARD:ROW:POS")
    located = locate_run(build, made=True)
    trace = Trace(located.store, located.record)
    for line in moved_since(located, trace.build):
        warn(f"{line}; what it says of a document is what it says now")
    if token is not None:
        show("\n".join(_token(trace, located, token)))
        return 0
    assert document is not None
    for found in trace.find(document):
        show("\n".join([*_address(found, trace), *(line for each in trace.decisions(found) for line in _decision(each)), ""]))
    return 0


def _address(found: Found, trace: Trace) -> list[str]:
    uri = next(each.uri for each in trace.record.inputs if each.name == found.file)
    lines = [
        f"document {found.id}",
        f"  url     {one_line(found.url or 'none')}",
        f"  record  {one_line(masked(uri))}, bytes {found.offset} to {found.offset + found.length}",
    ]
    if not found.length or "://" in uri:
        return lines
    return [*lines, f"  raw     {_raw_command(uri, found, unpacked=trace.build.source.addresses_unpacked)}"]


def _raw_command(uri: str, found: Found, *, unpacked: bool) -> str:
    """Return the command that prints the record; `unpacked`: its address counts what the file holds when it is unpacked."""
    unpack = UNPACKERS.get(uri.rpartition(".")[2])
    cut, end = f"tail -c +{found.offset + 1}", f"head -c {found.length}"
    if unpack is None:
        return f"{cut} {quoted(uri)} | {end}"
    return f"{unpack} {quoted(uri)} | {cut} | {end}" if unpacked else f"{cut} {quoted(uri)} | {end} | {unpack}"


def _decision(decision: Decision) -> list[str]:
    lines = ["", f"{decision.stage}: {one_line(decision.verdict)}"]
    lines += [f"  {_finding(each)}" for each in decision.findings if each.name != "id"]
    if decision.changed or any(each.name == "media" for each in decision.findings):
        size = len(decision.text.encode())
        lines += [f"  text, {size:,} bytes:", textwrap.indent(_start(decision.text), "    | ", lambda _: True)]
    return lines


def _finding(found: Finding) -> str:
    """Return a value with its limits: `words = 41, below min_doc_words = 50 and passes max_doc_words = 100000`."""
    limits, before = [], ""
    for limit in sorted(found.limits, key=lambda each: not each.broken):
        relation = "" if limit.relation == before else f"{limit.relation} "
        limits.append(f"{relation}{limit.parameter} = {_value(limit.value)}")
        before = limit.relation
    value = _exact(found) if any(limit.broken for limit in found.limits) else _value(found.value)
    return f"{one_line(found.name)} = {value}" + (f", {' and '.join(limits)}" if limits else "")


def _exact(found: Finding) -> str:
    """Return a value with as many digits as tell it from the limits that it breaks."""
    limits = {_value(limit.value) for limit in found.limits if limit.relation in ("below", "above")}
    shown = _value(found.value)
    return repr(found.value) if shown in limits else shown


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 or not value.is_integer() else f"{value:.0f}"
    return one_line(", ".join(map(str, value)) if isinstance(value, tuple) else str(value))


def _start(text: str) -> str:
    shown = visible(text[:SHOWN])
    return shown if len(text) <= SHOWN else f"{shown} … ({len(text) - SHOWN:,} more characters)"


def _token(trace: Trace, located: LocatedRun, address: str) -> list[str]:
    """Lead from a training token back to its WARC record."""
    name = located.record.manifest
    manifest = whole_manifest(located.store, name)
    numbers = address.split(":")
    if len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise UserError(f"--token {address!r}: give SHARD:ROW:POS as three numbers, such as 0:12:345")
    shard_number, row, position = map(int, numbers)
    _within("SHARD", shard_number, len(manifest.shards))
    shard = manifest.shards[shard_number]
    if not shard.tokens:
        raise InputError(f"{located.output}: a build of texts has no tokens; its last stage must be `shards`")
    _within("ROW", row, shard.documents)
    with of_build(located.store, name, shard) as file:
        stored = _row(file, row)
    ids = stored["input_ids"]
    _within("POS", position, len(ids))
    found = Found(stored["doc_id"], stored["url"], stored["file"], stored["offset"], stored["length"])
    lines = [f"token {ids[position]} of {shard.file}, row {row}, position {position} of {len(ids)}"]
    lines += _words(trace, ids, position)
    if shard.repeats is not None:
        with of_build(located.store, name, shard.repeats) as file:
            count = _row(file, row)["repeats"]
        lines.append(f"  read {count} times an epoch" if count > 1 else "  read once an epoch")
    for scheme, sidecar in shard.sidecars.items():
        with of_build(located.store, name, sidecar) as file:
            scores = _row(file, row)
        lines += [f"  {_of(scheme, column)} = {_score(scores[column][position])}" for column in sidecar.columns]
    raw = trace.raw(found)
    markup = raw["text"][0].as_py()
    lines += [
        "",
        *_address(found, trace),
        f"  crawled {raw['date'][0].as_py() or 'at an unknown time'}",
        "",
        f"raw text, {len(markup.encode()):,} bytes:",
    ]
    lines += [
        textwrap.indent(_start(markup), "  | ", lambda _: True),
        "",
        f"every decision on it: {command('explain', located.output, found.id)}",
    ]
    return lines


def _of(scheme: str, column: str) -> str:
    return column if scheme in column.split(".") else f"{scheme} {column}"


def _score(value: float | bool) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else _value(float(np.float32(value)))


def _within(name: str, number: int, size: int) -> None:
    if number >= size:
        raise UserError(f"--token: {name} {number} is out of range; there are {size}, numbered from 0")


def _row(file: Reader, row: int) -> Mapping[str, Any]:
    table = file.read_all().slice(row, 1)
    content: Mapping[str, Any] = table.to_pylist()[0]
    return content


def _words(trace: Trace, ids: list[int], position: int) -> list[str]:
    """Show the token in its neighbourhood, with the tokenizer that the build used."""
    encoders = [stage for _, stage in trace.build.stages if isinstance(stage, Encode)]
    spell = encoders[-1].tokens().decode
    before, after = spell(ids[max(0, position - AROUND) : position]), spell(ids[position + 1 : position + 1 + AROUND])
    return [f"  {before!r} [{spell(ids[position : position + 1])!r}] {after!r}"]
