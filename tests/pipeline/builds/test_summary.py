"""The accounts of units added up to those of a build."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.errors import Damaged
from gristmill.storage.store import open_store
from pipeline.builds.summary import _check_stages, _measures, _stages
from pipeline.lineage import BuildStage
from pipeline.records import UnitRecord
from pipeline.units.ledger import Measure


def account(stage: str, taken: int, kept: int, phase: str = "whole", **more: Any) -> dict[str, Any]:
    plain = {"dropped": {}, "quarantined": {}, "samples": {}, "cpu_s": 0.5, "wall_s": 1.0}
    return {"stage": stage, "phase": phase, "in": taken, "kept": kept, **plain, **more}


def unit(*ledger: Mapping[str, Any], stage: str | None = None, **more: Any) -> UnitRecord:
    plain: dict[str, Any] = {"outputs": {}, "parts": (), "measures": {}, "seconds": {"cpu": 2.0, "wall": 4.0}}
    return UnitRecord(unit="u", fingerprint="f", ledger=ledger, stage=stage, **{**plain, **more})


NAMED = [BuildStage(stage=name, version=1, parameters={}) for name in ("source", "chunk", "unique", "sink")]


def test_accounts_of_units_add_up_and_made_is_told_where_it_is() -> None:
    first = [
        unit(account("source", 5, 4, dropped={"x": 1}), account("chunk", 4, 9, made=5), account("unique", 9, 9, "before")),
        unit(account("source", 2, 2), account("chunk", 2, 1, quarantined={"bad": 1}), account("unique", 1, 1, "before")),
    ]
    last = [
        unit(account("unique", 9, 7, "after", dropped={"duplicate": 2}), account("sink", 7, 7)),
        unit(account("unique", 1, 1, "after"), account("sink", 1, 1)),
    ]
    barrier = [unit(stage="unique"), unit(stage="unique")]
    source, chunk, unique, sink = _stages(NAMED, [*first, *last], barrier)
    assert (source["in"], source["kept"], source["dropped"], source["version"]) == (7, 6, {"x": 1}, 1)
    assert (chunk["in"], chunk["made"], chunk["kept"], chunk["quarantined"]) == (6, 5, 10, {"bad": 1})
    assert (unique["in"], unique["kept"], unique["dropped"]) == (10, 8, {"duplicate": 2}), "in before the meeting, kept after it"
    assert (unique["cpu_s"], unique["wall_s"]) == (4 * 0.5 + 2 * 2.0, 4 * 1.0 + 2 * 4.0), "with its reduces and its settle"
    assert [name["stage"] for name in (source, chunk, unique, sink) if "made" in name] == ["chunk"]
    for stage in (source, chunk, unique, sink):
        lost = sum(stage["dropped"].values()) + sum(stage["quarantined"].values())
        assert stage["in"] + stage.get("made", 0) == stage["kept"] + lost


@pytest.mark.parametrize("barrier", [False, True])
def test_an_account_of_a_stage_that_the_run_does_not_have_is_damage(barrier: bool, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    sound, odd = (unit(stage=stage) if barrier else unit(account(stage, 1, 1)) for stage in ("source", "other"))
    _check_stages(store, "steps/x.json", sound, ["source", "sink"], barrier=barrier)
    with pytest.raises(Damaged, match=r"steps/x\.json is damaged: 'stage' is 'other', the run has source, sink"):
        _check_stages(store, "steps/x.json", odd, ["source", "sink"], barrier=barrier)


def test_a_build_without_units_has_accounts_of_nothing() -> None:
    assert [(stage["in"], stage["kept"], stage["dropped"]) for stage in _stages(NAMED, [], [])] == [(0, 0, {})] * 4


def test_histograms_of_units_add_up() -> None:
    units = []
    for values in ([1, 2, 3], [100], []):
        measure = Measure("number")
        measure.add(pa.chunked_array([pa.array(values, pa.int64())]))
        units.append(unit(measures={"upper.size": measure.plain()}))
    found = _measures(units)["upper.size"]
    assert (found["count"], found["sum"], found["min"], found["max"]) == (4, 106.0, 1.0, 100.0)
    assert sum(count for _, _, count in found["bins"]) == 4 and "sparse" not in found
