"""The counts of a shard: how often an epoch reads each of its documents.

Reads: a file of counts (`repeats-NNNNN.arrow`, `schema.repeats_schema`), by memory map. Writes: nothing; `passes_of` says of
counts what the manifest says of a file of them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.errors import FormatError
from gristmill.format import schema as fmt
from gristmill.format.column import open_mapped
from gristmill.format.manifest import Repeats

Counts = npt.NDArray[np.uint8]
Lengths = npt.NDArray[np.int32]


def passes_of(counts: npt.NDArray[np.integer[Any]], lengths: npt.NDArray[np.integer[Any]]) -> tuple[tuple[int, int], ...]:
    """Return (documents, tokens) of those with a count of at least 1, at least 2, … See `Repeats.passes`.

    Args:
        counts: of each document, (n,), 1 to 255.
        lengths: tokens of each, (n,).
    """
    documents = np.bincount(counts, minlength=2)
    tokens = np.zeros(len(documents), dtype=np.int64)
    np.add.at(tokens, counts, lengths)
    at_least = [np.cumsum(each[::-1])[::-1][1:].tolist() for each in (documents, tokens)]
    return tuple(zip(*at_least, strict=True))


def read_repeats(path: Path, entry: Repeats, *, verify: bool) -> tuple[Counts, Lengths]:
    """Return (how often an epoch reads each document, its tokens) of a shard: uint8 and int32, (documents,), on the memory map.

    Args:
        path: the file.
        entry: what the manifest says of it.
        verify: compare its sha256, too: it has 5 bytes a document.

    Raises:
        FormatError: the file is not what the manifest says.
    """
    if verify:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry.sha256:
            raise FormatError(f"{path}: sha256 is {found}, the manifest says {entry.sha256}; the file is damaged, copy it again")
    _, reader, names = open_mapped(path, fmt.REPEATS)
    if not reader.schema.equals(fmt.repeats_schema()):
        raise FormatError(
            f"{path}: has columns {', '.join(names)}; a file of counts has {fmt.repeats_schema().names}: copy it again"
        )
    try:
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        arrays = [[batch.column(name).to_numpy() for batch in batches] for name in (fmt.REPEATS, fmt.LENGTH)]
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); the file is damaged, copy it again") from error
    counts = np.concatenate([np.zeros(0, dtype=np.uint8), *arrays[0]])
    lengths = np.concatenate([np.zeros(0, dtype=np.int32), *arrays[1]])
    if lengths.min(initial=0) < 0 or passes_of(counts, lengths) != entry.passes:
        raise FormatError(
            f"{path}: its counts are not those of the manifest; the file belongs to other documents, copy both again"
        )
    return counts, lengths
