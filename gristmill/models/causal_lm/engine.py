"""Scores documents with a decoder: packs through its body and head, on CPU or CUDA.

Reads token ids of the model's own vocabulary; gives `Signals`. The body (`body`) runs one pack at a time, or several where there
is room for them and bits stay the same: that is checked on the first batch of each size, not presumed, for a library may add up
larger products in another order. Too little memory halves their number. The head runs on the rows to score, without logits
(`head.head_losses`). A document that the model gives no number for (NaN, infinity) becomes an error; the others keep their bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gristmill.errors import InputError
from gristmill.models.causal_lm import packs
from gristmill.models.causal_lm.body import Body, make_body
from gristmill.models.causal_lm.head import head_losses
from gristmill.models.protocols import Integers, Signals, Singles

if TYPE_CHECKING:
    from gristmill.models.causal_lm.loading import Loaded

LARGEST_BATCH = 16  # packs; more make nothing faster
HEAD_ROWS = 32768  # of one call of the head: its statistics of a vocabulary of 262k take 1 GiB then


class Engine:
    """A decoder that scores documents; a `Scorer`.

    Args:
        model: body and head, on one device.
        shape: windows and packs.
        entropy: whether to give entropies.
        compile: whether to run the body through torch.compile.
        batch: packs a forward at most, a power of two; None: one on CPU, as many as there is room for on CUDA, up to 16.

    Attributes:
        body: what runs the packs; its `alone` says why one window at a time, if so.
        batch: packs a forward at present; None: to be found out at the first.
    """

    def __init__(
        self, model: Loaded, shape: packs.Shape, *, entropy: bool = True, compile: bool = False, batch: int | None = None
    ) -> None:
        self.model, self.shape, self.entropy = model, shape, entropy
        self.device = model.head.device
        self.body: Body = make_body(model.body, self.device, shape.window, compile=compile)
        self.batch = batch or (None if self.device.type == "cuda" and not self.body.alone else 1)
        self._same = {1}  # packs a forward that are known to give the bits of single packs

    def score(self, ids: Integers, bounds: Integers) -> Signals:
        """Return the signals of these documents, as `Scorer` asks.

        Raises:
            InputError: an id outside the vocabulary; a single pack that does not fit in memory.
        """
        self._check(ids)
        found = _Found(len(ids), entropy=self.entropy)
        waiting: list[packs.Pack] = []
        for pack in packs.packed(ids, bounds, self.shape):
            waiting.append(pack)
            if len(waiting) == LARGEST_BATCH:
                self._drain(waiting, found)
        self._drain(waiting, found)
        return found.signals(bounds)

    def _check(self, ids: Integers) -> None:
        vocabulary = len(self.model.head)
        largest = int(ids.max(initial=0))
        if largest >= vocabulary:
            raise InputError(f"token id {largest}: the model's vocabulary ends at {vocabulary - 1}; ids of another tokenizer?")

    def _drain(self, waiting: list[packs.Pack], found: _Found) -> None:
        """Score these packs and empty the list."""
        while waiting:
            size = 1 << (min(self.batch or 1, len(waiting)).bit_length() - 1)  # powers of two: few sizes to check
            some = waiting[:size]
            try:
                self._score(some, found)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                full = True
            else:
                full = False
                del waiting[:size]
            if full:  # the error, and with it the memory that its frames hold, is gone
                self._halve(size)

    def _halve(self, size: int) -> None:
        """Go on with half as many packs a forward."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if size == 1:
            raise InputError(
                f"out of memory on {self.device} with one pack of {self.shape.pack} tokens: "
                f"lower pack_tokens (at least the window, {self.shape.window}), or use dtype bfloat16"
            )
        self.batch = size // 2

    def _score(self, some: Sequence[packs.Pack], found: _Found) -> None:
        """Score these packs; the first on CUDA tells how many there is room for."""
        if self.batch is not None:
            self._losses(some, self._hidden(some), found)
            return
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self._losses(some, self.body.run(some), found)
        took = torch.cuda.max_memory_allocated(self.device) - before
        free = torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device) - before
        fits = int(free * 0.8 / max(took, 1))
        self.batch = min(LARGEST_BATCH, 1 << max(fits.bit_length() - 1, 0))

    def _hidden(self, some: Sequence[packs.Pack]) -> Tensor:
        """Return the hidden states of these packs, [packs * pack, d], with the bits that they have alone."""
        hidden = self.body.run(some)
        if len(some) in self._same:
            return hidden
        single = torch.cat([self.body.run([pack]) for pack in some])
        if _equal_bits(hidden, single):
            self._same.add(len(some))
        else:
            self.batch = len(some) // 2
        return single

    def _losses(self, some: Sequence[packs.Pack], hidden: Tensor, found: _Found) -> None:
        """Put the losses and entropies of the rows that count where they belong."""
        model = self.model
        all_rows = np.concatenate([pack.rows + number * self.shape.pack for number, pack in enumerate(some)])
        all_targets = np.concatenate([pack.targets[pack.rows] for pack in some])
        all_places = np.concatenate([pack.places for pack in some])
        for begin in range(0, len(all_rows), HEAD_ROWS):
            part = slice(begin, begin + HEAD_ROWS)
            rows, targets = (torch.from_numpy(each[part]).to(self.device) for each in (all_rows, all_targets))
            nll, entropy = head_losses(
                hidden[rows],
                model.head,
                targets,
                bias=model.head_bias,
                scale=model.logit_scale,
                softcap=model.logit_softcap,
                entropy=self.entropy,
            )
            found.put(all_places[part], nll.cpu().numpy(), None if entropy is None else entropy.cpu().numpy())


class _Found:
    """Losses and entropies so far."""

    def __init__(self, tokens: int, *, entropy: bool) -> None:
        self.nll: Singles = np.full(tokens, np.nan, dtype=np.float32)
        self.entropy: Singles | None = self.nll.copy() if entropy else None
        self.scored: npt.NDArray[np.bool_] = np.zeros(tokens, dtype=np.bool_)

    def put(self, places: npt.NDArray[np.int64], nll: Singles, entropy: Singles | None) -> None:
        """Keep these at the places of their tokens."""
        self.nll[places] = nll
        if self.entropy is not None and entropy is not None:
            self.entropy[places] = entropy
        self.scored[places] = True

    def signals(self, bounds: Integers) -> Signals:
        """Return them, with an error for each document that has a value that is no number."""
        finite = np.isfinite(self.nll)
        if self.entropy is not None:
            finite &= np.isfinite(self.entropy)
        errors = {}
        for place in np.flatnonzero(self.scored & ~finite).tolist():
            document = int(np.searchsorted(bounds, place, side="right")) - 1
            if document not in errors:
                begin, end = bounds[document : document + 2].tolist()
                errors[document] = f"the model gave no finite loss at token {place - begin} of {end - begin}"
                for column in (self.nll, self.entropy):
                    if column is not None:
                        column[begin:end] = np.nan
        return Signals(self.nll, self.entropy, errors)


def out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error of torch says that memory did not suffice, on whatever device."""
    message = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in message or "can't allocate memory" in message


def _equal_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same bits, NaN included."""
    return bool((one.contiguous().view(torch.uint8) == other.contiguous().view(torch.uint8)).all())
