"""Examine each node of a Ray cluster before it works (`pipeline/engines/examine.py` says in what), in bounded time.

A node that cannot do the work would otherwise be found out one unit after the other, or, without credentials, in silence. A node
that joins later is examined within seconds.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gristmill.errors import UserError
from pipeline.conditions import libraries_of
from pipeline.engines.cargo import Cargo, pack
from pipeline.engines.examine import Exam, Paper, faults, modules_of, put_away, report_of, set_exam
from pipeline.engines.on_ray.reasons import reason
from pipeline.units.segment import Task

ANSWER_S = 120.0  # for which a node may take to answer: it starts a process, imports the stages and asks the store
CRASHES = 3  # of the process that sits an exam, before that is the node's fault


class Preflight:
    """The nodes that were examined, and for what; `answer_s`: seconds in which a node must answer."""

    def __init__(self, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._passed: dict[str, set[str]] = {}  # node → modules and libraries

    def check(self, task: Task) -> None:
        """Examine all nodes that have not been for the stages of this step.

        Raises:
            UserError: naming each node that cannot work, what was found there and what to do.
        """
        asked = {*modules_of(task), *(name for _, stage in task.spec.all() for name in libraries_of(stage))}
        nodes = _nodes()
        todo = {node: name for node, name in nodes.items() if not self._passed.get(node, set()) >= asked}
        if not todo:
            return
        exam = set_exam(task, uuid.uuid4().hex[:12])
        cargo = pack(stage for _, stage in task.spec.all())
        try:
            papers = self._papers(cargo, exam, todo)
            found = {
                todo[node]: each
                for node, paper in papers.items()
                if (each := [paper] if isinstance(paper, str) else faults(exam, paper, node))
            }
        finally:
            put_away(exam, todo)
        if found:
            raise UserError(report_of(found, len(nodes)))
        for node in todo:
            self._passed.setdefault(node, set()).update(asked)

    def _papers(self, cargo: Cargo | None, exam: Exam, nodes: Collection[str]) -> dict[str, Paper | str]:
        """Return the paper of each node, or why there is none; a node that has gone meanwhile is left out."""
        work = ray.remote(num_cpus=0, max_retries=CRASHES)(_sitting())
        flying: dict[Any, str] = {
            work.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                cargo, exam, node, os.getcwd()
            ): node
            for node in nodes
        }
        papers: dict[str, Paper | str] = {}
        end = time.monotonic() + self._answer_s
        while flying and time.monotonic() < end:
            ready, _ = ray.wait(list(flying), num_returns=1, timeout=max(0.0, end - time.monotonic()))
            for reference in ready:
                node = flying.pop(reference)
                try:
                    papers[node] = ray.get(reference)
                except RayTaskError as error:
                    papers[node] = f"cannot run this code ({reason(error)}); install the driver's packages there"
                except RayError as error:
                    if node in _nodes():
                        papers[node] = f"lost the process that examined it ({reason(error)}); look into its logs"
        for reference, node in flying.items():
            ray.cancel(reference, force=True)
            papers[node] = (
                f"did not answer within {self._answer_s:.0f} s; see whether it can reach the output {exam.root!r} and has room "
                "for a process"
            )
        return papers


def _nodes() -> dict[str, str]:
    """Return the nodes that can be given work: id → name for people."""
    return {
        node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
        for node in ray.nodes()
        if node["Alive"] and (node["Resources"].get("CPU") or node["Resources"].get("GPU"))
    }


def _sitting() -> Callable[[Cargo | None, Exam, str, str], Paper]:
    """Return what a node does; a function inside another travels whole, so that a node without our code can say so."""

    def sitting(cargo: Cargo | None, exam: Exam, node: str, folder: str) -> Paper:
        if os.path.isdir(folder):
            os.chdir(folder)
        from pipeline.engines.examine import sit

        if cargo is not None:
            cargo.unload()

        return sit(exam, node)

    return sitting
