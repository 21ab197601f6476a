"""What the cells of a column are: numbers, maybe with units, dates, truth values, or categories.

A column of text whose cells are nearly all of one kind is of that kind; the few others are missing
values, and their rows are said.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlapp.dates import ISO, parse_moment
from mlapp.errors import quote
from mlapp.schema import Category, drop_ending, parse_number, parse_text, truth_of
from mlapp.tables.numbers import LARGEST, find_unit, parse_with_unit

NEARLY_ALL = 0.9  # of the cells that are not missing
FEWEST = 10  # cells of one kind, where some are not
MANY, MOST = 50, 250  # categories: of many, rare ones are one; trees know no more than the most
RARE = 5  # rows of a category; it says too little by itself
LEAST_SHARE = 0.05  # of the rows that the frequent categories have, or else the column is left out
MOST_PLACEHOLDERS = 1 << 17  # bytes of different unreadable cells, which the manifest keeps
SAMPLE = 200  # different cells that say whether a column is of dates or numbers

# Texts that a number may not stand for: those with leading zeros, and those with many digits.
MAY_BE_CODES = r"^[+-]?(?:0[0-9]|[0-9]{16,}$)"
_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)
NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?", re.ASCII)  # a label that is a number
_MIDNIGHT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]00:00:00", re.ASCII)

Say = Callable[[str], None]
How = dict[str, Any]  # what a schema's input has to know of how texts were read

_DAYS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%m/%d/%y")
_NAMED = ("%b %d, %Y", "%d %b %Y", "%B %d, %Y", "%d %B %Y", "%d-%b-%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
PATTERNS = (ISO, *(day + clock for day in (*_DAYS, *_NAMED) for clock in _CLOCKS), "%Y-%m")


def read_column(
    name: str, column: pd.Series, say: Say, decimal: str | None = None, *, codes: bool = False
) -> tuple[pd.Series, How]:
    """Return a column as floats, moments or texts, with missing values as NaN, NaT or None.

    Args:
        name: the column's.
        column: as the table has it; the index counts the rows of the file from 0.
        say: called with what was read otherwise than it is written.
        decimal: the decimal mark that the file has in this column.
        codes: whether texts stay texts where `are_codes` says that numbers cannot represent them.

    Returns:
        The column, and what its input in a schema has to know of how it was read.
    """
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        numbers = column.astype(float)
        bad = (numbers.abs() > LARGEST).to_numpy()
        how = say_unreadable(name, numbers, bad, "finite numbers", say)
        return numbers.mask(bad), how | _mark(decimal)
    if pd.api.types.is_timedelta64_dtype(column):
        return column, {}
    if pd.api.types.is_datetime64_any_dtype(column) or _holds_dates(column):
        return _moments(column, ISO), {"pattern": ISO}
    texts = pd.Series([parse_text(value) for value in column], index=column.index, dtype=object)
    read_numbers = partial(_read_numbers, decimal=decimal or ".", codes=codes)
    for read in (read_truths, read_numbers, _read_dates):
        if (found := read(name, texts, say)) is not None:
            return found
    return texts, {}


def say_unreadable(name: str, texts: pd.Series, bad: Any, what: str, say: Say) -> How:
    """Say which cells are taken as missing: their rows, and what the first holds.

    Returns:
        What the schema's input has to know of them: rows to predict may hold the same.
    """
    places = np.flatnonzero(bad)
    if len(places):
        rows = ", ".join(f"{int(texts.index[place]) + 1:,}" for place in places[:10])
        more = f" and {len(places) - 10:,} more" if len(places) > 10 else ""
        found = quote(sorted({str(texts.iloc[place]) for place in places[:10]}))
        say(
            f"{name}: {len(places):,} cells are not {what} and count as missing: {found} in"
            f" row{'s' if len(places) > 1 else ''} {rows}{more}"
        )
    if not len(places):
        return {}
    every = list(texts[bad].astype(str).str.strip().value_counts().index)
    sizes = np.cumsum([len(each.encode(errors="replace")) for each in every])
    kept = every[: int(np.searchsorted(sizes, MOST_PLACEHOLDERS, side="right"))]
    if len(kept) < len(every):
        say(
            f"{name}: of {len(every):,} such cells that differ, the {len(kept):,} most frequent"
            " count as missing in rows to predict, too; rows with another are refused"
        )
    return {"placeholders": tuple(sorted(kept))}


def _mark(decimal: str | None) -> How:
    """Return what a number's input has to know of a decimal mark; a point is usual."""
    return {"mark": decimal} if decimal == "," else {}


def _holds_dates(column: pd.Series) -> bool:
    import datetime

    present = column.dropna()
    return bool(
        len(present)
        and pd.api.types.is_object_dtype(column)
        and present.map(lambda value: isinstance(value, datetime.date)).all()
    )


def _moments(column: pd.Series, pattern: str) -> pd.Series:
    found = {value: parse_moment(value, pattern) for value in column.dropna().unique()}
    seconds = column.map(lambda value: found.get(value)).astype(float)
    whole = (seconds * 1e6).round()
    moments = whole.fillna(0).astype("int64").astype("datetime64[us]")
    return moments.where(seconds.notna())


# --- truth values ----------------------------------------------------------------------------


def read_truths(name: str, texts: pd.Series, say: Say) -> tuple[pd.Series, How] | None:
    """Read a column of more than two words for true and false."""
    words = texts.dropna().unique()
    truths = {word: truth_of(word) for word in words}
    if len(words) < 3 or None in truths.values() or len(set(truths.values())) < 2:
        return None
    say(f"{name}: {quote(sorted(words))} are read as True and False")
    read = [None if word is None else str(truths[word]) for word in texts]
    return pd.Series(read, index=texts.index, dtype=object), {}


# --- numbers ---------------------------------------------------------------------------------


def _read_numbers(
    name: str, texts: pd.Series, say: Say, decimal: str, codes: bool
) -> tuple[pd.Series, How] | None:
    """Read a column of numbers, of which some have a unit or thousands marks, or are unreadable.

    The decimal mark is the one with which more cells can be read; the others may be plain.
    """
    words = texts.dropna().unique()
    if sum(find_unit(word) is not None for word in words[:SAMPLE]) < len(words[:SAMPLE]) / 2:
        return None  # the rest need not be looked at
    counts = texts.value_counts()
    units: dict[str, int] = {}
    for word in words:
        if unit := find_unit(word):
            units[unit] = units.get(unit, 0) + int(counts[word])
    unit = max(units, key=lambda each: units[each], default="")
    best: dict[str, float] = {}
    mark = decimal
    for each in (decimal, "," if decimal == "." else "."):
        found = {word: parse_with_unit(word, unit, each) for word in words}
        read = {word: number for word, number in found.items() if number is not None}
        if sum(counts[word] for word in read) > sum(counts[word] for word in best):
            best, mark = read, each
    others = {word: parse_number(word) for word in words if word not in best}
    best |= {word: number for word, number in others.items() if number is not None}
    numbers = texts.map(lambda word: best.get(word) if isinstance(word, str) else None)
    numbers = numbers.astype(float)
    bad = (texts.notna() & numbers.isna()).to_numpy()
    if not _nearly_all(texts, bad):
        return None
    if codes and not unit and are_codes(best):
        odd = next(word for word in best if re.match(MAY_BE_CODES, word))
        say(f"{name}: read as texts, since numbers cannot represent values such as {odd!r}")
        return texts, {}
    plain = not unit and all(parse_number(word) == number for word, number in best.items())
    if not plain:
        shown = quote([str(word) for word in list(best)[:2]])
        say(f"{name}: {shown} are read as numbers{f', in {unit}' if unit else ''}")
    how = say_unreadable(name, texts, bad, "numbers", say)
    return numbers, how | (_mark(decimal) if plain else {"unit": unit, "mark": mark})


def are_codes(words: Iterable[str]) -> bool:
    """Return whether texts that can be read as numbers are codes, as 01234 is.

    Codes begin with 0 and another digit, or are whole numbers of which floats make two the same.
    Many different numbers with decimals are measurements, whose zeros only fill them up.
    """
    every = list(words)
    if padded := [word for word in every if re.match(r"[+-]?0[0-9]", word)]:
        return any(map(_WHOLE.fullmatch, padded)) or len(every) <= MANY
    whole = {int(word) for word in every if len(word) > 15 and _WHOLE.fullmatch(word)}
    return len(set(map(float, whole))) < len(whole)


def _nearly_all(texts: pd.Series, bad: npt.NDArray[np.bool_]) -> bool:
    present, good = int(texts.notna().sum()), int(texts.notna().sum() - bad.sum())
    return good > 0 and (good == present or good >= max(FEWEST, NEARLY_ALL * present))


# --- dates -----------------------------------------------------------------------------------


def _read_dates(name: str, texts: pd.Series, say: Say) -> tuple[pd.Series, How] | None:
    """Read a column of dates that are all written one way."""
    words = texts.dropna().unique()[:SAMPLE]
    if not len(words) or np.mean([any(map(str.isdigit, word)) for word in words]) < NEARLY_ALL:
        return None
    hits = {
        pattern: sum(parse_moment(word, pattern) is not None for word in words)
        for pattern in PATTERNS
    }
    if max(hits.values()) < len(words) / 2:
        return None
    pattern = max(hits, key=lambda each: hits[each])
    moments = _moments(texts, pattern)
    bad = (texts.notna() & moments.isna()).to_numpy()
    if not _nearly_all(texts, bad):
        return None
    if pattern == ISO:
        say(f"{name}: read as dates")
    else:
        say(f"{name}: read as dates, written {pattern}: {words[0]} is {moments.dropna().iloc[0]}")
    how = say_unreadable(name, texts, bad, "dates", say)
    return moments, how | {"pattern": pattern}


# --- labels ----------------------------------------------------------------------------------


def plain_labels(values: Sequence[str | None], say: Say) -> Sequence[str | None]:
    """Write all numbers as whole ones, or all times as days, where they are: formats differ.

    More than two words for true and false are read as these.
    """
    given = {value for value in values if value is not None}
    truths = {value: truth_of(value) for value in given}
    if len(given) > 2 and set(truths.values()) == {True, False}:
        say(f"The labels {quote(sorted(given))} are read as True and False")
        return [None if value is None else str(truths[value]) for value in values]
    if any(all(map(kind.fullmatch, given)) for kind in (NUMBER, _MIDNIGHT)):
        return [None if value is None else drop_ending(value) for value in values]
    # Among other words, 1.0 is 1 if there is a 1: serving takes them for the same.
    same = {value: plain for value in given if (plain := drop_ending(value)) in given}
    return [None if value is None else same.get(value, value) for value in values]


# --- categories ------------------------------------------------------------------------------


def group_rare(name: str, texts: pd.Series, say: Say) -> tuple[pd.Series, How] | str:
    """Return a column with its rare categories as one, or why it is to be left out."""
    counts = texts.value_counts()
    if len(counts) <= MANY:
        return texts, {}
    common = counts[counts >= RARE].index
    if len(common) == len(counts) <= MOST:
        return texts, {}
    frequent = sorted(common, key=lambda word: (-counts[word], word))[: MOST - 1]
    share = counts[frequent].sum() / counts.sum()
    if share < LEAST_SHARE:
        return (
            f"it has {len(counts):,} categories, and the {len(frequent)} most frequent have"
            f" {share:.1%} of the rows"
        )
    other = "other"
    while other in counts.index and other not in frequent:
        frequent.append(other)
    categories = tuple(sorted({*frequent, other}))
    known = Category(name=name, categories=categories, typical=frequent[0], other=other)
    # Each counts as it will in a row to predict: 5.0 as 5, where that is known and 5.0 is not.
    plain = {word: known.plain(known.parse(word) or 0.0) for word in counts.index}
    grouped = pd.Series([plain.get(word) for word in texts], index=texts.index, dtype=object)
    if other not in frequent and not (grouped == other).any():
        return grouped, {}
    say(
        f"{name}: of {len(counts):,} categories, the {len(frequent)} most frequent are used, which"
        f" have {share:.0%} of the rows; the rest count as {other!r}"
    )
    return grouped, {"other": other}
