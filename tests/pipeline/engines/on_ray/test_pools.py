"""How a segment shares out its tables between the actors of a pool: to the one with the fewest, beginning at another each.

`tests/pipeline/engines/on_ray/test_cluster.py` has pools of real actors, and kills some.
"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from ray import cloudpickle

from gristmill.storage.store import expand
from pipeline.engines.on_ray.pools import Hosts, ToActors, here
from pipeline.engines.remote_pool import TableRequest
from pipeline.planning.plan import make_plan
from pipeline.units.segment import Task
from tests.toy import Files, Lines, Pooled


class Actor:
    """Where an actor's handle would be: keeps what it is sent."""

    def __init__(self) -> None:
        self.tables: list[bytes] = []
        self.run = self

    def remote(self, request: TableRequest, folder: str) -> object:
        assert request.name == "pooled" and isinstance(request.stage, Pooled) and folder == "there" and request.memory == 7
        assert request.table is not None
        self.tables.append(request.table.to_pybytes())
        return object()


def tasks(folder: Path) -> list[Task]:
    for name in ("a", "b", "c", "d"):
        (folder / f"{name}.txt").write_text("one\n")
    plan = make_plan("t", [("lines", Lines(paths="")), ("files", Files())], expand(str(folder / "*.txt")))
    return [Task(str(folder / "out"), plan.steps[0].spec, unit, 4, 256, memory=7) for unit in plan.steps[0].units]


@pytest.mark.parametrize(("number", "counts"), [(0, [3, 2, 2]), (1, [2, 3, 2]), (2, [2, 2, 3]), (3, [3, 2, 2])])
def test_tables_go_to_the_actor_with_the_fewest_and_units_begin_at_others(number: int, counts: list[int], tmp_path: Path) -> None:
    actors = (Actor(), Actor(), Actor())
    hosts = Hosts(actors, cloudpickle.dumps(Pooled()), ahead=7, batch_rows=None)
    send = ToActors(hosts, tasks(tmp_path)[number], "there", "pooled")
    for table in range(7):
        send(pa.py_buffer(bytes([table])))
    assert [len(actor.tables) for actor in actors] == counts
    assert sorted(table for actor in actors for table in actor.tables) == [bytes([table]) for table in range(7)]


def test_a_worker_goes_to_the_folder_of_the_driver_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    here(str(tmp_path / "nowhere"))
    assert Path.cwd() == tmp_path
    here(str(tmp_path / "there"))
    assert os.getcwd() == str(tmp_path / "there")
