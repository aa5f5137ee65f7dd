"""The stage `rephrase`: documents written anew by a model behind an endpoint.

Reads `text` and the answers that are kept; gives documents with `prompt`, `prompt_hash`, `model`, `segment` and
`answer_tokens`, null in those that were there. What is asked, and what makes an answer no rephrasing, is `gristmill/rephrasing/`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from gristmill import expressions
from gristmill.errors import InputError, UserError
from gristmill.expressions import Expression
from gristmill.json_values import Plain
from gristmill.models.language_id import LanguageId
from gristmill.rephrasing.endpoint import Endpoint, Reply, Request
from gristmill.rephrasing.guards import copied
from gristmill.rephrasing.prompt import Prompt, path_of, read_prompt
from gristmill.rephrasing.questions import Sampling, questions, written
from gristmill.rephrasing.segments import segments
from gristmill.rephrasing.tokens import counting
from gristmill.tokenizer.tokenizer_file import find_file
from pipeline.finding import Finding, at_least, at_most
from pipeline.journal import Answer, Journal
from pipeline.schema import DROP
from pipeline.stage import ASIDE, CONDITION, Asker, AskingMap
from stages.rephrase.rows import ADDED, mark_languages, row_of, table_of

COST = "cost_millionths"  # among the counts of answers, beside `tokens_in` and `tokens_out`


@dataclass(frozen=True, kw_only=True)
class PromptFor:
    """A prompt for some documents.

    Args:
        prompt: its name in the package, or its path.
        only: an SQL expression over the columns: documents for which it is not true are not asked about with this prompt.
    """

    prompt: str
    only: str

    def __post_init__(self) -> None:
        _condition(self.only)


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
        prompts: what is asked about each document, one after the other; some for some documents alone, as in
            `[distill, {prompt: wikipedia, only: bucket < 7}]`.
        only: an SQL expression over the columns, such as `bucket >= 18`: documents for which it is not true pass as they are,
            as do those for which no prompt is.
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
    prompts: tuple[str | PromptFor, ...]
    only: str | None = field(default=None, metadata=CONDITION)
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
        if not self.prompts:
            raise ValueError("prompts must be one or several, found none")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must not be negative, found {self.temperature}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, found {self.max_tokens}")
        if not 0 <= self.max_copied <= 1:
            raise ValueError(f"max_copied is {self.max_copied}; a share lies between 0 and 1")
        taken = sorted(self.options.keys() & {"model", "messages", "temperature", "seed", "max_tokens", "stream", "n"})
        if taken:
            raise ValueError(f"options must not hold {taken[0]!r}: it is a parameter of the stage, or not to be chosen")

    def needs(self) -> tuple[str, ...]:
        """Return the columns that the conditions of prompts name."""
        return tuple(dict.fromkeys(column for each in self._conditions() for column in each.columns))

    def adds(self) -> Mapping[str, pa.DataType]:
        """See `Stage.adds`."""
        return ADDED

    def measures(self) -> tuple[str, ...]:
        """See `Stage.measures`."""
        return ("prompt", "answer_tokens")

    def files(self) -> tuple[str, ...]:
        """Return the prompts, the tokenizer, and the model of languages."""
        tokenizer = (str(find_file(self.tokenizer)),) if self.tokenizer is not None else ()
        return (
            *(str(path_of(prompt)) for prompt, _ in self._asked()),
            *tokenizer,
            *(LanguageId().files() if self.same_language else ()),
        )

    def libraries(self) -> tuple[str, ...]:
        """Return what tells languages, what counts tokens, and what evaluates the conditions of prompts."""
        counter = ("tokenizers",) if self.tokenizer is not None else ()
        return (
            *counter,
            *(LanguageId().libraries() if self.same_language else ()),
            *(expressions.LIBRARIES if self._conditions() else ()),
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
        conditions = [_masking(only) for only in (self.only, *(only for _, only in self._asked()))]
        sampling = Sampling(self.model, self.temperature, self.seed, self.max_tokens, self.options)

        def rephrase(docs: pa.Table, journal: Journal) -> pa.Table:
            chosen, *masks = (condition(docs) for condition in conditions)
            wanted = [[prompt for prompt, mask in zip(prompts, masks, strict=True) if mask[row]] for row in range(docs.num_rows)]
            wanted = [each if yes else [] for each, yes in zip(wanted, chosen, strict=True)]
            texts = zip(docs["id"].to_pylist(), docs["text"].to_pylist(), wanted, strict=True)
            asked = [questions(name, text, each, sampling, count) for name, text, each in texts]
            requests = {each.key: each.request for of_document in asked for each in of_document}
            answers = journal.answers(list(requests), lambda keys: self._ask(keys, requests, journal))
            made = [[row_of(each, answers[each.key], self.model, self.max_copied) for each in of_one] for of_one in asked]
            if classifier is not None:
                mark_languages(made, asked, classifier)
            return table_of(docs, made, [self.keep_original or not each for each in wanted])

        return rephrase

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return how long an answer is, and how much of it is copied; see `Stage.explain`."""
        name, number, tokens, reason = (
            after[column][0].as_py() if column in after.column_names else None
            for column in ("prompt", "segment", "answer_tokens", DROP)
        )
        if tokens is None or number is None:
            return ()
        prompt = next(each for each in self._prompts() if each.name == name)
        source = segments(before["text"][0].as_py(), prompt.input_tokens, counting(self.tokenizer))[number]
        share = round(copied(after["text"][0].as_py(), source), 4)
        long = at_least(tokens, "prompts", prompt.least_tokens)
        found = [
            Finding("answer_tokens", tokens, (long,), decisive=reason == "too_short"),
            Finding("copied", share, (at_most(share, "max_copied", self.max_copied),), decisive=reason == "copy"),
        ]
        return sorted(found, key=lambda each: not each.decisive)

    def _asked(self) -> list[tuple[str, str | None]]:
        """Return each prompt with its condition."""
        return [(each.prompt, each.only) if isinstance(each, PromptFor) else (each, None) for each in self.prompts]

    def _conditions(self) -> list[Expression]:
        return [_condition(only) for _, only in self._asked() if only is not None]

    def _prompts(self) -> list[Prompt]:
        found = [read_prompt(prompt) for prompt, _ in self._asked()]
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


def _condition(only: str) -> Expression:
    """Return the condition. Raises ValueError, with the name of the parameter."""
    try:
        return Expression(only)
    except UserError as error:
        raise ValueError(f"only: {error}") from error


def _masking(only: str | None) -> Callable[[pa.Table], Sequence[bool | None]]:
    """Return f(docs) → for which of them a condition is true; without one, for all."""
    if only is None:
        return lambda docs: [True] * docs.num_rows
    condition = _condition(only)
    evaluate = condition.open()

    def mask(docs: pa.Table) -> Sequence[bool | None]:
        if not docs.num_rows:
            condition.check(docs.schema)  # once a unit, before any document
        found: list[bool | None] = evaluate(docs).to_pylist()
        return found

    return mask
