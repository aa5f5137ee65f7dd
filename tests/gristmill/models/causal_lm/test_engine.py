"""The engine gives what transformers says of documents one by one, and the same bits however they come."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from gristmill.errors import InputError
from gristmill.models.causal_lm import engine as engine_module
from gristmill.models.causal_lm.parameters import CausalLm, open_loaded
from tests.gristmill.models.causal_lm.random_models import (
    ALONE,
    CONFIGS,
    FIRST,
    bits,
    documents,
    engine,
    flat,
    in_memory,
    make,
    one_by_one,
    shape,
)

MODELS = [*CONFIGS, *ALONE]


def model_of(name: str) -> Any:
    return make(CONFIGS[name]() if name in CONFIGS else ALONE[name][0]())


@pytest.mark.parametrize("name", MODELS)
def test_packed_is_one_document_at_a_time(name: str) -> None:
    model, docs = model_of(name), documents()
    nll, entropy = one_by_one(model, docs)
    found = engine(model).score(*flat(docs))
    assert found.entropy is not None and not found.errors
    assert np.abs(found.nll - nll).max() < 1e-5
    assert np.abs(found.entropy - entropy).max() < 1e-5
    assert nll.std() > 0.2, "a model that says something"


@pytest.mark.parametrize("name", [*CONFIGS, "mixtral"])
def test_bits_do_not_depend_on_order_neighbours_packs_or_batches(name: str) -> None:
    model, docs = model_of(name), documents(10, longest=100)
    whole = engine(model).score(*flat(docs))
    bounds = flat(docs)[1]
    order = np.random.default_rng(1).permutation(len(docs))
    for some, options in ((order[:8], {"batch": 4}), (order[6:], {"shape": shape(pack=144)}), (order[:1], {})):
        found = engine(model, **options).score(*flat([docs[number] for number in some]))
        for values, expected in ((found.nll, whole.nll), (found.entropy, whole.entropy)):
            assert values is not None and expected is not None
            ours = np.concatenate([expected[bounds[number] : bounds[number + 1]] for number in some])
            assert (bits(values) == bits(ours)).all()


@pytest.mark.parametrize("name", ALONE)
def test_models_that_cannot_be_packed_say_why(name: str) -> None:
    assert ALONE[name][1] in engine(model_of(name)).body.alone


@pytest.mark.parametrize("name", CONFIGS)
def test_the_others_run_packed(name: str) -> None:
    model = model_of(name)
    assert [engine(model).body.alone, engine(model).body.alone] == ["", ""], "a model may be opened twice"


def test_windows_are_what_the_model_sees() -> None:
    model, doc = make(CONFIGS["llama"]()), documents(1, seed=3)[0].repeat(1)
    doc = np.resize(doc, 100)
    found = engine(model, shape=shape(window=40, overlap=10, pack=40)).score(*flat([doc]))
    head, _ = one_by_one(model, [doc[:40]])
    middle, _ = one_by_one(model, [doc[30:70]], first=int(doc[29]))
    last, _ = one_by_one(model, [doc[60:]], first=int(doc[59]))
    assert np.abs(found.nll - np.concatenate([head, middle[10:], last[10:]])).max() < 1e-5


def test_first_token_can_lead_every_window() -> None:
    model, doc = make(CONFIGS["llama"]()), np.resize(documents(1)[0], 60)
    found = engine(model, shape=shape(window=40, overlap=10, pack=40, every_window=True)).score(*flat([doc]))
    head, _ = one_by_one(model, [doc[:40]])
    last, _ = one_by_one(model, [doc[29:]])
    assert np.abs(found.nll - np.concatenate([head, last[11:]])).max() < 1e-5


def test_without_a_first_token_documents_begin_with_nan() -> None:
    model, docs = make(CONFIGS["qwen-3"]()), [np.array([5], np.uint16), np.zeros(0, np.uint16), *documents(4)]
    ids, bounds = flat(docs)
    found = engine(model, shape=shape(first=None)).score(ids, bounds)
    begins = np.unique(bounds[:-1][np.diff(bounds) > 0])
    assert np.flatnonzero(np.isnan(found.nll)).tolist() == begins.tolist() and not found.errors
    last = docs[-1]
    rest, _ = one_by_one(model, [last[1:]], first=int(last[0]))
    assert np.abs(found.nll[bounds[-2] + 1 :] - rest).max() < 1e-5


def test_no_documents_and_no_entropy() -> None:
    model = make(CONFIGS["llama"]())
    for docs in ([], [np.zeros(0, np.uint16)]):
        assert len(engine(model).score(*flat(docs)).nll) == 0
    ids, bounds = flat(documents())
    plain = engine(model, entropy=False).score(ids, bounds)
    assert plain.entropy is None
    assert (bits(plain.nll) == bits(engine(model).score(ids, bounds).nll)).all()


def test_half_precision_is_near_and_its_bits_do_not_move() -> None:
    model, docs = make(CONFIGS["llama"]()), documents()
    nll, _ = one_by_one(model, docs)
    body = engine(model.to(torch.bfloat16))
    found = body.score(*flat(docs))
    assert 1e-4 < np.abs(found.nll - nll).mean() < 0.1
    turned = body.score(*flat(docs[::-1])).nll
    lengths = np.cumsum([0, *map(len, docs[::-1])])
    back = np.concatenate([turned[lengths[-2 - number] : lengths[-1 - number]] for number in range(len(docs))])
    assert (bits(back) == bits(found.nll)).all()


# ---- trouble ----


def test_a_document_without_numbers_is_an_error_and_the_others_keep_their_bits() -> None:
    model = make(CONFIGS["llama"]())
    docs = [np.where(doc == 96, 95, doc).astype(np.uint16) for doc in documents()]
    ours = engine(model)
    clean = ours.score(*flat(docs))
    with torch.no_grad():
        model.get_input_embeddings().weight[96] = torch.inf
    rows = [np.array([9, 7, 96, 5, 5], np.uint16), *docs[:3], np.array([96], np.uint16), *docs[3:]]
    found = ours.score(*flat(rows))
    bounds = flat(rows)[1]
    assert list(found.errors) == [0], "a last token, as that of document 4, is never given to the model"
    assert re.fullmatch(r"the model gave no finite loss at token \d of 5", found.errors[0])
    others = np.setdiff1d(np.arange(bounds[-1]), [*range(bounds[0], bounds[1]), *range(bounds[4], bounds[5])])
    for values, expected in ((found.nll, clean.nll), (found.entropy, clean.entropy)):
        assert values is not None and expected is not None
        assert np.isnan(values[: bounds[1]]).all() and np.isfinite(values[bounds[1] :]).all()
        assert (bits(values[others]) == bits(expected)).all()


class Stand:
    """A body in the place of the engine's: what runs packs, and how many it was given each time."""

    alone = ""

    def __init__(self, run: Any) -> None:
        self._run, self.tried = run, list[int]()

    def run(self, some: Any) -> Any:
        self.tried.append(len(some))
        return self._run(some)


def with_room(body: Any, room: int) -> Stand:
    def run(some: Any) -> Any:
        if len(some) > room:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return body.run(some)

    return Stand(run)


@pytest.mark.parametrize("room", [1, 2, 4])
def test_too_little_memory_halves_the_packs_and_goes_on(room: int) -> None:
    model, docs = make(CONFIGS["llama"]()), documents(40)
    expected = engine(model).score(*flat(docs)).nll
    ours = engine(model, batch=8)
    ours.body = stand = with_room(ours.body, room)
    assert (bits(ours.score(*flat(docs)).nll) == bits(expected)).all()
    assert ours.batch == room and stand.tried[: 4 - room.bit_length()] == [8, 4, 2][: 4 - room.bit_length()]
    stand.tried.clear()
    assert (bits(ours.score(*flat(docs)).nll) == bits(expected)).all()
    assert max(stand.tried) == room, "more is not tried again"


def test_one_pack_too_large_says_what_to_do() -> None:
    ours = engine(make(CONFIGS["llama"]()), batch=2)
    ours.body = with_room(None, 0)
    with pytest.raises(
        InputError, match=r"out of memory on cpu with one pack of 96 tokens: lower pack_tokens \(at least .* 48\)"
    ):
        ours.score(*flat(documents()))


def test_other_errors_of_torch_are_not_taken_for_memory() -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    ours = engine(make(CONFIGS["llama"]()))
    ours.body = Stand(broken)
    with pytest.raises(RuntimeError, match="mat1"):
        ours.score(*flat(documents()))
    assert engine_module.out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))


def test_batches_that_change_bits_are_given_up() -> None:
    model, docs = make(CONFIGS["llama"]()), documents(20)
    expected = engine(model).score(*flat(docs)).nll
    ours, body = engine(model, batch=4), engine(model).body

    def other_order(some: Any) -> Any:
        return body.run(some) + (len(some) > 2) * 1e-6

    ours.body = Stand(other_order)
    assert (bits(ours.score(*flat(docs)).nll) == bits(expected)).all()
    assert ours.batch == 2


def test_ids_of_another_tokenizer_are_refused() -> None:
    with pytest.raises(InputError, match="token id 97: the model's vocabulary ends at 96"):
        engine(make(CONFIGS["llama"]())).score(np.array([5, 97], np.uint16), np.array([0, 2]))


# ---- parameters ----


def opened(**given: Any) -> Any:
    defaults = {"path": "here", "window": 48, "overlap": 12, "pack_tokens": 96, "device": "cpu", "first_token": "bos"}
    parameters = CausalLm(**(defaults | given))
    return open_loaded(parameters, in_memory(make(CONFIGS["llama"]())))


@pytest.mark.parametrize(
    ("first", "number"), [("bos", 1), ("eos", 2), (50, 50), ("none", None)], ids=["bos", "eos", "id", "none"]
)
def test_the_first_token_is_chosen_and_recorded(first: Any, number: int | None) -> None:
    docs = documents(3)
    lm = opened(first_token=first)
    assert lm.facts["first_token_id"] == number and lm.facts["parameters"]["first_token"] == first and lm.vocab_size == 97
    found = lm.score(*flat(docs)).nll
    if number is not None:
        assert np.abs(found - one_by_one(make(CONFIGS["llama"]()), docs, first=number)[0]).max() < 1e-5
        assert number == FIRST or np.abs(found - one_by_one(make(CONFIGS["llama"]()), docs)[0]).max() > 0.1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": 200, "pack_tokens": 400}, "was made for 128 tokens, window is 200; set window to 128 or less"),
        ({"first_token": 97}, "first_token is 97; its ids end at 96"),
    ],
    ids=["window", "first"],
)
def test_parameters_that_the_model_refuses(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"path": ""}, "path is empty"), ({"first_token": -1}, "first_token is -1"), ({"overlap": 48}, "overlap is 48 tokens")],
    ids=["path", "first", "overlap"],
)
def test_parameters_that_cannot_be(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CausalLm(**({"path": "here", "window": 48, "overlap": 12} | given))


def test_a_first_token_that_the_model_does_not_name() -> None:
    loaded = in_memory(make(CONFIGS["llama"]()))
    nameless = type(loaded)(**{**vars(loaded), "bos_id": None})
    with pytest.raises(InputError, match="names no bos token; set first_token to bos, eos, none or an id"):
        open_loaded(CausalLm(path="here", window=48, overlap=12, pack_tokens=96, first_token="bos"), nameless)


def test_the_first_token_is_what_the_model_records_if_nothing_is_said() -> None:
    silent = CausalLm(path="here", window=48, overlap=12, pack_tokens=96, device="cpu")
    with pytest.raises(InputError, match="does not record what stood before a document; set first_token to bos, eos, none or an"):
        open_loaded(silent, in_memory(make(CONFIGS["llama"]())))
    for number in (2, None):
        loaded = in_memory(make(CONFIGS["llama"]()))
        loaded.config.gristmill = {"first_token": {"policy": "eos" if number else "none", "id": number}}
        assert open_loaded(silent, loaded).facts["first_token_id"] == number
