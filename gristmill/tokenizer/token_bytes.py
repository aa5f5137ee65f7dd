"""The bytes that each token of a vocabulary stands for in a text: the common ground of two tokenizers.

Reads the tokens of a vocabulary, or the text of any `tokenizer.json` that keeps bytes (byte-level, or of SentencePiece's kind
with ▁ for a space and <0x0A> for a byte); gives lengths, spelled texts and comparisons from flat ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.tokenizer.json_parts import Model, Step
from gristmill.tokenizer.token_names import single_byte, unspell
from gristmill.tokenizer.tokenizer_json import TokenizerJson, Unsupported, blamed_on, read

Ids = npt.NDArray[np.integer]

UNKNOWN = -1
_SPACE = "▁"


@dataclass(frozen=True)
class TokenBytes:
    """The bytes of each id.

    `data`: uint8 [bytes of all]. `starts`: int64 [ids + 1], those of id i are data[starts[i]:starts[i + 1]].
    `lengths`: int32 [ids], 0 for a special token, −1 where nobody knows (<unk>).
    `prefix`: so many bytes the tokenizer may put before each text (0 or 1), for `align`.
    """

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    prefix: int = 0

    @property
    def size(self) -> int:
        """Return the number of ids."""
        return len(self.lengths)


def make_token_bytes(tokens: Sequence[bytes | None], prefix: int = 0) -> TokenBytes:
    """Return the table of a vocabulary.

    Args:
        tokens: the bytes of each id: none for a special token (`Vocabulary.ordinary()` has them so), None where nobody knows.
        prefix: see `TokenBytes`.
    """
    lengths = np.array([UNKNOWN if token is None else len(token) for token in tokens], np.int32)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.maximum(lengths, 0), dtype=np.int64)])
    data = np.frombuffer(b"".join(token or b"" for token in tokens), np.uint8)
    return TokenBytes(data, starts, lengths, prefix)


def parse_token_bytes(text: str, where: str) -> TokenBytes:
    """Return the table of a `tokenizer.json` (of a tokenizer of transformers: `backend_tokenizer.to_str()`).

    Args:
        text: of the file.
        where: its name for messages.

    Raises:
        InputError: it is no such file, or its tokens do not say their bytes (WordPiece and the like).
    """
    with blamed_on(where):
        return _table(read(text, where))


def _table(file: TokenizerJson) -> TokenBytes:
    data, pieces = file.data, file.pieces
    parts = [*_parts(data.get("normalizer")), *_parts(data.get("pre_tokenizer")), *_parts(data.get("decoder"))]
    kinds = {part["type"] for part in parts}
    found: list[bytes | None] = [None] * (max([*pieces.values(), *(token.id for token in file.added)], default=-1) + 1)
    if "ByteLevel" in kinds:
        for piece, i in pieces.items():
            found[i] = unspell(piece)
    elif "Metaspace" in kinds or "Prepend" in kinds or any(_SPACE in json.dumps(p, ensure_ascii=False) for p in parts):
        fallback = bool(data["model"].get("byte_fallback")) or "ByteFallback" in kinds
        for piece, i in pieces.items():
            found[i] = (single_byte(piece) if fallback else None) or piece.replace(_SPACE, " ").encode()
    else:
        kind = json.dumps(data["model"].get("type"))
        raise Unsupported(
            f"key model.type is {kind} without ByteLevel or {_SPACE} for spaces: its tokens do not say "
            "which bytes they stand for; score with a model whose tokenizer is byte-level or of SentencePiece's kind"
        )
    for token in file.added:
        if token.special:
            found[token.id] = b""
        elif token.content not in pieces:
            found[token.id] = token.content.encode()
    unknown = _unknown(data["model"], pieces)
    if unknown is not None and len({token for token in found if token and len(token) == 1}) < 256:
        found[unknown] = None  # with all bytes as tokens it never comes out of a text, and is as special as it says
    return make_token_bytes(found, int(any(_prepends(part) for part in parts[: len(parts) - len(_parts(data.get("decoder")))])))


def _parts(step: Step | None) -> list[Step]:
    """Return the steps of a normalizer, pre-tokenizer or decoder, those in sequences too."""
    if step is None:
        return []
    inside = step.get("normalizers") or step.get("pretokenizers") or step.get("decoders")
    return [part for each in inside for part in _parts(each)] if inside else [step]


def _prepends(part: Step) -> bool:
    """Tell whether a normalizer or pre-tokenizer may put a space before the text."""
    if part["type"] == "Metaspace":
        scheme = part.get("prepend_scheme") or ("always" if part.get("add_prefix_space", True) else "never")
        return scheme != "never"
    return part["type"] == "Prepend" or (part["type"] == "ByteLevel" and bool(part.get("add_prefix_space")))


def _unknown(model: Model, pieces: Mapping[str, int]) -> int | None:
    """Return the id that stands for what the vocabulary lacks, if there is one."""
    if (given := model.get("unk_id")) is not None:
        return given
    return pieces.get(model.get("unk_token") or "")


def lengths_of(ids: Ids, table: TokenBytes) -> npt.NDArray[np.int32]:
    """Return the bytes of each token, int32 [tokens]: 0 for a special one, −1 where nobody knows.

    Args:
        ids: integers [tokens].
        table: of the tokenizer that made them.

    Raises:
        ValueError: an id that the tokenizer does not have.
    """
    return table.lengths[_known(ids, table)]


def text_of(ids: Ids, bounds: npt.NDArray[np.integer], table: TokenBytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the texts that tokens spell: what a model with another tokenizer is to be given.

    Special tokens and unknown ones spell nothing. Where a token's bytes end inside a character, so may the text.

    Args:
        ids: integers [tokens].
        bounds: integers [documents + 1], see `align.Tokens`.
        table: of the tokenizer that made them.

    Returns:
        uint8 [bytes], the texts one after the other; int64 [documents + 1], where each begins, from 0.

    Raises:
        ValueError: an id that the tokenizer does not have.
    """
    from gristmill.tokenizer.token_bytes_kernels import spell

    first, last = int(bounds[0]), int(bounds[-1])
    known = _known(ids[first:last], table)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.maximum(table.lengths[known], 0), dtype=np.int64)])
    text = np.empty(ends[-1], np.uint8)
    spell(known, table.data, table.starts, text)
    return text, ends[np.asarray(bounds, np.int64) - first]


def spells(
    ids: Ids,
    bounds: npt.NDArray[np.integer],
    table: TokenBytes,
    text: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.integer],
) -> npt.NDArray[np.bool_]:
    """Return which documents' tokens have just the bytes of their texts, after `table.prefix` spaces or none: bool [documents].

    What it is not true of was changed by the tokenizer, perhaps without a change of length; `align` takes it as `same_text`.

    Args:
        ids: integers [tokens].
        bounds: integers [documents + 1], see `align.Tokens`.
        table: of the tokenizer that made them.
        text: uint8 [bytes], as `text_of` gives it.
        offsets: integers [documents + 1], where each text begins.

    Raises:
        ValueError: an id that the tokenizer does not have.
    """
    from gristmill.tokenizer.token_bytes_kernels import compare

    same = np.empty(len(bounds) - 1, np.bool_)
    places, begins = (np.asarray(array, np.int64) for array in (bounds, offsets))
    compare(_known(ids, table), places, table.data, table.starts, text, begins, table.prefix, same)
    return same


def _known(ids: Ids, table: TokenBytes) -> npt.NDArray[np.uint32]:
    """Return the ids as the compiled loops take them."""
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < table.size:
        raise ValueError(
            f"ids are from {int(ids.min())} to {int(ids.max())}, but the tokenizer has {table.size}; give the one that made them"
        )
    return np.ascontiguousarray(ids, np.uint32)
