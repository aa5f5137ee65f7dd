"""The readers of other projects, each set up as its own users would for shuffled sequences, at the best of its settings.

Each function writes the same tokens in its project's form into `folder` and returns an endless iterator of batches of
ROWS sequences of LENGTH tokens. None prefetches in a thread or a process: what is done ahead between two turns would not be
counted. Where a project offers several ways (its loader, its iterator, its index), the one that takes the least CPU is used.

Nothing here is imported before a peer is driven. Each is driven in a process of its own (`_reader_turns.py`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from importlib.machinery import ModuleSpec
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks._reader_data import LENGTH, ROWS, VOCABULARY, Batches, Data

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "build" / "peers-reader"


def batches_of(samples: Iterable[Any], stack: Callable[[list[Any]], Any]) -> Iterator[Any]:
    """Yield whole batches of an iterator's samples, stacked."""
    source = (sample for sample in samples)  # not `iter`, which islice calls again: LitData's begins a new epoch
    while len(rows := list(islice(source, ROWS))) == ROWS:
        yield stack(rows)


def shuffled(length: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield ROWS places at a time, of a permutation held in memory, epoch after epoch."""
    random = np.random.default_rng(0)
    while True:
        order = random.permutation(length)
        for first in range(0, length - ROWS + 1, ROWS):
            yield order[first : first + ROWS]


def memmap(data: Data, folder: Path) -> Batches:
    """A bare np.memmap of the flat file: slices at the places of a permutation, stacked; what small trainers do."""
    tokens = data.tokens()
    for places in shuffled(len(tokens) // LENGTH):
        yield np.stack([tokens[place * LENGTH : (place + 1) * LENGTH] for place in places])


def memmap_rows(data: Data, folder: Path) -> Batches:
    """The flat file as a table of sequences, indexed by the rows of a batch at once: one copy in C, nothing else."""
    table = data.sequences()
    for places in shuffled(len(table)):
        yield table[places]


class _Mapped:
    """The flat file as a map-style dataset of torch's int64."""

    def __init__(self, data: Data) -> None:
        self.table = data.sequences()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, place: int) -> Any:  # noqa: ANN401  a tensor
        return import_module("torch").from_numpy(self.table[place].astype(np.int64))


def dataloader(data: Data, folder: Path) -> Batches:
    """torch's DataLoader with two workers over the flat file as a map-style dataset, shuffled, int64."""
    module = import_module("torch.utils.data")
    while True:
        yield from module.DataLoader(_Mapped(data), ROWS, shuffle=True, num_workers=2, drop_last=True)


def litdata(data: Data, folder: Path) -> Batches:
    """LitData: documents through its writer with a TokensLoader, chunks of 64 MB; its shuffled StreamingDataset, stacked.

    Its loader without workers takes longer. The shuffle is one of chunks, and of blocks in a chunk.
    """
    cache, loaders = import_module("litdata.streaming.cache"), import_module("litdata.streaming.item_loader")
    writer = cache.Cache(str(folder), chunk_bytes="64MB", item_loader=loaders.TokensLoader())
    for number, tokens in enumerate(data.documents()):
        writer[number] = tokens
    writer.done()
    writer.merge()
    loader = loaders.TokensLoader(block_size=LENGTH)
    dataset = import_module("litdata").StreamingDataset(str(folder), item_loader=loader, shuffle=True)
    while True:
        yield from batches_of(dataset, np.stack)


def datatrove(data: Data, folder: Path) -> Batches:
    """datatrove: a .ds file read in order by its DatatroveFolderDataset, since its users shuffle before they write it.

    A sample is int64 and has one token more than asked for, which is asked for less here.
    """
    torch, module = import_module("torch"), import_module("datatrove.utils.dataset")
    os.symlink(data.flat, folder / "tokens.ds")
    dataset = module.DatatroveFolderDataset(str(folder), LENGTH - 1, filename_pattern="*.ds", token_size=2)
    while True:
        yield from batches_of((dataset[place]["input_ids"] for place in range(len(dataset))), torch.stack)


def datasets(data: Data, folder: Path) -> Batches:
    """HF datasets: rows of one sequence saved to disk and mapped; `with_format("numpy")`, indexed by the rows of a batch.

    Rows are lists of any length: lists of fixed length take a third longer.
    """
    module = import_module("datasets")
    module.disable_progress_bars()
    table = data.sequences()
    offsets = pa.array(np.arange(0, table.size + 1, LENGTH, dtype=np.int32))
    rows = pa.table({"input_ids": pa.ListArray.from_arrays(offsets, pa.array(table.reshape(-1)))})
    module.Dataset(rows).save_to_disk(str(folder))
    dataset = module.load_from_disk(str(folder)).with_format("numpy")
    for places in shuffled(len(dataset)):
        yield dataset[places]["input_ids"]


def megatron(data: Data, folder: Path) -> Batches:
    """Megatron Core: documents in its .bin and .idx; GPTDataset with its own shuffle, without attention masks, tokens stacked."""
    torch, parts = import_module("torch"), "megatron.core.datasets."
    writer = import_module(parts + "indexed_dataset").IndexedDatasetBuilder(str(folder / "tokens.bin"), dtype=np.uint16)
    for tokens in data.documents():
        writer.add_document(tokens, [len(tokens)])
    writer.finalize(str(folder / "tokens.idx"))
    module = import_module(parts + "gpt_dataset")
    sequences = len(data.tokens()) // LENGTH - 1
    config = module.GPTDatasetConfig(
        random_seed=1,
        sequence_length=LENGTH,
        blend=([str(folder / "tokens")], None),
        split="1,0,0",
        path_to_cache=str(folder / "cache"),
        tokenizer=_Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    builder = import_module(parts + "blended_megatron_dataset_builder").BlendedMegatronDatasetBuilder
    dataset, _, _ = builder(module.GPTDataset, [sequences, 0, 0], lambda: True, config).build()
    while True:
        yield from batches_of((dataset[place]["tokens"] for place in range(sequences)), torch.stack)


class _Tokenizer:
    """What GPTDataset asks of a tokenizer."""

    vocab_size, eod, pad = VOCABULARY, 0, -1
    unique_identifiers: dict[str, str] = {"class": "none"}  # noqa: RUF012  as its own tokenizers have it


def grain(data: Data, folder: Path) -> Batches:
    """grain: records of one sequence in an uncompressed ArrayRecord, one a group; shuffled, decoded, batched, without threads."""
    module, records = import_module("grain"), import_module("array_record.python.array_record_module")
    sources = import_module("array_record.python.array_record_data_source")
    path = str(folder / "tokens.array_record")
    writer = records.ArrayRecordWriter(path, "group_size:1,uncompressed")
    for row in data.sequences():
        writer.write(row.tobytes())
    writer.close()
    source = module.MapDataset.source(sources.ArrayRecordDataSource(path))
    dataset = source.shuffle(seed=1).map(_decode).batch(ROWS, drop_remainder=True).repeat()
    yield from dataset.to_iter_dataset(module.ReadOptions(num_threads=0, prefetch_buffer_size=0))


def _decode(record: bytes) -> npt.NDArray[np.uint16]:
    return np.frombuffer(record, dtype=np.uint16)


def streaming(data: Data, folder: Path) -> Batches:
    """MosaicML Streaming: MDS rows of one sequence (`ndarray:uint16:2048`); its StreamingDataset with py1e shuffle, stacked.

    Its loader without workers takes longer.
    """
    _without_torchvision()
    module = import_module("streaming")
    column = f"ndarray:uint16:{LENGTH}"
    with module.MDSWriter(out=str(folder), columns={"tokens": column}) as writer:
        for row in data.sequences():
            writer.write({"tokens": row})
    dataset = module.StreamingDataset(local=str(folder), shuffle=True, batch_size=ROWS, num_canonical_nodes=1)
    while True:
        yield from batches_of((sample["tokens"] for sample in dataset), np.stack)


def _without_torchvision() -> None:
    """Let it import its images' base class without torchvision, which would have to match torch; no token passes there."""
    for name in ("feature_extraction_utils", "tokenization_utils_base", "models.auto.tokenization_auto"):
        import_module(f"transformers.{name}")  # looks for torchvision itself: before there seems to be one
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__spec__ = ModuleSpec(name, None)
    vars(sys.modules["torchvision.datasets"])["VisionDataset"] = object
    vars(sys.modules["torchvision.transforms.functional"])["to_tensor"] = None


# In the order of the table: the fewer tokens a CPU-second, the further down.
OTHERS: dict[str, Callable[[Data, Path], Batches]] = {
    "memmap": memmap,
    "litdata": litdata,
    "datatrove": datatrove,
    "datasets": datasets,
    "megatron": megatron,
    "grain": grain,
    "streaming": streaming,
}

# Measured beside them, without a goal.
FURTHER: dict[str, Callable[[Data, Path], Batches]] = {
    "memmap_rows": memmap_rows,
    "dataloader": dataloader,
}
