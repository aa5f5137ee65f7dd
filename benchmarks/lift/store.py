"""A part of the corpus as a build that the reader opens: a token shard, and the labels of its tokens in a sidecar.

Writes, through the project's own sink, `tokens-00000.arrow`, `scores-planted-00000.arrow` and `manifest.json` into one folder.
The columns of `planted` are `clean`, which the oracle trains on, and one for each kind of noise; false at each document's first
token.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.lift.corpus import CLEAN, KINDS, Corpus, Planted
from benchmarks.lift.documents import Documents
from gristmill.format import schema as fmt
from gristmill.format.schema import Tokenizer
from pipeline.lineage import Lineage
from pipeline.schema import DOCUMENT, document_id
from pipeline.stage import Stored
from stages.sink.shards import Shards

SIDECAR = "planted"
ORACLE = "clean"
PARTS = ("train", "curated", "held", "held_noisy")


def write_corpus(corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> dict[str, Path]:
    """Write the parts, each into a folder of its own; return part → folder."""
    parts = {name: getattr(corpus, name) for name in PARTS}
    for name, part in parts.items():
        noisy = part if isinstance(part, Planted) else Planted(part, np.zeros(len(part.ids), np.uint8))
        write_part(noisy, tokenizer, folder / name, name)
    return {name: folder / name for name in PARTS}


def write_part(part: Planted, tokenizer: Tokenizer, folder: Path, name: str) -> None:
    """Write one build."""
    folder.mkdir(parents=True)
    sink = Shards()
    stored = []
    for made in sink.open()(iter([_table(part, tokenizer, name)]), folder):
        data = made.path.read_bytes()
        about = json.loads(json.dumps(made.stats))
        stored.append(
            Stored(0, name, made.kind, made.number, made.path.name, hashlib.sha256(data).hexdigest(), len(data), made.rows, about)
        )
    assembly = sink.assemble(iter(stored), Lineage(name=name, inputs=(), stages=()))
    for target, source in assembly.links.items():
        os.replace(folder / source, folder / target)
    for target, content in assembly.files.items():
        (folder / target).write_bytes(content)


def _table(part: Planted, tokenizer: Tokenizer, name: str) -> pa.Table:
    """Return the documents as the stages hand them to the sink; of texts that are not there."""
    documents, rows = part.documents, len(part.documents)
    kind = pa.list_(pa.uint16() if documents.ids.dtype == np.uint16 else pa.uint32())
    about = {"vocab_size": str(tokenizer.vocab_size), "tokenizer_sha256": tokenizer.sha256}
    about |= {} if tokenizer.eos_id is None else {"eos_id": str(tokenizer.eos_id)}
    values = {
        "id": [document_id(name, row) for row in range(rows)],
        "url": [None] * rows,
        "date": [None] * rows,
        "file": [name] * rows,
        "offset": range(rows),
        "length": [0] * rows,
        "media": ["text/plain"] * rows,
        "text": [""] * rows,
    }
    fields = [DOCUMENT.field(key) for key in values]
    columns = [pa.array(value, field.type) for value, field in zip(values.values(), fields, strict=True)]
    marks = {ORACLE: part.labels == CLEAN} | {kind: part.labels == number for number, kind in enumerate(KINDS, 1)}
    fields += [pa.field(fmt.INPUT_IDS, kind, metadata=about)]
    fields += [pa.field(mark, pa.list_(pa.bool_()), metadata={"scheme": SIDECAR}) for mark in marks]
    columns += [_lists(documents, documents.ids, kind)]
    columns += [_lists(documents, _without_firsts(documents, mark), pa.list_(pa.bool_())) for mark in marks.values()]
    return pa.table(columns, schema=pa.schema(fields))


def _lists(documents: Documents, values: npt.NDArray[np.generic], kind: pa.DataType) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(documents.bounds.astype(np.int32)), pa.array(values, kind.value_type), type=kind)


def _without_firsts(documents: Documents, mark: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    found = mark.copy()
    found[documents.bounds[:-1]] = False
    return found
