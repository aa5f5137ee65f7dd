"""Clean documents as token ids: the pages of the crawl that ships, or the documents of any build.

Reads crawled pages through `benchmarks._texts` and encodes them by a byte-level BPE that is trained on them in place; or the
token shards of a finished build. Writes the tokenizer into the folder it is given.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.errors import FormatError
from gristmill.format import schema as fmt
from gristmill.format.build import open_build
from gristmill.format.column import open_mapped
from gristmill.format.schema import Tokenizer
from gristmill.storage.location import LocalLocation
from gristmill.tokenizer.bpe import Bpe
from gristmill.tokenizer.files import save
from gristmill.tokenizer.training.corpus import make_corpus
from stages.encode.encode import Encode

if TYPE_CHECKING:
    from benchmarks._texts import Texts

Ids = npt.NDArray[np.unsignedinteger[Any]]
Bounds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Documents:
    """Documents one after the other: unsigned ids [tokens]; document d is ids[bounds[d]:bounds[d + 1]], bounds int64 [n + 1]."""

    ids: Ids
    bounds: Bounds

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.bounds) - 1

    def take(self, rows: npt.NDArray[np.int64]) -> Documents:
        """Return some of them, in this order."""
        parts = [self.ids[self.bounds[row] : self.bounds[row + 1]] for row in rows.tolist()]
        return Documents(np.concatenate([self.ids[:0], *parts]), np.cumsum([0, *map(len, parts)], dtype=np.int64))


@dataclass(frozen=True)
class Source:
    """Documents of the main language and of all others, and the tokenizer that made them."""

    main: Documents
    foreign: Documents
    tokenizer: Tokenizer

    def first(self, tokens: int) -> Source:
        """Return the source with so many tokens of the main language at most, in whole documents."""
        count = int(np.searchsorted(self.main.bounds, tokens, side="right")) - 1
        return replace(self, main=self.main.take(np.arange(count)))


def from_crawl(vocab_size: int, folder: Path) -> Source:
    """Return the pages of `examples/crawl`, in a fixed random order, under a BPE of about `vocab_size` tokens trained on them."""
    from benchmarks._texts import read_texts  # the machine that builds; a machine that trains on a build has none of it

    return from_texts(read_texts([]), vocab_size, folder)


def from_texts(texts: Texts, vocab_size: int, folder: Path) -> Source:
    """Return these texts; the tokenizer is written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save(Bpe(vocab_size=vocab_size).train(make_corpus(texts.texts)), folder)
    table = pa.table({"text": pa.array([text.decode() for text in texts.texts], pa.string())})
    column = Encode(tokenizer=str(folder)).open()(table)
    about = {key.decode(): value.decode() for key, value in column.schema.field(fmt.INPUT_IDS).metadata.items()}
    sha256 = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    tokenizer = Tokenizer(sha256, int(about["vocab_size"]), None, int(about["eos_id"]), "tokenizer.json")
    lists = column[fmt.INPUT_IDS].combine_chunks()
    return _split(Documents(lists.values.to_numpy(), lists.offsets.to_numpy().astype(np.int64)), list(texts.languages), tokenizer)


def from_build(path: str | Path) -> Source:
    """Return the documents of a finished build of tokens on a local disk; those whose `language` is a rarer one are foreign.

    Raises:
        FormatError: no such build.
    """
    manifest, place = open_build(path, fmt.TOKENS)
    if not isinstance(place, LocalLocation) or manifest.tokenizer is None:
        raise FormatError(f"{path}: documents are taken from a build of tokens on a local disk; copy it there")
    ids, lengths, languages = list[Ids](), list[npt.NDArray[np.int32]](), list[str]()
    for shard in manifest.shards:
        _, reader, names = open_mapped(place.folder / shard.file, fmt.TOKENS)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            column = batch.column(fmt.INPUT_IDS)
            ids.append(column.flatten().to_numpy().copy())
            lengths.append(column.value_lengths().to_numpy())
            known = batch.column("language").to_pylist() if "language" in names else [""] * len(column)
            languages += [name or "" for name in known]
    bounds = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)
    return _split(Documents(np.concatenate(ids), bounds), languages, manifest.tokenizer)


def _split(documents: Documents, languages: list[str], tokenizer: Tokenizer) -> Source:
    """Return the documents of the language that most are in, and the others."""
    main = min(Counter(languages).items(), key=lambda item: (-item[1], item[0]))[0]
    here = np.array([name == main for name in languages], np.bool_)
    return Source(documents.take(np.flatnonzero(here)), documents.take(np.flatnonzero(~here)), tokenizer)
