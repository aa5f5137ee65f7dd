"""Documents with their labels, in an order that a seed fixes, and their division into those trained on and those held out.

Reads the documents of a build or a source; writes nothing. What comes out depends on ids, addresses, texts and the seed, not on
the order of files or rows. The labelled texts are held in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import InputError, UserError
from gristmill.expressions import Expression
from jobs.classifier.recipe import ByColumn, ByRules, Labels, Recipe, Rule, Settings
from jobs.html.markup import plural
from jobs.terminal import warn
from jobs.tokenizer.corpus import documents_of

SHOWN = 8  # names in a message

Tell = Callable[[str, str, int], str | None]
"""f(host, url, row) → the label of a document, or None. Raises Undecided."""


class Undecided(Exception):
    """A rule whose turn it is has no answer for a document."""


@dataclass(frozen=True)
class Document:
    """A labelled document; `host` is "" where it has no address."""

    id: str
    label: str
    host: str
    url: str
    text: str


@dataclass(frozen=True)
class Labelled:
    """What is trained on and what is held out, and what was left out before.

    `read`: documents in all. `without`: those without a label, or without text. `undecided`: those for which the `where` of a
    rule cannot be evaluated. `twins`: those whose text another one has, with the same label. `contradicting`: those whose text
    has several labels.
    """

    training: tuple[Document, ...]
    held: tuple[Document, ...]
    read: int
    without: int
    twins: int
    contradicting: int
    undecided: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels in ascending order."""
        return tuple(sorted({each.label for each in self.training}))


def labelled(recipe: Recipe, seen: Callable[[int], None]) -> Labelled:
    """Return the documents of a recipe.

    Raises:
        InputError: no documents, no label, one alone, or a label with no document on one of the two sides.
    """
    settings, found, undecided, read = recipe.settings, list[Document](), list[tuple[str, str]](), 0
    for table in documents_of(recipe.documents):
        some, others = with_labels(table, settings.labels)
        found += some
        undecided += others
        read += table.num_rows
        seen(read)
    if undecided:
        identity, why = min(undecided)
        warn(
            f"labels: {why} cannot be evaluated for {plural(len(undecided), 'document')}, such as {identity}: left out. "
            "In place of cast(... as double) write try_cast(... as double), which is null there"
        )
    without = read - len(found) - len(undecided)
    return replace(labelled_of(found, settings), read=read, without=without, undecided=len(undecided))


def labelled_of(found: Sequence[Document], settings: Settings) -> Labelled:
    """Return the two sides of labelled documents; see `labelled`."""
    kept, twins, contradicting = _once(found)
    counts = Counter(each.label for each in kept)
    if len(counts) < 2:
        what = f"only {next(iter(counts))!r} ({counts.total()} documents)" if counts else "none"
        raise InputError(f"labels: {len(found)} documents have one; there must be two labels at least, found {what}")
    if settings.positive is not None and settings.positive not in counts:
        raise InputError(f"positive is {settings.positive!r}, which no document has; the labels are {', '.join(sorted(counts))}")
    kept.sort(key=lambda each: (_number(f"order {settings.seed}", each.id), each.id))
    training, held = _divided(kept, settings)
    return Labelled(tuple(_balanced(training, settings)), tuple(held), len(found), 0, twins, contradicting)


def with_labels(table: pa.Table, labels: Labels) -> tuple[list[Document], list[tuple[str, str]]]:
    """Return the documents of a table that have a label and text, and of those that no rule can decide on the id and the rule."""
    urls = pc.fill_null(table["url"], "").to_pylist()
    hosts = [host_of(url) for url in urls]
    tell = _teller(labels, table)
    ids, names, undecided = table["id"], list[str | None](), list[tuple[str, str]]()
    for row, (host, url) in enumerate(zip(hosts, urls, strict=True)):
        try:
            names.append(tell(host, url, row))
        except Undecided as error:
            names.append(None)
            undecided.append((ids[row].as_py(), str(error)))
    wanted = [row for row, name in enumerate(names) if name is not None]
    chosen = table.select(["id", "text"]).take(pa.array(wanted, pa.int64()))
    found = [
        Document(identity, str(names[row]), hosts[row], urls[row], text)
        for row, identity, text in zip(wanted, chosen["id"].to_pylist(), chosen["text"].to_pylist(), strict=True)
        if text and not text.isspace()
    ]
    return found, undecided


def _teller(labels: Labels, table: pa.Table) -> Tell:
    if isinstance(labels, ByColumn):
        if labels.column not in table.column_names:
            raise InputError(f"labels: the documents have no column {labels.column!r}; they have {', '.join(table.column_names)}")
        kind = table.schema.field(labels.column).type
        if pa.types.is_nested(kind):
            raise InputError(
                f"labels: column {labels.column!r} is {kind}, and a label is one text or number; give another column"
            )
        values = table[labels.column].cast(pa.string()).to_pylist()
        return lambda host, url, row: values[row] if values[row] and not values[row].isspace() else None
    if isinstance(labels, ByRules):
        tests = [(rule.label, _test(rule, table)) for rule in labels.rules]
        return lambda host, url, row: next((label for label, fits in tests if fits(host, url, row)), None)
    exact, below = _seeds(labels.seeds)
    return lambda host, url, row: labels.label if url in exact or any(map(below.__contains__, _folders(url))) else labels.other


def _test(rule: Rule, table: pa.Table) -> Callable[[str, str, int], bool]:
    """Return f(host, url, row) → whether a rule fits a document; it raises Undecided."""
    found = re.compile(rule.url or "")
    where = [True] * table.num_rows if rule.where is None else _answers(rule, rule.where, table)

    def fits(host: str, url: str, row: int) -> bool:
        if (rule.host and not _is_of(host, rule.host)) or (rule.url is not None and found.search(url) is None):
            return False
        answer = where[row]
        if answer is None:
            raise Undecided(f"where of {rule.label!r}")
        return answer

    return fits


def _answers(rule: Rule, sql: str, table: pa.Table) -> list[bool | None]:
    """Return for each row whether a condition is true, None where it cannot be evaluated."""
    condition = Expression(sql)
    try:
        condition.check(table.schema)
    except UserError as error:
        raise InputError(f"labels: where of {rule.label!r}: {error}") from error
    return [answer and bool(answer[0]) for answer in condition.tried(table).to_pylist()]


def _is_of(host: str, hosts: Iterable[str]) -> bool:
    return any(host == each or host.endswith(f".{each}") for each in hosts)


def _seeds(path: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the addresses of a file, and the folders in it."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"labels: seeds {path!r} cannot be read: {error}; give a text file with an address a line") from error
    listed = frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not listed:
        raise InputError(f"labels: seeds {path!r} has no address; give one a line")
    return listed, frozenset(each for each in listed if each.endswith("/"))


def _folders(url: str) -> list[str]:
    return [url[: at + 1] for at, letter in enumerate(url) if letter == "/"]


def host_of(url: str) -> str:
    """Return the host of an address in small letters, without its port; "" where it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # a bad IPv6 address
        return ""


def _once(found: Sequence[Document]) -> tuple[list[Document], int, int]:
    """Return the document with the lowest id of each text with one label, and how many are left out as twins and as others."""
    by_text: dict[bytes, list[Document]] = {}
    for each in found:
        by_text.setdefault(hashlib.sha256(each.text.encode()).digest(), []).append(each)
    same = [group for group in by_text.values() if len({each.label for each in group}) == 1]
    kept = [min(group, key=lambda each: each.id) for group in same]
    agreeing = sum(map(len, same))
    return kept, agreeing - len(kept), len(found) - agreeing


def _number(key: str, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=key.encode()[:64]).digest())


def _divided(documents: Sequence[Document], settings: Settings) -> tuple[list[Document], list[Document]]:
    """Return the documents whose hosts are trained on, and those whose hosts are held out."""
    chosen, key = settings.held_out, f"held out {settings.seed}"

    def is_held(each: Document) -> bool:
        if isinstance(chosen, tuple):
            return _is_of(each.host, chosen)
        return _number(key, each.host or f"document {each.id}") < chosen * 2.0**64

    held = [is_held(each) for each in documents]
    sides = ([each for each, out in zip(documents, held, strict=True) if out == side] for side in (False, True))
    training, measured = sides
    labels = sorted({each.label for each in documents})
    for side, what in ((training, "left to train on"), (measured, "held out")):
        for label in labels:
            if not any(each.label == label for each in side):
                hosts = sorted({each.host or "(no address)" for each in documents if each.label == label})
                some = ", ".join(hosts[:SHOWN]) + (", ..." if len(hosts) > SHOWN else "")
                raise InputError(
                    f"held_out: no document of {label!r} is {what}; its hosts are {some}. Name hosts to hold out "
                    "(`held_out: [HOST, ...]`), or give another share or seed"
                )
    return training, measured


def _balanced(documents: Sequence[Document], settings: Settings) -> list[Document]:
    """Return the first documents of each label, as many as the recipe has of it, in their order."""
    counts = Counter(each.label for each in documents)
    most = min(settings.most or len(documents), min(counts.values()) if settings.balance else len(documents))
    taken, kept = Counter[str](), []
    for each in documents:
        if taken[each.label] < most:
            taken[each.label] += 1
            kept.append(each)
    return kept


def texts_of(documents: Sequence[Document]) -> pa.StringArray:
    """Return the texts as one array."""
    return pa.array([each.text for each in documents], pa.string())


def targets_of(documents: Sequence[Document], labels: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Return the number of each document's label, int32 [documents]."""
    numbers = {label: number for number, label in enumerate(labels)}
    return np.array([numbers[each.label] for each in documents], np.int32)
