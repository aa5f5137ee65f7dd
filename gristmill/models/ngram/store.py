"""A Kneser-Ney model as one file: Arrow IPC for us, and ARPA, the text that other programs read.

Reads and writes a `Model`. The Arrow file holds one row: each array is one list. So it is as compact as the arrays, the bytes
are the same for the same model, and any Arrow reader opens it. A single id costs
8 bytes, an n-gram 6 or 8 (2 or 4 for the token, 4 for its loss); each context 4 more for where its n-grams begin (8 beyond
2³² of them), and each n-gram that is shorter than the longest 4 more for its backoff.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.errors import InputError
from gristmill.models.ngram.kneser_ney import Level, Model

FORMAT = "gristmill.kneser-ney"
VERSION = "1"
ARRAYS = ("begins", "words", "losses", "backoffs")


def save(model: Model, path: Path) -> int:
    """Write the model; return the bytes of the file."""
    return path.write_bytes(encode(model))


def encode(model: Model) -> pa.Buffer:
    """Return the bytes of the model's file."""
    arrays: dict[str, npt.NDArray[Any]] = {"unigrams": model.unigrams.ravel()}
    for length, level in enumerate(model.levels, 2):
        for name in ARRAYS:
            arrays[f"{name}.{length}"] = _narrow(getattr(level, name))
    lists = [pa.LargeListArray.from_arrays(pa.array([0, len(each)], pa.int64()), pa.array(each)) for each in arrays.values()]
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "order": str(model.order),
        "vocab_size": str(model.vocab_size),
        "discounts": json.dumps(model.discounts),
        "sha256": _digest(arrays),
    }
    table = pa.table(lists, names=list(arrays)).replace_schema_metadata(facts)
    out = pa.BufferOutputStream()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def load(path: Path) -> Model:
    """Return the model of a file. Raises InputError when it is not an n-gram model, or was changed since it was written."""
    try:
        with pa.memory_map(str(path)) as mapped:
            return decode(mapped.read_buffer(), str(path))
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: not an n-gram model ({error}); estimate one and save it there") from error


def decode(content: pa.Buffer, path: str = "an n-gram model") -> Model:
    """Return the model of a file's bytes; raises ArrowInvalid where they are no Arrow file, InputError as `load`."""
    table = pa.ipc.open_file(content).read_all()
    facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if (facts.get("format"), facts.get("version")) != (FORMAT, VERSION):
        found = f"{facts.get('format')} {facts.get('version')}"
        raise InputError(f"{path}: its format is {found}, expected {FORMAT} {VERSION}; estimate the model again")
    arrays = {name: table[name].chunk(0).values.to_numpy() for name in table.column_names}
    if _digest(arrays) != facts["sha256"]:
        raise InputError(f"{path}: its arrays are not those that were written (sha256 differs); copy or estimate it again")
    order = int(facts["order"])
    levels = tuple(
        Level(
            arrays[f"begins.{length}"].astype(np.int64),
            arrays[f"words.{length}"].astype(np.uint32),
            arrays[f"losses.{length}"],
            arrays[f"backoffs.{length}"],
        )
        for length in range(2, order + 1)
    )
    discounts = tuple((one, two, three) for one, two, three in json.loads(facts["discounts"]))
    return Model(order, int(facts["vocab_size"]), discounts, arrays["unigrams"].reshape(-1, 2), levels)


def write_arpa(model: Model, path: Path, name: Callable[[int], str] = str) -> None:
    """Write the model as an ARPA file: log10, ids by `name`, `<s>` and `</s>` for a document's start and end, `<unk>`.

    Ids that were never seen are written too, each with the probability of `<unk>`.
    """
    special = ["<s>", "</s>", "<unk>"]
    names = [*(name(i) for i in range(model.vocab_size)), *special]
    texts, sizes = names, [len(names), *(len(level.words) for level in model.levels)]
    with path.open("w", encoding="utf-8") as out:
        out.write("\\data\\\n" + "".join(f"ngram {i}={size}\n" for i, size in enumerate(sizes, 1)))
        out.write("\n\\1-grams:\n")
        _lines(out.write, texts, model.unigrams[:, 0], model.unigrams[:, 1])
        for length, level in enumerate(model.levels, 2):
            contexts = np.repeat(np.arange(len(level.begins) - 1), np.diff(level.begins))
            texts = [f"{texts[context]} {names[word]}" for context, word in zip(contexts, level.words, strict=True)]
            out.write(f"\n\\{length}-grams:\n")
            _lines(out.write, texts, level.losses, level.backoffs)
        out.write("\n\\end\\\n")


def _lines(
    write: Callable[[str], object], texts: list[str], losses: npt.NDArray[np.float32], backoffs: npt.NDArray[np.float32]
) -> None:
    ten = np.log(10.0)
    for i, text in enumerate(texts):
        back = f"\t{-backoffs[i] / ten:.9g}" if len(backoffs) else ""
        write(f"{-losses[i] / ten:.9g}\t{text}{back}\n")


def _narrow(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return integers in the fewest bytes of 2, 4 and 8 that hold them, floats as they are."""
    if array.dtype.kind == "f":
        return array
    top = int(array.max(initial=0))
    return array.astype(np.uint16 if top < 2**16 else np.uint32 if top < 2**32 else np.uint64)


def _digest(arrays: dict[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {len(array)}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
