"""Text to ids on one thread, beside the Hugging Face library, fastokens and kitoken; ids compared document by document.

Reads crawled pages (see `_texts`; `--warc` for more than the examples). The vocabularies are learned on half of the documents
and the other half is encoded: each turn another part of it. A fast side encodes its part again and again to fill its turn
(`_turns.py`), so before each time every side forgets the pieces that it has met: ours has its memory set back, the others are
opened anew, which is not measured. MB are of UTF-8, seconds are CPU seconds of this process. Then odd inputs, long runs of one
thing, ours beside the Hugging Face library, of two lengths each: a ratio near 1 in the last column says that time is linear in
length.

    python -m benchmarks.tokenizer_encode [--quick] [--warc PATH ...]
"""

from __future__ import annotations

import argparse
import base64
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from benchmarks import _table
from benchmarks._texts import Texts, read_texts
from benchmarks._turns import LEAST_S, Piece, Ratio, Turns, take_turns, timed
from gristmill.tokenizer import SCHEMES
from gristmill.tokenizer.encoding.choose import choose_encoder
from gristmill.tokenizer.encoding.windows import FlatEncoder
from gristmill.tokenizer.files import save
from gristmill.tokenizer.patterns import PATTERNS, Pattern
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.vocabulary import Vocabulary

WARM = [b"Warm: 12 of the 1,000 words."]

Encode = Callable[[Sequence[bytes]], tuple[np.ndarray, np.ndarray]]
"""Documents to ids, uint32 [tokens], and where each document's begin, int64 [documents + 1]."""
Open = Callable[[], Encode]
"""Gets a side ready that remembers no text."""

TURNS = 3
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


def by_ours(encoder: FlatEncoder) -> Encode:
    """Return our encoder with the interface of all sides."""

    def encode(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        return encoder.encode(np.frombuffer(bytearray().join(texts), np.uint8), offsets)

    return encode


def open_library(file: str) -> Encode:
    """Return the Hugging Face library with this `tokenizer.json`."""
    library = Tokenizer.from_file(file)

    def encode(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        # A batch of one: this call alone skips offsets, and more texts at once would use every core of the machine.
        return _joined([library.encode_batch_fast([text.decode()], add_special_tokens=False)[0].ids for text in texts])

    return encode


def open_fastokens(file: str) -> Encode:
    """Return fastokens with this `tokenizer.json`."""
    import fastokens

    fast = fastokens.Tokenizer.from_file(file)

    def encode(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        ids, offsets = fast.encode_batch_flat([text.decode() for text in texts])
        return np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64).astype(np.int64)

    return encode


def open_kitoken(file: str) -> Encode:
    """Return kitoken with this `tokenizer.json`."""
    import kitoken

    kit = kitoken.Kitoken.from_file(file)
    return lambda texts: _joined([kit.encode(text.decode()) for text in texts])


def sides(vocabulary: Vocabulary, folder: Path, others: Mapping[str, Callable[[str], Encode]]) -> dict[str, Open]:
    """Return by name what opens each side, warm and without a memory of texts; `others`: beside ours and the library."""
    folder.mkdir()
    file = str(save(vocabulary, folder))
    encoder = choose_encoder(vocabulary)
    ours = by_ours(encoder)
    ours(WARM)
    kept = [(array, array.copy()) for array in memories(encoder)]

    def forget() -> Encode:
        for array, content in kept:
            np.copyto(array, content)
        return ours

    def anew(make: Callable[[str], Encode]) -> Open:
        def ready() -> Encode:
            encode = make(file)
            encode(WARM)
            return encode

        return ready

    return {"gristmill": forget} | {name: anew(make) for name, make in {LIBRARY: open_library, **others}.items()}


def _joined(ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(each) for each in ids], out=offsets[1:])
    return np.concatenate([np.asarray(each, np.uint32) for each in ids]), offsets


def memories(encoder: object) -> Iterator[np.ndarray]:
    """Yield the arrays in which an encoder, or the one inside it, remembers pieces: what a part of a text is given back from."""
    for name, value in vars(encoder).items():
        if name == "_context":
            yield from (value.held[each] for each in ("SHORT", "LONG", "POOL"))
            yield value.row
        elif hasattr(value, "encode") and hasattr(value, "__dict__"):
            yield from memories(value)


def fresh(open_side: Open, texts: Sequence[bytes]) -> Piece:
    """Return the encoding of these texts by a side that has met none of them."""
    return timed(lambda: partial(open_side(), texts))


def measure(openers: Mapping[str, Open], texts: Sequence[bytes]) -> tuple[Turns, dict[str, int]]:
    """Return what the sides took for each turn's part of the texts, and in how many documents each gave other ids."""
    seconds: dict[str, list[float]] = {name: [] for name in openers}
    other = dict.fromkeys(openers, 0)
    for turn in range(TURNS):
        some = texts[turn::TURNS]
        for name, (spent,) in take_turns({n: fresh(o, some) for n, o in openers.items()}, 1, LEAST_S / TURNS).seconds.items():
            seconds[name].append(spent)
        right = _documents(openers[LIBRARY]()(some))
        for name, open_side in openers.items():
            other[name] += sum(a != b for a, b in zip(_documents(open_side()(some)), right, strict=True))
    return Turns(seconds), other


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


def odd(openers: Mapping[str, Open]) -> tuple[list[list[str]], Ratio, int]:
    """Return the rows of the odd inputs, the least ratio to the library, and how many got other ids."""
    rows, ratios, other = [], list[Ratio](), 0
    for name, text in odd_inputs().items():
        short, whole = [_cut(text, SHORT_RUN)], [text]
        sizes = {len(each[0]): each for each in (short, whole)}
        both = ("gristmill", LIBRARY)
        pieces = {f"{side} {size}": fresh(openers[side], each) for side in both for size, each in sizes.items()}
        found = take_turns(pieces, 1, least_s=0)
        ours = found.median(f"gristmill {len(text)}")
        ratio = found.over(f"{LIBRARY} {len(text)}", f"gristmill {len(text)}")
        assert ratio is not None
        ratios.append(ratio)
        other += _documents(openers["gristmill"]()(short)) != _documents(openers[LIBRARY]()(short))
        growth = ours / found.median(f"gristmill {len(short[0])}") / (len(text) / len(short[0]))
        rows.append([name, f"{len(text) / ours / 1e6:.1f}", f"{ratio.median:.1f}", f"{growth:.2f}"])
    return rows, min(ratios, key=lambda each: each.median), other


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables and the line of ratios."""
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokenizer_encode", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_BYTES / 1e6:.0f} MB, without the 200k vocabulary and kitoken; within a minute",
    )
    parser.add_argument("--warc", nargs="+", type=Path, default=[], metavar="PATH", help=".warc.gz files")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        compare(read_texts(arguments.warc), quick=arguments.quick, folder=Path(folder))


def compare(texts: Texts, *, quick: bool, folder: Path) -> None:
    """Print the tables and the line of ratios."""
    state = _table.MachineRows()
    half = [i % 2 == 0 for i in range(len(texts.texts))]
    training, rest = texts.part(half), texts.part([not each for each in half]).texts
    limit = np.searchsorted(np.cumsum([len(text) for text in rest]), QUICK_BYTES if quick else BYTES)
    rest = rest[: int(limit) + 1]
    size = sum(map(len, rest)) / 1e6
    ratios: dict[str, tuple[Ratio | float | None, float]] = {}
    openers: dict[str, dict[str, Open]] = {}
    for number, (name, vocabulary) in enumerate(vocabularies(training, quick=quick).items()):
        # Opening kitoken again and again takes a quick run over its minute; no ratio is about it.
        beside = {FAST: open_fastokens} | ({} if quick else {"kitoken": open_kitoken}) if ROWS[name][1] is not None else {}
        openers[name] = sides(vocabulary, folder / str(number), beside)
        found, other = measure(openers[name], rest)
        print(f"{name} ({vocabulary.size:,} tokens), {size:.1f} MB of fresh text in {len(rest):,} documents")
        rate = size / TURNS  # each turn has its part
        cells = [
            [side, f"{rate / found.median(side):.1f}", _table.ranged(found.over(side, "gristmill")), str(other[side])]
            for side in openers[name]
        ]
        print(_table.table(["", "MB per CPU-s", "ours x", "documents with other ids"], cells) + "\n")
        library, fast, same = ROWS[name]
        ratios[library] = (found.over(LIBRARY, "gristmill"), 10.0)
        if fast is not None:
            ratios[fast] = (found.over(FAST, "gristmill"), 1.0 if name == PLAIN else 3.0)
        ratios[same] = (1 - other["gristmill"] / len(rest), 1.0)
    rows, least, others = odd(openers[SUPERWORD])
    print(f"odd inputs of {RUN / 1e6:.0f} MB, {SUPERWORD}; {others} with other ids")
    print(_table.table(["", "MB per CPU-s", "over Hugging Face", "time over 4x a quarter's"], rows))
    ratios["odd_inputs_slowest"] = (least, 1.0)
    print(state)
    print(_table.closing(ratios))


if __name__ == "__main__":
    main()
