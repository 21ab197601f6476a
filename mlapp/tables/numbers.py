"""The parser of numbers: plain numbers, and those with decimal and thousands marks in tables.

A number in a text is plain (digits, a decimal point, an exponent), or is written as its column is:
with a decimal point or comma, and possibly thousands marks. The fields of an Arrow schema carry the
decimal mark of their column as metadata, and whether the file says so itself. Where it does not,
the mark of the training data is used.
"""

import math
import re
from collections.abc import Container, Iterable, Mapping
from decimal import Decimal
from functools import cache
from numbers import Real
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # the service checks numbers before anything needs Arrow
    import pyarrow as pa

Floats: TypeAlias = npt.NDArray[np.float64]

# Texts that mean a missing value, in training data and in rows to predict.
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")

# Larger numbers are refused: squares and sums of squares must stay finite in double precision.
LARGEST = 1e100

_EXPONENT = "(?:[eE][+-]?[0-9]+)?"
_PLAIN = rf"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+){_EXPONENT}"
_UNITS = r"^[+-]?(?:Rs\.|[^0-9+\-.,])+|[^0-9.,]*\pL[^0-9,;:]*$|[^0-9.,]+$"
_CODES = "USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD|SEK|NOK|DKK|PLN|BRL|MXN|KRW"
_BEFORE = rf"(?:[A-Z]{{0,3}}[$€£¥₹₽₩]|{_CODES}|Rs\.?|~)"
_BEHIND = r"(?:[%‰°$€£¥₹₽₩]|[^\W\d_][^\d,;:]{0,11}|°[CF])"
_WITH_UNIT = re.compile(rf"([+-]?)\s*({_BEFORE})?\s*([+-]?[\d.][\d.,\s'\u2019]*?)\s*({_BEHIND})?")
_DIGIT = re.compile("[0-9]")
FEWEST_CELLS = 100  # after which a column may turn out to hold texts
NEARLY_ALL = 0.9  # of the cells, for a column to be one of numbers
_SPACES = " \u00a0\u2009\u202f'\u2019"  # thousands marks besides point and comma
_KEY, _SAID = b"decimal", b"decimal is said"


@cache
def number_pattern(decimal: str | None) -> str:
    """Return the regular expression, for `re` and for RE2, of a number without spaces around it.

    Args:
        decimal: the decimal mark, "." or ",", of a number that may have thousands marks: the other
            one of the two, a space or an apostrophe, the same throughout. None for plain numbers.
    """
    if decimal is None:
        return _PLAIN
    point = re.escape(decimal)
    marks = [re.escape(mark) for mark in _thousands(decimal)]
    # The last group has three digits; earlier ones may have two, as in 12,34,567. None begins with
    # 0: 0,183 is less than 1.
    grouped = [f"[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{2,3}})*{mark}[0-9]{{3}}" for mark in marks]
    plain = f"(?:[0-9]+(?:{point}[0-9]*)?|{point}[0-9]+){_EXPONENT}"
    return rf"[+-]?(?:(?:{'|'.join(grouped)})(?:{point}[0-9]*)?|{plain})"


def _thousands(decimal: str) -> str:
    return ("." if decimal == "," else ",") + _SPACES


@cache
def _compiled(decimal: str | None) -> re.Pattern[str]:
    return re.compile(number_pattern(decimal))


def is_missing(value: object) -> bool:
    """Return whether a value that is not a text means a missing one."""
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return value is None or type(value).__name__ in ("NAType", "NaTType")  # those of pandas


def is_placeholder(value: object, placeholders: Container[str]) -> bool:
    """Return whether a value stood for a missing one in training: a text, or an infinite number."""
    return isinstance(value, str | float | np.floating) and str(value).strip() in placeholders


def parse_number(value: object, decimal: str | None = None) -> float | None:
    """Return a value as a float, NaN when it is missing, None when it is not an allowed number.

    Args:
        value: a number, or a text.
        decimal: the decimal mark of a text from CSV or TSV; None for a plain number.
    """
    if isinstance(value, str):
        text = value.strip()
        if text in MISSING:
            return math.nan
        if not _compiled(decimal).fullmatch(text):
            return None
        if decimal is not None:
            text = text.translate(_table(decimal))
        number = float(text)
    elif is_missing(value):
        return math.nan
    elif isinstance(value, Real | Decimal) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            return None
    else:
        return None
    return number if abs(number) <= LARGEST else None


def holds_digits(value: object) -> bool:
    """Return whether a value is a text that may be a number."""
    return isinstance(value, str) and _DIGIT.search(value) is not None


def find_unit(text: str) -> str | None:
    """Return the unit that stands before or behind a number, "" without one; None for no number.

    A unit is a currency, a sign, or a word of at most twelve characters behind the number.

    >>> find_unit("-$5,850"), find_unit("70 kg"), find_unit("12"), find_unit("town 1")
    ('$', 'kg', '', None)
    """
    match = _WITH_UNIT.fullmatch(text)
    return (match[2] or match[4] or "").strip() if match else None


def parse_with_unit(value: object, unit: str | None, decimal: str | None) -> float | None:
    """Return a value as `parse_number` does, also of a text with a unit around the number."""
    number = parse_number(value, decimal)
    if number is None and unit and isinstance(value, str):
        number = parse_number(strip_unit(value, unit), decimal)
    return number


def strip_unit(text: str, unit: str) -> str:
    """Return a number's text without the unit that may stand before or behind it.

    >>> strip_unit("-$5,850", "$")
    '-5,850'
    """
    text = text.strip()
    sign = text[:1] if text[:1] in ("+", "-") else ""
    bare = text.removeprefix(sign).strip()
    return sign + bare.removeprefix(unit).removesuffix(unit).strip()


@cache
def _table(decimal: str) -> dict[int, str]:
    return str.maketrans(dict.fromkeys(_thousands(decimal), "") | {decimal: "."})


def parse_numbers(column: "pa.Array", decimal: str | None = None) -> tuple[Floats, list[int]]:
    """Parse a column, with the same results as `parse_number` for each value.

    Returns:
        The values (n,), NaN for a missing one, and the places of those that are not numbers.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_string(kind):
        values = _parse_texts(column, decimal)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    else:
        values = np.full(len(column), np.nan)
    left = np.flatnonzero(~(np.abs(values) <= LARGEST))
    if not len(left):
        return values, []
    values = values.copy()
    parsed = [parse_number(value, decimal) for value in column.take(pa.array(left)).to_pylist()]
    values[left] = [np.nan if value is None else value for value in parsed]
    return values, [int(place) for place, value in zip(left, parsed, strict=True) if value is None]


def _parse_texts(column: "pa.Array", decimal: str | None) -> Floats:
    """Return the numbers in texts, NaN for those that `parse_number` must decide."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = None
    if decimal != ",":
        try:
            numbers = column.cast(pa.float64())  # the usual case
        except pa.ArrowInvalid:
            numbers = None
    if numbers is None:
        texts = pc.ascii_trim_whitespace(column)
        matches = pc.match_substring_regex(texts, f"^(?:{number_pattern(decimal)})$")
        if decimal is not None:
            marks = "|".join(map(re.escape, _thousands(decimal)))
            texts = pc.replace_substring_regex(texts, marks, "")
            texts = pc.replace_substring(texts, ",", ".") if decimal == "," else texts
        texts = pc.ascii_ltrim(texts, "+")
        numbers = pc.if_else(matches, texts, pa.scalar(None, pa.string())).cast(pa.float64())
    values: Floats = numbers.to_numpy(zero_copy_only=False)
    return values


def decimal_of(field: "pa.Field") -> str | None:
    """Return the decimal mark of a column's texts, None if its numbers are plain."""
    mark = (field.metadata or {}).get(_KEY)
    return None if mark is None else str(mark.decode())


class Mark(NamedTuple):
    """The decimal mark of a column, and whether the file says so: by its cells, or an option."""

    decimal: Literal[".", ","]
    said: bool


# Of a column without `holds_digits`, in a format that has numbers beside texts.
NUMBERS_ALONE = Mark(".", said=True)


def mark_decimals(schema: "pa.Schema", marks: Iterable[Mark | None]) -> "pa.Schema":
    """Return a schema whose fields, of text, carry decimal marks; see `decimal_of`."""
    import pyarrow as pa

    fields = [
        field
        if mark is None
        else field.with_metadata(
            {_KEY: mark.decimal.encode()} | ({_SAID: b"yes"} if mark.said else {})
        )
        for field, mark in zip(schema, marks, strict=True)
    ]
    return pa.schema(fields)


def settle_decimals(schema: "pa.Schema", trained: Mapping[str, str]) -> "pa.Schema":
    """Return a schema with the marks of the training data where a file does not say its own.

    A file that says others in some columns is written otherwise, and keeps its marks.

    Args:
        schema: as `mark_decimals` returned it; a schema without marks is returned as it is.
        trained: the decimal marks of the training data that are known, by the name of the column.
    """
    import pyarrow as pa

    said = {each.name: decimal_of(each) for each in schema if _SAID in (each.metadata or {})}
    if any(said.get(name, mark) != mark for name, mark in trained.items()):
        return schema
    fields = [
        each.with_metadata({_KEY: trained[each.name].encode()})
        if each.name in trained and each.name not in said and decimal_of(each) is not None
        else each
        for each in schema
    ]
    return pa.schema(fields)


class DecimalVotes:
    """Detects the decimal mark of each column from the cells of a table.

    A column votes if nearly all its cells are numbers with one mark, with or without a unit, and
    fewer are with the other: 1,5 for the comma, 1.5 and 1,234.5 for the point. The others follow
    the majority of the table, or without votes its separator: 1,234 is 1.234 unless commas separate
    the cells.
    """

    def __init__(self, columns: int, separator: str) -> None:
        self._cells, self._comma, self._point = np.zeros((3, columns), dtype=np.int64)
        self._marked = np.zeros(columns, dtype=bool)  # whether a number has a comma
        self._default = "." if separator == "," else ","

    def add(self, columns: "list[pa.Array]") -> None:
        """Count the cells of some rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        numbers = np.maximum(self._comma, self._point)
        is_text = (self._cells >= FEWEST_CELLS) & (numbers < self._cells / 2)
        places = np.flatnonzero(~is_text)
        if not len(places):
            return
        # All columns at once, since Arrow compiles a pattern at each call.
        cells = pc.utf8_trim_whitespace(pa.concat_arrays([columns[place] for place in places]))
        filled = pc.invert(pc.is_in(cells, pa.array(MISSING, pa.string())))
        which = np.repeat(places, [len(columns[place]) for place in places])
        which, cells = which[_to_numpy(filled)], cells.filter(filled)
        count = len(self._cells)
        self._cells += np.bincount(which, minlength=count)
        for mark, votes in ((",", self._comma), (".", self._point)):
            are_numbers = _are_numbers(cells, f"^(?:{number_pattern(mark)})$")
            votes += np.bincount(which[are_numbers], minlength=count)
        self._marked[which[_to_numpy(pc.match_substring(cells, ","))]] = True

    def marks(self) -> list[Mark]:
        """Return the decimal mark of each column."""
        may_comma = self._comma >= NEARLY_ALL * self._cells
        may_point = self._point >= NEARLY_ALL * self._cells
        for_comma = may_comma & (self._comma > self._point)
        for_point = may_point & (self._point > self._comma)
        usual = self._default
        if for_comma.any() or for_point.any():
            usual = "," if for_comma.sum() > for_point.sum() else "."
        elif not (may_comma & self._marked).any():
            usual = "."
        follows = may_comma & (self._comma == self._point) & (usual == ",")
        return [
            Mark("," if has_comma else ".", said)
            for has_comma, said in zip(
                (for_comma | follows).tolist(), (for_comma | for_point).tolist(), strict=True
            )
        ]


def _are_numbers(cells: "pa.Array", pattern: str) -> npt.NDArray[np.bool_]:
    """Return which cells (n,) match a pattern, a unit before or behind the number left out."""
    import pyarrow.compute as pc

    found = _to_numpy(pc.match_substring_regex(cells, pattern))
    if not found.all():
        rest = pc.replace_substring_regex(cells.filter(~found), _UNITS, "")
        found[~found] = _to_numpy(pc.match_substring_regex(rest, pattern))
    return found


def _to_numpy(truths: "pa.Array") -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = truths.to_numpy(zero_copy_only=False)
    return found.copy()
