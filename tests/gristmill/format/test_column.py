"""A per-token column on a memory map: addresses, rows, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill.errors import FormatError
from gristmill.format.column import TokenColumn, open_column, read_row
from stages.sink.shards import Shards
from tests.gristmill.builds import documents, folder_of, publish
from tests.random_examples import examples

IDS = [[2, 3, 4], [5], [], [7, 8], [9, 1, 10, 1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("column")
    scores = {"excess": [[np.nan, *[0.5] * (len(row) - 1)][: len(row)] for row in IDS]}
    exact = {"exact": [[place % 2 == 1 for place, _ in enumerate(row)] for row in IDS]}
    table = documents(IDS, scores=scores | exact, types={"exact": pa.bool_()})
    return folder_of(publish([[table]], output, sink=Shards(), batch_tokens=4), output)


def values_of(column: TokenColumn) -> list[float]:
    """Read the memory that the extents name."""
    found = []
    for extent in column.extents:
        for place in range(extent.address, extent.address + extent.count):
            if column.dtype == np.bool_:
                found.append(bool(memory(place // 8, np.dtype(np.uint8)) >> place % 8 & 1))
            else:
                found.append(memory(place * column.dtype.itemsize, column.dtype).item())
    return found


def memory(address: int, dtype: np.dtype) -> np.generic:
    holder = type(
        "Holder", (), {"__array_interface__": {"version": 3, "data": (address, True), "shape": (1,), "typestr": dtype.str}}
    )
    return np.asarray(holder())[0]


def test_extents_are_the_values(folder):
    flat = [(row, place, token) for row, document in enumerate(IDS) for place, token in enumerate(document)]
    column = open_column(folder / "tokens-00000.arrow", "tokens", "input_ids")
    assert (column.tokens, column.documents, len(column.extents)) == (len(flat), len(IDS), 3)
    assert values_of(column) == [token for _, _, token in flat]
    assert [column.locate(number) for number in range(len(flat))] == [(row, place) for row, place, _ in flat]
    assert column.lengths().tolist() == [len(document) for document in IDS]
    assert [extent.begin for extent in column.extents] == [0, 4, 6]
    exact = open_column(folder / "scores-rho1-00000.arrow", "scores", "exact")
    assert exact.dtype == np.bool_ and values_of(exact) == [place % 2 == 1 for _, place, _ in flat]
    excess = open_column(folder / "scores-rho1-00000.arrow", "scores", "excess")
    assert excess.dtype == np.float16 and np.isnan(values_of(excess)[0])


def test_read_row(folder):
    path = folder / "tokens-00000.arrow"
    assert [read_row(path, row)["input_ids"] for row in range(len(IDS))] == IDS
    assert read_row(path, 3, ["file", "offset"]) == {"file": "crawl-0.warc.gz", "offset": 3}
    for row in (5, -1):
        with pytest.raises(IndexError, match=f"no row {row}; it has 5 rows"):
            read_row(path, row)


def test_unreadable_files_are_told_apart(folder, tmp_path: Path):
    tokens, scores = folder / "tokens-00000.arrow", folder / "scores-rho1-00000.arrow"
    with pytest.raises(FormatError, match=r"kind are \('1', 'scores'\); this reader knows \('1', 'tokens'\)"):
        open_column(scores, "tokens", "input_ids")
    with pytest.raises(FormatError, match=r"no column 'loss'; it has doc_id, "):
        open_column(scores, "scores", "loss")
    with pytest.raises(FormatError, match=r"gone\.arrow: missing; copy all files of the build"):
        open_column(tmp_path / "gone.arrow", "tokens", "input_ids")
    for content in (b"", b"not arrow", tokens.read_bytes()[:-40]):
        broken = tmp_path / "broken.arrow"
        broken.write_bytes(content)
        with pytest.raises(FormatError, match="not a readable Arrow IPC file"):
            open_column(broken, "tokens", "input_ids")
    foreign = tmp_path / "foreign.arrow"
    with pa.ipc.new_file(str(foreign), pa.schema([("input_ids", pa.list_(pa.uint16()))])):
        pass
    with pytest.raises(FormatError, match=r"kind are \(None, None\)"):
        open_column(foreign, "tokens", "input_ids")


def test_more_files_than_may_be_open(folder):
    """Maps hold no file descriptors: their number is not bounded by what a process may have open."""
    path = str(folder / "tokens-00000.arrow")
    before, mapped = len(list(Path("/proc/self/fd").iterdir())), Path("/proc/self/maps").read_text().count(path)
    columns = [open_column(folder / "tokens-00000.arrow", "tokens", "input_ids") for _ in range(50)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert Path("/proc/self/maps").read_text().count(path) == mapped + 50
    del columns
    assert Path("/proc/self/maps").read_text().count(path) == mapped, "unmapped when nobody refers to them"


@pytest.mark.parametrize("by", [1 << 28, -(1 << 28), -1])
def test_offsets_that_lead_out_of_the_file(folder, tmp_path, by):
    """All borders of a record batch moved by as much: every length is right, and every address wrong."""
    content = np.fromfile(folder / "tokens-00000.arrow", dtype=np.uint8)
    with pa.ipc.open_file(pa.py_buffer(content)) as reader:
        array = reader.get_batch(0).column("input_ids")
    begin = array.buffers()[1].address - content.ctypes.data
    content[begin : begin + 4 * len(array) + 4].view(np.int32)[:] += by
    path = tmp_path / "moved.arrow"
    content.tofile(path)
    with pytest.raises(FormatError, match=r"moved.arrow: input_ids cannot be read \(.*\); the file is damaged, copy it again"):
        open_column(path, "tokens", "input_ids")


@given(kind=st.sampled_from(["tokens", "scores-rho1"]), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), min_size=1))
@example(kind="tokens", flips=[(0.94921875, 6)])  # the name of a column is not UTF-8
@examples(200)
def test_no_damage_leads_out_of_the_file(folder, tmp_path_factory, kind, flips):
    """Whatever bits are wrong: one kind of error, or a column whose addresses are all inside the map."""
    content = bytearray((folder / f"{kind}-00000.arrow").read_bytes())
    for place, bit in flips:
        content[min(int(place * len(content)), len(content) - 1)] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped.arrow"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    column = "input_ids" if kind == "tokens" else "exact"
    try:
        found = open_column(path, kind.partition("-")[0], column)
    except FormatError:
        return
    low, high = found._mapped.address, found._mapped.address + found._mapped.size
    for extent in found.extents:
        begin, end = extent.address, extent.address + extent.count
        width = 1 / 8 if found.dtype == np.bool_ else found.dtype.itemsize
        assert not extent.count or (low <= begin * width and end * width <= high)
        assert (np.diff(extent.offsets) >= 0).all() and extent.offsets[-1] == extent.count
    assert (found.lengths() >= 0).all()


def test_columns_that_hold_no_values(folder, tmp_path):
    """A column that is there, and of another type."""
    with pa.ipc.open_file(str(folder / "tokens-00000.arrow")) as reader:
        table = reader.read_all()
    path = tmp_path / "texts.arrow"
    texts = table.set_column(table.schema.get_field_index("input_ids"), "input_ids", pa.array(["x"] * len(table)))
    with pa.ipc.new_file(path, texts.schema) as writer:
        writer.write_table(texts)
    with pytest.raises(FormatError, match="column 'input_ids' is of type string, not a list of numbers or bools a document"):
        open_column(path, "tokens", "input_ids")
