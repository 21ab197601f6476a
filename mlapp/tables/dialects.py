"""The dialect of delimited text, detected from its first bytes.

A dialect is the separator, the columns' names, whether quotation marks enclose cells, and whether
spaces may precede them.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mlapp.errors import InvalidTable
from mlapp.tables.chunks import check_count

HEAD = 1 << 20  # bytes in which the header must end
SAMPLE = 200  # rows that are examined
LOOKED_AT = 1 << 16  # characters that are examined for quotation marks

_LONE = "\x1f"  # the separator if there is a single column, so that texts may contain commas

# What is in order in TSV whose quotation marks enclose cells: marks within cells, and whole cells.
_OPENS = rb'(?<![^\t\r\n])"'
_HELD = rb'[^"]*+(?:""[^"]*+)*+'
_IN_ORDER = re.compile(
    rb'(?:[^"]++|(?<=[^\t\r\n])"|' + _OPENS + _HELD + rb'"(?= *(?:[\t\r\n]|\Z)))*+'
)
_OPENING = re.compile(_OPENS)
_UNENDED = re.compile(rb'"' + _HELD + rb"\Z")
_SAID = re.compile(rb'("?)sep=([!#-/:-@\[-^`{-~\t])\1(?:\r\n?|\n)', re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How a delimited text is written.

    Attributes:
        names: the columns' names, without spaces around them. The first is empty if that column
            has no name: it then holds the names or numbers of the rows.
        separator: between cells.
        quoted: whether quotation marks enclose cells; otherwise they are ordinary characters.
        spaced: whether there are spaces between separators and quotation marks.
    """

    names: list[str]
    separator: str
    quoted: bool = True
    spaced: bool = False


class Marks:
    """Decides whether the quotation marks of TSV enclose cells, from all lines of the file.

    They do unless one that begins a cell has no other that ends it.
    """

    def __init__(self) -> None:
        self._stray = self._closed = self._open = False

    def add(self, lines: bytes) -> None:
        """Look at the next complete lines, without the last line break."""
        if self._stray or not (self._open or b'"' in lines):
            return
        lines = b'"' + lines if self._open else lines
        end = _end_of_order(lines)
        self._open = bool(_UNENDED.match(lines, end))
        self._stray = end < len(lines) and not self._open
        self._closed = self._closed or bool(_OPENING.search(lines, 0, end))

    @property
    def decided(self) -> bool:
        """Whether a quoted cell has ended, or a mark is a character."""
        return self._stray or self._closed

    def enclose(self) -> bool:
        """Return whether the marks enclose cells; a last one may be open if others are closed."""
        return not self._stray and (self._closed or not self._open)


def said_separator(start: bytes) -> tuple[str, int]:
    """Return the separator that Excel's own first line `sep=;` names, and the length of that line.

    Args:
        start: the first bytes of a text.
    """
    said = _SAID.match(start)
    return (said[2].decode(), said.end()) if said else ("", 0)


def recognise(name: str, head: bytes, separators: str, enclosing: bool = True) -> Dialect:
    """Return the dialect of a text.

    Args:
        name: what messages call the file.
        head: its first bytes, at most `HEAD`.
        separators: those that may separate its cells; if several fit equally well, the last does.
        enclosing: whether quotation marks may enclose the cells of TSV; see `Marks`.

    Raises:
        InvalidTable: its header cannot be read.
    """
    text = head.decode(errors="ignore")
    is_whole = len(head) < HEAD
    candidates = []
    for separator in separators:
        quoted = separator != "\t" or (enclosing and _is_quoted(text[:LOOKED_AT]))
        spaced = quoted and _is_spaced(text[:LOOKED_AT], separator)
        header, rows = _sample(name, text, is_whole, separator, quoted, spaced)
        check_count(name, len(header))
        fitting = sum(len(row) == len(header) for row in rows) / (len(rows) or 1)
        named = Dialect(_names(header, rows, text, quoted), separator, quoted, spaced)
        if len(named.names) > len(header):
            fitting = 1.0
        candidates.append((fitting, len(header), named))
    several = [each for each in candidates if each[1] > 1]
    if not several:
        lone = candidates[0][2]
        return Dialect(lone.names, _LONE, lone.quoted)
    # The last of equally good ones, which is the least likely to occur in cells.
    return max(reversed(several), key=lambda each: each[:2])[2]


def _sample(
    name: str, text: str, is_whole: bool, separator: str, quoted: bool, spaced: bool
) -> tuple[list[str], list[list[str]]]:
    """Return the header and the first rows."""
    lines = io.StringIO(text, newline="")
    rows = _parse(lines, separator, quoted, spaced)
    header = next(rows)
    if not is_whole and not lines.read(1):
        raise InvalidTable(f"{name}: its first row has more than {HEAD:,} bytes")
    found: list[list[str]] = []
    for row in rows:
        found.append(row)
        if len(found) == SAMPLE:
            return header, found
    return header, found if is_whole else found[:-1]  # the last one may be cut off


def _parse(lines: io.StringIO, separator: str, quoted: bool, spaced: bool) -> Iterator[list[str]]:
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    rows = csv.reader(lines, delimiter=separator, quoting=quoting, skipinitialspace=spaced)
    return filter(None, rows)


def _is_spaced(text: str, separator: str) -> bool:
    """Return whether spaces precede quotation marks that enclose cells.

    They do if one behind spaces has another at the end of its cell, and none has one elsewhere.
    """
    ends = rf"[\r\n{re.escape(separator)}]"
    closed = rf'"(?P<end> *(?={ends}|\Z))?'
    # Each quoted cell is passed over as a whole, since the marks in it begin no other.
    cell = rf'(?:\A|(?<={ends}))( *+)"[^"]*+(?:""[^"]*+)*+(?:{closed}|(?P<cut>\Z))'
    spaced = [found for found in re.finditer(cell, text) if found[1]]
    in_order = [found["end"] is not None for found in spaced if found["cut"] is None]
    if len(text) >= LOOKED_AT and spaced and spaced[-1]["cut"] is not None:
        in_order.append(True)  # its end is in the rest
    return bool(in_order) and all(in_order)


def _is_quoted(text: str) -> bool:
    """Return whether quotation marks enclose cells of TSV, as far as its first characters show."""
    lines = text.encode()
    end = _end_of_order(lines)
    return end == len(lines) or bool(_UNENDED.match(lines, end))


def _end_of_order(lines: bytes) -> int:
    """Return the place of the first mark that begins a cell of TSV and has no other to end it."""
    found = _IN_ORDER.match(lines)
    return found.end() if found else 0


def _names(header: list[str], rows: list[list[str]], text: str, quoted: bool) -> list[str]:
    """Return the columns' names, completed if rows have one cell more than the header."""
    names = [name.strip() for name in header]
    if not quoted:
        names = [name.strip('"') for name in names]
    if len(names) > 1 and rows and all(len(row) == len(names) + 1 for row in rows):
        first = [row[0] for row in rows]
        if not any(row[-1].strip() for row in rows):
            names.append("")  # each row ends with a separator
        elif len(set(first)) == len(first) and (len(first) > 1 or _begins_quoted(text)):
            return ["", *names]  # row names, as written by R's write.table
    if len(names) > 1 and not names[-1] and all(names[1:-1]):
        names[-1] = _unnamed(names)  # the header ends with a separator
    return names


def _begins_quoted(text: str) -> bool:
    """Return whether the first row after the header begins with a quotation mark."""
    return bool(re.match(r'[\r\n]*[^\r\n]*[\r\n]+"', text))


def _unnamed(names: list[str]) -> str:
    name = f"Unnamed: {len(names) - 1}"
    return name if name not in names else ""
