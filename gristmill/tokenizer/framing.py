"""What a `tokenizer.json` would put around each text, read from its `post_processor`; a build puts there what its config says."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import NamedTuple

from gristmill.json_values import Json, JsonObject


class Frame(NamedTuple):
    """The names of the special tokens before and after a text."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def prescribed(processor: Json) -> Frame:
    """Return what a post-processor puts around one text; of a sequence the later ones put theirs around the earlier."""
    match processor:
        case {"type": "Sequence", "processors": list(several)}:
            found = Frame()
            for one in several:
                outer = prescribed(one)
                found = Frame(outer.before + found.before, found.after + outer.after)
            return found
        case {"type": "BertProcessing" | "RobertaProcessing", "cls": [str(first), *_], "sep": [str(last), *_]}:
            return Frame((first,), (last,))
        case {"type": "TemplateProcessing", "single": list(parts), "special_tokens": dict(tokens)}:
            texts = [i for i, part in enumerate(parts) if isinstance(part, dict) and "Sequence" in part]
            if not texts:
                return Frame()
            return Frame(_special(parts[: texts[0]], tokens), _special(parts[texts[-1] + 1 :], tokens))
    return Frame()


def _special(parts: Sequence[Json], tokens: JsonObject) -> tuple[str, ...]:
    """Return the tokens that stand for the special parts of a template; a part may be several."""
    found: list[str] = []
    for part in parts:
        match part:
            case {"SpecialToken": {"id": str(name)}}:
                match tokens.get(name):
                    case {"tokens": [_, *_] as several}:
                        found += [token for token in several if isinstance(token, str)]
                    case _:
                        found.append(name)
    return tuple(found)


def left_out(processor: JsonObject | None, bos: Sequence[str], eos: Sequence[str]) -> Frame:
    """Return what is prescribed around a text and is not among what a build puts there."""
    before, after = prescribed(processor)
    return Frame(tuple(name for name in before if name not in bos), tuple(name for name in after if name not in eos))


@functools.lru_cache(maxsize=64)
def say_left_out(where: str, missing: Frame) -> None:
    """Say on the log what a build leaves out; once in a process."""
    for key, names, place in (("bos", missing.before, "before"), ("eos", missing.after, "after")):
        if names:
            logging.getLogger(__name__).warning(
                "tokenizer %r: its post_processor puts %s %s each text, this build does not; a model that was trained with it "
                "expects it: name it as `%s` of encode",
                where,
                ", ".join(names),
                place,
                key,
            )
