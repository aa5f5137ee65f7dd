"""What a tokenizer is to us: the bytes of each token, the merges between them, and how text is cut before.

Reads any byte-level BPE `tokenizer.json` and gives one back, so that what is trained here works wherever the Hugging Face
library does, and what was trained elsewhere is encoded here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from gristmill.errors import InputError
from gristmill.json_values import JsonObject
from gristmill.tokenizer.json_parts import AddedToken, Frame, Step
from gristmill.tokenizer.patterns import Pattern
from gristmill.tokenizer.token_names import spell

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Inference = Literal["merges", "longest_prefix", "least_tokens"]
"""How a piece becomes tokens: the lowest-ranked merge again and again; greedily the longest token; as few tokens as can be."""

_NO_MERGES = np.zeros((0, 3), np.int32)


@dataclass(frozen=True)
class Added:
    """A token beside the model, found in texts by its name.

    `special`: its name in a text is text, unless asked otherwise; the name of any other always becomes the token.
    `normalized`: it is looked for behind the normalizer, in what no other name took.
    """

    content: str
    id: int
    special: bool = True
    normalized: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level tokenizer.

    `tokens`: the bytes of each id; empty for an id nobody uses, the name for a special token.
    `merges`: int32 [merges, 3]: left id, right id and the id of both joined, in rank order.
    `cuts`: how text is cut into pieces, one pattern after the other on each piece of the one before; no token crosses the
        end of a piece. Empty: a text is one piece.
    `special_tokens`: name → id; never made from text.
    `inference`: how a piece becomes tokens.
    `ignore_merges`: a piece that is a token as a whole is that token, whatever the merges say (Llama 3).
    `whole`: bool [merges], where a merge joins two whole pieces that are one token each, across the cut (BoundlessBPE).
    `scaffolds`: so many of the last ids are steps of merging only; left over, they are taken apart again (Scaffold-BPE).
    `added`: the tokens of a `tokenizer.json` that are found by their names, the special ones too.
    `frame`: what that file has besides: `normalizer` (None: texts are encoded as they are), `post_processor`, `decoder`, and
        `added_tokens` with all their flags; empty for a vocabulary made here.
    """

    tokens: tuple[bytes, ...]
    merges: np.ndarray = field(default_factory=lambda: _NO_MERGES)
    cuts: tuple[Pattern, ...] = ()
    special_tokens: Mapping[str, int] = field(default_factory=dict)
    inference: Inference = "merges"
    ignore_merges: bool = False
    whole: np.ndarray | None = None
    scaffolds: int = 0
    added: tuple[Added, ...] = ()
    frame: Frame = field(default_factory=Frame)

    @property
    def size(self) -> int:
        """Return the number of ids that can come out, gaps and special tokens counted."""
        return len(self.tokens) - self.scaffolds

    @property
    def standard(self) -> bool:
        """Tell whether an ordinary `tokenizer.json` gives the same ids."""
        return self.inference == "merges" and self.whole is None and not self.scaffolds

    @property
    def normalizer(self) -> Step | None:
        """Return what changes texts before they are cut, as a `tokenizer.json` says it."""
        return self.frame.get("normalizer")

    def ordinary(self) -> list[bytes]:
        """Return the bytes of each id as merging sees them: added tokens have none, no merge takes or makes one."""
        apart = {*self.special_tokens.values(), *(token.id for token in self.added)}
        return [b"" if i in apart else token for i, token in enumerate(self.tokens)]

    def of_text(self) -> list[bytes]:
        """Return the bytes of each id that come out of texts: added tokens that are not special have their names."""
        special = set(self.special_tokens.values())
        return [b"" if i in special else token for i, token in enumerate(self.tokens)]

    def names(self) -> tuple[bytes, ...]:
        """Return the names of the special and the other added tokens."""
        return tuple(name.encode() for name in dict.fromkeys([*self.special_tokens, *(token.content for token in self.added)]))

    def byte_ids(self) -> np.ndarray:
        """Return the id of each single byte, int32 [256]; -1 where there is none."""
        found = np.full(256, -1, np.int32)
        for i, token in enumerate(self.ordinary()):
            if len(token) == 1:
                found[token[0]] = i
        return found

    def joined(self, merges: np.ndarray) -> Vocabulary:
        """Return the vocabulary with further merges, and the tokens they make.

        Args:
            merges: int32 [merges, 3]; a joined id is the next one, or that of a token with the same bytes.
        """
        tokens = list(self.tokens)
        for left, right, made in merges.tolist():
            if made == len(tokens):
                tokens.append(tokens[left] + tokens[right])
            assert tokens[made] == tokens[left] + tokens[right]
        return replace(self, tokens=tuple(tokens), merges=np.concatenate([self.merges, merges]))


_SUPERWORD = re.compile(r"\w\s+\w")


def is_superword(token: bytes) -> bool:
    """Tell whether a token has letters or digits on both sides of a space."""
    return _SUPERWORD.search(token.decode(errors="replace")) is not None


def to_json(vocabulary: Vocabulary) -> str:
    """Return the text of a `tokenizer.json`, as the library itself writes it.

    Raises:
        ValueError: no `tokenizer.json` gives the ids of this vocabulary.
    """
    return to_tokenizer(vocabulary).to_str()


def to_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """Return the library's tokenizer with the same ids; the names of special tokens in texts are text to it.

    Raises:
        ValueError: see `to_json`.
    """
    from tokenizers import Tokenizer

    if not vocabulary.standard:
        raise ValueError("the Hugging Face library has merges inside pieces only: this vocabulary needs another encoder")
    special = dict(vocabulary.special_tokens) | {token.content: token.id for token in vocabulary.added}
    frame = vocabulary.frame
    # The library numbers special tokens itself unless the model has them. With ignore_merges it must not: their names,
    # as whole pieces of a text, would become them.
    own = {} if vocabulary.ignore_merges else special
    if vocabulary.ignore_merges and special and min(special.values()) < vocabulary.size - len(special):
        raise ValueError("with ignore_merges the special tokens must have the last ids")
    spelled = spell(vocabulary.tokens)
    taken = set(special.values())
    tokens = {name: i for i, name in enumerate(spelled) if name and i not in taken}
    for name in special:
        if name in tokens:
            raise ValueError(f"the special token {name!r} has the name of a token that is also made from text; rename it")
    tokens |= own
    text = json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [_added(name, i, frame) for name, i in sorted(special.items(), key=lambda item: item[1])],
            "normalizer": vocabulary.normalizer,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": _steps(vocabulary.cuts)},
            "post_processor": frame.get("post_processor"),
            "decoder": frame.get("decoder") or BYTES_TO_TEXT,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": vocabulary.ignore_merges,
                "vocab": tokens,
                "merges": [[spelled[left], spelled[right]] for left, right, _ in vocabulary.merges.tolist()],
            },
        }
    )
    tokenizer = Tokenizer.from_str(text)
    tokenizer.encode_special_tokens = True
    return tokenizer


BYTES_TO_TEXT = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def _added(name: str, i: int, frame: Frame) -> AddedToken:
    plain: AddedToken = {
        "id": i,
        "content": name,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    known = next((token for token in frame.get("added_tokens") or () if token["content"] == name), plain)
    return {**plain, **known, "id": i}


def _steps(cuts: Sequence[Pattern]) -> list[JsonObject]:
    steps: list[JsonObject] = []
    for cut in cuts:
        if cut.digits:
            steps.append({"type": "Digits", "individual_digits": cut.digits == "each"})
        if cut.regex:
            steps.append({"type": "Split", "pattern": {"Regex": cut.regex}, "behavior": "Isolated", "invert": False})
    return [*steps, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]


class UnsupportedTokenizer(InputError):
    """A tokenizer.json that is no plain byte-level BPE; the library may know it all the same."""
