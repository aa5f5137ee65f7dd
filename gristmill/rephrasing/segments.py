"""Texts cut into segments that fit a prompt: at ends of lines, where that is not enough at ends of sentences, then of words.

Pure functions. A token counts for the piece that it is in, so a segment has about as many tokens as its pieces have together: at
most a few fewer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gristmill.rephrasing.tokens import Count

_CUTS = (
    re.compile(r"(?<=\n)(?=[^\n])"),  # line ends stay with the line before
    re.compile(r"(?<=[.!?…])(?=\s)|(?<=[。！？])"),
    re.compile(r"(?<=\S)(?=\s)"),
)


def segments(text: str, most: int, count: Count) -> list[str]:
    """Return the text in segments of at most `most` tokens, as few as follow from taking whole pieces from the front.

    White space at the ends of a segment is left out; nothing else is. A text of white space has no segment.

    >>> segments("One mill. Two mills.\\nA river.", 4, lambda texts: [len(text.split()) for text in texts])
    ['One mill. Two mills.', 'A river.']
    """
    found: list[str] = []
    joined: list[str] = []
    room = most
    for piece, size in _fitting([text], most, count, 0):
        if size > room and joined:
            found.append("".join(joined))
            joined, room = [], most
        joined.append(piece)
        room -= size
    found.append("".join(joined))
    return [segment for segment in map(str.strip, found) if segment]


def _fitting(pieces: Sequence[str], most: int, count: Count, level: int) -> list[tuple[str, int]]:
    """Return pieces of at most `most` tokens with their numbers of tokens, cut at the given level where they have more."""
    found: list[tuple[str, int]] = []
    for piece, size in zip(pieces, count(pieces), strict=True):
        if size <= most or len(piece) <= 1:
            found.append((piece, size))
        elif level < len(_CUTS):
            found += _fitting(_CUTS[level].split(piece), most, count, level + 1)
        else:
            half = len(piece) // 2
            found += _fitting([piece[:half], piece[half:]], most, count, level)
    return found
