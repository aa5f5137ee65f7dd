"""Train a small GPT on a build, with the selective loss and without: `python -m examples.train_gpt build/demo`.

Reads the newest build of an output folder; its reference losses (`ref_loss.reference`) decide what the selective loss trains on.
Writes a checkpoint into a temporary folder half-way, and shows that training resumed from it gives the same losses, to the bit.
Needs torch, `pip install '.[torch]'`, and a minute or two. Expect no gain from selection at this size: the smallest model of the
paper has 1.1 billion parameters.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from examples.small_gpt import Gpt, make_gpt
from gristmill import Batch, TokenDataset, TokenLoader
from gristmill.torch import selective_loss

BATCH = 16  # sequences
REFERENCE = "ref_loss.reference"  # the column of the reference model's losses
HELD_OUT = 16  # batches at the end of the first epoch that are not trained on
PEAK, WARM_UP = 1e-2, 20  # the learning rate, and the steps over which it rises to it


class Setting(NamedTuple):
    """What a run depends on; `keep` is None for plain cross-entropy."""

    dataset: TokenDataset
    steps: int
    keep: float | None
    quick: bool


class Run:
    """A training run: model, optimizer and loader. These three are its whole state."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        tokenizer = setting.dataset.manifest().tokenizer
        assert tokenizer is not None, "a dataset has tokens"
        self.model: Gpt = make_gpt(tokenizer.vocab_size, setting.dataset.sequence_length, quick=setting.quick)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
        self.loader = TokenLoader(setting.dataset, BATCH, as_torch=True)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss to minimise; labels are shifted already."""
        logits = self.model(batch.input_ids)
        if self.setting.keep is None:
            return cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
        return selective_loss(logits, batch, keep=self.setting.keep, score="excess", reference=REFERENCE)

    def train(self, steps: range, *, verbose: bool = False) -> list[float]:
        """Take these steps and return their losses."""
        losses = []
        for step, batch in zip(steps, self.loader, strict=False):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(step, self.setting.steps)
            self.optimizer.zero_grad()
            loss = self.loss(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            losses.append(loss.item())
            if verbose and (step % max(1, self.setting.steps // 6) == 0 or step + 1 == self.setting.steps):
                print(f"  step {step:>4}: loss {losses[-1]:.4f}")
        return losses

    def save(self, path: Path) -> None:
        """Write the state of the run."""
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "loader": self.loader.state_dict()}
        torch.save(parts, path)

    def load(self, path: Path) -> None:
        """Read it."""
        parts = torch.load(path)
        self.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        self.loader.load_state_dict(parts["loader"])

    @torch.no_grad()
    def held_out(self) -> tuple[float, float]:
        """Return the mean loss on the epoch's last batches: of all tokens, and of the half that the reference finds easier."""
        losses, references = [], []
        for number in range(HELD_OUT):
            batch = self.loader.batch(first_held_out(self.setting.dataset) + number * BATCH)
            logits, labels = self.model(batch.input_ids).flatten(0, 1), batch.labels.flatten()
            losses.append(cross_entropy(logits, labels, reduction="none"))
            references.append(batch.columns[REFERENCE].flatten().float())
        loss, reference = torch.cat(losses), torch.cat(references)
        easy = reference < reference.nanmedian()
        return loss.mean().item(), loss[easy].mean().item()


def learning_rate(step: int, steps: int) -> float:
    """Return the rate of a step: up, level, and from half-way on down to a twentieth."""
    return PEAK * min(1.0, (step + 1) / WARM_UP) * max(0.05, min(1.0, 2 * (steps - step) / steps))


def first_held_out(dataset: TokenDataset) -> int:
    """Return the sample that the held-out batches begin at."""
    return len(dataset) - HELD_OUT * BATCH


def train_and_resume(name: str, setting: Setting, folder: Path) -> Run:
    """Train, save half-way, and train the second half again from the file in a new run; return the finished run."""
    print(name)
    half = setting.steps // 2
    run, path = Run(setting), folder / "half-way.pt"
    run.train(range(half), verbose=True)
    run.save(path)
    losses = run.train(range(half, setting.steps), verbose=True)
    resumed = Run(setting)
    resumed.load(path)
    again = resumed.train(range(half, setting.steps))
    assert again == losses, f"resumed losses differ: {again} instead of {losses}"
    print(f"  saved after step {half - 1} and resumed: the {len(again)} losses after it are the same, to the last bit")
    return run


def main(arguments: Sequence[str] | None = None) -> None:
    """Train twice and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", help="an output folder, a builds/<id> in it, or a manifest.json")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--keep", type=float, default=0.6, help="share of tokens that the selective loss trains on")
    parser.add_argument("--sequence-length", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="a tiny model, for a few seconds")
    given = parser.parse_args(arguments)

    dataset = TokenDataset.open(given.build, sequence_length=given.sequence_length, seed=1, columns=[REFERENCE])
    most = first_held_out(dataset) // BATCH
    if not 2 <= given.steps <= most:
        parser.error(
            f"--steps is {given.steps}; allowed are 2 to {most}: the build has {len(dataset)} sequences of "
            f"{given.sequence_length} tokens, a step takes {BATCH}, and {HELD_OUT * BATCH} are held out"
        )
    plain = Setting(dataset, given.steps, None, given.quick)
    parameters, tokens = Run(plain).model.size(), BATCH * given.sequence_length
    print(
        f"a GPT of {parameters:,} parameters, {given.steps} steps of {tokens:,} tokens; the build has {len(dataset):,} sequences"
    )
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            "all tokens": train_and_resume("plain cross-entropy", plain, Path(folder)),
            f"the top {given.keep:.0%}": train_and_resume(
                f"selective: the {given.keep:.0%} with the highest loss over the reference's",
                plain._replace(keep=given.keep),
                Path(folder),
            ),
        }
    print(f"\n{'held-out loss, trained on':<28}{'all tokens':>12}{'the half easier for the reference':>36}")
    for name, run in runs.items():
        every, easy = run.held_out()
        print(f"{name:<28}{every:>12.4f}{easy:>36.4f}")


if __name__ == "__main__":
    main()
