"""The values of Arrow's columns as Python's: the same in training, in scoring and in writing."""

from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# A time that is out of its range, or whose zone it does not know; pytz raises the last.
_UNKNOWN_TO_PYTHON = (OverflowError, ValueError, KeyError)
_DATES = (datetime(1, 1, 1), datetime(9999, 12, 31))


def to_values(column: pa.Array) -> list[Any]:
    """Return the values of a column (n,); dates and times that Python cannot hold become texts."""
    column = known_zone(column)
    try:
        values: list[Any] = column.to_pylist()
    except _UNKNOWN_TO_PYTHON:
        return [_to_value(column.slice(place, 1)) for place in range(len(column))]
    return values


def known_zone(column: pa.Array) -> pa.Array:
    """Return times in UTC if their zone is not known, which are the same moments."""
    if pa.types.is_timestamp(column.type) and column.type.tz:
        try:
            moment = pa.scalar(0, column.type)
            moment.cast(pa.string())
            moment.as_py()
        except _UNKNOWN_TO_PYTHON:
            return column.cast(pa.timestamp(column.type.unit, "UTC"))
    return column


def write_out(column: pa.Array) -> pa.Array:
    """Return a column that is not nested as texts, as Arrow writes them.

    Raises:
        ArrowNotImplementedError: it has a type without a text form.
    """
    column = known_zone(column)
    texts, kind = column.cast(pa.string()), column.type
    if pa.types.is_timestamp(kind) and kind.tz and kind.unit != "ns":
        # In a zone, Arrow writes wrong dates for years far beyond those of Python.
        plain = column.cast(pa.timestamp(kind.unit))
        first, last = (pa.scalar(each, plain.type) for each in _DATES)
        is_far = pc.or_(pc.less(plain, first), pc.greater(plain, last))
        if pc.any(is_far).as_py():
            return pc.if_else(is_far, plain.cast(pa.string()), texts)
    return texts


def _to_value(column: pa.Array) -> Any:
    """Return the value of a column of one row; see `to_values`."""
    column = known_zone(column)
    kind = column.type
    try:
        return column[0].as_py()
    except _UNKNOWN_TO_PYTHON:
        if pa.types.is_struct(kind):
            children = zip(kind, column.flatten(), strict=True)
            return {field.name: _to_value(child) for field, child in children}
        if pa.types.is_map(kind):
            keys, items = column[0].values.flatten()
            return list(zip(to_values(keys), to_values(items), strict=True))
        if pa.types.is_nested(kind):
            return to_values(column[0].values)
        return write_out(column)[0].as_py()
