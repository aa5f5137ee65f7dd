"""What `train-tokenizer` writes beside a tokenizer: measures on texts held out, what training decided, names for transformers.

Reads the vocabulary, the texts held out and the notes of training; gives plain data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from gristmill.errors import InputError
from gristmill.tokenizer.encoding.choose import choose_encoder
from gristmill.tokenizer.scheme import END_TOKEN, Scheme
from gristmill.tokenizer.tokenizer_file import find_file
from gristmill.tokenizer.training.corpus import Corpus, make_corpus
from gristmill.tokenizer.vocabulary import Vocabulary
from jobs.tokenizer.corpus import Sample

CONFIG = "tokenizer_config.json"
KEPT = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
    "additional_special_tokens",
    "extra_special_tokens",
    "chat_template",
    "model_max_length",
)
"""What a base's `tokenizer_config.json` says that a tokenizer on top of it keeps."""


def measures(vocabulary: Vocabulary, held: Sample, least: int) -> dict[str, Any]:
    """Return bytes per token of the held-out documents, of all and of each stratum; null without any.

    `enough` says whether these have as many bytes as were asked for.
    """
    documents = len(held)
    if not documents:
        none: dict[str, Any] = {"bytes_per_token": None, "bytes_per_token_by_stratum": {}, "held_out_by_stratum": {}}
        return {"held_out_documents": 0, "held_out_bytes": 0, "held_out_enough": False, **none}
    texts = make_corpus(held.texts, held.strata)
    tokens, sizes, numbers = _tokens(vocabulary, texts), np.zeros(len(texts.groups), np.int64), [0] * len(texts.groups)
    for batch in texts.batches:
        sizes[batch.group] += len(batch.text)
        numbers[batch.group] += len(batch)
    return {
        "held_out_documents": documents,
        "held_out_bytes": held.bytes,
        "held_out_enough": held.bytes >= least,
        "bytes_per_token": round(float(sizes.sum() / tokens.sum()), 4),
        "bytes_per_token_by_stratum": {name: round(float(sizes[i] / tokens[i]), 4) for i, name in enumerate(texts.groups)},
        "held_out_by_stratum": {
            name: {"documents": numbers[i], "bytes": int(sizes[i]), "tokens": int(tokens[i])}
            for i, name in enumerate(texts.groups)
        },
    }


def quota(vocabulary: Vocabulary, plain: Vocabulary, most: float, held: Sample, strata: Iterable[str]) -> dict[str, Any]:
    """Return what came of a quota on texts held out, for each stratum: tokens, those of plain BPE, the loss, whether it holds.

    The last two are null for a stratum of which nothing is held out.
    """
    texts = make_corpus(held.texts, held.strata)
    ours, theirs = (_tokens(each, texts) for each in (vocabulary, plain))
    found: dict[str, dict[str, Any]] = {name: {"tokens": 0, "plain_tokens": 0, "loss": None, "holds": None} for name in strata}
    for i, name in enumerate(texts.groups):
        loss = float(ours[i] / theirs[i]) - 1
        found[name] = {
            "tokens": int(ours[i]),
            "plain_tokens": int(theirs[i]),
            "loss": round(loss, 4),
            "holds": loss <= most,
        }
    return {"max_loss": most, "by_stratum": found}


def _tokens(vocabulary: Vocabulary, texts: Corpus) -> np.ndarray:
    """Return the tokens of each group, int64."""
    encoder = choose_encoder(vocabulary)
    tokens = np.zeros(len(texts.groups), np.int64)
    for batch in texts.batches:
        tokens[batch.group] += len(encoder.encode(batch.text, batch.offsets)[0])
    return tokens


def decided(
    scheme: Scheme, vocabulary: Vocabulary, notes: Mapping[str, Any], held: Sample, strata: Iterable[str]
) -> dict[str, Any]:
    """Return what training tried and chose (`transition`), and what came of a quota (`quota`), as plain data."""
    found = {name: what for name, what in notes.items() if name != "plain"}
    most = getattr(scheme, "max_loss", None)
    if "plain" in notes and most is not None and len(held):
        found["quota"] = quota(vocabulary, notes["plain"], most, held, strata)
    return found


def lines(record: Mapping[str, Any], least: int) -> Iterator[str]:
    """Yield what a person is to know of a record: what was decided, and how the tokenizer does on documents held out."""
    yield from _decisions(record.get("training", {}))
    facts = record["tokenizer"]
    if facts["eos_token"] is None:
        yield "no end token is named: give one of the special tokens as eos_token, so that tokenizer_config.json has it"
    size = f"{facts['held_out_documents']} held-out documents of {facts['held_out_bytes']:,} bytes"
    yield f"bytes per token on {size}: {facts['bytes_per_token']}"
    if not facts["held_out_enough"]:
        yield (
            f"these are fewer than held_out_bytes, {least:,}: too little for a measurement; train on more text, or measure on "
            "other documents: python -m jobs measure-tokenizer"
        )


def _decisions(training: Mapping[str, Any]) -> Iterator[str]:
    transition = training.get("transition")
    if transition:
        size = transition["held_out_bytes"]
        for tried, one in transition["tried"].items():
            chosen = ": chosen" if int(tried) == transition["chosen"] else ""
            ratio = size / max(1, one["held_out_tokens"])
            yield f"transition at {tried} tokens: {ratio:.4f} bytes per token on {size:,} bytes held out{chosen}"
    outcome = training.get("quota")
    if outcome:
        for name, one in outcome["by_stratum"].items():
            if one["loss"] is None:
                yield f"quota of {name or 'all'}: unknown, as no document of it is held out"
                continue
            said = "holds" if one["holds"] else "does not hold"
            yield (
                f"quota of {name or 'all'}: {one['loss']:+.2%} tokens against plain BPE on documents held out, at most "
                f"{outcome['max_loss']:+.2%} are asked for: {said}"
            )


def transformers_config(scheme: Scheme, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the `tokenizer_config.json`: what the base's says of special tokens and chat, with the end token that is named."""
    given = _of_base(scheme)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{key: given[key] for key in KEPT if given.get(key) is not None},
        "eos_token": end_token(scheme, vocabulary),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }


def end_token(scheme: Scheme, vocabulary: Vocabulary) -> str | None:
    """Return the name of the end token: as the recipe says, else as the base does, else the usual one if it is there."""
    of_base = _of_base(scheme).get("eos_token")
    named = of_base.get("content") if isinstance(of_base, dict) else of_base
    for name in (scheme.eos_token, named, END_TOKEN):
        if isinstance(name, str) and name in vocabulary.special_tokens:
            return name
    return None


def _of_base(scheme: Scheme) -> dict[str, Any]:
    """Return what the `tokenizer_config.json` beside the base says; nothing where there is none."""
    beside = None if scheme.start is None else find_file(scheme.start).parent / CONFIG
    if beside is None or not beside.is_file():
        return {}
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"base: {beside} is no JSON: {error}; mend it, or move it away") from error
    return found if isinstance(found, dict) else {}
