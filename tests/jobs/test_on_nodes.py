"""Builds on a real cluster whose nodes differ from the driver: in the token, in credentials, in a disk, in having its repository.

What a node lacks is named, with what to do, and nothing hangs. What needs not be there is a repository of somebody else's, with
a source, a package and a file of stages: it travels.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from jobs.__main__ import main
from tests.conftest import ROOT
from tests.jobs.ray_heads import Head, head
from tests.s3_servers import BUCKET, ENVIRONMENT, moto

pytest.importorskip("ray")

TOKEN = "feed" * 10
OURS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
CHECKOUT = "checkout-of-theirs"
CONFIG = """
name: t
output: {output}
source: {{jsonl: {{paths: "{folder}/*.jsonl"}}}}
stages: [dedup_exact, documents]
run: {{on: ray, address: "{address}"}}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    """One node that has this project, and no repository of somebody else's."""
    with head({**OURS, "GM_NO_CHECKOUT": CHECKOUT}, cpus=1) as found:
        yield found


@pytest.fixture(scope="module")
def disk(cluster: Head, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Add a node that has an empty disk at this path, as one without a mount would; None: it has all that the first has.

    A user needs the right to make mount namespaces.
    """
    shared = tmp_path_factory.mktemp("shared")
    mount = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{shared}" && exec "$@"', "sh")
    may = not subprocess.run([*mount, "true"], capture_output=True).returncode
    cluster.add(f"--address={cluster.address}", "--num-cpus=1", before=mount if may else ())
    cluster.wait_for("Ray runtime started")
    return shared if may else None


def clean() -> dict[str, str]:
    """The environment without what leads to clusters and stores."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "AWS_"))}


def build(cluster: Head, folder: Path, output: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    config = folder / "t.yaml"
    config.write_text(CONFIG.format(output=output, folder=folder, address=cluster.address))
    command = [sys.executable, "-m", "jobs", "build", str(config)]
    return subprocess.run(command, env={**clean(), **environment}, capture_output=True, text=True, timeout=200)


REFUSED = {
    "wrong": ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "beef" * 10}, "the token found here is not its own"),
    "disabled": ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is `disabled` here"),
    "none": ({"HOME": "{}"}, "no token was found here"),
    "no-file": ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "{}/no-file"}, "RAY_AUTH_TOKEN_PATH is set"),
}
# A process that has nothing of Ray yet, as each command is at its start: a child of one that has imported it.
JOIN = """
import json, os, sys
from gristmill.errors import UserError
from pipeline.engines.on_ray.join import join
for environment in json.loads(sys.argv[2]):
    child = os.fork()
    if not child:
        os.environ |= environment
        try:
            join(sys.argv[1], None)
        except UserError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_cluster_that_refuses_our_token_is_told_with_the_remedy(cluster: Head, tmp_path: Path) -> None:
    environments = [{k: v.format(tmp_path) for k, v in environment.items()} for environment, _ in REFUSED.values()]
    command = [sys.executable, "-c", JOIN, cluster.address, json.dumps(environments)]
    done = subprocess.run(command, env=clean(), cwd=ROOT, capture_output=True, text=True, timeout=200, check=True)
    for error, (_, said) in zip(done.stdout.splitlines(), REFUSED.values(), strict=True):
        assert said in error and "RAY_AUTH_TOKEN" in error and TOKEN not in error


def test_credentials_that_the_driver_has_alone_are_named(cluster: Head, tmp_path: Path) -> None:
    with moto() as port:
        ours = {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        file_system = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=ours["AWS_ENDPOINT_URL"])
        file_system.mkdir(BUCKET)
        done = build(cluster, tmp_path, f"s3://{BUCKET}/out", **OURS, **ours)
    assert done.returncode == 2 and "1 of 1 node cannot work on this build:" in done.stderr, done.stderr
    assert f"cannot use the output 's3://{BUCKET}/out'" in done.stderr and "credentials" in done.stderr


def test_a_node_with_another_output_is_named(cluster: Head, disk: Path | None, tmp_path: Path) -> None:
    if disk is None:
        pytest.skip("this user may not make mount namespaces")
    done = build(cluster, tmp_path, str(disk / "out"), **OURS)
    assert done.returncode == 2 and "1 of 2 nodes cannot work on this build:" in done.stderr, done.stderr
    assert f"its output '{disk / 'out'}' is another folder" in done.stderr and "Traceback" not in done.stderr
    assert not list((disk / "out" / "preflight").iterdir())


FILES = {
    # As on a node that does not have it: what is read from the repository itself cannot be imported there.
    "gm_theirs/__init__.py": """
        import os

        if os.environ.get("GM_NO_CHECKOUT", "nowhere") in __file__:
            raise ImportError("this node has no checkout of the repository")
    """,
    "gm_theirs/sources.py": """
        from dataclasses import dataclass
        from stages.source.jsonl import JsonlSource

        @dataclass(frozen=True, kw_only=True)
        class Mine(JsonlSource):
            '''JSON lines, as of ours.'''
    """,
    "gm_theirs/words.txt": "boring\n",
    "gm_theirs/filters.py": """
        import time
        from dataclasses import dataclass
        from importlib.resources import files

        import pyarrow as pa
        from gm_theirs_helper import has
        from pipeline.stage import Filter, Judge

        @dataclass(frozen=True, kw_only=True)
        class Boring(Filter):
            '''Drop what has a boring word; takes its time.'''

            seconds: float = 0.0

            def open(self) -> Judge:
                words = files("gm_theirs").joinpath("words.txt").read_text().split()

                def judge(docs: pa.Table) -> pa.Array:
                    time.sleep(self.seconds * docs.num_rows)
                    return pa.array([has(text, words) for text in docs["text"].to_pylist()], pa.string())

                return judge
    """,
    "gm_theirs_helper.py": """
        def has(text, words):
            assert "odd" not in text
            return "boring" if any(word in text for word in words) else None
    """,
    "rules/shout.py": """
        from dataclasses import dataclass
        import pyarrow.compute as pc
        from pipeline.stage import Map, Transform

        @dataclass(frozen=True, kw_only=True)
        class Shout(Map):
            '''Texts in capitals.'''

            def open(self) -> Transform:
                return lambda docs: docs.set_column(docs.column_names.index("text"), "text", pc.utf8_upper(docs["text"]))
    """,
    "theirs.yaml": """
        name: theirs
        output: out
        source: {"gm_theirs.sources:Mine": {paths: "in/*.jsonl"}}
        stages:
          - gm_theirs.filters:Boring
          - rules/shout.py:Shout
          - dedup_exact
          - documents
        run: {on: local, workers: 1}
    """,
}
PLACES = 6


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / CHECKOUT
    for name, text in FILES.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    (repository / "in").mkdir()
    for shard in range(PLACES):
        texts = [f"text {number} of many" for number in range(shard, shard + 8)] + [f"a boring one, {shard}"]
        texts += ["an odd one"] if shard == 2 else []
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (repository / "in" / f"{shard}.jsonl").write_text(lines)
    return repository


def start(repository: Path, *overrides: str) -> subprocess.Popen[str]:
    sets = [word for pair in overrides for word in ("--set", pair)]
    command = [sys.executable, "-m", "jobs", "build", "theirs.yaml", *sets]
    environment = {**clean(), **OURS}
    return subprocess.Popen(command, cwd=repository, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def built(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, out + errors
    return out.split()[-2]


def test_killed_and_resumed_on_nodes_without_it_a_repository_gives_the_build_of_one_process(
    repository: Path, cluster: Head, disk: Path | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On two nodes, fit for this build whatever disk one of them lacks."""
    monkeypatch.chdir(repository)
    assert main(["build", "theirs.yaml"]) == 0
    one = capsys.readouterr().out.split()[-2]
    on_ray = ("run.on=ray", f"run.address={cluster.address}", "output=far", "stages.Boring.seconds=0.05")
    slow = start(repository, *on_ray)
    wait_for_a_unit(repository / "far", slow)
    slow.send_signal(signal.SIGKILL)
    slow.communicate()
    done = list((repository / "far/steps").glob("*/*.json"))
    assert 0 < len(done) < 2 * PLACES
    assert built(start(repository, *on_ray)) == one
    assert set(done) <= set((repository / "far/steps").glob("*/*.json"))


def wait_for_a_unit(output: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not list(output.glob("steps/*/*.json")):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)
