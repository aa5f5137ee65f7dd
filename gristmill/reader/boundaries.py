"""Document boundaries in a batch, in the forms that attention kernels and position embeddings want.

Pure functions on arrays; they read and write nothing. A row is one or more *pieces*: the documents, or parts of them, that
attention must not look out of. A row always begins a piece, whether a document begins there or not; in rows packed from
documents the padding at the end is a piece of its own, with positions from 0 and a number of its own, so that nothing
attends to it and no length is missing from `cu_seqlens`.

`starts`, bool of shape (rows, length), is true where a piece begins. `cu_seqlens` holds the same in a few numbers, and the
other forms are made of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


def piece_starts(lengths: Int64, bounds: Int64, length: int) -> npt.NDArray[np.bool_]:
    """Return where the pieces of packed rows begin, and the padding after them, bool, (rows, length).

    Args:
        lengths: int64, (pieces,): tokens of each piece, row by row.
        bounds: int64, (rows + 1,): the pieces of row i are bounds[i] to bounds[i + 1]; together at most `length` tokens.
        length: tokens of a row.
    """
    starts = np.zeros((len(bounds) - 1, length), dtype=np.bool_)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    pieces = np.diff(bounds)
    ends = ends[1:] + np.repeat(np.arange(len(pieces)) * length - ends[bounds[:-1]], pieces)
    starts.reshape(-1)[ends[ends < starts.size]] = True  # where a piece ends, the next begins, or the padding, or a row
    starts[:, 0] = True
    return starts


def cu_seqlens(starts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return the borders of all pieces of the flattened batch, from 0 to rows · length, int32, (pieces + 1,).

    For `flash_attn_varlen_func` and `torch.nn.attention.varlen`, tokens flattened row by row.

    Raises:
        ValueError: 2^31 tokens or more: those kernels count in 32 bits.
    """
    if starts.size >= 1 << 31:
        raise ValueError(f"a batch of {starts.size} tokens; cu_seqlens counts up to 2^31 - 1, take fewer rows")
    begins = starts
    if not starts[:, 0].all():
        begins = starts.copy()
        begins[:, 0] = True
    return np.append(np.flatnonzero(begins), starts.size).astype(np.int32)


def position_ids(cu_seqlens: npt.NDArray[np.int32], length: int) -> npt.NDArray[np.int64]:
    """Return each token's position in its piece, from 0, int64, (rows, length)."""
    begins = cu_seqlens[:-1].astype(np.int64)
    positions = np.arange(cu_seqlens[-1], dtype=np.int64)
    positions -= np.repeat(begins, np.diff(cu_seqlens))
    return positions.reshape(-1, length)


def document_ids(cu_seqlens: npt.NDArray[np.int32], length: int) -> npt.NDArray[np.int32]:
    """Return the number of each token's piece in its row, from 0, int32, (rows, length): for block masks."""
    begins = cu_seqlens[:-1]
    first = np.searchsorted(begins, begins - begins % length)  # the piece that begins each piece's row
    numbers = np.arange(len(begins), dtype=np.int32) - first.astype(np.int32)
    return np.repeat(numbers, np.diff(cu_seqlens)).reshape(-1, length)
