"""Losses, entropies and other values of a model's tokens ("theirs") moved to the build's ("ours"): another cut of the same text.

Reads the byte lengths of both tokenizers' tokens (`gristmill.tokenizer.token_bytes`) and a value for each of the model's tokens;
gives one for each of the build's. Bytes are the common ground: character offsets overlap where a token ends inside a character.

A token's value is spread evenly over its bytes, and one of our tokens has the sum over its own: the cumulative value at the ends
of their tokens, interpolated linearly at the ends of ours, differenced (float64). It is added up from shares instead of
differenced, which is the same but for rounding: a value depends on the tokens that overlap it, not on all before, and none comes
out negative that went in positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from gristmill.models import align_kernels as kernels

REASONS = ("", "unknown_token", "reference_has_less_text", "reference_has_more_text", "reference_has_other_text")
"""Why a document cannot be aligned, by number; 0: it is."""


Numbers = TypeVar("Numbers", bound=np.generic)


class Tokens(NamedTuple):
    """The tokens of documents, one after the other.

    `lengths`: integers [tokens], bytes of each, 0 for a special token, −1 where that is not known.
    `bounds`: integers [documents + 1], the tokens of document i are bounds[i]:bounds[i + 1].
    """

    lengths: npt.NDArray[np.integer]
    bounds: npt.NDArray[np.integer]


@dataclass(frozen=True)
class Aligned:
    """What `align` gives.

    `values`: float64 [our tokens], NaN where there is none.
    `exact`: bool [our tokens], where a token begins and ends as tokens of theirs do, and has a value: nothing was interpolated.
    `reasons`: uint8 [documents], numbers in `REASONS`; a document that has one has no values.
    `extra`: int64 [documents], bytes of theirs minus bytes of ours (unknown tokens count −1), for messages.
    `unplaced`: float64 [documents], the sum of their values, or parts of them, that no token of ours has. With the values of
        ours it makes up that of theirs.
    """

    values: npt.NDArray[np.float64]
    exact: npt.NDArray[np.bool_]
    reasons: npt.NDArray[np.uint8]
    extra: npt.NDArray[np.int64]
    unplaced: npt.NDArray[np.float64]

    def explain(self, document: int) -> str:
        """Return in words why a document cannot be aligned; empty where it is."""
        by = abs(int(self.extra[document]))
        return (
            "",
            "it has a token whose bytes are not known, such as <unk>: this text needs a model whose tokenizer has all bytes",
            f"the model's tokens have {by} bytes less than ours: they were cut short, or its tokenizer leaves some text out",
            f"the model's tokens have {by} bytes more than ours: its tokenizer changes the text (a normalizer), or puts "
            "something before it that is not given as prefix",
            "the model's tokens have other bytes than ours: its tokenizer changes the text (a normalizer)",
        )[self.reasons[document]]


def align(
    ours: Tokens,
    theirs: Tokens,
    values: npt.NDArray[np.floating],
    *,
    prefix: int = 0,
    same_text: npt.NDArray[np.bool_] | None = None,
) -> Aligned:
    """Return the values of our tokens.

    Equal cuts give equal values; each document's sum is kept but for rounding; what is nowhere negative stays so.

    NaN (as of a document's first token, which nothing predicts) means no value: its bytes have none, and a token of ours that
    has any of these bytes has none either. What else such a token has is counted as `unplaced`.

    Tokens without bytes (bos, eos) are paired with those of the other side at the same byte, one to one, where both have
    equally many there. If not, ours have no value, and theirs are `unplaced`: the loss of an eos is never put on text.

    Args:
        ours: our tokens; any documents.
        theirs: the model's tokens of the same documents.
        values: floats [their tokens]: nll, entropy or another quantity that adds up.
        prefix: bytes that the model's tokenizer may put before a text (SentencePiece: 1, a space). Where theirs have exactly
            these more than ours, they are taken off the first; a token that was nothing else hands its value on.
        same_text: bool [documents], false where theirs are known to spell another text (`token_bytes.spells`): lengths alone
            do not tell when a normalizer has made one place longer and another shorter.

    Raises:
        ValueError: arrays that do not fit together; names the argument. What is wrong with one document is in `reasons`.
    """
    our_lengths, our_bounds = _checked(ours, "ours")
    their_lengths, their_bounds = _checked(theirs, "theirs")
    documents = len(our_bounds) - 1
    if len(their_bounds) - 1 != documents:
        raise ValueError(f"theirs has {len(their_bounds) - 1} documents, ours has {documents}; give the same documents")
    if values.shape != their_lengths.shape:
        raise ValueError(f"values has shape {values.shape}, theirs has {len(their_lengths)} tokens; give one value for each")
    if prefix < 0:
        raise ValueError(f"prefix must be at least 0, found {prefix}")
    if same_text is not None and same_text.shape != (documents,):
        raise ValueError(f"same_text has shape {same_text.shape}, there are {documents} documents; give one for each")
    reasons, extra = np.empty(documents, np.uint8), np.empty(documents, np.int64)
    kernels.check(our_lengths, our_bounds, their_lengths, their_bounds, prefix, reasons, extra)
    if same_text is not None:
        reasons[(reasons == kernels.ALIGNED) & ~same_text] = kernels.OTHER
    given, begins, ends = np.asarray(values, np.float64), their_bounds[:-1].copy(), their_bounds[1:]
    unplaced = np.zeros(documents)
    if (extra[reasons == kernels.ALIGNED] > 0).any():
        their_lengths, given = their_lengths.copy(), given.copy()
        kernels.trim(their_lengths, given, begins, ends, reasons, extra, unplaced)
    moved, exact = np.full(len(our_lengths), np.nan), np.zeros(len(our_lengths), np.bool_)
    kernels.move(our_lengths, our_bounds, _frozen(their_lengths), begins, ends, _frozen(given), reasons, moved, exact, unplaced)
    return Aligned(moved, exact, reasons, extra, unplaced)


def _checked(tokens: Tokens, name: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return the lengths and the bounds as the compiled loops take them."""
    lengths, bounds = tokens
    for key, array in (("lengths", lengths), ("bounds", bounds)):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"{name}.{key} must be integers in one dimension, found {array.dtype} of shape {array.shape}")
    borders = np.asarray(bounds, np.int64)
    if not len(borders) or borders[0] < 0 or borders[-1] > len(lengths) or (np.diff(borders) < 0).any():
        raise ValueError(f"{name}.bounds must ascend from 0 on to at most its {len(lengths)} tokens")
    return _frozen(np.asarray(lengths, np.int32)), _frozen(borders)


def _frozen(array: npt.NDArray[Numbers]) -> npt.NDArray[Numbers]:
    """Return a read-only contiguous view: the loops are compiled for one type of array only, and Arrow's are such."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
