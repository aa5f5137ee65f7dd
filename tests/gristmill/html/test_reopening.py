"""Pages whose formatting is never closed: what would fill the memory is told before it is parsed, the rest is read."""

import pyarrow as pa
import pytest

from gristmill.html.reopening import reopens_too_many
from stages.extract.html import ExtractHtml


def extracted(markup):
    docs = pa.table({"text": [markup], "media": ["text/html"]})
    return ExtractHtml().open()(docs).to_pylist()[0]


@pytest.mark.parametrize(
    "markup",
    [
        "".join(f"<font color=#{number:06x}><p>" for number in range(15_000)),
        "".join(f"<b id={number}>" for number in range(400)) + "<p>x" * 50_000,
        "<table><tr><td>" + "".join(f"<i id={number}><div>x</div>" for number in range(8_000)),
    ],
    ids=["in turns", "first open", "in a cell"],
)
def test_what_a_parser_would_open_again_without_end_is_too_complex(markup):
    assert (extracted(markup)["drop"], extracted(markup)["text"]) == ("too_complex", "")


@pytest.mark.parametrize(
    "markup",
    [
        "<p><b>words</b> <font color=red>of</font> <a href=x>pages</a></p>" * 20_000,
        "<b><p>" * 50_000,
        "".join(f"<a href=/{number}>x<p>" for number in range(20_000)),
        "<table>" + "".join(f"<tr><td><font size={number}>x" for number in range(20_000)) + "</table>",
        "<script>" + "x = '<b id=1><p>';" * 20_000 + "</script>" + "<p>x</p>" * 20_000,
        "<!--" + "<b id=1><p>" * 20_000,
        "<!--" * 100_000,
    ],
    ids=["closed", "equal", "links", "cells", "script", "comment", "comments"],
)
def test_other_pages_of_many_tags_are_read(markup):
    assert not reopens_too_many(markup)


def test_pages_that_leave_some_open_are_read():
    row = extracted(
        "<body><main>" + "".join(f"<font size={number % 7}><p>Some words of a story, {number}." for number in range(300))
    )
    assert row["drop"] is None
    assert "a story, 299." in row["text"]
