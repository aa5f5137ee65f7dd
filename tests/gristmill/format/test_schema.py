"""The shard format: equal values give equal bytes, and the files have the metadata and buffers that the page tells of."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.format import schema as fmt
from stages.sink.shards import Shards
from tests.gristmill.builds import EOS, TOKENIZER, documents
from tests.random_examples import examples

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
@examples(40)
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


def test_bytes_of_the_file_are_as_documented(tmp_path):
    """Uncompressed, no validity bitmap where nothing is null, the values of a batch contiguous, the metadata there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fmt, "BATCH_TOKENS", 4)
        Shards().open()(iter([documents([[2, 3, 1], [], [4, 5, 6, 7, 8, 1], [9, 1], [10, 1]])]), tmp_path)
    tokens = tmp_path / "tokens-00000.arrow"
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
