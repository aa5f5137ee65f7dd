"""Which tokens of a finished build its policies keep: shares by language, input and other columns, and sample documents.

Reads the manifest with all columns that were added to the build, a bounded sample of its shards and sidecars, and the file of the
tokenizer beside them. Returns plain data; `score_sections.py` draws it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.columns import flat_lists
from gristmill.format import schema as fmt
from gristmill.format.build import open_build
from gristmill.format.manifest import Manifest, Shard
from gristmill.format.sidecar import find_sidecars, with_sidecars
from gristmill.json_values import Plain
from gristmill.signals import score_column, selected_column, weight_column
from gristmill.storage.store import Store
from gristmill.tokenizer.measuring.spelling import as_vocabulary
from gristmill.tokenizer.opening import read_tokenizer
from gristmill.tokenizer.tokenizer_file import TokenizerFile

MOST_TOKENS = 4_000_000  # looked at for the shares; a build with no more is counted whole
MOST_GROUPS = 20
DOCUMENTS, DOCUMENT_TOKENS = 6, 500  # shown of each policy, and tokens of each
LEAST_TOKENS = 30  # of a document that is shown

Floats = npt.NDArray[np.float64]


@dataclass
class Share:
    """Of tokens that have a score: how many there are, how many are kept (the sum of weights, for a soft policy), and bytes."""

    tokens: int = 0
    kept_tokens: float = 0
    bytes: int = 0
    kept_bytes: float = 0

    def add(self, sizes: npt.NDArray[np.int64], kept: Floats) -> None:
        """Count tokens of `sizes` bytes that are kept with the weights `kept`."""
        self.tokens += len(sizes)
        self.kept_tokens += float(kept.sum())
        self.bytes += int(sizes.sum())
        self.kept_bytes += float((kept * sizes).sum())


@dataclass(frozen=True)
class Shown:
    """The first tokens of a document: what each spells, its score (NaN: none) and weight, 0 to 1."""

    url: str | None
    id: str
    pieces: Sequence[str]
    scores: Floats
    weights: Floats
    left: int


@dataclass
class Policy:
    """What a policy does to the sample. `shares`: column → value → share; `all` is of all tokens."""

    name: str
    about: Mapping[str, Plain]
    all: Share = field(default_factory=Share)
    shares: dict[str, dict[str, Share]] = field(default_factory=dict)
    documents: list[Shown] = field(default_factory=list)


@dataclass(frozen=True)
class TokenScores:
    """The policies of a build, and how many of its tokens they were looked at on."""

    policies: Sequence[Policy]
    tokens: int
    of: int


def token_scores(store: Store, manifest_name: str, groups: Sequence[str] = ("language", "file", "bucket")) -> TokenScores | None:
    """Return what the policies of a build keep; None for a build without any.

    Args:
        store: of the build's output.
        manifest_name: of the build, in the store.
        groups: columns of the shards to count by, where they are there.

    Raises:
        FormatError: the build cannot be read.
    """
    folder = manifest_name.rpartition("/")[0]
    manifest = whole_manifest(store, manifest_name)
    if manifest.kind != fmt.TOKENS or not manifest.shards or manifest.tokenizer is None or manifest.tokenizer.file is None:
        return None
    names = [name for name, side in sorted(manifest.shards[0].sidecars.items()) if _kept_column(name, side.columns)]
    if not names:
        return None
    spelled = _spelled(store, f"{folder}/{manifest.tokenizer.file}")
    sizes = np.array([len(token) for token in spelled], np.int64)
    policies = [Policy(name, _about(manifest, name)) for name in names]
    looked = 0
    for policy in policies:
        looked = 0
        for batch in _sample(store, folder, manifest, policy.name):
            _count(policy, batch, sizes, groups)
            _show(policy, batch, spelled)
            looked += len(batch.ids)
    return TokenScores(policies, looked, manifest.tokens)


@dataclass(frozen=True)
class _Batch:
    """Some documents: flat ids, where each begins, scores, weights (NaN where there is no score), and the shard's columns."""

    ids: npt.NDArray[Any]
    bounds: npt.NDArray[np.int64]
    scores: Floats
    weights: Floats
    columns: pa.RecordBatch


def whole_manifest(store: Store, name: str) -> Manifest:
    """Return a manifest with the columns that were added to its build. Raises FormatError when it cannot be read."""
    manifest, location = open_build(store.uri(name), None)
    return with_sidecars(manifest, find_sidecars(location))


def _kept_column(name: str, columns: Mapping[str, str]) -> str | None:
    return next((column for column in (selected_column(name), weight_column(name)) if column in columns), None)


def _about(manifest: Manifest, name: str) -> Mapping[str, Plain]:
    column = _kept_column(name, manifest.shards[0].sidecars[name].columns)
    found = manifest.about.get(name, {}).get(column or "", {})
    assert isinstance(found, Mapping), "checked when the manifest was read"
    return found


def _spelled(store: Store, name: str) -> Sequence[bytes]:
    """Return the bytes of each token of the build's tokenizer."""
    file = TokenizerFile(name, store.read(name))
    return as_vocabulary(read_tokenizer(file, tell_unknown=False)).tokens


def _sample(store: Store, folder: str, manifest: Manifest, policy: str) -> Iterator[_Batch]:
    """Yield up to MOST_TOKENS tokens: the beginnings of shards that are evenly spaced over the build."""
    wanted = max(1, min(len(manifest.shards), 16 if manifest.tokens > MOST_TOKENS else len(manifest.shards)))
    chosen = [manifest.shards[i * len(manifest.shards) // wanted] for i in range(wanted)]
    each = MOST_TOKENS if manifest.tokens <= MOST_TOKENS else MOST_TOKENS // wanted
    for shard in chosen:
        yield from _of_shard(store, folder, shard, policy, each)


def _of_shard(store: Store, folder: str, shard: Shard, policy: str, most: int) -> Iterator[_Batch]:
    side = shard.sidecars[policy]
    kept = _kept_column(policy, side.columns)
    score = score_column(policy) if score_column(policy) in side.columns else None
    with ExitStack() as stack:
        tokens = pa.ipc.open_file(stack.enter_context(store.open(f"{folder}/{shard.file}")))
        scores = pa.ipc.open_file(stack.enter_context(store.open(f"{folder}/{side.file}")))
        left = most
        for number in range(tokens.num_record_batches):
            batch, values = tokens.get_batch(number), scores.get_batch(number)
            ends = batch.column(fmt.INPUT_IDS).offsets.to_numpy()
            rows = int(np.searchsorted(ends - ends[0], left, side="right")) - 1
            if rows <= 0:
                return
            batch, values = batch.slice(0, rows), values.slice(0, rows)
            ids, bounds = flat_lists(batch.column(fmt.INPUT_IDS))
            weights = flat_lists(values.column(kept))[0].astype(np.float64)
            given = weights.copy() if score is None else flat_lists(values.column(score))[0].astype(np.float64)
            if score is None:  # all but the first of a document may have been kept
                given[bounds[:-1][np.diff(bounds) > 0]] = np.nan
            yield _Batch(ids, bounds, given, weights, batch)
            left -= len(ids)


def _count(policy: Policy, batch: _Batch, sizes: npt.NDArray[np.int64], groups: Sequence[str]) -> None:
    scored = ~np.isnan(batch.scores)
    bytes_of, kept = sizes[batch.ids][scored], np.nan_to_num(batch.weights[scored])
    policy.all.add(bytes_of, kept)
    documents = np.repeat(np.arange(len(batch.bounds) - 1), np.diff(batch.bounds))[scored]
    for group in groups:
        if group not in batch.columns.schema.names:
            continue
        shares = policy.shares.setdefault(group, {})
        coded = batch.columns.column(group).cast(pa.string()).fill_null("unknown").dictionary_encode()
        codes = coded.indices.to_numpy()[documents]
        for code, value in enumerate(coded.dictionary.to_pylist()):
            mine = codes == code
            shares.setdefault(value, Share()).add(bytes_of[mine], kept[mine])


def _show(policy: Policy, batch: _Batch, spelled: Sequence[bytes]) -> None:
    """Add documents that are evenly spaced over the batch, until there are enough."""
    long = np.flatnonzero(np.diff(batch.bounds) >= LEAST_TOKENS)
    wanted = min(DOCUMENTS - len(policy.documents), len(long))
    for row in (int(long[i * len(long) // wanted]) for i in range(wanted)):
        begin, end = int(batch.bounds[row]), int(batch.bounds[row + 1])
        last = min(end, begin + DOCUMENT_TOKENS)
        pieces = _pieces([spelled[token] for token in batch.ids[begin:last].tolist()])
        url, name = (batch.columns.column(key)[row].as_py() for key in ("url", fmt.DOC_ID))
        weights = np.nan_to_num(batch.weights[begin:last])
        policy.documents.append(Shown(url, name, pieces, batch.scores[begin:last], weights, end - last))


def _pieces(tokens: Sequence[bytes]) -> list[str]:
    """Return the text of each token; a character that is cut between tokens goes to the one that ends it."""
    pieces, pending = [], b""
    for token in tokens:
        pending += token
        try:
            pieces.append(pending.decode())
            pending = b""
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                pieces.append(pending[: error.start].decode())
                pending = pending[error.start :]
            else:
                pieces.append(pending.decode(errors="replace"))
                pending = b""
    return pieces
