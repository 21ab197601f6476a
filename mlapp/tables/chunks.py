"""Chunks of a table: some rows, with the faults of those that could not be read."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from mlapp.errors import Fault, InvalidTable
from mlapp.tables.formats import TableFormat

MOST_COLUMNS = 16_384  # the limit of Excel
MOST_CELLS = 1 << 21  # in a chunk, so that a few bytes cannot expand to many empty cells


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table, in order.

    Attributes:
        batch: the rows; one that could not be read has the cells that were found, and nulls.
        faults: why a row could not be read, by its place in the batch.
        lines: the text of each row in the file, up to where more cells can be appended, if known.
        line_format: the format of the lines.
    """

    batch: pa.RecordBatch
    faults: dict[int, Fault] = field(default_factory=dict)
    lines: pa.Array | None = None
    line_format: TableFormat | None = None

    def slice(self, start: int, count: int) -> "Chunk":
        """Return at most `count` rows from `start` on."""
        lines = None if self.lines is None else self.lines.slice(start, count)
        first = bisect_left(self._faulty, start)
        places = self._faulty[first : bisect_left(self._faulty, start + count, first)]
        faults = {place - start: self.faults[place] for place in places}
        return Chunk(self.batch.slice(start, count), faults, lines, self.line_format)

    @cached_property
    def _faulty(self) -> list[int]:
        """The places of the faults in order, since slices together must not take quadratic time."""
        return sorted(self.faults)


def check_columns(name: str, schema: pa.Schema) -> pa.Schema:
    """Check the names of columns, and return the schema.

    Only the first column may have no name: it then holds the names or numbers of the rows.

    Raises:
        InvalidTable: there are no columns or too many, or names are missing or repeated.
    """
    names = schema.names
    if not names:
        raise InvalidTable(f"{name} has no columns")
    check_count(name, len(names))
    empty = [place for place, each in enumerate(names, 1) if not each.strip()]
    if empty not in ([], [1]) or len(names) == len(empty):
        places = ", ".join(map(str, empty[:10]))
        raise InvalidTable(f"{name}: got no name for column {places}, expected one for each")
    if twice := sorted(each for each, count in Counter(names).items() if count > 1):
        listed = ", ".join(map(repr, twice[:10]))
        raise InvalidTable(f"{name}: got several columns named {listed}, expected one of each name")
    return schema


def check_count(name: str, columns: int) -> None:
    """Check the number of columns.

    Raises:
        InvalidTable: there are more than `MOST_COLUMNS`.
    """
    if columns > MOST_COLUMNS:
        raise InvalidTable(f"{name}: got {columns:,} columns, expected at most {MOST_COLUMNS:,}")
