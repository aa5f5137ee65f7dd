"""Changes a parsed page so that resiliparse's main content keeps what its rules lose; reads and changes its tree.

Lost without this: the content of an `<a>` without a target that XHTML's `<a id="x"/>` leaves open (counted as links),
`<figure>` with code, tables or text, `<time>`, `<aside>`, `<label>`, the buttons that headings of folded sections are,
inline elements whose class is a word such as email or paid, lists (`lists.py`), and characters that are a text node of
their own (`ALONE`: a word in Chinese, the base of `<ruby>`, a dash in a table).
"""

from __future__ import annotations

import html
import re

from gristmill.html.dom import Element, Tree
from gristmill.html.lists import keep_lists, size, unlink, visible

# resiliparse takes a text node of one character of three UTF-8 bytes for an icon. Beside a noncharacter it does not.
MARK = "\ufdd0"
ALONE = re.compile(r">\s*([\u0800-\ud7ff\uf900-\uffff]|&#?\w{1,12};)(?=\s*(?:<|\Z))")
ICONS = re.compile("[\ue000-\uf8ff\u00b6]")  # private use; the pilcrow, which is a link to a heading

NO_BREAK = re.compile("&(?:nbsp;?|#0*160(?![0-9]);?|#[xX]0*[aA]0(?![0-9a-fA-F]);?)")
SOFT_HYPHEN = re.compile("&(?:shy;?|#0*173(?![0-9]);?|#[xX]0*[aA][dD](?![0-9a-fA-F]);?)")

BUTTONS = ",".join(f"{name} button" for name in ("h1", "h2", "h3", "h4", "h5", "h6", "summary", "dt"))
LOST = f"a:not([href]),time,aside,label,figure,ruby,{BUTTONS}"
BODY_OF_FIGURE = "pre,code,table,ul,ol,dl,blockquote,math"
PICTURES = "img,picture,svg,video,audio,iframe,canvas,object,embed"
PAGE_WIDE = "h1,h2,main,article"  # a form that has one is no form to fill in
BLOCKS_NAMES = "p li td th dt dd div section article blockquote figcaption caption h1 h2 h3 h4 h5 h6 pre address main body header"
BLOCKS = frozenset(BLOCKS_NAMES.split())
CELLS_NAMES = "td th dt dd li h1 h2 h3 h4 h5 h6"
CELLS = frozenset(CELLS_NAMES.split())
SENTENCE = 24  # bytes beside a date: more than "Posted by A. Name on"

# Classes that resiliparse takes for social media, log-in and advertisement, on inline elements too.
NAMED = (
    "email follow like likes share sharing feedback engagement facebook twitter subscribe banner logo paid promoted sponsor "
    "donate login account next prev previous permalink spinner"
)
INLINE_NAMES = "a abbr b bdi bdo cite code data del dfn em font i ins kbd mark q s samp small span strong sub sup tt u var"
INLINE = frozenset(INLINE_NAMES.split())
# Navigation that resiliparse's names leave in; the first four are DocBook's and docutils'.
NAVIGATION = [
    ".navheader",
    ".navfooter",
    "div.toc",
    "dl.toc",
    "#toc",
    "nav.contents",
    "div.contents",
    "aside.contents",
    ".sphinxsidebar",
    ".rst-footer-buttons",
]
GUTTERS = ["td.gutter", "td.linenos", ".linenodiv", "td.rouge-gutter", "td.blob-num"]  # numbers of lines of code

PEOPLE = "[rel=author],[rel=tag],[rel=next],[rel=prev],[rel=search],[itemprop=author],[itemprop=url],[itemprop=datePublished]"
NAMES = ",".join(f".{name}" for name in NAMED.split()) + "," + PEOPLE
IN_A_SENTENCE, SENTENCE_OF_PEOPLE = 12, 48  # bytes of other text in the same element; where it may be a line about the author

NOTES = re.compile(
    r"foot-?note|end-?note|\bnote|admonition|callout|\btip\b|warning|caution|important|hint|example|definition|pull-?quote"
    "|epigraph|topic",
    re.IGNORECASE,
)
CONTENTS = re.compile(r"\bcontents\b|\btoc\b", re.IGNORECASE)
NOT_NOTES = re.compile(
    r"sidebar|related|\bads?\b|advert|promo|share|social|widget|newsletter|nav|menu|recommend|popular|trending|teaser|author"
    r"|\btoc\b|\bcontents\b|comment",
    re.IGNORECASE,
)


def plain_spaces(text: str) -> str:
    """Return text with spaces for no-break spaces (U+00A0, U+2007, U+202F) and without soft hyphens."""
    return text.replace("\u00a0", " ").replace("\u00ad", "").replace("\u202f", " ").replace("\u2007", " ")


def plain_markup(markup: str) -> str:
    """Return markup with `plain_spaces`, those written as entities too, so that white space collapses as in any page."""
    return SOFT_HYPHEN.sub("", NO_BREAK.sub(" ", plain_spaces(markup)))


def mark_alone(markup: str) -> str:
    """Put `MARK` behind characters that are a text node of their own; icons of private use stay as they are."""

    def mark(found: re.Match[str]) -> str:
        character = html.unescape(found[1])
        return found[0] if len(character) > 1 or ICONS.match(character) else found[0] + MARK

    return ALONE.sub(mark, markup)


def mend_all(tree: Tree) -> None:
    """Change `tree` so that resiliparse keeps all of its text: figures, labels, the base of `<ruby>` in one piece."""
    for element in reversed(tree.body.query_selector_all("label,figure,ruby").values()):
        if element.local_name == "ruby":
            _ruby(tree, element)
        elif element.local_name == "figure":
            _figure(tree, element)
        else:
            unlink(tree, element, False)


def mend(tree: Tree, links: bool) -> None:
    """Change `tree` so that what resiliparse would lose of the main content is kept."""
    known: dict[Element | None, bool] = {}
    for element in reversed(tree.body.query_selector_all(LOST).values()):
        name = element.local_name
        if name in ("a", "button"):
            unlink(tree, element, False)
        elif name == "ruby":
            _ruby(tree, element)
        elif name == "figure":
            _figure(tree, element)
        elif name == "aside":
            if _is_note(element):
                _rename(tree, element, "div")
        elif _is_inline(element, known) if name == "time" else _is_text(element, known):
            unlink(tree, element, False)
    _unname(tree)
    keep_lists(tree, links)


def _rename(tree: Tree, element: Element, name: str) -> Element:
    """Put an element without attributes, called `name`, in the place of another; return it."""
    other = tree.document.create_element(name)
    element.replace_with(other)
    other.append(*element.child_nodes.values())
    return other


def _ruby(tree: Tree, ruby: Element) -> None:
    """Write the base of a `<ruby>` whole and its readings behind it, in the parentheses that the page has or in ( )."""
    signs = [sign for sign in ((part.text or "").strip() for part in ruby.query_selector_all("rp").values()) if sign]
    readings = [reading for reading in ((part.text or "").strip() for part in ruby.query_selector_all("rt").values()) if reading]
    for part in ruby.query_selector_all("rp,rt,rtc").values():
        part.remove()
    if readings:
        opening, closing = (signs[0], signs[-1]) if len(signs) > 1 else ("(", ")")
        between = " " if readings[0][-1] < "\u3000" else ""  # pinyin is written in words, kana and bopomofo are not
        ruby.append(tree.document.create_text_node(f"{opening}{between.join(readings)}{closing}"))


def _figure(tree: Tree, figure: Element) -> None:
    """Keep a figure that has more than a picture, with its caption."""
    if figure.query_selector(BODY_OF_FIGURE) is None and figure.query_selector(PICTURES) is not None:
        return
    for caption in figure.query_selector_all("figcaption").values():
        _rename(tree, caption, "div")
    _rename(tree, figure, "div")


def _is_note(aside: Element) -> bool:
    """Say whether an `<aside>` is part of the text: called a note, or prose with few links inside the main content."""
    names = " ".join(aside.getattr(name) or "" for name in ("class", "id", "role", "epub:type"))
    if NOTES.search(names) and not CONTENTS.search(names):
        return True
    if NOT_NOTES.search(names) or aside.closest("main,article") is None or aside.query_selector("nav,form,h1,iframe") is not None:
        return False
    text, linked = visible(aside)
    return text > 0 and linked <= 0.2 * text


def _is_inline(time: Element, known: dict[Element | None, bool]) -> bool:
    """Say whether a `<time>` is part of a text, not the date line of a page: its block has other text, or is a cell."""
    block = time.parent_element
    while block is not None and block.local_name not in BLOCKS:
        block = block.parent_element
    assert block is not None, "what is looked at lies in the body, which is a block"
    if block not in known:
        dates = sum(size(date) for date in block.query_selector_all("time").values())
        known[block] = block.local_name in CELLS or size(block) - dates >= SENTENCE
    return known[block]


def _is_text(label: Element, known: dict[Element | None, bool]) -> bool:
    """Say whether a `<label>` is text: of no form, or of one that holds the whole page."""
    form = label.closest("form")
    if form not in known:
        known[form] = form is None or form.query_selector(PAGE_WIDE) is not None
    return known[form]


def _unname(tree: Tree) -> None:
    """Take the attributes that resiliparse would drop them for off inline elements in sentences, and off addresses."""
    for element in tree.body.query_selector_all(".jp,.wa").values():
        element.class_name = " ".join(name for name in (element.getattr("class") or "").split() if name not in ("jp", "wa"))
    text: dict[Element, int] = {}  # of each parent, without those of its children that have such names
    for element in tree.body.query_selector_all(NAMES).values():
        if element.local_name not in INLINE:
            continue
        parent = element.parent_element
        assert parent is not None, "what is looked at lies in the body"
        if parent not in text:
            text[parent] = size(parent) - sum(size(part) for part in parent.children.values() if part.matches(NAMES))
        if text[parent] >= (SENTENCE_OF_PEOPLE if element.matches(PEOPLE) else IN_A_SENTENCE) or "@" in (element.text or ""):
            for name in ("class", "rel", "itemprop"):
                element.remove_attribute(name)
