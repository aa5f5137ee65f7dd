"""gristmill in torch, as training code imports it: `from gristmill.torch import TorchTokens, selective_loss`."""

from gristmill.extras import needs

with needs("torch"):
    from gristmill.reader.selective_loss import Selected, select_tokens, selective_loss
    from gristmill.reader.tensors import to_torch
    from gristmill.reader.torch import TorchTokens

__all__ = ["Selected", "TorchTokens", "select_tokens", "selective_loss", "to_torch"]
