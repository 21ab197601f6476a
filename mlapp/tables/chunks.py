"""Some rows of a table, with what is wrong with them."""

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from mlapp.errors import Fault, InvalidTable
from mlapp.tables.formats import TableFormat

MOST_COLUMNS = 16_384  # as in a spreadsheet
MOST_CELLS = 1 << 21  # in a chunk, so that few bytes cannot stand for many empty cells


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table, in order.

    Attributes:
        batch: the rows; one that could not be read has the cells that it has, else nulls.
        faults: why a row could not be read, by its place in the batch.
        lines: each row as it is in the file, up to where more can be added, if that can be had.
        line_format: what the lines are.
    """

    batch: pa.RecordBatch
    faults: dict[int, Fault] = field(default_factory=dict)
    lines: pa.Array | None = None
    line_format: TableFormat | None = None

    def slice(self, start: int, count: int) -> "Chunk":
        """Return `count` rows from `start` on, or as many as there are."""
        lines = None if self.lines is None else self.lines.slice(start, count)
        span = range(start, start + count)
        faults = {place - start: fault for place, fault in self.faults.items() if place in span}
        return Chunk(self.batch.slice(start, count), faults, lines, self.line_format)


def check_columns(name: str, schema: pa.Schema) -> pa.Schema:
    """Return a schema whose columns can be told apart.

    Only the first column may have no name: it then holds the names or numbers of the rows.

    Raises:
        InvalidTable: there are no columns, or too many, some have no name, or two the same.
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
