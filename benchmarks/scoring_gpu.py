"""Losses and entropies of tokens by a decoder: how near to the card's own rate, and how far from padded batches.

On a CUDA device: tokens a second of body and head with random weights at the shapes of TinyLlama (1.1B) and SmolLM2 (135M),
bfloat16; their FLOPs a second as a share of what an 8192 x 8192 x 8192 product reaches in the same process; tokens a second
beside transformers with padded batches of 32 documents in order of arrival, and sorted by length, which compute losses alone; and
the head's peak of memory at 32k tokens and a vocabulary of 262k, of which it may take 1 GiB. Padding and packing count: FLOPs are
those of the documents' own tokens. Without one (or with `--cpu`): CPU seconds of one thread for a small shape in float32, and the
growth of the process's peak of memory beside whole logits. Rows whose hardware is missing are named and have no ratio.

    python -m benchmarks.scoring_gpu [--quick] [--cpu] [--head fused|chunked] [--tiles]
"""

from __future__ import annotations

import argparse
import copy
import functools
import resource
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import _scoring_peers, _table
from benchmarks._scoring_models import SIZES, Documents, flops, make_documents, make_engine, make_model
from benchmarks._turns import Ratio, calls, take_turns
from gristmill.models.causal_lm import engine as engine_module
from gristmill.models.causal_lm.head import head_bytes, head_losses

SHARES = {"1.1b": 0.60, "135m": 0.40}
ARRIVAL_GOAL, SORTED_GOAL = 3.0, 1.3
GIB = 2**30
SIDE = 8192
LARGEST = (32_768, 262_144, 2048)  # rows, vocabulary, width
PACK, CPU_PACK = 32_768, 4096
TOKENS, QUICK_TOKENS = {"1.1b": 600_000, "135m": 2_000_000}, {"1.1b": 150_000, "135m": 400_000}
CPU_TOKENS, QUICK_CPU_TOKENS = 60_000, 30_000
CPU_PART = 8  # documents an eighth as long: there must be many of them
CHUNK = 8192  # of the head in chunks on CUDA
# The CPU's head beside whole logits, and how much less memory it should take.
CPU_HEAD, CPU_HEAD_GOAL = (2048, 49_152, 64), 8.0

CPU_TURNS = 2
Rows = dict[str, tuple[Ratio | float | None, float]]
GPU_ROWS: Rows = {
    **{f"matmul_share_{name}": (None, goal) for name, goal in SHARES.items()},
    **{
        f"{order}_{name}": (None, goal) for name in SHARES for order, goal in (("arrival", ARRIVAL_GOAL), ("sorted", SORTED_GOAL))
    },
    "head_memory": (None, 1.0),
}
CPU_ROWS: Rows = {
    "arrival_cpu": (None, ARRIVAL_GOAL),
    "sorted_cpu": (None, SORTED_GOAL),
    "same_losses_cpu": (None, 1.0),
    "head_memory_cpu": (None, CPU_HEAD_GOAL),
}


def seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """Return the median of what some calls take on the device."""
    work()
    found = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - begin)
    return median(found)


def matmul_rate() -> float:
    """Return FLOPs a second of one product of two random bfloat16 matrices."""
    one, other = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * SIDE**3 / seconds(lambda: one @ other, 20)


def head_inputs(rows: int, vocabulary: int, width: int, device: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Return hidden states, weights and targets."""
    hidden = torch.randn(rows, width, device=device, dtype=dtype)
    weight = torch.randn(vocabulary, width, device=device, dtype=dtype).mul_(0.02)
    return hidden, weight, torch.randint(vocabulary, (rows,), device=device)


def on_cuda(name: str, rate: float, *, quick: bool, rows: Rows) -> list[str]:
    """Measure one shape; add its rows of the last line and return that of the table."""
    size = SIZES[name]
    documents = make_documents((QUICK_TOKENS if quick else TOKENS)[name], size.vocabulary)
    model = make_model(size, "cuda", torch.bfloat16)
    tokens = len(documents.ids)
    rounds = 1 if quick else 3
    peers = [
        seconds(lambda by=by: _scoring_peers.losses(model, documents, by_length=by), rounds)  # type: ignore[misc]
        for by in (False, True)
    ]
    torch.cuda.empty_cache()
    engine = make_engine(model, PACK, compile=not quick)  # last: it gives the model its own attention
    ours = seconds(lambda: engine.score(documents.ids, documents.bounds), rounds)
    share = flops(size, documents.lengths()) / ours / rate
    rows[f"matmul_share_{name}"] = share, SHARES[name]
    rows[f"arrival_{name}"], rows[f"sorted_{name}"] = (peers[0] / ours, ARRIVAL_GOAL), (peers[1] / ours, SORTED_GOAL)
    figures = (f"{tokens / each / 1e3:,.0f}" for each in (ours, *peers))
    return [name, *figures, f"{share:.1%}", f"{peers[0] / ours:.2f}", f"{peers[1] / ours:.2f}"]


def heads_on_cuda(rate: float, ways: dict[str, Callable[..., Any]]) -> list[list[str]]:
    """Return rows of the head's table: its rate alone at each shape, as a share of the matmul's."""
    found = []
    for name in SHARES:
        size = SIZES[name]
        inputs = head_inputs(PACK, size.vocabulary, size.hidden, "cuda", torch.bfloat16)
        for way, work in ways.items():
            took = seconds(lambda work=work, inputs=inputs: work(*inputs))  # type: ignore[misc]
            share = 2 * PACK * size.vocabulary * size.hidden / took / rate
            found.append([f"{name}, {way}", f"{took * 1e3:.2f}", f"{share:.1%}"])
    return found


def ways_of_the_head(*, tiles: bool) -> dict[str, Callable[..., Any]]:
    """Return the ways to compare; with `tiles`, the kernel's with others than its own."""
    from gristmill.models.causal_lm.head_triton import LARGE, SMALL, Tiles, fused_parts
    from gristmill.models.causal_lm.parts import combine

    def tiled(chosen: Tiles) -> Callable[..., Any]:
        return lambda hidden, weight, targets: combine(
            fused_parts(hidden, weight, targets, None, 1.0, None, entropy=True, tiles=chosen)
        )

    ways: dict[str, Callable[..., Any]] = {"fused": head_losses, "chunked": functools.partial(head_losses, chunk=CHUNK)}
    if tiles:
        four, flat = Tiles(128, 256, 64, 8, 4), Tiles(128, 256, 64, 8, 3, flat=True)
        others = (LARGE, SMALL, four, flat, Tiles(128, 128, 64, 4, 3), Tiles(128, 128, 64, 4, 3, flat=True))
        ways |= {str(each): tiled(each) for each in others}
    return ways


def memory_on_cuda(way: Callable[..., Any]) -> int:
    """Return the bytes that the head takes at most beside its arguments."""
    inputs = head_inputs(*LARGEST, "cuda", torch.bfloat16)
    way(*head_inputs(256, 2 * CHUNK, LARGEST[2], "cuda", torch.bfloat16))  # what the library keeps is not the head's
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    way(*inputs)
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def grown(work: Callable[[], object]) -> int:
    """Return by how many bytes a call raises the process's peak of memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def memory_on_cpu() -> tuple[int, int]:
    """Return what the head takes in this process, and what whole logits take; to be called before anything large."""
    inputs = head_inputs(*CPU_HEAD, "cpu", torch.float32)
    head_losses(*head_inputs(8, 100, 64, "cpu", torch.float32))  # what the library keeps is not the head's

    def whole() -> object:
        logits = inputs[0] @ inputs[1].T
        log_p = logits.log_softmax(1)
        nll = -log_p.gather(1, inputs[2][:, None])
        return nll, -(log_p.exp() * log_p).sum(1)

    return max(grown(lambda: head_losses(*inputs)), 1 << 20), grown(whole)


def on_cpu(*, quick: bool, rows: Rows) -> list[str]:
    """Measure the small shape on one thread; add its rows of the last line and return that of the table."""
    size = SIZES["tiny"]
    documents = cpu_documents(quick=quick)
    model = make_model(size, "cpu", torch.float32)
    # Of a copy: an engine leaves its own attention in the model that it is given.
    engine, losses = make_engine(copy.deepcopy(model), CPU_PACK, compile=False), dict[str, np.ndarray]()

    def peer(name: str, by_length: bool) -> None:
        losses[name] = _scoring_peers.losses(model, documents, by_length=by_length)

    def ours() -> None:
        losses["ours"] = engine.score(documents.ids, documents.bounds).nll

    sides: dict[str, Callable[[], object]] = {
        "ours": ours,
        "arrival": functools.partial(peer, "arrival", False),
        "sorted": functools.partial(peer, "sorted", True),
    }
    found = take_turns(calls(sides), CPU_TURNS)
    far = max(float(np.nanmax(np.abs(each - losses["ours"]))) for each in losses.values())
    assert all((np.isnan(each) == np.isnan(losses["ours"])).all() for each in losses.values())
    over = {name: found.over(name, "ours") for name in ("arrival", "sorted")}
    rows["arrival_cpu"], rows["sorted_cpu"] = (over["arrival"], ARRIVAL_GOAL), (over["sorted"], SORTED_GOAL)
    rows["same_losses_cpu"] = (1e-4 / max(far, 1e-9), 1.0)
    figures = (f"{len(documents.ids) / found.median(name) / 1e3:,.1f}" for name in sides)
    return ["tiny", *figures, f"{far:.1e}", *map(_table.ranged, over.values())]


def cpu_documents(*, quick: bool) -> Documents:
    """Return documents for the small shape."""
    return make_documents(QUICK_CPU_TOKENS if quick else CPU_TOKENS, SIZES["tiny"].vocabulary, part=CPU_PART)


def about(documents: Documents) -> str:
    """Return a line about documents: whence, how many, and what padding costs."""
    arrival, by_length = (_scoring_peers.waste(documents, by_length=by) for by in (False, True))
    return (
        f"{documents.origin}; {len(documents.bounds) - 1:,} of them; padded batches compute {arrival:.2f} positions a token, "
        f"sorted by length {by_length:.2f}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables and the line of ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring_gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer tokens, without torch.compile; within a minute")
    parser.add_argument("--cpu", action="store_true", help="the CPU's rows also where there is a CUDA device")
    parser.add_argument("--head", choices=["fused", "chunked"], default="fused", help="which head on CUDA (default: the kernel)")
    parser.add_argument("--tiles", action="store_true", help="the head alone with other tiles too, to choose them")
    parser.epilog = "python -m benchmarks.scoring_gpu [--quick]"
    arguments = parser.parse_args(argv)
    cuda = torch.cuda.is_available() and not arguments.cpu
    rows = GPU_ROWS | CPU_ROWS
    (run_cuda if cuda else run_cpu)(arguments, rows)
    missing = [name for name, (ratio, _) in rows.items() if ratio is None]
    print(f"skipped, {'run with --cpu for them' if cuda else 'no CUDA device'}: {', '.join(missing)}")
    print(_table.closing(rows))


def run_cuda(arguments: argparse.Namespace, rows: Rows) -> None:
    """Print what a CUDA device does."""
    way = functools.partial(head_losses, chunk=CHUNK) if arguments.head == "chunked" else head_losses
    vars(engine_module)["head_losses"] = way
    taken = memory_on_cuda(way)
    torch.cuda.empty_cache()
    rate = matmul_rate()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: {SIDE}³ bfloat16 at {rate / 1e12:.0f} TFLOP/s")
    print(about(make_documents(QUICK_TOKENS["1.1b"], SIZES["1.1b"].vocabulary)))
    table = [on_cuda(name, rate, quick=arguments.quick, rows=rows) for name in SHARES]
    head = ["k tokens/s", "gristmill", "arrival", "sorted", "of matmul", "x arrival", "x sorted"]
    print(_table.table(head, table))
    print()
    print(_table.table(["head alone", "ms", "of matmul"], heads_on_cuda(rate, ways_of_the_head(tiles=arguments.tiles))))
    rows["head_memory"] = (GIB / taken, 1.0)
    print(f"head at 32k tokens x 262k: {taken / 2**20:.0f} MiB beside its arguments")


def run_cpu(arguments: argparse.Namespace, rows: Rows) -> None:
    """Print what a CPU does, with one thread."""
    torch.set_num_threads(1)
    ours, whole = memory_on_cpu()
    rows["head_memory_cpu"] = (whole / ours, CPU_HEAD_GOAL)
    print(f"no CUDA device used; CPU, one thread, torch {torch.__version__}")
    print(about(cpu_documents(quick=arguments.quick)))
    head = ["k tokens per CPU-s", "gristmill", "arrival", "sorted", "differ by", "x arrival", "x sorted"]
    print(_table.table(head, [on_cpu(quick=arguments.quick, rows=rows)]))
    bound = head_bytes(*LARGEST, dtype=torch.bfloat16, device="cuda")
    print(f"head: {ours / 2**20:.0f} MiB, whole logits {whole / 2**20:.0f} MiB at {CPU_HEAD[0]:,} x {CPU_HEAD[1]:,}")
    print(f"head on CUDA at 32k tokens x 262k, by arithmetic, not measured: {bound / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
