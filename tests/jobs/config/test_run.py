"""The section `run`: its ranges, and the pools of stages that have their own processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gristmill.errors import ConfigError
from pipeline.resources import Resources
from tests.jobs.config.known import GOOD, loaded


def test_pools(tmp_path: Path) -> None:
    run = "run: {on: ray, pools: {score: {actors: 4, gpus: 0.5}}}\n"
    made = loaded(tmp_path, GOOD.rpartition("run:")[0] + run, {"run.pools.score.cpus": "2"})
    assert made.run.pools == {"score": Resources(actors=4, gpus=0.5, cpus=2.0)}
    assert loaded(tmp_path, json.dumps(made.text)).run == made.run
    assert loaded(tmp_path, GOOD, {"run.pools.score.gpus": "1"}).run.pools == {"score": Resources(gpus=1.0)}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("heartbeat", "0", "heartbeat must be seconds above 0, or null, found 0"),
        ("stalled_after", "-1", "stalled_after must be seconds above 0"),
        ("stalled_after", ".inf", "stalled_after must be seconds above 0"),
        ("replace_stalled", "maybe", "replace_stalled"),
    ],
)
def test_the_seconds_of_silence_are_checked(key: str, value: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        loaded(tmp_path, GOOD, {f"run.{key}": value})


def test_replacing_what_stalls_needs_to_know_after_what_time(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="replace_stalled needs stalled_after"):
        loaded(tmp_path, GOOD, {"run.stalled_after": "null", "run.replace_stalled": "true"})
    run = loaded(tmp_path, GOOD, {"run.heartbeat": "null", "run.stalled_after": "30", "run.replace_stalled": "true"}).run
    assert (run.heartbeat, run.stalled_after, run.replace_stalled) == (None, 30, True)
