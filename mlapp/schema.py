"""The inputs of a table model, learned from its training data, and the one check of a row.

The pages, the forms, REST, files and the command line all check rows here, so a row gets the same
answer, or the same faults, everywhere. Training encodes rows with the same `Schema.encode`.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from mlapp.dates import Date as Date
from mlapp.errors import ROW, Fault, InvalidInput
from mlapp.errors import describe as describe
from mlapp.errors import quote as quote
from mlapp.tables.numbers import LARGEST as LARGEST
from mlapp.tables.numbers import MISSING as MISSING
from mlapp.tables.numbers import Floats as Floats
from mlapp.tables.numbers import is_missing, is_placeholder, parse_with_unit, settle_decimals
from mlapp.tables.numbers import parse_number as parse_number

if TYPE_CHECKING:  # pandas takes longer to import than a text takes to classify
    import pandas as pd
    import pyarrow as pa
    from typing_extensions import TypeIs

Rows: TypeAlias = Union["pd.DataFrame", Sequence[Mapping[str, Any]]]
Column: TypeAlias = npt.NDArray[Any] | list[Any]

# Words for truth values, in lower case; a column of both kinds is of truth values.
TRUTHS = dict.fromkeys(("true", "t", "yes", "y", "1", "on"), True) | dict.fromkeys(
    ("false", "f", "no", "n", "0", "off"), False
)
_LONG = re.compile(r"(-?[0-9]+)\.0+|([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]00:00:00")
_TRUTHS = frozenset(("true", "True", "TRUE", "false", "False", "FALSE"))

TEXT = "text"  # the name of the one input of a model that takes texts

_MOST = f"{LARGEST:g}".replace("+", "")
IN_RANGE = f"a number from -{_MOST} to {_MOST}"  # what is allowed instead of a larger one

NOT_GIVEN = "not given, so treated as missing"  # the detail of a notice about an input

MOST_MISMATCHES = 100  # notices of names that do not match; with more it is another table
FEW_VALUES = 64  # up to which Python's floats are quicker than a call of numpy


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Number(_Frozen):
    """A numeric input.

    Attributes:
        name: the column's name.
        minimum, maximum: the range seen in training.
        quantiles: the 5, 25, 50, 75 and 95 % quantiles in training.
        typical: the median, rounded to `decimals`; also stands in for a missing value.
        step: a sensible step for a slider or a spin button.
        decimals: how many decimals are worth showing, 0 or more.
        missing: whether training saw missing values, and so they are allowed.
        unit: what texts may have around the number, as $ or kg, and may leave out; with one, even
            with "", a number may have thousands marks. None is for plain numbers.
        mark: the decimal mark of such texts, and of files that do not say theirs.
        placeholders: what stood for missing values in training, such as "?" or "inf".
    """

    kind: Literal["number"] = "number"
    name: str
    minimum: float
    maximum: float
    quantiles: tuple[float, float, float, float, float]
    typical: float
    step: float
    decimals: int
    missing: bool = False
    unit: str | None = None
    mark: Literal[".", ","] = "."
    placeholders: tuple[str, ...] = ()

    @property
    def seen(self) -> str:
        """What training saw, in words."""
        return f"{self.minimum:.12g} to {self.maximum:.12g}"

    @property
    def allowed(self) -> str:
        """What the check accepts, in words."""
        return "a finite number" + (" or no value" if self.missing else "")

    @property
    def terms(self) -> list[str]:
        """The names of this input's columns in the encoded matrix."""
        return [self.name] + ([f"{self.name} missing"] if self.missing else [])

    @cached_property
    def known_placeholders(self) -> frozenset[str]:
        """The placeholders, which may be many."""
        return frozenset(self.placeholders)

    @property
    def trained_mark(self) -> str | None:
        """The decimal mark of the training data, None where it is not known."""
        return self.mark if self.unit is not None or self.mark == "," else None

    def mark_of(self, decimal: str | None) -> str | None:
        """Return the decimal mark of texts, None if they are plain.

        Args:
            decimal: that of their file, if it has one.
        """
        return self.mark if decimal is None and self.unit is not None else decimal

    def parse(self, value: object, decimal: str | None = None) -> float | None:
        """Return the value as a float, NaN for a missing one, or None for one not allowed.

        Args:
            value: a number, or a text: as the texts of the training data were written, or plain.
            decimal: the decimal mark of a text from a file that has one, see `settle_marks`.
        """
        if (type(value) is float or type(value) is int) and abs(value) <= LARGEST:
            return float(value)  # the usual case
        number = parse_with_unit(value, self.unit, self.mark_of(decimal))
        if number is None and is_placeholder(value, self.known_placeholders):
            number = math.nan
        if number is None and self.unit is not None:
            number = parse_number(value)
        return None if number is not None and math.isnan(number) and not self.missing else number

    def as_text(self, value: float) -> str:
        """Return a number as a text that `parse` reads as the same number.

        5.0 is "5"; 2.493 is "2,493" where the texts of the training data have decimal commas.
        """
        text = repr(value + 0.0).removesuffix(".0")  # no -0
        return text if self.unit is None else text.replace(".", self.mark)

    def plain(self, parsed: float) -> float | None:
        """Return a parsed value as a user would type it, None when it is missing."""
        return None if math.isnan(parsed) else parsed

    def encode(self, values: Floats) -> Floats:
        """Encode checked values (n,) as a matrix (n, len(terms))."""
        absent = np.isnan(values)
        columns = [np.where(absent, self.typical, values)] + ([absent] if self.missing else [])
        return np.array(columns, dtype=float).T


class Category(_Frozen):
    """A categorical input.

    Attributes:
        name: the column's name.
        categories: the categories seen in training, sorted.
        typical: the most frequent category, the baseline of the others.
        missing: whether training saw missing values, and so they are allowed.
        other: the category that stands for all that are not listed; None where none does.
    """

    kind: Literal["category"] = "category"
    name: str
    categories: tuple[str, ...]
    typical: str
    missing: bool = False
    other: str | None = None

    @property
    def seen(self) -> str:
        """What training saw, in words."""
        return ", ".join(self.categories)

    @property
    def allowed(self) -> str:
        """What the check accepts, in words."""
        if self.other is not None:
            return "a text" + (" or no value" if self.missing else "")
        shown = ", ".join(map(repr, self.categories[:12]))
        more = len(self.categories) - 12
        text = f"one of {shown}" + (f" and {more} more" if more > 0 else "")
        return text + (" or no value" if self.missing else "")

    @property
    def terms(self) -> list[str]:
        """The names of this input's columns in the encoded matrix."""
        names = [f"{self.name} = {other}" for other in self.categories if other != self.typical]
        return names + ([f"{self.name} missing"] if self.missing else [])

    @cached_property
    def _codes(self) -> dict[str, float]:
        return {category: float(code) for code, category in enumerate(self.categories)}

    @cached_property
    def _spellings(self) -> dict[str, float]:
        """The codes of the categories, and of truth values as JSON, pandas and R write them."""
        spelled = {
            each: code
            for category, code in self._codes.items()
            if category in _TRUTHS
            for each in (category.lower(), category.capitalize(), category.upper())
        }
        shorter = {drop_ending(category): code for category, code in self._codes.items()}
        return shorter | spelled | self._codes

    @cached_property
    def _truths(self) -> dict[bool | None, float]:
        """The codes of true and false where these are the two categories, as training reads them.

        Every word for one of them stands for it, in whatever case.
        """
        sides = {truth_of(category): code for category, code in self._codes.items()}
        return sides if len(self.categories) == 2 and sides.keys() == {True, False} else {}

    def parse(self, value: object) -> float | None:
        """Return the category's position, NaN for a missing one, or None for one not allowed."""
        text = parse_text(value)
        if text is None:
            return math.nan if self.missing else None
        plain = drop_ending(text)
        code = self._spellings.get(text, self._spellings.get(plain))
        if code is None and self._truths:
            code = self._truths.get(truth_of(plain))
        return self._codes[self.other] if code is None and self.other is not None else code

    def plain(self, parsed: float) -> str | None:
        """Return the category at a parsed position, None when it is missing."""
        return None if math.isnan(parsed) else self.categories[int(parsed)]

    def encode(self, values: Floats) -> Floats:
        """Encode checked positions (n,) as indicators (n, len(terms))."""
        others = [code for other, code in self._codes.items() if other != self.typical]
        columns: list[npt.NDArray[Any]] = [values == code for code in others]
        columns += [np.isnan(values)] if self.missing else []
        return np.array(columns, dtype=float).reshape(len(columns), len(values)).T


class Text(_Frozen):
    """A text, the one input of a model that takes texts.

    Attributes:
        name: the column's name.
        typical: an example.
        missing: never.
    """

    kind: Literal["text"] = "text"
    name: str = TEXT
    typical: str
    missing: Literal[False] = False

    @property
    def allowed(self) -> str:
        """What the check accepts, in words."""
        return "a text with at least one letter, digit or symbol"


Input: TypeAlias = Annotated[Number | Category | Date, Field(discriminator="kind")]


class Output(_Frozen):
    """The predicted number: its column's name, and its range and decimals in training."""

    name: str
    minimum: float
    maximum: float
    decimals: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something unusual about a row that was predicted all the same.

    Attributes:
        input: the input's name, or the output's.
        detail: what is unusual about it.
        row: the row's label; None if the notice is about several rows.
    """

    input: str
    detail: str
    row: Hashable | None

    @property
    def message(self) -> str:
        """The notice without its row, for where there is only one row."""
        return f"{self.input}: {self.detail}"

    def __str__(self) -> str:
        return self.message if self.row is None else f"row {self.row}, {self.message}"


def find_outside(values: Floats, low: Floats, high: Floats) -> list[tuple[int, int]]:
    """Return the rows and columns of values (n, k) beyond their column's limits, (k,) each."""
    if values.size > FEW_VALUES:
        outside = (values < low) | (values > high)
        if not np.count_nonzero(outside):  # the usual case; quicker than listing none
            return []
        return [(row, place) for row, place in np.argwhere(outside).tolist()]
    limits = [*zip(low.tolist(), high.tolist(), strict=True)]
    return [
        (row, place)
        for row, given in enumerate(values.tolist())
        for place, (value, (least, most)) in enumerate(zip(given, limits, strict=True))
        if value < least or value > most
    ]


def describe_outside(
    got: float, minimum: float, maximum: float, write: Callable[[float], str] = "{:.12g}".format
) -> str:
    """Return the detail of a notice about a value outside the range seen in training.

    Args:
        got: the value.
        minimum: the lower end of the range.
        maximum: its upper end.
        write: returns a number as text.
    """
    return (
        f"{write(got)} lies outside the range seen in training, {write(minimum)} to"
        f" {write(maximum)}"
    )


def note_unknown(given: Iterable[str], names: Collection[str]) -> list[Notice]:
    """Return a notice for each given name that is not among a model's names; of many, the first."""
    known = frozenset(names)
    unknown = [name for name in given if name not in known]
    return [Notice(name[:80], _not_an_input(names), None) for name in unknown[:MOST_MISMATCHES]]


def _not_an_input(names: Collection[str]) -> str:
    return f"not an input of this model; it has {quote(names)}"


@dataclass(frozen=True)
class Checked:
    """Rows that passed the check.

    Attributes:
        matrix: the values (n, inputs): the number, or the category's position; NaN is missing.
        row_labels: the labels of the n rows; None stands for 0 to n-1.
        mismatches: notices of names that rows lack, or have and the model does not know.
        unseen: the categories that training did not see, by row and column of the matrix, where
            they count as another.
    """

    schema: "Schema"
    matrix: Floats
    row_labels: "pd.Index | None" = None
    mismatches: tuple[Notice, ...] = ()
    unseen: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def index(self) -> "pd.Index":
        """The labels of the rows, as pandas has them."""
        import pandas as pd

        return pd.RangeIndex(len(self.matrix)) if self.row_labels is None else self.row_labels

    @property
    def values(self) -> dict[str, Floats]:
        """The columns of the matrix by the inputs' names."""
        return dict(zip(self.schema.names, self.matrix.T, strict=True))

    def row(self, place: int) -> dict[str, float | str | None]:
        """Return one row's values as a user would type them, None where missing."""
        parsed = enumerate(zip(self.schema.inputs, self.matrix[place].tolist(), strict=True))
        return {
            spec.name: self.unseen.get((place, column)) or spec.plain(value)
            for column, (spec, value) in parsed
        }

    @cached_property
    def notices(self) -> list[Notice]:
        """The names that do not match, then, by row, the values outside the training range."""
        low, high = self.schema.limits
        found = list(self.mismatches)
        for row, place in find_outside(self.matrix, low, high):
            spec, got = self.schema.inputs[place], float(self.matrix[row, place])
            label = row if self.row_labels is None else self.row_labels[row]
            detail = (
                describe_outside(got, float(low[place]), float(high[place]))
                if isinstance(spec, Number)
                else f"{spec.plain(got)} lies outside the range seen in training, {spec.seen}"
            )
            found.append(Notice(spec.name, detail, label))
        return found


class Schema(_Frozen):
    """The inputs, in the order of training, and the predicted number, None for labels."""

    inputs: tuple[Input, ...]
    output: Output | None = None

    @cached_property
    def names(self) -> list[str]:
        """The inputs' names."""
        return [spec.name for spec in self.inputs]

    @cached_property
    def _name_set(self) -> frozenset[str]:
        return frozenset(self.names)

    @cached_property
    def limits(self) -> tuple[Floats, Floats]:
        """The smallest and the largest value of each input in training; infinite for categories."""
        numbers = [None if isinstance(spec, Category) else spec for spec in self.inputs]
        low = [spec.minimum if spec else -math.inf for spec in numbers]
        return np.array(low), np.array([spec.maximum if spec else math.inf for spec in numbers])

    @property
    def typical(self) -> dict[str, Any]:
        """The row of typical values."""
        return {spec.name: spec.typical for spec in self.inputs}

    def __getitem__(self, name: str) -> Input:
        return self.inputs[self.names.index(name)]

    def check(self, rows: Rows) -> Checked:
        """Check rows: columns by name, in any order; columns that are not inputs are ignored.

        Numbers may arrive as numbers or as plain decimal text. A missing value (None, NaN, or a
        text in `MISSING`) is allowed where training saw missing values. A mapping may lack such
        an input, and may have names that the model does not know: a notice says so.

        Args:
            rows: n rows, as a data frame or as mappings from input name to value.

        Raises:
            InvalidInput: with every fault of every row, or one per missing column.
        """
        if is_frame(rows):
            given = [str(name) for name in rows.columns]
            twice = sorted(name for name, count in Counter(given).items() if count > 1)
            if twice:
                raise InvalidInput([Fault(name, "two columns", "one column") for name in twice])
            columns = dict(zip(given, (rows[name].to_numpy() for name in rows), strict=True))
            return self.check_columns(columns, rows.index)
        parsers = list(zip(self.names, self._parsers, strict=True))
        matrix, mismatched = [], []
        for place, row in enumerate(rows):
            if type(row) is not dict and not isinstance(row, Mapping):
                raise InvalidInput(_refuse_other_types(rows))
            parsed = [parse(row.get(name)) for name, parse in parsers]
            if None in parsed:
                raise InvalidInput(self._faults(rows))
            matrix.append(parsed)
            if row.keys() != self._name_set:
                mismatched.append((place, row))
        values = np.array(matrix, dtype=np.float64).reshape(len(matrix), len(parsers))
        unseen = self._unseen(values, lambda row, name: rows[row].get(name))
        return Checked(self, values, None, self._mismatches(mismatched), unseen)

    def check_columns(self, columns: Mapping[str, Column], labels: "pd.Index | int") -> Checked:
        """Check rows that arrive as columns, as `check` does.

        Args:
            columns: n values each, by input name.
            labels: the labels of the rows, or how many there are.

        Raises:
            InvalidInput: with every fault of every row, or one per missing column.
        """
        absent = [spec for spec in self.inputs if spec.name not in columns]
        if absent:
            raise InvalidInput([Fault(s.name, "no such column", s.allowed) for s in absent])
        index = None if isinstance(labels, int) else labels
        rows = labels if isinstance(labels, int) else len(labels)
        matrix = np.empty((rows, len(self.inputs)), dtype=np.float64)
        found = []
        for place, spec in enumerate(self.inputs):
            column = columns[spec.name]
            matrix[:, place], bad = _parse_column(spec, column)
            for row in bad:
                label = row if index is None else index[row]
                found.append((row, place, refuse(spec, column[row], label)))
        if found:
            raise InvalidInput([item[2] for item in sorted(found, key=lambda item: item[:2])])
        unseen = self._unseen(matrix, lambda row, name: columns[name][row])
        return Checked(self, matrix, index, (), unseen)

    def check_some(self, columns: Mapping[str, Column]) -> Checked:
        """Check rows that arrive as columns; those that allow missing values may be absent.

        A notice names the absent columns, and the names that the model does not know.

        Args:
            columns: one or more, of equal length, by name.

        Raises:
            InvalidInput: with every fault of every row, or one per column that is needed.
        """
        rows = len(next(iter(columns.values())))
        absent = [spec for spec in self.inputs if spec.missing and spec.name not in columns]
        notices = [Notice(spec.name, NOT_GIVEN, None) for spec in absent]
        notices += note_unknown(columns, self.names)
        whole = {**columns, **{spec.name: np.full(rows, np.nan) for spec in absent}}
        return replace(self.check_columns(whole, rows), mismatches=tuple(notices))

    def encode(self, checked: Checked) -> Floats:
        """Encode checked rows as the matrix (n, len(terms)) that a regression is fitted on."""
        if self._is_plain:
            return checked.matrix
        columns = zip(self.inputs, checked.matrix.T, strict=True)
        return np.hstack([spec.encode(values) for spec, values in columns])

    def expand(self, checked: Checked) -> Floats:
        """Return checked rows with dates taken apart, (n, len(expanded)), as trees take them."""
        if not any(isinstance(spec, Date) for spec in self.inputs):
            return checked.matrix
        columns = zip(self.inputs, checked.matrix.T, strict=True)
        return np.hstack(
            [
                spec.expand(values) if isinstance(spec, Date) else values[:, None]
                for spec, values in columns
            ]
        )

    @cached_property
    def expanded(self) -> "list[Input]":
        """The input of each column that `expand` returns."""
        return [
            spec
            for spec in self.inputs
            for _ in range(len(spec.parts) if isinstance(spec, Date) else 1)
        ]

    @cached_property
    def _is_plain(self) -> bool:
        """Whether the values are their own encoding: numbers of which none may be missing."""
        return all(isinstance(spec, Number) and not spec.missing for spec in self.inputs)

    @cached_property
    def _parsers(self) -> list[Callable[[object], float | None]]:
        return [spec.parse for spec in self.inputs]

    @property
    def terms(self) -> list[str]:
        """The names of the encoded columns."""
        return [term for spec in self.inputs for term in spec.terms]

    def split(self, encoded: Floats) -> Iterable[tuple[str, Floats]]:
        """Yield each input's name with its columns of an encoded matrix."""
        start = 0
        for spec in self.inputs:
            end = start + len(spec.terms)
            yield spec.name, encoded[:, start:end]
            start = end

    @cached_property
    def _open(self) -> list[tuple[int, Category, float]]:
        """The inputs that take any category: column, input, and the code of those not seen."""
        return [
            (column, spec, code)
            for column, spec in enumerate(self.inputs)
            if isinstance(spec, Category)
            and spec.other is not None
            and (code := spec.parse(spec.other)) is not None
        ]

    def _unseen(
        self, matrix: Floats, given: Callable[[int, str], object]
    ) -> dict[tuple[int, int], str]:
        """Return the categories that count as others; `given` has the value by row and name."""
        return {
            (row, column): text
            for column, spec, code in self._open
            for row in np.flatnonzero(matrix[:, column] == code).tolist()
            if (text := parse_text(given(row, spec.name))) not in (None, spec.other)
        }

    def _faults(self, rows: Sequence[Mapping[str, Any]]) -> list[Fault]:
        """Return every fault of rows of which at least one has a fault."""
        if faults := _refuse_other_types(rows):
            return faults
        return [
            refuse(spec, row.get(spec.name), place)
            for place, row in enumerate(rows)
            for spec in self.inputs
            if spec.parse(row.get(spec.name)) is None
        ]

    def _mismatches(self, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> tuple[Notice, ...]:
        """Return a notice for each name that numbered rows lack, or that is not known."""
        found: dict[tuple[str, str], list[int]] = {}
        unknown = _not_an_input(self.names)
        for place, row in rows:
            for name in self.names:
                if name not in row:
                    found.setdefault((name, NOT_GIVEN), []).append(place)
            for name in row:
                if name not in self._name_set:
                    found.setdefault((str(name)[:80], unknown), []).append(place)
        return tuple(
            Notice(name, detail, places[0])
            if len(places) == 1
            else Notice(name, f"{detail} (in {len(places):,} rows, first in row {places[0]})", None)
            for (name, detail), places in islice(found.items(), MOST_MISMATCHES)
        )


def settle_marks(inputs: Mapping[str, Input | Text], schema: "pa.Schema") -> "pa.Schema":
    """Return a table's schema with the decimal marks that its columns are read with.

    These are the table's, or where it does not say one, the mark of the training data.

    Args:
        inputs: by the name of their column.
        schema: the table's; see `numbers.settle_decimals`.
    """
    numbers = {name: spec for name, spec in inputs.items() if isinstance(spec, Number)}
    marks = {name: spec.trained_mark for name, spec in numbers.items()}
    return settle_decimals(schema, {name: mark for name, mark in marks.items() if mark})


def truth_of(text: str) -> bool | None:
    """Return the truth value that a word stands for, in whatever case; None for another word."""
    return TRUTHS.get(text.lower())


def parse_text(value: object) -> str | None:
    """Return a category's value as text, None when it is missing; 3.0 and 3 are the same."""
    if isinstance(value, str):
        text = value.strip()
        return None if text in MISSING else text
    if is_missing(value):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def match_label(given: object, labels: Collection[str]) -> str | None:
    """Return the label that a value means, None if it means none.

    A label may be written as other formats and tools write it: 1.0 for 1, 2031-05-17 00:00:00 for
    2031-05-17, or true for the one of two labels that is true.
    """
    text = parse_text(given)
    if text is None or text in labels:
        return text
    if (plain := drop_ending(text)) in labels:
        return plain
    truths = {truth_of(label): label for label in labels}
    return truths.get(truth_of(text)) if truths.keys() == {True, False} else None


def drop_ending(text: str) -> str:
    """Return a whole number without its .0, a day without its midnight, another text as it is."""
    found = _LONG.fullmatch(text)
    return found[1] or found[2] if found else text


def is_frame(given: object) -> "TypeIs[pd.DataFrame]":
    """Return whether a value is a pandas data frame, without importing pandas."""
    return _is_of_pandas(given, "DataFrame")


def is_series(given: object) -> "TypeIs[pd.Series]":
    """Return whether a value is a pandas series, without importing pandas."""
    return _is_of_pandas(given, "Series")


def _is_of_pandas(given: object, name: str) -> bool:
    # While another thread imports pandas, the module exists but has no classes yet.
    kind = getattr(sys.modules.get("pandas"), name, None)
    return kind is not None and isinstance(given, kind)


def name_columns(names: Sequence[str], taken: Collection[str], prefix: str = "_") -> dict[str, str]:
    """Return a column for each name: the name itself, or if that is taken, with a prefix.

    >>> name_columns(["calm", "unknown"], ["unknown"], "p_")
    {'calm': 'calm', 'unknown': 'p_unknown'}
    """
    columns, used = {}, {*taken, *names}
    for name in names:
        column = name
        if name in taken:
            while column in used:
                column = f"{prefix}{column}"
            used.add(column)
        columns[name] = column
    return columns


def refuse(spec: Input, value: object, row: Hashable | None = None) -> Fault:
    """Return the fault of a value that an input does not allow.

    Args:
        spec: the input.
        value: what arrived.
        row: the row's label.
    """
    allowed = spec.allowed
    if isinstance(spec, Number) and _is_too_large(value):
        allowed = IN_RANGE + (" or no value" if spec.missing else "")
    return Fault(spec.name, describe(value), allowed, row)


def _is_too_large(value: Any) -> bool:
    """Return whether a value is a finite number beyond `LARGEST`, also as text."""
    try:
        number = float(value)
    except OverflowError:  # of a whole number
        return True
    except (TypeError, ValueError):
        return False
    # A text with digits may overflow, too, unlike "inf".
    return abs(number) > LARGEST and any(map(str.isdigit, str(value)))


def _parse_column(spec: Input, column: Column) -> tuple[Floats, Iterable[int]]:
    """Return a column's parsed values and the positions of those not allowed."""
    if isinstance(spec, Number) and isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        numbers = column.astype(np.float64)
        good = np.abs(numbers) <= LARGEST
        if spec.placeholders and not good.all():
            odd = [
                place
                for place in np.flatnonzero(~good)
                if is_placeholder(numbers[place], spec.known_placeholders)
            ]
            numbers[odd] = np.nan
        if spec.missing:
            good |= np.isnan(numbers)
        return numbers, np.flatnonzero(~good).tolist()
    parsed = [spec.parse(value) for value in column]
    bad = [row for row, value in enumerate(parsed) if value is None]
    return np.array([math.nan if value is None else value for value in parsed]), bad


def _refuse_other_types(rows: Sequence[Any]) -> list[Fault]:
    """Return a fault for each row that is not a mapping."""
    return [
        Fault(ROW, describe(row), "values by input name", place)
        for place, row in enumerate(rows)
        if not isinstance(row, Mapping)
    ]
