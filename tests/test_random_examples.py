"""How many random examples are tried."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.random_examples import THOROUGH, examples, of

tried = []


@examples(60)
@given(st.integers())
def test_a_test_tries_as_many_as_the_profile_says(number: int) -> None:
    tried.append(number)


def test_as_many_were_tried() -> None:
    if not tried:
        pytest.skip("the test before did not run")
    assert len(tried) == of(60) == (60 if THOROUGH else 20)


@pytest.mark.parametrize(("most", "fewer"), [(90, 30), (12, 10), (10, 10), (6, 6)])
def test_a_third_but_never_few_unless_all_are_asked_for(most: int, fewer: int) -> None:
    assert of(most, thorough=False) == fewer and of(most, thorough=True) == most
