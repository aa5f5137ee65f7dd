"""What each reader of the benchmark gives out in one epoch, read in a process of its own: peers warn, print and start threads.

python tests/benchmarks/reader_rows.py FOLDER    one JSON object: reader → "ok", what it lacks, or what is wrong
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._reader_data import LENGTH, ROWS, Data
from benchmarks._reader_peers import PEERS
from benchmarks._reader_turns import READERS


def pairs(rows):
    """Return each pair of neighbours as one number: who cuts documents elsewhere still keeps nearly all of them."""
    rows = rows.astype(np.int64)
    return np.unique(rows[..., :-1] * 65_536 + rows[..., 1:])


def judge(name, data, folder):
    table = data.sequences()
    try:
        batches = READERS[name](data, folder)
        first = [np.asarray(next(batches)) for _ in range(len(table) // ROWS)]
        second = np.concatenate([np.asarray(next(batches)) for _ in range(len(table) // ROWS)])
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    batches.close()
    if any(batch.shape != (ROWS, LENGTH) for batch in first):
        return f"shapes {first[0].shape} to {first[-1].shape}"
    rows = np.concatenate(first)
    if name == "gristmill_labels":  # begin one token later; the very last has no label, and the id that ends documents
        table = np.append(np.asarray(data.tokens())[1:], np.uint16(0)).reshape(table.shape)
    known = {row.tobytes() for row in table}
    found = [row.astype(np.uint16).tobytes() for row in rows]
    if name == "megatron":  # shuffles documents before it cuts
        share = np.isin(pairs(rows), pairs(np.asarray(data.tokens()))).mean()
        return "ok" if share > 0.99 else f"only {share} of its pairs of tokens are the data's"
    if not known.issuperset(found):
        return f"{len(set(found) - known)} of {len(found)} rows are none of the data's"
    if len(set(found)) < len(found):
        return f"{len(found) - len(set(found))} rows came twice in an epoch"
    if name != "datatrove" and (rows[:ROWS] == table[:ROWS]).all():
        return "the order is that of the data"
    return "ok" if name == "datatrove" or (rows != second).any() else "the second epoch is like the first"


def main():
    folder = Path(sys.argv[1])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.append(str(PEERS))
    found = {}
    for name in READERS:
        (folder / name).mkdir()
        found[name] = judge(name, Data(folder / "data"), folder / name)
    out.write(json.dumps(found))
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
