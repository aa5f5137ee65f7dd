"""Columns added to a finished build: the bytes, who may add what, several writers at once, and writers that are killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.errors import FormatError
from gristmill.format import manifest as mf
from gristmill.format.column import open_mapped
from gristmill.format.sidecar import find_sidecars, with_sidecars
from gristmill.format.sidecar_writer import SidecarWriter, write_sidecar
from gristmill.storage.location import LocalLocation
from stages.sink.shards import Shards
from tests.gristmill.builds import documents, folder_of, manifest_of, publish

ROOT = Path(__file__).parents[3]
IDS = [[(17 * row + place) % 1000 for place in range(row * 5 % 23)] for row in range(60)]
SCORED = {"excess": [[np.nan, *[0.5] * (len(row) - 1)][: len(row)] for row in IDS]}
COLUMNS = {"ref_loss": "float16", "excess": "float32", "keep": "bool"}


def loss(ids, bounds):
    """A loss for each token that depends on its place in its document; NaN for the first."""
    values = (np.arange(len(ids)) - np.repeat(bounds[:-1], np.diff(bounds))) / 8
    values[bounds[:-1][np.diff(bounds) > 0]] = np.nan
    return values


def score(ids, bounds):
    values = loss(ids, bounds)
    return {"ref_loss": values.astype(np.float16), "excess": (values * 3).astype(np.float32), "keep": values > 0.5}


def make(output: Path, **options) -> Path:
    """Make a build of ten shards, each of several record batches; empty documents too."""
    shards = [[documents(IDS, **options).slice(0, 40)], [documents(IDS, **options).slice(40)]]
    return folder_of(publish(shards, output, sink=Shards(tokens_per_shard=70), batch_tokens=30), output)


@pytest.fixture
def build(tmp_path: Path) -> Path:
    return make(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def opened(folder: Path) -> mf.Manifest:
    place = LocalLocation(folder)
    return with_sidecars(mf.parse(json.loads(place.read("manifest.json")), "here"), find_sidecars(place))


def test_added_columns_are_part_of_the_build(build):
    before = contents(build)
    write_sidecar(build, "small-30m", COLUMNS, score, metadata={"ref_loss": {"unit": "nats"}})
    after = contents(build)
    assert {name: data for name, data in after.items() if name in before} == before
    manifest = opened(build)
    bare = mf.parse(json.loads(before["manifest.json"]), "here")
    assert (manifest.build, manifest.order) == (bare.build, bare.order)
    assert len(manifest.shards) > 8
    for shard in manifest.shards:
        side = shard.sidecars["small-30m"]
        assert side.columns == COLUMNS and len(after[side.file]) == side.bytes
        assert hashlib.sha256(after[side.file]).hexdigest() == side.sha256
        tokens, columns = (pa.ipc.open_file(after[name]) for name in (shard.file, side.file))
        assert tokens.num_record_batches == columns.num_record_batches
        for number in range(tokens.num_record_batches):
            ids, found = tokens.get_batch(number), columns.get_batch(number)
            assert found["doc_id"].equals(ids["doc_id"])
            for name in COLUMNS:
                assert found[name].offsets.equals(ids["input_ids"].offsets)
                assert found[name].null_count == found[name].values.null_count == 0
        bounds = np.append(0, np.cumsum([len(row) for row in tokens.read_all()["input_ids"].to_pylist()]))
        table, expected = columns.read_all(), score(tokens.read_all()["input_ids"].combine_chunks().values.to_numpy(), bounds)
        for name, values in expected.items():
            assert np.array_equal(np.concatenate(table[name].to_numpy()).astype(values.dtype), values, equal_nan=name != "keep")
        assert columns.schema.field("ref_loss").metadata == {b"unit": b"nats"}
        assert columns.schema.metadata[b"gristmill.scheme"] == b"small-30m"


def test_the_bytes_are_those_that_the_sink_writes(tmp_path):
    """Whether columns come with the tokens or later, as one array or document by document: the same files."""
    bounds = np.append(0, np.cumsum([len(row) for row in IDS]))
    values = score(np.concatenate(IDS), bounds)
    rows = {name: [flat[a:b] for a, b in pairwise(bounds)] for name, flat in values.items()}
    types = {"excess": pa.float32(), "keep": pa.bool_(), "ref_loss": pa.float16()}
    docs = documents(IDS, scores=rows, schemes=dict.fromkeys(rows, "m"), types=types)
    sink = publish([[docs]], tmp_path / "sink", batch_tokens=30)
    later = folder_of(publish([[documents(IDS)]], tmp_path / "later", batch_tokens=30), tmp_path / "later")
    expected = manifest_of(sink).shards[0].sidecars["m"]
    facts = {name: {"scheme": "m"} for name in COLUMNS}
    write_sidecar(later, "m", COLUMNS, lambda ids, bounds: values, metadata=facts)
    with SidecarWriter(later, "by-document", COLUMNS) as writer:
        writer.write(0, {name: [row.tolist() if len(row) % 2 else row for row in column] for name, column in rows.items()})
    (shard,) = opened(later).shards
    assert shard.sidecars["m"].sha256 == expected.sha256
    there = [pa.ipc.open_file((later / side.file).read_bytes()).read_all() for side in shard.sidecars.values()]
    assert all(there[0][name].to_numpy()[40].tobytes() == there[1][name].to_numpy()[40].tobytes() for name in COLUMNS)
    assert opened(later).order == manifest_of(sink).order


def test_what_is_said_of_added_columns_is_part_of_the_manifest(build):
    """Beside the files: these are as without it."""
    about = {"ref_loss": {"path": "models/é", "window": (512, 2048), "limit": None}, "keep": {}}
    write_sidecar(build, "m", COLUMNS, score)
    files = {name: data for name, data in contents(build).items() if name != "scores-m.json"}
    assert opened(build).about == {}
    (build / "scores-m.json").unlink()
    write_sidecar(build, "m", COLUMNS, score, about=about)
    assert {name: data for name, data in contents(build).items() if name != "scores-m.json"} == files
    expected = {"m": {"ref_loss": {"path": "models/é", "window": [512, 2048], "limit": None}, "keep": {}}}
    assert opened(build).about == expected
    content = json.loads((build / "scores-m.json").read_bytes())
    del content["about"]
    (build / "scores-m.json").write_text(json.dumps(content))
    assert opened(build).about == {}, "a file from before there was such a key"


def test_reading_gives_what_is_to_be_scored(build):
    with SidecarWriter(build, "m", {"x": "bool"}) as writer:
        flat = []
        for number, shard in enumerate(writer.manifest.shards):
            ids, bounds = writer.read(number)
            assert (ids.dtype, len(ids), len(bounds)) == (np.uint16, shard.tokens, shard.documents + 1)
            flat += [ids[a:b].tolist() for a, b in pairwise(bounds)]
            writer.write(number, {"x": np.zeros(len(ids), np.bool_)})
    assert flat == IDS


def test_shards_in_any_order_and_all_of_them(build):
    writer = SidecarWriter(build, "m", COLUMNS)
    with pytest.raises(ValueError, match=r"columns of 'm': nothing was written for \d+ shards, such as tokens-00000"), writer:
        writer.write(1, score(*writer.read(1)))
    assert not [name for name in os.listdir(build) if "scores" in name]
    with SidecarWriter(build, "m", COLUMNS) as writer:
        for shard in reversed(range(len(writer.manifest.shards))):
            writer.write(shard, score(*writer.read(shard)))
    first = contents(build)
    write_sidecar(build, "m", COLUMNS, score)
    assert contents(build) == first, "the same again changes nothing"


def test_nothing_is_left_after_an_exception(build):
    before = contents(build)
    with pytest.raises(ZeroDivisionError), SidecarWriter(build, "m", COLUMNS) as writer:
        writer.write(0, score(*writer.read(0)))
        raise ZeroDivisionError
    assert contents(build) == before


FIRST = "tokens-00000.arrow"
GOOD = np.array([np.nan, 1, 2, np.nan, 1], np.float16)  # of documents with 3, 0, 2 tokens


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, rf"{FIRST}: columns \[\] were given, expected \['x'\]"),
        ({"x": GOOD, "y": GOOD}, r"columns \['x', 'y'\] were given, expected \['x'\]"),
        ({"x": GOOD[:4]}, rf"{FIRST}: column 'x': values have shape \(4,\), expected one for each of 5 tokens"),
        ({"x": GOOD[None]}, r"values have shape \(1, 5\), expected one for each of 5 tokens"),
        ({"x": GOOD.astype(np.float32)}, r"values are float32, expected float16; convert them with .astype\('float16'\)"),
        ({"x": [GOOD[:3], GOOD[3:]]}, r"values of 2 documents were given, the shard has 3"),
        ({"x": [GOOD[:3], [], GOOD[2:]]}, r"column 'x', document 2: values have shape \(3,\), it has 2 tokens"),
        ({"x": [GOOD[:3], [], GOOD[3:].astype(float)]}, r"values are float64, expected float16"),
        (
            {"x": np.arange(5, dtype=np.float16)},
            r"column 'x', document 0: its first token has 0.0, expected nan: a value belongs",
        ),
        ({"x": [GOOD[:3], [], [2.5, 3]]}, r"column 'x', document 2: its first token has 2.5, expected nan"),
    ],
)
def test_mistakes_in_values(tmp_path, values, message):
    folder = folder_of(publish([[documents([[5, 6, 7], [], [8, 9]])]], tmp_path), tmp_path)
    writer = SidecarWriter(folder, "m", {"x": "float16"})
    with pytest.raises(ValueError, match=message), writer:
        writer.write(0, values)
    with (
        pytest.raises(ValueError, match="document 2: its first token has True, expected False"),
        SidecarWriter(folder, "m", {"x": "bool"}) as writer,
    ):
        writer.write(0, {"x": [[False, True, True], [], [True, False]]})
    write_sidecar(folder, "m", {"x": "float16"}, lambda ids, bounds: {"x": GOOD})


@pytest.mark.parametrize(
    ("name", "columns", "more", "message"),
    [
        ("Rho 1", {"x": "bool"}, {}, r"name 'Rho 1' must match \[a-z0-9\]"),
        ("../m", {"x": "bool"}, {}, r"name '../m' must match"),
        (
            "m",
            {"x": "int8"},
            {},
            r"columns \{'x': 'int8'\}: give at least one, not called doc_id, of type float16, float32, bool",
        ),
        ("m", {}, {}, r"columns \{\}: give at least one"),
        ("m", {"doc_id": "bool"}, {}, r"columns \{'doc_id': 'bool'\}"),
        ("m", {"x": "bool"}, {"metadata": {"y": {}}}, r"metadata is given for \['y'\], which are not among the columns"),
        ("m", {"x": "bool"}, {"about": {"y": {}}}, r"about is given for \['y'\], which are not among the columns"),
        ("m", {"x": "bool"}, {"about": {"x": "it"}}, r"about 'x' is str; it must be a mapping of plain data"),
        ("m", {"x": "bool"}, {"about": {"x": {"t": np.nan}}}, r"about cannot be written as JSON: .*; give text, finite numbers"),
        ("m", {"x": "bool"}, {"about": {"x": {"t": Path()}}}, r"about cannot be written as JSON: .*; give text, finite numbers"),
    ],
)
def test_mistakes_in_what_is_to_be_added(build, name, columns, more, message):
    with pytest.raises(ValueError, match=message):
        SidecarWriter(build, name, columns, **more)


def test_columns_that_are_there_are_not_replaced(tmp_path, build):
    write_sidecar(build, "m", {"x": "bool"}, lambda ids, bounds: {"x": np.zeros(len(ids), np.bool_)})
    before = contents(build)
    with pytest.raises(FormatError, match=r"scores-m.json: is there already, with columns \{'x': 'bool'\} for tokens of order"):
        SidecarWriter(build, "m", COLUMNS)
    with pytest.raises(
        FormatError, match=r"scores-m.json: is there already and names other columns; take another name, or remove"
    ):
        write_sidecar(build, "m", {"x": "bool"}, lambda ids, bounds: {"x": loss(ids, bounds) > 0})
    assert {name: data for name, data in contents(build).items() if name in before} == before
    own = make(tmp_path / "own", scores=SCORED, schemes={"excess": "rho1"})
    with pytest.raises(FormatError, match=r"has columns of 'rho1' already, in scores-rho1-00000.arrow"):
        SidecarWriter(own, "rho1", {"x": "bool"})


def test_a_shard_that_the_manifest_does_not_describe(build):
    (build / FIRST).unlink()
    (build / FIRST).symlink_to(build / "tokens-00001.arrow")
    with pytest.raises(FormatError, match=r"tokens-00000.arrow: has \d+ tokens in \d+ documents, the manifest says \d+ in \d+"):
        write_sidecar(build, "m", COLUMNS, score)
    assert not [name for name in os.listdir(build) if "scores" in name]


# ---- finding ----


def _changed(folder: Path, **values: object) -> None:
    content = json.loads((folder / "scores-m.json").read_bytes())
    (folder / "scores-m.json").write_text(json.dumps({**content, **values}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"order": "0" * 32},
            r"scores-m.json: was made for tokens of order 0{32}, those of this build are [0-9a-f]{32}; move it",
        ),
        ({"version": 2}, r"scores-m.json: format version is 2; this gristmill reads 1"),
        ({"format": "other"}, r"scores-m.json: names no per-token columns"),
        ({"kind": "tokens"}, r"scores-m.json: names no per-token columns"),
        ({"name": "n"}, r"scores-m.json: 'name' is 'n', expected 'm'; the file was renamed"),
        (
            {"columns": {"x": "int8"}},
            r"scores-m.json: columns: found \{'x': 'int8'\}; the types of per-token columns are float16",
        ),
        ({"columns": {"x": ["bool"]}}, r"scores-m.json: columns: found \{'x': \['bool'\]\}"),
        ({"about": {"x": 1}}, r"scores-m.json: about: must be an object with an object for each column, found \{'x': 1\}"),
        ({"shards": []}, r"scores-m.json: has 0 files, the build has \d+ shards; make it again"),
        ({"shards": [{"file": "/x"}]}, r"scores-m.json: shards\[0\]: 'file' is '/x', must match"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(build, change, message):
    write_sidecar(build, "m", COLUMNS, score)
    _changed(build, **change)
    with pytest.raises(FormatError, match=message):
        opened(build)


def test_columns_of_other_lengths(build):
    write_sidecar(build, "m", COLUMNS, score)
    shards = json.loads((build / "scores-m.json").read_bytes())["shards"]
    shards[3]["tokens"] += 1
    _changed(build, shards=shards)
    with pytest.raises(FormatError, match=r"scores-m.json: scores-m-00003-\w+.arrow has \d+ values in .* tokens-00003.arrow has"):
        opened(build)


def test_a_name_that_the_build_has_itself(tmp_path, build):
    """Copied into a build that was made with such columns: which of the two is meant cannot be told."""
    write_sidecar(build, "rho1", COLUMNS, score)
    own = make(tmp_path / "own", scores=SCORED, schemes={"excess": "rho1"})
    for path in build.glob("scores-rho1*"):
        if not (own / path.name).exists():
            os.link(path, own / path.name)
    with pytest.raises(
        FormatError, match=r"scores-rho1.json: the build has columns of 'rho1' already, in scores-rho1-00000.arrow"
    ):
        opened(own)


def test_only_files_that_name_columns_are_looked_at(build):
    for name in ("scores-.json", "scores-M.json", "scores-m.json.part", "scores-m-00000.arrow"):
        (build / name).write_text("{")
    assert find_sidecars(LocalLocation(build)) == {}
    (build / "scores-m.json").write_text("{")
    with pytest.raises(FormatError, match=r"scores-m.json: cannot be read as JSON"):
        find_sidecars(LocalLocation(build))


# ---- several writers, and killed ones ----

WRITER = """
import os, signal, sys, time
import numpy as np
from gristmill.format.sidecar_writer import SidecarWriter
from pathlib import Path

folder, name, factor, gate, kill = sys.argv[1:]
real, linked = os.link, 0

def link(source, target):
    global linked
    if str(linked) == kill:
        os.kill(os.getpid(), signal.SIGKILL)
    linked += 1
    real(source, target)

os.link = link
with SidecarWriter(folder, name, {"x": "float32"}) as writer:
    (Path(gate) / str(os.getpid())).touch()
    while len(list(Path(gate).iterdir())) < int(Path(gate).name):
        time.sleep(0.01)
    for shard in range(len(writer.manifest.shards)):
        if kill == f"shard {shard}":
            os.kill(os.getpid(), signal.SIGKILL)
        ids, bounds = writer.read(shard)
        values = ids.astype(np.float32) * float(factor)
        values[bounds[:-1][np.diff(bounds) > 0]] = np.nan
        writer.write(shard, {"x": values})
"""


def run(build: Path, gate: Path, *writers: tuple[str, str], kill: str = "") -> list[int]:
    """Run a process for each (name, factor), all of which begin when all are ready; return their exit codes."""
    place = gate / str(time.monotonic_ns()) / str(len(writers))
    place.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(build), name, factor, str(place), kill], env=environment, stderr=subprocess.PIPE
        )
        for name, factor in writers
    ]
    errors = [process.communicate()[1] for process in started]
    for process, error in zip(started, errors, strict=True):
        assert process.returncode in (0, -signal.SIGKILL) or b"is there already and names other columns" in error, error.decode()
    return [process.returncode for process in started]


def values(build: Path, name: str) -> np.ndarray:
    files = [build / shard.sidecars[name].file for shard in opened(build).shards]
    return np.concatenate([np.concatenate(open_mapped(file, "scores")[1].read_all()["x"].to_numpy()) for file in files])


def test_two_models_at_once(build, tmp_path):
    assert run(build, tmp_path / "gate", ("one", "1"), ("two", "2")) == [0, 0]
    assert np.array_equal(values(build, "one") * 2, values(build, "two"), equal_nan=True)
    assert not [name for name in os.listdir(build) if name.startswith(".")]


def test_the_same_name_at_once(build, tmp_path):
    """The same columns: both succeed. Others: one does, and what it wrote is whole."""
    assert run(build, tmp_path / "gate", ("m", "1"), ("m", "1")) == [0, 0]
    assert sorted(run(build, tmp_path / "gate", ("n", "1"), ("n", "2"))) == [0, 1]
    ratio = np.nanmax(values(build, "n")) / np.nanmax(values(build, "m"))
    assert ratio in (1, 2) and np.array_equal(values(build, "m") * ratio, values(build, "n"), equal_nan=True)


@pytest.mark.parametrize("moment", ["shard 5", "5", "last"])
def test_a_killed_writer_leaves_nothing_to_be_seen(build, tmp_path, moment):
    """Killed while it computes, or between the links: no columns, and the next writer removes what is left of it."""
    shards = len(opened(build).shards)
    moment = str(shards) if moment == "last" else moment  # all files linked, but not the one that names them
    assert run(build, tmp_path / "gate", ("m", "1"), kill=moment) == [-signal.SIGKILL]
    assert find_sidecars(LocalLocation(build)) == {} and [name for name in os.listdir(build) if name.startswith(".")]
    assert run(build, tmp_path / "gate", ("m", "3")) == [0]
    assert not [name for name in os.listdir(build) if name.startswith(".")]
    assert np.nanmax(values(build, "m")) % 3 == 0
