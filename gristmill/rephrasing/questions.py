"""Questions: for each text, each prompt and each segment one request; and the answers as they are kept.

Pure functions. A question is named by a hash of all that its answer depends on: the body of the request, the document, the number
of the segment. So equal texts of two documents have answers of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gristmill.json_values import Plain
from gristmill.rephrasing.endpoint import Failed, Outcome, Refused, Reply, Request
from gristmill.rephrasing.prompt import Prompt
from gristmill.rephrasing.segments import segments
from gristmill.rephrasing.tokens import Count

OVERHEAD = 16  # tokens that a chat template adds to a message, about


@dataclass(frozen=True)
class Question:
    """What is asked about a segment of a document: `number` from 0, `source` its text."""

    key: str
    prompt: Prompt
    number: int
    source: str
    request: Request


@dataclass(frozen=True)
class Sampling:
    """What a request says beside its text; `options` are further keys of its body."""

    model: str
    temperature: float
    seed: int | None
    max_tokens: int | None
    options: Mapping[str, str | int | float | bool]


def questions(document: str, text: str, prompts: Sequence[Prompt], sampling: Sampling, count: Count) -> list[Question]:
    """Return what is asked about a document, prompt by prompt, segment by segment; nothing about one without text.

    Args:
        document: its id.
        text: what it says.
        prompts: what is asked.
        sampling: how.
        count: tells how many tokens texts have.
    """
    found = []
    for prompt in prompts:
        sources = segments(text, prompt.input_tokens, count)
        filled = [prompt.filled(source) for source in sources]
        for number, (source, words, tokens) in enumerate(zip(sources, filled, count(filled) if filled else [], strict=True)):
            most = sampling.max_tokens or prompt.output_tokens
            body: dict[str, Plain] = {
                **sampling.options,
                "model": sampling.model,
                "messages": [{"role": "user", "content": words}],
                "temperature": sampling.temperature,
                "max_tokens": most,
                **({"seed": sampling.seed} if sampling.seed is not None else {}),
            }
            canonical = json.dumps([body, document, number], sort_keys=True, separators=(",", ":"))
            key = hashlib.sha256(canonical.encode()).hexdigest()[:32]
            found.append(Question(key, prompt, number, source, Request(body, tokens + OVERHEAD, most)))
    return found


def written(outcome: Outcome) -> str:
    """Return what became of a question as JSON."""
    if isinstance(outcome, Reply):
        content = {"text": outcome.text, "finish": outcome.finish, "model": outcome.model}
    else:
        content = {"refused" if isinstance(outcome, Refused) else "failed": outcome.why}
    return json.dumps(content, ensure_ascii=False)


def parsed(content: str) -> Outcome:
    """Return what `written` was given, but for the tokens."""
    found = json.loads(content)
    if "text" in found:
        return Reply(found["text"], found["finish"], found["model"])
    return Refused(found["refused"]) if "refused" in found else Failed(found["failed"])
