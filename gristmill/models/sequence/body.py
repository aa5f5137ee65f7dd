"""How a classifier of sequences is run so that no document's numbers depend on what lies beside it.

Reads token ids; gives logits [documents, labels]. A model whose attention goes through transformers' interface runs packed
(`attention`), without padding: its body on rows of one shape, then its head on what it looks at of each document, the first token
or the mean, a fixed number of documents at a time. Whether a model is right with it is tried when it is opened. One that fails
(DeBERTa, whose attention is its own) runs padded: rows of a few lengths, of each always as many. On CPUs, and where a model does
not keep padding apart, that is one document at a time in its own length.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gristmill.models.causal_lm.attention import Unpackable
from gristmill.models.causal_lm.body import HALF, TOLERANCE
from gristmill.models.sequence import attention, packs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Int64 = npt.NDArray[np.int64]
TRIAL = (13, 20, 7)  # tokens of the documents of the trial, where no layer has a sliding window
HEAD = 64  # documents of one call of the head
STEP = 64  # lengths of padded rows are multiples of it


class Body(Protocol):
    """Runs a classifier on documents."""

    why: str
    """Why the model does not run packed; empty where it does."""

    def run(self, ids: Int64, bounds: Int64) -> Iterator[tuple[Int64, Tensor]]:
        """Yield numbers of documents and their logits [documents, labels], until all are done; none of them is empty."""
        ...


class Packed:
    """Documents one behind the other in rows of `size` tokens."""

    why = ""

    def __init__(self, way: _Way, device: torch.device, size: int, longest: int) -> None:
        self._way, self._device, self._size, self._longest = way, device, size, longest

    def run(self, ids: Int64, bounds: Int64) -> Iterator[tuple[Int64, Tensor]]:
        """See `Body.run`."""
        for pack in packs.packed(ids, bounds, self._size):
            yield pack.documents, self._way.logits(pack, self._device, self._longest)


class Padded:
    """Documents one below the other, `size` tokens a call; of one row each in its own length where `size` is 0."""

    def __init__(self, model: PreTrainedModel, device: torch.device, size: int, why: str) -> None:
        self.why, self._model, self._device, self._size = why, model, device, size

    def run(self, ids: Int64, bounds: Int64) -> Iterator[tuple[Int64, Tensor]]:
        """See `Body.run`."""
        fill = self._model.config.pad_token_id or 0
        for some in packs.padded(ids, bounds, self._size, STEP if self._size else 1, fill):
            inputs = torch.from_numpy(some.ids).to(self._device)
            lengths = torch.from_numpy(some.lengths).to(self._device)
            mask = None
            if self._size:
                mask = (torch.arange(inputs.shape[1], device=self._device) < lengths[:, None]).long()
            yield some.documents, _logits(self._model, inputs, mask)[: len(some.documents)]


def make_body(model: PreTrainedModel, device: torch.device, size: int, longest: int) -> Packed | Padded:
    """Return how this model is to be run, tried out.

    Args:
        model: transformers' model with its head, on `device`; its attention is set.
        device: where it is.
        size: tokens of a row, at least `longest`.
        longest: tokens of the longest document.
    """
    with torch.inference_mode():
        try:
            return Packed(_try_packed(model, device, longest), device, size, longest)
        except Unpackable as error:
            why = str(error)
        alone = device.type == "cpu" or not _keeps_padding_apart(model, device, longest)
    return Padded(model, device, 0 if alone else size, why)


def _logits(model: nn.Module, ids: Tensor, mask: Tensor | None) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(input_ids=ids, attention_mask=mask).logits
    return found


# ---- packed ----


class _Given(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """Stands where a model has its body, and gives hidden states that the body gave before: the head runs alone."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.pooler = getattr(body, "pooler", None)
        self.hidden = torch.empty(0)

    def forward(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - transformers'
        """Return the states that were set."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        pooled = None if self.pooler is None else self.pooler(self.hidden)
        return BaseModelOutputWithPooling(last_hidden_state=self.hidden, pooler_output=pooled)


class _Way(NamedTuple):
    """A way to run a model packed.

    Attributes:
        body: the model without its head.
        head: the model with a `_Given` in the place of its body.
        given: that one.
        mean: whether the head looks at the mean of a document's tokens, instead of the first.
        pad: where positions begin behind the id of padding, which itself has that id as its position (RoBERTa); None: at 0.
    """

    body: nn.Module
    head: nn.Module
    given: _Given
    mean: bool
    pad: int | None

    def hidden(self, pack: packs.Pack, device: torch.device, longest: int) -> Tensor:
        """Return the hidden states [tokens, d]."""
        positions = pack.positions if self.pad is None else _behind(pack, self.pad)
        ids, where, cuts = (torch.from_numpy(each).to(device) for each in (pack.ids, positions, pack.cuts))
        found: Tensor = self.body(
            input_ids=ids[None], position_ids=where[None], attention_mask=None, document_cuts=cuts, document_longest=longest
        ).last_hidden_state[0]
        return found

    def logits(self, pack: packs.Pack, device: torch.device, longest: int) -> Tensor:
        """Return the logits of a pack's documents, [documents, labels]."""
        with torch.inference_mode():
            return self.of_hidden(self.hidden(pack, device, longest), pack)

    def of_hidden(self, hidden: Tensor, pack: packs.Pack) -> Tensor:
        """Return the logits that follow from hidden states; the head has one shape, however many documents there are."""
        many = len(pack.documents)
        cuts = pack.cuts[: many + 1].tolist()
        seen = torch.stack([hidden[begin:end].mean(0) for begin, end in pairwise(cuts)]) if self.mean else hidden[cuts[:-1]]
        found = []
        for begin in range(0, many, HEAD):
            part = seen[begin : begin + HEAD]
            self.given.hidden = nn.functional.pad(part, (0, 0, 0, HEAD - len(part)))[:, None]
            ids = torch.zeros((HEAD, 1), dtype=torch.long, device=hidden.device)
            found.append(_logits(self.head, ids, torch.ones_like(ids))[: len(part)])
        return torch.cat(found)


def _behind(pack: packs.Pack, pad: int) -> Int64:
    """Return positions as RoBERTa counts them: of all tokens but those of padding, from `pad` + 1 on."""
    counted = pack.ids != pad
    before = np.cumsum(counted) - counted
    starts = before[pack.cuts[:-1]]
    return np.where(counted, before - np.repeat(starts, np.diff(pack.cuts)) + 1, 0) + pad


def _try_packed(model: PreTrainedModel, device: torch.device, longest: int) -> _Way:
    """Return the way to run this model packed, and leave it with our attention. Raises Unpackable, and leaves it as it was."""
    name, own = type(model).__name__, model.config._attn_implementation
    body = getattr(model, model.base_model_prefix, None)
    if not isinstance(body, nn.Module) or not model._can_set_attn_implementation():
        raise Unpackable(f"{name} has an attention of its own, out of reach of transformers' attention interface")
    if all(each.kind is not each.VAR_KEYWORD for each in inspect.signature(body.forward).parameters.values()):
        raise Unpackable(f"{name} does not hand on to its attention what it is called with")
    ids, bounds = _trial(model, longest)
    try:
        way = _right_way(model, body, device, ids, bounds)
    except Unpackable:
        model.set_attn_implementation(own)
        raise
    setattr(model, model.base_model_prefix, way.given)
    return way


def _right_way(model: PreTrainedModel, body: nn.Module, device: torch.device, ids: Int64, bounds: Int64) -> _Way:
    """Return the way whose hidden states and logits are the model's own, leaves the model with our attention."""
    from transformers import AttentionInterface

    AttentionInterface.register(attention.NAME, attention.documents_forward)
    lengths = np.diff(bounds)
    longest = int(lengths.max())
    pack = packs.one_pack(ids, bounds, np.arange(len(lengths)), int(bounds[-1]))
    model.set_attn_implementation("eager")
    rows = [torch.from_numpy(each[None]).to(device) for each in np.split(ids, bounds[1:-1])]
    alone = torch.cat([body(input_ids=row).last_hidden_state[0] for row in rows])
    logits = torch.cat([_logits(model, row, torch.ones_like(row)) for row in rows])
    model.set_attn_implementation(attention.NAME)
    way = _Way(body, model, _Given(body), mean=False, pad=None)
    ways = [way._replace(pad=pad) for pad in dict.fromkeys((None, model.config.pad_token_id))]
    tolerance = TOLERANCE.get(alone.dtype, HALF)
    far, way = _nearest(ways, lambda each: each.hidden(pack, device, longest), alone)
    if far > tolerance:
        raise Unpackable(f"its hidden states in a packed row differ by {far:.2g} of their size from those of a document alone")
    if not _apart(way, pack, device, longest):
        raise Unpackable("its hidden states depend on the tokens beside a document in a packed row")
    setattr(model, model.base_model_prefix, way.given)
    try:
        far, way = _nearest([way, way._replace(mean=True)], lambda each: each.of_hidden(alone, pack), logits)
    finally:
        setattr(model, model.base_model_prefix, body)
    if far > tolerance:
        raise Unpackable(f"its head looks at more than the first token or the mean of all (logits differ by {far:.2g})")
    return way


def _nearest(ways: list[_Way], found: Callable[[_Way], Tensor], expected: Tensor) -> tuple[float, _Way]:
    """Return the way that comes nearest to what is expected, and how far from it that is, as a share of its size."""
    size = float(torch.linalg.norm(expected.double()))
    far = [float(torch.linalg.norm(found(way).double() - expected.double())) / max(size, 1e-30) for way in ways]
    best = int(np.nan_to_num(np.array(far), nan=np.inf).argmin())
    return (far[best] if np.isfinite(far[best]) else np.inf), ways[best]


def _apart(way: _Way, pack: packs.Pack, device: torch.device, longest: int) -> bool:
    """Return whether the middle document has the same bits when all tokens beside it change."""
    begin, end = pack.cuts[1:3].tolist()
    changed = np.roll(pack.ids, 1)
    changed[begin:end] = pack.ids[begin:end]
    one, other = (way.hidden(each, device, longest)[begin:end] for each in (pack, pack._replace(ids=changed)))
    return bool(torch.equal(one, other))


def _trial(model: PreTrainedModel, longest: int) -> tuple[Int64, Int64]:
    """Return ids and bounds of three documents, the middle one beyond a sliding window where that can be; no id of padding."""
    reach = getattr(model.config, "sliding_window", None) or 0
    lengths = [min(longest, each) for each in (TRIAL[0], max(TRIAL[1], 3 * reach), TRIAL[2])]
    pad = model.config.pad_token_id
    known = np.setdiff1d(np.arange(model.get_input_embeddings().num_embeddings), [] if pad is None else [pad])
    return known[(np.arange(sum(lengths)) * 7919 + 1) % len(known)], np.cumsum([0, *lengths])


# ---- padded ----


def _keeps_padding_apart(model: PreTrainedModel, device: torch.device, longest: int) -> bool:
    """Return whether a document in a padded row has the numbers that it has alone."""
    ids, bounds = _trial(model, longest)
    rows = Padded(model, device, 4 * STEP, "").run(ids, bounds)
    alone = {number: found for documents, found in Padded(model, device, 0, "").run(ids, bounds) for number in documents.tolist()}
    for documents, found in rows:
        for row, number in enumerate(documents.tolist()):
            expected = alone[number][0].double()
            far = torch.linalg.norm(found[row].double() - expected) / torch.linalg.norm(expected)
            if not far <= TOLERANCE.get(found.dtype, HALF):
                return False
    return True
