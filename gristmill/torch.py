"""gristmill in torch, as training code imports it: `from gristmill.torch import TorchTokens, selective_loss`."""

from gristmill.reader.torch import Selected, TorchTokens, select_tokens, selective_loss, to_torch

__all__ = ["Selected", "TorchTokens", "select_tokens", "selective_loss", "to_torch"]
