"""Which `<ul>` of a parsed page are content; reads and changes resiliparse's tree.

resiliparse takes a `<ul>` for a menu when it lies fewer than four levels below body, or when more than a fifth of its
characters are links. On 491 pages of which the text is known (documentation, news, blogs) that loses 97% of the words that
their lists hold. The rules here keep 96%, and a fifth of the lists' other words, most of them readers' comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gristmill.html.dom import Element, Node, Tree

# Class names that say what a list is (of the list itself and of a <div> around it alone), and what it stands in.
OWN_NAMES = (
    "nav navbar navigation menu menus submenu dropdown crumb crumbs breadcrumb breadcrumbs toc social share sharing tag "
    "tags categories category pager pagination related archive archives sidebar footer header link links linklist widget "
    "lang langs languages gallery carousel slider slides slideshow comment comments tabs tab toolbar controls author byline "
    "meta actions"
)
OWN = frozenset(OWN_NAMES.split())
AROUND_NAMES = (
    "comment comments commentlist related breadcrumb breadcrumbs gallery carousel slideshow slider slides recommended "
    "recommendations trending popular teaser teasers promo promoted partners footer rail latest breaking share sharing "
    "social newsletter modal popup dialog nav navbar navigation menu menus byline feedback login signin toolbar controls "
    "player subscribe ads ad sponsor sponsored recirc more flyout dropdown"
)
AROUND = frozenset(AROUND_NAMES.split())
NAME = re.compile("[A-Z]?[a-z]+|[A-Z]+")
INVISIBLE = "script,style,noscript,template"
TEASER = "img,picture,svg,h1,h2,h3,h4,h5,h6,time,article,figure,button"  # what a list of other pages has in its items

PROSE = 140  # bytes of unlinked text in the paragraphs beside a list
FEW_LINKS, SOME_LINKS = 0.2, 0.6  # share of linked bytes
OWN_WORDS = 10  # unlinked bytes an item


def keep_lists(tree: Tree, links: bool) -> None:
    """Change `tree` so that resiliparse keeps each `<ul>` that is content: three levels deeper, and without its `<a>`.

    With `links` the target of a link follows its text in parentheses, as resiliparse writes it.
    """
    prose: dict[Element, int] = {}
    last = None
    for found in tree.body.get_elements_by_tag_name("ul").values():
        if last is not None and last.contains(found):
            continue  # kept with the outer list or lost with it
        last = found
        if is_content(found, prose):
            _deepen(tree, found)
            for anchor in found.get_elements_by_tag_name("a").values():
                unlink(tree, anchor, links)


def is_content(found: Element, prose: dict[Element, int]) -> bool:
    """Say whether a list is content; `prose` remembers `_prose` by box.

    It is when it stands beside paragraphs of text, or has few links, or some links but its own words too, and no class
    names it otherwise (`OWN`, `AROUND`).
    """
    names, box = f"{_class(found)} {found.getattr('id') or ''}", found.parent_element
    inner = found
    while box is not None and box.local_name == "div" and not (inner.next_element_sibling or inner.previous_element_sibling):
        inner = box
        names, box = f"{names} {_class(box)}", box.parent_element
    if box is None or OWN & _names(names):
        return False
    if box not in prose:
        prose[box] = _prose(box)
    if prose[box] >= PROSE:
        return True
    text, linked = visible(found)
    if not text or linked > SOME_LINKS * text or AROUND & _names(" ".join(_around(found))):
        return False
    if linked <= FEW_LINKS * text:
        return True
    items = len(found.get_elements_by_tag_name("li"))
    return text - linked >= OWN_WORDS * max(1, items) and found.query_selector(TEASER) is None


def unlink(tree: Tree, anchor: Element, links: bool) -> None:
    """Put the content of an `<a>` in its place, with its target behind it if `links` and if it has one."""
    target = anchor.getattr("href") if links else None
    rest = [tree.document.create_text_node(f" ({target.strip()})")] if target is not None else []
    anchor.replace_with(*anchor.child_nodes.values(), *rest)


def visible(element: Element) -> tuple[int, int]:
    """Return the bytes of text of an element and how many of them are links, white space and scripts left out."""
    text = size(element) - sum(size(part) for part in element.query_selector_all(INVISIBLE).values())
    return text, sum(size(anchor) for anchor in element.query_selector_all("a[href]").values())


def size(node: Node) -> int:
    """Return the UTF-8 bytes of a node's text without white space: scripts that need fewer letters count as much."""
    return len("".join((node.text or "").split()).encode())


def _prose(box: Element) -> int:
    """Return the unlinked bytes of the paragraphs that are children of `box`; it stops counting at `PROSE`."""
    found = 0
    for child in box.children.values():
        if child.local_name == "p" and found < PROSE:
            found += size(child) - sum(size(anchor) for anchor in child.get_elements_by_tag_name("a").values())
    return found


def _around(element: Element) -> Iterator[str]:
    """Yield the classes of what an element stands in, up to body."""
    around = element.parent_element
    while around is not None and around.local_name != "body":
        yield _class(around)
        around = around.parent_element


def _class(element: Element) -> str:
    return element.getattr("class") or ""


def _names(text: str) -> set[str]:
    """Split class names at signs and capitals: `post-footer moreNews` → post, footer, more, news."""
    return {name.lower() for name in NAME.findall(text)}


def _deepen(tree: Tree, found: Element) -> None:
    """Put an element into three `<div>`."""
    outer, middle, inner = (tree.document.create_element("div") for _ in range(3))
    found.replace_with(outer)
    outer.append(middle)
    middle.append(inner)
    inner.append(found)
