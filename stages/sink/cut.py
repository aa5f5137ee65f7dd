"""Where files and record batches end, decided row by row, so that the split of the incoming tables leaves no trace.

A pure function on tables; reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def cut(
    tables: Iterable[pa.Table], weigh: Callable[[pa.Table], npt.NDArray[np.int64]], *, file: int, batch: int, rows: int
) -> Iterator[tuple[int, pa.Table]]:
    """Yield (number of the file, rows of one record batch), in order.

    A file ends before the row that would take its weight above `file`; a record batch ends there too, and before the row
    that would take its weight above `batch` or its rows above `rows`. A single heavier row is alone in its file or batch.

    Args:
        tables: tables of one schema, of any sizes.
        weigh: gives the weight of each row (tokens, bytes), not negative.
        file: largest weight of a file.
        batch: largest weight of a record batch.
        rows: largest number of rows of a record batch.
    """
    number = 0
    file_weight = file_rows = 0
    held: list[pa.Table] = []
    held_weight = held_rows = 0
    for table in tables:
        ends = np.concatenate([[0], np.cumsum(weigh(table), dtype=np.int64)])
        start = 0
        while start < table.num_rows:
            weight = int(ends[start + 1] - ends[start])
            file_full = file_rows > 0 and file_weight + weight > file
            if held and (file_full or held_weight + weight > batch or held_rows == rows):
                yield number, pa.concat_tables(held)
                held, held_weight, held_rows = [], 0, 0
            if file_full:
                number, file_weight, file_rows = number + 1, 0, 0
            room = int(ends[start]) + min(file - file_weight, batch - held_weight)
            fitting = int(np.searchsorted(ends, room, side="right")) - 1
            stop = max(start + 1, min(fitting, start + rows - held_rows))
            taken = int(ends[stop] - ends[start])
            held.append(table.slice(start, stop - start))
            held_weight, held_rows = held_weight + taken, held_rows + stop - start
            file_weight, file_rows = file_weight + taken, file_rows + stop - start
            start = stop
    if held:
        yield number, pa.concat_tables(held)
