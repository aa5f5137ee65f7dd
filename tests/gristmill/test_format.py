"""The shard format: equal values give equal bytes, and what others' readers see."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill import format as fmt
from gristmill.errors import FormatError
from stages.sink.shards import Shards
from tests.gristmill.builds import EOS, TOKENIZER, documents

KINDS = {
    "uint16": (pa.uint16(), st.integers(0, 2**16 - 1)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "float32": (pa.float32(), st.floats(width=32, allow_nan=False)),
    "bool": (pa.bool_(), st.booleans()),
    "time": (pa.timestamp("s", tz="UTC"), st.integers(0, 2**33)),
    "string": (pa.string(), st.text(max_size=5)),
    "large_string": (pa.large_string(), st.text(max_size=5)),
    "binary": (pa.binary(), st.binary(max_size=5)),
    "list": (pa.list_(pa.int32()), st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=4)),
    "large_list": (pa.large_list(pa.string()), st.lists(st.text(max_size=2), max_size=3)),
    "struct": (
        pa.struct([("a", pa.int8()), ("b", pa.string())]),
        st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.one_of(st.none(), st.text(max_size=3))}),
    ),
}


def serialized(array: pa.Array) -> bytes:
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_arrays([array], ["x"])
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_exact_keeps_values_and_forgets_history(name, data):
    kind, values = KINDS[name]
    rows = data.draw(st.lists(st.one_of(st.none(), values), max_size=12))
    noise = data.draw(st.lists(values, max_size=9))
    plain = pa.array(rows, kind)
    # The same rows as a slice out of the middle, joined from pieces, and masked over other values.
    sliced = pa.array([*noise, *rows, *noise[::-1]], kind).slice(len(noise), len(rows))
    cut = data.draw(st.integers(0, len(rows)))
    joined = pa.concat_arrays([sliced.slice(0, cut), plain.slice(cut)])
    filler = noise[0] if noise else data.draw(values)
    filled = pa.array([filler if row is None else row for row in rows], kind)
    masked = pa.array(filled).filter(pa.array([True] * len(rows), pa.bool_()))
    masked = pc.if_else(pa.array([row is not None for row in rows], pa.bool_()), masked, pa.nulls(len(rows), kind))
    results = [fmt.exact(array, kind) for array in (plain, sliced, joined, masked)]
    for array in results:
        array.validate(full=True)
        assert array.equals(plain)
    assert len({serialized(array) for array in results}) == 1


def test_exact_zeroes_what_lies_under_nulls():
    values, bitmap = pa.py_buffer(np.array([7, 8, 9], np.int64)), pa.py_buffer(b"\xfd")  # stray bits after the third
    array = pa.Array.from_buffers(pa.int64(), 3, [bitmap, values])
    assert serialized(fmt.exact(array, pa.int64())) == serialized(fmt.exact(pa.array([7, None, 9]), pa.int64()))
    assert serialized(array) != serialized(pa.array([7, None, 9])), "or this test shows nothing"


def test_exact_decodes_dictionaries_and_refuses_maps():
    assert fmt.exact(pa.array(["a", None, "a"]).dictionary_encode(), pa.string()).equals(pa.array(["a", None, "a"]))
    kind = pa.map_(pa.string(), pa.int8())
    with pytest.raises(ValueError, match=r"map<string, int8> cannot be stored; allowed are numbers"):
        fmt.exact(pa.array([[("a", 1)]], kind), kind)


@pytest.fixture
def shard(tmp_path):
    """Three record batches (of 4 tokens at most, but one document is longer), a null url, an empty document."""
    ids = [[2, 3, 1], [], [4, 5, 6, 7, 8, 1], [9, 1], [10, 1]]
    scores = {"excess": [[float("nan"), *np.arange(len(row) - 1) / 4][: len(row)] for row in ids]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fmt, "BATCH_TOKENS", 4)
        parts = Shards().open()(iter([documents(ids, scores=scores, schemes={"excess": "rho1"})]), tmp_path)
    return ids, [part.path for part in parts]


def test_others_read_the_shard(shard):
    """pyarrow.dataset, and pyarrow.ipc with nothing of ours."""
    ids, (tokens, scores) = shard
    table = ds.dataset(str(tokens), format="ipc").to_table()
    assert table["input_ids"].to_pylist() == ids
    assert table["url"].to_pylist() == ["http://host/0", "http://host/1", None, "http://host/3", "http://host/4"]
    assert table["text_bytes"].to_pylist() == [0, 2, 4, 6, 8]
    filtered = ds.dataset(str(tokens), format="ipc").to_table(filter=ds.field("text_bytes") > 5, columns=["doc_id", "language"])
    assert filtered.num_rows == 2 and filtered["language"].to_pylist() == ["en", "en"]
    with pa.ipc.open_file(str(scores)) as reader:
        side = reader.read_all()
    assert side["doc_id"].to_pylist() == table["doc_id"].to_pylist()
    assert [len(row) for row in side["excess"].to_pylist()] == [len(row) for row in ids]


def test_bytes_of_the_file_are_as_documented(shard):
    """Uncompressed, no validity bitmap where nothing is null, the values of a batch contiguous, the metadata there."""
    tokens = shard[1][0]
    with pa.memory_map(str(tokens)) as mapped:
        reader = pa.ipc.open_file(mapped)
        assert [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)] == [2, 1, 2]
        before = pa.total_allocated_bytes()
        batches = [reader.get_batch(i) for i in range(3)]
        assert pa.total_allocated_bytes() == before and len(batches) == 3, "reading allocates no values"
        column = reader.get_batch(2).column("input_ids")
        assert column.buffers()[0] is None and column.values.to_pylist() == [9, 1, 10, 1]
        assert reader.get_batch(0).column("url").null_count == 0 and reader.get_batch(0).column("url").buffers()[0] is None
        assert reader.get_batch(1).column("url").null_count == 1
        metadata = reader.schema.metadata
    assert metadata == {
        b"gristmill.version": b"1",
        b"gristmill.kind": b"tokens",
        b"gristmill.tokenizer_sha256": TOKENIZER.encode(),
        b"gristmill.vocab_size": b"1000",
        b"gristmill.eos_id": str(EOS).encode(),
    }
    assert not reader.schema.field("input_ids").nullable and not reader.schema.field("input_ids").type.value_field.nullable


def test_token_column_addresses(shard):
    ids, (tokens, scores) = shard
    flat = [(row, place, token) for row, document in enumerate(ids) for place, token in enumerate(document)]
    column = fmt.open_column(tokens, "tokens", "input_ids")
    assert (column.tokens, column.documents) == (len(flat), len(ids))
    for begin, (row, place, _) in enumerate(flat):
        assert column.locate(begin) == (row, place)
        out, starts = column.window(begin, 5), column.starts(begin, 5)
        assert 1 <= len(out) == len(starts) <= 5
        assert out.tolist() == [token for _, _, token in flat[begin : begin + len(out)]]
        assert starts.tolist() == [place == 0 for _, place, _ in flat[begin : begin + len(out)]]
    excess = fmt.open_column(scores, "scores", "excess")
    assert np.isnan(excess.values[0][0]) and excess.values[0].dtype == np.float16


def test_reading_copies_nothing(shard):
    """The values are views of the memory map: they own no data and stay good when the reader is gone."""
    column = fmt.open_column(shard[1][0], "tokens", "input_ids")
    assert not any(values.flags.owndata or values.flags.writeable for values in column.values)


def test_read_row(shard):
    ids, (tokens, _) = shard
    rows = [fmt.read_row(tokens, row) for row in range(len(ids))]
    assert [row["input_ids"] for row in rows] == ids
    assert fmt.read_row(tokens, 3, ["file", "offset"]) == {"file": "crawl-0.warc.gz", "offset": 3}
    for row in (5, -1):
        with pytest.raises(IndexError, match=f"no row {row}; it has 5 rows"):
            fmt.read_row(tokens, row)


def test_unreadable_files_are_told_apart(shard, tmp_path: Path):
    tokens, scores = shard[1]
    with pytest.raises(FormatError, match=r"kind are \('1', 'scores'\); this reader knows \('1', 'tokens'\)"):
        fmt.open_column(scores, "tokens", "input_ids")
    with pytest.raises(FormatError, match=r"no column 'loss'; it has doc_id, excess"):
        fmt.open_column(scores, "scores", "loss")
    for content in (b"", b"not arrow", tokens.read_bytes()[:-40]):
        broken = tmp_path / "broken.arrow"
        broken.write_bytes(content)
        with pytest.raises(FormatError, match="not a readable Arrow IPC file"):
            fmt.open_column(broken, "tokens", "input_ids")
    foreign = tmp_path / "foreign.arrow"
    with pa.ipc.new_file(str(foreign), pa.schema([("input_ids", pa.list_(pa.uint16()))])):
        pass
    with pytest.raises(FormatError, match=r"kind are \(None, None\)"):
        fmt.open_column(foreign, "tokens", "input_ids")


def test_the_code_of_the_format_page_runs(shard, monkeypatch):
    """And what the page says of the id of a document and of the build holds for files read without our reader."""
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    ids, (tokens, _) = shard
    monkeypatch.chdir(tokens.parent)
    names: dict[str, Any] = {}
    exec(code[0], names)
    assert names["table"]["input_ids"].to_pylist() == ids
    assert names["stream"].tolist() == ids[0]
    assert names["table"]["doc_id"][3].as_py() == hashlib.blake2b(b"crawl-0.warc.gz\n3", digest_size=16).hexdigest()
