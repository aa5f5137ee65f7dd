"""One side of `benchmarks.tokenizer_train`: a process that goes on from a tokenizer's merges over some texts, once.

    python -m benchmarks._training gristmill|bpe-continue|scalars FOLDER SIZE

Reads FOLDER/tokenizer.json (which cuts as stage 2 does), `text.bin` and `offsets.npy` (int64 [documents + 1]); answers with a
line `{"cpu": CPU seconds, "rss": peak of memory above what the texts take, bytes, "merges": sha256 of the new merges}`.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Merges = list[list[str]]


def gristmill(folder: Path, size: int) -> Callable[[], Merges]:
    """Return our stage 2, without limits on words and colons, which the others do not have."""
    from gristmill.tokenizer.files import load
    from gristmill.tokenizer.progress import silent
    from gristmill.tokenizer.token_names import spell
    from gristmill.tokenizer.training.corpus import Batch, Corpus, make_corpus
    from gristmill.tokenizer.training.merges import learn
    from gristmill.tokenizer.training.stream import encode_stream

    base = load(folder)

    def train(corpus: Corpus, size: int) -> Merges:
        learned = learn(encode_stream(corpus, base, silent), base.ordinary(), size - base.size, min_frequency=2)
        whole = spell(base.joined(learned.merges).tokens)
        return [[whole[left], whole[right]] for left, right, _ in learned.merges.tolist()]

    train(make_corpus(["to be or not to be"] * 3), base.size + 2)  # compiles, or loads what was compiled
    text, offsets = _texts(folder)
    corpus = Corpus(tuple(_batches(Batch, text, offsets)), ("",))
    return lambda: train(corpus, size)


def _batches(batch: Any, text: np.ndarray, offsets: np.ndarray) -> Iterator[Any]:  # noqa: ANN401 - the class
    first = 0
    while first < len(offsets) - 1:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + 4_000_000)) - 1)
        yield batch(text[offsets[first] : offsets[last]], offsets[first : last + 1] - offsets[first])
        first = last


def bpe_continue(folder: Path, size: int) -> Callable[[], Merges]:
    """Return the same by the package bpe-continue."""
    from bpe_continue import continue_training

    base = (folder / "tokenizer.json").read_text()
    texts = _strings(folder)

    def train() -> Merges:
        made = continue_training(base, texts=texts, vocab_size=size, min_frequency=2, show_progress=False)
        return _merges(made)[len(json.loads(base)["model"]["merges"]) :]

    return train


def scalars(folder: Path, size: int) -> Callable[[], Merges]:
    """Return the same by the stock trainer on one Unicode scalar for each id of the base."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    first = 0x10000
    base = Tokenizer.from_file(str(folder / "tokenizer.json"))
    base.encode_special_tokens = True
    names = sorted(base.get_vocab(), key=base.get_vocab().__getitem__)
    texts = _strings(folder)

    def lines() -> Iterator[str]:
        for text in texts:
            found = base.encode(text, add_special_tokens=False)
            cuts = np.flatnonzero(np.diff(np.array(found.word_ids, np.int64))) + 1
            yield np.insert(np.array(found.ids) + first, cuts, ord("\n")).astype("<u4").tobytes().decode("utf-32-le")

    def train() -> Merges:
        alphabet = [chr(first + i) for i in range(len(names))]
        trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("\n")
        tokenizer.train_from_iterator(lines(), trainer)
        return [["".join(names[ord(scalar) - first] for scalar in part) for part in pair] for pair in _merges(tokenizer)]

    return train


def _texts(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.fromfile(folder / "text.bin", np.uint8), np.load(folder / "offsets.npy")


def _strings(folder: Path) -> list[str]:
    text, offsets = _texts(folder)
    data = text.tobytes()
    return [data[begin:end].decode() for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def _merges(tokenizer: Any) -> Merges:  # noqa: ANN401 - of either library
    return [list(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def _seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(argv: Sequence[str]) -> None:
    """Train once and answer."""
    side, folder, size = argv
    train = {"gristmill": gristmill, "bpe-continue": bpe_continue, "scalars": scalars}[side](Path(folder), int(size))
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
    status = Path("/proc/self/status")
    held = _kilobytes(status.read_text(), "VmRSS")
    begun = _seconds()
    merges = train()
    spent = _seconds() - begun
    peak = _kilobytes(status.read_text(), "VmHWM")
    digest = hashlib.sha256(json.dumps(merges).encode()).hexdigest()
    print(json.dumps({"cpu": spent, "rss": 1024 * (peak - held), "merges": digest, "learned": len(merges)}))


def _kilobytes(status: str, key: str) -> int:
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(key))


if __name__ == "__main__":
    main(sys.argv[1:])
