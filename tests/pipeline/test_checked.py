"""Files with hashes of their ranges: each changed byte is noticed by who reads its range, and by nobody else."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import Damaged
from gristmill.storage.store import Store, open_store
from pipeline.checked import Writer, commit, fault, reading
from pipeline.records import Data

TABLE = pa.table({"n": pa.array(range(12), pa.int64()), "text": [f"text {n}" * (n % 4) for n in range(12)]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "out"))


def put(store: Store, place: Path, table: pa.Table = TABLE, compression: str | None = None) -> Data:
    """Commit four record batches, one of them without rows."""
    (whole,) = table.combine_chunks().to_batches()
    with Writer(place / "x.arrow", table.schema, compression) as writer:
        for start, size in ((0, 5), (5, 0), (5, 3), (8, 4)):
            writer.write(whole.slice(start, size))
    return commit(store, place / "x.arrow", writer.rows, tuple(writer.ends))


def change(store: Store, data: Data, content: bytes) -> None:
    """Put other bytes in the place of a committed file."""
    store.remove(data.data)
    store.put_new(data.data, content)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_what_was_committed_is_read(store: Store, tmp_path: Path, compression: str | None, mapped: bool) -> None:
    data = put(store, tmp_path, compression=compression)
    assert (data.rows, len(data.ends), len(data.hashes), data.ends[-1]) == (12, 5, 5, data.bytes)
    with reading(store, data, "unit", mapped=mapped) as file:
        assert file.num_record_batches == 4 and file.schema == TABLE.schema
        assert file.get_batch(2).equals(TABLE.slice(5, 3).combine_chunks().to_batches()[0])
        whole = file.read_all()
    assert whole.equals(TABLE), "also after the file was closed"


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_each_byte_is_noticed_by_who_reads_its_range(store: Store, tmp_path: Path, compression: str | None, mapped: bool) -> None:
    data = put(store, tmp_path, compression=compression)
    right = store.read(data.data)
    for at in range(0, data.bytes, 7):
        change(store, data, right[:at] + bytes([right[at] ^ 16]) + right[at + 1 :])
        hit = next(number for number, end in enumerate(data.ends) if at < end)
        noticed = set()
        for number in range(4):
            try:
                with reading(store, data, "unit", mapped=mapped) as file:
                    assert file.get_batch(number).num_rows == (5, 0, 3, 4)[number]
            except Damaged as error:
                assert data.data in error.what and error.record == "unit"
                noticed.add(number)
        assert noticed == ({hit} if hit < 4 else {0, 1, 2, 3}), f"byte {at} of range {hit}: noticed by readers of {noticed}"


def test_a_file_that_is_cut_or_grew_or_went_is_noticed(store: Store, tmp_path: Path) -> None:
    data = put(store, tmp_path)
    right = store.read(data.data)
    for content in (b"", right[:100], right[:-1], right + b"\0"):
        change(store, data, content)
        with (
            pytest.raises(Damaged, match=f"it has {len(content)} bytes, {data.bytes} were written"),
            reading(store, data, "unit"),
        ):
            pass
        assert fault(store, data.data, data.bytes, None) == f"has {len(content)} bytes, {data.bytes} were written"
    store.remove(data.data)
    with pytest.raises(Damaged, match="is missing"), reading(store, data, "unit"):
        pass
    assert fault(store, data.data, data.bytes, None) == "is missing"


def test_dictionaries_are_read_with_whatever_batch_needs_them(store: Store, tmp_path: Path) -> None:
    coded = TABLE.set_column(1, "text", TABLE["text"].combine_chunks().dictionary_encode())
    data = put(store, tmp_path, coded)
    right = store.read(data.data)
    at = right.index(b"text 1")
    assert at < data.ends[0]
    change(store, data, right.replace(b"text 1", b"next 1", 1))
    with pytest.raises(Damaged, match=f"bytes 0 to {data.ends[0]} are not"), reading(store, data, "unit") as file:
        file.get_batch(3)


def test_to_commit_again_puts_a_damaged_file_back(store: Store, tmp_path: Path) -> None:
    data = put(store, tmp_path)
    right = store.read(data.data)
    for content in (right[:-2], right[:50] + b"?" + right[51:], b""):
        change(store, data, content)
        assert commit(store, tmp_path / "x.arrow", 12, data.ends) == data
        assert store.read(data.data) == right
        assert fault(store, data.data, data.bytes, data.sha256) is None
