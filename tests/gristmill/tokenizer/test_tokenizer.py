"""A tokenizer opened in training code: the ids of the stage `encode` from every kind of file, and text back."""

from __future__ import annotations

import base64
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gristmill.errors import InputError
from gristmill.tokenizer import SCHEMES, Tokenizer
from gristmill.tokenizer.files import save
from gristmill.tokenizer.token_names import spell
from gristmill.tokenizer.training.corpus import make_corpus
from stages.encode.encode import Encode
from tests.gristmill.tokenizer.other_files import EOS, TEXTS, bert, llama2, t5

PARAMETERS = {
    "superbpe": {"transition": 280},
    "mwt": {"patterns": "repo"},
    "boundless": {"pattern": "gpt2"},
    "cbpe": {"pattern": "o200k"},
}
LEARNED = [*TEXTS, "the cat sat on the hat. the cat sat on the mat, and the dog sat on the cat " * 8, "नमस्ते दुनिया " * 5]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained tokenizer of each scheme."""
    found = {}
    for name, scheme in SCHEMES.items():
        found[name] = tmp_path_factory.mktemp(name)
        known = {"vocab_size": 320, "special_tokens": (EOS, "<s>"), "min_frequency": 1} | PARAMETERS.get(name, {})
        if name == "mwt":
            known |= {"base": str(found["bpe"]), "vocab_size": 330}
            del known["special_tokens"]
        save(scheme(**known).train(make_corpus(LEARNED)), found[name])
    return found


def of_stage(path: Path, texts: list[str], **parameters) -> list[list[int]]:
    stage = Encode(tokenizer=str(path), eos=None, **parameters)
    found: list[list[int]] = stage.open()(pa.table({"text": pa.array(texts, pa.string())}))["input_ids"].to_pylist()
    return found


def lists(ids: np.ndarray, offsets: np.ndarray) -> list[list[int]]:
    return [ids[begin:end].tolist() for begin, end in pairwise(offsets.tolist())]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ids_are_those_of_a_build_and_give_the_text_back(folders: dict[str, Path], scheme: str) -> None:
    tokenizer = Tokenizer.open(folders[scheme])
    ids, offsets = tokenizer.encode(LEARNED)
    assert (ids.dtype, offsets.dtype, len(offsets)) == (np.uint32, np.int64, len(LEARNED) + 1)
    assert lists(ids, offsets) == of_stage(folders[scheme], LEARNED)
    assert [tokenizer.decode(each) for each in lists(ids, offsets)] == LEARNED
    assert tokenizer.decode_bytes(ids) == "".join(LEARNED).encode()
    assert len(ids) < len("".join(LEARNED).encode())
    assert tokenizer.vocab_size == Encode(tokenizer=str(folders[scheme])).tokens().vocab_size > ids.max()
    assert tokenizer.special_tokens[EOS] == 0
    assert repr(tokenizer) == f"Tokenizer({str(folders[scheme])!r}, vocab_size={tokenizer.vocab_size}, by='merges')"


def test_arrow_strings_of_any_kind_are_texts(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.open(folders["bpe"])
    expected = lists(*tokenizer.encode(LEARNED))
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        whole = pa.array(LEARNED, kind)
        assert lists(*tokenizer.encode(whole)) == expected
        assert lists(*tokenizer.encode(whole.slice(1, 4))) == expected[1:5]
        assert lists(*tokenizer.encode(pa.chunked_array([whole.slice(0, 3), whole.slice(3)]))) == expected
    for nothing in ([], pa.array([], pa.string()), pa.chunked_array([], pa.string())):
        assert [each.tolist() for each in tokenizer.encode(nothing)] == [[], [0]]


@pytest.mark.parametrize("make", [llama2, t5, bert])
def test_other_tokenizers_are_encoded_by_the_library(tmp_path: Path, make) -> None:
    library = make()
    library.save(str(tmp_path / "tokenizer.json"))
    library.encode_special_tokens = True
    texts = ["the cat", "the cat sat on the mat"]
    tokenizer = Tokenizer.open(tmp_path)
    for opened in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
        ids, offsets = opened.encode(texts)
        assert lists(ids, offsets) == [library.encode(text, add_special_tokens=False).ids for text in texts]
        assert opened.decode(ids) == library.decode(ids.tolist(), skip_special_tokens=False)
    assert repr(tokenizer).endswith("by='the Hugging Face library')")
    with pytest.raises(InputError, match=r"key (model\.\w+|pre_tokenizer) is .*"):
        _ = tokenizer.vocabulary


def test_a_text_that_cannot_be_spelled_is_an_error_and_which(tmp_path: Path) -> None:
    found = llama2()
    content = json.loads(found.to_str())
    content["model"] |= {"unk_token": None, "byte_fallback": False}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = Tokenizer.open(tmp_path)
    with pytest.raises(InputError, match=r"^texts\[1\]: unspelled: .* has no token for 1 part of the text, such as '日'$"):
        tokenizer.encode(pa.chunked_array([["the cat"], ["the 日cat"]]))


def test_ranks_need_a_pattern_and_names_become_tokens_where_asked(tmp_path: Path) -> None:
    file = tmp_path / "some.tiktoken"
    file.write_bytes(b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256)))
    with pytest.raises(InputError, match="give the pattern of its publisher"):
        Tokenizer.open(file)
    for how, expected in (("text", [60, 101, 62]), ("token", [256])):
        tokenizer = Tokenizer.open(file, pattern="gpt2", special_tokens=[("<e>", 256)], special_tokens_in_text=how)
        assert tokenizer.encode(["<e>"])[0].tolist() == expected
        assert pickle.loads(pickle.dumps(tokenizer)).encode(["<e>"])[0].tolist() == expected
    assert tokenizer.decode([97, 256]) == "a<e>" and tokenizer.decode([97, 256], skip_special_tokens=True) == "a"


def test_a_pickle_holds_all_that_is_needed(folders: dict[str, Path], tmp_path: Path) -> None:
    for inference in (None, "longest_prefix"):
        file = tmp_path / f"{inference}.json"
        file.write_bytes((folders["scaffold"] / "gristmill-tokenizer.json").read_bytes())
        tokenizer = Tokenizer.open(file, inference=inference)
        expected = lists(*tokenizer.encode(LEARNED))
        held = pickle.dumps(tokenizer)
        file.unlink()
        assert lists(*pickle.loads(held).encode(LEARNED)) == expected


def test_threads_encode_at_once(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.open(folders["scaffold"])
    texts = [[text * (1 + i % 3) for text in LEARNED] for i in range(12)]
    expected = [lists(*Tokenizer.open(folders["scaffold"]).encode(some)) for some in texts[:3]]
    together = threading.Barrier(3)

    def work(i: int) -> list[list[int]]:
        if i < 3:
            together.wait()
        return lists(*tokenizer.encode(texts[i]))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(12))) == [expected[i % 3] for i in range(12)]


def test_roles_are_those_of_the_config_beside_the_file(folders: dict[str, Path], tmp_path: Path) -> None:
    assert (Tokenizer.open(folders["bpe"]).bos_id, Tokenizer.open(folders["bpe"]).eos_id) == (None, None)
    (tmp_path / "tokenizer.json").write_bytes((folders["bpe"] / "tokenizer.json").read_bytes())
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"eos_token": EOS, "bos_token": {"content": "<s>"}, "pad_token": None}))
    tokenizer = Tokenizer.open(tmp_path / "tokenizer.json")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 0, None)
    assert pickle.loads(pickle.dumps(tokenizer)).eos_id == 0
    for text, message in (
        ("[", r"tokenizer_config.json' cannot be read as a tokenizer_config.json"),
        ("[]", r"tokenizer_config.json' is a list of 0; a tokenizer_config.json is an object$"),
        ('{"eos_token": 5}', r"key eos_token is the number 5; it must be text, an object with text as 'content', or null$"),
        ('{"pad_token": {"content": null}}', r"key pad_token is an object with 'content'; it must be text"),
    ):
        config.write_text(text)
        with pytest.raises(InputError, match=message):
            Tokenizer.open(tmp_path)


def test_a_role_that_no_token_has_is_not_silently_none(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folders["bpe"] / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<s>"}))
    tokenizer = Tokenizer.open(tmp_path)
    assert (tokenizer.bos_id, tokenizer.pad_id, len(tokenizer.encode(["the cat"])[1])) == (1, None, 2)
    with pytest.raises(InputError, match=r"names '</s>' as its eos_token, which is no special token; it has .*, <s>$"):
        _ = tokenizer.eos_id


@pytest.mark.parametrize("make", [None, llama2])
def test_what_is_no_utf8_is_numbered_over_all_chunks(folders: dict[str, Path], tmp_path: Path, make) -> None:
    if make is not None:
        make().save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.open(tmp_path if make else folders["bpe"])
    good = pa.array(["the", "cat"])
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 3, 6], np.int32)), pa.py_buffer(b"thec\xfft"))
    for texts in (pa.chunked_array([good, good.slice(1), bad]), pa.chunked_array([good, pa.array(["a"]), bad.slice(0)])):
        with pytest.raises(InputError, match=r"^texts\[4\] is not valid UTF-8 at its byte 1 \(0xFF\); texts must be valid"):
            tokenizer.encode(texts)


def test_mistakes_say_what_to_do(folders: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = Tokenizer.open(folders["bpe"])
    for texts, error, message in (
        ("the cat", TypeError, r"found one string; give \[text\]"),
        (["a", 3], TypeError, r"texts\[1\] must be a string, found int"),
        (pa.array([1]), TypeError, "found one of int64"),
        (pa.array(["a", None]), InputError, "texts has a null; fill in"),
        (["a", "\ud800"], InputError, r"texts\[1\] is no valid Unicode"),
    ):
        with pytest.raises(error, match=message):
            tokenizer.encode(texts)
    with pytest.raises(InputError, match=rf"^ids are from 1 to 320, but tokenizer .* has {tokenizer.vocab_size}"):
        tokenizer.decode([320, 1])
    with pytest.raises(InputError, match="does not exist"):
        Tokenizer.open(tmp_path)
    few = {"format": "gristmill-tokenizer", "version": 1, "inference": "merges", "cuts": [], "special_tokens": {}}
    few |= {"ignore_merges": False, "scaffolds": 0, "whole": None, "merges": [], "tokens": spell([b"a", b"b"])}
    (tmp_path / "gristmill-tokenizer.json").write_text(json.dumps(few))
    with pytest.raises(InputError, match="has no token for 241 of 256 bytes"):
        Tokenizer.open(tmp_path)


def test_arguments_are_what_they_can_be(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"^special_tokens_in_text is 'refuse'; it can be \"text\", \"token\"$"):
        Tokenizer.open(folders["bpe"], special_tokens_in_text="refuse")
    with pytest.raises(
        ValueError, match=r"^inference is 'longest'; it can be \"merges\", \"longest_prefix\", \"least_tokens\" or"
    ):
        Tokenizer.open(folders["bpe"], inference="longest")


@pytest.mark.parametrize("ids", [[1.5], [True], ["1"], 5, [[1, 2]], [2**70], None, pa.array([1, None])])
def test_what_is_no_id_has_no_text(folders: dict[str, Path], ids: object) -> None:
    with pytest.raises(TypeError, match=r"^ids must be whole numbers in one dimension, found .* of shape \("):
        Tokenizer.open(folders["bpe"]).decode(ids)


def test_an_id_far_off_takes_no_memory(folders: dict[str, Path], tmp_path: Path) -> None:
    data = json.loads((folders["bpe"] / "tokenizer.json").read_text())
    name = list(data["model"]["vocab"])[-1]
    data["model"]["vocab"][name] = 2**40
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=rf"key model.vocab has ids to {2**40}; there can be 16,777,216 at most"):
        Tokenizer.open(tmp_path)
    ranks = tmp_path / "ranks"
    ranks.write_bytes(b"\n".join(base64.b64encode(bytes([i])) + b" %d" % i for i in range(256)))
    with pytest.raises(InputError, match=rf"has ids to {2**40}, its special tokens counted; there can be 16,777,216 at most"):
        Tokenizer.open(ranks, pattern="gpt2", special_tokens=[("<end>", 2**40)])


@pytest.mark.parametrize("inference", ["longest_prefix", "least_tokens"])
def test_a_normalizer_that_is_none_is_a_mistake_without_merges_too(
    folders: dict[str, Path], tmp_path: Path, inference: Any
) -> None:
    data = json.loads((folders["bpe"] / "tokenizer.json").read_text()) | {"normalizer": {"type": "Nope"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    message = r"^tokenizer '.*': key normalizer: the library cannot read {\"type\": \"Nope\"}: "
    with pytest.raises(InputError, match=message):
        Tokenizer.open(tmp_path, inference=inference).encode(["the cat"])


def test_a_normalizer_that_is_none_is_a_mistake_in_the_file(folders: dict[str, Path], tmp_path: Path) -> None:
    data = json.loads((folders["bpe"] / "tokenizer.json").read_text()) | {"normalizer": {"type": "Nope"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"^tokenizer '.*': the library says that it cannot be read: .* Normalizer"):
        Tokenizer.open(tmp_path).encode(["the cat"])
