"""Encode: ids, types, metadata, and what it refuses."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gristmill.errors import InputError
from gristmill.tokenizer import Bpe, SuperBpe
from gristmill.tokenizer.encoding.encoder import Encoder
from gristmill.tokenizer.encoding.greedy import LongestPrefix
from gristmill.tokenizer.files import load, save
from gristmill.tokenizer.own_format import to_own
from gristmill.tokenizer.patterns import PATTERNS
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.vocabulary import Vocabulary
from stages.encode.encode import Encode, surround
from tests.gristmill.tokenizer.other_files import EOS, TEXTS, bert, llama2, lstrip, prefix_space, qwen, t5
from tests.random_examples import examples

BYTES = tuple(bytes([byte]) for byte in range(256))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tokenizer")
    scheme = SuperBpe(vocab_size=300, transition=280, special_tokens=(EOS, "<s>"), min_frequency=1)
    save(scheme.train(make_corpus(TEXTS)), place)
    return place


def library(path, special_tokens_in_text="text"):
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json" if path.is_dir() else path))
    tokenizer.encode_special_tokens = special_tokens_in_text == "text"
    return tokenizer


def table(texts):
    return pa.table({"text": pa.array(texts, pa.string()), "n": pa.array(range(len(texts)), pa.int64())})


def encoded(stage, texts):
    return stage.open()(table(texts))["input_ids"].to_pylist()


def test_ids_are_those_of_the_library_and_give_the_text_back(folder):
    stage = Encode(tokenizer=str(folder))
    out = stage.open()(table(TEXTS))
    tokenizer, spelled = library(folder), stage.tokens().vocabulary.tokens
    for text, ids, drop in zip(TEXTS, out["input_ids"].to_pylist(), out["drop"].to_pylist(), strict=True):
        if not text:
            assert (ids, drop) == ([], "empty")
            continue
        assert ids == [*tokenizer.encode(text).ids, 0]
        assert drop is None
        assert 0 not in ids[:-1]  # a special token's name in a text is text
        assert b"".join(spelled[i] for i in ids[:-1]).decode() == text
    assert out["n"].to_pylist() == list(range(len(TEXTS)))


@pytest.mark.parametrize(
    ("bos", "eos", "before", "after"),
    [
        (None, None, [], []),
        ("<s>", EOS, [1], [0]),
        ("<s>", None, [1], []),
        (None, EOS, [], [0]),
        (("<s>", EOS), ("<s>",), [1, 0], [1]),
        ((), (EOS, "<s>", "<s>"), [], [0, 1, 1]),
    ],
)
def test_special_tokens_are_put_where_asked(folder, bos, eos, before, after):
    out = Encode(tokenizer=str(folder), bos=bos, eos=eos).open()(table(["cat", "", "mat"]))
    body = [library(folder).encode(text).ids for text in ("cat", "mat")]
    assert out["input_ids"].to_pylist() == [before + body[0] + after, [], before + body[1] + after]
    metadata = out.schema.field("input_ids").metadata
    assert metadata.get(b"bos_id") == (str(before[0]).encode() if before else None)
    assert metadata.get(b"eos_id") == (str(after[-1]).encode() if after else None)


@given(st.lists(st.integers(0, 3), max_size=6), st.integers(0, 2), st.integers(0, 2))
def test_what_surrounds_documents_moves_none_of_their_ids(sizes, before, after):
    documents = [[100 * number + i for i in range(size)] for number, size in enumerate(sizes)]
    prefix, suffix = [1, 2][:before], [3, 4][:after]
    flat = np.array([i for document in documents for i in document], np.uint32)
    ids, places = surround(flat, np.cumsum([0, *sizes]), np.array(prefix, np.uint32), np.array(suffix, np.uint32))
    assert [ids[a:b].tolist() for a, b in pairwise(places)] == [
        prefix + document + suffix if document else [] for document in documents
    ]


def test_the_field_says_what_the_ids_are_in_every_table(folder):
    encode = Encode(tokenizer=str(folder / "tokenizer.json")).open()
    full = encode(table(TEXTS))
    sha256 = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    expected = {b"vocab_size": b"300", b"tokenizer_sha256": sha256.encode(), b"eos_id": b"0"}
    assert full.schema.field("input_ids").metadata == expected
    for texts in ([], [""]):
        assert encode(table(texts)).schema.equals(full.schema, check_metadata=True)
    assert encode(table(TEXTS).slice(3, 0)).num_rows == 0


def test_any_split_gives_the_same_rows(folder):
    encode = Encode(tokenizer=str(folder)).open()

    @examples(50)
    @given(st.lists(st.text(max_size=20), max_size=8), st.data())
    def check(texts, data):
        docs = table(texts)
        cut = data.draw(st.integers(0, len(texts)))
        parts = pa.concat_tables([encode(docs.slice(0, cut)), encode(docs.slice(cut))])
        assert parts.to_pylist() == encode(docs).to_pylist()
        assert encode(pa.concat_tables([docs.slice(0, cut), docs.slice(cut)])).to_pylist() == encode(docs).to_pylist()

    check()


def test_large_vocabularies_take_32_bits(tmp_path, folder):
    data = json.loads((folder / "tokenizer.json").read_text())
    for i in range(300, 70_000):
        data["model"]["vocab"][f"a{i}"] = i
    (tmp_path / "big.json").write_text(json.dumps(data))
    for path, kind in ((folder, pa.uint16()), (tmp_path / "big.json", pa.uint32())):
        stage = Encode(tokenizer=str(path))
        out = stage.open()(table(["cat"]))
        assert out.schema.field("input_ids").type == pa.list_(kind) == stage.adds()["input_ids"]
        assert out["input_ids"].to_pylist() == [[*library(path).encode("cat").ids, 0]]
    assert out.schema.field("input_ids").metadata[b"vocab_size"] == b"70000"


def test_the_tokens_of_a_stage_are_what_its_ids_stand_for(folder):
    tokens = Encode(tokenizer=str(folder)).tokens().vocabulary.tokens
    assert len(tokens) == 300
    assert tokens[:2] == (EOS.encode(), b"<s>")
    assert set(BYTES) == set(tokens[2:258])


def test_the_fingerprint_follows_the_file(folder):
    assert Encode(tokenizer=str(folder)).files() == (str(folder / "tokenizer.json"),)


def test_the_attached_file_is_named_by_what_is_in_it(folder, tmp_path):
    own, ranks = tmp_path / "mine.json", tmp_path / "o 200k"
    own.write_text(to_own(load(folder)))
    ranks.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(bytes([i])), i) for i in range(256)))
    found = [
        Encode(tokenizer=str(path), **more).attachments()
        for path, more in ((folder, {}), (own, {}), (ranks, {"pattern": "gpt2"}))
    ]
    assert found == [
        {"tokenizer.json": str(folder / "tokenizer.json")},
        {"gristmill-tokenizer.json": str(own)},
        {"tokenizer.tiktoken": str(ranks)},
    ]


def test_names_of_special_tokens_in_texts(folder):
    texts = [f"the{EOS}", "cat", EOS, "", "<s", f"é<s>{EOS}cat<s>"]
    as_text = encoded(Encode(tokenizer=str(folder), eos=None), texts)
    assert as_text == [library(folder).encode(text).ids for text in texts]
    as_token = encoded(Encode(tokenizer=str(folder), eos=None, special_tokens_in_text="token"), texts)
    assert as_token == [library(folder, "token").encode(text).ids for text in texts]
    assert as_token[2] == [0] and as_token[5][-1] == 1
    refused = Encode(tokenizer=str(folder), bos="<s>", special_tokens_in_text="refuse").open()(table(texts))
    reason = "special_token_in_text"
    assert refused["drop"].to_pylist() == [reason, None, reason, "empty", None, reason]
    assert refused["input_ids"].to_pylist() == [[], [1, *as_text[1], 0], [], [], [1, *as_text[4], 0], []]
    plain = Encode(tokenizer=str(folder), special_tokens_in_text="refuse").open()(table(["the cat", "mat"]))
    assert plain.equals(Encode(tokenizer=str(folder)).open()(table(["the cat", "mat"])))


def test_names_become_tokens_wherever_the_library_finds_them(tmp_path):
    names = ("<a>", "<a><b", "<b>", "b><", "é>")  # overlapping, one the beginning of another
    save(SuperBpe(vocab_size=320, transition=290, special_tokens=names, min_frequency=1).train(make_corpus(TEXTS)), tmp_path)
    encode = Encode(tokenizer=str(tmp_path), bos=None, eos=None, special_tokens_in_text="token").open()
    expected = library(tmp_path, "token")
    pieces = st.sampled_from([*names, "<", ">", "a", "b", "é", " the cat", "<a", "\n"])

    @examples(150)
    @given(st.lists(st.lists(pieces, max_size=8).map("".join), min_size=1, max_size=5), st.integers(0, 4))
    @example(["<a>", "<a>", "", "<b>"], 1)
    def check(texts, skipped):
        found = encode(table(texts).slice(skipped))["input_ids"].to_pylist()
        assert found == [expected.encode(text).ids for text in texts[skipped:]]

    check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{"lstrip": True}, {}], r"added_tokens has '<\|endoftext\|>' with lstrip"),
        ([{}, {"single_word": True}], "added_tokens has '<s>' with single_word"),
    ],
)
def test_names_that_are_more_than_names_are_found_by_the_library(tmp_path, folder, caplog, changes, message):
    data = json.loads((folder / "tokenizer.json").read_text())
    data["added_tokens"] = [token | change for token, change in zip(data["added_tokens"], changes, strict=True)]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    stage = Encode(tokenizer=str(tmp_path), eos=None)
    assert encoded(stage, TEXTS) == encoded(Encode(tokenizer=str(folder), eos=None), TEXTS)
    assert not caplog.messages
    texts = [f"the  {EOS}  cat", "a<s>b <s> c", f"{EOS}<s>", "cat"]
    expected = library(tmp_path, "token")
    assert encoded(replace(stage, special_tokens_in_text="token"), texts) == [expected.encode(text).ids for text in texts]
    assert re.search(message, caplog.text)


def test_inference_is_what_the_tokenizer_says_or_the_parameter(tmp_path, folder):
    tokens = (*BYTES, b"ab", b"abc", b"cde", b"de", EOS.encode())
    special = {EOS: 260}
    stage = Encode(tokenizer=str(tmp_path))
    save(Vocabulary(tokens, special_tokens=special, inference="least_tokens"), tmp_path)
    assert encoded(stage, ["abcde"]) == [[256, 258, 260]]
    assert encoded(replace(stage, inference="longest_prefix"), ["abcde"]) == [[257, 259, 260]]
    with pytest.raises(InputError, match=r"no merges.*set inference to longest_prefix or least_tokens"):
        replace(stage, inference="merges").open()
    standard = Encode(tokenizer=str(folder), inference="longest_prefix", eos=None)
    text = TEXTS[0].encode()
    ids, _ = LongestPrefix(load(folder)).encode(np.frombuffer(text, np.uint8), np.array([0, len(text)]))
    assert encoded(standard, [TEXTS[0]]) == [ids.tolist()]
    assert standard.adds() == Encode(tokenizer=str(folder)).adds()


def test_a_ranks_file_needs_a_pattern_and_gives_the_ids_of_tiktoken(tmp_path):
    import tiktoken

    tokens = [*BYTES, b"th", b"the", b" c", b" ca", b"at", b" cat"]
    file = tmp_path / "own.tiktoken"
    file.write_bytes(b"\n".join(base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(tokens)))
    stage = Encode(tokenizer=str(file), pattern="llama3", special_tokens=((EOS, 300),))
    ranks = {token: rank for rank, token in enumerate(tokens)}
    expected = tiktoken.Encoding("own", pat_str=PATTERNS["llama3"].regex, mergeable_ranks=ranks, special_tokens={EOS: 300})
    out = stage.open()(table(TEXTS))
    assert out["input_ids"].to_pylist() == [[*expected.encode_ordinary(text), 300] if text else [] for text in TEXTS]
    assert out.schema.field("input_ids").metadata[b"vocab_size"] == b"301"
    with pytest.raises(InputError, match="`pattern`"):
        Encode(tokenizer=str(file)).check()
    with pytest.raises(ValueError, match="pattern has no pattern 'llama'"):
        Encode(tokenizer=str(file), pattern="llama")
    with pytest.raises(ValueError, match="special_tokens names one twice"):
        Encode(tokenizer=str(file), special_tokens=(("<s>", 1), ("<s>", 2)))


def test_mistakes_say_what_to_do(tmp_path, folder):
    with pytest.raises(InputError, match=r"does not exist.*python -m jobs train-tokenizer"):
        Encode(tokenizer=str(tmp_path)).check()
    with pytest.raises(InputError, match=r"does not exist.*python -m jobs train-tokenizer"):
        Encode(tokenizer=str(tmp_path / "nowhere")).files()
    broken = tmp_path / "broken.json"
    broken.write_text('{"model": 1}')
    with pytest.raises(InputError, match=r"broken\.json.*is not a tokenizer\.json"):
        Encode(tokenizer=str(broken)).check()
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"cannot be read as a tokenizer\.json"):
        Encode(tokenizer=str(broken)).check()
    with pytest.raises(InputError, match=r"eos '<eos>' is no special token.*it has <\|endoftext\|>, <s>"):
        Encode(tokenizer=str(folder), eos="<eos>").check()
    with pytest.raises(InputError, match="bos 'cat'"):
        replace(Encode(tokenizer=str(folder)), bos=("<s>", "cat")).open()
    with pytest.raises(InputError, match=r"says itself how it cuts text"):
        Encode(tokenizer=str(folder), pattern="gpt2").check()
    save(Vocabulary(BYTES[1:]), tmp_path)
    with pytest.raises(InputError, match="no token for 1 of 256 bytes, such as 0x00"):
        Encode(tokenizer=str(tmp_path), eos=None).check()


def test_a_tokenizer_that_changes_is_read_again(tmp_path, folder):
    file = tmp_path / "tokenizer.json"
    file.write_bytes((folder / "tokenizer.json").read_bytes())
    stage = Encode(tokenizer=str(tmp_path))
    assert stage.tokens().vocabulary.size == 300
    file.unlink()
    save(Vocabulary((*BYTES, EOS.encode()), special_tokens={EOS: 256}), tmp_path)
    assert stage.tokens().vocabulary.size == 257


def test_a_long_document_beside_short_ones(tmp_path):
    save(Bpe(vocab_size=300).train(make_corpus(["ab cd"] * 9)), tmp_path)
    text = "ab cd " * 50_000
    out = Encode(tokenizer=str(tmp_path)).open()(table(["ab", text, ""]))
    lengths = np.diff(out["input_ids"].combine_chunks().offsets.to_numpy())
    assert lengths[0] == 2
    assert lengths[1] > 100_000
    assert lengths[2] == 0


@pytest.fixture(params=[lstrip, prefix_space, llama2, t5, bert], ids=lambda kind: kind.__name__)
def any_file(request, tmp_path, folder):
    """A tokenizer.json that compiled loops do not know, and what the log says of it."""
    if request.param in (lstrip, prefix_space):
        data = json.loads((folder / "tokenizer.json").read_text())
        request.param(data)
    else:
        data = json.loads(request.param().to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    says = {
        lstrip: "key added_tokens has '<tool>' with lstrip",
        prefix_space: "key pre_tokenizer.add_prefix_space",
        llama2: "key model.unk_token is '<unk>'",
        t5: "key model.type is 'Unigram'",
        bert: "key model.type is 'WordPiece'",
    }
    return tmp_path, says[request.param]


SEVERAL = [*TEXTS, "\u1112\u1161\u11ab e\u0301 ﬁ", f"<s>the cat {EOS}<tool>\n", "The  CAT ", "\t"]


@pytest.mark.parametrize("mode", ["text", "token"])
def test_any_tokenizer_json_gives_the_ids_of_the_library(any_file, mode, caplog, monkeypatch):
    path, says = any_file
    stage, expected = Encode(tokenizer=str(path), bos="<s>", special_tokens_in_text=mode), library(path, mode)
    first, last = expected.token_to_id("<s>"), expected.token_to_id(EOS)
    ids = [expected.encode(text, add_special_tokens=False).ids if text else [] for text in SEVERAL]
    for parallel in ("true", "false"):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallel)
        out = stage.open()(table(SEVERAL))
        assert out["input_ids"].to_pylist() == [[first, *body, last] if body else [] for body in ids]
        assert out["drop"].to_pylist() == [None if body else "empty" for body in ids]
    message = f"tokenizer '{path}/tokenizer.json': {says}"
    assert [line for line in caplog.messages if line.startswith(message)] == caplog.messages
    assert len(caplog.messages) == 1 and caplog.messages[0].endswith("library encodes it, exactly but more slowly")
    size = max(expected.get_vocab().values()) + 1
    metadata = {b"vocab_size": b"%d" % size, b"bos_id": b"%d" % first, b"eos_id": b"%d" % last}
    metadata[b"tokenizer_sha256"] = hashlib.sha256((path / "tokenizer.json").read_bytes()).hexdigest().encode()
    assert out.schema.field("input_ids").metadata == metadata
    assert out.schema.field("input_ids").type == stage.adds()["input_ids"] == pa.list_(pa.uint16())
    assert stage.tokens().decode(ids[0]).strip() == expected.decode(ids[0], skip_special_tokens=False).strip() != ""


def test_what_needs_the_bytes_of_tokens_refuses_other_files(any_file):
    path, says = any_file
    for inference in ("longest_prefix", "least_tokens", "merges"):
        with pytest.raises(InputError, match=rf"inference '{inference}' cannot be had: .*{says}.*leave inference out"):
            Encode(tokenizer=str(path), inference=inference).check()
    with pytest.raises(InputError, match=says):
        _ = Encode(tokenizer=str(path)).tokens().vocabulary
    with pytest.raises(InputError, match="eos '<eos>' is no special token of"):
        Encode(tokenizer=str(path), eos="<eos>").check()
    refused = Encode(tokenizer=str(path), special_tokens_in_text="refuse").open()(table(["the cat", f"the {EOS}", ""]))
    assert refused["drop"].to_pylist() == [None, "special_token_in_text", "empty"]
    assert [bool(ids) for ids in refused["input_ids"].to_pylist()] == [True, False, False]


def test_texts_are_neither_cut_off_nor_filled_up_nor_encoded_at_random(tmp_path, folder):
    data = json.loads((folder / "tokenizer.json").read_text())
    qwen(data)
    file, stage = tmp_path / "tokenizer.json", Encode(tokenizer=str(tmp_path))
    file.write_text(json.dumps(data))
    plain = encoded(stage, TEXTS)
    limited = Tokenizer.from_file(str(file))
    limited.enable_truncation(5)
    limited.enable_padding(length=9)
    limited.save(str(file))
    assert len(limited.encode("x").ids) == 9 and len(limited.encode(TEXTS[5]).ids) == 9
    assert encoded(stage, TEXTS) == plain
    data["model"]["dropout"] = 0.5
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"key model\.dropout is 0\.5, which makes ids random; set it to null"):
        stage.check()
    data["model"]["type"] = "unheard of"
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"key model\.type is 'unheard of'.*the library says that it cannot be read"):
        stage.check()


def test_a_pattern_that_tables_cannot_do_is_cut_by_the_library(tmp_path, caplog):
    regex = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|(?<=a)b|\s"
    save(Bpe(vocab_size=300, pattern=regex, min_frequency=1).train(make_corpus(TEXTS)), tmp_path)
    assert encoded(Encode(tokenizer=str(tmp_path), eos=None), SEVERAL) == [library(tmp_path).encode(t).ids for t in SEVERAL]
    assert len(caplog.messages) == 1 and "cannot be compiled to tables" in caplog.text


def test_loops_that_give_other_ids_than_the_library_are_not_used(folder, caplog, monkeypatch):
    def wrong(self, text, offsets):
        return np.zeros(offsets[-1], np.uint32), offsets

    monkeypatch.setattr(Encoder, "_encode", wrong)
    assert encoded(Encode(tokenizer=str(folder), eos=None), TEXTS) == [library(folder).encode(text).ids for text in TEXTS]
    assert len(caplog.messages) == 1 and "the compiled encoder differs" in caplog.text
