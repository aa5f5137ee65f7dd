"""Some documents of a build as builds of their own: those to train on, and those held out.

Reads a build of tokens, wherever the reader opens it. Writes folders with `tokens-NNNNN.arrow` and `manifest.json`: the rows
that fulfil the conditions, in the build's order, with the columns of the shards and without per-token scores. The reader takes
whole builds only, so what it is to see of one is copied. Memory is bounded by a record batch.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import FormatError, InputError
from gristmill.format import manifest as mf
from gristmill.format import schema as fmt
from gristmill.format.build import open_build
from gristmill.format.manifest import Manifest, Shard
from gristmill.json_values import Plain
from gristmill.reader.stream import check
from gristmill.storage.file import File
from gristmill.storage.location import Location
from gristmill.storage.store import sha256_file
from jobs.reference.fsync import sync
from jobs.reference.recipe import Condition

TRAINING, HELD_OUT = "training", "held-out"
SHOWN = 5  # values of a column in a message

Seen = Callable[[int, int], None]  # called with tokens read, of how many


class Build(NamedTuple):
    """A build of tokens that can be read: its manifest, and where its files lie."""

    manifest: Manifest
    location: Location


def open_tokens(path: str) -> Build:
    """Return a build of tokens.

    Raises:
        InputError: there is none, or it has no tokens.
    """
    try:
        manifest, location = open_build(path, fmt.TOKENS)
        check(manifest, path)
        location.check([_file(shard) for shard in manifest.shards], verify=False)
    except (FormatError, OSError) as error:
        raise InputError(f"build: {error}") from error
    return Build(manifest, location)


def divide(
    build: Build, conditions: Sequence[Condition], share: float, seed: int, folder: Path, seen: Seen = lambda done, total: None
) -> None:
    """Make the folder appear at once, with a build `training` and a build `held-out` in it.

    Which documents are held out depends on their ids and the seed alone, so that a document stays on its side when others come
    to the build.

    Args:
        build: what to read.
        conditions: what a document must fulfil to be in either.
        share: of these documents that is held out, about.
        seed: another one holds out others.
        folder: where to write; must not exist.
        seen: called with how far it is.

    Raises:
        InputError: a column that is not there or not of the kind that the condition needs, or no document fulfils them all.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        parts = {name: _Part(temporary / name) for name in (TRAINING, HELD_OUT)}
        done = 0
        for shard in build.manifest.shards:
            for batch in _batches(build.location, shard):
                chosen = _fulfil(batch, conditions)
                held = _held_out(batch.column(fmt.DOC_ID), share, seed)
                parts[TRAINING].write(batch.filter(pc.and_not(chosen, held)))
                parts[HELD_OUT].write(batch.filter(pc.and_(chosen, held)))
            for part in parts.values():
                part.end(shard.input)
            done += shard.tokens
            seen(done, build.manifest.tokens)
        if not parts[TRAINING].shards:
            raise InputError(_nothing(build, conditions, share))
        made_by: dict[str, Plain] = {
            "of": build.manifest.order,
            "documents": list(map(str, conditions)),
            "held_out": share,
            "seed": seed,
        }
        for name, part in parts.items():
            part.finish(build.manifest, {**made_by, "part": name})
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _file(shard: Shard) -> File:
    return File(shard.file, shard.bytes, shard.sha256, shard.zst)


def _batches(location: Location, shard: Shard) -> list[pa.RecordBatch]:
    """Return the record batches of a shard, on its memory map."""
    held = location.hold(_file(shard))
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(held.path)))
        return [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except pa.ArrowException as error:
        raise InputError(f"{held.path}: cannot be read ({error}); the file is damaged, copy it again") from error
    finally:
        held.release()  # what is mapped stays readable when the file is removed


def _fulfil(batch: pa.RecordBatch, conditions: Sequence[Condition]) -> pa.Array:
    """Return which rows fulfil all conditions, bool without nulls."""
    every = pa.array(np.ones(batch.num_rows, dtype=np.bool_))
    return reduce(pc.and_, (pc.fill_null(_matches(batch, condition), False) for condition in conditions), every)


def _matches(batch: pa.RecordBatch, condition: Condition) -> pa.Array:
    name = condition.column
    plain = [field.name for field in batch.schema if not pa.types.is_nested(field.type)]
    if name not in plain:
        raise InputError(
            f"documents: there is no column {name!r} in the token shards; they have {', '.join(plain)}. A build keeps others "
            f"with `shards: {{columns: [{name}]}}`"
        )
    column = batch.column(name)
    if condition.equal is not None:
        kind = pa.scalar(condition.equal).type
        number = _is_number(kind) and _is_number(column.type)
        if not number and kind != column.type and not (pa.types.is_string(kind) and pa.types.is_large_string(column.type)):
            raise InputError(f"documents: column {name!r} is {column.type}; it cannot equal {condition.equal!r}, which is {kind}")
        return pc.equal(column, condition.equal)
    if not _is_number(column.type):
        raise InputError(f"documents: column {name!r} is {column.type}; at_least and at_most need numbers, use `equal`")
    limits = ((pc.greater_equal, condition.at_least), (pc.less_equal, condition.at_most))
    return reduce(pc.and_, [compare(pc.cast(column, pa.float64()), limit) for compare, limit in limits if limit is not None])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _held_out(ids: pa.Array, share: float, seed: int) -> pa.Array:
    """Return which documents are held out, by a hash of their ids."""
    limit = int(share * 2**64)
    drawn = (hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest() for name in ids.to_pylist())
    return pa.array([int.from_bytes(number, "big") < limit for number in drawn], pa.bool_())


def _nothing(build: Build, conditions: Sequence[Condition], share: float) -> str:
    """Say why there is nothing to train on, with what the columns hold."""
    wanted = " and ".join(map(str, conditions)) or "any"
    message = f"documents: none of {build.manifest.documents} is {wanted} and not held out ({share:.0%} are)"
    for name in dict.fromkeys(condition.column for condition in conditions):
        column = pa.chunked_array(
            [batch.column(name) for shard in build.manifest.shards for batch in _batches(build.location, shard)]
        )
        counts = sorted(pc.value_counts(column).to_pylist(), key=lambda each: (-each["counts"], str(each["values"])))
        listed = ", ".join(f"{each['values']} ({each['counts']})" for each in counts[:SHOWN])
        message += f"; {name} is {listed}" + (f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else "")
    return message


class _Part:
    """A build that is being written: a file for each shard that has rows for it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.shards = folder, list[Shard]()
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._documents = self._tokens = self._text_bytes = 0

    @property
    def _path(self) -> Path:
        return self.folder / fmt.file_name(fmt.TOKENS, len(self.shards))

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows, laid out as the format wants them."""
        if not batch.num_rows:
            return
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self._path), batch.schema)
        arrays = [fmt.exact(batch.column(field.name), field.type) for field in batch.schema]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=batch.schema))
        self._documents += batch.num_rows
        self._tokens += len(batch.column(fmt.INPUT_IDS).flatten())
        self._text_bytes += pc.sum(batch.column("text_bytes")).as_py()

    def end(self, source: str) -> None:
        """Finish the file of a shard, if it has any rows."""
        if self._writer is None:
            return
        self._writer.close()
        path = self._path
        sync(path)
        sha256 = sha256_file(path)
        size = path.stat().st_size
        self.shards.append(Shard(path.name, self._documents, self._tokens, self._text_bytes, size, sha256, source))
        self._writer, self._documents, self._tokens, self._text_bytes = None, 0, 0, 0

    def finish(self, of: Manifest, lineage: Mapping[str, Plain]) -> None:
        """Write the manifest."""
        assert of.tokenizer is not None, "a build of tokens"
        manifest = Manifest(
            kind=fmt.TOKENS,
            build=mf.build_id(fmt.TOKENS, self.shards),
            name=of.name,
            tokenizer=replace(of.tokenizer, file=None),
            dtype=of.dtype,
            shards=tuple(self.shards),
            lineage=lineage,
        )
        path = self.folder / mf.NAME
        path.write_bytes(manifest.to_json())
        sync(path, self.folder)
