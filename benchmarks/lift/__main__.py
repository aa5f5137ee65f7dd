"""Lift of selective training: losses on clean text after training on a corpus with planted noise, by each way of selecting.

Reads the crawl in `examples/crawl`, or with --build any build of tokens. Splits its documents into a train set, a curated slice
and text that is held out; plants noise into 30% of the train set's tokens (see `corpus.py`); trains a base model on it, continues
that on the curated slice (the reference), keeps what both say of each token beside the build; and trains one model for each arm:
same weights to begin with, same order, same number of tokens read. Lower losses are better; differences are seed by seed.

It is meant for one GPU, where it takes under half an hour; without one give a small `--size` and few `--steps`, or --quick. The
ratios of the last line are the clean loss of plain training over the arm's: above 1 the arm is better. Results are published as
they come, so there are no goals.

    python -m benchmarks.lift [--quick] [--size 30m] [--steps N] [--seeds 2] [--arms NAME ...] [--build PATH]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.lift import arms, models, store, table
from benchmarks.lift.corpus import Corpus, Planting, make_corpus
from benchmarks.lift.documents import from_build, from_crawl
from benchmarks.lift.experiment import experiment, work
from benchmarks.lift.training import Recipe

QUICK = {"tokens": 80_000, "vocab": 1024, "steps": 25, "length": 64, "rows": 16, "peak": 1e-2, "judged": 4}
FULL = {"tokens": 10**9, "vocab": 8192, "steps": 750, "length": 512, "rows": 16, "peak": 1e-3, "judged": 50}
RATE = 5e13  # products and sums a second, taken to be a small model's in small steps on one H100: a twentieth of its peak


def run(given: argparse.Namespace, settings: Mapping[str, float], folder: Path) -> None:
    """Make the corpus, run the experiment and print it."""
    source = from_build(given.build) if given.build else from_crawl(int(settings["vocab"]), folder / "tokenizer")
    corpus = make_corpus(source.first(int(settings["tokens"])), Planting(noise=given.noise))
    folders = store.write_corpus(corpus, source.tokenizer, folder)
    recipe = Recipe(
        size=given.size or ("tiny" if given.quick else "30m"),
        vocab_size=source.tokenizer.vocab_size,
        length=int(settings["length"]),
        rows=int(settings["rows"]),
        steps=int(settings["steps"]),
        peak=settings["peak"],
        keep=given.keep,
        judged=int(settings["judged"]),
    )
    print("\n".join(facts(recipe, corpus, len(given.arms), given.seeds)), flush=True)
    results, before = experiment(folders, recipe, given.seeds, given.arms)
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in before.items())
    print(f"\n{table.losses(results)}\nbefore the arms, seconds a seed: {spent}")
    print(f"\nof held-out text with noise put in: shares selected, and losses in nats\n{table.choices(results)}")
    print(table.closing(results))


def facts(recipe: Recipe, corpus: Corpus, arms: int, seeds: int) -> list[str]:
    """Return what is compared, and how long it takes on a GPU."""
    train, noisy = len(corpus.train.documents.ids), len(corpus.held_noisy.documents.ids)
    total = work(recipe, arms, seeds, train + noisy)
    size = models.SHAPES[recipe.size].parameters(recipe.vocab_size)
    return [
        f"{size:,} parameters, vocabulary {recipe.vocab_size:,}; {recipe.steps} steps of {recipe.rows} × {recipe.length} tokens, "
        f"{recipe.tokens / train:.2f} epochs; {arms} arms, {seeds} seeds, on {models.device_name()}",
        f"train set {train:,} tokens, {corpus.train.noise:.1%} planted, of it the foreign third "
        f"{'in a cipher' if corpus.cipher else 'in other languages'}",
        f"curated slice {len(corpus.curated.ids):,} tokens, held out {len(corpus.held.ids):,}",
        f"{total:.2g} products and sums: on one GPU {total / RATE / 60:.1f} minutes at {RATE:.0e} a second",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lift", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model and few steps: within a minute on a CPU")
    parser.add_argument("--size", choices=models.SHAPES)
    parser.add_argument("--steps", type=int, help="of each arm")
    parser.add_argument("--tokens", type=int, help="of the clean documents, at most")
    parser.add_argument("--vocab", type=int, help="tokens of the BPE that is trained on the crawl; a build has its own")
    parser.add_argument("--length", type=int, help="tokens of a sequence")
    parser.add_argument("--rows", type=int, help="sequences of a step")
    parser.add_argument("--peak", type=float, help="highest learning rate")
    parser.add_argument("--judged", type=int, help="batches that losses are measured on at most")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--keep", type=float, default=0.6, help="share of tokens that a selection keeps")
    parser.add_argument("--noise", type=float, default=0.3, help="share of planted tokens in the train set")
    parser.add_argument(
        "--arms", nargs="+", choices=arms.NAMES, default=arms.NAMES, metavar="NAME", help=f"all of {', '.join(arms.NAMES)}"
    )
    parser.add_argument("--build", help="a build of tokens, in place of the crawl")
    given = parser.parse_args(arguments)
    standard = QUICK if given.quick else FULL
    settings = {key: value if (own := getattr(given, key)) is None else own for key, value in standard.items()}
    with tempfile.TemporaryDirectory() as folder:
        run(given, settings, Path(folder))


if __name__ == "__main__":
    main()
