"""Tokenizers: schemes that learn a vocabulary, encoding and decoding with any, measuring. numba is imported on use."""

from gristmill.tokenizer.boundless import Boundless
from gristmill.tokenizer.bpe import Bpe
from gristmill.tokenizer.cbpe import CBpe
from gristmill.tokenizer.mwt import Mwt
from gristmill.tokenizer.scaffold import ScaffoldBpe
from gristmill.tokenizer.scheme import Scheme
from gristmill.tokenizer.superbpe import SuperBpe
from gristmill.tokenizer.supertoken import SuperToken
from gristmill.tokenizer.tokenizer import Tokenizer

__all__ = ["SCHEMES", "Scheme", "Tokenizer"]

SCHEMES: dict[str, type[Scheme]] = {
    "bpe": Bpe,
    "superbpe": SuperBpe,
    "mwt": Mwt,
    "supertoken": SuperToken,
    "boundless": Boundless,
    "scaffold": ScaffoldBpe,
    "cbpe": CBpe,
}
"""The known schemes by their names in a recipe."""
