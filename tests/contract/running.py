"""Stages run as the machine runs them, on tables in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.rephrasing.endpoint import Refused, Reply
from gristmill.rephrasing.prompt import read_prompt
from gristmill.rephrasing.questions import written
from pipeline.journal import Answer, Ask
from pipeline.stage import Barrier, Exchange, Filter, Fit, Map, Stage, Transform
from tests.contract.world import World


class Canned:
    """A journal that has an answer to each question, told by its key alone."""

    def answers(self, keys: Sequence[str], ask: Ask) -> Mapping[str, Answer]:
        prompts = [read_prompt(name).preamble for name in ("distill", "table", "wikipedia")]
        found = {}
        for key in dict.fromkeys(keys):
            preamble = prompts[int(key[0], 16) % 3]
            told = " ".join(f"The miller has told us of stone {key[at : at + 4]}." for at in range(0, 28, 4))
            reply = Reply(f"{preamble}\n{told}", "length" if key[1] == "0" else "stop", "m")
            outcome = Refused("HTTP 400: too long") if key[1] == "1" else reply
            found[key] = Answer(written(outcome), {"tokens_out": int(key[2:4], 16)})
        return found

    def spent(self) -> Mapping[str, int]:
        return {}


def opened(stage: Stage, world: World) -> Callable[[pa.Table], Any]:
    if isinstance(stage, Fit):
        return stage.apply(met(stage, [[world.input(stage)]]))
    assert isinstance(stage, Map | Filter)
    return stage.open()


def emitted(stage: Barrier, shards: Sequence[Sequence[pa.Table]]) -> list[pa.Table]:
    """Return the rows of each shard as the machine numbers, combines and sorts them."""
    found = []
    for shard, tables in enumerate(shards):
        emit, combine, held, first = stage.open(), stage.combine(), [], 0
        for table in tables:
            rows = emit(table)
            if "row" in rows.column_names:
                rows = rows.set_column(rows.column_names.index("row"), "row", pc.add(rows["row"], first))
            held.append(rows)
            first += table.num_rows
        rows = combine(pa.concat_tables(held).combine_chunks()) if combine is not None else pa.concat_tables(held)
        rows = rows.append_column("shard", pa.array(np.full(rows.num_rows, shard, np.int32)))
        found.append(rows.take(pa.array(np.argsort(rows["key"].to_numpy(), kind="stable"))))
    return found


def met(stage: Barrier, shards: Sequence[Sequence[pa.Table]], calls: int = 1) -> pa.Table:
    """Return what the barrier settles on."""
    rows = pa.concat_tables(emitted(stage, shards))
    rows = rows.take(pa.array(np.argsort(rows["key"].to_numpy(), kind="stable"))).combine_chunks()
    starts = np.unique(rows["key"].to_numpy(), return_index=True)[1]
    starts = np.append(starts[:: max(1, len(starts) // calls)], rows.num_rows)
    reduce: Transform = stage.reduce()
    reduced = [reduce(rows.slice(low, high - low)) for low, high in itertools.pairwise(starts)]
    assert isinstance(stage, Exchange | Fit)
    return stage.settle()([*reduced, reduce(rows.slice(0, 0))])  # a range of keys without rows too


def joined(results: Sequence[Any]) -> pa.Table | pa.Array:
    if isinstance(results[0], pa.Table):
        return pa.concat_tables(results)
    return pa.chunked_array([chunk for each in results for chunk in getattr(each, "chunks", [each])]).combine_chunks()
