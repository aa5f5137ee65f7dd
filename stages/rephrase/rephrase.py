"""The stage `rephrase`: documents written anew by a model behind an endpoint.

Reads `text` and the answers that are kept; gives documents with `prompt`, `prompt_hash`, `model` and `segment`, null in those
that were there. What is asked, and what makes an answer no rephrasing, is `gristmill/rephrasing/`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import pyarrow as pa

from gristmill import expressions
from gristmill.errors import InputError, UserError
from gristmill.expressions import Expression
from gristmill.json_values import Plain
from gristmill.models.language_id import LanguageId
from gristmill.models.protocols import TextClassifier
from gristmill.rephrasing.endpoint import Endpoint, Refused, Reply, Request
from gristmill.rephrasing.guards import changed_language, fault
from gristmill.rephrasing.prompt import Prompt, path_of, read_prompt
from gristmill.rephrasing.questions import Question, Sampling, parsed, questions, written
from gristmill.rephrasing.tokens import counting
from gristmill.tokenizer.tokenizer_file import find_file
from pipeline.journal import Answer, Journal
from pipeline.schema import DROP, ERROR, ITSELF, PARENT_ROW
from pipeline.stage import ASIDE, Asker, AskingMap

COST = "cost_millionths"  # among the counts of answers, beside `tokens_in` and `tokens_out`

Row: TypeAlias = dict[str, str | int | bool | None]  # of what is made, few enough: a request to a model stands behind each


@dataclass(frozen=True, kw_only=True)
class Rephrase(AskingMap):
    """Write documents anew by a model behind an OpenAI-compatible endpoint: one document of each answer.

    Each document is cut into segments that fit a prompt, at ends of lines where they are, and each prompt is asked about each
    segment. `prompts` are names of the package or paths of files like those. The package's: diverse_qa, distill,
    extract_knowledge, knowledge_list and wikipedia, whose tasks and sizes are Nemotron-CC's; math, table, faq and tutorial,
    formats of FinePhrase; all in words of our own.

    Answers are kept in the output's `answers/` as they come, by the prompt, `model`, the parameters of the request, the document
    and the segment. A build that was killed asks for what is missing alone, one in which a later stage changed asks nothing, and
    both give the same bytes, whatever the model would say now. Where the endpoint is down or the budget spent, the build stops
    with exit code 3 and goes on when it is run again.

    Answers are dropped for `cut` (at max_tokens), `refusal`, `preamble_missing` (it does not begin with the line that its prompt
    asks for, which is taken away), `too_short` (fewer tokens than its prompt's least), `copy` and `language_changed`. Documents
    are quarantined when the endpoint refuses the request (`endpoint_refused`: too long, say) or answers others and not this one
    (`endpoint_failed`).

    Args:
        endpoint: where the model answers, how it is asked, prices and budget. Nothing of it changes what is built.
        model: the name that the endpoint knows it by.
        prompts: what is asked about each document, one after the other.
        only: an SQL expression over the columns, such as `bucket >= 18`: documents for which it is not true pass as they are.
        tokenizer: a tokenizer's file, or its folder, to count tokens with; null: a quarter of the bytes are the tokens.
        keep_original: the document itself is kept too, before what is made of it.
        temperature: of the sampling.
        seed: of the sampling, as far as the endpoint heeds it; null: none is sent.
        max_tokens: of an answer; null: the prompt's output_tokens.
        options: further keys of each request, such as top_p.
        max_copied: an answer with a larger share of its runs of five words out of its segment is a copy.
        same_language: an answer must be in the language of its segment, as far as lid.176 is sure of both.
    """

    endpoint: Endpoint = field(metadata=ASIDE)
    model: str
    prompts: tuple[str, ...]
    only: str | None = None
    tokenizer: str | None = None
    keep_original: bool = False
    temperature: float = 0.7
    seed: int | None = 0
    max_tokens: int | None = None
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    max_copied: float = 0.9
    same_language: bool = True

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise ValueError("model must be the name that the endpoint knows it by, found nothing")
        if not self.prompts or len(set(self.prompts)) < len(self.prompts):
            raise ValueError(f"prompts must be one or several, each once, found {list(self.prompts)}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must not be negative, found {self.temperature}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, found {self.max_tokens}")
        if not 0 <= self.max_copied <= 1:
            raise ValueError(f"max_copied is {self.max_copied}; a share lies between 0 and 1")
        if self.only is not None:
            _condition(self.only)
        taken = sorted(self.options.keys() & {"model", "messages", "temperature", "seed", "max_tokens", "stream", "n"})
        if taken:
            raise ValueError(f"options must not hold {taken[0]!r}: it is a parameter of the stage, or not to be chosen")

    def needs(self) -> tuple[str, ...]:
        """Return the columns that the condition names."""
        return _condition(self.only).columns if self.only is not None else ()

    def adds(self) -> Mapping[str, pa.DataType]:
        """See `Stage.adds`."""
        return {"prompt": pa.string(), "prompt_hash": pa.string(), "model": pa.string(), "segment": pa.int32()}

    def measures(self) -> tuple[str, ...]:
        """See `Stage.measures`."""
        return ("prompt",)

    def files(self) -> tuple[str, ...]:
        """Return the prompts, the tokenizer, and the model of languages."""
        tokenizer = (str(find_file(self.tokenizer)),) if self.tokenizer is not None else ()
        return (*map(str, map(path_of, self.prompts)), *tokenizer, *(LanguageId().files() if self.same_language else ()))

    def libraries(self) -> tuple[str, ...]:
        """Return what tells languages, what counts tokens, and what evaluates the condition."""
        counter = ("tokenizers",) if self.tokenizer is not None else ()
        return (
            *counter,
            *(LanguageId().libraries() if self.same_language else ()),
            *(expressions.LIBRARIES if self.only is not None else ()),
        )

    def subject(self) -> Mapping[str, Plain]:
        """Return the model: answers to other prompts, or with other parameters, lie in the same journal under other keys."""
        return {"rephrase": self.model}

    def check(self) -> None:
        """Raise UserError when a prompt is none, two have one name, the API key is missing, or the tokenizer cannot be opened."""
        self._prompts()
        self.endpoint.key()
        counting(self.tokenizer)

    def open(self) -> Asker:
        """Read the prompts, open the tokenizer and the model of languages; return f(docs, journal) → documents."""
        prompts, count = self._prompts(), counting(self.tokenizer)
        classifier = LanguageId().open() if self.same_language else None
        condition = _condition(self.only) if self.only is not None else None
        chosen = condition.open() if condition is not None else None
        sampling = Sampling(self.model, self.temperature, self.seed, self.max_tokens, self.options)

        def rephrase(docs: pa.Table, journal: Journal) -> pa.Table:
            if condition is not None and not docs.num_rows:
                condition.check(docs.schema)
            mask = [True] * docs.num_rows if chosen is None else chosen(docs).to_pylist()
            texts, ids = docs["text"].to_pylist(), docs["id"].to_pylist()
            asked = [
                questions(name, text, prompts, sampling, count) if wanted else []
                for name, text, wanted in zip(ids, texts, mask, strict=True)
            ]
            requests = {each.key: each.request for of_document in asked for each in of_document}
            answers = journal.answers(list(requests), lambda keys: self._ask(keys, requests, journal))
            made = [[self._row(each, answers[each.key]) for each in of_document] for of_document in asked]
            if classifier is not None:
                _mark_languages(made, asked, classifier)
            return self._table(docs, made, mask)

        return rephrase

    def _prompts(self) -> list[Prompt]:
        found = [read_prompt(prompt) for prompt in self.prompts]
        names = [prompt.name for prompt in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"prompts: two of them are called {twice!r}; documents could not tell which they are of")
        return found

    def _ask(
        self, keys: Sequence[str], requests: Mapping[str, Request], journal: Journal
    ) -> Generator[Mapping[str, Answer], None, None]:
        """Ask for what is missing, within what the budget has left."""
        from gristmill.rephrasing.chat import outcomes  # it imports a client of HTTP, which a plan does without

        spent = journal.spent().get(COST, 0) if self.endpoint.budget is not None else 0
        for batch in outcomes(self.endpoint, {key: requests[key] for key in keys}, spent):
            found = {}
            for key, outcome in batch.items():
                tokens = (outcome.tokens_in, outcome.tokens_out) if isinstance(outcome, Reply) else (0, 0)
                counts = {"tokens_in": tokens[0], "tokens_out": tokens[1], COST: self.endpoint.cost(*tokens)}
                found[key] = Answer(written(outcome), {name: number for name, number in counts.items() if number})
            yield found

    def _row(self, question: Question, answer: Answer) -> Row:
        """Return what becomes of an answer: a document, or a reason for none."""
        prompt, outcome = question.prompt, parsed(answer.content)
        row: Row = {"prompt": prompt.name, "prompt_hash": prompt.hash, "model": self.model, "segment": question.number}
        if not isinstance(outcome, Reply):
            kind = "endpoint_refused" if isinstance(outcome, Refused) else "endpoint_failed"
            return {**row, ERROR: f"{kind}: {outcome.why}"}
        tokens = answer.counts.get("tokens_out", 0)
        text, reason = fault(outcome.text, outcome.finish, tokens, question.source, prompt, self.max_copied)
        return {**row, "text": text, "media": "text/plain", DROP: reason}

    def _table(self, docs: pa.Table, made: Sequence[Sequence[Row]], chosen: Sequence[bool | None]) -> pa.Table:
        """Return the rows of all documents in their order, each before what is made of it where it is kept."""
        rows: list[Row] = []
        texts, media = docs["text"].to_pylist(), docs["media"].to_pylist()
        for parent, of_document in enumerate(made):
            if self.keep_original or not chosen[parent]:
                rows.append({PARENT_ROW: parent, ITSELF: True, "text": texts[parent], "media": media[parent]})
            elif not of_document:
                rows.append({PARENT_ROW: parent, DROP: "no_text"})
            rows += [{PARENT_ROW: parent, **row} for row in of_document]
        fixed = {PARENT_ROW: pa.int64(), "text": pa.string(), "media": pa.string(), ITSELF: pa.bool_()}
        kinds = {**fixed, **self.adds(), DROP: pa.string(), ERROR: pa.string()}
        return pa.Table.from_pylist(rows, schema=pa.schema(list(kinds.items())))


def _condition(only: str) -> Expression:
    """Return the condition. Raises ValueError, with the name of the parameter."""
    try:
        return Expression(only)
    except UserError as error:
        raise ValueError(f"only: {error}") from error


def _mark_languages(made: Sequence[Sequence[Row]], asked: Sequence[Sequence[Question]], classifier: TextClassifier) -> None:
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
