"""Whether ids and text say the same: decode(encode(text)) == text, and encode(decode(ids)) == ids.

Reads flat ids, gives counts and a few examples. The second fails where several id sequences stand for one string: a training
window that begins or ends inside a piece, or a model that writes another sequence, shows ids that encoding never gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gristmill.tokenizer.encoding.windows import FlatEncoder, Ids, Offsets
from gristmill.tokenizer.measuring.spelling import Speller
from gristmill.tokenizer.training.corpus import Batch

WINDOW_TOKENS = 256
EXAMPLES = 12


@dataclass(frozen=True)
class Difference:
    """A place where ids encode to others: `text` stands there, `given` are the ids in the window, `encoded` those it becomes."""

    text: bytes
    given: tuple[int, ...]
    encoded: tuple[int, ...]


@dataclass
class Consistency:
    """Counts that add up over batches.

    `documents`, `same_text`: all, and those that decode to themselves. `windows`: those cut and encoded again; `same_ids`: those
    that became the same ids; `split`: cut inside a character, which is no text (not among `windows`). `window_tokens`,
    `other_tokens`: in windows, and of these in the part between the first and the last difference. `examples`: different texts.
    """

    documents: int = 0
    same_text: int = 0
    windows: int = 0
    same_ids: int = 0
    split: int = 0
    window_tokens: int = 0
    other_tokens: int = 0
    examples: dict[bytes, Difference] = field(default_factory=dict)

    def add_documents(self, same: npt.NDArray[np.bool_]) -> None:
        """Count documents by whether they decode to themselves."""
        self.documents += len(same)
        self.same_text += int(same.sum())

    @property
    def consistency_rate(self) -> float:
        """Return the share of windows with encode(decode(ids)) == ids."""
        return self.same_ids / self.windows if self.windows else float("nan")


def round_trips(table: Speller, ids: Ids, offsets: Offsets, batch: Batch) -> npt.NDArray[np.bool_]:
    """Return which documents decode to their own text, bool [documents]."""
    text, places = table.decode(ids, offsets)
    data, source = text.tobytes(), batch.documents()
    spans = zip(places[:-1].tolist(), places[1:].tolist(), source, strict=True)
    return np.array([data[begin:end] == document for begin, end, document in spans], bool)


def cut_windows(offsets: Offsets, choose: np.random.Generator) -> tuple[Offsets, Offsets]:
    """Return one window of at most WINDOW_TOKENS tokens of each document, begin and end in its ids.

    It begins at a token boundary chosen evenly, apart from the document's start, and ends at one: as the sequences that a model
    is trained on when documents are concatenated and cut. Documents of one token have none.
    """
    begins, ends = offsets[:-1], offsets[1:]
    kept = ends - begins > 1
    begins, ends = begins[kept], ends[kept]
    first = choose.integers(begins + 1, ends)
    return first, np.minimum(first + WINDOW_TOKENS, ends)


def reencode(
    table: Speller, encoder: FlatEncoder, encoded: tuple[Ids, Offsets], windows: tuple[Offsets, Offsets], found: Consistency
) -> None:
    """Decode windows of ids, encode them again, and add to `found` what comes of it.

    Args:
        table: of the encoder's vocabulary.
        encoder: what gave the ids.
        encoded: ids of documents, and where each begins.
        windows: begin and end of each in the ids.
        found: added to.
    """
    ids, offsets = encoded
    begins, ends = windows
    whole = _is_cut_between_characters(table, ids, offsets, begins) & _is_cut_between_characters(table, ids, offsets, ends)
    found.split += int((~whole).sum())
    begins, ends = begins[whole], ends[whole]
    sizes = ends - begins
    places = np.append(0, np.cumsum(sizes))
    within = np.arange(places[-1]) - np.repeat(places[:-1], sizes)
    given = ids[np.repeat(begins, sizes) + within]
    again, again_places = encoder.encode(*table.decode(given, places))
    found.windows += len(sizes)
    found.window_tokens += len(given)
    for i in range(len(sizes)):
        before, after = given[places[i] : places[i + 1]], again[again_places[i] : again_places[i + 1]]
        if np.array_equal(before, after):
            found.same_ids += 1
            continue
        for part in _differences(table, before, after):
            found.other_tokens += len(part.given)
            if len(found.examples) < EXAMPLES and len(part.given) + len(part.encoded) < 40:
                found.examples.setdefault(part.text, part)


def _is_cut_between_characters(table: Speller, ids: Ids, offsets: Offsets, at: Offsets) -> npt.NDArray[np.bool_]:
    """Return whether a character begins with each of these tokens; after the last token of a document one always does."""
    end = np.isin(at, offsets[1:])
    first = table.data[table.starts[ids[np.where(end, 0, at)]]] if len(ids) else np.zeros(0, np.uint8)
    begins: npt.NDArray[np.bool_] = end | (first & 0xC0 != 0x80)
    return begins


def _differences(table: Speller, given: Ids, encoded: Ids) -> list[Difference]:
    """Return the stretches between places where both sequences have a token boundary, where they are not the same tokens."""
    ends = [np.cumsum(table.sizes[ids]) for ids in (given, encoded)]
    common = np.intersect1d(ends[0], ends[1])
    at = [np.searchsorted(each, common) + 1 for each in ends]
    found = []
    before = (0, 0)
    for here in zip(at[0].tolist(), at[1].tolist(), strict=True):
        parts = [ids[begin:end].tolist() for ids, begin, end in zip((given, encoded), before, here, strict=True)]
        before = here
        if parts[0] != parts[1]:
            text = b"".join(table.data[table.starts[i] : table.starts[i] + table.sizes[i]].tobytes() for i in parts[0])
            found.append(Difference(text, tuple(parts[0]), tuple(parts[1])))
    return found
