"""The command-line options that say how a table is read, the same for training and for scoring."""

import argparse
from pathlib import Path

from mlapp.errors import InvalidTable
from mlapp.tables.formats import DECIMALS, TEXT_FORMATS, format_of

READING = ("encoding", "decimal", "sheet")
_ARCHIVES = (".tar.gz", ".tgz", ".tar")


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add --encoding, --decimal and --sheet."""
    add = parser.add_argument
    add(
        "--encoding",
        help="encoding of a text file (default: UTF-8, or what its byte-order mark says)",
    )
    add(
        "--decimal",
        choices=DECIMALS,
        help="the decimal mark of CSV and TSV (default: detected for each column)",
    )
    add(
        "--sheet",
        help="sheet of an Excel workbook: its name, or its number from 1 (default: the first)",
    )


def find_applicable(path: Path) -> frozenset[str]:
    """Return those of `READING` that apply to a table, or to a folder or an archive of texts."""
    if holds_texts(path):
        return frozenset({"encoding"})
    try:
        found = format_of(path.name).format
    except InvalidTable:  # its name says none
        return frozenset(READING)
    if found in TEXT_FORMATS:
        return frozenset({"encoding", "decimal"})
    return frozenset({"sheet"} if found == "xlsx" else ())


def holds_texts(path: Path) -> bool:
    """Return whether a path is a folder or an archive with a file for each text, and no table."""
    return path.is_dir() or path.name.endswith(_ARCHIVES)
