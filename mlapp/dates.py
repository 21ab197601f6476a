"""Dates and times as inputs: read from text, kept as seconds since 1970 (UTC), taken apart."""

import math
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from mlapp.tables.numbers import MISSING, Floats, is_missing, is_placeholder

ISO = "iso"
DAY = 86_400  # seconds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The seconds since 1970 that have a date: those of the years 1 to 9999.
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
_END = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) + 1
_PARTS = ("days", "year", "month", "day", "weekday", "hour")


def parse_moment(value: object, pattern: str = ISO) -> float | None:
    """Return a date or time as seconds since 1970, NaN when it is missing, None if it is neither.

    A time without a zone is taken as it stands.

    Args:
        value: a text, or an object of datetime, numpy or pandas.
        pattern: of `strptime`, tried where a text is not as ISO 8601 has it.
    """
    if isinstance(value, np.datetime64):
        is_finer = np.datetime_data(value)[0] in ("ns", "ps", "fs", "as")
        # From a coarser unit the cast to microseconds could overflow, to another moment.
        value = (value.astype("datetime64[us]") if is_finer else value).astype(object)
    if isinstance(value, str):
        text = value.strip()
        if text in MISSING:
            return math.nan
        value = _read(text, pattern)
        if value is None:
            return None
    elif is_missing(value):
        return math.nan
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        return None
    try:
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        seconds = (aware - _EPOCH) / timedelta(seconds=1)
    except (OverflowError, ValueError):  # a moment of pandas, which has later years
        return None
    return seconds if _FIRST <= seconds < _END else None  # others have no date in UTC


def _read(text: str, pattern: str) -> datetime | None:
    if len(text) >= len("20240131"):  # a shorter one is a number, rather
        with suppress(ValueError):
            return datetime.fromisoformat(text)
    if pattern != ISO:
        with suppress(ValueError):
            return datetime.strptime(text, pattern)
    return None


class Date(BaseModel):
    """An input that is a date, or a date with a time.

    Attributes:
        name: the column's name.
        minimum: the earliest seen in training, in seconds since 1970.
        maximum: the latest.
        quantiles: the 5, 25, 50, 75 and 95 % quantiles in training, likewise.
        typical: the middle one, as text; also stands in for a missing value.
        pattern: `iso`, or a pattern of `strptime` that texts may have beside ISO 8601.
        timed: whether the time of the day matters.
        parts: what is learned from, of days, year, month, day, weekday, hour: what varies.
        missing: whether training saw missing values, and so they are allowed.
        placeholders: texts that stood for missing values in training, such as "?".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["date"] = "date"
    name: str
    minimum: float
    maximum: float
    quantiles: tuple[float, float, float, float, float]
    typical: str
    pattern: str = ISO
    timed: bool = False
    parts: tuple[str, ...] = ("days",)
    missing: bool = False
    placeholders: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """What the check accepts, in words."""
        example = "2024-01-31 13:30" if self.timed else "2024-01-31"
        if self.pattern != ISO:
            shown = datetime(2024, 1, 31, 13, 30).strftime(self.pattern)
            example += f" or {shown}"
        return f"a date such as {example}" + (" or no value" if self.missing else "")

    @property
    def seen(self) -> str:
        """What training saw, in words."""
        return f"{self.plain(self.minimum)} to {self.plain(self.maximum)}"

    def parse(self, value: object) -> float | None:
        """Return seconds since 1970, NaN for a missing value, or None for one not allowed."""
        found = parse_moment(value, self.pattern)
        if found is None and is_placeholder(value, self.placeholders):
            found = math.nan
        return None if found is not None and math.isnan(found) and not self.missing else found

    def plain(self, parsed: float) -> str | None:
        """Return parsed seconds as text, None when they are missing."""
        if math.isnan(parsed):
            return None
        moment = (_EPOCH + timedelta(seconds=min(round(parsed), _END - 1))).replace(tzinfo=None)
        return moment.isoformat(" ") if self.timed else moment.date().isoformat()

    @cached_property
    def _typical(self) -> float:
        return parse_moment(self.typical) or 0.0

    @property
    def terms(self) -> list[str]:
        """The names of this input's columns in the encoded matrix."""
        return [*self._waves(np.zeros(0)), *([f"{self.name} missing"] if self.missing else [])]

    def encode(self, values: Floats) -> Floats:
        """Encode checked seconds (n,) as a matrix (n, len(terms)) for a linear model.

        The trend is a line; the year and the day are circles; each day of the week has a column.
        """
        absent = np.isnan(values)
        columns = list(self._waves(np.where(absent, self._typical, values)).values())
        return np.array([*columns, *([absent] if self.missing else [])], dtype=float).T

    def _waves(self, seconds: Floats) -> dict[str, Floats]:
        found = {f"{self.name} in days": seconds / DAY}
        circles = [("of the year", "month", 365.2425 * DAY), ("of the day", "hour", DAY)]
        for part, needed, length in circles:
            if needed in self.parts:
                # The same time of each day has the same angle, to the last bit.
                angle = 2 * math.pi * np.mod(seconds, length) / length
                found[f"{self.name} sine {part}"] = np.sin(angle)
                found[f"{self.name} cosine {part}"] = np.cos(angle)
        if "weekday" in self.parts:
            weekday = take_apart(seconds, ["weekday"])[:, 0]
            names = ["Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
            for number, name in enumerate(names, start=1):
                found[f"{self.name} on {name}"] = (weekday == number).astype(float)
        return found

    def expand(self, values: Floats) -> Floats:
        """Return checked seconds (n,) as a matrix (n, len(parts)) for trees; NaN is missing."""
        return take_apart(values, self.parts)


def take_apart(seconds: Floats, parts: Sequence[str]) -> Floats:
    """Return parts of moments (n,), (n, len(parts)): numbers, Monday is 0; NaN is missing."""
    absent = np.isnan(seconds)
    whole = np.floor(np.where(absent, 0, seconds)).astype("int64").astype("datetime64[s]")
    months, days = whole.astype("datetime64[M]"), whole.astype("datetime64[D]")
    numbers: dict[str, npt.NDArray[Any]] = {
        "days": seconds / DAY,
        "year": whole.astype("datetime64[Y]").astype(float) + 1970,
        "month": months.astype("int64") % 12 + 1,
        "day": (days - months.astype("datetime64[D]")).astype(float) + 1,
        "weekday": (days.astype("int64") + 3) % 7,
        "hour": (whole - days.astype("datetime64[s]")).astype(float) / 3600,
    }
    found = np.array([numbers[part] for part in parts], dtype=float).T.reshape(-1, len(parts))
    found[absent] = np.nan
    return found


def varying_parts(seconds: Floats) -> tuple[str, ...]:
    """Return the parts in which moments (n,) differ."""
    found = take_apart(seconds[~np.isnan(seconds)], _PARTS)
    return tuple(
        part for part, values in zip(_PARTS, found.T, strict=True) if len(np.unique(values)) > 1
    ) or ("days",)
