"""XHTML by the rules of XML: as an XML parser reads it, an HTML parser must read what comes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from lxml import html as lxml_html

from gristmill.html.xhtml import VOID, as_html
from stages.source.warc import WarcSource
from tests.gristmill.archives.archives import gz, memory, record, scan

NS = "http://www.w3.org/1999/xhtml"


def by_html(markup):
    """Return the words of the body as an HTML parser finds them."""
    return " ".join(
        " ".join(lxml_html.document_fromstring(as_html(markup)).xpath("//body//text()[not(ancestor::script)]")).split()
    )


@pytest.mark.parametrize(
    "body",
    [
        "<script src='a.js'/><p>words</p>",
        "<p>one</p><a id='here'/><p>two</p><div/><span class='x' /><p>three</p>",
        "<textarea/><p>words</p><iframe src='x'/><p>more</p>",
        "<select/><ul><li/><li>item</li></ul>",
        "<p><![CDATA[a < b && c > d]]></p><p>after</p>",
        "<!-- <script/> --><p>words</p>",
        "<p title='a > b'/><p title=\"x/>\">words</p>",
        "<br/><hr/><img src='x'/><p>words</p>",
        "<p>1 &lt; 2</p><math xmlns='http://www.w3.org/1998/Math/MathML'><mi>x</mi></math>",
        "<style/><p>words</p><noscript/><p>more</p>",
    ],
)
def test_html_parsers_find_the_words_that_xml_parsers_find(body):
    markup = f"<html xmlns='{NS}'><head><title/><script/></head><body>{body}</body></html>"
    tree = etree.fromstring(markup.encode())
    expected = " ".join(" ".join(tree.find(f"{{{NS}}}body").itertext(etree.Element)).split()) or " ".join(
        " ".join(tree.xpath("//*[local-name()='body']//text()")).split()
    )
    assert by_html(markup) == expected


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<p/>", "<p></p>"),
        ('<P class="a/b" />', '<P class="a/b"></P>'),
        ("<br/><IMG src='a/>b'/>", "<br/><IMG src='a/>b'/>"),
        ("<svg:rect x='1'/>", "<svg:rect x='1'></svg:rect>"),
        ("<a href='/b/'>c</a>", "<a href='/b/'>c</a>"),
        ("<![CDATA[<b/>]]>", "&lt;b/&gt;"),
        ("<!-- <p/> -->", "<!-- <p/> -->"),
        ("<?php <p/> ?>", "<?php <p/> ?>"),
        ("a < b /> c", "a < b /> c"),
        ("<p class='open <i/>", "<p class='open <i></i>"),
        ("<!-- never closed <p/>", "<!-- never closed <p/>"),
        ("<![CDATA[never closed <p/>", "never closed &lt;p/&gt;"),
    ],
)
def test_empty_elements_and_sections(markup, expected):
    assert as_html(markup) == expected


@given(st.text(st.sampled_from("<>/'\"!-[]? abpr\n"), max_size=60))
def test_markup_without_empty_elements_stays_and_all_words_stay(markup):
    made = as_html(markup)
    if "/>" not in markup and "<![CDATA[" not in markup:
        assert made == markup
    assert len(made) >= len(markup) - markup.count("<![CDATA[") * 12 - markup.count(" ") - markup.count("\n")


@pytest.mark.parametrize("unit", ["<p '", '<p "<', "<a b='", "<!--", "<![CDATA[", "<p/", "<p a/ ", "<" * 9, "<?", "<p a=b c"])
def test_no_markup_is_looked_at_twice(unit):
    markup = unit * (3_000_000 // len(unit)) + "/>"  # work that grows with the square of it would not end
    assert len(as_html(markup)) >= len(markup) - 100


def test_void_elements_are_those_that_html_parsers_never_close():
    for name in VOID - {"image", "frame"}:
        tree = lxml_html.fragment_fromstring(f"<div><{name}>", create_parent=False)
        assert not tree.xpath(f"//{name}/text()")


@pytest.mark.parametrize(("served", "finds"), [("application/xhtml+xml", True), ("text/html", False)])
def test_the_rules_hold_for_what_is_served_as_xhtml(served, finds):
    page = f"<?xml version='1.0'?><html xmlns='{NS}'><head><script src='a'/></head><body><p>words</p></body></html>"
    block = f"HTTP/1.1 200 OK\r\nContent-Type: {served}\r\n\r\n{page}".encode()
    row = scan(WarcSource(paths=""), memory(gz([record(0, block)]))).to_pylist()[0]
    assert ("<script src='a'></script>" in row["text"]) == finds
    assert row["media"] == "text/html"
