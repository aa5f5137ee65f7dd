"""Documents in the tokens of another tokenizer, and the values of those moved back to the build's tokens.

Reads ids of the build ("ours"), the bytes that they stand for, and the `tokenizer.json` of a model; gives ids of the model
("theirs"), and moves values of theirs to ours (`align`). No file is read or written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gristmill.models import align
from gristmill.models.protocols import Integers
from gristmill.tokenizer.token_bytes import TokenBytes, lengths_of, parse_token_bytes, spells, text_of

MOST_CUT = 3  # bytes of a character that another one may have lost: at most all but one of four

Ints = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Retokenized:
    """The same documents in the model's tokens.

    `ids`: uint32 [their tokens]. `bounds`: int64 [documents + 1]. `errors`: number of a document → `kind: why` it has no tokens.
    `ours`, `theirs`: lengths and bounds for `align`. `same_text`: bool [documents]. `cut`: bool [our tokens], those that the
    model was not given whole.
    """

    ids: npt.NDArray[np.uint32]
    bounds: Ints
    errors: Mapping[int, str]
    ours: align.Tokens
    theirs: align.Tokens
    same_text: Marks
    cut: Marks


class Retokenizer:
    """Turns documents into a model's tokens and values back.

    Args:
        ours: the bytes of our tokens.
        tokenizer: text of the model's tokenizer.json.
        where: the model's name for messages.
        ends: our token that ends documents and the model's, so that the loss of the one is that of the other; None where one of
            the two has none.

    Raises:
        InputError: a tokenizer whose tokens do not say their bytes.
    """

    def __init__(self, ours: TokenBytes, tokenizer: str, where: str, ends: tuple[int, int] | None = None) -> None:
        from tokenizers import Tokenizer

        self._ours, self._theirs, self._ends = ours, parse_token_bytes(tokenizer, where), ends
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_truncation()  # a tokenizer.json may ask for both
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # the name of a special token in a text is text

    def encode(self, ids: Integers, bounds: Ints) -> Retokenized:
        """Return these documents in the model's tokens.

        A document that begins or ends inside a character is given without the bytes of that. One that is no UTF-8 in between
        gets an error (`text_not_utf8`), and no tokens.
        """
        text, offsets = text_of(ids, bounds, self._ours)
        strings, cuts, errors = _decoded(text, offsets)
        lengths, cut = lengths_of(ids, self._ours), np.zeros(len(ids), np.bool_)
        if cuts or errors:
            encoded = [string.encode() for string in strings]
            text, offsets = np.frombuffer(b"".join(encoded), np.uint8), _bounds([len(each) for each in encoded])
            lengths = lengths.copy()
        for document, (first, last) in cuts.items():
            begin, end = int(bounds[document]), int(bounds[document + 1])
            _take_off(lengths[begin:end], cut[begin:end], first)
            _take_off(lengths[begin:end][::-1], cut[begin:end][::-1], last)
        found = self._tokenizer.encode_batch_fast(strings, add_special_tokens=False)
        theirs = [np.array(each.ids, np.uint32) for each in found]
        if self._ends is not None:
            full = np.flatnonzero(np.diff(bounds) > 0)
            for document in full[ids[bounds[full + 1] - 1] == self._ends[0]]:
                theirs[document] = np.append(theirs[document], np.uint32(self._ends[1]))
        flat = np.concatenate([np.zeros(0, np.uint32), *theirs])
        their_bounds = _bounds([len(each) for each in theirs])
        same = spells(flat, their_bounds, self._theirs, text, offsets)
        their_tokens = align.Tokens(lengths_of(flat, self._theirs), their_bounds)
        return Retokenized(flat, their_bounds, errors, align.Tokens(lengths, bounds), their_tokens, same, cut)

    def back(self, documents: Retokenized, values: npt.NDArray[np.floating]) -> align.Aligned:
        """Return values of our tokens from values of the model's, floats [their tokens]; tokens that were cut have none."""
        moved = align.align(documents.ours, documents.theirs, values, prefix=self._theirs.prefix, same_text=documents.same_text)
        moved.values[documents.cut] = np.nan
        moved.exact[documents.cut] = False
        return moved


def _decoded(text: npt.NDArray[np.uint8], offsets: Ints) -> tuple[list[str], dict[int, tuple[int, int]], dict[int, str]]:
    """Return the documents' texts; of those cut inside a character, the bytes left out before and after; and errors."""
    data = text.tobytes()
    strings: list[str] = []
    cuts: dict[int, tuple[int, int]] = {}
    errors: dict[int, str] = {}
    for document, (begin, end) in enumerate(pairwise(offsets.tolist())):
        try:
            strings.append(data[begin:end].decode())
            continue
        except UnicodeDecodeError as error:
            reason = error
        found = _whole_characters(data[begin:end])
        if found is None:
            errors[document] = f"text_not_utf8: the tokens spell bytes that are no UTF-8 ({reason})"
            strings.append("")
        else:
            string, cuts[document] = found
            strings.append(string)
    return strings, cuts, errors


def _whole_characters(data: bytes) -> tuple[str, tuple[int, int]] | None:
    """Return the text without the halves of characters at its ends, and the bytes of each; None where that is not all."""
    first = next((i for i, byte in enumerate(data[: MOST_CUT + 1]) if byte & 0xC0 != 0x80), 0)
    for last in range(MOST_CUT + 1):
        try:
            return data[first : len(data) - last].decode(), (first, last)
        except UnicodeDecodeError:
            continue
    return None


def _take_off(lengths: npt.NDArray[np.int32], cut: Marks, count: int) -> None:
    """Take `count` bytes off the first tokens that have any, in place, and mark these."""
    place = 0
    while count:
        taken = min(count, max(0, int(lengths[place])))
        if taken:
            lengths[place] -= taken
            cut[place] = True
            count -= taken
        place += 1


def _bounds(lengths: Sequence[int]) -> Ints:
    return np.cumsum([0, *lengths], dtype=np.int64)
