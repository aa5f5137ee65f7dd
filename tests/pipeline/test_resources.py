"""What pools get of the machines: shared out evenly, placed as Ray places, refused with advice."""

from __future__ import annotations

from typing import Any

import pytest

from gristmill.errors import UserError
from pipeline.resources import Machine, PoolSize, Resources, gpus_of, sizes

LAPTOP, NODE, BARE = Machine(2, 0), Machine(16, 4), Machine(1, 0)


@pytest.mark.parametrize(
    ("asked", "machines", "expected"),
    [
        ({"a": Resources()}, [LAPTOP], {"a": PoolSize(1, 0, 1)}),
        ({"a": Resources()}, [BARE], {"a": PoolSize(1, 0, 0)}),
        ({"a": Resources()}, [NODE, NODE], {"a": PoolSize(8, 1, 1)}),
        ({"a": Resources(), "b": Resources()}, [NODE], {"a": PoolSize(4, 0.5, 1), "b": PoolSize(4, 0.5, 1)}),
        ({"a": Resources(actors=6)}, [NODE], {"a": PoolSize(6, 0.5, 1)}),
        ({"a": Resources(gpus=0.3)}, [NODE], {"a": PoolSize(12, 0.3, 1)}),
        ({"a": Resources(gpus=2)}, [NODE, LAPTOP], {"a": PoolSize(2, 2, 1)}),
        ({"a": Resources(gpus=0, actors=3), "b": Resources()}, [NODE], {"a": PoolSize(3, 0, 1), "b": PoolSize(4, 1, 1)}),
        (
            {"a": Resources(gpus=1, actors=3, cpus=0.5), "b": Resources()},
            [NODE],
            {"a": PoolSize(3, 1, 0.5), "b": PoolSize(1, 1, 1)},
        ),
        ({"a": Resources(actors=3), "b": Resources(), "c": Resources()}, [Machine(9, 1)], dict.fromkeys("abc")),
    ],
    ids=str,
)
def test_sizes(asked: dict[str, Resources], machines: list[Machine], expected: dict[str, PoolSize]) -> None:
    found = sizes(asked, machines)
    if None in expected.values():
        assert found == {"b": PoolSize(1, 0.3333, 1), "c": PoolSize(1, 0.3333, 1), "a": PoolSize(3, 0.1111, 1)}
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("asked", "machines", "found"),
    [
        ({"a": Resources(gpus=1)}, [LAPTOP], "there are 0 GPUs and 2 CPUs; 0 of them fit"),
        ({"a": Resources(gpus=0.75, actors=5)}, [NODE], "4 of them fit"),
        (
            {"a": Resources(gpus=3, actors=2)},
            [Machine(8, 4), Machine(8, 2)],
            "there are 4 GPUs and 8 CPUs + 2 GPUs and 8 CPUs; 1 of them",
        ),
        ({"a": Resources(gpus=1, actors=4), "b": Resources()}, [NODE], "run.pools.b: asks for a share of the GPUs"),
        ({"a": Resources(cpus=2)}, [LAPTOP], "leaves no whole CPU"),
        ({"a": Resources(cpus=3)}, [LAPTOP], "0 of them fit"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit(asked: dict[str, Resources], machines: list[Machine], found: str) -> None:
    with pytest.raises(UserError) as error:
        sizes(asked, machines)
    assert found in str(error.value)


@pytest.mark.parametrize(
    "wrong", [{"actors": 0}, {"batch_rows": 0}, {"gpus": 1.5}, {"gpus": -1.0}, {"gpus": 0.00001}, {"cpus": float("inf")}], ids=str
)
def test_sizes_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Resources(**wrong)


def test_what_a_config_says_goes_before_what_the_stage_says() -> None:
    assert Resources(actors=2, gpus=0).over(Resources(actors=1, cpus=3)) == Resources(actors=2, gpus=0, cpus=3)
    assert Resources(gpus=1).over(None) == Resources(gpus=1)


def test_each_process_has_gpus_of_one_machine_by_number() -> None:
    found = {"a": PoolSize(1, 2, 1), "b": PoolSize(3, 0.5, 1), "c": PoolSize(2, 0, 1)}
    assert gpus_of(found, [NODE]) == {"a": [(0, 1)], "b": [(2,), (2,), (3,)], "c": [(), ()]}
