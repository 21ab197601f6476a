"""The inputs of a table model as learned from its training data, and the one check of a row.

Every face (page, form, REST, file, command line) checks rows here, so a row gets the same answer,
or the same faults, through every door. Training encodes rows with the same `Schema.encode`.
"""

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from mlapp.errors import Fault, InvalidInput

Rows: TypeAlias = pd.DataFrame | Sequence[Mapping[str, Any]]
Column: TypeAlias = npt.NDArray[Any] | list[Any]
Floats: TypeAlias = npt.NDArray[np.float64]

# Texts that stand for a missing value, in training data and in rows to predict.
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")

# Larger numbers are refused: squares and sums of squares must stay finite in double precision.
LARGEST = 1e100

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Number(_Frozen):
    """A numeric input.

    Attributes:
        name: the column's name.
        minimum, maximum: the range seen in training.
        quantiles: the 5, 25, 50, 75 and 95 % quantiles in training.
        typical: the median, rounded to `decimals`; also stands in for a missing value.
        step: a sensible step for a person who moves the value.
        decimals: how many decimals a person needs, 0 or more.
        missing: whether training saw missing values, and so they are allowed.
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

    @property
    def allowed(self) -> str:
        """What the check accepts, in words."""
        return "a finite number" + (" or nothing" if self.missing else "")

    @property
    def terms(self) -> list[str]:
        """The names of this input's columns in the encoded matrix."""
        return [self.name] + ([f"{self.name} missing"] if self.missing else [])

    def parse(self, value: object) -> float | None:
        """Return the value as a float, NaN for a missing one, or None for one not allowed."""
        number = parse_number(value)
        return None if number is not None and math.isnan(number) and not self.missing else number

    def plain(self, parsed: float) -> float | None:
        """Return a parsed value as it would be typed, None when it is missing."""
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
        typical: the most frequent category, which the others are compared with.
        missing: whether training saw missing values, and so they are allowed.
    """

    kind: Literal["category"] = "category"
    name: str
    categories: tuple[str, ...]
    typical: str
    missing: bool = False

    @property
    def allowed(self) -> str:
        """What the check accepts, in words."""
        shown = ", ".join(map(repr, self.categories[:12]))
        more = len(self.categories) - 12
        text = f"one of {shown}" + (f" and {more} more" if more > 0 else "")
        return text + (" or nothing" if self.missing else "")

    @property
    def terms(self) -> list[str]:
        """The names of this input's columns in the encoded matrix."""
        names = [f"{self.name} = {other}" for other in self.categories if other != self.typical]
        return names + ([f"{self.name} missing"] if self.missing else [])

    @cached_property
    def _codes(self) -> dict[str, float]:
        return {category: float(code) for code, category in enumerate(self.categories)}

    def parse(self, value: object) -> float | None:
        """Return the category's position, NaN for a missing one, or None for one not allowed."""
        text = parse_text(value)
        if text is None:
            return math.nan if self.missing else None
        return self._codes.get(text)

    def plain(self, parsed: float) -> str | None:
        """Return the category at a parsed position, None when it is missing."""
        return None if math.isnan(parsed) else self.categories[int(parsed)]

    def encode(self, values: Floats) -> Floats:
        """Encode checked positions (n,) as indicators (n, len(terms))."""
        others = [code for other, code in self._codes.items() if other != self.typical]
        columns: list[npt.NDArray[Any]] = [values == code for code in others]
        columns += [np.isnan(values)] if self.missing else []
        return np.array(columns, dtype=float).reshape(len(columns), len(values)).T


Input: TypeAlias = Annotated[Number | Category, Field(discriminator="kind")]


class Output(_Frozen):
    """The predicted number: its column's name, and its range and decimals in training."""

    name: str
    minimum: float
    maximum: float
    decimals: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A value that is predicted with, although it lies outside the range seen in training."""

    input: str
    got: float
    minimum: float
    maximum: float
    row: Hashable

    @property
    def message(self) -> str:
        """The notice without its row, for faces that show one row."""
        seen = f"{self.minimum:.12g} to {self.maximum:.12g}"
        return f"{self.input}: {self.got:.12g} lies outside the range seen in training, {seen}"

    def __str__(self) -> str:
        return f"row {self.row}, {self.message}"


@dataclass(frozen=True)
class Checked:
    """Rows that passed the check.

    Attributes:
        index: the labels of the n rows.
        values: by input, n floats: the number, or the category's position; NaN is missing.
        unused: names of given columns that the model has no input for.
    """

    schema: "Schema"
    index: pd.Index
    values: dict[str, Floats]
    unused: tuple[str, ...] = ()

    def row(self, place: int) -> dict[str, float | str | None]:
        """Return one row's values as they would be typed, None where missing."""
        return {
            spec.name: spec.plain(float(self.values[spec.name][place]))
            for spec in self.schema.inputs
        }

    @cached_property
    def notices(self) -> list[Notice]:
        """The values outside the range seen in training, row by row."""
        found = []
        for place, spec in enumerate(self.schema.inputs):
            if isinstance(spec, Number):
                values = self.values[spec.name]
                for row in np.flatnonzero(
                    (values < spec.minimum) | (values > spec.maximum)
                ).tolist():
                    label, got = self.index[row], float(values[row])
                    notice = Notice(spec.name, got, spec.minimum, spec.maximum, label)
                    found.append((row, place, notice))
        return [notice for _, _, notice in sorted(found, key=lambda item: item[:2])]


class Schema(_Frozen):
    """The inputs, in the order of training, and the output."""

    inputs: tuple[Input, ...]
    output: Output

    @property
    def names(self) -> list[str]:
        """The inputs' names."""
        return [spec.name for spec in self.inputs]

    @property
    def typical(self) -> dict[str, Any]:
        """The row of typical values."""
        return {spec.name: spec.typical for spec in self.inputs}

    def __getitem__(self, name: str) -> Number | Category:
        return self.inputs[self.names.index(name)]

    def check(self, rows: Rows) -> Checked:
        """Check rows: columns by name, in any order; columns without an input are left out.

        Numbers may arrive as numbers or as plain decimal text. A missing value (None, NaN, or a
        text in `MISSING`) is allowed where training saw missing values.

        Args:
            rows: n rows, as a data frame or as mappings from input name to value.

        Raises:
            InvalidInput: with every fault of every row, or one per missing column.
        """
        if isinstance(rows, pd.DataFrame):
            index, given = rows.index, list(rows.columns)
            twice = {str(name) for name in given if given.count(name) > 1}
            faults = [Fault(name, "two columns", "one column") for name in sorted(twice)]
            faults += [
                Fault(name, "no such column", spec.allowed)
                for name, spec in zip(self.names, self.inputs, strict=True)
                if name not in given
            ]
            if faults:
                raise InvalidInput(faults)
            return self._check(index, given, {name: rows[name].to_numpy() for name in self.names})
        _require_mappings(rows)
        given = list(dict.fromkeys(name for row in rows for name in row))
        columns = {name: [row.get(name) for row in rows] for name in self.names}
        return self._check(pd.RangeIndex(len(rows)), given, columns)

    def check_columns(self, columns: Mapping[str, Column], rows: int) -> Checked:
        """Check rows that arrive as columns, as `check` does.

        Args:
            columns: n values each, by input name.
            rows: n.

        Raises:
            InvalidInput: with every fault of every row, or one per missing column.
        """
        absent = [spec for spec in self.inputs if spec.name not in columns]
        if absent:
            raise InvalidInput([Fault(s.name, "no such column", s.allowed) for s in absent])
        return self._check(pd.RangeIndex(rows), list(columns), columns)

    def _check(
        self, index: pd.Index, given: Sequence[object], columns: Mapping[str, Column]
    ) -> Checked:
        values = {}
        found = []
        for place, spec in enumerate(self.inputs):
            column = columns[spec.name]
            values[spec.name], bad = _parse_column(spec, column)
            for row in bad:
                fault = Fault(spec.name, describe(column[row]), spec.allowed, index[row])
                found.append((row, place, fault))
        if found:
            raise InvalidInput([item[2] for item in sorted(found, key=lambda item: item[:2])])
        unused = tuple(str(name) for name in given if name not in values)
        return Checked(self, index, values, unused)

    def encode(self, checked: Checked) -> Floats:
        """Encode checked rows as the matrix (n, len(terms)) that the regression is fitted on."""
        parts = [spec.encode(checked.values[spec.name]) for spec in self.inputs]
        return np.hstack(parts) if parts else np.empty((len(checked.index), 0))

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


def parse_number(value: object) -> float | None:
    """Return a value as a float, NaN when it is missing, None when it is no allowed number."""
    if isinstance(value, str):
        text = value.strip()
        if text in MISSING:
            return math.nan
        number = float(text) if _NUMBER.fullmatch(text) else math.inf
    elif _is_missing(value):
        return math.nan
    elif isinstance(value, Real | Decimal) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            return None
    else:
        return None
    return number if abs(number) <= LARGEST else None


def parse_text(value: object) -> str | None:
    """Return a category's value as text, None when it is missing; 3.0 and 3 are the same."""
    if isinstance(value, str):
        text = value.strip()
        return None if text in MISSING else text
    if _is_missing(value):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def describe(value: object) -> str:
    """Return what arrived, short enough for a message."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "nothing"
    text = repr(value[:80] if isinstance(value, str) else value)
    if isinstance(value, np.generic):
        text = repr(value.item())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_missing(value: object) -> bool:
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return value is None or value is pd.NA or value is pd.NaT


def _parse_column(spec: Number | Category, column: Column) -> tuple[Floats, Iterable[int]]:
    """Return a column's parsed values and the positions of those not allowed."""
    if isinstance(spec, Number) and isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        numbers = column.astype(np.float64)
        good = np.abs(numbers) <= LARGEST
        if spec.missing:
            good |= np.isnan(numbers)
        return numbers, np.flatnonzero(~good).tolist()
    parsed = [spec.parse(value) for value in column]
    bad = [row for row, value in enumerate(parsed) if value is None]
    return np.array([math.nan if value is None else value for value in parsed]), bad


def _require_mappings(rows: Sequence[Mapping[str, Any]]) -> None:
    faults = [
        Fault("row", describe(row), "values by input name", place)
        for place, row in enumerate(rows)
        if not isinstance(row, Mapping)
    ]
    if faults:
        raise InvalidInput(faults)
