"""Markup to text: the main content of a page, by resiliparse or trafilatura.

Reads rows whose `media` is text/html; replaces their `text` and sets `media` to text/plain. Other rows pass unchanged. Dropped:
`no_text` (nothing was found). Both engines are pinned in pyproject.toml: their versions disagree on many pages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema import DROP
from pipeline.stage import Map, Transform

HTML, PLAIN = "text/html", "text/plain"


@dataclass(frozen=True, kw_only=True)
class ExtractHtml(Map):
    """Extract the text of HTML pages.

    `resiliparse` (Bevendorff et al. 2018; DCLM's choice) keeps the layout of lists and paragraphs; `main_content` leaves out
    navigation, headers and footers. `trafilatura` (Barbaresi 2021; FineWeb's choice, about 30 times slower) always looks for
    the main content; `favor` weighs precision against recall. `comments` keeps readers' comments, `links` the targets of
    links. No wall-clock limit: what comes out must not depend on the machine's load.
    """

    engine: Literal["resiliparse", "trafilatura"] = "resiliparse"
    main_content: bool = True
    favor: Literal["precision", "balance", "recall"] = "precision"
    comments: bool = False
    links: bool = False

    def __post_init__(self) -> None:
        if self.engine == "trafilatura" and not self.main_content:
            raise ValueError("main_content: false needs engine: resiliparse; trafilatura always looks for the main content")
        if self.engine == "resiliparse" and self.favor != "precision":
            raise ValueError(f"favor: {self.favor} needs engine: trafilatura; resiliparse has no such choice")

    def open(self) -> Transform:
        """Return f(docs) → docs with `text`, `media` and `drop`."""
        extract = self._resiliparse() if self.engine == "resiliparse" else self._trafilatura()

        def transform(docs: pa.Table) -> pa.Table:
            pages = pc.equal(docs["media"], HTML)
            texts = [
                extract(text) if page else text for text, page in zip(docs["text"].to_pylist(), pages.to_pylist(), strict=True)
            ]
            drops = ["no_text" if not text or text.isspace() else None for text in texts]
            return _replaced(docs, pages, texts, drops)

        return transform

    def _resiliparse(self) -> Callable[[str], str]:
        from resiliparse.extract.html2text import extract_plain_text

        def extract(markup: str) -> str:
            text: str = extract_plain_text(
                markup,
                main_content=self.main_content,
                alt_texts=False,
                comments=self.comments,
                links=self.links,
                preserve_formatting=True,
            )
            return text

        return extract

    def _trafilatura(self) -> Callable[[str], str]:
        import logging

        import trafilatura

        # Its log lines on odd pages say nothing that the ledger does not.
        logging.getLogger("trafilatura").setLevel(logging.CRITICAL)

        def extract(markup: str) -> str:
            # deduplicate=True would remember pages seen before: output must not depend on their order.
            return (
                trafilatura.extract(
                    markup,
                    favor_precision=self.favor == "precision",
                    favor_recall=self.favor == "recall",
                    include_comments=self.comments,
                    include_links=self.links,
                    deduplicate=False,
                )
                or ""
            )

        return extract


def _replaced(docs: pa.Table, pages: pa.ChunkedArray, texts: list[str], drops: list[str | None]) -> pa.Table:
    """Return `docs` with new texts, the media type of the pages among them changed, and the reasons."""
    media = pc.if_else(pages, PLAIN, docs["media"])
    for name, column in (("media", media), ("text", pa.array(texts, pa.string()))):
        docs = docs.set_column(docs.schema.get_field_index(name), docs.schema.field(name), column)
    return docs.append_column(DROP, pa.array(drops, pa.string()))
