"""A batch: what the loader hands to training code. Reads and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

IGNORED = -100  # the label that torch's cross-entropy leaves out


@dataclass(slots=True)  # not frozen: setting thirteen fields of a frozen one takes five microseconds
class Batch:
    """One rank's rows of a global batch: numpy arrays, or torch tensors of the same shapes where the loader was asked for them.

    What stands beside the tokens is *aligned with the labels*: `labels[b, t]` is the token after `input_ids[b, t]` in the
    stream, and `loss_mask[b, t]` and `columns[name][b, t]` belong to that label.

    Attributes:
        samples: int64, (rows,): the numbers in the endless order.
        sources: int64, (rows,): which source each sample comes from, in the order of `TokenDataset.sources`.
        sequences: int64, (rows,): the number of the sequence in its source, for `TokenDataset.locate`.
        input_ids: integer, (rows, length); after a sequence's last token the id that ends documents (0 without one).
        labels: integer, (rows, length), of the type of `input_ids`; -100 where `loss_mask` is zero if that type is signed;
            None where the loader was asked to leave them out.
        loss_mask: (rows, length): bool, or float32 weights where the selection gives weights; zero where there is no label.
        columns: further per-token columns by name, (rows, length), in the stored type; NaN (or False) where a label has none.
        cu_seqlens: int32, (pieces + 1,): the borders of the documents' pieces in the flattened batch, from 0 to rows · length.
        position_ids: int64, (rows, length): each token's position in its document's piece.
        document_ids: int32, (rows, length): the number of each token's piece in its row, from 0.
    """

    samples: Any
    sources: Any
    sequences: Any
    input_ids: Any
    labels: Any
    loss_mask: Any
    columns: Mapping[str, Any]
    cu_seqlens: Any = None
    position_ids: Any = None
    document_ids: Any = None

    def __repr__(self) -> str:
        """Say what it holds, not the values."""
        named = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "columns"]
        named += [(f"columns[{name!r}]", column) for name, column in self.columns.items()]
        return f"Batch({', '.join(f'{n}: {v.dtype} {tuple(v.shape)}' for n, v in named if v is not None)})"

    def pin_memory(self) -> Batch:
        """Return the batch with its tensors in page-locked memory, as torch's `DataLoader(pin_memory=True)` asks for."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        pinned = {name: value.pin_memory() for name, value in values.items() if hasattr(value, "pin_memory")}
        return replace(self, **pinned, columns={name: column.pin_memory() for name, column in self.columns.items()})
