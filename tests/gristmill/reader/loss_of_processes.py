"""Several processes that share a batch: `python loss_of_processes.py FOLDER PROCESSES`.

Reads FOLDER/case.pt: the global batch and the weights of a linear model. Writes FOLDER/RANK.pt: the kept tokens, loss and
gradient for each case, with all processes and with the first two alone. The processes are forked by this one, which imports
torch once for all of them; its exit status is 0 when theirs are.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from gristmill.reader.batch import Batch
from gristmill.reader.selective_loss import select_tokens, selective_loss


def part(batch: dict[str, torch.Tensor], rank: int, processes: int) -> tuple[torch.Tensor, Batch]:
    rows = len(batch["labels"]) // processes
    mine = {name: value[rank * rows : (rank + 1) * rows] for name, value in batch.items()}
    columns = {"ref_loss": mine["ref_loss"]}
    return mine["x"], Batch(None, None, None, None, mine["labels"], mine["loss_mask"], columns)


def take_part(folder: Path, rank: int, processes: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=processes)
    two = dist.new_group([0, 1])
    case = torch.load(folder / "case.pt")
    out = {}
    for number, (arguments, batch) in enumerate(case["batches"]):
        for name, group, among in (("all", "world", processes), ("two", two, 2)):
            if rank >= among:
                continue
            x, mine = part(batch, rank, among)
            layer = torch.nn.Linear(*case["weight"].shape[::-1], bias=False)
            layer.weight.data.copy_(case["weight"])
            loss = selective_loss(layer(x), mine, group=group, **arguments)
            loss.backward()
            gradient = layer.weight.grad / among  # averaged as DistributedDataParallel does, which takes seconds to import
            dist.all_reduce(gradient, group=dist.group.WORLD if name == "all" else two)
            kept = select_tokens(layer(x), mine, group=group, **arguments)
            out[number, name] = (loss.detach(), gradient, kept.weights, kept.mass)
    torch.save(out, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    folder, processes = Path(sys.argv[1]), int(sys.argv[2])
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=take_part, args=(folder, rank, processes)) for rank in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    sys.exit(any(process.exitcode for process in running))


if __name__ == "__main__":
    main()
