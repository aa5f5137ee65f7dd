"""Classifiers for tests that need one and not what it says: trained by the command, on a few short texts."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from jobs.__main__ import main


def train_small(output: Path, model: dict[str, Any]) -> None:
    """Train a classifier of `prose` and `reference` into the folder `output`, its texts beside it; `model` as in a recipe."""
    output.parent.mkdir(parents=True, exist_ok=True)
    texts, recipe = (output.with_suffix(end) for end in (".jsonl", ".yaml"))
    rows = (
        {"text": f"{kind} {word} of {host}", "url": f"http://{host}.test/{word}", "kind": kind}
        for kind, host, word in product(("prose", "reference"), ("trained", "held"), ("first", "second"))
    )
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        "documents": {"jsonl": {"paths": str(texts), "carry": ["kind"]}},
        "labels": {"column": "kind"},
        "model": model,
        "held_out": ["held.test"],
        "output": str(output),
    }
    recipe.write_text(yaml.safe_dump(given))
    assert main(["train-classifier", str(recipe)]) == 0
