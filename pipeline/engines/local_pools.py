"""A stage's pool on this machine: child processes that hold their GPUs, open the stage once and map the tables of all segments.

`pipeline/resources.py` says how many with what. Reads which GPUs there are: `CUDA_VISIBLE_DEVICES`, or the driver's list.
"""

from __future__ import annotations

import itertools
import os
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from gristmill.errors import UserError
from pipeline.engines.child import Child, run_isolated
from pipeline.engines.failure import Failure
from pipeline.engines.remote_pool import TableReply, TableRequest
from pipeline.resources import Machine, Resources, gpus_of, sizes
from pipeline.stage import AnyMap

VISIBLE = "CUDA_VISIBLE_DEVICES"
DRIVER = Path("/proc/driver/nvidia/gpus")  # a folder a GPU


class LocalPool:
    """The processes of one stage. Tables go to them in the order they come, each to the first that is free."""

    def __init__(
        self,
        name: str,
        stage: AnyMap,
        asked: Resources,
        environments: Sequence[Mapping[str, str]],
        memory: int | None,
        stalled: float | None,
    ) -> None:
        self.stage, self.asked = stage, asked
        self._request = TableRequest(name, stage, memory=memory)
        self._children = [Child(stalled=stalled, environment=environment) for environment in environments]
        self._threads = ThreadPoolExecutor(len(self._children))
        self._idle: queue.SimpleQueue[Child] = queue.SimpleQueue()
        for child in self._children:
            self._idle.put(child)

    def open(self) -> None:
        """Open the stage in all processes. Raises UserError when that is the user's to mend; units meet all else."""
        for reply in self._threads.map(lambda child: run_isolated(child, self._request), self._children):
            if isinstance(reply, Failure) and reply.kind == "user":
                raise UserError(reply.message)

    def send(self, table: pa.Buffer) -> Callable[[], TableReply | Failure]:
        """Send a packed table; what is returned waits for the reply, and raises child.Closed when the pool is closed."""
        return self._threads.submit(self._map, table).result

    def close(self) -> None:
        """End the processes."""
        for child in self._children:
            child.close()
        self._threads.shutdown(wait=False)

    def _map(self, table: pa.Buffer) -> TableReply | Failure:
        child = self._idle.get()
        try:
            reply = run_isolated(child, replace(self._request, table=table))
        finally:
            self._idle.put(child)
        assert reply is not None, "a request with a table has a reply"
        return reply


def local_pools(
    needed: Mapping[str, tuple[AnyMap, Resources]], memory: int | None, stalled: float | None
) -> dict[str, LocalPool]:
    """Return pools of stages, by name, that share out this machine; their processes start when they are opened.

    Args:
        needed: the stages, and what their processes are to have.
        memory: bytes that a table may take there.
        stalled: seconds without progress after which a process is ended; None: never.

    Raises:
        UserError: this machine does not have it.
    """
    gpus = visible_gpus()
    machine = Machine(len(os.sched_getaffinity(0)), len(gpus))
    found = sizes({name: asked for name, (_, asked) in needed.items()}, [machine])
    pools = {}
    for name, places in gpus_of(found, [machine]).items():
        environments = [{VISIBLE: ",".join(gpus[at] for at in place)} if gpus else {} for place in places]
        pools[name] = LocalPool(name, *needed[name], environments, memory, stalled)
    return pools


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    named = os.environ.get(VISIBLE)
    if named is None:
        return [str(number) for number, _ in enumerate(DRIVER.iterdir())] if DRIVER.is_dir() else []
    # CUDA looks at no name behind one that is no device.
    return list(itertools.takewhile(lambda name: name and not name.startswith("-"), map(str.strip, named.split(","))))
