"""The tokenizer that comes with a model, as the text of a `tokenizer.json`, and the ids of its first and last token.

Reads a model's files; writes nothing. A `tokenizer.json` is taken as it is: transformers rebuilds some tokenizers from their
vocabulary alone, which changes ids.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from gristmill.errors import InputError
from gristmill.models.causal_lm.weights import Files
from gristmill.tokenizer.json_parts import is_file

if TYPE_CHECKING:
    from transformers import PretrainedConfig

STANDARD = "tokenizer.json"
CONFIGS = ("generation_config.json", "config.json", "tokenizer_config.json")
OTHERS = ("tokenizer.model", "vocab.json", "vocab.txt")  # what a tokenizer.json is made from where there is none
SAMPLE = "The people of the world have, in the course of time, written down most of what they know about the weather."
WORDS = 1000  # tokens of at least two letters, from which on a text must not come out letter by letter


def read(files: Files, path: str) -> str | None:
    """Return the text of the model's tokenizer.json, or None where the model has no tokenizer.

    Raises:
        InputError: there are files of a tokenizer, or a GGUF, that transformers cannot make one from.
    """
    if STANDARD in files.names:
        return (files.folder / STANDARD).read_bytes().decode()
    if files.gguf is None and not set(OTHERS) & set(files.names):
        return None
    from transformers import AutoTokenizer

    gguf = {} if files.gguf is None else {"gguf_file": files.gguf}
    try:
        made = AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False, **gguf)
        text = str(made.backend_tokenizer.to_str())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        message = " ".join(str(error).split())[:300]
        raise InputError(
            f"model {path!r}: transformers makes no {STANDARD} from its tokenizer ({type(error).__name__}: {message}); "
            f"put a {STANDARD} beside it"
        ) from error
    _check_words(text, path)
    return text


def check(text: str, rows: int, path: str) -> None:
    """Raise InputError where a text can come out as ids that the model's head, of `rows` ids, does not have."""
    size = size_of(text, path)
    if size > rows:
        raise InputError(
            f"model {path!r}: its tokenizer has ids up to {size - 1}, but its head tells {rows} apart: vocabulary mismatch; give "
            "the tokenizer that the model was trained with"
        )


def size_of(text: str, path: str) -> int:
    """Return one more than the largest id that a text can come out as: special tokens stand for no text."""
    try:
        data = json.loads(text)
        assert is_file(data)
    except ValueError as error:
        raise InputError(f"model {path!r}: its {STANDARD} cannot be used: {error}") from error
    pieces = data["model"]["vocab"]
    ids = list(pieces.values()) if isinstance(pieces, dict) else list(range(len(pieces)))
    listed = data.get("added_tokens") or []
    special = {token["id"] for token in listed if token["special"]}
    added = [token["id"] for token in listed if not token["special"]]
    return max([-1, *added, *(i for i in ids if i not in special)]) + 1


def special(files: Files, config: PretrainedConfig, text: str | None, kind: Literal["bos", "eos"], rows: int) -> int | None:
    """Return the id of the first or last token of a text, or None where nothing says it.

    As its generation config says, else its config, else its tokenizer's; of several the first. Read from the files: config
    classes have defaults (Llama: 1 and 2) that hold for one published vocabulary only.

    Args:
        files: of the model.
        config: transformers' of the text model, for a GGUF.
        text: the tokenizer.json.
        kind: which.
        rows: ids that the head tells apart; an id beyond is none.
    """
    given = [files.json(name).get(f"{kind}_token_id") for name in CONFIGS[:2]]
    given.append((files.json("config.json").get("text_config") or {}).get(f"{kind}_token_id"))
    if files.gguf is not None:
        given.append(getattr(config, f"{kind}_token_id", None))
    if text is not None:
        named = files.json(CONFIGS[2]).get(f"{kind}_token")
        name = named.get("content") if isinstance(named, dict) else named
        given.append(next((t["id"] for t in json.loads(text).get("added_tokens") or [] if t["content"] == name), None))
    for value in given:
        first = next(iter(value), None) if isinstance(value, list) else value
        if isinstance(first, int) and 0 <= first < rows:
            return first
    return None


def _check_words(text: str, path: str) -> None:
    """Raise InputError where a vocabulary of words splits a text into letters: its merges were lost on the way."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(text)
    words = sum(len(piece) > 2 and piece.isalpha() for piece in made.get_vocab())
    found = len(made.encode(SAMPLE, add_special_tokens=False).ids)
    if words >= WORDS and found > len(SAMPLE) // 2:
        raise InputError(
            f"model {path!r}: the tokenizer that transformers makes of it splits {len(SAMPLE)} letters into {found} tokens, "
            f"though {words} of its tokens are longer: it is not the model's own; put the model's "
            f"{STANDARD} and safetensors in a folder"
        )
