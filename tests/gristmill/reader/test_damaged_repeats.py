"""Counts of repeats that are damaged, missing, or not those of the manifest: found, whether hashes are asked for or not."""

from __future__ import annotations

import json

import pytest

from gristmill import FormatError, TokenDataset
from gristmill.format.manifest import NAME
from tests.gristmill.slow import build, corpus, some_sizes


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    shards = corpus(some_sizes(5))
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    return build(tmp_path / "build", shards, repeats=[[(2, 1, 3, 1, 2, 7)[at % 6] for at in range(len(ids))] for ids in shards])


def changed(path, content):
    path.unlink()  # the store holds the same file by a hard link
    path.write_bytes(content)


@pytest.mark.parametrize("verify", [True, False])
def test_a_flipped_bit_in_the_counts_is_found(fresh, verify):
    path = fresh / "repeats-00003.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    changed(path, content)
    with pytest.raises(FormatError, match=r"repeats-00003.arrow: sha256 is [0-9a-f]{64}"):
        TokenDataset.open(fresh, sequence_length=16, verify=verify)


def test_missing_and_cut_counts_are_found(fresh):
    path = fresh / "repeats-00002.arrow"
    content = path.read_bytes()
    changed(path, content[:-1])
    with pytest.raises(
        FormatError, match=rf"repeats-00002.arrow: has {len(content) - 1} bytes, the manifest says {len(content)}"
    ):
        TokenDataset.open(fresh, sequence_length=16)
    path.unlink()
    with pytest.raises(FormatError, match=r"repeats-00002.arrow: missing"):
        TokenDataset.open(fresh, sequence_length=16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shard: shard["repeats"].update(passes=[]), r"repeats: 'passes' is a list of 0; it must be 1 to 255 pairs"),
        (lambda shard: shard["repeats"]["passes"].append([1000, 9]), "that never rise"),
        (lambda shard: shard["repeats"]["passes"].__setitem__(0, [1, 1]), "the first of them"),
        (lambda shard: shard.pop("repeats"), "some shards have 'repeats' and others have none"),
        (lambda shard: shard["repeats"].update(sha256="0" * 64), "its files make .*; the manifest was changed"),
        (lambda shard: shard.update(repeats=3), "'repeats' must be an object"),
    ],
)
def test_a_manifest_whose_counts_cannot_be(fresh, change, message):
    content = json.loads((fresh / NAME).read_text())
    change(content["shards"][1])
    (fresh / NAME).write_text(json.dumps(content))
    with pytest.raises(FormatError, match=message):
        TokenDataset.open(fresh, sequence_length=16)


def test_counts_that_are_not_those_of_the_manifest(fresh):
    content = json.loads((fresh / NAME).read_text())
    content["shards"][0]["repeats"]["passes"][1][1] -= 1
    (fresh / NAME).write_text(json.dumps(content))
    with pytest.raises(FormatError, match=r"repeats-00000.arrow: its counts are not those of the manifest"):
        TokenDataset.open(fresh, sequence_length=16)
