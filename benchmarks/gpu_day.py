"""Everything that needs a GPU, in a few minutes on one card: what has never run there is tried, what is claimed is measured.

Needs torch, triton, transformers, tokenizers, pyarrow and numba alone. Each step is a process of its own with a limit of time, so
that one that fails, hangs or spoils the device leaves the others theirs. Writes one JSON file:

    {"device": ..., "minutes": ..., "versions": {package: version},
     "steps": {name: {"state": "done" | "failed" | "skipped", "seconds": s, "found": {...} or "why": text}},
     "never_run": [paths of the code that run on CUDA alone and that no step of this run has tried with success]}

    checks        what runs on CUDA alone, beside float32 on the CPU and alone beside together (`_gpu_checks.py`)
    tiles         the head's kernel with other tiles: milliseconds and share of a matmul's rate
    scoring_gpu   `python -m benchmarks.scoring_gpu`: its closing line
    sequence      a classifier of sequences beside a loop of transformers, sorted by length (`_sequence.py`)
    lift          `python -m benchmarks.lift` on a build, with as many steps as what is left of the time allows

    python -m benchmarks.gpu_day [--minutes 12] [--build BUILD] [--out FILE]
    python -m benchmarks.gpu_day --quick    a dry run on the CPU, everything small: are the steps themselves right?
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "triton", "transformers", "tokenizers", "pyarrow", "numba")
LIFT_S = 1500.0  # seconds of `benchmarks.lift` with all its 750 steps and two seeds on one H100, by its own arithmetic
LIFT_STEPS, LEAST_STEPS = 750, 40
TEXTS = 2000

Json = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """What a step is told: whether it is a dry run on the CPU, its seconds, a build for `lift`, and where its result goes."""

    quick: bool
    seconds: float
    build: str | None
    file: Path

    @property
    def device(self) -> str:
        """Return where it is to run."""
        return "cpu" if self.quick else "cuda"


class Skip(Exception):
    """A step that cannot run here; its message says why."""


# ---- the steps; each in its process ----


def checks(given: Given) -> Json:
    """Try each path that runs on CUDA alone; none keeps the others from being tried."""
    from benchmarks._gpu_checks import CHECKS

    found: Json = {}
    for name, check in CHECKS.items():
        if given.quick and "torch.compile" in name:
            continue  # it wants a C++ compiler, and minutes
        try:
            found[name] = {"right": True, "found": check(given.device)}
        except Exception as error:  # noqa: BLE001 - the boundary: whatever is wrong is what is to be found out
            found[name] = {"right": False, "found": _short(error)}
        # A check that hangs, or ends the process, leaves what was found before.
        _write(
            given.file, {"state": "failed", "why": f"did not come back after {name}", "found": found, "seconds": given.seconds}
        )
    return found


def tiles(given: Given) -> Json:
    """Return milliseconds and shares of the matmul's rate of the head with each choice of tiles."""
    from benchmarks import scoring_gpu

    ways = scoring_gpu.ways_of_the_head(tiles=True)
    if given.quick:
        raise Skip(f"the kernel's {len(ways) - 2} choices of tiles run on CUDA alone")
    rows = scoring_gpu.heads_on_cuda(scoring_gpu.matmul_rate(), ways)
    return {name: {"ms": float(took), "of_matmul": share} for name, took, share in rows}


def scoring_gpu(given: Given) -> Json:
    """Return the closing line of the benchmark; quick where time is short."""
    from benchmarks import scoring_gpu as benchmark

    if given.quick:
        vars(benchmark).update(QUICK_CPU_TOKENS=600, CPU_TURNS=1, CPU_HEAD=(64, 2048, 32))
    flags = ["--quick"] if given.quick or given.seconds < 240 else []
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        benchmark.main([*flags, *(["--cpu"] if given.quick else [])])
    lines = printed.getvalue().splitlines()
    return {"rows": json.loads(lines[-1]), "printed": lines[:-1]}


def sequence(given: Given) -> Json:
    """Return how many texts a second both sides score, and the ratio of their times."""
    from benchmarks import _sequence

    texts = _sequence.random_texts(12 if given.quick else TEXTS)
    shape = _sequence.SHAPES["tiny" if given.quick else "base"]
    with tempfile.TemporaryDirectory() as folder:
        turns, far = _sequence.compare(Path(folder), shape, texts, 1 if given.quick else 3, given.device, 0.0)
    ratio = turns.over("peer", "ours")
    assert ratio is not None
    rates = {side: round(len(texts) / turns.median(side), 1) for side in ("ours", "peer")}
    return {"texts_per_s": rates, "ratio": asdict(ratio), "goal": _sequence.GOAL, "scores_differ_by": far}


def lift(given: Given) -> Json:
    """Return the closing line of the benchmark, with as many steps as there is time for."""
    from benchmarks.lift.__main__ import main

    if given.build is None:
        raise Skip("it needs a build of tokens: --build")
    steps = 2 if given.quick else max(LEAST_STEPS, int(LIFT_STEPS * min(1.0, 2 * 0.7 * given.seconds / LIFT_S)))
    small = ["--quick", "--arms", "full"] if given.quick else []
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main(["--build", given.build, "--seeds", "1", "--steps", str(steps), *small])
    lines = printed.getvalue().splitlines()
    return {"steps": steps, "rows": json.loads(lines[-1]), "printed": lines[:-1]}


STEPS: Mapping[str, tuple[Callable[[Given], Json], float]] = {
    "checks": (checks, 0.2),
    "tiles": (tiles, 0.1),
    "scoring_gpu": (scoring_gpu, 0.45),
    "sequence": (sequence, 0.25),
    "lift": (lift, 1.0),
}
"""Name → what it does, and the share of all time that it may take at most; the last takes what is left."""


# ---- the run ----


def run_step(name: str, given: Given) -> None:
    """Do one step and write what came of it."""
    begin = time.monotonic()
    try:
        result: Json = {"state": "done", "found": STEPS[name][0](given)}
    except Skip as error:
        result = {"state": "skipped", "why": str(error)}
    except BaseException as error:  # noqa: BLE001 - the boundary: whatever ends a step is what is recorded of it
        traceback.print_exc()
        result = {"state": "failed", "why": _short(error)}
    _write(given.file, result | {"seconds": round(time.monotonic() - begin, 1)})


def step_apart(name: str, given: Given) -> Json:
    """Do one step in a process of its own; return what came of it."""
    flags = ["--quick"] if given.quick else []
    build = [] if given.build is None else ["--build", given.build]
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu_day",
        "--step",
        name,
        str(given.seconds),
        "--out",
        str(given.file),
        *flags,
        *build,
    ]
    begin = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=given.seconds, cwd=RESULTS.parents[1])
        why = f"its process ended with {done.returncode}: {done.stderr.strip()[-400:]}"
    except subprocess.TimeoutExpired:
        why = f"took more than its {given.seconds:.0f} s"
    if given.file.exists():
        found: Json = json.loads(given.file.read_text())
        return found
    return {"state": "failed", "why": why, "seconds": round(time.monotonic() - begin, 1)}


def never_run(steps: Mapping[str, Json], *, quick: bool) -> list[str]:
    """Return the paths that run on CUDA alone and that no step has tried with success."""
    from benchmarks._gpu_checks import CHECKS

    right = {} if quick else steps.get("checks", {}).get("found", {})
    return [name for name in CHECKS if not right.get(name, {}).get("right")]


def run(minutes: float, *, quick: bool, build: str | None, wanted: Sequence[str] = tuple(STEPS)) -> Json:
    """Do all steps, one after the other; return the content of the file."""
    end = time.monotonic() + 60 * minutes
    steps: dict[str, Json] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            left = end - time.monotonic()
            seconds = min(left, 60 * minutes * STEPS[name][1])
            if seconds < 5:
                steps[name] = {"state": "skipped", "why": "no time was left", "seconds": 0.0}
            else:
                steps[name] = step_apart(name, Given(quick, seconds, build, Path(folder) / f"{name}.json"))
            print(f"{name}: {steps[name]['state']} after {steps[name]['seconds']} s {steps[name].get('why', '')}", flush=True)
    return {
        "device": device_name(quick=quick),
        "minutes": minutes,
        "versions": {name: _version(name) for name in PACKAGES},
        "steps": steps,
        "never_run": never_run(steps, quick=quick),
    }


def device_name(*, quick: bool) -> str:
    """Return the name of what it runs on."""
    import torch

    return "cpu" if quick else str(torch.cuda.get_device_name())


def closing(steps: Mapping[str, Json]) -> str:
    """Return the line that machines read: the rows of `scoring_gpu`, and the classifier of sequences."""
    rows = dict(steps.get("scoring_gpu", {}).get("found", {}).get("rows", {}))
    found = steps.get("sequence", {}).get("found", {})
    rows["sequence"] = {"ratio": found.get("ratio", {}).get("median"), "goal": found.get("goal", 1.3)}
    return json.dumps(rows)


def _write(file: Path, result: Json) -> None:
    file.write_text(json.dumps(result))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def main(argv: Sequence[str] | None = None) -> None:
    """Do what is asked, print the file's name and the paths that have never run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_day", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=12.0, help="for everything (default: 12)")
    parser.add_argument("--build", help="a build of tokens, for `lift`")
    parser.add_argument("--out", type=Path, help="the file (default: benchmarks/results/gpu-DEVICE.json)")
    parser.add_argument("--quick", action="store_true", help="a dry run on the CPU, everything small")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=tuple(STEPS), help="some of the steps")
    parser.add_argument("--step", nargs=2, metavar=("NAME", "SECONDS"), help=argparse.SUPPRESS)
    parser.epilog = "python -m benchmarks.gpu_day --quick"
    given = parser.parse_args(argv)
    if given.step is not None:
        name, seconds = given.step
        run_step(name, Given(given.quick, float(seconds), given.build, given.out))
        return
    if not given.quick:
        import torch

        if not torch.cuda.is_available():
            parser.error("torch sees no CUDA device; --quick tries the steps on a CPU")
    found = run(given.minutes, quick=given.quick, build=given.build, wanted=given.steps)
    out = given.out or RESULTS / f"gpu-{re.sub('[^a-z0-9]+', '-', found['device'].lower()).strip('-')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{out}\nnever run on CUDA: {', '.join(found['never_run']) or 'nothing'}")
    print(closing(found["steps"]))


if __name__ == "__main__":
    main()
