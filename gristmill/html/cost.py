"""How much work a page is, computed from the page alone: the same on every machine, under any load.

Two things make an engine slow. resiliparse's main content looks, for each box, at all the text in it, so a character costs
as often as it has boxes around it. And each element costs, in the engine and in what is mended before it: lists, notes and
the like more than others, all of them more in trafilatura.
"""

from __future__ import annotations

import re

from gristmill.html.dom import Tree

# Units of at most 1/60 µs, measured on pages of one kind of element (characters 1/200 µs, lists 1/80, trafilatura 1/60).
ELEMENT, MENDED, TRAFILATURA = 1_000, 5_000, 6_000
MENDED_ELEMENTS = "ul,ruby,aside,time,label,figure"
# A tag, or what holds no tags however it looks.
TAG = re.compile(r"<!--.*?-->|<(script|style|iframe|noembed|noframes|xmp)\b.*?</\1>|<(/?)([a-zA-Z][^\s/>]*)[^>]*>", re.DOTALL)
VOID_NAMES = "area base br col embed hr img input link meta source track wbr"
VOID = frozenset(VOID_NAMES.split())


def too_much(tree: Tree, markup: str, limit: int, engine: str) -> bool:
    """Say whether the work on a page, parsed as `tree`, is more than `limit` units.

    The exact sum is computed only for pages whose size times their depth could reach it.
    """
    elements = len(tree.document.get_elements_by_tag_name("*"))
    left = limit - (TRAFILATURA if engine == "trafilatura" else ELEMENT) * elements
    if engine != "trafilatura" and left < MENDED * elements:
        left -= mended(tree)
    if left < 0:
        return True
    depth = left // max(1, len(markup))
    return depth < elements and is_deeper(tree, depth) and levels(str(tree)) > left


def work(tree: Tree, engine: str) -> int:
    """Return the work on a page in units: what `too_much` compares with its limit, never cut short."""
    elements = len(tree.document.get_elements_by_tag_name("*"))
    if engine == "trafilatura":
        return TRAFILATURA * elements + levels(str(tree))
    return ELEMENT * elements + mended(tree) + levels(str(tree))


def mended(tree: Tree) -> int:
    """Return the work on lists, notes and the like, beyond that on any element."""
    return MENDED * len(tree.document.query_selector_all(MENDED_ELEMENTS))


def depth(tree: Tree, most: int) -> int:
    """Return how many levels the deepest element has, by what `is_deeper` says; `most` + 1 where there are more than `most`."""
    low, high = 0, most + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if is_deeper(tree, middle) else (low, middle)
    return low


def is_deeper(tree: Tree, depth: int) -> bool:
    """Say whether an element of the tree has more than `depth` levels, itself included."""
    # A chain of child selectors matches an element at that depth or none; most pages have too few elements for one.
    if len(tree.document.get_elements_by_tag_name("*")) <= depth:
        return False
    return tree.document.query_selector(" > ".join(["*"] * (depth + 1))) is not None


def levels(markup: str) -> int:
    """Return the sum, over the characters of serialised markup, of the elements around each."""
    total = level = last = 0
    for tag in TAG.finditer(markup):
        total += (tag.start() - last) * level
        last = tag.start()
        if tag[3] and tag[3] not in VOID:
            level += -1 if tag[2] else 1
    return total + (len(markup) - last) * level
