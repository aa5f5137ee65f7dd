"""Sequences out of documents: where each sequence of tokens lies, and where documents begin inside it.

Pure functions on numbers; they read and write nothing. Concatenate-and-cut: all documents in manifest order form one
stream of tokens, sequence s is the tokens [s · length, (s + 1) · length) of it, and the last one may be shorter. Every
token is in exactly one sequence.

`starts`, boolean of shape (batch, length), is true where a document begins; the other forms of document boundaries that
attention kernels want are computed from it. A row always begins a piece, whether a document begins there or not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def sequence_count(tokens: int, length: int) -> int:
    """Return how many sequences of `length` hold `tokens` tokens; the last may be shorter."""
    return -(-tokens // length)


def addresses(
    tokens: npt.NDArray[np.int64], begins: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (shard, token within the shard) of tokens of the stream, int64.

    Args:
        tokens: int64 numbers in the stream, shape (n,).
        begins: int64, number in the stream of each shard's first token, shape (shards,); shards may be empty.
    """
    shards = np.searchsorted(begins, tokens, side="right") - 1
    return shards, tokens - begins[shards]


def pieces(starts: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return `starts` with the first position of each row set: where attention must not look further back."""
    out = starts.copy()
    out[:, 0] = True
    return out


def cu_seqlens(starts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return the borders of all pieces of the flattened batch, from 0 to batch · length, as variable-length attention wants.

    int32, shape (pieces + 1,); for `flash_attn_varlen_func` and `torch.nn.attention.varlen` (tokens flattened row by row).
    """
    return np.append(np.flatnonzero(pieces(starts)), starts.size).astype(np.int32)


def positions(starts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return each token's position in its piece, int32, shape (batch, length): for rotary position embeddings."""
    column = np.arange(starts.shape[1], dtype=np.int32)[None, :]
    begins = np.where(pieces(starts), column, np.int32(0))
    return column - np.maximum.accumulate(begins, axis=1)


def document_ids(starts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return the number of each token's piece in its row, from 0, int32, shape (batch, length): for block masks."""
    return np.cumsum(pieces(starts), axis=1, dtype=np.int32) - np.int32(1)
