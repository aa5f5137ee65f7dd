"""A set of texts on which an encoder is compared with the Hugging Face library before it is used.

Reads a vocabulary and its encoder; writes nothing. The texts are fixed: what has gone wrong in encoders (long runs, joined
characters, odd spaces, digits), a line in each of several scripts, and the tokens of the vocabulary itself in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gristmill.errors import InputError, UserError
from gristmill.tokenizer.encoding.windows import FlatEncoder
from gristmill.tokenizer.library_calls import library_call
from gristmill.tokenizer.vocabulary import Vocabulary, to_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

OWN_TOKENS = 4000  # of the vocabulary, evenly spread, as two texts
CONTEXT = 24  # bytes shown on both sides of a difference

TEXTS = (
    "",
    " ",
    "a",
    "The quick brown fox jumps over the lazy dog. It's John's, isn't it? WE'LL SEE, they've said: I'd go!",
    "camelCase snake_case SCREAMING_CASE getElementById XMLHttpRequest v2.10.3 0xDEADBEEF 1e-9 #tag @user",
    "In 2024 there were 1234567 of 12345678 and 1,234,567.89 ¾ ²³ Ⅷ ٣٤٥٦ १२३४५ 1a2b3c",
    "a" * 300,
    "ab" * 200 + "ba" * 3,
    " " * 300 + "x" + " " * 7,
    "\n" * 300 + "x\n\n \n",
    "\r\n" * 100 + "\r\r\n\n\r",
    "\t\t \t  \t\u00a0\u2003\u3000 \u200b\u2028\u2029\x85 x \u00a0 y",
    "one  two   three    four\n\n  five \n six\t\tseven ",
    "...!!!???---===***///\\\\\\###$$$%%%^^^&&&((()))[[[]]]{{{}}}<<<>>>",
    "if (x != y) { return a[i]->b(c, d) / 2; } // done\n\n\n};\n#include <stdio.h>\r\n",
    "function(){var a=1,b=2;for(;a<b;)a++;return{x:a,y:b}}" * 4,
    "TWFuIGlzIGRpc3Rpbmd1aXNoZWQsIG5vdCBvbmx5IGJ5IGhpcyByZWFzb24sIGJ1dCBieSB0aGlz+/==" * 3,
    "https://www.example.com/a/b-c_d.html?q=1&r=%20#frag mailto:some.one@example.org",
    '<p>Hello, <b>world</b>!</p>&nbsp;&amp; <!-- c --> {"k": [1, 2.5, null]}',
    "Größe, Übung, straße; l'été où ça; señor ¿qué? mañana; İstanbul ıIiİ ſ Kelvin",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Объём — 3 л.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Τι κάνεις;",
    "我能吞下玻璃而不伤身体。「日本語」のテキスト、カタカナとひらがな。１２３４",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. 한국어 \u1112\u1161\u11ab",
    "نص حكيم له سر قاطع وذو شأن عظيم. עטלף אבק נס דרך מזגן שהתפוצץ",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण। เป็นมนุษย์สุดประเสริฐเลิศคุณค่า தமிழ்",
    "👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ❤️ 1️⃣ 🐈🐈🐈🐈 x👍y",
    "\u200d" * 40 + "a\u200db\ufe0f\ufeff" + "\u0301" * 40 + "e\u0301\u0308 \u0301x",
    "\x00\x01\x7f\u0080\u00ff\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0002f800\U000e0001\U0010ffff",
    "𝒜𝓁𝓅𝒽𝒶 𐍈 𒀀𒀁 𓀀 𝟏𝟐𝟑 🄰 𠜎𠜱",
    "<|endoftext|> <s> </s> [INST] <|im_start|>user",
    "word " * 120,
    " of the in the to the and the on the for the at the by the with the from the" * 4,
)


class EncoderMismatch(UserError):
    """An encoder gives other ids than the Hugging Face library."""


class LibraryFails(InputError):
    """The Hugging Face library itself cannot encode an ordinary text with this tokenizer."""


CHANGED = (
    "e\u0301 \u1112\u1161\u11ab A\u030a\u212b \u0958\u0915\u093c \u0344 \u0f71\u0f72\u0f74 q\u0307\u0323 \ufb01 \u2126 \u1e9e",
    "  Ｆｕｌｌ ﬁ ①②  \u0130I\u0131ς ΑΣ \t \u3000x\u00a0 ",
    "\u0301\u0323a\u0323\u0301 \U0001d15e \U000110ab \U00011938 \ua7f2 \u0d4e",
)
"""Texts that normalizers change."""


def check_whole(encoder: FlatEncoder, library: FlatEncoder, names: Sequence[str]) -> None:
    """Compare an encoder, with its normalizer and its names, with the library on the tokenizer's own file.

    Raises:
        EncoderMismatch: some text gets other ids.
    """
    texts = [*TEXTS, *CHANGED, *(f"a{name} {name}{name}b e\u0301{name}" for name in names[:20])]
    for i, text in enumerate(texts):
        data = np.frombuffer(text.encode(), np.uint8)
        found, expected = (each.encode(data, np.array([0, len(data)], np.int64))[0].tolist() for each in (encoder, library))
        if found != expected:
            raise EncoderMismatch(
                f"the compiled encoder differs from the tokenizers library on text {i} of its check ({text[:CONTEXT]!r}): "
                f"{found[:8]} for {expected[:8]}; report this with the tokenizer.json"
            )


def own_texts(vocabulary: Vocabulary) -> list[str]:
    """Return texts made of the vocabulary's own tokens: one after the other, and with spaces between them."""
    tokens = [token for token in vocabulary.ordinary() if token]
    chosen = tokens[:: max(1, len(tokens) // OWN_TOKENS)]
    return [joint.join(chosen).decode(errors="ignore") for joint in (b"", b" ")]


def check_encoder(encoder: FlatEncoder, vocabulary: Vocabulary) -> None:
    """Compare an encoder with the library.

    Raises:
        EncoderMismatch: a text gets other ids from the library; says which, and where they first differ.
        LibraryFails: the library raises or panics on a text; says on which, and what.
    """
    tokenizer = to_tokenizer(vocabulary)
    texts = [*TEXTS, *own_texts(vocabulary)]
    data = [text.encode() for text in texts]
    offsets = np.zeros(len(data) + 1, np.int64)
    np.cumsum([len(each) for each in data], out=offsets[1:])
    right = [_library_ids(tokenizer, i, text) for i, text in enumerate(texts)]
    ids, ends = encoder.encode(np.frombuffer(b"".join(data), np.uint8), offsets)
    for i, expected in enumerate(right):
        found = ids[ends[i] : ends[i + 1]].tolist()
        if found != expected:
            raise EncoderMismatch(_difference(i, data[i], found, expected, vocabulary))


def _library_ids(tokenizer: Tokenizer, number: int, text: str) -> list[int]:
    def failed(error: BaseException) -> LibraryFails:
        shown = repr(text if len(text) <= CONTEXT else text[:CONTEXT] + "…")
        return LibraryFails(
            f"the Hugging Face library cannot encode text {number} of the check made before it is used ({shown}, {len(text)} "
            f"characters): {type(error).__name__}: {error}; most likely the pattern of its pre_tokenizer goes back too often: "
            "mend the pattern"
        )

    with library_call(failed):
        return tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids


def _difference(number: int, data: bytes, found: list[int], expected: list[int], vocabulary: Vocabulary) -> str:
    same = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), min(len(found), len(expected)))
    byte = sum(len(vocabulary.tokens[i]) for i in expected[:same])
    around = data[max(0, byte - CONTEXT) : byte + CONTEXT]
    return (
        f"the compiled encoder differs from the tokenizers library on text {number} of its check, from token {same} on "
        f"(byte {byte}, in {around!r}): {found[same : same + 4]} for {expected[same : same + 4]}; "
        "encode with HfEncoder, and report this with the tokenizer.json"
    )
