"""From the questions on a table of documents and their answers to the rows that the stage `rephrase` returns.

Pure functions; a row is a dict, few enough of them: a request to a model stands behind each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import pyarrow as pa

from gristmill.models.protocols import TextClassifier
from gristmill.rephrasing.endpoint import Refused, Reply
from gristmill.rephrasing.guards import changed_language, fault
from gristmill.rephrasing.questions import Question, parsed
from pipeline.journal import Answer
from pipeline.schema import DROP, ERROR, ITSELF, PARENT_ROW

Row: TypeAlias = dict[str, str | int | bool | None]

ADDED = {
    "prompt": pa.string(),
    "prompt_hash": pa.string(),
    "model": pa.string(),
    "segment": pa.int32(),
    "answer_tokens": pa.int32(),
}
"""The columns that the stage adds."""

_KINDS = {
    PARENT_ROW: pa.int64(),
    "text": pa.string(),
    "media": pa.string(),
    ITSELF: pa.bool_(),
    **ADDED,
    DROP: pa.string(),
    ERROR: pa.string(),
}


def row_of(question: Question, answer: Answer, model: str, max_copied: float) -> Row:
    """Return what becomes of an answer: a document, or a reason for none."""
    prompt, outcome = question.prompt, parsed(answer.content)
    row: Row = {"prompt": prompt.name, "prompt_hash": prompt.hash, "model": model, "segment": question.number}
    if not isinstance(outcome, Reply):
        kind = "endpoint_refused" if isinstance(outcome, Refused) else "endpoint_failed"
        return {**row, ERROR: f"{kind}: {outcome.why}"}
    tokens = answer.counts.get("tokens_out", 0)
    text, reason = fault(outcome.text, outcome.finish, tokens, question.source, prompt, max_copied)
    return {**row, "answer_tokens": tokens, "text": text, "media": "text/plain", DROP: reason}


def mark_languages(made: Sequence[Sequence[Row]], asked: Sequence[Sequence[Question]], classifier: TextClassifier) -> None:
    """Give a reason to the rows that would be kept and are in another language than their segment."""
    kept = [
        (row, question)
        for rows, of_document in zip(made, asked, strict=True)
        for row, question in zip(rows, of_document, strict=True)
        if row.get(DROP) is None and row.get(ERROR) is None
    ]
    changed = changed_language([str(row["text"]) for row, _ in kept], [question.source for _, question in kept], classifier)
    for (row, _), other in zip(kept, changed, strict=True):
        row[DROP] = "language_changed" if other else None


def table_of(docs: pa.Table, made: Sequence[Sequence[Row]], itself: Sequence[bool]) -> pa.Table:
    """Return the rows of all documents in their order, each before what is made of it where `itself` says that it is kept."""
    rows: list[Mapping[str, str | int | bool | None]] = []
    texts, media = docs["text"].to_pylist(), docs["media"].to_pylist()
    for parent, of_document in enumerate(made):
        if itself[parent]:
            rows.append({PARENT_ROW: parent, ITSELF: True, "text": texts[parent], "media": media[parent]})
        elif not of_document:
            rows.append({PARENT_ROW: parent, DROP: "no_text"})
        rows += [{PARENT_ROW: parent, **row} for row in of_document]
    return pa.Table.from_pylist(rows, schema=pa.schema(list(_KINDS.items())))
