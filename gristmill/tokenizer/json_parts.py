"""The parts of a `tokenizer.json` that are read here, and what each of them must be.

Reads decoded JSON; gives it typed, or a `Mistake` that names the key, what was found and what it must be. What only the Hugging
Face library reads is not looked at.
"""

from __future__ import annotations

from typing import Required, TypedDict, TypeGuard

from gristmill.json_values import Json, JsonObject, shown

MOST_IDS = 2**24
"""Of a vocabulary, gaps counted: each has a place in memory. The largest that is published has under a million."""


class AddedToken(TypedDict, total=False):
    """An entry of `added_tokens`."""

    id: Required[int]
    content: Required[str]
    special: Required[bool]
    normalized: bool
    single_word: bool
    lstrip: bool
    rstrip: bool


class Step(TypedDict, total=False):
    """A normalizer, pre-tokenizer or decoder, or a part of one: its type, those inside a sequence, and the options known here."""

    type: Required[str]
    normalizers: list[Step]
    pretokenizers: list[Step]
    decoders: list[Step]
    add_prefix_space: bool
    use_regex: bool
    individual_digits: bool
    behavior: str
    invert: bool
    pattern: dict[str, str]
    prepend_scheme: str


class Model(TypedDict, total=False):
    """The `model`; `vocab` is a list of [token, score] in a Unigram model."""

    type: str
    vocab: Required[dict[str, int] | list[tuple[str, float]]]
    merges: list[str | list[str]]
    dropout: float | None
    unk_token: str | None
    unk_id: int | None
    continuing_subword_prefix: str | None
    end_of_word_suffix: str | None
    byte_fallback: bool
    ignore_merges: bool


class File(TypedDict, total=False):
    """A whole file."""

    model: Required[Model]
    added_tokens: list[AddedToken] | None
    normalizer: Step | None
    pre_tokenizer: Step | None
    decoder: Step | None
    post_processor: JsonObject | None


class Frame(TypedDict, total=False):
    """What a file has besides what ids depend on; see `Vocabulary.frame`."""

    normalizer: Step | None
    post_processor: JsonObject | None
    decoder: Step | None
    added_tokens: list[AddedToken] | None


class Mistake(ValueError):
    """A file that has something else at a key than a tokenizer has there, or says two things about one id."""


def is_file(data: Json) -> TypeGuard[File]:
    """Return True for a `tokenizer.json`.

    Raises:
        Mistake: it is none; names the first key that is missing or wrong.
    """
    if not isinstance(data, dict):
        raise Mistake(f"the file is not a tokenizer.json: it is {shown(data)}; it must be an object with 'model'")
    model = data.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        found = "missing" if "model" not in data else shown(model)
        raise Mistake(f"the file is not a tokenizer.json: key model is {found}; it must be an object with 'vocab'")
    _check_model(model)
    _check_added(data.get("added_tokens"))
    for key in ("normalizer", "pre_tokenizer", "decoder"):
        _check_step(data.get(key), key)
    if not isinstance(data.get("post_processor"), dict | None):
        raise _wrong("post_processor", data["post_processor"], "an object or null")
    return True


def _wrong(key: str, found: object, allowed: str) -> Mistake:
    return Mistake(f"key {key} is {shown(found)}; it must be {allowed}")


def _is_id(value: object) -> bool:
    return type(value) is int and value >= 0


def _check_model(model: JsonObject) -> None:
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        for name, i in vocab.items():
            if not _is_id(i):
                raise _wrong(f"model.vocab: the id of {name!r}", i, "a whole number from 0 on")
        last = max((i for i in vocab.values() if isinstance(i, int)), default=-1)
        if last >= MOST_IDS:
            raise Mistake(f"key model.vocab has ids to {last}; there can be {MOST_IDS:,} at most")
    elif isinstance(vocab, list) and model.get("type", "Unigram") == "Unigram" and "merges" not in model:
        for i, piece in enumerate(vocab):
            if not isinstance(piece, list) or [type(each) in (int, float) for each in piece] != [False, True]:
                raise _wrong(f"model.vocab[{i}]", piece, "a list of token and score")
            if not isinstance(piece[0], str):
                raise _wrong(f"model.vocab[{i}][0]", piece[0], "text")
    else:
        raise _wrong("model.vocab", vocab, "an object of tokens with their ids (of a Unigram model a list)")
    for key in ("type", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if not isinstance(model.get(key), str | None):
            raise _wrong(f"model.{key}", model[key], "text or null")
    unknown = model.get("unk_id")
    if unknown is not None and not (_is_id(unknown) and isinstance(unknown, int) and unknown < len(vocab)):
        raise _wrong("model.unk_id", unknown, f"null or the number of a token, from 0 to {len(vocab) - 1}")
    _check_merges(model.get("merges", []))


def _check_merges(merges: Json) -> None:
    if not isinstance(merges, list):
        raise _wrong("model.merges", merges, "a list of pairs of tokens")
    for rank, pair in enumerate(merges):
        parts = pair.split(" ") if isinstance(pair, str) else pair
        if not isinstance(parts, list) or len(parts) != 2 or not isinstance(parts[0], str) or not isinstance(parts[1], str):
            raise _wrong(f"model.merges[{rank}]", pair, "two tokens, as ['a', 'b'] or 'a b'")


def _check_added(listed: Json) -> None:
    if not isinstance(listed, list | None):
        raise _wrong("added_tokens", listed, "a list or null")
    for i, token in enumerate(listed or []):
        where = f"added_tokens[{i}]"
        if not isinstance(token, dict):
            raise _wrong(where, token, "an object")
        for key, good, allowed in (
            ("id", _is_id(token.get("id")), "a whole number from 0 on"),
            ("content", isinstance(token.get("content"), str), "text"),
            ("special", isinstance(token.get("special"), bool), "true or false"),
        ):
            if key not in token:
                raise Mistake(f"key {where} has no {key!r}, which must be {allowed}; found {shown(token)}")
            if not good:
                raise _wrong(f"{where}.{key}", token[key], allowed)


_OF_SEQUENCES = ("normalizers", "pretokenizers", "decoders")
_OPTIONS: tuple[tuple[str, type, str], ...] = (
    ("individual_digits", bool, "true or false"),
    ("behavior", str, "text"),
    ("prepend_scheme", str, "text"),
)


def _check_step(step: Json, where: str) -> None:
    """Check a normalizer, pre-tokenizer or decoder, and all inside it; null is one that does nothing."""
    if step is None:
        return
    if not isinstance(step, dict):
        raise _wrong(where, step, "an object or null")
    if not isinstance(step.get("type"), str):
        raise Mistake(f"key {where} has no 'type' that is text; found {shown(step)}")
    for key in _OF_SEQUENCES:
        inside = step.get(key, [])
        if not isinstance(inside, list) or None in inside:
            raise _wrong(f"{where}.{key}", inside, "a list of objects")
        for i, each in enumerate(inside):
            _check_step(each, f"{where}.{key}[{i}]")
    if step["type"] == "Sequence" and not any(isinstance(step.get(key), list) for key in _OF_SEQUENCES):
        raise Mistake(f"key {where} is a Sequence without a list of its steps; found {shown(step)}")
    for key, kind, allowed in _OPTIONS:
        if not isinstance(step.get(key), kind | None):
            raise _wrong(f"{where}.{key}", step[key], allowed)
    if step["type"] == "Digits" and "individual_digits" not in step:
        raise Mistake(f"key {where} is Digits without 'individual_digits', which must be true or false")
    if step["type"] == "Split":
        _check_pattern(step.get("pattern"), f"{where}.pattern")
        if "behavior" not in step:
            raise Mistake(f"key {where} is Split without 'behavior', which must be text such as 'Isolated'")


def _check_pattern(pattern: Json, where: str) -> None:
    ways = [pattern.get(key) for key in ("Regex", "String") if key in pattern] if isinstance(pattern, dict) else []
    if len(ways) != 1 or not isinstance(ways[0], str):
        raise _wrong(where, pattern, "an object with 'Regex' or 'String', and text for it")
