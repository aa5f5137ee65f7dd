"""No stage changes its output without its version: compared with hashes that are kept (`golden.py`)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from stages import STAGES
from tests.contract.golden import Golden, Inputs, fault, measured, read, update

KEPT = Golden(version=1, libraries={"some": "1.0"}, outputs={"0": "a", "1": "b"})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs.make(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("name", STAGES)
def test_the_output_is_that_of_the_version(name: str, inputs: Inputs) -> None:
    said = fault(name, read().get(name), measured(name, inputs))
    assert said is None, said


def test_nothing_is_kept_of_stages_that_are_gone() -> None:
    assert list(read()) == list(STAGES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        (
            {"outputs": {"0": "a", "1": "c"}},
            "'s' gives other output with the parameters number 1 of its case, and is still of version 1; ",
        ),
        ({"version": 2}, "'s' is of version 2 and its golden hash of version 1; run `python -m tests.contract.golden --update`"),
        ({"version": 2, "outputs": {"0": "c", "1": "c"}}, "'s' is of version 2 and its golden hash of version 1; run "),
        ({"libraries": {"some": "2.0"}}, None),
        (
            {"libraries": {"some": "2.0"}, "outputs": {"0": "c", "1": "b"}},
            "'s' gives other output with some 1.0 → 2.0; if that is right, ",
        ),
        ({"outputs": {"0": "a"}}, "'s' has other cases than golden hashes; "),
    ],
)
def test_what_is_told_and_what_is_replaced(change: dict[str, object], said: str | None) -> None:
    found = dataclasses.replace(KEPT, **change)  # type: ignore[arg-type]
    told = fault("s", KEPT, found)
    assert told is said is None or (told is not None and said is not None and told.startswith(said))
    new, wrong = update({"s": KEPT, "gone": KEPT}, {"s": found})
    replaced = said is not None and "still" not in said
    assert new == {"s": found if replaced else KEPT}
    assert wrong == ([told] if said is not None and not replaced else [])
    assert fault("s", None, found) == "'s' has no golden hash; run `python -m tests.contract.golden --update`"


def test_inputs_are_small() -> None:
    assert sum(path.stat().st_size for path in Path(__file__).with_name("golden").iterdir()) < 400_000
