"""HTTP bodies and charsets: what is undone, what is decoded, what is quarantined."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.charset.decoding import decode
from pipeline.finding import Finding, Limit
from stages.source.warc import WarcSource
from tests.gristmill.archives.archives import gz, memory, record, scan
from tests.random_examples import examples

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
BODY = "<p>grüße</p>".encode() * 20
CHUNKS = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:17], BODY[17:90], BODY[90:])) + b"0\r\n\r\n"


def one(response, **options):
    rows = scan(WarcSource(paths="", **options), memory(gz([record(0, response)]))).to_pylist()
    assert len(rows) == 1
    return rows[0]


def test_a_body_that_unpacks_beyond_the_limit_is_too_long():
    bomb = gzip.compress(b"\0" * 5_000_000)
    row = one(HEAD + b"Content-Encoding: gzip\r\n\r\n" + bomb, max_record_bytes=100_000)
    assert (row["drop"], row["text"]) == ("too_long", "")


@pytest.mark.parametrize("head", [b"", b"no head", b"Content-Type: text/html\r\n\r\nx", b"HTTP/1.1 abc\r\n\r\nx", b"\0" * 90])
def test_malformed_heads_are_quarantined(head):
    row = one(head)
    assert row["error"].startswith("malformed_http: ")
    assert row["text"] == ""


def test_heads_with_bare_line_feeds_and_lines_without_colon_are_read():
    assert one(b"HTTP/1.1 200 OK\nContent-Type: text/html\nnonsense\n\n<p>x</p>")["text"] == "<p>x</p>"


@pytest.mark.parametrize(
    ("body", "declared", "expected"),
    [
        ("naïve".encode(), None, "naïve"),
        ("naïve".encode("latin-1"), "ISO-8859-1", "naïve"),
        ("“quoted”".encode("cp1252"), "latin1", "“quoted”"),
        ("Привет".encode("koi8-r"), "koi8-r", "Привет"),
        ("日本語".encode("shift_jis"), "Shift_JIS", "日本語"),
        ("①㈱".encode("cp932"), "sjis", "①㈱"),
        ("똠".encode("cp949"), "euc-kr", "똠"),
        ("𠮷".encode("gb18030"), "gb2312", "𠮷"),
        (b"\xef\xbb\xbf" + "naïve".encode(), "latin1", "naïve"),
        (b"\xff\xfe" + "naïve".encode("utf-16-le"), None, "naïve"),
        (b"\xfe\xff" + "naïve".encode("utf-16-be"), "utf-8", "naïve"),
        ('<meta charset="iso-8859-2">ł'.encode("iso-8859-2"), None, '<meta charset="iso-8859-2">ł'),
        (
            "<META http-equiv=Content-Type content='text/html; charset=windows-1251'>Да".encode("cp1251"),
            None,
            "<META http-equiv=Content-Type content='text/html; charset=windows-1251'>Да",
        ),
        (
            '<?xml version="1.0" encoding="iso-8859-1"?><p>é'.encode("latin-1"),
            None,
            '<?xml version="1.0" encoding="iso-8859-1"?><p>é',
        ),
        ("<meta charset=utf-16>é".encode(), None, "<meta charset=utf-16>é"),
        ("naïve".encode(), "no-such-charset", "naïve"),
        (b"+AGE-", "utf-7", "+AGE-"),
        ("caf\xe9 <meta charset=utf-8>".encode("latin-1"), "latin1", "caf\xe9 <meta charset=utf-8>"),
    ],
)
def test_what_a_page_says_of_its_charset_is_believed_before_what_it_looks_like(body, declared, expected):
    assert decode(body, declared, markup=True).text == expected


def test_detection_decides_when_nothing_is_declared():
    russian = "Это обычный русский текст, в котором достаточно слов для угадывания кодировки. " * 5
    assert decode(russian.encode("cp1251"), None, markup=True).text == russian


def test_plain_text_is_not_asked_for_meta_elements():
    body = "<meta charset=gbk> é".encode()
    assert decode(body, None, markup=False).text == body.decode()
    assert decode(body, None, markup=True).text != body.decode()


def test_bytes_that_no_charset_decodes_are_dropped():
    row = one(HEAD + b"\r\n\x81\x8d\x8f\x90 \xff\xfe\xfd")
    assert (row["drop"], row["error"], row["text"]) == ("undecodable", None, "")


def test_the_share_of_what_cannot_be_read_is_a_parameter_of_the_source():
    body = HEAD + b"\r\n" + "<p>grüße</p>".encode() * 2 + b" \xff \xff"
    assert one(body)["drop"] == "undecodable"
    assert one(body, max_replaced=0.1)["text"] == "<p>grüße</p><p>grüße</p> \ufffd \ufffd"
    with pytest.raises(ValueError, match="max_replaced is -1; allowed are shares"):
        WarcSource(paths="", max_replaced=-1)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("kind", [b"text/html", b"text/html; charset=utf-8", b"text/plain", b""])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("words", ["Grüße", "Привет, мир", "こんにちは世界", "שלום עולם"])
def test_pages_of_utf16_and_utf32_are_no_binary_files(codec, kind, mark, words):
    text = f"<html><head><title>x</title></head>\n<body><p>{words}</p></body></html>"
    head = b"HTTP/1.1 200 OK\r\n" + (b"Content-Type: " + kind + b"\r\n" if kind else b"") + b"\r\n"
    row = one(head + (mark + text).encode(codec))
    assert (row["text"], row["drop"], row["error"]) == (text, None, None)


@given(st.binary(max_size=200), st.none() | st.sampled_from(["utf-8", "latin1", "utf-16", "gbk", "\xff", ""]), st.booleans())
@examples(300)
def test_any_bytes_give_encodable_text_or_none(body, declared, markup):
    text = decode(body, declared, markup).text
    assert text is None or text.encode() is not None


LIMIT = Limit("max_record_bytes", 300)
READABLE = Finding("unreadable_chars", 0, (Limit("max_replaced", "0.05"),))


@pytest.mark.parametrize(
    ("response", "found"),
    [
        (HEAD + b"\r\n<p>x</p>", [Finding("bytes", len(HEAD) + 10, (LIMIT,)), READABLE]),
        (
            b"HTTP/1.1 404 Not Found\r\n\r\nx",
            [Finding("http_status", 404, decisive=True), Finding("bytes", 27, (LIMIT,))],
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n\x1a\n",
            [Finding("content_type", "image/png", decisive=True), Finding("bytes", 52, (LIMIT,))],
        ),
        (
            HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"x" * 4000),
            [Finding("bytes", "301 or more", (Limit("max_record_bytes", 300, "above", True),), True)],
        ),
        (
            HEAD + b"\r\n" + "<p>grüße</p>".encode() * 2 + b" \xff \xff",
            [
                Finding("bytes", len(HEAD) + 34, (LIMIT,)),
                Finding("unreadable_chars", 2, (Limit("max_replaced", "0.05 of 28 characters", "above", True),), True),
            ],
        ),
    ],
    ids=["kept", "http_status", "not_text", "too_long", "undecodable"],
)
def test_a_decision_is_explained_by_the_numbers_that_made_it(response, found):
    file = memory(gz([record(0, response)]))
    source = WarcSource(paths="", max_record_bytes=300)
    (row,) = scan(source, file).to_pylist()
    assert source.explain_record(file, row["offset"], row["length"]) == found
    assert (row["drop"] is None) == (not any(each.decisive for each in found))
