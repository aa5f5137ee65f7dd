"""Ray clusters of processes that are started and ended here: a head, and nodes in another view of the file system."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
# Without what only people look at, or what starts more nodes: each is a process that imports Ray.
START = [*RAY, "start", "--block", "--disable-usage-stats", "--object-store-memory=100000000", "--include-log-monitor=false"]
HEAD = ["--head", "--include-dashboard=false", "--no-monitor"]
WAIT_S = 60.0


@dataclass
class Head:
    """A cluster at `address`; `environment` is that of its nodes."""

    address: str
    folder: str
    environment: Mapping[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add(self, *options: str, before: tuple[str, ...] = ()) -> None:
        """Start a node, by a command that stands before its own."""
        command = [*before, *START, *options]
        with (Path(self.folder) / f"{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env={**os.environ, **self.environment}, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)

    def wait_for(self, text: str, number: int = -1) -> None:
        """Wait until a node has said something."""
        number %= len(self.processes)
        log = Path(self.folder) / f"{number}.log"
        for _ in range(int(WAIT_S * 10)):
            if text in log.read_text():
                return
            assert self.processes[number].poll() is None, log.read_text()
            time.sleep(0.1)
        raise AssertionError(log.read_text())

    def stop(self) -> None:
        """End all nodes, the last first."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextlib.contextmanager
def head(environment: Mapping[str, str], cpus: int) -> Iterator[Head]:
    """Start a head on a free port; end it and its nodes behind the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="gm-ray-", dir="/tmp")  # sockets lie in it: their names must be short
    found = Head(f"127.0.0.1:{port}", folder, environment)
    try:
        found.add(*HEAD, f"--port={port}", f"--num-cpus={cpus}", f"--temp-dir={folder}/ray")
        found.wait_for("Ray runtime started")
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)
