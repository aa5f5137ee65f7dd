"""`dedup_minhash`: find near duplicates among all documents of the build, and keep the first of each cluster.

Reads `id` and `text`. A document is the set of its word n-grams (words as in `words.py`). MinHash (Broder 1997) in
`bands` x `rows` lanes nominates pairs that agree in a whole band (Indyk & Motwani 1998); each nominated pair is then
verified on all lanes before it counts, so that a shared menu or licence never chains unrelated pages into one cluster.
The clusters of verified pairs are settled in `clusters.py`.

Every band of a document makes one row: `key` (hash of the band and its lanes), `row`, `id`, and `signature`, all the
lanes in 8 bits each: they verify as well as 32 bits do (Li & König 2010, b-bit minwise hashing) at a quarter of the size.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import as_bytes, flat_bytes, flat_texts
from gristmill.json_values import Json
from gristmill.minhash import clusters
from pipeline.finding import Finding, Limit
from pipeline.stage import Exchange, Transform

EMPTY = 0xFFFFFFFF  # a lane that has seen no shingle
NUMBER = r"\p{Nd}+([.,]\p{Nd}+)*"
CHANCE = 1 / 256  # two unequal lanes agree in their 8 bits this often


def lane_functions(lanes: int, seed: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Return the multiplier (odd) and increment of each lane's permutation x → m·x + c mod 2^32 (uint32, uint32)."""
    digests = [hashlib.blake2b(f"minhash {seed} {lane}".encode(), digest_size=8).digest() for lane in range(lanes)]
    drawn = np.frombuffer(b"".join(digests), "<u4").reshape(lanes, 2)
    return drawn[:, 0] | np.uint32(1), drawn[:, 1].copy()


def estimate(agreements: npt.NDArray[np.int64], lanes: int) -> npt.NDArray[np.float32]:
    """Return the Jaccard similarity that `agreements` of `lanes` 8-bit lanes speak for, chance removed (float32, 0 to 1)."""
    share = agreements / lanes
    return np.maximum((share - CHANCE) / (1 - CHANCE), 0).astype(np.float32)


def least_agreements(threshold: float, lanes: int) -> int:
    """Return the smallest number of agreeing lanes whose estimate reaches `threshold`."""
    return math.ceil(lanes * (threshold * (1 - CHANCE) + CHANCE) - 1e-9)


def band_keys(lanes: npt.NDArray[np.uint32], bands: int) -> npt.NDArray[np.uint64]:
    """Return the bucket of each band: uint64[documents, bands], a hash of the band's number and its lanes."""
    values = lanes.reshape(len(lanes), bands, lanes.shape[1] // bands)
    keys: npt.NDArray[np.uint64] = np.zeros(values.shape[:2], np.uint64) + np.arange(1, bands + 1, dtype=np.uint64) * np.uint64(
        0x9E3779B97F4A7C15
    )
    for row in range(values.shape[2]):
        keys = (keys ^ values[:, :, row]) * np.uint64(0xFF51AFD7ED558CCD)
        keys ^= keys >> np.uint64(32)
    return keys


def narrow(lanes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """Return 8 bits of each lane, taken from a mix of all its bits."""
    return ((lanes * np.uint32(0x9E3779B1)) >> np.uint32(24)).astype(np.uint8)


def signer(
    ngram: int, lanes: int, seed: int, *, normalize: bool = True
) -> Callable[[pa.ChunkedArray], tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]]:
    """Load the compiled loops and return f(text) → (minhashes uint32[documents, lanes], words int64[documents]).

    The minhashes of a document without a word are all `EMPTY`.
    """
    from gristmill.minhash import folding, kernels, words

    folded = words.folded()
    table, pool = folding.normalized() if normalize else folding.plain()
    multipliers, increments = lane_functions(lanes, seed)

    def sign(text: pa.ChunkedArray) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        minhashes = np.full((len(text), lanes), EMPTY, np.uint32)
        counts = np.zeros(len(text), np.int64)
        first = 0
        for chunk in text.chunks:
            last = first + len(chunk)
            data, offsets = flat_texts(chunk)
            kernels.signatures(
                data, offsets, folded, table, pool, ngram, multipliers, increments, minhashes[first:last], counts[first:last]
            )
            first = last
        return minhashes, counts

    return sign


@dataclass(frozen=True, kw_only=True)
class DedupMinhash(Exchange):
    """Drop documents that share most of their word n-grams with an earlier one (`near_duplicate`).

    Two documents are taken to be near duplicates when they agree in one of `bands` bands of `rows` minhashes and their
    similarity, estimated from all of them, is at least `threshold` (standard error 0.04 at 0.75 with 14 x 8). With
    14 x 8 a pair of similarity 0.75 is nominated with probability 0.77, of 0.85 with 0.99, of 0.5 with 0.05.

    Within a bucket the first document is compared with all others; those that are not similar to it go on to the next
    comparison, `max_stars` times at most, so the cost of a bucket stays linear. Pairs left over may meet in another band.
    Of the documents connected by verified pairs the first in (shard, row) order is kept. Documents of fewer than `ngram`
    words are compared as a whole; documents without a word are never duplicates here.

    With `normalize: text` words are the same however they are written: composed or decomposed, in capitals of any script, in
    full-width letters, with soft hyphens or zero-width characters, with Arabic or Persian yeh and kaf (`folding.py` has the
    list). With `none` only ASCII capitals count as lower case. `fold_numbers` makes all numbers (digits of any script, with
    . or , between them) the same.
    """

    version = 2

    ngram: int = 5
    bands: int = 14
    rows: int = 8
    threshold: float = 0.75
    max_stars: int = 16
    seed: int = 0
    normalize: Literal["text", "none"] = "text"
    fold_numbers: bool = False

    def __post_init__(self) -> None:
        for name, least, most in (("ngram", 1, 64), ("bands", 1, 256), ("rows", 1, 64), ("max_stars", 1, 1024)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}; allowed are {least} to {most}")
        if self.normalize not in ("text", "none"):
            raise ValueError(f"normalize is {self.normalize!r}; allowed are 'text' and 'none'")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; allowed are values above 0 and up to 1 (a Jaccard similarity)")

    def adds(self) -> Mapping[str, pa.DataType]:
        """See `Stage.adds`: the cluster's size, and for dropped ones which document is kept and how similar the nearest is."""
        return clusters.COLUMNS

    def replaces(self) -> tuple[str, ...]:
        """Return all of them: of two stages that remove duplicates the later tells."""
        return tuple(self.adds())

    def defaults(self) -> Mapping[str, Json]:
        """See `Exchange.defaults`."""
        return {"minhash_cluster_size": 1, "duplicate_of": None, "duplicate_jaccard": None}

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return how similar the nearest document is, and how many are in the cluster; see `Stage.explain`."""
        size, kept, similarity = (after[name][0].as_py() for name in clusters.COLUMNS)
        if kept is None:
            return [Finding("minhash_cluster_size", size)]
        reached = Limit("threshold", self.threshold, "reaches", broken=True)
        return [
            Finding("duplicate_jaccard", similarity, (reached,), decisive=True),
            Finding("duplicate_of", kept),
            Finding("minhash_cluster_size", size),
        ]

    def measures(self) -> tuple[str, ...]:
        """See `Stage.measures`."""
        return ("minhash_cluster_size",)

    def libraries(self) -> tuple[str, ...]:
        """Return Python: its tables of Unicode fold letters."""
        return ("python",)

    def open(self) -> Transform:
        """Return f(docs) → rows (key: uint64, row: int64, id: string, signature: fixed_size_binary(bands*rows)), one a band."""
        width = self.bands * self.rows
        sign = signer(self.ngram, width, self.seed, normalize=self.normalize == "text")

        def emit(docs: pa.Table) -> pa.Table:
            text = pc.replace_substring_regex(docs["text"], NUMBER, "0") if self.fold_numbers else docs["text"]
            minhashes, words = sign(text)
            signed = np.flatnonzero(words)
            minhashes = minhashes[signed]
            repeated = np.repeat(np.arange(len(signed)), self.bands)
            return pa.table(
                {
                    "key": band_keys(minhashes, self.bands).reshape(-1),
                    "row": signed[repeated].astype(np.int64),
                    "id": docs["id"].take(pa.array(signed[repeated])),
                    "signature": as_bytes(narrow(minhashes)[repeated], width),
                }
            )

        return emit

    def reduce(self) -> Transform:
        """Return f(rows sorted by key) → verified pairs, see `clusters.EDGES`."""
        from gristmill.minhash import kernels

        width = self.bands * self.rows
        least = least_agreements(self.threshold, width)

        def link(rows: pa.Table) -> pa.Table:
            keys = rows["key"].to_numpy()
            starts = np.concatenate([np.flatnonzero(np.diff(keys, prepend=keys[:1] ^ np.uint64(1))), [len(keys)]]).astype(
                np.int64
            )
            centers, leaves, agreements = (np.zeros(len(keys), np.int64) for _ in range(3))
            found = kernels.stars(starts, flat_bytes(rows["signature"]), least, self.max_stars, centers, leaves, agreements)
            a, b = rows.take(pa.array(centers[:found])), rows.take(pa.array(leaves[:found]))
            ends = [a["shard"], a["row"], a["id"], b["shard"], b["row"], b["id"]]
            return pa.table([*ends, pa.array(estimate(agreements[:found], width))], schema=clusters.EDGES)

        return link

    def settle(self) -> Callable[[Sequence[pa.Table]], pa.Table]:
        """Return f(tables of pairs) → verdicts, see `clusters.settle`."""
        return clusters.settle
