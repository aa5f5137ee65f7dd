"""Encode: ids, types, metadata, and what it refuses."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from stages.tokenizer import Bpe, SuperBpe
from stages.tokenizer.encode import Encode, open_tokenizer, token_bytes, vocabulary_size

EOS = "<|endoftext|>"
TEXTS = ["the cat sat on the mat", "", "日本語 naïve 🐈", f"a literal {EOS} in text", " ", "x" * 3000, "the cat\r\n\tsat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tokenizer")
    SuperBpe(vocab_size=300, transition=280, special_tokens=(EOS, "<s>"), min_frequency=1).train(TEXTS).save(
        str(place / "tokenizer.json")
    )
    return place


def table(texts):
    return pa.table({"text": pa.array(texts, pa.string()), "n": pa.array(range(len(texts)), pa.int64())})


def test_ids_are_those_of_the_library_and_give_the_text_back(folder):
    out = Encode(tokenizer=str(folder)).open()(table(TEXTS))
    tokenizer = open_tokenizer(str(folder))
    spelled = token_bytes(tokenizer)
    for text, ids, drop in zip(TEXTS, out["input_ids"].to_pylist(), out["drop"].to_pylist(), strict=True):
        if not text:
            assert (ids, drop) == ([], "empty")
            continue
        assert ids == [*tokenizer.encode(text).ids, 0]
        assert drop is None
        assert 0 not in ids[:-1]  # a special token's name in a text is text
        assert b"".join(spelled[i] for i in ids[:-1]).decode() == text
    assert out["n"].to_pylist() == list(range(len(TEXTS)))


@pytest.mark.parametrize(("bos", "eos", "ids"), [(None, None, []), ("<s>", EOS, [1, 0]), ("<s>", None, [1]), (None, EOS, [0])])
def test_special_tokens_are_put_where_asked(folder, bos, eos, ids):
    stage = Encode(tokenizer=str(folder), bos=bos, eos=eos)
    out = stage.open()(table(["cat"]))
    found = out["input_ids"].to_pylist()[0]
    body = open_tokenizer(str(folder)).encode("cat").ids
    assert found == ([1] if bos else []) + body + ([0] if eos else [])
    metadata = out.schema.field("input_ids").metadata
    assert metadata.get(b"bos_id") == (b"1" if bos else None)
    assert metadata.get(b"eos_id") == (b"0" if eos else None)


def test_the_field_says_what_the_ids_are_in_every_table(folder):
    encode = Encode(tokenizer=str(folder / "tokenizer.json")).open()
    full = encode(table(TEXTS))
    sha256 = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    expected = {b"vocab_size": b"300", b"tokenizer_sha256": sha256.encode(), b"eos_id": b"0"}
    assert full.schema.field("input_ids").metadata == expected
    for texts in ([], [""]):
        assert encode(table(texts)).schema.equals(full.schema, check_metadata=True)
    assert encode(table(TEXTS).slice(3, 0)).num_rows == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=8), st.data())
def test_any_split_gives_the_same_rows(folder, texts, data):
    encode = Encode(tokenizer=str(folder)).open()
    docs = table(texts)
    cut = data.draw(st.integers(0, len(texts)))
    parts = pa.concat_tables([encode(docs.slice(0, cut)), encode(docs.slice(cut))])
    assert parts.to_pylist() == encode(docs).to_pylist()
    assert encode(pa.concat_tables([docs.slice(0, cut), docs.slice(cut)])).to_pylist() == encode(docs).to_pylist()


def test_large_vocabularies_take_32_bits(tmp_path, folder):
    data = json.loads((folder / "tokenizer.json").read_text())
    for i in range(300, 70_000):
        data["model"]["vocab"][f"a{i}"] = i
    (tmp_path / "big.json").write_text(json.dumps(data))
    for path, kind in ((folder, pa.uint16()), (tmp_path / "big.json", pa.uint32())):
        stage = Encode(tokenizer=str(path))
        out = stage.open()(table(["cat"]))
        assert out.schema.field("input_ids").type == pa.list_(kind) == stage.adds()["input_ids"]
        assert out["input_ids"].to_pylist() == [[*open_tokenizer(str(path)).encode("cat").ids, 0]]
    assert vocabulary_size(open_tokenizer(str(tmp_path / "big.json"))) == 70_000


def test_token_bytes_cover_all_bytes_and_name_the_special_tokens(folder):
    spelled = token_bytes(open_tokenizer(str(folder)))
    assert len(spelled) == 300
    assert spelled[:2] == [EOS.encode(), b"<s>"]
    assert {bytes([i]) for i in range(256)} == set(spelled[2:258])


def test_the_fingerprint_follows_the_file(folder):
    assert Encode(tokenizer=str(folder)).files() == (str(folder / "tokenizer.json"),)


def test_mistakes_say_what_to_do(tmp_path, folder):
    with pytest.raises(InputError, match=r"does not exist.*python -m jobs train-tokenizer"):
        Encode(tokenizer=str(tmp_path)).check()
    with pytest.raises(InputError, match=r"does not exist.*python -m jobs train-tokenizer"):
        Encode(tokenizer=str(tmp_path / "nowhere")).files()
    broken = tmp_path / "broken.json"
    broken.write_text('{"model": 1}')
    with pytest.raises(InputError, match=r"cannot be read as a tokenizer.json"):
        Encode(tokenizer=str(broken)).check()
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"cannot be read as a tokenizer.json"):
        Encode(tokenizer=str(broken)).check()
    with pytest.raises(InputError, match=r"eos '<eos>' is no special token.*it has <\|endoftext\|>, <s>"):
        Encode(tokenizer=str(folder), eos="<eos>").check()
    with pytest.raises(InputError, match="bos 'cat'"):
        replace(Encode(tokenizer=str(folder)), bos="cat").open()


def test_a_tokenizer_that_is_not_byte_level_has_no_token_bytes():
    from tokenizers import Tokenizer, models

    with pytest.raises(InputError, match=r"not byte-level.*'▁a'"):
        token_bytes(Tokenizer(models.BPE(vocab={"▁a": 0}, merges=[])))


def test_a_long_document_beside_short_ones(tmp_path):
    Bpe(vocab_size=300).train(["ab cd"] * 9).save(str(tmp_path / "tokenizer.json"))
    text = "ab cd " * 50_000
    out = Encode(tokenizer=str(tmp_path)).open()(table(["ab", text, ""]))
    lengths = np.diff(out["input_ids"].combine_chunks().offsets.to_numpy())
    assert lengths[0] == 2
    assert lengths[1] > 100_000
    assert lengths[2] == 0
