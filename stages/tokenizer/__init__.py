"""Tokenizer schemes: training, encoding, measuring."""

from stages.tokenizer.bpe import Bpe
from stages.tokenizer.scheme import Scheme
from stages.tokenizer.superbpe import SuperBpe

SCHEMES: dict[str, type[Scheme]] = {
    "bpe": Bpe,
    "superbpe": SuperBpe,
}
"""The known schemes by their names in a recipe."""
