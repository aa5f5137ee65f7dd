"""Opening builds for training: the sources that are asked for, their streams, and what is checked of them.

Reads: manifests; with `verify` all files. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import FormatError
from gristmill.format import schema as fmt
from gristmill.format.build import open_build
from gristmill.format.manifest import Manifest, files
from gristmill.format.sidecar import find_sidecars, with_sidecars
from gristmill.reader.shuffle import Blocks, Shuffle
from gristmill.reader.source import Source
from gristmill.reader.stream import TokenStream, check
from gristmill.secrets import masked
from gristmill.storage.cache import Cache
from gristmill.storage.remote.folder import Options

ALONE = "source"  # name of the only source where none was given


def check_stream(stream: TokenStream, length: int, shuffle: Shuffle, where: str) -> None:
    """Raise ValueError when a build is shorter than a sequence, or its order would fetch the same shards again and again."""
    if length > stream.tokens:
        raise ValueError(
            f"{where}: sequence_length is {length}, but all shards together have {stream.tokens} tokens; "
            "ask for shorter sequences or build from more documents"
        )
    shards = len(stream.manifest.shards)
    wanted = shards if shuffle == "global" else 1
    if isinstance(shuffle, Blocks):
        wanted = min(shards, shuffle.open * _shards_of_block(stream, shuffle.sequences * length))
    if stream.location.budget is not None and stream.capacity < wanted:
        needed = sum(f.bytes for f in files(stream.manifest))
        raise ValueError(
            f"{where}: this order reads {wanted} of {shards} remote shards at a time, and the cache has room for "
            f"{stream.capacity}: they would be fetched again and again; raise Cache(limit_bytes=...), up to {2 * needed} for "
            "all, or shuffle by Blocks with fewer open ones"
        )


def _shards_of_block(stream: TokenStream, tokens: int) -> int:
    """Return how many shards a block of so many tokens lies in; those that are read again lie scattered over more."""
    shards, (_, *later) = len(stream.manifest.shards), stream.manifest.passes
    return max([1, *(-(-min(tokens, found) * shards // found) for _, found in later if found)])


def sources_of(path: object) -> dict[str, Source]:
    """Return the sources that the argument of `TokenDataset.open` names; ValueError for anything else."""
    if isinstance(path, str | Path):
        return {ALONE: Source(path=path)}
    if not isinstance(path, Mapping):
        raise ValueError(f"path is {path!r}; it must be a path, a URL, or a mapping of names to Sources")
    if not path:
        raise ValueError("there are no sources to mix; give at least one")
    for name, source in path.items():
        if not isinstance(source, Source):
            raise ValueError(f"source {name} is {source!r}; it must be a Source, such as Source(path=...)")
    return dict(path)


def open_streams(
    sources: Mapping[str, Source], *, verify: bool, cache: Cache | None, storage_options: Options | None
) -> dict[str, TokenStream]:
    """Return the streams of these sources, with the columns that were added to their builds; arguments of `TokenDataset.open`.

    Raises:
        FormatError: a build that cannot be read, is damaged or incomplete.
    """
    builds = {}
    for name, source in sources.items():
        manifest, location = open_build(source.path, fmt.TOKENS, cache=cache, storage_options=storage_options)
        check(manifest, masked(str(source.path)))
        manifest = with_sidecars(manifest, find_sidecars(location))
        location.check(files(manifest), verify=verify)
        builds[name] = (manifest, location)
    remote = sum(location.budget is not None for _, location in builds.values())
    return {name: TokenStream(*found, 1 / max(remote, 1), len(builds)) for name, found in builds.items()}


def ids_type(manifests: Mapping[str, Manifest], dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    """Return the type of ids in batches.

    Raises:
        FormatError: the builds were not all encoded by one tokenizer.
        ValueError: the type asked for is too narrow.
    """
    hashes = {name: manifest.tokenizer.sha256 for name, manifest in manifests.items() if manifest.tokenizer is not None}
    if len(set(hashes.values())) > 1:
        listed = ", ".join(f"{name}: {sha256[:12]}" for name, sha256 in hashes.items())
        raise FormatError(f"the sources were encoded by different tokenizers ({listed}); encode them with one")
    stored = np.result_type(*(str(manifest.dtype) for manifest in manifests.values()))
    try:
        kind = np.dtype(stored if dtype is None else dtype)
    except TypeError as error:
        raise ValueError(f"dtype is {dtype!r}, no type of numpy ({error}); int64 and uint32 hold all ids") from error
    if kind.kind not in "iu" or not np.can_cast(stored, kind):
        raise ValueError(f"dtype {kind} cannot hold the ids stored as {stored}; int64 and uint32 can")
    return kind
