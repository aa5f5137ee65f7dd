"""Loading of causal language models: what comes out gives transformers' own logits, and what is wrong with files is an error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from gristmill.errors import InputError
from gristmill.models.causal_lm import weights
from tests.gristmill.models.causal_lm.saved_models import SIZES, VOCABULARY, loaded, made, ours, said_by
from tests.stages.score import tiny_models

SMALL_HEADS = {**SIZES, "head_dim": 8}
GPT2: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
NEOX = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}

# How a model comes from its config, and what its logits need that others' do not.
MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "llama": (lambda: transformers.LlamaConfig(**SIZES), {}),
    "llama, tied": (lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=True), {}),
    "qwen 3": (lambda: transformers.Qwen3Config(**SMALL_HEADS), {}),
    "gemma 2": (lambda: transformers.Gemma2Config(**SMALL_HEADS, final_logit_softcapping=5.0), {"softcap": 5.0}),
    "gemma 3": (lambda: transformers.Gemma3TextConfig(**SMALL_HEADS, sliding_window=8), {}),
    "granite": (lambda: transformers.GraniteConfig(**SIZES, logits_scaling=8.0, embedding_multiplier=12.0), {"scale": 1 / 8}),
    "cohere": (lambda: transformers.CohereConfig(**SIZES, logit_scale=0.25), {"scale": 0.25}),
    "gpt-2": (lambda: transformers.GPT2Config(**GPT2, bos_token_id=1, eos_token_id=2), {}),
    "gpt-neox": (lambda: transformers.GPTNeoXConfig(**NEOX), {}),
    "phi, a head with a bias": (lambda: transformers.PhiConfig(**SIZES), {}),
}


def spoiled(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


def edit(file: Path, **changes: Any) -> None:
    data = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({key: value for key, value in (data | changes).items() if value is not ...}))


# ---- models ----


@pytest.mark.parametrize("name", MODELS)
def test_body_and_head_give_the_losses_of_transformers_logits(name: str, tmp_path: Path) -> None:
    config, needed = MODELS[name]
    model = made(config())
    model.save_pretrained(tmp_path)
    found = loaded(tmp_path)
    expected = said_by(model)
    assert torch.allclose(ours(found), expected, rtol=0, atol=2e-5)
    for what, value in needed.items():
        assert {"scale": found.logit_scale, "softcap": found.logit_softcap}[what] == value
        plain = {"scale": 1.0} if what == "scale" else {"softcap": None}
        assert (ours(found, **plain) - expected).abs().max() > 0.1, f"the test does not need the {what}"
    assert (found.bos_id, found.eos_id, found.length_limit, found.vocab_size) == (1, 2, 64, VOCABULARY)
    assert not any(parameter.requires_grad for parameter in found.body.parameters()) and not found.body.training


def test_the_dtype_is_the_one_asked_for_whatever_that_of_the_files(llama: Path, tmp_path: Path) -> None:
    made(transformers.LlamaConfig(**SIZES)).to(torch.bfloat16).save_pretrained(tmp_path)
    for folder, dtype in ((tmp_path, torch.float32), (llama, torch.bfloat16)):
        found = loaded(folder, dtype)
        assert {parameter.dtype for parameter in found.body.parameters()} == {found.head.dtype} == {dtype}
        assert found.body.rotary_emb.inv_freq.dtype == torch.float32, "angles of positions need it"
    exact = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.allclose(ours(loaded(tmp_path)), said_by(exact), rtol=0, atol=2e-5)


def test_a_head_that_is_missing_is_an_error_unless_it_is_tied(llama: Path, tmp_path: Path) -> None:
    folder = spoiled(llama, tmp_path)
    tensors = load_file(folder / weights.SINGLE)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / weights.SINGLE, {"format": "pt"})
    with pytest.raises(InputError, match=r"its files lack 1 of the weights .* such as lm_head\.weight.*saved without its head"):
        loaded(folder)
    edit(folder / weights.CONFIG, tie_word_embeddings=True)
    found = loaded(folder)
    assert found.head.data_ptr() == found.body.get_input_embeddings().weight.data_ptr()


def test_a_head_in_the_files_is_used_where_the_config_says_that_it_is_tied(llama: Path, tmp_path: Path) -> None:
    folder = spoiled(llama, tmp_path)
    edit(folder / weights.CONFIG, tie_word_embeddings=True)
    assert torch.equal(loaded(folder).head, load_file(folder / weights.SINGLE)["lm_head.weight"])


def test_weights_that_are_missing_or_of_another_shape_are_errors(llama: Path, tmp_path: Path) -> None:
    folder = spoiled(llama, tmp_path)
    edit(folder / weights.CONFIG, num_hidden_layers=3)
    with pytest.raises(InputError, match=r"its files lack 9 of the weights .*model\.layers\.2\."):
        loaded(folder)
    edit(folder / weights.CONFIG, num_hidden_layers=2, intermediate_size=48)
    with pytest.raises(InputError, match=r"weights cannot be loaded|files lack"):
        loaded(folder)


BERT = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
T5: dict[str, Any] = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
NO_DECODERS: dict[str, tuple[Callable[[], Any], str]] = {
    "masked": (lambda: transformers.BertForMaskedLM(transformers.BertConfig(**BERT)), "no head that predicts the next token"),
    "encoder with a head": (lambda: transformers.BertLMHeadModel(transformers.BertConfig(**BERT)), "depends on later ones"),
    "without a head": (lambda: transformers.LlamaModel(transformers.LlamaConfig(**SIZES)), "LlamaModel, which has no head"),
    "encoder and decoder": (lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)), "has no head"),
    "head of two layers": (
        lambda: transformers.BertLMHeadModel(transformers.BertConfig(**BERT, is_decoder=True)),
        "does something to its logits that is not known here",
    ),
}


@pytest.mark.parametrize("name", NO_DECODERS)
def test_what_is_no_decoder_with_a_plain_head_is_an_error(name: str, tmp_path: Path) -> None:
    make, message = NO_DECODERS[name]
    torch.manual_seed(0)
    make().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message):
        loaded(tmp_path)


def test_an_architecture_that_nobody_knows_is_an_error(llama: Path, tmp_path: Path) -> None:
    folder = spoiled(llama, tmp_path)
    edit(folder / weights.CONFIG, model_type="sphinx")
    with pytest.raises(InputError, match=r"its config cannot be used.*sphinx"):
        loaded(folder)


# ---- folders ----


def test_sharded_weights_are_the_same_model(llama: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 2
    assert torch.equal(ours(loaded(tmp_path)), ours(loaded(llama)))
    assert set(weights.stamps(str(tmp_path))) >= {str(part) for part in parts}
    parts[1].unlink()
    with pytest.raises(InputError, match=rf"names {len(parts)} files, of which 1 are missing, such as .*{parts[1].name}"):
        loaded(tmp_path)


def test_what_a_folder_lacks_is_said(llama: Path, tmp_path: Path) -> None:
    folder = spoiled(llama, tmp_path)
    data = (folder / weights.SINGLE).read_bytes()
    (folder / weights.SINGLE).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="weights cannot be loaded"):
        loaded(folder)
    (folder / weights.SINGLE).rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is a pickle"):
        loaded(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"neither model\.safetensors nor"):
        loaded(folder)
    (folder / weights.CONFIG).write_text("{")
    (folder / weights.SINGLE).write_bytes(data)
    with pytest.raises(InputError):
        loaded(folder)
    (folder / weights.CONFIG).rename(folder / "adapter_config.json")
    with pytest.raises(InputError, match=r"has no config\.json; it holds an adapter"):
        loaded(folder)


def test_the_hash_is_of_the_files_content_wherever_they_lie(llama: Path, tmp_path: Path) -> None:
    folder = spoiled(llama, tmp_path)
    (folder / "README.md").write_text("read by nobody")
    assert weights.find(str(folder)).sha256() == weights.find(str(llama)).sha256() == loaded(folder).sha256
    data = bytearray((folder / weights.SINGLE).read_bytes())
    data[-1] ^= 1
    (folder / weights.SINGLE).write_bytes(data)
    assert weights.find(str(folder)).sha256() != weights.find(str(llama)).sha256()


# ---- tokenizers, first and last tokens ----


def test_a_tokenizer_of_more_ids_than_the_head_is_an_error(llama: Path, tmp_path: Path) -> None:
    folder = spoiled(llama, tmp_path)
    (folder / "tokenizer.json").write_text(tiny_models.tokenizer_json())
    with pytest.raises(InputError, match=r"its tokenizer has ids up to .*, but its head tells 100 apart: vocabulary mismatch"):
        loaded(folder)


def test_a_special_token_beyond_the_head_is_none(llama: Path, tmp_path: Path) -> None:
    folder = spoiled(llama, tmp_path)
    data = json.loads(tiny_models.tokenizer_json())
    data["model"]["vocab"] = {piece: i for piece, i in data["model"]["vocab"].items() if i < VOCABULARY}
    data["model"]["merges"] = []
    data["added_tokens"][0]["id"] = VOCABULARY
    text = json.dumps(data, indent=1)
    (folder / "tokenizer.json").write_bytes(text.replace("\n", "\r\n").encode())
    edit(folder / weights.CONFIG, bos_token_id=..., eos_token_id=VOCABULARY)
    edit(folder / "generation_config.json", bos_token_id=..., eos_token_id=...)
    edit(folder / "tokenizer_config.json", bos_token={"content": tiny_models.END})
    found = loaded(folder)
    assert found.tokenizer_json == text.replace("\n", "\r\n"), "read as it is, to the byte"
    assert (found.bos_id, found.eos_id) == (None, None)


def test_first_and_last_tokens_are_those_of_the_generation_config_then_the_config_then_the_tokenizer(
    llama: Path, tmp_path: Path
) -> None:
    folder = spoiled(llama, tmp_path)
    edit(folder / "generation_config.json", bos_token_id=7, eos_token_id=[8, 9])
    found = loaded(folder)
    assert (found.bos_id, found.eos_id) == (7, 8)
    edit(folder / "generation_config.json", bos_token_id=..., eos_token_id=VOCABULARY)
    found = loaded(folder)
    assert (found.bos_id, found.eos_id) == (1, 2)
    edit(folder / weights.CONFIG, bos_token_id=..., eos_token_id=...)
    found = loaded(folder)
    assert (found.bos_id, found.eos_id) == (None, None), "the defaults of the config's class hold for one vocabulary only"
    tokenizer = json.loads(tiny_models.tokenizer_json())
    tokenizer["model"] |= {"vocab": {}, "merges": []}
    tokenizer["added_tokens"][0]["id"] = 5
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    edit(folder / "tokenizer_config.json", eos_token=tiny_models.END)
    found = loaded(folder)
    assert (found.bos_id, found.eos_id) == (None, 5)


# ---- GGUF ----


def write_gguf(path: Path, model: Any, architecture: str = "qwen2") -> None:
    """Write a Qwen 2 as llama.cpp's converter would."""
    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    data = json.loads(tiny_models.tokenizer_json())
    pieces = [*data["model"]["vocab"], tiny_models.END]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(pieces)
    writer.add_token_types([1] * (len(pieces) - 1) + [3])
    writer.add_token_merges([" ".join(merge) for merge in data["model"]["merges"]])
    writer.add_bos_token_id(len(pieces) - 1)
    writer.add_eos_token_id(len(pieces) - 1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        stem, _, kind = key.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{kind}", tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_the_model_that_it_was_made_from(tmp_path: Path) -> None:
    size = tiny_models.vocab_size(tiny_models.tokenizer_json())
    model = made(transformers.Qwen2Config(**SIZES | {"vocab_size": size}, tie_word_embeddings=False))
    file = tmp_path / "tiny.gguf"
    write_gguf(file, model)
    found = loaded(file)
    assert torch.allclose(ours(found), said_by(model), rtol=0, atol=2e-5)
    assert (found.bos_id, found.eos_id, found.length_limit) == (size - 1, size - 1, 64)
    vocabulary = json.loads(found.tokenizer_json or "")["model"]["vocab"]
    assert vocabulary["Ġthe"] == json.loads(tiny_models.tokenizer_json())["model"]["vocab"]["Ġthe"]
    assert weights.stamps(str(file)) == (str(file),)
    parts = tmp_path / "tiny-00001-of-00002.gguf"
    parts.write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="one of several parts"):
        loaded(parts)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(InputError):
        loaded(file)


def test_a_file_that_is_no_gguf_is_an_error(tmp_path: Path) -> None:
    for name, content in (("model.gguf", b"PK\x03\x04"), ("model.bin", b"GGUF and more")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="is a file, but no GGUF"):
            loaded(tmp_path / name)
