"""The corpus of toy documents that the machine is driven with."""

from __future__ import annotations

import random
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("corpus")
    chance = random.Random(5)
    for shard in range(5):
        lines = ["".join(chance.choices("abcé ", k=chance.choice([2, 4, 6]))) for _ in range(60)]
        (place / f"{shard}.txt").write_text("\n".join(lines[: 0 if shard == 3 else None]))
    return place
