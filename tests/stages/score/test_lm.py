"""The stage that scores a build's tokens with a model from files: against the model alone, and alignment done slowly."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from gristmill.errors import ConfigError, InputError
from gristmill.models.causal_lm.parameters import CausalLm
from gristmill.models.ngram.file import NgramFile
from gristmill.models.ngram.store import load as load_ngram
from gristmill.models.retokenize import Retokenizer
from gristmill.tokenizer import Bpe
from gristmill.tokenizer.files import save
from gristmill.tokenizer.token_bytes import parse_token_bytes
from gristmill.tokenizer.training.corpus import make_corpus
from jobs.config.parameters import build
from pipeline.planning.asking import may_have_pool
from pipeline.planning.fingerprint import describe
from pipeline.resources import Resources
from pipeline.units.flow import Flow, StageRun
from stages.encode.encode import Encode
from stages.score.lm import ScoreLm
from tests.stages.score import tiny_models
from tests.toy import documents

THEIRS = tiny_models.tokenizer_json()
TEXTS = [
    "The cat sat on the mat, and the rain in the forest went on and on.",
    "Ünder the 漢字 tree — 👩‍👩‍👧 — there is another one.",
    "x",
    f"A text that says {tiny_models.END} and goes on; the name of a special token is text.",
    "the in on er re at " * 12,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of ours in `ours`, a model of another tokenizer in `other`, one of ours in `own`."""
    place = tmp_path_factory.mktemp("lm")
    (place / "ours").mkdir()
    save(Bpe(vocab_size=330).train(make_corpus(TEXTS)), place / "ours")
    tiny_models.save_llama(place / "other", THEIRS)
    tiny_models.save_llama(place / "own", (place / "ours/tokenizer.json").read_bytes().decode())
    return place


@pytest.fixture(scope="module")
def docs(folder: Path) -> pa.Table:
    return encoded(folder, TEXTS)


def encoded(folder: Path, texts: list[str]) -> pa.Table:
    return Encode(tokenizer=str(folder / "ours")).open()(documents("a.txt", texts)).drop_columns(["drop"])


def model(path: Path, **changes: Any) -> CausalLm:
    return CausalLm(**{"path": str(path), "window": 256, "overlap": 64, "pack_tokens": 512, "first_token": "bos"} | changes)


def stage(folder: Path, lm: str, **changes: Any) -> ScoreLm:
    return ScoreLm(**{"name": "m", "model": model(folder / lm), "tokenizer": str(folder / "ours")} | changes)


def rows(table: pa.Table, column: str) -> list[np.ndarray]:
    return [np.array(row) for row in table[column].to_pylist()]


def same(one: pa.Table, other: pa.Table) -> bool:
    """Tell whether the columns of the model are equal to the bit."""
    columns = ("ref_loss.m", "entropy.m", "exact.m")
    return all(np.array_equal(*map(np.concatenate, (rows(one, c), rows(other, c))), equal_nan=True) for c in columns)


def about(table: pa.Table, column: str = "ref_loss.m") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(table.schema.field(column).metadata[b"about"])
    return found


def losses_alone(path: Path, ids: list[int]) -> np.ndarray:
    """Return the losses and entropies of one document after the model's first token, by transformers' logits in float64."""
    lm = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.inference_mode():
        tokens = torch.tensor([[lm.config.bos_token_id, *ids]])
        logs = torch.log_softmax(lm(input_ids=tokens, use_cache=False).logits[0, :-1].double(), 1)
    loss = -logs[torch.arange(len(ids)), tokens[0, 1:]]
    return np.stack([loss.numpy(), -(logs.exp() * logs).sum(1).numpy()])


def test_a_model_of_the_builds_own_tokenizer_is_given_the_ids_as_they_are(folder: Path, docs: pa.Table) -> None:
    out = stage(folder, "own", tokenizer=None).open()(docs)
    for number, ids in enumerate(docs["input_ids"].to_pylist()):
        expected = losses_alone(folder / "own", ids)
        for column, values in zip(("ref_loss.m", "entropy.m"), expected, strict=True):
            found = rows(out, column)[number]
            assert np.isnan(found[0]) and np.allclose(found[1:], values[1:], rtol=1e-3, atol=1e-3)
        assert out["exact.m"][number].as_py() == [False] + [True] * (len(ids) - 1)
    assert out["error"].null_count == len(TEXTS)
    assert {name: out.schema.field(name).type for name in stage(folder, "own").adds()} == dict(stage(folder, "own").adds())
    facts = about(out)
    assert (facts["kind"], facts["unit"], facts["aligned"], len(facts["sha256"])) == ("causal_lm", "nats", False, 64)
    assert out.schema.field("exact.m").metadata[b"scheme"] == b"m"


def test_a_document_that_begins_with_the_models_first_token_is_not_given_two(folder: Path, docs: pa.Table) -> None:
    ids = docs["input_ids"].combine_chunks()
    first = about(stage(folder, "own").open()(docs))["first_token_id"]
    led = pa.array([[first, *row] for row in ids.to_pylist()], ids.type)
    place = docs.column_names.index("input_ids")
    out = stage(folder, "own").open()(docs.set_column(place, docs.schema.field(place), led))
    for row, found in zip(ids.to_pylist(), rows(out, "ref_loss.m"), strict=True):
        assert np.isnan(found[0])
        assert np.allclose(found[1:], losses_alone(folder / "own", row)[0], rtol=1e-3, atol=1e-3)


def test_losses_under_another_tokenizer_are_told_of_our_tokens_through_bytes(folder: Path, docs: pa.Table) -> None:
    out = stage(folder, "other").open()(docs)
    assert about(out)["aligned"] is True and out["error"].null_count == len(TEXTS)
    ours, theirs = (parse_token_bytes(text, "x") for text in ((folder / "ours/tokenizer.json").read_text(), THEIRS))
    tokenizer = Tokenizer.from_str(THEIRS)
    tokenizer.encode_special_tokens = True
    share = []
    for number, (text, ids) in enumerate(zip(TEXTS, docs["input_ids"].to_pylist(), strict=True)):
        given = tokenizer.encode(text, add_special_tokens=False).ids
        ends = np.cumsum(theirs.lengths[given])
        assert ends[-1] == len(text.encode()), "a special token's name is text to the model"
        end_of_theirs = theirs.size - 1
        for column, values in zip(
            ("ref_loss.m", "entropy.m"), losses_alone(folder / "other", [*given, end_of_theirs]), strict=True
        ):
            a_byte = np.repeat(values[:-1] / theirs.lengths[given], theirs.lengths[given])
            found, begin = rows(out, column)[number], 0
            for place, token in enumerate(ids):
                end = begin + ours.lengths[token]
                if place == 0:
                    assert np.isnan(found[place])
                else:
                    whole = a_byte[begin:end].sum() if end > begin else values[-1]
                    assert found[place] == pytest.approx(whole, rel=2e-3, abs=1e-3)
                exact = place > 0 and {begin, end} <= {0, *ends}
                assert out["exact.m"][number][place].as_py() is exact
                share.append(exact)
                begin = end
    assert 0.5 < np.mean(share) < 0.98, "the texts must show both"


def test_a_tokenizer_that_is_laid_out_otherwise_is_the_same(folder: Path, docs: pa.Table, tmp_path: Path) -> None:
    text = (folder / "ours/tokenizer.json").read_text()
    tiny_models.save_llama(tmp_path, text)
    (tmp_path / "tokenizer.json").write_text(json.dumps(json.loads(text), indent=2, sort_keys=True))
    out = stage(folder, "own", model=model(tmp_path)).open()(docs)
    assert about(out)["aligned"] is False
    assert same(out, stage(folder, "own").open()(docs))


def test_documents_without_a_number_are_quarantined_with_their_address_and_the_others_keep_their_bits(
    folder: Path, docs: pa.Table, tmp_path: Path
) -> None:
    clean = stage(folder, "own").open()(docs)
    tiny_models.save_llama(tmp_path, (folder / "ours/tokenizer.json").read_bytes().decode())
    tensors = load_file(tmp_path / "model.safetensors")
    only = (set(docs["input_ids"][1].as_py()) - {i for n in (0, 2, 3, 4) for i in docs["input_ids"][n].as_py()}).pop()
    tensors["model.embed_tokens.weight"][only] = np.nan
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    broken = stage(folder, "own", model=model(tmp_path))
    flow = Flow([StageRun("score_lm", broken, broken.open())])
    kept = pa.concat_tables(flow.stream(iter([(0, docs)])))
    flow.finish()
    lost = flow.quarantined()
    assert lost.select(["id", "file", "offset", "stage", "reason"]).to_pylist() == [
        {"id": docs["id"][1].as_py(), "file": "a.txt", "offset": 1, "stage": "score_lm", "reason": "no_score"}
    ]
    assert "no finite loss" in lost["detail"][0].as_py()
    assert same(kept, clean.take(pa.array([0, 2, 3, 4])))


def test_a_text_that_the_models_tokenizer_changes_is_quarantined_with_the_reason(folder: Path, tmp_path: Path) -> None:
    lower = tiny_models.tokenizer_json(normalizer={"type": "NFKC"})
    tiny_models.save_llama(tmp_path, lower)
    docs = encoded(folder, ["plain text", "ﬁne", "more of it"])
    out = stage(folder, "own", model=model(tmp_path)).open()(docs)
    assert [error and error.split(":")[0] for error in out["error"].to_pylist()] == [None, "reference_has_less_text", None]
    assert "a normalizer" in out["error"][1].as_py() or "leaves some text out" in out["error"][1].as_py()
    assert np.isnan(rows(out, "ref_loss.m")[1]).all() and not np.isnan(rows(out, "ref_loss.m")[2][1:-1]).any()


def test_a_tokenizer_json_that_truncates_and_pads_does_neither(folder: Path, docs: pa.Table, tmp_path: Path) -> None:
    cut = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    pad = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": 8,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    tiny_models.save_llama(tmp_path, tiny_models.tokenizer_json(truncation=cut, padding=pad))
    out = stage(folder, "own", model=model(tmp_path)).open()(docs)
    assert same(out, stage(folder, "other").open()(docs))


def test_an_ngram_file_scores_ids_as_they_are(folder: Path, docs: pa.Table, tmp_path: Path) -> None:
    size = int(docs.schema.field("input_ids").metadata[b"vocab_size"])
    path = tiny_models.save_ngram(docs["input_ids"], size, tmp_path / "ngram.arrow")
    scored = ScoreLm(name="m", model=NgramFile(ngram_file=str(path)))
    out = scored.open()(docs)
    assert set(scored.adds()) == {"ref_loss.m", "exact.m"} == set(out.column_names) - set(docs.column_names) - {"error"}
    ids = docs["input_ids"].combine_chunks()
    bounds = ids.offsets.to_numpy().astype(np.int64)
    expected = load_ngram(path).open()(ids.values.to_numpy(), bounds).astype(np.float16)
    expected[bounds[:-1]] = np.nan
    assert np.array_equal(out["ref_loss.m"].combine_chunks().values.to_numpy(), expected, equal_nan=True)
    assert about(out)["kind"] == "ngram_file" and about(out)["order"] == 2
    other = tiny_models.save_ngram(docs["input_ids"], size + 1, tmp_path / "other.arrow")
    with pytest.raises(InputError, match=rf"knows {size + 1} ids, the documents' tokenizer has {size}"):
        ScoreLm(name="m", model=NgramFile(ngram_file=str(other))).open()(docs)


def test_wrong_models_and_tokenizers_are_clear_errors(folder: Path, docs: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"score_lm 'm': the documents' tokenizer .* is not the model's; set tokenizer"):
        stage(folder, "other", tokenizer=None).open()(docs)
    (tmp_path / "tokenizer.json").write_text(THEIRS)
    with pytest.raises(InputError, match="is not the one that made the documents' ids"):
        stage(folder, "own", model=model(folder / "other"), tokenizer=str(tmp_path)).open()(docs)
    tiny_models.save_llama(tmp_path / "bare", None)
    with pytest.raises(InputError, match=r"the model has no tokenizer of its own; put the tokenizer\.json"):
        stage(folder, "own", model=model(tmp_path / "bare")).open()(docs)
    with pytest.raises(InputError, match=r"'/nowhere/at/all': no such folder or file"):
        stage(folder, "own", model=CausalLm(path="/nowhere/at/all")).files()
    with pytest.raises(InputError, match=r"nothing/tokenizer\.json' does not exist; name the folder that `encode` has"):
        stage(folder, "own", tokenizer=str(tmp_path / "nothing")).check()
    with pytest.raises(ValueError, match="name 'a b' must be of"):
        stage(folder, "own", name="a b")


def test_a_document_that_ends_inside_a_character_is_scored_up_to_there() -> None:
    level = parse_token_bytes(THEIRS, "x")
    byte = {bytes(level.data[level.starts[i] : level.starts[i + 1]]): i for i in range(256)}
    spelled = [byte[bytes([b])] for b in "é the in 漢".encode()]
    texts = [spelled, spelled[1:-1], spelled[:-2], [*spelled[:5], spelled[0], *spelled[5:]], spelled[1:2]]
    ids = np.array([i for text in texts for i in text], np.uint32)
    bounds = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    told = Retokenizer(level, THEIRS, "x").encode(ids, bounds)
    assert list(told.errors) == [3] and told.errors[3].startswith("text_not_utf8: ")
    values = np.arange(1.0, len(told.ids) + 1)
    back = Retokenizer(level, THEIRS, "x").back(told, values)
    assert back.reasons[[0, 1, 2, 4]].tolist() == [0, 0, 0, 0]
    parts = [back.values[begin:end] for begin, end in pairwise(bounds)]
    sums = [values[begin:end].sum() for begin, end in pairwise(told.bounds)]
    assert np.isnan(parts[0]).sum() == 0 and parts[0].sum() == pytest.approx(sums[0])
    assert np.flatnonzero(np.isnan(parts[1])).tolist() == [0, len(parts[1]) - 2, len(parts[1]) - 1]
    assert np.flatnonzero(np.isnan(parts[2])).tolist() == [len(parts[2]) - 1]
    assert np.nansum(parts[1]) == pytest.approx(sums[1]) and np.nansum(parts[2]) == pytest.approx(sums[2])
    assert np.isnan(parts[4]).all() and sums[4] == 0
    assert not back.exact[np.isnan(back.values)].any()


def test_the_end_of_a_document_has_the_loss_of_the_models_own_end() -> None:
    table = parse_token_bytes(THEIRS, "x")
    end = tiny_models.vocab_size(THEIRS) - 1
    text = Tokenizer.from_str(THEIRS).encode("the rain", add_special_tokens=False).ids
    ids, bounds = np.array([*text, end, *text], np.uint32), np.array([0, len(text) + 1, 2 * len(text) + 1])
    for ends, added in (((end, end), 1), (None, 0)):
        route = Retokenizer(table, THEIRS, "x", ends)
        told = route.encode(ids, bounds)
        assert np.diff(told.bounds).tolist() == [len(text) + added, len(text)]
        back = route.back(told, np.arange(1.0, len(told.ids) + 1))
        assert np.isnan(back.values[len(text)]) == (not added) and bool(back.exact[len(text)]) == bool(added)
        assert not np.isnan(np.delete(back.values, len(text))).any()


def test_weights_and_tokenizers_are_in_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    def content(path: Path) -> dict[str, str]:
        found: dict[str, str] = describe(stage(folder, "own", model=model(path)))["files"]
        return found

    tokenizer = (folder / "ours/tokenizer.json").read_bytes().decode()
    paths = [tiny_models.save_llama(tmp_path / str(seed), tokenizer, seed=seed) for seed in (0, 0, 1)]
    assert content(paths[0]) == content(folder / "own") != content(paths[2])
    assert content(paths[0]).keys() == content(paths[2]).keys()
    assert str(folder / "ours/tokenizer.json") in stage(folder, "own").files()


def test_the_kind_of_model_is_told_by_the_keys_of_the_config() -> None:
    def made(text: str) -> ScoreLm:
        return build(ScoreLm, yaml.compose(text), "stage 'score_lm'")

    lm = made("{name: small, model: {path: models/small, window: 1024}, tokenizer: build/tokenizer}")
    assert lm.model == CausalLm(path="models/small", window=1024) and lm.tokenizer == "build/tokenizer"
    assert made("{name: base, model: {ngram_file: base.arrow}}").model == NgramFile(ngram_file="base.arrow")
    assert made("{name: base, model: {path: base}}").model == CausalLm(path="base")
    with pytest.raises(ConfigError, match="has no parameter 'windows'; did you mean 'window'"):
        made("{name: base, model: {path: base, windows: 4}}")


def test_neither_configs_nor_plans_need_torch(tmp_path: Path) -> None:
    code = """
import sys
for name in ("torch", "transformers", "gguf", "accelerate", "huggingface_hub"):
    sys.modules[name] = None
from jobs.__main__ import main
from pipeline.planning.fingerprint import describe
from stages import STAGES
from gristmill.models.causal_lm.parameters import CausalLm
stage = STAGES["score_lm"](name="m", model=CausalLm(path=sys.argv[1]))
stage.check(), stage.adds()
assert len(describe(stage)["files"]) >= 3
raise SystemExit(main(["stages"]))
"""
    path = tiny_models.save_llama(tmp_path, THEIRS)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and "score_lm" in done.stdout, done.stderr


def test_a_language_model_has_a_process_a_gpu_of_its_own_and_an_ngram_model_is_opened_where_the_documents_are(
    folder: Path,
) -> None:
    assert stage(folder, "own").resources() == Resources()
    assert stage(folder, "own", model=model(folder / "own", device="cpu")).resources() == Resources(gpus=0.0)
    assert stage(folder, "own", model=NgramFile(ngram_file="m.arrow")).resources() is None
    assert may_have_pool(stage(folder, "own", model=NgramFile(ngram_file="m.arrow"))), "run.pools may give it processes"
