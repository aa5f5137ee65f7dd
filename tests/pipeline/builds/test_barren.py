"""What is told of input files that gave no document, of notes of sources, and of builds without documents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.storage.local import LocalStore
from pipeline.builds.barren import NAMED, Barren, barren, lost_everywhere, notes, warnings
from pipeline.records import UnitRecord


def unit(name: str, *accounts: Mapping[str, Any]) -> UnitRecord:
    return UnitRecord(unit=name, fingerprint="f", outputs={}, parts=(), ledger=accounts, measures={}, seconds={})


def account(stage: str = "lines", **counts: Any) -> dict[str, Any]:
    return {"stage": stage, "in": 0, "kept": 0, "dropped": {}, "quarantined": {}, **counts}


def test_a_file_is_barren_when_nothing_of_it_was_kept_or_dropped(tmp_path: Path) -> None:
    units = [
        ("1", unit("kept", account(**{"in": 2}, kept=2))),
        ("2", unit("dropped", account(**{"in": 1}, dropped={"short": 1}))),
        ("3", unit("empty", account())),
    ]
    assert barren(LocalStore(tmp_path), units) == [Barren("empty", 0, {}, None)]


def test_damaged_files_have_a_line_each_the_commonest_error_first_and_empty_ones_one_together() -> None:
    found = [Barren("a", 5, {"late": 2, "early": 2, "most": 9}, "most: it broke"), Barren("b", 0, {}, None)]
    assert warnings([*found, Barren("c", 1, {"x": 1}, None), Barren("d", 0, {}, None)]) == [
        "a: not one document, all that was found in it is in quarantine: most 9, early 2, late 2; the first: most: it broke",
        "c: not one document, all that was found in it is in quarantine: x 1",
        "no document in b, d: empty, or nothing in it that the source reads",
    ]
    assert warnings([]) == []


def test_of_many_files_ten_are_named_and_the_others_counted() -> None:
    damaged = warnings([Barren(f"f{n}", 1, {"x": 1}, None) for n in range(NAMED + 3)])
    assert len(damaged) == NAMED + 1 and damaged[-1].startswith("3 more files gave not one document")
    (empty,) = warnings([Barren(f"f{n}", 0, {}, None) for n in range(NAMED + 2)])
    assert "f9 and 2 more: empty" in empty and "f10" not in empty
    assert warnings([Barren(f"f{n}", 1, {"x": 1}, None) for n in range(NAMED)])[-1].startswith("f9: ")


def test_a_note_is_told_once_with_its_files() -> None:
    units = [unit(f"f{n}", account(notes=["cut"] if n else ["cut", "old"])) for n in range(NAMED + 1)]
    assert notes([*units, unit("g", account())]) == [
        f"{', '.join(f'f{n}' for n in range(NAMED))} and 1 more: cut",
        "f0: old",
    ]


def test_where_all_documents_went_is_summed_over_units_in_the_order_of_the_plan() -> None:
    units = [
        unit("a", account(quarantined={"bad": 1}), account("short", dropped={"too_short": 2, "odd": 3})),
        unit("b", account(), account("short", dropped={"too_short": 2})),
    ]
    assert lost_everywhere(units) == "1 quarantined by lines (bad 1); 7 dropped by short (too_short 4, odd 3)"
    assert lost_everywhere([unit("a", account())]) == "none came in"
