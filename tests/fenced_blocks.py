"""The fenced blocks of the docs' pages, for tests that run them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.conftest import ROOT


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, under which heading, and what it holds."""

    page: str
    line: int
    heading: str
    language: str
    text: str


def read_blocks(page: str) -> Iterator[Block]:
    heading, language, start, held = "", None, 0, list[str]()
    for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
        if line.startswith("```") and language is None:
            language, start, held = line[3:], number, []
        elif line.startswith("```"):
            assert language is not None
            yield Block(page, start, heading, language, "\n".join(held) + "\n")
            language = None
        elif language is not None:
            held.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    assert language is None, f"{page}:{start}: the block does not end"
