"""HTML that is escaped by construction, and figures as people write them; `charts.py` and the pages are written with it.

Reads nothing, writes nothing. Whatever a page shows of a crawl is hostile: every `str` given to `tag` is escaped, and only
`Html`, which `tag` itself returns, passes unchanged.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\ud800-\udfff]")
VOID = frozenset({"meta", "input", "wbr"})
SCALE = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


class Html(str):
    """Markup that needs no escaping any more."""

    __slots__ = ()


Child = Html | str | int | None | Iterable["Child"]


def text(value: object) -> Html:
    """Escape `value` for an element or a quoted attribute; control characters and lone surrogates become U+FFFD."""
    return Html(html.escape(CONTROL.sub("\ufffd", str(value)), quote=True))


def tag(name: str, /, *children: Child, **attributes: object) -> Html:
    """Return `<name attributes>children</name>`; `class_` is `class`, `_` is `-`; None and False leave a part out."""
    pairs = (
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    opened = f"<{name}{''.join(pairs)}>"
    return Html(opened if name in VOID else f"{opened}{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Return the children one after the other; strings are escaped, None is left out."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str | int):
            parts.append(child if isinstance(child, Html) else text(child))
        else:
            parts.append(join(*child))
    return Html("".join(parts))


def breakable(name: str) -> Html:
    """Return a snake_case name that may be broken after its underscores."""
    return Html(text(name).replace("_", "_<wbr>"))


def data(value: float, shown: str | None = None, **attributes: object) -> Html:
    """Return a figure with its exact value beside what is shown: `<data value="1234">1,234</data>`."""
    return tag("data", shown if shown is not None else number(value), value=repr(value), **attributes)


def number(value: float) -> str:
    """Return an integer with thousands separators, anything else with about four significant digits."""
    if value != value:
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        shown = f"{int(value):,}"
    elif abs(value) >= 1000:
        shown = f"{value:,.0f}"
    else:
        shown = f"{value:.{4 if abs(value) >= 1 else 3}g}"
    return shown.replace("-", "−")


def compact(value: float, exact: float = 10_000) -> str:
    """Return a figure short enough for a headline or an axis: `1.24 B`, `37.5 k`; below `exact` as it is."""
    for limit, unit in SCALE:
        if abs(value) >= max(limit, exact):
            return f"{value / limit:.3g} {unit}".replace("-", "−")
    return number(value)


def percent(part: float, whole: float) -> str:
    """Return `part` of `whole` as a percentage; a share that is not all and not nothing is never rounded to it."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "<0.1%"
    if 99.9 < share < 100:
        return ">99.9%"
    return f"{share:.0f}%" if share in (0, 100) else f"{share:.1f}%"


def size(count: float) -> str:
    """Return bytes in decimal units."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}" if count < 1000 * limit else f"{count / limit:,.0f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Return seconds as `0.42 s`, `48.2 s`, `12 min 3 s` or `3 h 20 min`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def document(title: str, css: str, script: str, body: Html) -> str:
    """Return a whole page that may load nothing and run this script alone, which stands in its body."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Html(css)),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return `1 document`, `1,200 documents`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
