"""Text to ids on one thread, beside the Hugging Face library, fastokens and kitoken; ids compared document by document.

Reads crawled pages (see `_texts`; `--warc` for more than the examples). The vocabularies are learned on half of the documents
and the other half is encoded, once, so no memory of pieces has seen it; the sides take turns, some documents each. MB are of
UTF-8, seconds are CPU seconds of this process. Then odd inputs, long runs of one thing, ours beside the Hugging Face library, of
two lengths each: a ratio near 1 in the last column says that time is linear in length.

    python -m benchmarks.tokenizer_encode [--quick] [--warc PATH ...]
"""

from __future__ import annotations

import argparse
import base64
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import _table
from benchmarks._texts import Texts, read_texts
from gristmill.tokenizer import SCHEMES
from gristmill.tokenizer.encoding.choose import choose_encoder
from gristmill.tokenizer.foreign import save
from gristmill.tokenizer.patterns import PATTERNS, Pattern
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.vocabulary import Vocabulary, to_tokenizer

Encode = Callable[[Sequence[bytes]], tuple[np.ndarray, np.ndarray]]
"""Documents to ids, uint32 [tokens], and where each document's begin, int64 [documents + 1]."""

TURN = 64  # documents a turn
QUICK_BYTES, BYTES = 1_000_000, 16_000_000
RUN, SHORT_RUN = 1_000_000, 250_000  # bytes of an odd input
LIBRARY, FAST = "Hugging Face", "fastokens"
SUPERWORD, PAPER, PLAIN = "superbpe 32k, repo", "superbpe 200k, paper", "bpe 32k, llama3"
NORMAL, DIGITS = "bpe 32k, NFC as Qwen's", "bpe 32k, single digits as SmolLM's"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ROWS: dict[str, tuple[str, str | None, str]] = {
    SUPERWORD: ("superword_32k", "superword_32k_fastokens", "superword_32k_same_ids"),
    PAPER: ("superword_200k", "superword_200k_fastokens", "superword_200k_same_ids"),
    PLAIN: ("bpe_32k", "bpe_32k_fastokens", "bpe_32k_same_ids"),
    NORMAL: ("nfc_32k", None, "nfc_32k_same_ids"),
    DIGITS: ("single_digits_32k", None, "single_digits_32k_same_ids"),
}


def vocabularies(texts: Texts, *, quick: bool) -> dict[str, Vocabulary]:
    """Return the tokenizers that are measured, learned on these texts."""
    corpus = make_corpus(texts.texts, texts.languages)
    large = {} if quick else {PAPER: ("superbpe", {"vocab_size": 200_000, "transition": 0.9, "min_frequency": 1})}
    made = {
        SUPERWORD: ("superbpe", {"vocab_size": 32_000, "patterns": "repo"}),
        **large,
        PLAIN: ("bpe", {"vocab_size": 32_000}),
        NORMAL: ("bpe", {"vocab_size": 32_000, "pattern": f"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{_WORDS}"}),
        DIGITS: ("bpe", {"vocab_size": 32_000, "pattern": "gpt2"}),
    }
    found = {name: SCHEMES[scheme](**parameters).train(corpus) for name, (scheme, parameters) in made.items()}  # type: ignore[arg-type]
    found[NORMAL] = replace(found[NORMAL], frame={"normalizer": {"type": "NFC"}})
    found[DIGITS] = replace(found[DIGITS], cuts=(Pattern(PATTERNS["gpt2"].regex, digits="each"),))
    return found


def sides(vocabulary: Vocabulary, folder: Path, *, others: bool = True) -> dict[str, Encode]:
    """Return the encoders by name, opened and warm; `others`: beside the library."""
    import fastokens
    import kitoken

    file = str(save(vocabulary, folder))
    ours, library = choose_encoder(vocabulary), to_tokenizer(vocabulary)
    fast, kit = fastokens.Tokenizer.from_file(file), kitoken.Kitoken.from_file(file)

    def flat(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        return ours.encode(np.frombuffer(bytearray().join(texts), np.uint8), offsets)

    def by_library(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        # A batch of one: this call alone skips offsets, and more texts at once would use every core of the machine.
        return _joined([library.encode_batch_fast([text.decode()], add_special_tokens=False)[0].ids for text in texts])

    def by_fastokens(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        ids, offsets = fast.encode_batch_flat([text.decode() for text in texts])
        return np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64).astype(np.int64)

    def by_kitoken(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        return _joined([kit.encode(text.decode()) for text in texts])

    found: dict[str, Encode] = {"gristmill": flat, LIBRARY: by_library}
    found |= {FAST: by_fastokens, "kitoken": by_kitoken} if others else {}
    for encode in found.values():
        encode([b"Warm: 12 of the 1,000 words."])
    return found


def _joined(ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(each) for each in ids], out=offsets[1:])
    return np.concatenate([np.asarray(each, np.uint32) for each in ids]), offsets


@dataclass
class Account:
    """What a side took, and how many documents it gave other ids than the library."""

    seconds: float = 0.0
    other: int = 0


def measure(encoders: Mapping[str, Encode], texts: Sequence[bytes]) -> dict[str, Account]:
    """Encode all texts with each side in turns."""
    accounts = {name: Account() for name in encoders}
    for first in range(0, len(texts), TURN):
        some = texts[first : first + TURN]
        found = {}
        for name, encode in encoders.items():
            begun = time.process_time()
            found[name] = encode(some)
            accounts[name].seconds += time.process_time() - begun
        right = _documents(found[LIBRARY])
        for name, each in found.items():
            accounts[name].other += sum(a != b for a, b in zip(_documents(each), right, strict=True))
    return accounts


def _documents(made: tuple[np.ndarray, np.ndarray]) -> list[bytes]:
    ids, offsets = made
    return [ids[begin:end].tobytes() for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def odd_inputs() -> dict[str, bytes]:
    """Return runs of what encoders have been slow on, `RUN` bytes each."""
    chance = np.random.default_rng(0)
    every = "".join(chr(point) for point in range(0x20, 0x110000, 7) if not 0xD800 <= point < 0xE000)
    units = {
        "a": "a",
        "spaces": " ",
        "newlines": "\n",
        "CRLF": "\r\n",
        "of the": " of the",
        "digits": "1234567890",
        "equals signs": "=" * 79 + "\n",
        "zero-width joiners": "\u200d",
        "families": "👨‍👩‍👧‍👦",
        "combining marks": "\u0301",
        "kanji": "日本語",
        "every plane": every,
        "base64": base64.b64encode(chance.bytes(600_000)).decode(),
        "minified script": "function(a,b){return a[b]&&!b.c?d(a,{e:1}):[0,1,2].map(f=>f*2)};",
    }
    return {name: _cut((unit * (RUN // len(unit.encode()) + 1)).encode(), RUN) for name, unit in units.items()}


def _cut(text: bytes, size: int) -> bytes:
    return text[:size].decode(errors="ignore").encode()


def odd(encoders: Mapping[str, Encode]) -> tuple[list[list[str]], float, int]:
    """Return the rows of the odd inputs, the least ratio to the library, and how many got other ids."""
    rows, least, other = [], float("inf"), 0
    for name, text in odd_inputs().items():
        seconds = dict[tuple[str, int], float]()
        for side in ("gristmill", LIBRARY):
            for size in (SHORT_RUN, RUN):
                begun = time.process_time()
                made = encoders[side]([_cut(text, size)])
                seconds[side, size] = time.process_time() - begun
                if side == "gristmill" and size == SHORT_RUN:
                    other += _documents(made) != _documents(encoders[LIBRARY]([_cut(text, size)]))
        ratio = seconds[LIBRARY, RUN] / seconds["gristmill", RUN]
        growth = seconds["gristmill", RUN] / seconds["gristmill", SHORT_RUN] / (RUN / SHORT_RUN)
        least = min(least, ratio)
        rows.append([name, f"{RUN / seconds['gristmill', RUN] / 1e6:.1f}", f"{ratio:.1f}", f"{growth:.2f}"])
    return rows, least, other


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables and the line of ratios."""
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokenizer_encode", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_BYTES / 1e6:.0f} MB, without the 200k vocabulary; within a minute"
    )
    parser.add_argument("--warc", nargs="+", type=Path, default=[], metavar="PATH", help=".warc.gz files")
    arguments = parser.parse_args(argv)
    texts = read_texts(arguments.warc)
    half = [i % 2 == 0 for i in range(len(texts.texts))]
    training, fresh = texts.part(half), texts.part([not each for each in half]).texts
    limit = np.searchsorted(np.cumsum([len(text) for text in fresh]), QUICK_BYTES if arguments.quick else BYTES)
    fresh = fresh[: int(limit) + 1]
    size = sum(map(len, fresh)) / 1e6
    ratios: dict[str, tuple[float | None, float]] = {}
    encoders: dict[str, Encode] = {}
    for name, vocabulary in vocabularies(training, quick=arguments.quick).items():
        with tempfile.TemporaryDirectory() as folder:
            opened = sides(vocabulary, Path(folder), others=ROWS[name][1] is not None)
        encoders = encoders or opened
        accounts = measure(opened, fresh)
        base = accounts["gristmill"].seconds
        print(f"{name} ({vocabulary.size:,} tokens), {size:.1f} MB of fresh text in {len(fresh):,} documents")
        cells = [[side, f"{size / a.seconds:.1f}", f"{a.seconds / base:.1f}", str(a.other)] for side, a in accounts.items()]
        print(_table.table(["", "MB per CPU-s", "ours x", "documents with other ids"], cells) + "\n")
        library, fast, same = ROWS[name]
        ratios[library] = (accounts[LIBRARY].seconds / base, 10.0)
        if fast is not None:
            ratios[fast] = (accounts[FAST].seconds / base, 1.0 if name == PLAIN else 3.0)
        ratios[same] = (1 - accounts["gristmill"].other / len(fresh), 1.0)
    rows, least, other = odd(encoders)
    print(f"odd inputs of {RUN / 1e6:.0f} MB, {SUPERWORD}; {other} with other ids")
    print(_table.table(["", "MB per CPU-s", "over Hugging Face", "time over 4x a quarter's"], rows))
    ratios["odd_inputs_slowest"] = (least, 1.0)
    print(_table.closing(ratios))


if __name__ == "__main__":
    main()
