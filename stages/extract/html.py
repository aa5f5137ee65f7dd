"""Markup to text: the main content of a page, by resiliparse or trafilatura.

Reads rows whose `media` is text/html; replaces their `text` and sets `media` to text/plain. Other rows pass unchanged.
Dropped: `no_text` (nothing was found), `too_long`, `too_deep`, `too_complex`. Both engines are pinned in pyproject.toml:
their versions disagree on many pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import replace
from gristmill.html.cost import depth, is_deeper, too_much, work
from gristmill.html.mending import GUTTERS, MARK, NAVIGATION, mark_alone, mend, mend_all, plain_markup, plain_spaces
from gristmill.html.reopening import MOST, reopens_too_many
from gristmill.html.rescue import is_lost, reveal
from pipeline.finding import Finding, at_most
from pipeline.schema import DROP
from pipeline.stage import Map, Transform

HTML, PLAIN = "text/html", "text/plain"


@dataclass(frozen=True, kw_only=True)
class ExtractHtml(Map):
    """Extract the text of HTML pages.

    `resiliparse` (Bevendorff et al. 2018; DCLM's choice) keeps the layout of lists and paragraphs; `main_content` leaves out
    navigation, headers and footers. What its rules would lose of the content is kept: lists of any depth, figures with code
    or tables, dates in sentences, notes, the base of `<ruby>` (its reading follows in parentheses), and pages whose boxes
    have misleading names (`mending.py`, `lists.py`, `rescue.py`). `trafilatura` (Barbaresi 2021; FineWeb's choice, several
    times slower) always looks for the main content; `favor` weighs precision against recall. `comments` keeps readers'
    comments, `links` the targets of links. With both, no-break spaces become spaces and soft hyphens go.

    No wall-clock limit: what comes out must not depend on the machine's load. What bounds the work on one page is its
    size (`max_chars` of markup), the depth of its tree (`max_depth`; browsers stop at 512, too) and `max_work`, counted from
    the page (`cost.py`): each character counts once for each element around it, each element 1,000 (with trafilatura 6,000),
    a list, note or the like 5,000 more; a page whose open formatting a parser would open again two million times is told before
    it is parsed (`reopening.py`). Pages at the default's bound took 1 to 5 s of one core, depending on what they are
    made of. Of 1,500 pages of news, blogs and documentation the largest takes an eighth of it.
    """

    version = 2

    engine: Literal["resiliparse", "trafilatura"] = "resiliparse"
    main_content: bool = True
    favor: Literal["precision", "balance", "recall"] = "precision"
    comments: bool = False
    links: bool = False
    max_chars: int = 4 << 20
    max_depth: int = 512
    max_work: int = 1 << 28

    def __post_init__(self) -> None:
        if self.engine == "trafilatura" and not self.main_content:
            raise ValueError("main_content: false needs engine: resiliparse; trafilatura always looks for the main content")
        if self.engine == "resiliparse" and self.favor != "precision":
            raise ValueError(f"favor: {self.favor} needs engine: trafilatura; resiliparse has no such choice")
        for name in ("max_chars", "max_depth", "max_work"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")

    def libraries(self) -> tuple[str, ...]:
        """Return the engine, and what measures the tree of a page for both."""
        others = ("trafilatura", "lxml", "justext") if self.engine == "trafilatura" else ()
        return ("resiliparse", *others)

    def open(self) -> Transform:
        """Return f(docs) → docs with `text`, `media` and `drop`."""
        extract = self._resiliparse() if self.engine == "resiliparse" else self._trafilatura()

        def transform(docs: pa.Table) -> pa.Table:
            pages = pc.equal(docs["media"], HTML)
            texts: list[str] = []
            drops: list[str | None] = []
            for text, page in zip(docs["text"].to_pylist(), pages.to_pylist(), strict=True):
                result, drop = self._page(text, extract) if page else (text, None)
                texts.append(result)
                drops.append(drop or ("no_text" if not result or result.isspace() else None))
            return _replaced(docs, pages, texts, drops)

        return transform

    def _page(self, markup: str, extract: Callable[[str, Any], str]) -> tuple[str, str | None]:
        """Return the text of one page, or '' and why it is not looked at."""
        from resiliparse.parse.html import HTMLTree

        if len(markup) > self.max_chars:
            return "", "too_long"
        markup = self._prepared(markup)
        if reopens_too_many(markup):
            return "", "too_complex"
        tree: Any = HTMLTree.parse(markup)
        if is_deeper(tree, self.max_depth):
            return "", "too_deep"
        if too_much(tree, markup, self.max_work, self.engine):
            return "", "too_complex"
        return plain_spaces(extract(markup, tree)), None

    def _prepared(self, markup: str) -> str:
        """Return the markup as it is parsed."""
        return mark_alone(plain_markup(markup)) if self.engine == "resiliparse" else markup

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return what bounds the work on a page, and how much text came out; see `Stage.explain`."""

        markup, media, drop = before["text"][0].as_py(), before["media"][0].as_py(), after[DROP][0].as_py()
        if media != HTML:
            return [Finding("media", media)]
        size = Finding("markup_chars", len(markup), (at_most(len(markup), "max_chars", self.max_chars),), drop == "too_long")
        found = [Finding("engine", self.engine), size]
        if drop != "too_long":
            found += self._bounds(self._prepared(markup), drop)
        if drop in (None, "no_text"):
            found.append(Finding("text_chars", len(after["text"][0].as_py()), decisive=drop == "no_text"))
        return sorted(found, key=lambda each: not each.decisive)

    def _bounds(self, markup: str, drop: str | None) -> list[Finding]:
        """Return what bounds the work on a page, as far as `_page` looks at it."""
        from resiliparse.parse.html import HTMLTree

        if reopens_too_many(markup):
            return [Finding("elements_opened_again", f"more than {MOST:,}", decisive=True)]
        tree: Any = HTMLTree.parse(markup)
        levels = depth(tree, self.max_depth)
        found = [Finding("depth", levels, (at_most(levels, "max_depth", self.max_depth),), drop == "too_deep")]
        if drop != "too_deep":
            units = work(tree, self.engine)
            found.append(Finding("work", units, (at_most(units, "max_work", self.max_work),), drop == "too_complex"))
        return found

    def _resiliparse(self) -> Callable[[str, Any], str]:
        from resiliparse.extract.html2text import extract_plain_text

        skipped = [*NAVIGATION, *GUTTERS] if self.main_content else GUTTERS

        def text_of(tree: Any) -> str:  # noqa: ANN401 - resiliparse's HTMLTree
            text: str = extract_plain_text(
                tree,
                main_content=self.main_content,
                comments=self.comments,
                links=self.links,
                alt_texts=False,
                preserve_formatting=True,
                skip_elements=skipped,
            )
            return text

        def extract(_: str, tree: Any) -> str:  # noqa: ANN401 - as above
            if tree.body is None:
                return ""
            if self.main_content:
                mend(tree, self.links)
            else:
                mend_all(tree)
            text = text_of(tree)
            if self.main_content and is_lost(tree, text):
                reveal(tree)
                text = text_of(tree)
            return text.replace(MARK, "")

        return extract

    def _trafilatura(self) -> Callable[[str, Any], str]:
        import logging

        import trafilatura

        # Its log lines on odd pages say nothing that the ledger does not.
        logging.getLogger("trafilatura").setLevel(logging.CRITICAL)

        def extract(markup: str, tree: Any) -> str:  # noqa: ANN401 - see _resiliparse
            # deduplicate=True would remember pages seen before: output must not depend on their order.
            text: str | None = trafilatura.extract(
                markup,
                favor_precision=self.favor == "precision",
                favor_recall=self.favor == "recall",
                include_comments=self.comments,
                include_links=self.links,
                deduplicate=False,
            )
            return text or ""

        return extract


def _replaced(docs: pa.Table, pages: pa.ChunkedArray, texts: list[str], drops: list[str | None]) -> pa.Table:
    """Return `docs` with new texts, the media type of the pages among them changed, and the reasons."""
    media = pc.if_else(pages, PLAIN, docs["media"])
    docs = replace(docs, {"media": media, "text": pa.array(texts, pa.string())})
    return docs.append_column(DROP, pa.array(drops, pa.string()))
