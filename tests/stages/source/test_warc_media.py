"""Types as servers and crawlers name them, bodies that are something else, and status lines of any shape."""

import pytest

from gristmill.archives import response
from gristmill.archives.media import essence, is_binary, media_of
from stages.source.warc import WarcSource
from tests.gristmill.archives.archives import gz, memory, record, scan

PAGE = b"<!DOCTYPE html><title>x</title><p>A page.</p>"
PROSE = b"Just some words, and a line end.\n"
XHTML = "application/xhtml+xml"


def one(block, media="application/http;msgtype=response"):
    data = record(0, block, media=media or "-")
    if media is None:
        data = data.replace(b"Content-Type: -\r\n", b"", 1)
    rows = scan(WarcSource(paths=""), memory(gz([data]))).to_pylist()
    assert len(rows) == 1
    return rows[0]


def answer(body, *types, status=b"HTTP/1.1 200 OK"):
    return status + b"".join(b"\r\nContent-Type: " + kind.encode() for kind in types) + b"\r\nServer: x\r\n\r\n" + body


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text/html", "text/html"),
        ("TEXT/HTML ; Charset=UTF-8", "text/html"),
        ("text/html charset=utf-8", "text/html"),
        ("text/html,charset=utf-8", "text/html"),
        ("text/html, text/html; charset=utf-8", "text/html"),
        ("text/plain, text/html", "text/html"),
        ("text/html, */*", "text/html"),
        (" text/html;", "text/html"),
        ('"text/html"', "text/html"),
        ("text/html;charset=utf-8;profile=a/b", "text/html"),
        ('application/xhtml+xml; profile="http://a.test/b,c/d"', "application/xhtml+xml"),
        ("application/vnd.ms-excel", "application/vnd.ms-excel"),
        ("*/*", ""),
        ("unknown/unknown", ""),
        ("application/unknown", ""),
        ("html", ""),
        ("", ""),
        (";charset=utf-8", ""),
        ("text/", ""),
    ],
)
def test_the_type_that_a_header_names(value, expected):
    assert essence(value) == expected


@pytest.mark.parametrize(
    "start",
    [
        b"<!DOCTYPE HTML>",
        b"\n \t<html lang=en>",
        b"<HEAD>",
        b"<script src=x>",
        b"<iframe>",
        b"<h1>",
        b"<div id=a>",
        b"<font>",
        b"<table>",
        b"<a href=x>",
        b"<style>",
        b"<title>",
        b"<b>",
        b"<body\n>",
        b"<br/>",
        b"<p>",
        b"<!-- a -->",
        b"<meta charset=utf-8>",
        b"<main>",
        b"\xef\xbb\xbf<html>",
        b"<?xml version='1.0'?><html>",
        b"<?xml version='1.0'?>\n<!-- c -->\n<!DOCTYPE html>\n<html xmlns='x'>",
    ],
)
@pytest.mark.parametrize("types", [(), ("*/*",), ("unknown/unknown",)], ids=["none", "stars", "unknown"])
def test_a_body_without_a_usable_type_is_a_page_when_it_begins_like_one(start, types):
    row = one(answer(start + b"words of a page", *types))
    assert (row["media"], row["drop"], row["error"]) == ("text/html", None, None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (PROSE, "text/plain"),
        ("\ufeffwide".encode("utf-16"), "text/plain"),
        ("<html><p>wide".encode("utf-16"), "text/html"),
        (b"<abbr>", "text/plain"),
        (b"<pa>", "text/plain"),
        (b"<?xml version='1.0'?><rss version='2.0'/>", None),
        (b"<?xml version='1.0' encoding='utf-8'?><svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"%PDF-1.4 <html>", None),
        (b"%!PS-Adobe-3.0", None),
        (b"\x89PNG\r\n\x1a\n....", None),
        (b"PK\x03\x04....", None),
        (b"words\x00and\x01noise\x02", None),
        (b"", "text/plain"),
    ],
)
def test_what_else_a_body_without_a_type_can_be(body, expected):
    assert media_of("", body) == expected


SIGNED = {
    "pdf": b"%PDF-1.7\nwords",
    "pdf behind lines": b"\r\n%PDF-1.7",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(20),
    "jpeg": b"\xff\xd8\xff\xe0" + bytes(20),
    "gif": b"GIF89a words",
    "zip": b"PK\x03\x04" + bytes(9),
    "gzip": b"\x1f\x8b\x08" + bytes(9),
    "mp4": b"\x00\x00\x00\x18ftypmp42",
    "woff": b"wOFF" + bytes(9),
    "word": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(40),
    "noise": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("kind", SIGNED)
@pytest.mark.parametrize("served", ["text/html", "text/plain", XHTML, "text/html; charset=utf-8"])
def test_other_files_served_as_text_are_no_text(kind, served):
    row = one(answer(SIGNED[kind], served))
    assert (row["drop"], row["error"], row["text"]) == ("not_text", None, "")


@pytest.mark.parametrize(
    "body",
    [
        b"<p>a\x00b\x01c</p>",
        b"PKs are words too",
        b"GIF is a format",
        "<p>naïve".encode("utf-16"),
        "naïve words".encode("utf-16-le"),
        "words".encode("utf-32-le"),
        b"\x1b$B8cGZ$O\x1b(B<p>",
        b"a\x0cb",
        b"",
    ],
)
def test_text_with_odd_bytes_is_text(body):
    assert media_of("text/html", body) == "text/html"
    assert is_binary(body) == (b"\x01" in body)


@pytest.mark.parametrize(
    ("served", "body", "expected"),
    [
        (XHTML, PAGE, XHTML),
        ("application/vnd.wap.xhtml+xml", PAGE, XHTML),
        ("text/xml", b"<?xml version='1.0'?><!DOCTYPE html><html xmlns='http://www.w3.org/1999/xhtml'>", XHTML),
        ("application/xml; charset=utf-8", b"<h:html xmlns:h='http://www.w3.org/1999/xhtml'>", XHTML),
        ("text/xml", b"<rss>", None),
        ("application/json", PAGE, None),
        ("image/png", PAGE, None),
    ],
)
def test_xml_is_a_page_when_its_root_is(served, body, expected):
    assert media_of(served, body) == expected


def test_the_last_line_of_several_names_the_type():
    assert one(answer(PAGE, "text/plain", "text/html"))["media"] == "text/html"
    assert one(answer(PAGE, "text/html", "*/*"))["media"] == "text/html"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"HTTP/1.1 200 OK", 200),
        (b"HTTP/1.1 200OK", 200),
        (b"HTTP/1.1 200", 200),
        (b"http/1.1 200 ok", 200),
        (b"HTTP/2 200", 200),
        (b"HTTP/3 200 ", 200),
        (b"HTTP 200 OK", 200),
        (b"HTTP/1.0\t200\tOK", 200),
        (b"HTTP/1.1  200  OK", 200),
        (b"\r\nHTTP/1.1 200 OK", 200),
        (b"ICY 200 OK", 200),
        (b"HTTP/1.x 200 OK", 200),
        (b"HTTP1.1 200 OK", 200),
        (b"h2 200", 200),
        (b"HTTP 301 200", 301),
        (b"HTTP/1.1 404Not Found", 404),
        (b"HTTP/1.1 2000 OK", None),
        (b"HTTP/1.1 OK", None),
        (b"HTTPX/1.1 200 OK", None),
        (b"GET / HTTP/1.1", None),
    ],
)
def test_status_lines_as_servers_send_them(line, status):
    found = response.parse(answer(PAGE, "text/html", status=line))
    assert (found and found.status) == status
    if found is not None:
        assert (found.media, found.body) == ("text/html", PAGE)


@pytest.mark.parametrize("media", [None, "text/html", "application/http", "message/http", "application/octet-stream"])
def test_a_response_is_http_when_it_begins_so_whatever_its_record_says(media):
    row = one(answer(PAGE, "text/html"), media=media)
    assert (row["text"], row["drop"], row["error"]) == (PAGE.decode(), None, None)


@pytest.mark.parametrize(
    ("block", "media", "text", "drop"),
    [
        (PAGE, None, PAGE.decode(), None),
        (PAGE, "text/html", PAGE.decode(), None),
        (PAGE, "application/http", PAGE.decode(), None),
        (PROSE, "text/plain", PROSE.decode(), None),
        (b"site.test. 60 IN A 10.0.0.1\n", "text/dns", "", "not_text"),
        (b"\x89PNG\r\n\x1a\n", None, "", "not_text"),
    ],
)
def test_a_response_without_a_head_is_what_its_record_says(block, media, text, drop):
    row = one(block, media=media)
    assert (row["text"], row["drop"], row["error"]) == (text, drop, None)


def test_a_head_that_no_body_follows_is_an_empty_page():
    assert one(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n")["drop"] == "empty"


def test_continued_header_lines_are_joined():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html;\r\n\tcharset=iso-8859-2\r\n\r\n"
    assert one(head + "łąka".encode("iso-8859-2"))["text"] == "łąka"


@pytest.mark.parametrize(("media", "text", "drop"), [("text/html", PAGE.decode(), None), ("image/png", "", "not_text")])
def test_a_conversion_is_what_its_type_says(media, text, drop):
    data = record(0, PAGE, "conversion", media=media)
    row = scan(WarcSource(paths=""), memory(gz([data]))).to_pylist()[0]
    assert (row["text"], row["drop"]) == (text, drop)
    assert drop or row["media"] == media


@pytest.mark.parametrize("part", [b"<!--a-->", b"<?a?>", b"<!doctype a>", b" <!----> "])
def test_xml_without_an_element_is_told_in_one_pass(part):
    # With a second way for each part, these would be 2^1000 ways.
    assert media_of("application/xml", part * 1000 + b"5") is None
    assert media_of("application/xml", part * 500 + b"<html>") == XHTML


def test_headers_of_blanks_are_read_in_one_pass():
    # 250,000 blanks before a continued line: looked at from each of them they take minutes.
    block = b"HTTP/1.1 200 OK\r\nX: " + b" " * 250_000 + b"x \r\n  y\r\nContent-Type: text/html;  \r\n\t charset=utf-8\r\n\r\n"
    found = response.parse(block + b"<p>z")
    assert (found.media, found.body) == ("text/html; charset=utf-8", b"<p>z")
