"""Inputs on which encoders have been wrong, slow or dead, against the Hugging Face library."""

import base64

import numpy as np
import pytest

from tests.gristmill.tokenizer.slow import encode
from tests.gristmill.tokenizer.test_encoder import library, opened

SIZE = 12_000  # characters; what is slow for a compiled loop is slower by far for the library


def repeated(text, size=SIZE):
    return (text * (size // len(text) + 1))[:size]


def random_text(low, high, seed, size=SIZE // 4):
    points = np.random.default_rng(seed).integers(low, high, size)
    return "".join(chr(point) for point in points.tolist() if not 0xD800 <= point < 0xE000)


def random_bytes(size, seed=1):
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


INPUTS = {
    "a": repeated("a"),
    "A": repeated("A"),
    "ab": repeated("ab"),
    "aab, which keeps merging": repeated("aab"),
    "the": repeated("the"),
    " the": repeated(" the"),
    " of the": repeated(" of the"),
    "spaces": repeated(" "),
    "newlines": repeated("\n"),
    "CRLF": repeated("\r\n"),
    "tabs": repeated("\t"),
    "space and newline": repeated(" \n"),
    "no-break spaces": repeated("\u00a0"),
    "ideographic spaces": repeated("\u3000 "),
    "zero bytes": repeated("\0"),
    "digits": repeated("1234567890"),
    "one digit": repeated("7"),
    "other digits": repeated("٣४৫¾Ⅷ"),
    "dots": repeated("."),
    "equals signs in lines": repeated("=" * 70 + "\n"),
    "apostrophes": repeated("'s'S'll'LL'"),
    "zero-width joiners": repeated("\u200d"),
    "family": repeated("👨‍👩‍👧‍👦"),
    "flags": repeated("🇩🇪🇫🇷"),
    "skin tones": repeated("👍🏽"),
    "one emoji": repeated("🐈"),
    "lone combining marks": repeated("\u0301"),
    "stacked marks": repeated("e" + "\u0301\u0308\u0323" * 8),
    "byte order marks": repeated("\ufeff"),
    "right to left": repeated("\u202eשלום \u202cمرحبا "),
    "kanji without spaces": random_text(0x4E00, 0x9FFF, 1),
    "one kanji": repeated("日"),
    "kana": random_text(0x3041, 0x30FF, 2),
    "hangul": random_text(0xAC00, 0xD7A3, 3),
    "devanagari": random_text(0x0900, 0x097F, 4),
    "thai": repeated("เป็นมนุษย์สุดประเสริฐเลิศคุณค่า"),
    "cyrillic": random_text(0x0410, 0x044F, 5),
    "controls": random_text(0, 0x20, 6),
    "latin 1": random_text(0x80, 0x100, 7),
    "first plane": random_text(0, 0x10000, 8),
    "every plane": random_text(0, 0x110000, 9),
    "private planes": random_text(0xF0000, 0x110000, 10),
    "base64": base64.b64encode(random_bytes(SIZE // 2)).decode(),
    "hexadecimal": random_bytes(SIZE // 4).hex(),
    "random letters": random_text(97, 123, 11),
    "random ASCII": random_text(32, 127, 12),
    "one long camel": repeated("getElementByIdAndName"),
    "minified": repeated("!function(e,t){for(var n=0;n<t.length;n++)e[t[n]]=t[n+1]||null}(a,[1,2,'x']);"),
    "JSON": repeated('{"id":123,"ok":true,"v":[1.5,-2e10,null],"s":"\\u00e9\\n"},'),
    "slashes": repeated("https://a.b/c/d/../../"),
    "escapes": repeated("\\n\\t\\\\"),
    "special tokens as text": repeated("<|endoftext|>"),
}


@pytest.mark.parametrize("name", ["repo", "paper", "llama3", "whole"])
def test_pathological_inputs(name):
    encoder, tokenizer = opened(name)
    for title, text in INPUTS.items():
        if name == "paper" and "digit" in title:
            text = text[:4000]  # counting groups of three from the right takes the library quadratic time
        assert encode(encoder, text) == library(tokenizer, text), title


@pytest.mark.parametrize("name", ["repo", "llama3"])
def test_sizes_around_every_limit(name):
    encoder, tokenizer = opened(name)
    for unit in ("a", "é", "日", "🐈", " a", "q"):
        texts = [unit * size for size in (*range(1, 36), 62, 63, 64, 65, 66, 126, 127, 128, 129, 253, 254, 255, 256, 257)]
        assert encode(encoder, *texts) == library(tokenizer, *texts)
        padded = [f"x {text} y" for text in texts]
        assert encode(encoder, *padded) == library(tokenizer, *padded)


def test_a_document_larger_than_a_window():
    encoder, tokenizer = opened("repo")
    text = repeated("It was the best of times, it was the worst of times. 日本語 と 1234567!\n\n", 1_500_000)
    assert encode(encoder, "before", text, "after") == library(tokenizer, "before", text, "after")


def test_every_character_that_has_two_neighbours():
    encoder, tokenizer = opened("paper")
    texts = [f"a{chr(point)}b {chr(point)} 1{chr(point)}" for point in [*range(0xD800), *range(0xE000, 0x110000, 61)]]
    texts = ["\n".join(texts[i : i + 500]) for i in range(0, len(texts), 500)]
    assert encode(encoder, *texts) == library(tokenizer, *texts)
