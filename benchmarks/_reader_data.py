"""The tokens that every reader of the benchmark gets: a build through the real sink, and the same tokens as plain arrays.

Makes random documents of lognormal lengths with a float16 `ref_loss` and a bool `keep` a token. Writes into a folder:

    build/          manifest, token shards, sidecars
    tokens.bin      the same tokens, flat, uint16, as GPT-2-style trainers keep them
    ends.npy        int64: where each document ends in them
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.format import schema as fmt
from pipeline.lineage import Lineage
from pipeline.schema import DOCUMENT
from pipeline.stage import Stored
from stages.sink.shards import Shards

LENGTH, ROWS, VOCABULARY = 2048, 16, 50_000

Batches = Generator[Any, None, None]  # numpy arrays or torch tensors, (ROWS, LENGTH), without end


@dataclass(frozen=True)
class Data:
    """The folder that `make` filled."""

    folder: Path

    @property
    def build(self) -> Path:
        """Return the folder of the build."""
        return self.folder / "build"

    @property
    def flat(self) -> Path:
        """Return the file of all tokens."""
        return self.folder / "tokens.bin"

    def tokens(self) -> npt.NDArray[np.uint16]:
        """Return all tokens, mapped."""
        return np.memmap(self.flat, dtype=np.uint16, mode="r")

    def sequences(self) -> npt.NDArray[np.uint16]:
        """Return the tokens as whole sequences, shape (sequences, LENGTH), mapped."""
        tokens = np.asarray(self.tokens())
        count = len(tokens) // LENGTH
        return tokens[: count * LENGTH].reshape(count, LENGTH)

    def documents(self) -> Iterator[npt.NDArray[np.uint16]]:
        """Yield the tokens of each document, mapped."""
        tokens = np.asarray(self.tokens())
        begin = 0
        for end in np.load(self.folder / "ends.npy").tolist():
            yield tokens[begin:end]
            begin = end


def document_tables(tokens: int, *, columns: bool = True) -> Iterator[pa.Table]:
    """Yield documents of random ids from 1 on, of lognormal lengths around 600, until there are `tokens`."""
    random = np.random.default_rng(0)
    metadata = {"vocab_size": str(VOCABULARY), "tokenizer_sha256": "0" * 64, "eos_id": "0"}
    fields = {name: DOCUMENT.field(name) for name in DOCUMENT.names}
    constant = {"id": "0" * 32, "url": "http://host/", "date": 10**9, "file": "crawl", "offset": 0, "length": 0}
    left = tokens
    while left > 0:
        lengths = np.clip(random.lognormal(6.4, 1.0, 2000), 1, 50_000).astype(np.int64)
        ends = np.minimum(np.cumsum(lengths), left)
        ends = ends[: int(np.searchsorted(ends, left)) + 1]
        offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
        count = int(ends[-1])
        plain = [pa.array([{**constant, "media": "", "text": ""}[name]] * len(ends), f.type) for name, f in fields.items()]
        values: dict[str, tuple[pa.Array, dict[str, str]]] = {
            "input_ids": (pa.array(random.integers(1, VOCABULARY, count, dtype=np.uint16)), metadata)
        }
        if columns:
            values["ref_loss"] = (pa.array(random.random(count, dtype=np.float32).astype(np.float16)), {"scheme": "rho1"})
            values["keep"] = (pa.array(random.random(count, dtype=np.float32) < 0.6), {"scheme": "policy"})
        lists = {name: pa.ListArray.from_arrays(offsets, inner) for name, (inner, _) in values.items()}
        extra = [pa.field(name, lists[name].type, metadata=about) for name, (_, about) in values.items()]
        yield pa.table([*plain, *lists.values()], schema=pa.schema([*fields.values(), *extra]))
        left -= count


def make(folder: Path, tokens: int, *, columns: bool = True) -> Data:
    """Write a build of so many tokens, and the tokens as plain arrays; without the sidecars where `columns` is false."""
    data = Data(folder)
    data.build.mkdir(parents=True)
    sink = Shards()
    stored = []
    for part in sink.open()(document_tables(tokens, columns=columns), data.build):
        with part.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = part.path.stat().st_size
        stored.append(Stored(0, "", part.kind, part.number, part.path.name, sha256, size, part.rows, part.stats))
    assembly = sink.assemble(stored, Lineage(name="benchmark", inputs=(), stages=()))
    for name, content in assembly.files.items():
        (data.build / name).write_bytes(content)
    _flatten(data)
    return data


def _flatten(data: Data) -> None:
    """Write the tokens of the build as one flat file, and the ends of its documents."""
    ends, begin = [np.zeros(1, dtype=np.int64)], 0
    with data.flat.open("wb") as out:
        for path in sorted(data.build.glob("tokens-*.arrow")):
            with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
                for number in range(reader.num_record_batches):
                    column = reader.get_batch(number).column(fmt.INPUT_IDS)
                    values = column.values.to_numpy()
                    out.write(values)
                    ends.append(column.offsets.to_numpy()[1:].astype(np.int64) + begin)
                    begin += len(values)
    np.save(data.folder / "ends.npy", np.concatenate(ends)[1:])
