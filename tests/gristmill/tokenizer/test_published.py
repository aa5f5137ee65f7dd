"""Tokenizers as they are published: the ids of the library, by compiled loops; and files that say what cannot be."""

import json
import logging
import unicodedata
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from gristmill.errors import InputError
from gristmill.tokenizer.encoding.library import LibraryEncoder
from gristmill.tokenizer.encoding.normalizing import FOREIGN, JOINS, MARK, Normalizer, changed_by_nfc, nfc_tables
from gristmill.tokenizer.framing import prescribed
from gristmill.tokenizer.opening import open_encoder, read_tokenizer
from gristmill.tokenizer.tokenizer_file import TokenizerFile
from stages.encode.encode import Encode
from tests.gristmill.tokenizer.published import END, KINDS, changed, trained, with_template
from tests.gristmill.tokenizer.slow import crawl_texts
from tests.random_examples import examples

ODD = [
    "",
    " ",
    "e\u0301 \u1112\u1161\u11ab A\u030a \u212b \u0915\u093c \u0958 q\u0307\u0323 \u0112\u0328 U\u031b ﬁ Ⅷ",
    "\u0301\u0323 alone, \U00011938\U00011935\U00011930 \ua7f2 \U0001e4ec\u0323 \U000e0fff",
    "call (555) 0123-4567 in 2024; x²=½ ٣٤٥ १२३ 1a2b",
    "<tool>{'a': 1}</tool> <|im|> <tool<tool> <｜User｜>hi<｜Assistant｜> ééÅé FIX fix FiX e\u0301e\u0301e\u0301",
    "  two  spaces ''quoted'' ΑΣ İI  ",
    "我能吞下玻璃。日本語のテキスト\r\n\r\nx = y+1  // ok",
]


def flat(texts):
    data = [text.encode() for text in texts]
    return np.frombuffer(b"".join(data), np.uint8), np.cumsum([0, *map(len, data)]).astype(np.int64)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    for kind in KINDS:
        (folder / f"{kind}.json").write_text(trained(kind))
    return folder


@pytest.fixture(scope="module")
def opened(files):
    """Encoders of each kind, in both modes, and the library's tokenizer."""
    found = {}
    for kind in KINDS:
        for as_tokens in (False, True):
            file = TokenizerFile.read(files / f"{kind}.json")
            encoder = open_encoder(read_tokenizer(file, names_as_tokens=as_tokens), file, names_as_tokens=as_tokens)
            library = Tokenizer.from_file(str(files / f"{kind}.json"))
            library.encode_special_tokens = not as_tokens
            found[kind, as_tokens] = encoder, library
    return found


def check(opened, texts):
    for (kind, as_tokens), (encoder, library) in opened.items():
        ids, places = encoder.encode(*flat(texts))
        for text, (begin, end) in zip(texts, pairwise(places.tolist()), strict=True):
            expected = library.encode(text, add_special_tokens=False).ids if text else []
            assert ids[begin:end].tolist() == expected, (kind, as_tokens, text)


def test_published_kinds_are_compiled(opened):
    for encoder, _ in opened.values():
        assert not isinstance(encoder, LibraryEncoder)


def test_ids_are_those_of_the_library_on_real_pages_and_odd_texts(opened):
    check(opened, [*ODD, *crawl_texts(12)])
    check(opened, [unicodedata.normalize("NFD", text) for text in crawl_texts(4)])


PARTS = st.one_of(
    st.sampled_from(
        [*"aA1² \n'\u0301\u0323\u0328\u093c\u1161\u11abéÅ\u0112", "<tool>", "</tool>", END, "<|im|>", "<｜User｜>", "fIX"]
    ),
    st.characters(exclude_categories=["Cs"]),
)


def test_ids_are_those_of_the_library_on_any_text(opened):
    @examples(40)
    @given(st.lists(st.lists(PARTS, max_size=12).map("".join), min_size=1, max_size=3))
    @example(["<tool", ">e", "\u0301"])
    def run(texts):
        check(opened, texts)

    run()


def marks():
    """Characters with which NFC does something, and such as may stand before them."""
    tables = nfc_tables()
    kinds = np.flatnonzero((tables.kinds >= MARK) & (tables.kinds < FOREIGN)).tolist()
    joins = np.flatnonzero(tables.kinds == JOINS).tolist()
    first = sorted({pair >> 32 for pair in tables.pairs.tolist()})
    assigned = [point for point in np.flatnonzero(tables.kinds == FOREIGN).tolist() if unicodedata.category(chr(point)) != "Cn"]
    latin = [*range(0x41, 0x250), *range(0x1E00, 0x1EFA)]
    chosen = [st.sampled_from(list(map(chr, points))) for points in (kinds, joins, joins, first, latin, range(0x300, 0x345))]
    return st.one_of(*chosen, st.sampled_from(list(map(chr, assigned))), st.characters(exclude_categories=["Cs"]))


@examples(600)
@given(st.lists(st.text(st.deferred(marks), max_size=8), min_size=1, max_size=4))
@example(["\u0112\u0328"])  # a macron that the ogonek goes before
@example(["a\u0323", "\u0301\u0323"])
@example(["\u1112", "\u1161\u11ab", "\ud55c\u11ab"])
def test_nfc_is_that_of_the_library_whatever_python_knows_of_unicode(texts):
    normalizer = normalizers.NFC()
    text, places = Normalizer({"type": "NFC"})(*flat(texts))
    expected = [normalizer.normalize_str(each) if each else "" for each in texts]
    assert [text[a:b].tobytes().decode() for a, b in pairwise(places.tolist())] == expected
    changes = changed_by_nfc(*flat(texts)).tolist()
    assert all(said for said, one, other in zip(changes, texts, expected, strict=True) if one != other)


def test_nfc_of_marks_without_end_takes_no_minutes():
    # 200,000 marks on one letter in turns of two classes: Python sorts them two by two.
    piled = "a" + "\u0301\u0316" * 100_000
    text, _ = Normalizer({"type": "NFC"})(*flat([piled, "e\u0301"]))
    assert text.tobytes().decode() == normalizers.NFC().normalize_str(piled) + "é"


def test_texts_that_nfc_leaves_alone_are_not_looked_at_twice():
    texts = [
        "Größe, naïve café — “quoted” …",
        "我能吞下玻璃。日本語のテキスト",
        "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा",
        "한국어 텍스트",
    ]
    text, places = flat(texts)
    assert not changed_by_nfc(text, places).any()
    assert Normalizer({"type": "NFC"})(text, places)[0] is text


# Files that say what cannot be, or two things


def written(folder, text):
    (folder / "tokenizer.json").write_text(text)
    return str(folder)


def added(name, i, **flags):
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": i, "content": name, **plain, **flags}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["added_tokens"].append(added("<x>", 400)),
            r"key added_tokens gives '<x>' the id 400, which .* has in model",
        ),
        (
            lambda d: d["added_tokens"].extend([added("<x>", 900), added("<y>", 900)]),
            "key added_tokens gives '<x>' and '<y>' the one id 900",
        ),
        (lambda d: d["added_tokens"].extend([added("<x>", 900), added("<x>", 901)]), "key added_tokens has '<x>' twice"),
        (lambda d: d["added_tokens"].extend([added("<x>", 900), added("<x>", 900)]), "key added_tokens has '<x>' twice"),
        (lambda d: d["model"]["vocab"].update({"zz": 400}), "key model.vocab gives .* the one id 400"),
    ],
    ids=["taken", "one id", "two ids", "twice", "vocabulary"],
)
def test_two_tokens_of_one_id_are_a_mistake_in_the_file(tmp_path, change, message):
    path = written(tmp_path, changed(trained("smollm"), change))
    with pytest.raises(InputError, match=f"tokenizer '.*{message}"):
        Encode(tokenizer=path).check()


@pytest.mark.parametrize("kind", ["smollm", "qwen"])
def test_ids_behind_a_gap_are_those_that_the_library_gives(tmp_path, caplog, kind):
    path = written(tmp_path, changed(trained(kind), lambda d: d["added_tokens"].append(added("<|im_end|>", 950))))
    library = Tokenizer.from_file(f"{path}/tokenizer.json")
    encode = Encode(tokenizer=path, eos="<|im_end|>")
    field = encode.open()(pa.table({"text": ["some text"]})).schema.field("input_ids")
    assert field.metadata[b"eos_id"] == str(library.token_to_id("<|im_end|>")).encode() != b"950"
    assert field.metadata[b"vocab_size"] == str(max(library.get_vocab().values()) + 1).encode()
    assert "gives '<|im_end|>' the id 950" in caplog.text


def test_a_gap_in_the_vocabulary_stays(tmp_path):
    def change(data):
        data["model"]["vocab"]["<|im_end|>"] = 950
        data["added_tokens"].append(added("<|im_end|>", 950))

    path = written(tmp_path, changed(trained("smollm"), change))
    out = Encode(tokenizer=path, eos="<|im_end|>").open()(pa.table({"text": ["some text"]}))
    assert out["input_ids"].to_pylist()[0][-1] == 950


@pytest.mark.parametrize("name", ["é", "th"], ids=["a byte", "a merge"])
def test_a_name_that_the_model_makes_too_is_encoded_by_the_library(tmp_path, name):
    made = Tokenizer.from_str(trained("smollm"))
    made.add_tokens([name])
    texts = ["the é thé", "日本", "th"]
    out = Encode(tokenizer=written(tmp_path, made.to_str()), eos=None).open()(pa.table({"text": texts}))
    assert out["input_ids"].to_pylist() == [made.encode(text).ids for text in texts]


# Texts that a vocabulary cannot spell


def of_letters(pre_tokenizer):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=[END], show_progress=False)
    made.train_from_iterator(["hello world abc"] * 3, trainer)
    return made


@pytest.mark.parametrize("pre_tokenizer", [pre_tokenizers.Whitespace(), pre_tokenizers.Metaspace()], ids=["spaces", "metaspace"])
def test_a_text_that_a_vocabulary_cannot_spell_is_quarantined_with_its_characters(tmp_path, pre_tokenizer):
    made = of_letters(pre_tokenizer)
    made.add_special_tokens(["<|im_end|>"])
    texts = ["hello world", "hello zebra", "ZZZ 日本", "", "  ", "cab ow", f"abc{END}"]
    out = Encode(tokenizer=written(tmp_path, made.to_str()), eos="<|im_end|>").open()(pa.table({"text": texts}))
    errors, drops = out["error"].to_pylist(), out["drop"].to_pylist()
    assert [error is not None for error in errors] == [False, True, True, False, False, False, True]
    assert errors[1] == "unspelled: the tokenizer has no token for 1 part of the text, such as 'z'"
    assert errors[2].startswith("unspelled: ") and "'Z', '日'" in errors[2]
    assert drops[3] == "empty"
    end = made.token_to_id("<|im_end|>")
    for text, ids, error in zip(texts, out["input_ids"].to_pylist(), errors, strict=True):
        assert ids == ([] if error or (not text.strip() and not ids) else [*made.encode(text).ids, end]), text


def other_model(kind):
    vocab = {END: 0, "a": 1, "b": 2, "ab": 3, "##b": 4, "##a": 5}
    made = Tokenizer(
        {
            "WordLevel": lambda: models.WordLevel(vocab, unk_token="[UNK]"),
            "WordPiece": lambda: models.WordPiece(vocab, unk_token="[UNK]"),
            "Unigram": lambda: models.Unigram([(piece, -float(i)) for piece, i in vocab.items()]),
            "BPE": lambda: models.BPE(vocab, [("a", "b")], unk_token="[UNK]"),
        }[kind]()
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([END])
    return made


@pytest.mark.parametrize("kind", ["WordLevel", "WordPiece", "Unigram", "BPE"])
def test_models_that_raise_for_want_of_an_unknown_token_quarantine_such_texts_too(tmp_path, kind):
    made = other_model(kind)
    texts = ["a ab b", "ab q", "zz zz", ""]
    encode = Encode(tokenizer=written(tmp_path, made.to_str())).open()
    for table in (pa.table({"text": texts}), pa.table({"text": texts * 9})):
        out = encode(table)
        assert out["input_ids"].to_pylist()[:4] == [[*made.encode("a ab b").ids, 0], [], [], []]
        assert [error and error.split(":")[0] for error in out["error"].to_pylist()[:4]] == [None, "unspelled", "unspelled", None]
        assert out["drop"].to_pylist()[:4] == [None, None, None, "empty"]
        assert "'q'" in out["error"][1].as_py()


def test_a_text_of_which_nothing_is_left_is_quarantined(tmp_path):
    made = of_letters(pre_tokenizers.Split("a", "removed"))
    out = Encode(tokenizer=written(tmp_path, made.to_str())).open()(pa.table({"text": ["aaa", "b"]}))
    assert out["error"].to_pylist() == ["no_tokens: the tokenizer makes no token of 3 characters, which begin 'aaa'", None]


def test_a_byte_level_vocabulary_lacks_no_byte_that_a_text_may_have(tmp_path):
    def without(*letters):
        def change(data):
            for letter in letters:
                del data["model"]["vocab"][letter]

        return changed(trained("smollm"), change)

    never = chr(0xC0)  # the byte 0xC0 is in no text
    fine = Encode(tokenizer=written(tmp_path, without(never)))
    out = fine.open()(pa.table({"text": ["some text", "naïve 日本"]}))
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert out["input_ids"].to_pylist() == [[*library.encode(text).ids, 0] for text in ["some text", "naïve 日本"]]
    with pytest.raises(InputError, match=r"has no token for 1 of 256 bytes, such as 0x00: they would be lost"):
        Encode(tokenizer=written(tmp_path, without("Ā"))).check()


# What is put around texts


@pytest.mark.parametrize(
    ("processor", "before", "after"),
    [
        (processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]), ("<s>",), ("</s>",)),
        (processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)]), (), ("</s>",)),
        (processors.BertProcessing(("[SEP]", 1), ("[CLS]", 2)), ("[CLS]",), ("[SEP]",)),
        (processors.RobertaProcessing(("</s>", 1), ("<s>", 2)), ("<s>",), ("</s>",)),
        (processors.ByteLevel(), (), ()),
        (
            processors.Sequence(
                [processors.ByteLevel(), processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])]
            ),
            ("<s>",),
            (),
        ),
    ],
    ids=["both", "end", "bert", "roberta", "none", "llama3"],
)
def test_what_a_file_prescribes_around_a_text(processor, before, after):
    made = Tokenizer(models.BPE())
    made.post_processor = processor
    assert prescribed(json.loads(made.to_str())["post_processor"]) == (before, after)


def test_what_a_build_leaves_out_is_said_once(tmp_path, caplog):
    def change(data):
        data["added_tokens"].append(added("<s>", 900))

    path = written(tmp_path, with_template(changed(trained("smollm"), change), "<s>"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            Encode(tokenizer=path).check()
    field = Encode(tokenizer=path).open()(pa.table({"text": ["a"]})).schema.field("input_ids")
    assert json.loads(field.metadata[b"left_out"]) == ["<s>"]
    assert len(caplog.messages) == 1
    assert "its post_processor puts <s> before each text, this build does not" in caplog.messages[0]
    caplog.clear()
    Encode(tokenizer=path, bos="<s>").check()
    assert not caplog.messages
