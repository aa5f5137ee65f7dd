"""Windows and packs: each token is predicted once, from the context promised, and nothing crosses documents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill.models.causal_lm.packs import PADDING, Pack, Shape, cut, packed
from tests.random_examples import examples


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    first = draw(st.none() | st.just(999))
    every = first is not None and draw(st.booleans())
    window = draw(st.integers(2 + every, 12))
    overlap = draw(st.integers(0, window - every - 1))
    return Shape(window=window, overlap=overlap, pack=window + draw(st.integers(0, 80)), first=first, every_window=every)


def flat(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return ids that tell their place, and bounds."""
    bounds = np.cumsum([0, *lengths])
    return np.arange(bounds[-1], dtype=np.uint32), bounds


def windows_of(pack: Pack) -> list[slice]:
    return [slice(*ends) for ends in zip(pack.cuts[:-1], pack.cuts[1:], strict=True)]


@examples(120)
@given(st.lists(st.integers(0, 40), max_size=8), shapes())
@example([25], Shape(window=8, overlap=7, pack=8))
@example([0, 1, 0], Shape(window=2, overlap=0, pack=2))
def test_each_token_is_predicted_once_in_its_own_document(lengths: list[int], shape: Shape) -> None:
    ids, bounds = flat(lengths)
    document = np.repeat(np.arange(len(lengths)), lengths)
    made = list(packed(ids, bounds, shape))
    places = np.concatenate([np.zeros(0, np.int64), *(pack.places for pack in made)])
    expected = set(range(len(ids))) - (set() if shape.first is not None else set(bounds[:-1][np.diff(bounds) > 0].tolist()))
    assert sorted(places.tolist()) == sorted(expected)
    for pack in made:
        assert len(pack.ids) == len(pack.positions) == len(pack.targets) == shape.pack
        assert pack.cuts[0] == 0 and pack.cuts[-1] == shape.pack and (np.diff(pack.cuts) > 0).all()
        place_of = dict(zip(pack.rows.tolist(), pack.places.tolist(), strict=True))
        for number, window in enumerate(windows_of(pack)):
            rows = [row for row in range(window.start, window.stop) if row in place_of]
            assert pack.positions[window].tolist() == list(range(window.stop - window.start))
            if number >= pack.windows:
                assert not rows and window.stop - window.start <= PADDING and not pack.ids[window].any()
                continue
            assert window.stop - window.start <= shape.window and rows and rows[-1] == window.stop - 1
            last = place_of[rows[-1]]
            for row in range(window.start, window.stop):
                place = last - (window.stop - 1 - row)  # of the token that this input predicts
                if row == window.start and pack.ids[row] == shape.first:
                    continue
                assert pack.ids[row] == place - 1 and document[place - 1] == document[last]
            for row in rows:
                assert pack.targets[row] == place_of[row] == last - (window.stop - 1 - row)


@examples(120)
@given(st.lists(st.integers(0, 40), max_size=8), shapes())
def test_the_context_promised_is_there(lengths: list[int], shape: Shape) -> None:
    ids, bounds = flat(lengths)
    begin_of = np.repeat(bounds[:-1], lengths)
    for pack in packed(ids, bounds, shape):
        for window in windows_of(pack)[: pack.windows]:
            inside = (pack.rows >= window.start) & (pack.rows < window.stop)
            row, place = pack.rows[inside][0], pack.places[inside][0]
            before = pack.ids[window.start : row + 1]
            real = int((before != 999).sum())  # tokens of the document itself before the one predicted
            whole = place - begin_of[place]
            opens = whole == (shape.first is None)
            assert real == (whole if opens else shape.overlap + 1)
            led = pack.ids[window.start] == 999
            assert led == (shape.first is not None and (opens or shape.every_window))


def test_windows_of_a_long_document() -> None:
    windows = cut(np.array([0, 10]), Shape(window=4, overlap=1, pack=4))
    assert windows.begin.tolist() == [1, 4, 7]  # the first token has no prediction
    assert windows.scored.tolist() == [1, 5, 8]
    assert windows.end.tolist() == [5, 8, 10]
    windows = cut(np.array([0, 10]), Shape(window=4, overlap=1, pack=4, first=7, every_window=True))
    assert list(zip(windows.begin.tolist(), windows.scored.tolist(), windows.end.tolist(), strict=True)) == [
        (0, 0, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10),
    ]  # fmt: skip
    assert windows.led.all()


def test_packs_are_nearly_full_and_always_the_same() -> None:
    lengths = np.minimum(np.random.default_rng(0).lognormal(5, 1, 3000).astype(int) + 1, 4000).tolist()
    ids, bounds = flat(lengths)
    shape = Shape(window=1024, overlap=256, pack=4096, first=0)
    made = list(packed(ids, bounds, shape))
    inputs = int((cut(bounds, shape).end - cut(bounds, shape).begin).sum())
    assert len(made) == -(-inputs // shape.pack), "no pack more than needed"
    again = packed(ids.astype(np.uint16), bounds, shape)
    assert all(np.array_equal(one.cuts, other.cuts) for one, other in zip(made, again, strict=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": 1, "overlap": 0}, "window is 1"),
        ({"overlap": 8}, "overlap is 8 tokens; in a window of 8 it can be 0 to 7"),
        ({"overlap": 7, "first": 3, "every_window": True}, "it can be 0 to 6"),
        ({"overlap": -1}, "overlap is -1"),
        ({"pack": 7}, "pack_tokens is 7"),
        ({"every_window": True}, "first_token is none"),
    ],
    ids=["window", "overlap", "overlap-led", "negative", "pack", "no-first"],
)
def test_shapes_that_cannot_be(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shape(**({"window": 8, "overlap": 2, "pack": 16} | given))
