"""Manifests: the same bytes for the same build, and each kind of damage named."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from gristmill.errors import FormatError
from gristmill.format import manifest as mf
from gristmill.format.manifest import Manifest, Shard, Sidecar
from gristmill.format.schema import Tokenizer

SIDE = Sidecar("scores-rho1-00000.arrow", "b" * 64, 50, {"excess": "float16", "keep": "bool"}, 40)
SHARDS = (
    Shard("tokens-00000.arrow", 2, 30, 100, 500, "a" * 64, "in-0", {"rho1": SIDE}, 450),
    Shard("tokens-00001.arrow", 1, 12, 40, 300, "c" * 64, "in-1"),
)
LINEAGE = {"inputs": [{"name": "é.warc.gz", "uri": "s3://crawl/é.warc.gz", "bytes": 9}], "stages": []}
MANIFEST = Manifest(
    "tokens",
    mf.build_id("tokens", SHARDS),
    "demo",
    Tokenizer("d" * 64, 1000, None, 1, "tokenizer.json"),
    "uint16",
    SHARDS,
    LINEAGE,
    {"rho1": {"excess": {"threshold": 0.5, "é": [1, None]}}},
)


def test_round_trip():
    data = MANIFEST.to_json()
    assert mf.parse(json.loads(data), "here") == MANIFEST
    assert mf.parse(json.loads(data), "here").to_json() == data
    assert (MANIFEST.documents, MANIFEST.tokens, MANIFEST.text_bytes) == (3, 42, 140)
    assert "é" in data.decode() and data.endswith(b"}\n")


def test_bytes_do_not_depend_on_the_order_of_keys():
    turned = dict(reversed(LINEAGE.items()))
    assert dataclasses.replace(MANIFEST, lineage=turned).to_json() == MANIFEST.to_json()


def test_what_is_said_of_columns_has_no_influence_on_the_id():
    silent = dataclasses.replace(MANIFEST, about={})
    assert mf.parse(json.loads(silent.to_json()), "here") == silent
    assert (silent.build, silent.order) == (MANIFEST.build, MANIFEST.order)


def test_id_is_as_documented():
    lines = ["gristmill 1", f"tokens {'a' * 64}", "zst 450", f"scores-rho1 {'b' * 64}", "zst 40", f"tokens {'c' * 64}", ""]
    assert MANIFEST.build == hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def test_id_depends_on_content_and_order_alone():
    same = dataclasses.replace(SHARDS[0], input="elsewhere", file="x.arrow")
    assert mf.build_id("tokens", (same, SHARDS[1])) == MANIFEST.build
    others = [
        SHARDS[::-1],
        SHARDS[:1],
        (dataclasses.replace(SHARDS[0], sha256="e" * 64), SHARDS[1]),
        (dataclasses.replace(SHARDS[0], sidecars={}), SHARDS[1]),
        (dataclasses.replace(SHARDS[0], zst=451), SHARDS[1]),
        (dataclasses.replace(SHARDS[0], zst=None), SHARDS[1]),
        (dataclasses.replace(SHARDS[0], sidecars={"eslm": SIDE}), SHARDS[1]),
        (),
    ]
    ids = [mf.build_id("tokens", shards) for shards in others] + [mf.build_id("documents", SHARDS), MANIFEST.build]
    assert len(set(ids)) == len(ids)
    assert all(len(build) == 32 for build in ids)


def _changed(path: str, value: object) -> object:
    content = json.loads(MANIFEST.to_json())
    place = content
    *keys, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in keys:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "parquet", "here: not a manifest of a build"),
        ("version", 2, r"here: format version is 2; this gristmill reads 1"),
        ("version", None, r"here: format version is None"),
        ("build", None, r"here: 'build' must be text, found nothing"),
        ("build", "0" * 32, r"its files make [0-9a-f]{32}; the manifest was changed"),
        ("shards", {}, r"here: 'shards' must be a list, found an empty object"),
        ("shards/1/tokens", "12", r"here: shards\[1\]: 'tokens' must be a whole number, found the text '12'"),
        ("shards/1/tokens", True, r"shards\[1\]: 'tokens' must be a whole number, found true"),
        ("shards/1/tokens", -1, r"'tokens' is -1, must not be negative"),
        ("shards/1/tokens", 13, r"totals are .*'tokens': 42.*, but the shards add up to .*'tokens': 43"),
        ("shards/0/file", "../../etc/passwd", r"shards\[0\]: 'file' is '../../etc/passwd', must match"),
        ("shards/0/sha256", "a" * 63, r"shards\[0\]: 'sha256' is"),
        ("shards/0/sidecars/rho1/file", "/tmp/x", r"shards\[0\].sidecars\['rho1'\]: 'file' is '/tmp/x'"),
        ("shards/0/sidecars/rho1/columns", None, r"'columns' must be an object, found nothing"),
        (
            "shards/0/sidecars/rho1/columns/keep",
            "int8",
            r"columns: found {'keep': 'int8'}; the types of per-token columns are float16, ",
        ),
        ("shards/0/zst", -1, r"shards\[0\]: 'zst' is -1, must not be negative"),
        ("order", "0" * 32, r"here: order is 0{32}, but its files make [0-9a-f]{32}; the manifest was changed"),
        ("order", None, r"here: has no 'order'; it was made by an earlier gristmill: delete it and run the build again"),
        (
            "tokenizer/file",
            None,
            r"here: tokenizer: has no 'file'; it was made by an earlier gristmill: delete it and run the build again",
        ),
        ("tokenizer/file", "../x", r"here: tokenizer: 'file' is '../x', must match"),
        ("shards/0", [], r"shards\[0\]: expected an object, found a list of 0"),
        ("tokenizer/vocab_size", None, r"here: tokenizer: 'vocab_size' must be a whole number, found nothing"),
        ("tokenizer", 7, r"here: tokenizer: expected an object, found the number 7"),
        ("about", [], r"here: 'about' must be an object, found a list of 0"),
        ("about/rho1", [], r"here: about\['rho1'\]: must be an object with an object for each column, found \[\]"),
        ("about/rho1/excess", 0.5, r"here: about\['rho1'\]: must be an object with .*, found \{'excess': 0.5\}"),
    ],
)
def test_damage_is_named(path, value, message):
    with pytest.raises(FormatError, match=message):
        mf.parse(_changed(path, value), "here")


def test_optional_values():
    content = _changed("tokenizer/eos_id", None)
    assert mf.parse(content, "here").tokenizer == Tokenizer("d" * 64, 1000, file="tokenizer.json")
    content["tokenizer"]["file"] = None
    assert mf.parse(content, "here").tokenizer == Tokenizer("d" * 64, 1000)
    assert mf.parse(_changed("about", None), "here").about == {}
    assert '"zst": 450' in MANIFEST.to_json().decode() and MANIFEST.to_json().decode().count("zst") == 2


def test_order_is_of_the_documents_alone():
    """New sidecars, names and copies leave it; other tokens or another order of shards change it."""
    lines = ["gristmill 1", f"tokens {'a' * 64}", f"tokens {'c' * 64}", ""]
    assert MANIFEST.order == hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32] != MANIFEST.build
    bare = tuple(dataclasses.replace(shard, sidecars={}, zst=None, file="x", input="y") for shard in SHARDS)
    assert dataclasses.replace(MANIFEST, shards=bare).order == MANIFEST.order == mf.build_id("tokens", bare)
    assert len({MANIFEST.order, *(dataclasses.replace(MANIFEST, shards=s).order for s in (SHARDS[::-1], SHARDS[:1]))}) == 3


def test_files():
    assert mf.files(MANIFEST) == [
        mf.File("tokens-00000.arrow", 500, "a" * 64, 450),
        mf.File("scores-rho1-00000.arrow", 50, "b" * 64, 40),
        mf.File("tokens-00001.arrow", 300, "c" * 64),
    ]
