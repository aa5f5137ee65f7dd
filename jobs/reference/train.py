"""`train-reference`: a small language model on chosen documents of a build, to score tokens with.

Reads a recipe and a build of tokens. Writes below the recipe's `output`: `model/`, which transformers opens; `recipe.json`, what
was asked for; and `work/` with the chosen documents and checkpoints, which may be deleted when the model is there. What was
interrupted goes on from its newest checkpoint and ends in the same weights, to the last bit, on the same kind of device with
the same number of threads. Standard output ends with `model <sha256 of the weights> <path of the model>`.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gristmill import TokenDataset, TokenLoader
from gristmill.errors import InputError, UserError
from gristmill.secrets import without_secrets
from jobs.config.parameters import as_data
from jobs.progress import TrainingLog, TrainingProgress
from jobs.reference.recipe import Recipe, read_recipe
from jobs.reference.split import HELD_OUT, TRAINING, Build, divide, open_tokens
from jobs.terminal import say, tell

if TYPE_CHECKING:
    from jobs.reference.training_loop import Training

RECORD, MODEL, WORK = "recipe.json", "model", "work"
DATA, CHECKPOINTS = f"{WORK}/data", f"{WORK}/checkpoints"
MEASURED = 1 << 20  # held-out tokens that the loss is measured on, at most
NEEDED = ("torch", "transformers", "safetensors")


class Held(NamedTuple):
    """What was measured on held-out documents after so many steps: mean loss in nats a token, and in bits a byte of text."""

    step: int
    loss: float
    bits_per_byte: float


class Work(NamedTuple):
    """A recipe with everything in it decided, and the build it is about."""

    recipe: Recipe
    build: Build
    tokenizer_file: bytes | None
    output: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `train-reference` takes."""
    parser.add_argument("recipe", help="the model's YAML")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    return train(arguments.recipe)


def train(path: str) -> int:
    """Train as the recipe says, or go on, or find that it was done before; return the exit code.

    Raises:
        UserError: a mistake in the recipe, data that cannot be used, an output that holds another model, or a package missing.
    """
    recipe = read_recipe(path)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"train-reference needs {' and '.join(missing)}: install them with `pip install -e '.[scoring]'`")
    recipe = _decide(recipe)
    build = open_tokens(recipe.build)
    tokenizer = build.manifest.tokenizer
    assert tokenizer is not None, "open_tokens has checked it"
    file = None if tokenizer.file is None else build.location.read(tokenizer.file)
    work = Work(recipe, build, file, Path(recipe.output))
    with _claim(work.output, _identity(work)):
        record = _finish(work)
    held = record["training"]["held_out"]
    if held is not None:
        tell(f"held-out loss {held['loss']:.4f} nats a token, {held['bits_per_byte']:.4f} bits a byte")
    say(f"model {record['weights']['sha256']} {work.output / MODEL}")
    return 0


# ---- what is asked for, and whether the output is of it ----


def _decide(recipe: Recipe) -> Recipe:
    """Return the recipe with what depends on this machine decided."""
    import torch

    there = torch.cuda.is_available()
    if recipe.device == "cuda" and not there:
        raise UserError("device is cuda, but torch finds no GPU here; give auto or cpu")
    cuda = recipe.device == "cuda" or (recipe.device == "auto" and there)
    return replace(
        recipe,
        device="cuda" if cuda else "cpu",
        dtype=recipe.dtype or ("bfloat16" if cuda else "float32"),
        compile=cuda if recipe.compile is None else recipe.compile,
    )


def _identity(work: Work) -> dict[str, Any]:
    """Return all that the weights depend on, as plain data."""
    from jobs.reference.model import base_sha256

    asked = as_data(work.recipe)
    for name in ("output", "build", "checkpoint_every"):
        del asked[name]  # these change nothing in the weights; what the build's documents are stands below
    manifest, base = work.build.manifest, work.recipe.model.base
    assert manifest.tokenizer is not None, "open_tokens has checked it"
    asked["tokens"] = {"order": manifest.order, "tokenizer": manifest.tokenizer.sha256}
    if base is not None:
        asked["model"] = {"base": base_sha256(Path(base))}
    found: dict[str, Any] = json.loads(json.dumps(asked))
    return found


@contextmanager
def _claim(output: Path, identity: Mapping[str, Any]) -> Iterator[None]:
    """Hold the output folder for this process; note there what it is for, or compare.

    Raises:
        UserError: it is for something else, or another process holds it.
    """
    output.mkdir(parents=True, exist_ok=True)
    handle = os.open(output, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training into {str(output)!r}; wait for it") from None
        path = output / RECORD
        if path.is_file() and json.loads(path.read_text()) != identity and not _begun(output):
            shutil.rmtree(output / WORK, ignore_errors=True)  # a recipe that could not be carried out, mended since
            path.unlink()
        if not path.is_file():
            if strangers := sorted(each.name for each in output.iterdir() if each.name != path.name + ".new"):
                raise UserError(
                    f"output {str(output)!r} holds {', '.join(strangers[:3])}, which is not of this command; name another"
                )
            new = path.with_name(path.name + ".new")
            new.write_text(json.dumps(identity, indent=1) + "\n")
            os.replace(new, path)
        before = json.loads(path.read_text())
        if before != identity:
            differing = sorted(key for key in before.keys() | identity.keys() if before.get(key) != identity.get(key))
            listed = "; ".join(f"{key} was {before.get(key)}, is {identity.get(key)}" for key in differing)
            raise UserError(f"output {str(output)!r} is of another recipe: {listed}. Name another output, or delete it yourself")
        yield
    finally:
        os.close(handle)


def _begun(output: Path) -> bool:
    """Tell whether steps were taken for this output."""
    return (output / MODEL).exists() or any((output / CHECKPOINTS).glob("step-*.pt"))


# ---- training ----


def _finish(work: Work) -> dict[str, Any]:
    """Return the record of the model, made now unless it is there."""
    from jobs.reference import model

    folder = work.output / MODEL
    record = model.finished(folder)
    if record is not None:
        tell(f"{folder} is there already")
        return record
    data = work.output / DATA
    if not data.exists():
        recipe = work.recipe
        with TrainingProgress() as shown:
            divide(
                work.build,
                recipe.documents,
                recipe.held_out,
                recipe.seed,
                data,
                lambda done, total: shown("choose documents", done, total, "tokens"),
            )
    training, held = _train(work)
    tokenizer = work.build.manifest.tokenizer
    assert tokenizer is not None, "open_tokens has checked it"
    facts = _facts(work, training, held)
    steps = ({"step": number, **step._asdict()} for number, step in enumerate(training.history, 1))
    return model.write(folder, training.model, tokenizer, work.tokenizer_file, facts, steps)


def _train(work: Work) -> tuple[Training, list[Held]]:
    """Take all steps that are not yet taken; return the run at its end, and what was measured."""
    import torch

    from jobs.reference import checkpoint
    from jobs.reference.training_loop import repeatable

    recipe, folder = work.recipe, work.output / CHECKPOINTS
    with repeatable():
        training, held = _open(work), list[Held]()
        found = checkpoint.newest(folder)
        if found is not None:
            state = found[1]
            training.load_state_dict(state)
            held = [Held(*each) for each in state["held_out"]]
            tell(f"going on from {found[0]}")
        saved, steps = training.step, training.schedule.steps
        log = TrainingLog(steps, recipe.batch_tokens)
        try:
            while True:
                due = training.step % recipe.checkpoint_every == 0 or training.step == steps
                if due and (not held or held[-1].step < training.step):
                    held += _measure(work, training)
                if due and training.step > saved:
                    checkpoint.save(folder, training.step, {**training.state_dict(), "held_out": [list(each) for each in held]})
                    saved = training.step
                    log.resume()
                if training.step == steps:
                    return training, held
                done = training.run_step()
                log.step(training.step, *done)
        except FloatingPointError as error:
            raise UserError(f"training diverged: {error}. Lower the peak, or raise warm_up, and name another output") from error
        except torch.OutOfMemoryError as error:
            raise UserError(f"the GPU's memory is too small for {recipe.rows} rows at once; lower `rows` ({error})") from error
        finally:
            training.loader.close()


def _open(work: Work) -> Training:
    """Return the run before its first step."""
    import torch

    from jobs.reference.model import start
    from jobs.reference.training_loop import Schedule, Training, make_optimizer

    recipe, manifest = work.recipe, work.build.manifest
    chosen = open_tokens(str(work.output / DATA / TRAINING)).manifest
    if chosen.tokens < recipe.batch_tokens:
        raise InputError(
            f"the {chosen.documents} documents to train on have {chosen.tokens:,} tokens, a step takes {recipe.batch_tokens:,}: "
            "lower batch_tokens, or widen `documents`"
        )
    assert manifest.tokenizer is not None, "open_tokens has checked it"
    torch.manual_seed(recipe.seed)
    model = start(recipe, manifest.tokenizer, work.tokenizer_file)
    dataset = TokenDataset.open(work.output / DATA / TRAINING, sequence_length=recipe.length, seed=recipe.seed)
    steps = recipe.steps or max(1, math.floor(recipe.epochs * len(dataset) / recipe.batch_rows))
    size = sum(weight.numel() for weight in model.parameters())
    tell(
        f"{size:,} parameters, {steps:,} steps of {recipe.batch_tokens:,} tokens; {chosen.documents:,} documents of "
        f"{manifest.documents:,} with {chosen.tokens:,} tokens; {recipe.device}, {recipe.dtype}"
    )
    cuda = recipe.device == "cuda"
    assert recipe.dtype is not None and recipe.compile is not None, "decided before"
    return Training(
        model,
        TokenLoader(dataset, recipe.rows, as_torch=True, pin_memory=cuda),
        Schedule(steps=steps, peak=recipe.peak, warm_up=round(recipe.warm_up * steps), floor=recipe.floor),
        optimizer=lambda model: make_optimizer(model, weight_decay=recipe.weight_decay),
        accumulate=recipe.batch_rows // recipe.rows,
        clip=recipe.clip,
        device=recipe.device,
        dtype=recipe.dtype,
        compile=recipe.compile,
    )


def _measure(work: Work, training: Training) -> list[Held]:
    """Return the loss on the held-out documents as a list of one; of none where no document is held out."""
    recipe, folder = work.recipe, work.output / DATA / HELD_OUT
    totals = json.loads((folder / "manifest.json").read_text())["totals"]
    if totals["tokens"] < 2:
        return []
    length = min(recipe.length, totals["tokens"])
    dataset = TokenDataset.open(folder, sequence_length=length, seed=recipe.seed)
    rows = min(recipe.rows, len(dataset))
    loader = TokenLoader(dataset, rows, as_torch=True, prefetch=0)
    number = min(len(dataset), max(1, MEASURED // length)) // rows
    loss = training.mean_loss(loader.batch(first * rows) for first in range(number))
    bits = loss * totals["tokens"] / totals["text_bytes"] / math.log(2)
    tell(f"step {training.step:,}: held-out loss {loss:.4f} nats a token, {bits:.4f} bits a byte")
    return [Held(training.step, loss, bits)]


def _facts(work: Work, training: Training, held: list[Held]) -> dict[str, Any]:
    """Return what the record of the model says beside weights and tokenizer."""
    recipe, manifest = work.recipe, work.build.manifest
    parts = {name: _part(work.output / DATA / name) for name in (TRAINING, HELD_OUT)}
    return {
        "length": recipe.length,
        "data": {
            "build": manifest.build,
            "order": manifest.order,
            "name": manifest.name,
            "conditions": [str(condition) for condition in recipe.documents],
            "training": parts[TRAINING],
            "held_out": parts[HELD_OUT],
        },
        "start": {key: value for key, value in as_data(recipe.model).items() if value is not None},
        "training": {
            "steps": training.step,
            "tokens": training.step * recipe.batch_tokens,
            "held_out": held[-1]._asdict() if held else None,
            "held_out_by_step": [each._asdict() for each in held],
        },
        "recipe": without_secrets(as_data(recipe)),
    }


def _part(folder: Path) -> dict[str, Any]:
    """Return what identifies the chosen documents: the build's id and totals."""
    content = json.loads((folder / "manifest.json").read_text())
    return {"build": content["build"], **content["totals"]}
