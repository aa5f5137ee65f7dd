"""The `shards` sink: bytes that depend on the documents alone, parts, sidecars, and the assembled manifest."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.format import manifest as mf
from pipeline.lineage import BuildInput, Lineage
from pipeline.stage import Attachment
from stages.sink.shards import Shards
from tests.gristmill.builds import documents, folder_of, manifest_of, publish
from tests.random_examples import examples

IDS = [[(17 * row + place) % 1000 for place in range(row * 5 % 23)] for row in range(60)]
SCORES = {"excess": [[np.nan, *[place / 8 for place in range(len(row) - 1)]][: len(row)] for row in IDS]}


def table() -> pa.Table:
    return documents(IDS, scores=SCORES, schemes={"excess": "rho1"})


def write(tables, folder: Path, **options) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    parts = Shards(**options).open()(iter(tables), folder)
    assert {part.path for part in parts} == set(folder.iterdir()), "nothing is left beside the parts"
    return {part.path.name: part.path.read_bytes() for part in parts}


@given(st.lists(st.integers(0, 60), max_size=8), st.booleans(), st.booleans(), st.booleans())
@examples(40)
def test_bytes_do_not_depend_on_how_documents_arrive(tmp_path_factory, cuts, garbage, encoded, batches):
    """Any tables, slices of larger ones, columns of several chunks, dictionary-encoded or not: the same files."""
    whole = table()
    if garbage:
        whole = (
            pa.concat_tables([documents([[5, 6]], scores={"excess": [[1, 2]]}, schemes={"excess": "rho1"}), whole])
            .combine_chunks()
            .slice(1)
        )
    if encoded:
        place = whole.schema.get_field_index("language")
        whole = whole.set_column(place, "language", whole.column(place).dictionary_encode())
    borders = sorted({0, *cuts, len(IDS)})
    tables = [whole.slice(a, b - a) for a, b in pairwise(borders)]
    if batches:
        tables = [whole.slice(0, 0), pa.concat_tables(tables), whole.slice(0, 0)]
    found = write(tables, tmp_path_factory.mktemp("any"), tokens_per_shard=100)
    assert found == write([table()], tmp_path_factory.mktemp("one"), tokens_per_shard=100)
    assert len(found) > 8


def test_parts_are_described(tmp_path):
    parts = Shards(tokens_per_shard=100).open()(iter([table()]), tmp_path)
    tokens = [part for part in parts if part.kind == "tokens"]
    scores = [part for part in parts if part.kind == "scores-rho1"]
    assert [part.number for part in tokens] == [part.number for part in scores] == list(range(len(tokens)))
    assert sum(part.rows for part in tokens) == sum(part.rows for part in scores) == len(IDS)
    assert sum(part.stats["tokens"] for part in tokens) == sum(map(len, IDS))
    assert all(part.stats["tokens"] <= 100 for part in tokens)
    assert sum(part.stats["text_bytes"] for part in tokens) == sum(len(text.encode()) for text in table()["text"].to_pylist())
    assert scores[0].stats == {"scheme": "rho1", "columns": {"excess": "float16"}, "about": {}}
    json.dumps([part.stats for part in parts])


def test_files_end_with_one_footer(tmp_path):
    """The end of the stream of record batches, the footer with its length, and the magic bytes, of the last file too."""
    for content in write([table()], tmp_path, tokens_per_shard=200).values():
        size = int.from_bytes(content[-10:-6], "little")
        assert content[-10 - size - 8 :][:8] == b"\xff\xff\xff\xff\0\0\0\0" and content[-6:] == b"ARROW1"
        assert content.count(b"ARROW1") == 2, "at the beginning and at the end"


def test_no_documents_no_parts(tmp_path):
    assert write([], tmp_path) == write([table().slice(0, 0)], tmp_path) == {}


def test_columns_kept(tmp_path):
    """`language` and `parent` when they are there, others by name, nothing else; a build without them has no such columns."""
    extra = table().append_column("bucket", pa.array([7] * len(IDS), pa.int8()))
    made = extra.append_column("parent", pa.array(["0" * 32] * len(IDS)))
    assert Shards(columns=("bucket",)).needs() == ("input_ids", "bucket")
    names = []
    for number, (source, columns) in enumerate(
        [(extra, ("bucket",)), (extra, ()), (extra.drop_columns(["language"]), ()), (made, ())]
    ):
        (tmp_path / str(number)).mkdir()
        write([source], tmp_path / str(number), columns=columns)
        with pa.ipc.open_file(str(tmp_path / str(number) / "tokens-00000.arrow")) as reader:
            names.append(reader.schema.names[8:])
            if columns:
                assert reader.read_all()["bucket"].to_pylist() == [7] * len(IDS)
    assert names == [["language", "bucket"], ["language"], [], ["language", "parent"]]


def _broken(change: str) -> pa.Table:
    whole = table()
    place = whole.schema.get_field_index("input_ids")
    field = whole.schema.field(place)
    if change == "lengths":
        return documents(IDS, scores={"excess": [[0.5] * (len(row) + 1) for row in IDS]})
    if change == "vocabulary":
        return documents([[1000]])
    if change == "null":
        return documents([[1, 2]], scores={"excess": [[1.0, 2.0]]}).set_column(
            9 + 1, "excess", pa.array([[None, 2.0]], pa.list_(pa.float16()))
        )
    if change == "metadata":
        return whole.set_column(place, field.remove_metadata(), whole.column(place))
    return whole.set_column(place, field.with_type(pa.list_(pa.int32())), whole.column(place).cast(pa.list_(pa.int32())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lengths", "scores-rho1: excess has other lengths than input_ids"),
        ("vocabulary", "id 1000 in a vocabulary of 1000"),
        ("null", "nulls in scores-rho1: excess"),
        ("metadata", r"input_ids lacks metadata \['tokenizer_sha256', 'vocab_size'\]"),
        ("type", r"input_ids is list<item: int32>"),
    ],
)
def test_mistakes_of_earlier_stages_are_caught(tmp_path, change, message):
    with pytest.raises(AssertionError, match=message):
        write([_broken(change)], tmp_path)


def test_assembled_build(tmp_path):
    """Files are numbered over all shards; the manifest is found true by reading the files it names."""
    shards = [[table().slice(0, 40)], [], [table().slice(40)]]
    assembly = publish(shards, tmp_path, sink=Shards(tokens_per_shard=100))
    folder = folder_of(assembly, tmp_path)
    manifest = manifest_of(assembly)
    assert manifest.build == assembly.id
    assert sorted(assembly.links) == sorted(file.name for file in mf.files(manifest))
    assert [shard.file for shard in manifest.shards] == [f"tokens-{n:05d}.arrow" for n in range(len(manifest.shards))]
    assert sorted({shard.input for shard in manifest.shards}) == ["shard-0", "shard-2"]
    seen = []
    for shard in manifest.shards:
        content = (folder / shard.file).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard.bytes, shard.sha256)
        rows = pa.ipc.open_file(content).read_all()["input_ids"].to_pylist()
        side = pa.ipc.open_file((folder / shard.sidecars["rho1"].file).read_bytes()).read_all()["excess"].to_pylist()
        assert [len(row) for row in rows] == [len(row) for row in side]
        assert (len(rows), sum(map(len, rows))) == (shard.documents, shard.tokens)
        seen += rows
    assert seen == IDS
    assert manifest.dtype == "uint16" and manifest.tokenizer is not None and manifest.tokenizer.vocab_size == 1000


def test_the_build_is_the_same_wherever_it_is_made(tmp_path):
    first, second = (publish([[table()]], tmp_path / name, sink=Shards(tokens_per_shard=100)) for name in ("a", "b"))
    assert (first.id, first.files, first.links) == (second.id, second.files, second.links)
    assert str(tmp_path) not in first.files["manifest.json"].decode()
    lineage = Lineage(name="other", inputs=(BuildInput("x", "/elsewhere/x", 1),), stages=())
    assert Shards().assemble([], lineage).id == Shards().assemble([], Lineage(name="", inputs=(), stages=())).id
    changed = publish([[documents([[2], *IDS[1:]], scores={"excess": [[1.0], *SCORES["excess"][1:]]})]], tmp_path / "c")
    assert changed.id != first.id


def test_per_token_columns_of_every_type(tmp_path):
    """Losses as float32, a policy's decisions as bits, two models: a sidecar each, with the types in the manifest."""
    losses = [[np.nan, *[place / 7 for place in range(len(row) - 1)]][: len(row)] for row in IDS]
    kept = [[False, *[(place * len(row)) % 3 == 0 for place in range(len(row) - 1)]][: len(row)] for row in IDS]
    docs = documents(
        IDS,
        scores={"ref_loss": losses, "keep": kept, "excess": SCORES["excess"]},
        schemes={"ref_loss": "small-30m", "keep": "rho1-top60"},
        types={"ref_loss": pa.float32(), "keep": pa.bool_()},
    )
    found = write([docs], tmp_path / "one", tokens_per_shard=100)
    assert found == write([docs.slice(0, 7), docs.slice(7)], tmp_path / "two", tokens_per_shard=100)
    assembly = publish([[docs]], tmp_path, sink=Shards(tokens_per_shard=10**6))
    (shard,) = manifest_of(assembly).shards
    columns = {name: side.columns for name, side in shard.sidecars.items()}
    assert columns == {"rho1": {"excess": "float16"}, "rho1-top60": {"keep": "bool"}, "small-30m": {"ref_loss": "float32"}}
    tables = {
        name: pa.ipc.open_file((folder_of(assembly, tmp_path) / side.file).read_bytes()) for name, side in shard.sidecars.items()
    }
    assert tables["rho1-top60"].read_all()["keep"].to_pylist() == kept
    assert tables["small-30m"].read_all()["ref_loss"].combine_chunks().values.to_numpy()[1] == 0
    bits = tables["rho1-top60"].get_batch(0).column("keep").values
    assert bits.buffers()[1].size == -(-sum(map(len, IDS)) // 8) and bits.buffers()[0] is None


def said(table: pa.Table, **about: object) -> pa.Table:
    """Return the documents with `about` in the fields of these columns."""
    for name, content in about.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        field = field.with_metadata({**(field.metadata or {}), b"about": json.dumps(content).encode()})
        table = table.set_column(at, field, table[name])
    return table


def test_what_is_said_of_columns_is_in_the_manifest_alone(tmp_path):
    """A threshold or the folder of a model: found in the manifest by sidecar and column; files and id are as without it."""
    about = {"excess": {"threshold": 0.25, "policy": {"keep": 0.6}}}
    halves = [[said(table(), **about).slice(0, 9)], [said(table(), **about).slice(9)]]
    plain = publish([[table().slice(0, 9)], [table().slice(9)]], tmp_path / "plain")
    told = publish(halves, tmp_path / "told")
    assert manifest_of(told).about == {"rho1": about} and manifest_of(plain).about == {}
    assert (told.id, told.links) == (plain.id, plain.links)
    one = pa.ipc.open_file((folder_of(told, tmp_path / "told") / "scores-rho1-00000.arrow").read_bytes())
    assert one.schema.field("excess").metadata == {b"scheme": b"rho1"}


def test_what_is_said_of_columns_of_the_shards_is_in_the_manifest_too(tmp_path):
    """Of those that are kept: a bucket's edges."""
    about = {"bucket": {"id": "0a", "edges": [0.5]}}
    buckets = table().append_column("bucket", pa.array([1] * table().num_rows, pa.uint8()))
    kept, left_out = Shards(columns=("bucket",)), Shards()
    plain, told, none = (
        publish([[docs]], tmp_path / name, sink=sink)
        for name, docs, sink in (
            ("plain", buckets, kept),
            ("told", said(buckets, **about), kept),
            ("none", said(buckets, **about), left_out),
        )
    )
    assert manifest_of(told).about == {"tokens": about} and manifest_of(plain).about == manifest_of(none).about == {}
    assert told.id == plain.id != none.id


def test_shards_that_say_different_things_are_refused(tmp_path):
    halves = [[said(table(), excess={"torch": version, "window": 9})] for version in ("2.12", "2.13")]
    with pytest.raises(
        InputError, match=r"'rho1' were not made in one way in all shards \(excess: torch \"2.12\" and \"2.13\"\)"
    ):
        publish(halves, tmp_path / "two")
    with pytest.raises(AssertionError, match="about of column 'excess' is list, expected an object"):
        publish([[said(table(), excess=[1])]], tmp_path / "list")


def test_copies_for_transport(tmp_path):
    """Each file has its copy, the manifest says how large; the files are the same as without, the id is another."""
    docs, size = [table().slice(0, 40)], Shards(tokens_per_shard=100)
    plain = publish([docs, [table().slice(40)]], tmp_path / "a", sink=size)
    copied = publish([docs, [table().slice(40)]], tmp_path / "b", sink=Shards(tokens_per_shard=100, zst_copies=True))
    one, two = manifest_of(plain), manifest_of(copied)
    assert [(f.name, f.sha256) for f in mf.files(one)] == [(f.name, f.sha256) for f in mf.files(two)]
    assert (one.order, one.build != two.build) == (two.order, True)
    assert sorted(copied.links) == sorted(name for file in mf.files(two) for name in (file.name, f"{file.name}.zst"))
    for file in mf.files(two):
        copy = folder_of(copied, tmp_path / "b") / f"{file.name}.zst"
        assert copy.stat().st_size == file.zst
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        assert hashlib.sha256(unpacker.decompress(copy.read_bytes())).hexdigest() == file.sha256
        assert unpacker.eof and not unpacker.unused_data, "one frame"
    assert {file.zst for file in mf.files(one)} == {None}


def test_the_tokenizer_lies_beside_the_tokens(tmp_path):
    content = b'{"model": "\xc3\xa9"}\r\n'
    sha256 = hashlib.sha256(content).hexdigest()
    docs = documents(IDS, tokenizer=sha256)
    other, ours = Attachment("tokenizer.json", b"of another stage"), Attachment("tokenizer.tiktoken", content)
    assembly = publish([[docs]], tmp_path, attachments=[other, ours])
    manifest = manifest_of(assembly)
    assert manifest.tokenizer is not None and (manifest.tokenizer.file, manifest.tokenizer.sha256) == (
        "tokenizer.tiktoken",
        sha256,
    )
    assert (folder_of(assembly, tmp_path) / "tokenizer.tiktoken").read_bytes() == content
    assert list(assembly.files) == ["tokenizer.tiktoken", "manifest.json"], "the manifest comes last"
    assert assembly.id == publish([[docs]], tmp_path / "bare").id
    with pytest.raises(
        InputError, match=rf"made by a tokenizer with sha256 {sha256}, found tokenizer.json with [0-9a-f]{{64}}; "
    ):
        publish([[docs]], tmp_path / "changed", attachments=[other])
    assert list(Shards().assemble([], Lineage(name="", inputs=(), stages=()), [other]).files) == ["manifest.json"]


def test_special_tokens_that_a_build_leaves_out_are_in_the_manifest(tmp_path):
    docs = documents(IDS)
    field = docs.schema.field("input_ids")
    told = field.with_metadata({**field.metadata, b"left_out": b'["<s>", "</s>"]'})
    place = docs.schema.get_field_index("input_ids")
    assembly = publish([[docs.set_column(place, told, docs["input_ids"])]], tmp_path / "told")
    assert json.loads(assembly.files["manifest.json"])["tokenizer"]["left_out"] == ["<s>", "</s>"]
    tokenizer = manifest_of(assembly).tokenizer
    assert tokenizer is not None and tokenizer.left_out == ("<s>", "</s>")
    plain = publish([[docs]], tmp_path / "plain")
    assert "left_out" not in json.loads(plain.files["manifest.json"])["tokenizer"] and plain.id == assembly.id


def test_an_empty_build_has_a_manifest():
    assembly = Shards().assemble([], Lineage(name="demo", inputs=(), stages=()))
    manifest = manifest_of(assembly)
    assert (manifest.shards, manifest.tokenizer, manifest.tokens, manifest.name) == ((), None, 0, "demo")


def test_memory_is_bounded_by_the_record_batch(tmp_path):
    """40 MB of tokens in record batches of 1 MB: what Arrow holds at a time stays near one record batch."""
    rows = documents([list(range(1000))] * 500)
    peak = 0

    def stream():
        nonlocal peak
        for _ in range(40):
            peak = max(peak, pa.total_allocated_bytes() - before)
            yield pa.concat_tables([rows]).take(np.arange(500))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gristmill.format.schema.BATCH_TOKENS", 500_000)
        before = pa.total_allocated_bytes()
        parts = Shards().open()(stream(), tmp_path)
    assert sum(part.stats["tokens"] for part in parts) == 20_000_000
    assert peak < 8 << 20


def test_parameters():
    with pytest.raises(ValueError, match="tokens_per_shard is 0; it must be at least 1"):
        Shards(tokens_per_shard=0)


# ---- repeats ----


def test_counts_are_a_sidecar_in_the_id_and_the_order(tmp_path):
    """One row a document, in files as those of the tokens; the tokens' own bytes stay; without the column nothing changes."""
    counts = [1 + row % 3 + 200 * (row == 7) for row in range(len(IDS))]
    with_counts = documents(IDS, scores=SCORES, schemes={"excess": "rho1"}, repeats=counts)
    plain = publish([[table()]], tmp_path / "plain", sink=Shards(tokens_per_shard=100))
    repeated = publish([[with_counts]], tmp_path / "repeated", sink=Shards(tokens_per_shard=100, zst_copies=True))
    before, manifest = manifest_of(plain), manifest_of(repeated)
    assert [shard.sha256 for shard in manifest.shards] == [shard.sha256 for shard in before.shards]
    assert (manifest.build, manifest.order) != (before.build, before.order)
    lines = [f"tokens {shard.sha256}\nrepeats {shard.repeats.sha256}\n" for shard in manifest.shards]
    copies = [f"tokens {s.sha256}\nzst {s.zst}\nrepeats {s.repeats.sha256}\nzst {s.repeats.zst}\n" for s in manifest.shards]
    assert manifest.order != hashlib.sha256(("gristmill 1\n" + "".join(copies)).encode()).hexdigest()[:32]
    assert manifest.order == hashlib.sha256(("gristmill 1\n" + "".join(lines)).encode()).hexdigest()[:32]
    assert b'"repeats"' not in plain.files["manifest.json"]
    folder, found = folder_of(repeated, tmp_path / "repeated"), []
    for shard in manifest.shards:
        counted = pa.ipc.open_file(folder / shard.repeats.file).read_all()
        assert counted.schema.metadata == {b"gristmill.version": b"1", b"gristmill.kind": b"repeats"}
        assert (folder / f"{shard.repeats.file}.zst").stat().st_size == shard.repeats.zst
        tokens = pa.ipc.open_file(folder / shard.file).read_all()
        assert counted["tokens"].to_pylist() == [len(ids) for ids in tokens["input_ids"].to_pylist()]
        rows = list(zip(*counted.to_pydict().values(), strict=True))
        expected = [
            (sum(count >= k for count, _ in rows), sum(size for count, size in rows if count >= k)) for k in range(1, 204)
        ]
        assert list(shard.repeats.passes) == [pair for pair in expected if pair[0]]
        found += counted["repeats"].to_pylist()
    assert found == counts


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            pa.array([0] * len(IDS), pa.int64()),
            "'repeats' of document [0-9a-f]{32} is 0; allowed are whole numbers from 1 to 255",
        ),
        (pa.array([1] * 9 + [256] * (len(IDS) - 9), pa.int32()), "is 256; allowed"),
        (pa.array([None] * len(IDS), pa.uint8()), "is null; allowed"),
        (pa.array([1.5] * len(IDS)), "the column 'repeats' is double; it must be whole numbers, 1 to 255"),
    ],
)
def test_counts_that_no_epoch_can_have(tmp_path, column, message):
    with pytest.raises(InputError, match=message):
        write([table().append_column("repeats", column)], tmp_path / "here")


def test_counts_of_any_whole_type_are_the_same_bytes(tmp_path):
    counts = [1 + row % 5 for row in range(len(IDS))]
    narrow = write([table().append_column("repeats", pa.array(counts, pa.uint8()))], tmp_path / "narrow")
    wide = write([table().append_column("repeats", pa.array(counts, pa.int64()))], tmp_path / "wide", tokens_per_shard=50_000_000)
    assert narrow == wide and "repeats-00000.arrow" in narrow
