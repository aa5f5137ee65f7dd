"""How often a parser opens elements that a page left open, told from the markup before it is parsed.

HTML's parser opens each `<b>`, `<font>` and the like that is not closed again in every paragraph that follows ("reconstruct the
active formatting elements", https://html.spec.whatwg.org/#the-list-of-active-formatting-elements). Of 15,000 of them in 300 kB
it makes 112 million elements, more than a machine has memory for.
"""

from __future__ import annotations

import re

FEW_TAGS = 2_800  # of so many at most half are opened again at the other half
MOST = 1 << 21  # elements; they take 0.8 GiB
TAG = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|iframe|noembed|noframes|xmp|title|textarea)\b.*?(?:</\1|\Z)|<(/?)([a-z][^\s/>]*)([^>]*)",
    re.DOTALL | re.IGNORECASE,
)
FORMATTING = frozenset("a b big code em font i nobr s small strike strong tt u".split())  # noqa: SIM905 - as the standard lists it
CELLS = frozenset(("td", "th", "caption"))
ROWS = frozenset(("tr", "tbody", "thead", "tfoot"))
ISLANDS = frozenset(("applet", "object", "marquee", "template"))
NAMED = re.compile(r"<(/?)(b|big|code|em|font|i|s|small|strike|strong|tt|u)(?=[\s/>])", re.IGNORECASE)  # links close each other
EQUAL = 3  # so many of the same name and attributes are opened again, no more (the standard's "Noah's Ark clause")


class _Open:
    """The formatting elements that are open since the last cell or the like."""

    def __init__(self) -> None:
        self.size = 0
        self._by_name: dict[str, list[str]] = {}

    def add(self, name: str, attributes: str) -> None:
        if name in ("a", "nobr"):  # a second one closes the first
            self.remove(name)
        same = self._by_name.setdefault(name, [])
        if same[-EQUAL:] != [attributes] * EQUAL:
            same.append(attributes)
            self.size += 1

    def remove(self, name: str) -> None:
        if self._by_name.get(name):
            self._by_name[name].pop()
            self.size -= 1


def reopens_too_many(markup: str) -> bool:
    """Say whether a parser may open more than `MOST` elements again: at each tag all that are open."""
    tags = markup.count("<")
    if tags <= FEW_TAGS or tags * (_peak(markup) + 2) <= MOST:
        return False
    total = 0
    scopes = [("", _Open())]
    for tag in TAG.finditer(markup):
        name, closes = (tag[3] or "").lower(), bool(tag[2])
        kind, now = scopes[-1]
        if name in FORMATTING and not closes:
            now.add(name, tag[4])
            continue
        total += now.size
        if total > MOST:
            return True
        if name in FORMATTING:
            now.remove(name)
        elif name == "table" or name in ISLANDS:
            _move(scopes, name, closes)
        elif name in CELLS or name in ROWS:
            if kind == "cell":
                scopes.pop()
            if name in CELLS and not closes:
                scopes.append(("cell", _Open()))
    return False


def _peak(markup: str) -> int:
    """Return how many may be open at once, whatever cells and equal ones would say: a third of the time of the whole count."""
    now: dict[str, int] = {}
    total = peak = 0
    for closes, name in NAMED.findall(markup):
        count = now.get(name, 0)
        if not closes:
            now[name], total = count + 1, total + 1
            peak = max(peak, total)
        elif count:
            now[name], total = count - 1, total - 1
    return peak


def _move(scopes: list[tuple[str, _Open]], name: str, closes: bool) -> None:
    """Go into an element that has formatting of its own, or out of the last one; a table shares that around it."""
    if not closes:
        scopes.append((name, scopes[-1][1] if name == "table" else _Open()))
    elif any(kind == name for kind, _ in scopes[-64:]):
        while scopes.pop()[0] != name:
            pass
