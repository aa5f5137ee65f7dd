"""What a tokenizer is to us: the bytes of each token, the merges between them, and how text is cut before.

Reads any byte-level BPE `tokenizer.json` and gives one back, so that what is trained here works wherever the Hugging Face
library does, and what was trained elsewhere is encoded here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.errors import InputError
from stages.tokenizer.patterns import PATTERNS, Pattern

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Inference = Literal["merges", "longest_prefix", "least_tokens"]
"""How a piece becomes tokens: the lowest-ranked merge again and again; greedily the longest token; as few tokens as can be."""

_NO_MERGES = np.zeros((0, 3), np.int32)


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
    """

    tokens: tuple[bytes, ...]
    merges: np.ndarray = field(default_factory=lambda: _NO_MERGES)
    cuts: tuple[Pattern, ...] = ()
    special_tokens: Mapping[str, int] = field(default_factory=dict)
    inference: Inference = "merges"
    ignore_merges: bool = False
    whole: np.ndarray | None = None
    scaffolds: int = 0

    @property
    def size(self) -> int:
        """Return the number of ids that can come out, gaps and special tokens counted."""
        return len(self.tokens) - self.scaffolds

    @property
    def standard(self) -> bool:
        """Tell whether an ordinary `tokenizer.json` gives the same ids."""
        return self.inference == "merges" and self.whole is None and not self.scaffolds

    def ordinary(self) -> list[bytes]:
        """Return the bytes of each id as merging sees them: special tokens have none, no merge takes or makes one."""
        special = set(self.special_tokens.values())
        return [b"" if i in special else token for i, token in enumerate(self.tokens)]

    def names(self) -> tuple[bytes, ...]:
        """Return the names of the special tokens."""
        return tuple(name.encode() for name in self.special_tokens)

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


def letters() -> dict[int, str]:
    """Return the letter that stands for each byte in the files of byte-level tokenizers (the table of GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def alphabet() -> list[bytes]:
    """Return the 256 single bytes in the order in which the Hugging Face trainer numbers them: by their letters."""
    by_letter = sorted(letters().items(), key=lambda item: item[1])
    return [bytes([byte]) for byte, _ in by_letter]


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
    special = vocabulary.special_tokens
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
            "added_tokens": [_added(name, i) for name, i in sorted(special.items(), key=lambda item: item[1])],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": _steps(vocabulary.cuts)},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
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


def spell(tokens: Sequence[bytes]) -> list[str]:
    """Return each token in the letters of byte-level files."""
    table = letters()
    return ["".join(table[byte] for byte in token) for token in tokens]


def _added(name: str, i: int) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": i, "content": name, **plain, "special": True}


def _steps(cuts: Sequence[Pattern]) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    for cut in cuts:
        if cut.digits:
            steps.append({"type": "Digits", "individual_digits": cut.digits == "each"})
        if cut.regex:
            steps.append({"type": "Split", "pattern": {"Regex": cut.regex}, "behavior": "Isolated", "invert": False})
    return [*steps, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]


class UnsupportedTokenizer(InputError):
    """A tokenizer.json that is no plain byte-level BPE; the library may know it all the same."""


def parse(text: str, where: str) -> Vocabulary:
    """Return the vocabulary of a `tokenizer.json`.

    Args:
        text: of the file.
        where: its name for messages.

    Raises:
        UnsupportedTokenizer: it has a part that changes ids in a way not known here; names the key.
        InputError: it is no such file.
    """
    try:
        data = json.loads(text)
        return _vocabulary(data)
    except json.JSONDecodeError as error:
        raise InputError(f"tokenizer {where!r} cannot be read as a tokenizer.json: {error}") from error
    except _Unsupported as error:
        raise UnsupportedTokenizer(f"tokenizer {where!r}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"tokenizer {where!r} is not a tokenizer.json: {type(error).__name__} {error}") from error


class _Unsupported(ValueError):
    """A part of a tokenizer.json that is not known here."""


def _vocabulary(data: Mapping[str, Any]) -> Vocabulary:
    model = data["model"]
    if model.get("type", "BPE") != "BPE" or "merges" not in model:
        raise _Unsupported(f"key model.type is {model.get('type')!r}; only byte-level 'BPE' can be used")
    for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise _Unsupported(f"key model.{key} is {model[key]!r}; only byte-level BPE without it can be used")
    if data.get("normalizer") is not None:
        raise _Unsupported(
            f"key normalizer is {_kind(data['normalizer'])}; only tokenizers that leave the text as it is can be used"
        )
    added = data.get("added_tokens") or []
    plain = [token["content"] for token in added if not token["special"]]
    if plain:
        raise _Unsupported(f"key added_tokens has {plain[0]!r}, which is not special; only special tokens can be added")
    special = {token["content"]: token["id"] for token in added}
    ids: dict[str, int] = {name: i for name, i in model["vocab"].items() if name not in special}
    return Vocabulary(
        tokens=_bytes(ids, special),
        merges=_merges(model["merges"], ids),
        cuts=_cuts(data.get("pre_tokenizer")),
        special_tokens=special,
        ignore_merges=bool(model.get("ignore_merges")),
    )


def _bytes(ids: Mapping[str, int], special: Mapping[str, int]) -> tuple[bytes, ...]:
    table = {letter: byte for byte, letter in letters().items()}
    found = [b""] * (max([*ids.values(), *special.values()], default=-1) + 1)
    for name, i in ids.items():
        try:
            found[i] = bytes(table[letter] for letter in name)
        except KeyError as error:
            raise _Unsupported(f"key model.vocab is not byte-level: its token {name!r} has the letter {error}") from error
    for name, i in special.items():
        found[i] = name.encode()
    return tuple(found)


def _merges(pairs: Sequence[str | Sequence[str]], ids: Mapping[str, int]) -> np.ndarray:
    merges = np.empty((len(pairs), 3), np.int32)
    for rank, pair in enumerate(pairs):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        for token in (left, right, left + right):
            if token not in ids:
                raise _Unsupported(f"key model.merges has {left!r} with {right!r}, but {token!r} is not in model.vocab")
        merges[rank] = ids[left], ids[right], ids[left + right]
    return merges


def _cuts(step: Mapping[str, Any] | None) -> tuple[Pattern, ...]:
    """Return the patterns of a pre-tokenizer that ends in ByteLevel."""
    steps = [] if step is None else step["pretokenizers"] if step["type"] == "Sequence" else [step]
    if not steps or steps[-1]["type"] != "ByteLevel":
        raise _Unsupported(f"key pre_tokenizer is {_kind(step)}; only one that ends in 'ByteLevel' can be used")
    if steps[-1].get("add_prefix_space"):
        raise _Unsupported("key pre_tokenizer.add_prefix_space is true; only tokenizers that leave the text as it is can be used")
    cuts: list[Pattern] = []
    digits = False
    for each in steps[:-1]:
        if each["type"] == "Digits" and not each["individual_digits"] and not digits:
            digits = True
        elif each["type"] == "Split" and each["behavior"] == "Isolated" and not each.get("invert"):
            cuts.append(Pattern(_regex(each["pattern"]), digits))
            digits = False
        else:
            raise _Unsupported(f"key pre_tokenizer has {json.dumps(each)}; known are isolated Split, Digits and ByteLevel")
    if digits:
        cuts.append(Pattern("", digits=True))
    return (*cuts, PATTERNS["gpt2"]) if steps[-1].get("use_regex", True) else tuple(cuts)


def _regex(pattern: Mapping[str, str]) -> str:
    return pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"])


def _kind(step: Mapping[str, Any] | None) -> str:
    return "null" if step is None else repr(step.get("type"))
