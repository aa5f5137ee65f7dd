"""Read training batches from a build: `python -m examples.read_batches build/demo`.

Reads the newest build of an output folder; prints what a training loop would get, and shows that reading goes on exactly
where it stopped.
"""

from __future__ import annotations

import argparse

import numpy as np

from gristmill import StoredMask, TokenDataset, TokenLoader

STOP_AFTER = 7
SELECTED = "selected.excess"  # the mask of the policy `excess`


def main() -> None:
    """Print the shape and the share of trained tokens of each batch, then resume in the middle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", help="an output folder, a builds/<id> in it, or a manifest.json")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--sequence-length", type=int, default=2048)
    arguments = parser.parse_args()

    dataset = TokenDataset.open(arguments.build, sequence_length=arguments.sequence_length, seed=1, verify=True)
    scored = any(SELECTED in sidecar.columns for shard in dataset.manifest().shards for sidecar in shard.sidecars.values())
    select = StoredMask(column=SELECTED) if scored else None
    print(f"{dataset.manifest().tokens:,} tokens, {len(dataset):,} sequences of {arguments.sequence_length}, hashes checked")

    loader = TokenLoader(dataset, arguments.batch_size, select=select)
    seen, state = [], {}
    for number, batch in zip(range(arguments.batches), loader, strict=False):
        ids, share = batch.input_ids, batch.loss_mask.mean()
        print(f"batch {number:>2}: {ids.shape} {ids.dtype}, loss on {share:.1%} of the tokens")
        seen.append(batch.input_ids)
        if number + 1 == STOP_AFTER:
            state = loader.state_dict()

    resumed = TokenLoader(dataset, arguments.batch_size, select=select)
    resumed.load_state_dict(state)
    again = [batch.input_ids for _, batch in zip(range(STOP_AFTER, arguments.batches), resumed, strict=False)]
    assert all(np.array_equal(a, b) for a, b in zip(seen[STOP_AFTER:], again, strict=True)), "the resumed batches differ"
    print(f"resumed at sample {state['sample']}: the {len(again)} batches after it are the same")


if __name__ == "__main__":
    main()
