"""The compiled cutter against the pre-tokenizers of `tokenizers`, which it must equal on any text."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from gristmill.tokenizer.cutting.classes import CODE_POINTS, members, numerics
from gristmill.tokenizer.cutting.cutter import cut, cut_into, make_cutter
from gristmill.tokenizer.cutting.regex import UnsupportedPattern
from gristmill.tokenizer.patterns import PATTERNS, Pattern
from tests.random_examples import examples

THOUSANDS = r"(?=(\d{3})+(?!\d))"
CUTS = {
    **{name: (pattern,) for name, pattern in PATTERNS.items()},
    "possessive": (Pattern(r"[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s*+x|\s*[\r\n]|\s+(?!\S)|\s"),),
    "possessive and stuck": (Pattern(r"a*+[ab]c|\s?+ \d|\p{L}++b|x++.|1?+\d"),),
    "lazy": (Pattern(r"\p{L}+?\p{N}|\p{L}{2,4}?|\s*?\n|a??b"),),
    "intervals": (Pattern(r"\p{L}{,2}\d|\s{2}|\d{3,}|[^\s\p{L}\d]{2}?x|a{2}?"),),
    "no case": (Pattern(r"(?i:'s|k|[a-c]+(?-i:x)|é)|(?i:[^\W_])(?=\d)"),),
    "no case at all": (Pattern(r"(?i)don|\x{e4}+|q"),),
    "ahead": (Pattern(r"\p{L}(?=\s|\d)|\s(?!\p{Lu})|(?=\p{P})[!-/]+|(?!x)\w\w"),),
    "classes": (Pattern(r"[a-z&&[^aeiou]]+|[^[^\s\d]]|[[:upper:]\]\[\-]+|\p{Han}+|\P{^Greek}\p{Greek}|[\x{300}-\x{36f}]"),),
    "escapes": (Pattern(r"\x{4e2d}|\u00e9|\x41|\t\.\*|\/\'|a{x|}|]"),),
    "empty matches": (Pattern(r"a*|\d+"),),
    "empty before others": (Pattern(r"(?=\d)|\d+|\s*"),),
    "empty at the end": (Pattern(r"\p{L}+|(?!\S)"),),
    "steps back": (Pattern(r"a+b+c|ab|\s+\d{2}|((?:ab?)+c){2}"),),
    "thousands first": (Pattern(THOUSANDS + r"|\p{N}+|\p{L}+"),),
    "thousands last": (Pattern(r"\p{L}+| ?\d|" + THOUSANDS),),
    "thousands inside": (Pattern(rf"a{THOUSANDS}\d|(?=(?:\d{{3}})+(?!\d))"),),
    "nothing": (Pattern("a|"),),
    "three in a row": (
        Pattern(r"\p{N}{1,3}"),
        Pattern("[一-龥぀-ゟ゠-ヿ]+"),
        Pattern(r"[!-/]\p{L}+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|\s+(?!\S)|\s+"),
    ),
    "digits and then": (Pattern(r"\s", digits=True), Pattern(r"\p{Lu}?\p{Ll}+")),
    "each digit, then words": (Pattern(PATTERNS["gpt2"].regex, digits="each"),),
    "each digit at last": (
        Pattern("[\r\n]"),
        Pattern(r"\s?\p{L}+"),
        Pattern(r"\s?\p{P}+"),
        Pattern("[一-龥ࠀ-一가-퟿]+"),
        Pattern("", digits="each"),
    ),
    "each digit, and what looks at digits": (Pattern(r"\d+|\p{L}+(?=\d)|\p{L}(?!\p{N})|\s*\n", digits="each"),),
    "digits alone": (Pattern("", digits=True),),
    "digits, then each": (Pattern(r"\p{L}+", digits=True), Pattern(r"\s+|", digits="each")),
    "digits twice": (Pattern(r"\p{L}+\s*", digits=True), Pattern(THOUSANDS, digits=True)),
}

ADVERSARIAL = [
    "",
    " ",
    "a",
    "\n",
    "\U0010ffff",
    "\x00\x7f\x80\u07ff\u0800\uffff\U00010000",
    "  two   spaces    before  words \t tab\t\ttabs \t\t mixed\n\n\nlines\r\n\r\nCRLF\r\r alone  \n  end  ",
    "a\u0085b\u2028c\u2029d\u00a0e\u3000f\u2003\u2003g\x0b\x0c\x1c\x1d\x1e\x1fh\u200b\u180e\ufeff",
    "don't DON'T Don'T I'll I'LL 's 'S 'ſ 'ſſ we'Re we're'd''ve 'M'm'K \u212a kelvin k K ſſ ßẞ 'st ﬆ",
    "1 12 123 1234 12345 1234567 12345678901 1,234,567.89 a123456b 0x1F 3e10 ١٢٣٤٥٦٧ 12٣٤٥ १२३४ 𝟏𝟐𝟑𝟒 １２３４",
    "x² ½ ⅓½ Ⅷ Ⅷ12 12Ⅷ345 ²²²²²² ١²3 ①②③④ ㊿ 〇一二三 ፩፪፫ 𐄇𐄈 12²345678",
    "e\u0301a\u0308\u0323 \u0301 alone\u0301\u0301\u0301 ก็ำ ที่สุด ภาษาไทย नमस्ते क्षत्रिय مَرْحَبًا שָׁלוֹם",
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇩🇪🇫🇷 ❤️ \u200d\u200d a\u200db 🐈🐈",
    "한국어 텍스트 조선말 \u1112\u1161\u11ab 日本語のテキスト、漢字カタカナ。 中文字符，标点！ 𠀀𠀁 𐐀𐐨 𝓐𝓫 ǅungla ªªAAªA ʰʰʰ",
    "camelCaseWORDSAndMore XMLHttpRequest aB Ab ABc aBC Àé ÉÈa ΑΒγ Ժ՝",
    '--- ... !!! ?! a,b ,a "q" (x) -- ( -( +-a //x// http://a.b/c?d=e&f=g#h\r\n/\n//\r\n ::: \\n £€$ «»',
    "if (x[i] != y) {\n\t\treturn f(x, y); // done\n\t}\n\n    pass\n",
    "aab ab c aabbc ababcabc  12 \n34 xxa abababab",
]


@pytest.fixture(scope="module")
def cutters():
    return {name: make_cutter(cuts) for name, cuts in CUTS.items()}


@functools.cache
def peer(cuts):
    steps = []
    for each in cuts:
        steps += [pre_tokenizers.Digits(individual_digits=each.digits == "each")] if each.digits else []
        steps += [pre_tokenizers.Split(Regex(each.regex), "isolated")] if each.regex else []
    return pre_tokenizers.Sequence(steps)


def expected(pre_tokenizer, text):
    """Return the ends in bytes; the library gives them in characters."""
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    behind = np.cumsum(1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000))
    return [int(behind[end - 1]) for _, (_, end) in pre_tokenizer.pre_tokenize_str(text)]


def check(cutter, pre_tokenizer, text):
    found = cut(cutter, text.encode()).tolist()
    if found != (wanted := expected(pre_tokenizer, text)):
        at = next(i for i, (a, b) in enumerate(itertools.zip_longest(found, wanted)) if a != b)
        raw = text.encode()
        around = raw[max(0, wanted[min(at, len(wanted) - 1)] - 60) :][:120].decode(errors="replace")
        pytest.fail(f"piece {at} ends at {found[at : at + 3]}, should at {wanted[at : at + 3]}, near {around!r}")


@pytest.mark.parametrize("name", CUTS)
def test_adversarial_texts(cutters, name):
    pre_tokenizer = peer(CUTS[name])
    for text in [*ADVERSARIAL, "\n".join(ADVERSARIAL), " ".join(ADVERSARIAL[::-1])]:
        check(cutters[name], pre_tokenizer, text)


@pytest.mark.parametrize("name", CUTS)
def test_real_pages(cutters, name, texts):
    pre_tokenizer = peer(CUTS[name])
    for text in texts["text"].to_pylist():
        check(cutters[name], pre_tokenizer, text[:4000])


# All characters of the planes where some are assigned, some of the others.
ASSIGNED = [*range(0xD800), *range(0xE000, 0x33500), *range(0xE0000, 0xE0200)]
ALL = "".join(map(chr, sorted({*ASSIGNED, *range(0x33500, CODE_POINTS, 97), CODE_POINTS - 1})))


@pytest.mark.parametrize("name", ["o200k", "superbpe_paper"])
def test_every_character(cutters, name):
    check(cutters[name], peer(CUTS[name]), ALL)


@pytest.mark.parametrize(("source", "ignore_case"), [(r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", False), ("s", True)])
def test_classes_have_the_members_that_a_split_finds(source, ignore_case):
    split = pre_tokenizers.Split(Regex(f"(?i:{source})+" if ignore_case else f"{source}+"), "removed")
    rest = "".join(piece for piece, _ in split.pre_tokenize_str(ALL))
    has = members(source, ignore_case)
    assert rest == "".join(letter for letter in ALL if not has[ord(letter)])


def test_digits_are_all_that_the_library_takes_for_one():
    has = numerics()
    pieces = pre_tokenizers.Digits(individual_digits=False).pre_tokenize_str(ALL)
    found = {ord(letter) for piece, _ in pieces[1::2] for letter in piece}  # it begins with what is none
    assert found == set(np.flatnonzero(has).tolist())
    assert not (members(r"\d") & ~has).any()  # a run of them never goes beyond a piece of `Digits`


def letters():
    """Characters around which classes change, and any others."""
    points = np.arange(CODE_POINTS)
    changes = np.zeros(CODE_POINTS, bool)
    for source in (r"\s", r"\p{L}", r"\p{N}", r"\d", r"\p{Lu}", r"\p{Ll}", r"\p{M}"):
        has = members(source)
        changes[1:] |= has[1:] != has[:-1]
    edges = [chr(point + by) for point in points[changes] for by in (-1, 0) if not 0xD800 <= point + by < 0xE000]
    near = st.sampled_from(list("aAbzßſ\u212a'sStTlLdD1239 \t\n\r/,.-(\"\u00a0\u0301²٣Ⅷ中ªʰ"))
    return st.one_of(near, near, near, st.sampled_from(edges), st.characters(exclude_categories=["Cs"]))


@examples(150)
@given(st.text(st.deferred(letters), max_size=60))
def test_random_texts(cutters, text):
    for name, cuts in CUTS.items():
        check(cutters[name], peer(cuts), text)


@pytest.mark.parametrize(
    "name",
    [
        "superbpe_paper",
        "superbpe_paper_stage2",
        "thousands first",
        "thousands last",
        "thousands inside",
        "digits twice",
        *(name for name in CUTS if "each" in name),
    ],
)
def test_all_short_texts_of_digits(cutters, name):
    pre_tokenizer = peer(CUTS[name])
    for size in range(1, 5):
        for text in itertools.product("1٣²a ", repeat=size):
            check(cutters[name], pre_tokenizer, "".join(text))
    for size in range(6, 13):
        for text in itertools.product("1a", repeat=2):
            check(cutters[name], pre_tokenizer, text[0] + "1٣" * (size // 2) + "1" * (size % 2) + text[1] + " 1234567")


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(
    "unit", ["a", "A", "ªA", " ", "\n", "\r\n", " \n", ".", ". ", "1", "1a", "é", "中", "\u0301", "'s", "👩‍", "²"]
)
def test_long_runs(cutters, name, unit):
    """A quadratic scan of these would take hours."""
    size = 300_000
    found = cut(cutters[name], (unit * size).encode())
    short = expected(peer(CUTS[name]), unit * 6)
    assert found[-1] == len(unit.encode()) * size
    assert len(found) in (len(short), len(short) + 1) or len(found) >= size / 4


@pytest.mark.parametrize("name", PATTERNS)
def test_runs_of_small_letters_of_any_length(cutters, name):
    for size in range(1, 70):  # sixteen at a step
        run = "abcdefghijklmnopqrstuvwxyz"[size % 7 :] * 4
        for behind in ("", " ", "A", "é", "'s", "1", "\n"):
            check(cutters[name], peer(CUTS[name]), f" {run[:size]}{behind}")


def test_a_document_ends_where_it_ends(cutters):
    """What lies before and behind it in the buffer does not matter, not even a character of which it cuts off a part."""
    for inside, before, behind in itertools.product(
        ["12 words  ", "a 1234"], ["", "1", " ", "a", "中"], ["", "1", " ", "a", "中"]
    ):
        buffer = np.frombuffer(bytearray((before + inside + behind).encode()), np.uint8)
        begin = len(before.encode())
        ends = np.full(len(inside), -1, np.int64)
        for name, cuts in CUTS.items():
            count = cut_into(cutters[name], buffer, begin, begin + len(inside), ends)
            assert (ends[:count] - begin).tolist() == expected(peer(cuts), inside), name


def test_without_patterns_a_text_is_one_piece():
    cutter = make_cutter(())
    assert cut(cutter, b"a b 12").tolist() == [6]
    assert cut(cutter, b"").tolist() == []


@pytest.mark.parametrize(
    ("regex", "construct"),
    [
        (r"^a", r"\^ at character 0"),
        (r"a$", r"\$ at character 1"),
        (r"(?<=a)b", r"\(\?<= at"),
        (r"(?>a+)b", r"\(\?>a at"),
        (r"(a)\1", r"\\1 at"),
        (r"\bword", r"\\b at"),
        (r"\p{L}+(?=ab)", r"\(\?=…\) over more than one"),
        (r"(?:a|b)++", "possessive repetition"),
        (r"(?:a?)*", "repetition of what can be empty"),
        (r"a**", "repetition of what can be empty"),
        (r"(?i:class)", "'ss' without case"),
        (r"(?i:s(?:x|S))", "'ss' without case"),
        (r"(?i:\p{L})", "without case, which holds"),
        (r"(?i:ß)", "without case, which holds 'ß'"),
        (r"[]a]", "] at the begin"),
        (r"(?:[ab]{200}|a){200}", "instructions"),
        (r"(?:a|b)*a(?:a|b){14}", "states"),
    ],
)
def test_what_tables_cannot_do_is_named(regex, construct):
    Regex(regex)  # a pattern of the library, all the same
    with pytest.raises(UnsupportedPattern, match=construct):
        make_cutter((Pattern(regex),))


def test_groups_of_thousands_among_digits_that_stand_alone_are_refused():
    with pytest.raises(UnsupportedPattern, match="groups of thousands"):
        make_cutter((Pattern(THOUSANDS, digits="each"),))
