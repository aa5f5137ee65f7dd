"""A unit in a process of its own, so that a document that kills it kills nothing else, and can be found.

The parent (`Child`) sends tasks over a socket; the child (`serve`) runs them and tells, before each piece
of work, where it is. When it dies, the parent knows the table, then (that table taken one document at a time) the document.
Only a document that was being worked on at `STRIKES` deaths is quarantined: processes also die for other reasons.

The piece of work is a unit, or one table for a stage that has a pool (`pipeline/pool.py`). A unit in a child reaches such pools
through its parent.
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
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import pyarrow as pa

from gristmill.errors import ENDINGS, Damaged, GristmillError, StoreError, StoreFull, UserError
from pipeline.flow import Pool, StageResult
from pipeline.panics import pass_on
from pipeline.pool import Answer, Call, open_once, pack, run_call
from pipeline.segment import Report, Task, run_unit

STRIKES = 3
STALLED = "stalled"  # the kind of end of a process that was killed because it did not move
LAST_WORDS_S = 1.0
DEATHS_AT_ONE_PLACE = 8  # outside any document: opening a stage, reading the source, a sink


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a unit is not done: `kind` is what the driver acts on, `message` is for people."""

    # "failed" (ours or the data's: no retry) | "store" (retry) | "full" (stop) | "user" (stop) | "damaged" (mend `record`)
    kind: str
    message: str
    record: str = ""  # of the unit whose result is damaged


Ask = Callable[[pa.Buffer], Callable[[], Answer | Failure]]  # sends a packed table to a pool; the result waits for the reply
Heard = Callable[[int, str], None]  # (documents, stage)
Work = TypeVar("Work", Task, Call)


class Ended(Exception):
    """A pool cannot work for a unit; holds the Failure."""


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """A `flow.Pool` that is reached through a function."""

    ask: Ask
    ahead: int

    def submit(self, table: pa.Table) -> Callable[[], StageResult]:
        """Send a table. What is returned raises Ended when there is no answer."""
        wait = self.ask(pack(table))

        def land() -> StageResult:
            reply = wait()
            if isinstance(reply, Failure):
                raise Ended(reply)
            return reply.done()

        return land


def attempt(work: Task | Call, report: Report | None = None, pools: Mapping[str, Pool] | None = None) -> Any | Failure:  # noqa: ANN401
    """Run a unit or a call; return its manifest or its answer, or why there is none.

    Nothing is raised, so that whatever a runner sees raised is infrastructure.
    """
    try:
        if isinstance(work, Call):
            # What a model takes is no document's doing: it is opened before the bound is set.
            function = open_once(work.stage)
            limit_memory(work.memory)
            return run_call(work, function, report)
        limit_memory(work.memory)
        return run_unit(work, report, pools)
    except Ended as ended:
        failure: Failure = ended.args[0]
        return failure
    except StoreFull as error:
        return Failure("full", str(error))
    except StoreError as error:
        return Failure("store", str(error))
    except Damaged as error:
        return Failure("damaged", error.what, error.record)
    except UserError as error:
        return Failure("user", str(error))
    except GristmillError as error:
        return Failure("failed", str(error))
    except (FileNotFoundError, PermissionError) as error:
        return Failure("failed", f"{type(error).__name__}: {error}")
    except OSError as error:
        # A disk or a network that failed under us: on a document it would have been caught before.
        return Failure("full" if error.errno == errno.ENOSPC else "store", f"{type(error).__name__}: {error}")
    except ENDINGS:
        raise
    except BaseException as error:  # noqa: BLE001 - what a stage raises outside of documents ends its unit, not the build
        said = f"{type(error).__name__}: {error}"
        # The frames of a panic in Rust are not to be seen from here.
        return Failure("failed", f"{said}\n{traceback.format_exc(limit=-4)}" if isinstance(error, Exception) else said)


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


def replaceable(work: Task | Call) -> bool:
    """Tell whether work that does not move may be given to another process: a reduce, a settle and an opening tell of none."""
    return work.table is not None if isinstance(work, Call) else work.spec.kind == "segment"


class Died(Exception):
    """The child process ended while it worked; holds the kind of its end."""


class Closed(Exception):
    """The child was closed by its owner."""


class Child:
    """A worker process of this machine, started when needed and again after each death, until it is closed.

    Args:
        pools: answer it when a unit there comes to a stage with a pool.
        stalled: seconds without a sign of progress after which it is killed; None: never.
        heard: is given what it tells of its progress: documents that entered, and the stage.
    """

    def __init__(self, pools: Mapping[str, Ask] | None = None, stalled: float | None = None, heard: Heard | None = None) -> None:
        self._pools = pools or {}
        self._stalled = stalled
        self.heard = heard
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Connection | None = None
        self._errors: threading.Thread | None = None
        self.at: tuple[int, str, str | None] = (-1, "", None)

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        # The parent's modules must be found there too, whatever put them on its path.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        # Not `-m`: classes of a module run as `__main__` would not be ours when they come back.
        command = [sys.executable, "-c", f"from pipeline.child import serve; serve({theirs.fileno()})"]
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

    def run(self, work: Task | Call) -> Any | Failure:  # noqa: ANN401 - a manifest or an answer
        """Do one piece of work there. Raises Died; `at` then tells what it was doing."""
        if self._closed:
            raise Closed
        channel = self._channel or self._start()
        self.at = (-1, "", None)
        try:
            channel.send((work, tuple(self._pools)))
            limit = None  # until it has begun: a process takes as long to start as the machine needs
            while channel.poll(limit):
                kind, content = channel.recv()
                limit = self._stalled if replaceable(work) else None
                if kind == "done":
                    return content
                if kind == "ask":
                    name, table = content
                    channel.send(self._pools[name](table)())
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
            # It may be dying with the channel closed already; its own status tells more than our kill.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
            self._process.kill()
        status = self._process.wait()
        self._hear_out()
        self._process = None
        return status


def run_isolated(child: Child, work: Work) -> Any | Failure:  # noqa: ANN401 - a manifest or an answer
    """Do a piece of work in `child`, as often as it takes to find every document that kills it, and quarantine those.

    Returns the manifest or the answer, or a Failure when it dies again and again outside of any document.
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


def serve(descriptor: int) -> None:
    """Serve tasks until the parent goes."""
    channel = Connection(descriptor)
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()

    def report(number: int, stage: str, document: str | None, documents: int) -> None:
        channel.send(("at", (number, stage, document, documents)))

    def relay(name: str) -> Ask:
        def ask(table: pa.Buffer) -> Callable[[], Answer | Failure]:
            channel.send(("ask", (name, table)))
            return channel.recv

        return ask

    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            work, names = channel.recv()
            pools = {name: Elsewhere(relay(name), 1) for name in names}
            channel.send(("done", attempt(work, report, pools)))


def _end_with_parent(descriptor: int) -> None:
    """End this process at once when the other end of its channel closes: a model must not keep a device from its successor."""
    poll = select.poll()
    poll.register(descriptor, 0)
    poll.poll()
    os._exit(1)
