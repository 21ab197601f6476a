"""The command-line options that say how a table is read, the same for training and for scoring."""

import argparse

from mlapp.tables.formats import DECIMALS

READING = ("encoding", "decimal", "sheet")


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
