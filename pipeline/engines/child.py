"""A unit in a process of its own, so that a document that kills it kills nothing else, and can be found.

The parent (`Child`) sends tasks over a socket; the child (`serve`) runs them and reports, before each
piece of work, where it is. When it dies, the parent knows the table, then (that table taken one document at a time) the document.
Only a document that was being worked on at `STRIKES` deaths is quarantined: processes also die for other reasons.

The piece of work is a unit, or one table for a stage that has a pool (`pipeline/engines/remote_pool.py`). A unit in a child
reaches such pools through its parent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar, overload

import pyarrow as pa

from gristmill.errors import ENDINGS, Damaged, GristmillError, Stopped, StoreError, StoreFull, UserError
from pipeline.engines.failure import Failure, Kind
from pipeline.engines.pandas_later import pandas_later
from pipeline.engines.panics import pass_on
from pipeline.engines.remote_pool import PoolFailed, RemotePool, Send, TableReply, TableRequest, answer
from pipeline.planning.code import load_file, loaded_files
from pipeline.records import UnitRecord
from pipeline.units.bisection import Watch
from pipeline.units.flow import Pool
from pipeline.units.opened import opened_alone
from pipeline.units.segment import Report, Task, run_unit

STRIKES = 3
STALLED = "stalled"  # the kind of end of a process that was killed because it did not move
LAST_WORDS_S = 1.0
DEATHS_AT_ONE_PLACE = 8  # outside any document: opening a stage, reading the source, a sink


Heard = Callable[[int, str], None]  # (documents, stage)
Result = UnitRecord | TableReply | Failure | None  # of a unit, of a request; None: a stage was opened
Work = TypeVar("Work", Task, TableRequest)


@overload
def attempt(work: Task, report: Report | None = None, pools: Mapping[str, Pool] | None = None) -> UnitRecord | Failure: ...
@overload
def attempt(work: TableRequest, report: Report | None = None) -> TableReply | Failure | None: ...
def attempt(work: Task | TableRequest, report: Report | None = None, pools: Mapping[str, Pool] | None = None) -> Result:
    """Do a piece of work in this process; return its result, or why there is none.

    Nothing is raised, so that whatever a runner sees raised is infrastructure.
    """
    try:
        if isinstance(work, TableRequest):
            # What a model takes is no document's doing: it is opened before the bound is set.
            function = opened_alone(work.stage)
            limit_memory(work.memory)
            return answer(work, function, _watching(report))
        limit_memory(work.memory)
        return run_unit(work, report, pools)
    except PoolFailed as error:
        return error.failure
    except GristmillError as error:
        return _failure(error)
    except (FileNotFoundError, PermissionError) as error:
        return Failure("failed", f"{type(error).__name__}: {error}")
    except OSError as error:
        # A disk or a network that failed under us: on a document it would have been caught before.
        return Failure("full" if error.errno == errno.ENOSPC else "store", f"{type(error).__name__}: {error}")
    except ENDINGS:
        raise
    except BaseException as error:  # noqa: BLE001 - what a stage raises outside of documents ends its unit, not the build
        message = f"{type(error).__name__}: {error}"
        # The frames of a panic in Rust are not to be seen from here.
        return Failure("failed", f"{message}\n{traceback.format_exc(limit=-4)}" if isinstance(error, Exception) else message)


def _failure(error: GristmillError) -> Failure:
    if isinstance(error, Damaged):
        return Failure("damaged", error.what, error.record)
    kinds: tuple[tuple[type[GristmillError], Kind], ...] = (
        (StoreFull, "full"),
        (StoreError, "store"),
        (Stopped, "stop"),
        (UserError, "user"),
    )
    return Failure(next((kind for class_, kind in kinds if isinstance(error, class_)), "failed"), str(error))


def _watching(report: Report | None) -> Watch | None:
    return None if report is None else lambda stage, document: report(0, stage, document, 0)


def limit_memory(memory: int | None) -> None:
    """Bound the private memory of this process to what it has now plus `memory` bytes; beyond, allocation fails.

    A document that allocates without end then raises MemoryError in its own process, before the machine runs out.
    """
    if memory is None:
        return
    with open("/proc/self/status") as status:
        used = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + memory, hard))


def reporting(heard: Heard | None) -> Report | None:
    """Return what a unit in this very process reports to, for somebody who wants documents and stage alone."""
    if heard is None:
        return None
    return lambda table, stage, document, documents: heard(documents, stage)


def replaceable(work: Task | TableRequest) -> bool:
    """Tell whether work that does not move may be given to another process: reduces, settles, openings are long at one call."""
    return work.table is not None if isinstance(work, TableRequest) else work.spec.kind == "segment"


class Died(Exception):
    """The child process ended while it worked; holds the kind of its end."""


class Closed(Exception):
    """The child was closed by its owner."""


class Child:
    """A worker process of this machine, started when needed and again after each death, until it is closed.

    Args:
        pools: answer it when a unit there comes to a stage with a pool.
        stalled: seconds without a sign of progress after which it is killed; None: never.
        heard: is given what it reports of its progress: documents that entered, and the stage.
        environment: variables that the process is to have beyond this one's.
    """

    def __init__(
        self,
        pools: Mapping[str, RemotePool] | None = None,
        stalled: float | None = None,
        heard: Heard | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.pools = pools or {}
        self._stalled = stalled
        self.heard = heard
        self._environment = environment or {}
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Connection | None = None
        self._errors: threading.Thread | None = None
        self.at: tuple[int, str, str | None] = (-1, "", None)

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        # The parent's modules must be found there too, whatever put them on its path.
        path = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment = {**os.environ, "PYTHONPATH": path, **self._environment}
        # Not `-m`: classes of a module run as `__main__` would not be ours when they come back.
        call = f"serve({theirs.fileno()}, {loaded_files()!r})"
        command = [sys.executable, "-c", f"from pipeline.engines.child import serve; {call}"]
        # A group of its own: Ctrl-C on a terminal is for the driver, which ends its children itself.
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        assert self._process.stderr is not None
        self._errors = pass_on(self._process.stderr)
        theirs.close()
        self._channel = Connection(ours.detach())
        return self._channel

    @overload
    def run(self, work: Task) -> UnitRecord | Failure: ...
    @overload
    def run(self, work: TableRequest) -> TableReply | Failure | None: ...
    def run(self, work: Task | TableRequest) -> Result:
        """Do one piece of work there. Raises Died; `at` then says what it was doing. Raises Closed."""
        if self._closed:
            raise Closed
        channel = self._channel or self._start()
        self.at = (-1, "", None)
        try:
            channel.send((work, {name: pool.batch_rows for name, pool in self.pools.items()}))
            limit = None  # until it has begun: a process takes as long to start as the machine needs
            while channel.poll(limit):
                kind, content = channel.recv()
                limit = self._stalled if replaceable(work) else None
                if kind == "done":
                    result: Result = content
                    return result
                if kind == "table":
                    name, table = content
                    channel.send(self.pools[name].send(table)())
                else:
                    *at, documents = content
                    self.at = tuple(at)
                    if self.heard is not None:
                        self.heard(documents, self.at[1])
        except (EOFError, ConnectionError) as error:
            raise Died(_kind(self.stop())) from error
        self.stop(0)
        raise Died(STALLED)

    def close(self) -> None:
        """Kill the process and start none again."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._hear_out()

    def _hear_out(self) -> None:
        """Wait for the last words of a process that ended; not for what processes of its own have kept open."""
        if self._errors is not None:
            self._errors.join(LAST_WORDS_S)

    def stop(self, patience: float = 0.5) -> int:
        """Kill the process if it is there, after so many seconds; return its exit status (negative: the signal)."""
        if self._channel is not None:
            self._channel.close()
        self._channel = None
        if self._process is None:
            return 0
        if self._process.poll() is None:
            # It may be dying with the channel closed already; its own status says more than our kill.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
            self._process.kill()
        status = self._process.wait()
        self._hear_out()
        self._process = None
        return status


@overload
def run_isolated(child: Child, work: Task) -> UnitRecord | Failure: ...
@overload
def run_isolated(child: Child, work: TableRequest) -> TableReply | Failure | None: ...
def run_isolated(child: Child, work: Task | TableRequest) -> Result:
    """Do a piece of work in `child`, as often as it takes to find every document that kills it, and quarantine those.

    Returns its result, or a Failure when it dies again and again outside of any document. Raises Closed.
    """
    strikes: Counter[str] = Counter()
    elsewhere: Counter[tuple[int, str]] = Counter()
    while True:
        try:
            return child.run(work)
        except Died as died:
            number, stage, document = child.at
            kind = str(died.args[0])
        if document is not None:
            strikes[document] += 1
            if strikes[document] >= STRIKES:
                work = dataclasses.replace(work, poison={**work.poison, document: (stage, kind)})
            continue
        elsewhere[number, stage] += 1
        if elsewhere[number, stage] >= DEATHS_AT_ONE_PLACE:
            return Failure("failed", f"the process was ended {DEATHS_AT_ONE_PLACE} times in {stage or 'opening'}: {kind}")
        work = dataclasses.replace(work, careful=work.careful | {number})


def _kind(status: int) -> str:
    return f"killed_by_{signal.Signals(-status).name}" if status < 0 else "exited"


def serve(descriptor: int, files: Sequence[str] = ()) -> None:
    """Serve tasks until the parent goes, whose stages may be in these files."""
    for path in files:
        load_file(Path(path))
    pandas_later()
    channel, at = Connection(descriptor), -1
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()

    def report(number: int, stage: str, document: str | None, documents: int) -> None:
        nonlocal at
        at = number
        channel.send(("at", (number, stage, document, documents)))

    def to_parent(name: str) -> Send:
        def send(table: pa.Buffer) -> Callable[[], TableReply | Failure]:
            channel.send(("table", (name, table)))
            return channel.recv

        return send

    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            at, result = -1, None
            try:
                work, batch_rows = channel.recv()
                pools = {name: RemotePool(to_parent(name), 1, rows) for name, rows in batch_rows.items()}
                result = attempt(work, report) if isinstance(work, TableRequest) else attempt(work, report, pools)
            except (EOFError, ConnectionError):
                raise
            except (ImportError, AttributeError) as error:  # of unpickling: `attempt` raises nothing
                result = Failure("failed", f"a process of the build cannot load a stage ({type(error).__name__}: {error})")
            except (KeyboardInterrupt, SystemExit):
                if at >= 0:  # on documents: the one that ends the process is to be found
                    raise
                result = Failure("failed", f"the stage ended the process: {traceback.format_exc(limit=-1)}")
            channel.send(("done", result))


def _end_with_parent(descriptor: int) -> None:
    """End this process at once when the other end of its channel closes: a model must not keep a device from its successor."""
    poll = select.poll()
    poll.register(descriptor, 0)
    poll.poll()
    os._exit(1)
