"""Markup, charts and figures of the report: any text comes back as it was, any histogram stays in its picture."""

import itertools
import math
import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.html import charts, markup
from jobs.report.page import TEMPLATES
from tests.jobs.reading import Reader, measure
from tests.random_examples import examples


@given(st.text())
def test_any_text_is_read_back_as_it_was(text):
    read = Reader(markup.tag("p", text, title=text))
    expected = markup.CONTROL.sub("\ufffd", text)
    assert [found["title"] for _, found in read.elements] == [expected]
    assert read.text.replace("\r", "\n") == expected.replace("\r", "\n")


# Charts


@examples(60)
@given(st.lists(st.floats(-2000, 2000), min_size=1, max_size=80))
def test_joined_bins_keep_every_value_in_its_range(values):
    made = measure(values, pa.float64())
    joined = charts.merged(made["bins"])
    assert sum(n for _, _, n in joined) == len(values) and len(joined) <= charts.BINS_SHOWN + 1
    assert all(a[1] <= b[0] + 1e-6 for a, b in itertools.pairwise(joined))
    assert joined[0][0] <= min(values) + 1e-6 and joined[-1][1] >= max(values) - 1e-6


@examples(60)
@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=80), st.sampled_from([pa.int64(), pa.float64()]))
def test_bars_ticks_and_median_lie_inside_the_picture(values, kind):
    made = measure([v if kind == pa.int64() else v / 1e4 for v in values], kind)
    read = Reader(charts.histogram(made, "document"))
    shown = [found for name, found in read.elements if name == "rect" and "class" not in found]
    assert all(
        float(r["x"]) >= -1 and float(r["x"]) + float(r["width"]) <= 1001 and 2 <= float(r["height"]) <= 120 for r in shown
    )
    places = [float(style.removeprefix("left:").removesuffix("%")) for name, style in read.attributes("style") if name == "span"]
    assert all(-0.01 <= p <= 100.01 for p in places) and all(b - a >= 12 for a, b in itertools.pairwise(places))


@examples(60)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=200))
def test_the_median_of_whole_numbers_is_off_by_its_bin_at_most(values):
    made = measure(values, pa.int64())
    exact = sorted(values)[math.ceil(len(values) / 2) - 1]
    assert abs(charts.quantile(made["bins"], 0.5) - exact) <= (0.2 * exact if exact > 5 else 0)


# Figures


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (markup.number(1234567), "1,234,567"),
        (markup.number(-3.5742), "−3.574"),
        (markup.number(0.00012345), "0.000123"),
        (markup.compact(1_240_000_000), "1.24 B"),
        (markup.compact(9_999), "9,999"),
        (markup.percent(1, 3), "33.3%"),
        (markup.percent(1, 10**6), "<0.1%"),
        (markup.percent(10**6 - 1, 10**6), ">99.9%"),
        (markup.percent(0, 0), "–"),
        (markup.size(0), "0 B"),
        (markup.size(13_400_000), "13.4 MB"),
        (markup.duration(0.4249), "0.42 s"),
        (markup.duration(119.7), "2 min 0 s"),
        (markup.duration(12_000), "3 h 20 min"),
    ],
)
def test_figures_are_written_as_people_do(shown, expected):
    assert shown == expected


# The look


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_and_marks_stand_out_in_both_themes():
    """WCAG 2.2: 4.5:1 for text, 3:1 for graphics."""
    style = (TEMPLATES / "report.css").read_text()
    themes = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r"--paper: #.*?\}", style, re.S)]
    light, dark, *again = [theme for theme in themes if len(theme) > 2]
    assert again == [dark] and light.keys() == dark.keys()
    for theme in (light, dark):
        pairs = [
            (text, ground, 4.5) for text in ("ink", "soft", "dropped-ink", "sick-ink") for ground in ("paper", "card", "bad")
        ]
        pairs += [("kept-ink", "good", 4.5), ("nil", "card", 4.5), ("soft", "faint", 4.5), ("time", "card", 3)]
        pairs += [(mark, "card", 3) for mark in ("kept", "dropped", "sick")]
        for above, below, least in pairs:
            high, low = sorted((luminance(theme[above]), luminance(theme[below])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= least, (above, below)
