"""What runs on CUDA alone, tried: each check gives a sentence of what it found, or raises AssertionError.

Reads and writes nothing. On a CPU the same functions run with what stands in for these paths there, so that a mistake in a check
is found without a GPU; a path counts as run on CUDA only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks._scoring_models import Size, make_documents, make_engine, make_model
from benchmarks.scoring_gpu import head_inputs
from gristmill.models.causal_lm.attention import attention_of_windows
from gristmill.models.causal_lm.head import head_losses
from gristmill.models.sequence.attention import documents_forward
from gristmill.models.sequence.body import make_body

SMALL = Size(256, 512, 2, 4, 2, 1000, False)
CUTS = (0, 300, 301, 420, 512)
FAR = 0.03  # bfloat16 beside float32, of the size of what is compared
BERT: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "num_labels": 2,
}


def dtype_of(device: str) -> torch.dtype:
    """Return what is computed in there."""
    return torch.float32 if device == "cpu" else torch.bfloat16


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return how far two results are apart, as a share of their size; asserts that it is little."""
    first, second = one.detach().cpu().double(), other.detach().cpu().double()
    far = float(torch.linalg.norm(first - second) / torch.linalg.norm(second))
    assert far <= FAR, f"differ by {far:.2g} of their size"
    return far


def head(device: str) -> str:
    """Losses and entropies of the head, beside whole logits in float64."""
    hidden, weight, targets = head_inputs(300, 5000, 128, device, dtype_of(device))
    nll, entropy = head_losses(hidden, weight, targets, entropy=True)
    assert entropy is not None
    log_p = (hidden.double() @ weight.double().T).log_softmax(1)
    far = apart(nll, -log_p.gather(1, targets[:, None])[:, 0]), apart(entropy, -(log_p.exp() * log_p).sum(1))
    return f"losses differ by {far[0]:.1e}, entropies by {far[1]:.1e} of their size"


def attention_of(device: str) -> str:
    """Causal attention in windows, whole and sliding, and that of documents in both directions, beside float32 on the CPU."""
    torch.manual_seed(0)
    rows = [torch.randn(CUTS[-1], heads, 64).to(device, dtype_of(device)) for heads in (4, 2, 2)]
    plain = [row.float().cpu() for row in rows]
    cuts = torch.tensor(CUTS, dtype=torch.int32)
    far = []
    for sliding in (0, 48):
        sides = (_windows(some, cuts.to(some[0].device), sliding) for some in (rows, plain))
        far.append(apart(*sides))
    for window in (None, 48):
        both = [_documents(some, cuts.to(some[0].device), window) for some in (rows, plain)]
        far.append(apart(*both))
    return f"differs by {max(far):.1e} of its size at most"


def _windows(rows: list[torch.Tensor], cuts: torch.Tensor, sliding: int) -> torch.Tensor:
    query, key, value = rows
    return attention_of_windows(query, key, value, cuts, 300, 0.125, sliding, 0.0, None)


def _documents(rows: list[torch.Tensor], cuts: torch.Tensor, window: int | None) -> torch.Tensor:
    query, key, value = (row.transpose(0, 1)[None] for row in rows)
    module = torch.nn.Identity()
    out, _ = documents_forward(
        module, query, key, value, None, scaling=0.125, sliding_window=window, document_cuts=cuts, document_longest=300
    )
    return out


def decoder(device: str) -> str:
    """Documents scored in packs, in several packs a forward, and each document alone: the same bits."""
    model = make_model(SMALL, device, dtype_of(device))
    documents = make_documents(2500, SMALL.vocabulary, part=8)
    engine = make_engine(model, 2048, compile=False)
    found = engine.score(documents.ids, documents.bounds).nll
    assert not engine.body.alone, engine.body.alone
    engine.batch = 2
    assert engine.score(documents.ids, documents.bounds).nll.tobytes() == found.tobytes(), "several packs a forward: other bits"
    for i in range(3):
        begin, end = documents.bounds[i : i + 2].tolist()
        single = engine.score(documents.ids[begin:end], np.array([0, end - begin])).nll
        assert single.tobytes() == found[begin:end].tobytes(), "a document alone: other bits"
    return f"{len(documents.bounds) - 1} documents have the same bits however they are packed"


def compiled(device: str) -> str:
    """The body through torch.compile, beside the body as it is."""
    documents = make_documents(2000, SMALL.vocabulary, part=8)
    found = [
        make_engine(make_model(SMALL, device, dtype_of(device)), 2048, compile=compile).score(documents.ids, documents.bounds).nll
        for compile in (True, False)
    ]
    return f"losses differ by {apart(*(torch.from_numpy(each[~np.isnan(each)]) for each in found)):.1e} of their size"


def _sequence(device: str, config: Any, *, packed: bool) -> str:  # noqa: ANN401 - transformers'
    import transformers

    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    bounds = np.cumsum([0, *draw.integers(1, 300, 12)])
    ids = draw.integers(2, 1000, bounds[-1])
    logits = []
    for place, dtype in ((device, dtype_of(device)), ("cpu", torch.float32)):
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_config(config).to(place, dtype).eval()
        body = make_body(model, torch.device(place), 1024, 300)
        assert (not body.why) == packed, body.why
        found = torch.empty(12, 2)
        for documents, each in body.run(ids, bounds):
            found[documents] = each.float().cpu()
        logits.append(found)
        for i in range(3):
            ((_, single),) = body.run(ids[bounds[i] : bounds[i + 1]], np.array([0, bounds[i + 1] - bounds[i]]))
            assert torch.equal(single[0].float().cpu(), found[i]), "a document alone: other bits"
    return f"12 documents have the same bits alone, logits differ from float32's by {apart(*logits):.1e} of their size"


def bert(device: str) -> str:
    """A classifier of sequences, packed."""
    import transformers

    return _sequence(device, transformers.BertConfig(**BERT), packed=True)


def deberta(device: str) -> str:
    """A classifier of sequences whose attention is its own: padded rows of fixed shapes."""
    import transformers

    disentangled = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 64}
    return _sequence(device, transformers.DebertaV2Config(**BERT, **disentangled), packed=False)


CHECKS: dict[str, Callable[[str], str]] = {
    "the head's kernel (Triton)": head,
    "attention by varlen_attn": attention_of,
    "a decoder on packs": decoder,
    "a decoder through torch.compile": compiled,
    "a classifier of sequences, packed": bert,
    "a classifier of sequences, padded": deberta,
}
"""Path that runs on CUDA alone → its check."""
