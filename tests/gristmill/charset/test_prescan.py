"""What a page declares of its encoding, and what only looks as if it did (WHATWG HTML, "prescan a byte stream")."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.charset.encodings import EAST_ASIAN
from gristmill.charset.prescan import PRESCAN, late, may_declare, prescan
from tests.random_examples import examples


@pytest.mark.parametrize(
    ("head", "name"),
    [
        # the two ways to declare, however they are written
        ("<meta charset=koi8-r>", "koi8-r"),
        ("<META CHARSET = ' KOI8-R ' >", "koi8-r"),
        ("<meta/charset='koi8-r'/>", "koi8-r"),
        ("<meta\ncharset\n=\nkoi8-r\n>", "koi8-r"),
        ("<meta name=x charset=koi8-r charset=big5>", "koi8-r"),
        ("<meta http-equiv=content-type content='text/html; charset=koi8-r'>", "koi8-r"),
        ("<meta content='text/html;charset = \"koi8-r\"; x' http-equiv=Content-TYPE>", "koi8-r"),
        ("<meta http-equiv=content-type content='charset charset=koi8-r'>", "koi8-r"),
        ("<meta http-equiv=content-type content='charset=koi8-r' charset=big5>", "big5"),
        # the first that names a known encoding
        ("<meta charset=klingon><meta charset=koi8-r>", "koi8-r"),
        ("<meta charset=big5><meta charset=koi8-r>", "big5"),
        # what is no declaration
        ("<!-- <meta charset=big5> --><meta charset=koi8-r>", "koi8-r"),
        ("<!--><meta charset=koi8-r>", "koi8-r"),
        ("<!-- -- ><meta charset=big5>", None),
        ("<meta name=description content='write charset=big5'><meta charset=koi8-r>", "koi8-r"),
        ("<meta http-equiv=refresh content='0; charset=big5'>", None),
        ("<meta data-charset=big5>", None),
        ("<meta name='charset=big5'>", None),
        ("<p title='<meta charset=big5>'><meta charset=koi8-r>", "koi8-r"),
        ("<a href=x>charset=big5</a>", None),
        ("<metacharset=big5>", None),
        ("<? charset=big5 ?><! charset=big5></ charset=big5>", None),
        ("<meta http-equiv=content-type content='charset=\"big5'>", None),
        ("<meta http-equiv=content-type content='charset'>", None),
        ("<meta charset=big5", None),
        ("<meta charset='big5>", None),
        ("<meta charset=>", None),
        ("<", None),
        ("", None),
        # what was read as ASCII is neither UTF-16 nor private use
        ("<meta charset=utf-16le>", "utf-8"),
        ("<meta charset=x-user-defined>", "windows-1252"),
        # XML
        ("<?xml version='1.0' encoding='koi8-r'?><html>", "koi8-r"),
        ('<?xml version="1.0" encoding = "utf-16"?>', "utf-8"),
        ("<?xml encoding='koi8-r'?><meta charset=big5>", "big5"),
        ("<?xml encoding='koi8-r'", None),
        ("<?xml encoding='koi8 r'?>", None),
        ("text <?xml encoding='koi8-r'?>", None),
    ],
)
def test_declarations(head, name):
    assert prescan(head.encode()) == name
    if "<?xml" not in head:
        assert prescan(b"<!doctype html>\n<html lang='x'>\n<head>" + head.encode()) == name


def test_only_the_first_bytes_are_scanned_and_only_elements_found_behind_them():
    meta = b"<meta charset=koi8-r>"
    assert prescan(b" " * (PRESCAN - len(meta)) + meta) == "koi8-r"
    assert prescan(b" " * (PRESCAN - len(meta) + 1) + meta) is None
    assert late(b" " * PRESCAN + meta) == "koi8-r"
    assert late(b"<!--" + b" " * PRESCAN + b"-->" + meta) == "koi8-r"
    for wrapped in (b"<!--%b-->", b"<script>'%b'</script>", b"<textarea>%b</textarea>"):
        assert late(b"<p>" + b" " * PRESCAN + wrapped % meta) is None


WORDS = ("<meta ", "<meta", "charset", "charset=", "content=", "http-equiv=", "content-type", "gbk", "big5", "<!--", "-->")
MORE = ("utf-8", "<?xml ", "encoding='gbk'", "http-equiv=content-type ", "'text/html;charset=gbk'")
PARTS = st.sampled_from([*"<>/=\"'!-? \n;x", *WORDS, *MORE])


@given(st.lists(PARTS, max_size=30).map(lambda parts: "".join(parts).encode()))
@examples(200)
def test_the_quick_look_misses_no_declaration(head):
    found = prescan(head)
    assert found not in EAST_ASIAN or may_declare(head, EAST_ASIAN)


def test_hostile_heads_take_no_time():
    for part in (
        b"<meta ",
        b"<meta charset",
        b"charset",
        b"<!--",
        b"<a ",
        b"<a b='",
        b"=",
        b"<?xml encoding",
        b"\0",
        b"<meta content='charset",
    ):
        assert prescan(part * 400) is None
