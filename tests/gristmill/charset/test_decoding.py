"""Bodies to text: what is believed of what servers, pages and bytes say, bad bytes, cut ends, and what is no text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.charset.decoding import decode
from tests.random_examples import examples

SAMPLES = {
    "ja": "昔々あるところに、おじいさんとおばあさんが住んでいました。川へ洗濯に行くと、大きな桃が流れてきました。",
    "zh": "从前有座山，山上有座庙，庙里有个老和尚在讲故事。小和尚每天早晨都要下山去打水，然后回来扫地。",
    "tw": "從前有一座山，山上有一座廟，廟裡有一個老和尚在講故事。小和尚每天早晨都要下山去打水，然後回來掃地。",
    "ko": "옛날 옛적에 깊은 산속에 나무꾼이 살고 있었습니다. 어느 날 나무꾼은 사슴을 만나 숨겨 주었습니다.",
    "ru": "Жили-были старик со старухой у самого синего моря. Старик ловил неводом рыбу, старуха пряла свою пряжу. Я знаю это.",
    "el": "Μια φορά κι έναν καιρό ήταν ένας γέρος ψαράς που ζούσε κοντά στη θάλασσα με τη γυναίκα του.",
    "he": "היו היה פעם דייג זקן שחי עם אשתו על שפת הים הכחול. הדייג היה יוצא כל יום לדוג דגים במצודה שלו.",
    "ar": "كان يا ما كان في قديم الزمان صياد عجوز يعيش مع زوجته قرب البحر الأزرق ويخرج كل يوم للصيد.",
    "th": "กาลครั้งหนึ่งนานมาแล้ว มีชายชราคนหนึ่งอาศัยอยู่กับภรรยาริมทะเล เขาออกไปจับปลาทุกวัน",
    "fr": "Il était une fois un vieux pêcheur qui vivait près de la mer où dérivaient ça et là des épaves.",
    "de": "Es war einmal ein alter Fischer, der lebte mit seiner Frau in einer ärmlichen Hütte dicht über der See, früh müßte er",
    "pl": "Dawno, dawno temu żył sobie stary rybak ze swoją żoną. Każdego dnia wypływał łódką na połów, lecz nic nie złowił.",
    "tr": "Bir zamanlar denizin kıyısında yaşlı bir balıkçı ile karısı yaşarmış. Her gün ağını alıp balığa çıkar.",
}
ENGLISH = "The old man lived with his wife at the shore of the sea, and every day he went out to catch fish. " * 3
CODECS = {"ja": ("shift_jis", "euc-jp", "iso-2022-jp"), "zh": ("gbk", "gb18030"), "tw": ("big5",), "ko": ("euc-kr",)} | {
    "ru": ("windows-1251", "koi8-r", "iso-8859-5", "ibm866", "x-mac-cyrillic"),
    "el": ("windows-1253", "iso-8859-7"),
    "he": ("windows-1255",),
    "ar": ("windows-1256",),
    "th": ("windows-874",),
    "fr": ("windows-1252",),
    "de": ("windows-1252",),
    "pl": ("windows-1250", "iso-8859-2"),
    "tr": ("windows-1254",),
}
PYTHON = {"ibm866": "cp866", "x-mac-cyrillic": "mac-cyrillic", "windows-874": "cp874", "shift_jis": "cp932", "euc-kr": "cp949"}
EACH = [(language, label) for language, labels in CODECS.items() for label in labels]


def coded(language: str, label: str, times: int = 3) -> tuple[bytes, str]:
    text = SAMPLES[language].replace("…", "...") * times
    return text.encode(PYTHON.get(label, label)), text


def text_of(body: bytes, declared: str | None = None, markup: bool = True, **options) -> str | None:
    return decode(body, declared, markup, **options).text


@pytest.mark.parametrize(("language", "label"), EACH)
def test_what_is_declared_is_believed_wherever_it_is_declared(language, label):
    body, text = coded(language, label)
    assert text_of(body, label.upper()) == text
    meta = f"<meta charset={label}>"
    assert text_of(meta.encode() + body) == meta + text
    xml = f'<?xml version="1.0" encoding="{label}"?>'
    assert text_of(xml.encode() + body) == xml + text
    late = "<p>" + " " * 2000 + meta
    assert text_of(late.encode() + body) == late + text
    assert text_of(meta.encode() + body, markup=False) == meta + text  # by what it looks like


@pytest.mark.parametrize(("language", "label"), EACH)
def test_what_nobody_declares_is_read_by_what_it_looks_like(language, label):
    body, text = coded(language, label)
    assert text_of(body) == text
    assert text_of(b"<html><body><p>" + body + b"</body>") == f"<html><body><p>{text}</body>"


def test_an_element_met_in_parsing_corrects_what_only_looked_like_one():
    page = "<script>let x = '<meta charset=big5>'</script><meta charset={}>" + SAMPLES["fr"]
    for label in ("utf-8", "windows-1252"):
        assert text_of(page.format(label).encode(label)) == page.format(label)
    page = "<textarea><meta charset=koi8-r></textarea>" + SAMPLES["ru"]
    assert text_of(page.encode("koi8-r")) == page


@pytest.mark.parametrize("language", SAMPLES)
@pytest.mark.parametrize("label", ["iso-8859-1", "windows-1251", "koi8-r", "iso-8859-15", "us-ascii", "x-user-defined"])
def test_utf8_wins_over_labels_of_one_byte_a_character(language, label):
    text = SAMPLES[language]
    assert text_of(text.encode(), label) == text
    meta = f"<meta charset={label}>"
    assert text_of((meta + text).encode()) == meta + text
    broken = text.encode() + b" \xff " + text.encode()
    assert text_of(broken, label) == f"{text} \ufffd {text}"
    assert text_of(text.encode()[:-1] if language != "de" else text.encode(), label)[:20] == text[:20]


@pytest.mark.parametrize(("text", "label"), [("联通", "gbk"), ("ﾎﾊ", "shift_jis"), ("茅", "gbk"), ("횂", "euc-kr")])
def test_east_asian_labels_win_where_they_read_every_byte(text, label):
    body = text.encode(PYTHON.get(label, label))
    assert text_of(body, label) == text
    meta = f"<meta charset={label}>"
    assert text_of(meta.encode() + body) == meta + text
    assert text_of(meta.encode() + body, "iso-8859-1") in (meta + text, meta + body.decode("cp1252"))


@pytest.mark.parametrize("label", ["gbk", "big5", "euc-jp", "shift_jis", "euc-kr", "iso-2022-jp"])
def test_utf8_wins_over_east_asian_labels_that_cannot_read_it(label):
    text = f"{SAMPLES['fr']} {SAMPLES['ru']} {SAMPLES['th']}"
    assert text_of(text.encode(), label) == text


@pytest.mark.parametrize("language", [name for name in SAMPLES if name != "de"])
@pytest.mark.parametrize("bad", [b"\xff", b"\xe9", b"\x80", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x98"])
@pytest.mark.parametrize("declared", ["utf-8", None])
def test_a_bad_byte_in_utf8_is_a_replacement_character(language, bad, declared):
    text = SAMPLES[language]
    body = text.encode() + b" " + bad + b" " + text.encode()
    found = text_of(body, declared)
    assert found == f"{text} {bad.decode(errors='replace')} {text}"


def test_one_bad_byte_in_english():
    body = ENGLISH.encode() + b" \xff " + ENGLISH.encode()
    for declared in ("utf-8", None):
        assert text_of(body, declared) == f"{ENGLISH} \ufffd {ENGLISH}"
    assert text_of(ENGLISH.encode() + b"\xff " + "café".encode(), "utf-8") == f"{ENGLISH}\ufffd café"


@pytest.mark.parametrize(
    ("language", "label"),
    [pair for pair in EACH if pair[0] in CODECS and pair[1] in ("shift_jis", "euc-jp", "gbk", "big5", "euc-kr")],
)
def test_a_bad_byte_in_east_asian_encodings(language, label):
    body, text = coded(language, label)
    found = decode(body + b" \xff " + body, label, True)
    assert (found.text, found.encoding) == (f"{text} \ufffd {text}", label)


@pytest.mark.parametrize(
    ("label", "byte", "character"),
    [
        ("windows-1252", b"\x9d", "\x9d"),
        ("windows-1251", b"\x98", "\x98"),
        ("windows-1250", b"\x83", "\x83"),
        ("windows-1253", b"\x81", "\x81"),
        ("windows-1254", b"\x8d", "\x8d"),
        ("windows-1255", b"\xd9", "\ufffd"),
        ("windows-1257", b"\x88", "\x88"),
        ("windows-1258", b"\x9a", "\x9a"),
        ("windows-874", b"\x81", "\x81"),
        ("gbk", b"\x80", "€"),
        ("shift_jis", b"\x80", "\x80"),
        ("euc-jp", b"\xad\xa1", "①"),
        ("euc-jp", b"\x8f\xa2\xaf", "˘"),
        ("shift_jis", b"\x87\x40", "①"),
        ("iso-2022-jp", b"\x1b(I1\x1b(B", "ｱ"),
        ("iso-2022-jp", b"\x1b(J\\\x1b(B", "¥"),
        ("big5", b"\x88\x62", "Ê̄"),
        ("big5", b"\x87\x40", "䏰"),
        ("euc-kr", b"\x81\x41", "갂"),
        ("koi8-u", b"\xae", "ў"),
    ],
)
def test_bytes_that_only_the_webs_encodings_have(label, byte, character):
    body = ENGLISH.encode() + byte + b" " + ENGLISH.encode()
    assert text_of(body, label) == f"{ENGLISH}{character} {ENGLISH}"


@pytest.mark.parametrize(("language", "label"), EACH)
def test_a_label_that_cannot_be_true_is_not_believed(language, label):
    body, text = coded(language, label)
    if label != "iso-2022-jp":
        assert text_of(body, "utf-8") == text
        assert text_of(f"<meta charset={label}>".encode() + body, "utf-8") == f"<meta charset={label}>{text}"
    assert text_of(body, "no-such-charset") == text


@pytest.mark.parametrize("text", ["“Quotes” – and dashes—that’s all… £5", "it’s, don’t, won’t", "© 2004 · 20 °C"])
def test_typography_of_windows_1252_is_read_though_nothing_else_speaks_for_it(text):
    body = (ENGLISH + text).encode("cp1252")
    assert text_of(body) == ENGLISH + text
    if text.count("’") > 1:
        assert text_of(body, "utf-8") == ENGLISH + text


@pytest.mark.parametrize(("language", "label"), [*EACH, ("fr", "utf-8"), ("ja", "utf-8")])
@pytest.mark.parametrize("declare", [True, False])
def test_a_cut_end_is_no_harm(language, label, declare):
    body, text = coded(language, label, 6)
    for cut in range(1, 5):
        found = text_of(body[:-cut], label if declare else None, truncated=True)
        assert found is not None and len(found) >= len(text) - cut and text.startswith(found)


def test_a_cut_end_that_nobody_knows_of():
    text = SAMPLES["ja"] * 3
    assert text_of(text.encode()[:-1]) == text[:-1] + "\ufffd"
    assert text_of(text.encode()[:-1], "iso-8859-1") == text[:-1] + "\ufffd"
    assert text_of(ENGLISH.encode() + b"caf\xe9", "iso-8859-1") == ENGLISH + "café"


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("language", [*SAMPLES, "en"])
@pytest.mark.parametrize("declared", [None, "utf-8", "utf-16", "iso-8859-1"])
def test_utf16_and_utf32_with_and_without_a_mark(codec, language, declared):
    text = f"<html><head><title>x</title></head>\n<body><p>{SAMPLES.get(language, ENGLISH)}</p>\n</body></html>\n"
    body = text.encode(codec)
    assert text_of(body, declared) == text
    assert text_of("\ufeff".encode(codec) + body, declared) == text
    assert text_of(body[:-1], declared, truncated=True) == text[:-1]
    lines = (SAMPLES.get(language, ENGLISH) + "\n") * 2
    assert text_of(lines.encode(codec), declared, markup=False) == lines
    assert "\0" not in text_of((SAMPLES.get(language, ENGLISH) + "\n").encode(codec), declared, markup=False)


@pytest.mark.parametrize("body", [b"plain", "naïve".encode(), b"<meta charset=utf-16><p>plain</p>"])
@pytest.mark.parametrize("label", ["utf-16", "utf-16be", "unicode", "iso-2022-cn", "replacement", "hz-gb-2312", "iso-2022-kr"])
def test_labels_that_plain_bytes_belie(body, label):
    assert text_of(body, label) == body.decode()


def test_iso_2022_by_its_escapes():
    text = SAMPLES["ja"]
    for codec in ("iso2022_jp", "iso2022_jp_1"):
        assert text_of(f"<p>{text}</p>".encode(codec), "utf-8") == f"<p>{text}</p>"
    assert text_of(SAMPLES["ko"].encode("iso2022_kr")) == SAMPLES["ko"]
    assert text_of(SAMPLES["zh"].encode("hz"), "hz-gb-2312") == SAMPLES["zh"]
    assert text_of(b"~{ is no escape ~} where nobody says so") == "~{ is no escape ~} where nobody says so"
    assert decode(b"\x1b$)A\x0e!!\x0f", None, True).drop == "undecodable"
    for escape in ("\x1b$B", "\x1b(J \x1b$B", "\x1b$)A", "\x1b$)C"):  # of a terminal's manual
        assert text_of((ENGLISH + escape + ENGLISH).encode()) == ENGLISH + escape + ENGLISH
    assert text_of(b"\x1b[31mred\x1b[0m and a few more words of a log that has colours", "utf-8").endswith("colours")


def test_a_byte_order_mark_wins_over_everything_and_is_no_text():
    assert text_of(b"\xef\xbb\xbf<meta charset=gbk>" + "naïve".encode(), "latin1") == "<meta charset=gbk>naïve"
    assert text_of(b"\xff\xfe" + "naïve".encode("utf-16-le"), "utf-8") == "naïve"
    assert text_of(b"\xfe\xff" + "naïve".encode("utf-16-be"), "utf-8") == "naïve"
    assert text_of(b"\xef\xbb\xbf") == ""


@pytest.mark.parametrize("declared", ["utf-8", None, "no-such-charset"])
@pytest.mark.parametrize(
    "garbage",
    [
        bytes(range(128, 256)) * 4,
        b"\xff" * 300,
        b"\x80" * 300,
        b"word \xff\xfe " * 60,
        bytes(at * at * 31 % 251 for at in range(5000)),
        b"\x81\x8d\x8f\x90 \xff\xfe\xfd",
        b"\xff",
    ],
    ids=["all high bytes", "one byte", "one sign", "two bytes", "binary", "few", "single"],
)
def test_what_is_no_text_has_a_reason(garbage, declared):
    found = decode(garbage, declared, True)
    assert (found.text, found.drop) == (None, "undecodable")


def test_the_bound_is_a_share_of_characters():
    body = ("é" * 60).encode() + b"\xff" * 6 + b" " * 34
    assert decode(body, "utf-8", True, max_replaced=0.06).text == "é" * 60 + "\ufffd" * 6 + " " * 34
    assert decode(body, "utf-8", True, max_replaced=0.05).drop == "undecodable"
    assert decode(body, "utf-8", True).drop == "undecodable"
    assert decode(("é" * 60 + "\ufffd" * 6).encode(), "utf-8", True).drop == "undecodable"  # what another lost before
    assert decode(body.replace(b"\xff" * 5, b"eeeee"), "utf-8", True, max_replaced=0).drop is None


@pytest.mark.parametrize(("language", "label"), [pair for pair in EACH if pair[1] != "iso-2022-jp"])
def test_a_bad_byte_does_not_rule_an_encoding_out_that_nobody_declares(language, label):
    body, text = coded(language, label, 5)
    found = text_of(b"<p>" + body + b" \xff </p><p>" + body + b"</p>")
    assert found is not None and found.startswith(f"<p>{text} ") and found.endswith(f" </p><p>{text}</p>")


@pytest.mark.parametrize(("language", "label"), [pair for pair in EACH if pair[1] != "iso-2022-jp"])
def test_what_it_looks_like_is_seen_far_inside_a_long_page(language, label):
    body, text = coded(language, label)
    head, sign = "<p>" + ENGLISH * 500, b"\xa9" if label.startswith("windows-125") else b""
    found = text_of(sign + head.encode() + (body + b"\n") * 300)
    assert found is not None and found[len(sign) :] == head + (text + "\n") * 300


def test_a_stray_nul_makes_no_utf16():
    for language, label in EACH:
        body, text = coded(language, label)
        if label != "iso-2022-jp":
            assert text_of(b"<html><p>" + body[: len(body) // 4 * 4] + b"\0</html>", label).startswith("<html><p>" + text[:9])


def test_nul_bytes_that_pad_a_page_are_no_harm():
    assert text_of(ENGLISH.encode() + bytes(1000), "utf-8").strip("\0") == ENGLISH
    for garbage in (bytes(1000), bytes(1000) + b"\xff", b"a\0\0b" * 100):
        assert decode(garbage, "utf-8", True).drop == "undecodable"


def test_the_domain_is_a_hint_where_little_is_known():
    body = "Цена 5".encode("cp1251")
    assert decode(body, None, True, url="http://shop.example.ru/a").encoding == "windows-1251"
    for url in ("", "no url", "http://[::1]/", "http://1.2.3.4:80/", "HTTP://EXAMPLE.RU", "http://ü.рф/", None):
        assert decode(body, None, True, url=url).encoding is not None


@given(
    st.binary(max_size=120) | st.text(max_size=60).map(str.encode) | st.text(max_size=40).map(lambda text: text.encode("utf-16")),
    st.none() | st.sampled_from(["utf-8", "latin1", "utf-16", "gbk", "iso-2022-jp", "replacement", "\xff", "", "hz-gb-2312"]),
    st.booleans(),
    st.booleans(),
)
@examples(400)
def test_any_bytes_give_a_text_that_can_be_written_or_a_reason(body, declared, markup, truncated):
    found = decode(body, declared, markup, truncated=truncated)
    assert (found.text is None) == (found.drop == "undecodable")
    assert found.text is None or found.text.encode() is not None


@given(
    st.text(max_size=80).filter(lambda text: not any(mark in text for mark in ("\ufeff", "\ufffd", "\0", "\x1b", "~{"))),
    st.booleans(),
)
@examples(300)
def test_utf8_is_what_it_says(text, markup):
    for declared in ("utf-8", None, "iso-8859-1"):
        assert decode(text.encode(), declared, markup=False).text == text
