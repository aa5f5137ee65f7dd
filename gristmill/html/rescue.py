"""A second look at pages of which resiliparse's main content has nothing or hardly anything; changes its tree.

Its rules go by class names of boxes, and by one box called the main content. On 12 of 990 pages of trafilatura's
evaluation they leave nothing: the box called so is an empty one, or the whole page stands in a box called navigation or
promoted, or in `<noscript>`.
"""

from __future__ import annotations

from gristmill.html.dom import Element, Tree
from gristmill.html.lists import size

ROOTS = ".article-body,.articleBody,.contentBody,.article-text,.main-content,.postcontent,.post-content,.single-post,[role=main]"
NOT_MAIN = "nav,header,footer,form"
HARDLY = 0.1  # share of the bytes of the page's paragraphs that is found
ENOUGH = 200  # bytes of paragraphs that a page needs for a second look, when something was found


def is_lost(tree: Tree, text: str) -> bool:
    """Say whether `text` is nothing, or hardly anything of the paragraphs of a page."""
    if not text or text.isspace():
        return True
    found = len("".join(text.split()).encode())
    if found >= HARDLY * len(tree.body.text.encode()):
        return False
    paragraphs = sum(size(paragraph) for paragraph in tree.body.get_elements_by_tag_name("p").values())
    return paragraphs >= ENOUGH and found < HARDLY * paragraphs


def reveal(tree: Tree) -> None:
    """Take the names off the boxes that hold more than half of the page's paragraphs, and off the box called main content.

    The content of `<noscript>` becomes part of a page that has nothing else.
    """
    for element in tree.body.query_selector_all(ROOTS).values():
        for name in ("class", "role"):
            element.remove_attribute(name)
    paragraphs = _paragraphs(tree)
    if not paragraphs:
        for element in tree.body.get_elements_by_tag_name("noscript").values():
            _rename(tree, element)
        paragraphs = _paragraphs(tree)
    held: dict[Element, int] = {}
    for paragraph, weight in paragraphs:
        box = paragraph.parent_element
        while box is not None and box.local_name != "body":
            held[box] = held.get(box, 0) + weight
            box = box.parent_element
    total = sum(weight for _, weight in paragraphs)
    for box, weight in held.items():
        if 2 * weight > total:
            for name in box.attribute_names:
                box.remove_attribute(name)
            if box.local_name in ("aside", "article", "footer"):
                _rename(tree, box)


def _paragraphs(tree: Tree) -> list[tuple[Element, int]]:
    """Return the paragraphs of a page that are not in its head, foot or menus, each with its bytes."""
    found = [p for p in tree.body.query_selector_all("p").values() if p.closest("noscript," + NOT_MAIN) is None]
    return [(paragraph, weight) for paragraph in found if (weight := size(paragraph))]


def _rename(tree: Tree, element: Element) -> None:
    """Put a `<div>` without attributes in the place of an element."""
    other = tree.document.create_element("div")
    element.replace_with(other)
    other.append(*element.child_nodes.values())
