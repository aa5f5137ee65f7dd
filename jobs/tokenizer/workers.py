"""The same work on many batches: in this process, or by actors on Ray; results in the order of the batches either way.

Reads and writes nothing itself. Which worker has which batch never shows in the results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from gristmill.tokenizer.training.corpus import here

TRIES = 4  # of a batch whose worker or node died


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a training job counts and encodes; never changes its result.

    `on`: this process, or Ray. `workers`: at most so many actors; null takes a cluster's cores. `address`: of a Ray cluster;
    null joins the one of the environment or starts one here.
    """

    on: Literal["local", "ray"] = "local"
    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        """Check the range."""
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, found {self.workers}")


Run = Callable[[Callable[[], Callable[[Any], Any]], Sequence[Any]], Iterator[Any]]


class Spread:
    """Holds the cluster and the actors while work is done on them; as a context it gives `run(begin, batches)`: `Corpus.run`."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._owns = False
        self._actors: list[Any] = []  # from the first work that needs so many, to the end: a process takes seconds to start
        self._runs = 0

    def __enter__(self) -> Run:
        if self._where.on == "local":
            return here
        import ray

        from pipeline.engines.on_ray.join import join

        self._owns = not ray.is_initialized()
        if self._owns:
            join(self._where.address or os.environ.get("RAY_ADDRESS"), self._where.workers)
        return self._on_ray

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._where.on == "local":
            return
        import ray

        for each in self._actors:
            ray.kill(each)
        self._actors = []
        if self._owns:
            ray.shutdown()

    def _on_ray(self, begin: Callable[[], Callable[[Any], Any]], batches: Sequence[Any]) -> Iterator[Any]:
        import ray
        from ray.util import ActorPool

        cpus = int(ray.cluster_resources().get("CPU", 1))
        workers = min(self._where.workers or cpus, cpus, len(batches))
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=TRIES)(_Worker)
        self._actors += [actor.remote(os.getcwd()) for _ in range(workers - len(self._actors))]
        self._runs += 1
        number, shared = self._runs, [ray.put(begin)]  # in a list, or Ray would unpack it for each batch
        yield from ActorPool(self._actors[:workers]).map(lambda each, batch: each.work.remote(number, shared, batch), batches)


class _Worker:
    """An actor that does the work of one run after the other, on one batch after the other."""

    def __init__(self, folder: str) -> None:
        if os.path.isdir(folder):  # parameters may hold relative paths; a worker starts elsewhere
            os.chdir(folder)
        self._run = 0
        self._work: Callable[[Any], Any]

    def work(self, run: int, shared: Sequence[Any], batch: Any) -> Any:  # noqa: ANN401 - whatever the work gives
        """Return work(batch), of the work that the run begins with here."""
        if run != self._run:
            import ray

            self._work = ray.get(shared[0])()
            self._run = run
        return self._work(batch)
