"""The experiment: all arms in all seeds, over builds that are there.

Reads the builds of a corpus; writes sidecars beside them, and progress to standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from benchmarks.lift.arms import make_arms
from benchmarks.lift.judging import judge
from benchmarks.lift.models import SHAPES
from benchmarks.lift.table import Row
from benchmarks.lift.training import Folders, Recipe, prepare, train_arm

FORWARD, TRAINING = 2, 6  # products and sums a parameter and token


def experiment(
    folders: Folders, recipe: Recipe, seeds: int, names: Sequence[str]
) -> tuple[dict[str, list[Row]], dict[str, float]]:
    """Run the named arms in all seeds; return their rows, and the mean seconds of what comes before them."""
    begin = time.perf_counter()

    def tell(what: str) -> None:
        print(f"{time.perf_counter() - begin:8.1f} s  {what}", file=sys.stderr, flush=True)

    results: dict[str, list[Row]] = {name: [] for name in names}
    before = dict[str, float]()
    for seed in range(seeds):
        columns, seconds = prepare(folders, recipe, seed, tell)
        before = {name: before.get(name, 0.0) + spent / seeds for name, spent in seconds.items()}
        for arm in make_arms(columns, recipe.keep):
            if arm.name in names:
                trained = train_arm(arm, folders, recipe, seed)
                judged = judge(trained.model, arm, folders, recipe, columns)
                results[arm.name].append(Row(judged, trained.seconds, trained.tokens))
                tell(f"seed {seed}: {arm.name}, clean loss {judged.clean:.4f}")
    return results, before


def work(recipe: Recipe, arms: int, seeds: int, scored: int) -> float:
    """Return about how many products and sums the experiment takes: the arms, base and reference, and their scores.

    Args:
        recipe: of each run.
        arms: how many.
        seeds: of each.
        scored: tokens that both models score; a third more is read as context.
    """
    parameters = SHAPES[recipe.size].parameters(recipe.vocab_size)
    return seeds * parameters * (TRAINING * recipe.tokens * (arms + 2 * recipe.base) + FORWARD * 2 * scored * 4 / 3)
