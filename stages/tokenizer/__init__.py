"""Tokenizer schemes: training, encoding, measuring."""

from stages.tokenizer.boundless import Boundless
from stages.tokenizer.bpe import Bpe
from stages.tokenizer.cbpe import CBpe
from stages.tokenizer.mwt import Mwt
from stages.tokenizer.scaffold import ScaffoldBpe
from stages.tokenizer.scheme import Scheme
from stages.tokenizer.superbpe import SuperBpe
from stages.tokenizer.supertoken import SuperToken

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
