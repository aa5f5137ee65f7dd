"""The pictures of the report: the funnel, histograms, bars of shares. HTML and SVG without a script or a font.

Reads parts of the ledger's summary (`pipeline/builds/summary.py`), returns markup. Widths are in percent of the width that the
page gives, so the same picture serves a wide screen and a phone; `templates/report.css` holds the colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from jobs.html.markup import Html, breakable, compact, data, join, number, percent, plural, tag
from pipeline.builds.summary import MeasureSummary, StageSummary
from pipeline.units.ledger import LINEAR_BIN, OCTAVE_BINS

HEIGHT = 120  # px, and units of the view box: a bar of one document is still 2 px high
BINS_SHOWN = 48  # of equal width; more are joined
REASONS_SHOWN = 8
CATEGORIES_SHOWN = 12

Bins = Sequence[Sequence[float]]  # [low, high, count], ascending, gaps allowed


def lost(stage: StageSummary) -> tuple[int, int]:
    """Return (dropped, quarantined) documents of a stage."""
    return sum(stage["dropped"].values()), sum(stage["quarantined"].values())


def arriving(stage: StageSummary) -> tuple[int, int]:
    """Return (in, made) documents of a stage: those that it took in, and those that it made of these beyond their number."""
    return int(stage["in"]), int(stage.get("made", 0))


def missing(stage: StageSummary) -> int:
    """Return how many documents of a stage are unaccounted for: in + made - kept - dropped - quarantined; 0 when all is well."""
    return sum(arriving(stage)) - int(stage["kept"]) - sum(lost(stage))


def equation(stage: StageSummary) -> tuple[str, str]:
    """Return the two sides of a stage's account in words, the first without what it does not have."""
    (taken, made), (dropped, quarantined) = arriving(stage), lost(stage)
    left = f"{taken:,} in" + (f" + {made:,} made" if made else "")
    return left, f"{int(stage['kept']):,} kept + {dropped:,} dropped + {quarantined:,} quarantined"


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return (name, count), the largest first, equal ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def octaves(bins: Bins) -> bool:
    """Tell whether these are the ledger's bins of whole numbers: there [low, high) means ceil(low) to ceil(high) - 1."""
    return bins[0][1] - bins[0][0] > 1.5 * LINEAR_BIN


def position(bins: Bins, whole: bool) -> Callable[[float], float]:
    """Return a value's position in 0..1, from the first bin's start to the last one's end.

    The axis is linear; for whole numbers it is logarithmic from 1 up with one bin for 0, so that the ledger's bins stand in
    equal steps.
    """

    def scale(value: float) -> float:
        if not whole:
            return value
        return 1 + OCTAVE_BINS * math.log2(value) if value >= 1 else value

    left, right = scale(bins[0][0]), scale(bins[-1][1])
    return lambda value: (scale(value) - left) / (right - left)


def merged(bins: Bins) -> list[tuple[float, float, int]]:
    """Return bins of equal width joined until at most `BINS_SHOWN` span the range, each new one on a multiple of its width."""
    width = bins[0][1] - bins[0][0]
    numbers = [round(low / width) for low, _, _ in bins]
    step = next(s for s in (m * 10**p for p in range(12) for m in (1, 2, 4, 10)) if (numbers[-1] - numbers[0]) / s < BINS_SHOWN)
    counts: dict[int, int] = {}
    for at, (_, _, n) in zip(numbers, bins, strict=True):
        counts[at // step] = counts.get(at // step, 0) + int(n)
    return [(i * step * width, (i + 1) * step * width, n) for i, n in sorted(counts.items())]


def ticks(bins: Bins, whole: bool) -> list[float]:
    """Return round values inside the range of the bins, far enough from each other to be labelled."""
    scale = position(bins, whole)
    low, high = bins[0][0], bins[-1][1]
    if whole:
        candidates = [0.0, *(m * 10.0**p for m in (1, 3, 2, 5) for p in range(16))]
    else:
        step = 10.0 ** math.floor(math.log10(high - low))
        step *= next(m for m in (1, 0.5, 0.2, 0.1) if (high - low) / (step * m) >= 3.5 or m == 0.1)
        first = math.ceil(low / step - 1e-9)
        candidates = [round(i * step, 12) for i in range(first, first + 40)]
    chosen: list[float] = []
    for value in candidates:
        if low - 1e-9 <= value <= high + 1e-9 and all(abs(scale(value) - scale(other)) >= 0.13 for other in chosen):
            chosen.append(value)
    return sorted(chosen)


def quantile(bins: Bins, share: float) -> float:
    """Return the value below which `share` of the counted values lie, interpolated inside its bin."""
    whole = octaves(bins)
    wanted = share * sum(count for _, _, count in bins)
    seen = 0.0
    for low, high, count in bins:
        if count and seen + count >= wanted:
            first, last = (math.ceil(low), math.ceil(high) - 1) if whole else (low, high)
            value = first + (last - first) * (wanted - seen) / count
            return float(round(value)) if whole else value
        seen += count
    return bins[-1][1]


def _range(low: float, high: float, whole: bool) -> str:
    first, last = (math.ceil(low), math.ceil(high) - 1) if whole else (low, high)
    return number(first) if first == last else f"{number(first)} to {number(last)}"


def histogram(measure: MeasureSummary, noun: str) -> Html:
    """Draw a measure of kind `number`: bars, a line at the median, round ticks. Each bar says its range and count on hover."""
    bins: Bins = measure["bins"]
    count = int(measure["count"])
    if measure["min"] == measure["max"]:
        return tag("p", "Every value is ", data(measure["min"]), ".", class_="empty")
    middle = quantile(bins, 0.5)
    whole = octaves(bins)
    bins = bins if whole else merged(bins)
    scale = position(bins, whole)
    tallest = max(n for _, _, n in bins)
    bars = []
    for low, high, n in bins:
        left, right = 1000 * scale(low), 1000 * scale(high)
        height = max(2.0, HEIGHT * n / tallest) if n else 0.0
        hint = f"{_range(low, high, whole)}: {plural(int(n), noun)} ({percent(n, count)})"
        bar = tag("rect", x=_px(left + 0.8), y=_px(HEIGHT - height), width=_px(max(right - left - 1.6, 1.6)), height=_px(height))
        hit = tag("rect", class_="hit", x=_px(left), y=0, width=_px(max(right - left, 1.6)), height=HEIGHT)
        bars.append(tag("g", tag("title", hint), hit, bar))
    x = _px(1000 * scale(middle))
    line = tag("line", class_="median", x1=x, x2=x, y1=0, y2=HEIGHT)
    span = f"from {number(measure['min'])} to {number(measure['max'])}"
    label = f"Histogram of {plural(count, 'value')}: {span}, median about {number(middle)}"
    picture = tag(
        "svg",
        bars,
        line,
        viewBox=f"0 0 1000 {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
        class_="histogram",
    )
    marks = [tag("span", compact(t), style=f"left:{_share(scale(t), 1)}") for t in ticks(bins, whole)]
    return join(picture, tag("div", marks, class_="ticks", aria_hidden="true"))


def figures(measure: MeasureSummary) -> Html:
    """Say a measure of kind `number` in one line: median, mean, range, count."""
    if not measure["count"]:
        return tag("p", "No values.", class_="readout")
    parts = [
        join("median ≈ ", number(quantile(measure["bins"], 0.5))) if measure["bins"] else None,
        join("mean ", data(measure["sum"] / measure["count"])),
        join(data(measure["min"]), " – ", data(measure["max"])),
        join(data(measure["count"]), " values"),
    ]
    return tag("p", [tag("span", part) for part in parts if part], class_="readout")


def categories(counts: Mapping[str, int]) -> Html:
    """Draw a measure of kind `category`: a bar for each value, the rarest folded into one line."""
    rows = by_count(counts)
    whole = sum(counts.values())
    if not whole:
        return tag("p", "No values.", class_="empty")
    if len(rows) > CATEGORIES_SHOWN + 1:
        rest = rows[CATEGORIES_SHOWN:]
        rows = [*rows[:CATEGORIES_SHOWN], (f"{len(rest):,} others", sum(n for _, n in rest))]
    most = max(n for _, n in rows)
    return tag(
        "ul",
        [
            tag(
                "li",
                tag("span", name or "(empty)", class_="name"),
                meter(n, most),
                tag("span", data(n), class_="count"),
                tag("span", percent(n, whole), class_="share"),
            )
            for name, n in rows
        ],
        class_="categories",
    )


def meter(part: float, whole: float, kind: str = "kept") -> Html:
    """Draw a bar that fills `part` of `whole`; the figure always stands beside it as text."""
    return tag("span", tag("i", class_=kind, style=f"width:{_share(part, whole)}"), class_="meter", aria_hidden="true")


def funnel(
    stages: Sequence[StageSummary], samples: Mapping[str, Mapping[str, object]], anchor: Callable[[str, str], str]
) -> Html:
    """Draw the way of the documents: a row a stage (kept, then what is lost), under it a row a reason, and whether it adds up.

    `anchor(stage, reason)` is the id of the samples; reasons without samples are not links.
    """
    crawl = int(stages[0]["in"]) if stages else 0
    whole = max((sum(arriving(stage)) for stage in stages), default=0)
    heads = ("stage", "", "in", "kept", "dropped", "quarantined", "of crawl", "adds up")
    head = tag("div", [tag("span", h) for h in heads], class_="row head", aria_hidden="true")
    rows = [_stage_row(stage, (crawl, whole), samples.get(stage["stage"], {}), anchor) for stage in stages]
    return tag("div", head, tag("ol", rows), class_="funnel")


def _stage_row(
    stage: StageSummary, of: tuple[int, int], samples: Mapping[str, object], anchor: Callable[[str, str], str]
) -> Html:
    """`of`: the documents of the crawl, and the most that any stage has, for which a bar has its whole width."""
    (taken, made), kept, (crawl, whole) = arriving(stage), int(stage["kept"]), of
    own = taken + made
    dropped, quarantined = lost(stage)
    gone = missing(stage)
    losses = [(reason, n, "dropped") for reason, n in by_count(stage["dropped"])]
    losses += [(kind, n, "quarantined") for kind, n in by_count(stage["quarantined"])]
    segments, start = [_segment("kept", 0, kept, whole, own)], kept
    reasons = [_reason_row("made of others", made, (taken, crawl), "made", Html(""), None)] if made else []
    for name, n, kind in losses:
        piece = _segment(kind, start, n, whole, own)
        segments.append(piece)
        target = (
            anchor(stage["stage"], name)
            if kind == "dropped" and name in samples
            else "#quarantine"
            if kind != "dropped"
            else None
        )
        reasons.append(_reason_row(name, n, (taken, crawl), kind, piece, target))
        start += n
    account = " = ".join(equation(stage))
    verdict = (
        tag("span", "✓", class_="ok", title=account, role="img", aria_label=f"adds up: {account}")
        if not gone
        else tag(
            "span", f"✗ {abs(gone):,} {'missing' if gone > 0 else 'too many'}", class_="bad", title=account.replace("=", "≠")
        )
    )
    line = tag(
        "div",
        tag("h3", breakable(stage["stage"])),
        tag("span", segments, class_="track", aria_hidden="true"),
        _cell("in", data(taken)),
        _cell("kept", data(kept)),
        _cell("dropped", data(dropped), "lost" if dropped else "nil"),
        _cell("quarantined", data(quarantined), "sick" if quarantined else "nil"),
        _cell("of crawl", percent(kept, crawl)),
        tag("span", verdict, class_="cell check"),
        class_="row stage",
    )
    return tag("li", line, _folded(reasons), class_="broken" if gone else None)


def _folded(reasons: Sequence[Html]) -> Html | None:
    if not reasons:
        return None
    if len(reasons) <= REASONS_SHOWN + 1:
        return tag("ul", reasons)
    rest = reasons[REASONS_SHOWN:]
    return join(tag("ul", reasons[:REASONS_SHOWN]), tag("details", tag("summary", f"{len(rest)} more reasons"), tag("ul", rest)))


def _reason_row(name: str, n: int, of: tuple[int, int], kind: str, piece: Html, target: str | None) -> Html:
    label = tag("a" if target else "span", breakable(name), href=target)
    return tag(
        "li",
        tag("span", label, class_="name"),
        tag("span", piece, class_="track thin", aria_hidden="true"),
        tag("span", data(n), class_=f"count {kind}"),
        tag("span", percent(n, of[1]), class_="share", title=f"{percent(n, of[0])} of what the stage took in"),
        class_="row reason",
    )


def _cell(label: str, value: Html | str, state: str = "") -> Html:
    return tag("span", tag("small", label), value, class_=f"cell {state}".strip())


def _segment(kind: str, start: int, n: int, whole: int, taken: int) -> Html:
    """A piece of a bar, placed twice: in shares of the crawl (`--l`, `--w`) and of the stage's own input (`--m`, `--v`)."""
    if not n:
        return Html("")
    style = f"--l:{_share(start, whole)};--w:{_share(n, whole)};--m:{_share(start, taken)};--v:{_share(n, taken)}"
    return tag("i", class_=kind, style=style)


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole if whole else 0:.3f}%"


def _px(value: float) -> str:
    return f"{value:.1f}"
