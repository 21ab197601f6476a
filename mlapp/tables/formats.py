"""The formats of tables: names, file suffixes and media types, and the options to read one."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from mlapp.errors import InvalidTable

TableFormat: TypeAlias = Literal["csv", "tsv", "jsonl", "parquet", "xlsx"]
WRITABLE: tuple[TableFormat, ...] = ("csv", "tsv", "jsonl", "parquet")
READABLE: tuple[TableFormat, ...] = get_args(TableFormat)
TEXT_FORMATS: tuple[TableFormat, ...] = ("csv", "tsv", "jsonl")

SUFFIXES: dict[str, TableFormat] = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "xlsx",
}
COMPRESSED = (".gz", ".zip")
MEDIA_TYPES: dict[str, TableFormat] = {
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/x-jsonlines": "jsonl",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
READ = ".csv, .tsv or .jsonl, each also followed by .gz or .zip, .parquet or .xlsx"
WRITTEN = ".csv, .tsv or .jsonl, each also followed by .gz, or .parquet"
DECIMALS = (".", ",")


@dataclass(frozen=True)
class FileFormat:
    """The format of a table's file, and the options to read it.

    Attributes:
        format: CSV, TSV, JSON lines, Parquet or Excel.
        compressed: whether it is gzipped (or zipped, for reading only).
        encoding: of a text file; by default that of its byte-order mark, or UTF-8.
        decimal: the decimal mark of CSV and TSV, "." or ","; by default it is detected. In other
            formats numbers always have a point.
        sheet: of an Excel workbook, its name or its number from 1; by default the first.
    """

    format: TableFormat
    compressed: bool = False
    encoding: str | None = None
    decimal: str | None = None
    sheet: str | None = None

    def reading(
        self, encoding: str | None = None, decimal: str | None = None, sheet: str | None = None
    ) -> "FileFormat":
        """Return this format with options to read it.

        Raises:
            InvalidTable: the decimal mark is not allowed, or a sheet of another format is named.
        """
        if decimal not in (None, *DECIMALS):
            raise InvalidTable(f"decimal: got {decimal!r}, expected '.' or ','")
        if sheet is not None and self.format != "xlsx":
            raise InvalidTable(f"sheet: got {sheet!r}, expected none: only .xlsx has sheets")
        return replace(self, encoding=encoding, decimal=decimal, sheet=sheet)


def format_of(name: str, write: bool = False) -> FileFormat:
    """Return the format of a file, by the suffix of its name.

    A zip archive whose name says no format is taken for CSV; `reading.open_table` looks into it.

    Args:
        name: the file's name, or its path.
        write: whether it will be written: zip archives and .xlsx can only be read.

    Raises:
        InvalidTable: its suffix is not known.
    """
    suffix, packed = _suffixes(name)
    found = "csv" if says_only_zip(name) else SUFFIXES.get(suffix)
    known = found in (WRITABLE if write else READABLE)
    if packed:
        known = found in TEXT_FORMATS and not (write and packed == ".zip")
    if found is None or not known:
        got = repr(suffix + packed) if suffix + packed else "no suffix"
        raise InvalidTable(f"{name}: got {got}, expected {WRITTEN if write else READ}")
    return FileFormat(found, bool(packed))


def says_only_zip(name: str) -> bool:
    """Return whether a name is that of a zip archive, and says no format of the file in it."""
    suffix, packed = _suffixes(name)
    return packed == ".zip" and suffix not in SUFFIXES


def _suffixes(name: str) -> tuple[str, str]:
    """Return the suffix of a name and that of its compression, in lower case; "" for none."""
    suffixes = ["", *(suffix.lower() for suffix in Path(name).suffixes)]
    packed = suffixes.pop() if suffixes[-1] in COMPRESSED else ""
    return suffixes[-1], packed
