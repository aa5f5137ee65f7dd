"""The folder of a trained reference model, and the model that a training begins with.

Writes what `transformers` opens (config.json, model.safetensors, the build's tokenizer.json, a model card), `gristmill.json` with
all that is known of it (data, tokenizer, what stood before documents, the recipe), and `training.jsonl`, a line a step. Reads the
same, to tell whether it is whole; and the folder of a base model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from gristmill.errors import InputError, UserError
from gristmill.format.schema import Tokenizer
from gristmill.storage.store import sha256_file
from jobs.reference.fsync import sync
from jobs.reference.llama import make_llama, shape_of
from jobs.reference.recipe import Recipe

RECORD, WEIGHTS, CARD, STEPS = "gristmill.json", "model.safetensors", "README.md", "training.jsonl"
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
FORMAT, VERSION = "gristmill-reference-model", 1
KEY = "gristmill"  # in config.json, where what decides how to score stands too


def first_token(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what stood before each document in training, as plain data: how documents are to be scored.

    `policy`: `bos`: the id that begins documents, which is a part of them; `eos`: the one that ended the document before; `none`:
    the end of another document, nothing that could be put there. `id`: the id, or None.
    """
    policy: Literal["bos", "eos", "none"] = (
        "bos" if tokenizer.bos_id is not None else "eos" if tokenizer.eos_id is not None else "none"
    )
    return {"policy": policy, "id": tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id}


# ---- what training begins with ----


def start(recipe: Recipe, tokenizer: Tokenizer, tokenizer_file: bytes | None) -> Any:  # noqa: ANN401 - of transformers
    """Return the model that a training begins with, in float32 on the CPU.

    Raises:
        InputError: the base model cannot be used: its files, its tokenizer, or the length of its sequences.
    """
    if recipe.model.base is not None:
        return _base(Path(recipe.model.base), recipe.length, tokenizer, tokenizer_file)
    shape = recipe.model.shape if recipe.model.shape is not None else recipe.model.size
    assert shape is not None, "a recipe has one of the three"
    return make_llama(
        shape_of(shape),
        tokenizer.vocab_size,
        length=recipe.length,
        seed=recipe.seed,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
    )


def base_sha256(folder: Path) -> str:
    """Return a hash over the config and the weights of a base model.

    Raises:
        InputError: they are not there.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not (folder / CONFIG).is_file() or not files:
        raise InputError(
            f"model: base {str(folder)!r} has no {CONFIG} with *.safetensors; give the folder of a model of transformers"
        )
    digest = hashlib.sha256()
    for path in [folder / CONFIG, *files]:
        digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _base(folder: Path, length: int, tokenizer: Tokenizer, tokenizer_file: bytes | None) -> Any:  # noqa: ANN401
    try:
        model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"model: base {str(folder)!r} cannot be opened by transformers: {error}") from error
    if missing := sorted(loaded["missing_keys"]):  # transformers would fill them with random numbers
        raise InputError(
            f"model: base {str(folder)!r} has no weights for {missing[0]} ({len(missing)} missing); give a decoder that was "
            "saved with its head, such as LlamaForCausalLM"
        )
    rows, limit = model.get_input_embeddings().weight.shape[0], getattr(model.config, "max_position_embeddings", None)
    if rows < tokenizer.vocab_size:
        raise InputError(
            f"model: base {str(folder)!r} has embeddings for {rows} tokens, the build's tokenizer has {tokenizer.vocab_size}; "
            "encode the build with the tokenizer of the base model"
        )
    if limit is not None and length > limit:
        raise InputError(f"model: base {str(folder)!r} takes {limit} tokens at most, length is {length}; give a shorter one")
    own = folder / TOKENIZER
    if own.is_file() and tokenizer_file is not None and _meaning(own.read_bytes()) != _meaning(tokenizer_file):
        raise InputError(
            f"model: base {str(folder)!r} has another tokenizer than the build (sha256 {tokenizer.sha256}): its ids mean other "
            "tokens; encode the build with the tokenizer of the base model"
        )
    return model


def _meaning(file: bytes) -> object:
    """Return what decides the ids, as transformers may have written the same tokenizer in another way."""
    content = json.loads(file)
    model = content.get("model", {})
    parts = {key: content.get(key) for key in ("normalizer", "pre_tokenizer")}
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges") or []]
    return {**parts, "vocab": model.get("vocab"), "merges": merges}


# ---- what training ends with ----


def finished(folder: Path) -> dict[str, Any] | None:
    """Return the record of a finished model; None where there is no folder.

    Raises:
        UserError: the folder holds something else, or the weights are not those that were written.
    """
    if not folder.exists():
        return None
    path = folder / RECORD
    if not path.is_file():
        raise UserError(f"{str(folder)!r} exists and is no model of this command; name another output, or delete it yourself")
    record: dict[str, Any] = json.loads(path.read_text())
    if not (folder / WEIGHTS).is_file() or sha256_file(folder / WEIGHTS) != record["weights"]["sha256"]:
        raise UserError(f"{str(folder / WEIGHTS)!r} is not what was written; delete {str(folder)!r} to have it made again")
    return record


def write(
    folder: Path,
    model: Any,  # noqa: ANN401 - of transformers
    tokenizer: Tokenizer,
    tokenizer_file: bytes | None,
    facts: Mapping[str, Any],
    steps: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """Make the folder of a model appear at once; return its record.

    Args:
        folder: must not exist.
        model: its weights are written as they are.
        tokenizer: of the build.
        tokenizer_file: its file; None where the build does not have it.
        facts: what else to record: `data`, `length`, `start`, `training`, `recipe`.
        steps: what each step did.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        policy = first_token(tokenizer)
        setattr(model.config, KEY, {"first_token": policy, "tokenizer_sha256": tokenizer.sha256, "build": facts["data"]["build"]})
        model.save_pretrained(temporary, max_shard_size="10TB")  # one file
        if tokenizer_file is not None:
            _put_tokenizer(temporary, tokenizer, tokenizer_file, facts["length"])
        record = {
            "format": FORMAT,
            "version": VERSION,
            "weights": {
                "file": WEIGHTS,
                "sha256": sha256_file(temporary / WEIGHTS),
                "parameters": sum(weight.numel() for weight in model.parameters()),
            },
            "tokenizer": dict(vars(tokenizer)),
            "first_token": policy,
            **facts,
            "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
        (temporary / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        (temporary / STEPS).write_text("".join(f"{json.dumps(step)}\n" for step in steps))
        (temporary / CARD).write_text(_card(record))
        sync(*temporary.iterdir(), temporary)
        temporary.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return record


def _put_tokenizer(folder: Path, tokenizer: Tokenizer, file: bytes, length: int) -> None:
    """Write the tokenizer's file, and beside a standard one what makes `AutoTokenizer` open it."""
    assert tokenizer.file is not None, "its content is there"
    (folder / tokenizer.file).write_bytes(file)
    if tokenizer.file != TOKENIZER:
        return
    names = {token["id"]: token["content"] for token in json.loads(file).get("added_tokens") or []}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": names.get(tokenizer.bos_id),
        "eos_token": names.get(tokenizer.eos_id),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": length,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def _card(record: Mapping[str, Any]) -> str:
    """Return the model card: what the record says, for people."""
    data, training, policy = record["data"], record["training"], record["first_token"]
    before = "nothing" if policy["id"] is None else f"id {policy['id']} (`{policy['policy']}`)"
    conditions = " and ".join(f"`{each}`" for each in data["conditions"]) or "all"
    loss = "" if training["held_out"] is None else f" Held-out loss {training['held_out']['loss']:.4f} nats a token."
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [gristmill, reference-model]
---

# A reference model for token scores

{record["weights"]["parameters"]:,} parameters, trained by gristmill for {training["steps"]:,} steps on {training["tokens"]:,}
tokens.{loss}

| | |
|---|---|
| data | build `{data["build"]}` ({data["name"]}), documents: {conditions}; {data["training"]["documents"]:,} of them |
| began with | `{json.dumps(record["start"])}` |
| tokenizer | sha256 `{record["tokenizer"]["sha256"]}`, {record["tokenizer"]["vocab_size"]:,} tokens |
| before a document | {before} |
| sequences | {record["length"]:,} tokens, documents one after the other, attention across them |
| weights | float32, sha256 `{record["weights"]["sha256"]}` |

`{RECORD}` says all of it, and the recipe, for machines.
"""
