"""Tables to train on: read a file, leave out what teaches nothing, learn the schema."""

import codecs
import csv
import gzip
import hashlib
import io
import math
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from mlapp.artifacts import Data
from mlapp.errors import InvalidData
from mlapp.schema import LARGEST, MISSING, Category, Number, Output, Schema, describe, parse_text

MAX_CATEGORIES = 50  # more are refused: each costs a column and needs rows of its own
# Names of the columns that models answer with, and of the pages' button.
RESERVED = ("baseline", "lower", "predict", "prediction", "upper")
SUFFIXES = "CSV, TSV (also .gz or .zip) or Parquet"

Say = Callable[[str], None]


def read_table(path: Path) -> tuple[pd.DataFrame, Data]:
    """Read a table with a header row: CSV, TSV or the like, plain, gzipped or zipped, or Parquet.

    The separator (comma, semicolon, tab or bar), a byte-order mark and decimal commas are
    recognised. Texts in `MISSING` are missing values.

    Raises:
        InvalidData: the file cannot be read, or its header cannot be used; the message says why.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidData(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            table = pd.read_parquet(io.BytesIO(raw))
        except (OSError, ValueError) as error:
            raise InvalidData(f"{path} cannot be read as Parquet: {error}") from error
    else:
        table = _read_delimited(path, unpack(path, raw))
    names = [str(name) for name in table.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidData(f"{path} has several columns named {', '.join(map(repr, twice))}")
    table.columns = pd.Index(names)
    data = Data(
        source=path.name,
        rows=len(table),
        columns=len(names),
        sha256=hashlib.sha256(raw).hexdigest(),
    )
    return table, data


def unpack(path: Path, raw: bytes) -> bytes:
    """Return the bytes of a file, unpacked where it is gzipped or zipped.

    Raises:
        InvalidData: it is broken, or a .zip of several files.
    """
    try:
        if raw.startswith(b"\x1f\x8b"):
            return gzip.decompress(raw)
        if raw.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                inside = [entry for entry in archive.namelist() if not entry.endswith("/")]
                if len(inside) != 1:
                    raise InvalidData(f"{path} holds {len(inside)} files, expected one")
                return archive.read(inside[0])
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidData(f"{path} cannot be unpacked: {error}") from error
    return raw


def _read_delimited(path: Path, raw: bytes) -> pd.DataFrame:
    encoding = (
        "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    )
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidData(
            f"{path} is not {encoding} text (byte {error.start}): expected {SUFFIXES}, in UTF-8"
        ) from error
    if "\0" in text:
        raise InvalidData(f"{path} holds NUL bytes: expected {SUFFIXES}")
    header = text.partition("\n")[0]
    separator = max(",;\t|", key=header.count)
    names = next(csv.reader([header.rstrip("\r")], delimiter=separator), [])
    if not any(names):
        raise InvalidData(f"{path} is empty: expected a header row and data rows")
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise InvalidData(f"{path} has several columns named {', '.join(map(repr, twice))}")

    def read(decimal: str) -> pd.DataFrame:
        return pd.read_csv(
            io.StringIO(text),
            sep=separator,
            decimal=decimal,
            index_col=False,
            na_values=list(MISSING),
            keep_default_na=False,
            skipinitialspace=True,
            low_memory=False,
        )

    try:
        with warnings.catch_warnings():
            # pandas only warns where a row has more fields than the header.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = read(".")
            if separator != "," and any(_has_decimal_commas(table[name]) for name in table):
                table = read(",")
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise InvalidData(f"{path} cannot be read as a table: {error}") from error
    return table


def _has_decimal_commas(column: "pd.Series[str]") -> bool:
    if pd.api.types.is_numeric_dtype(column):
        return False
    values = column.dropna().astype(str)
    return len(values) > 0 and bool(values.str.fullmatch(r"\s*[+-]?[0-9]+(,[0-9]+)?\s*").all())


def prepare(table: pd.DataFrame, target: str, say: Say) -> tuple[pd.DataFrame, "pd.Series[float]"]:
    """Leave out the rows and columns that teach nothing; tell each through `say`.

    Args:
        table: as read.
        target: the column to predict.
        say: called with a line for each thing left out.

    Returns:
        The inputs and the target of the rows that are left.

    Raises:
        InvalidData: there is no such target, it is not numeric or constant, or no input is left.
    """
    if target not in table:
        raise InvalidData(
            f"There is no column {target!r}; choose --target from {', '.join(map(str, table))}"
        )
    if reserved := [name for name in RESERVED if name in table and name != target]:
        raise InvalidData(f"Rename the column {reserved[0]!r}: answers use that name")
    if private := [name for name in map(str, table) if name.startswith("_")]:
        raise InvalidData(
            f"Rename the column {private[0]!r}: names that begin with '_' are the pages'"
        )
    output = table[target]
    if not pd.api.types.is_numeric_dtype(output) or pd.api.types.is_bool_dtype(output):
        numbers = pd.to_numeric(output.astype(str), errors="coerce")
        odd = output[numbers.isna() & output.notna()]
        found = (
            describe(odd.iloc[0]) if len(odd) else describe(output.iloc[0] if len(output) else None)
        )
        raise InvalidData(f"The target {target!r} must hold numbers; it holds {found}")
    output = output.astype(float)
    usable = output.abs() <= LARGEST
    if dropped := int((~usable).sum()):
        say(f"Left out {dropped} rows: {target} is missing or not finite")
    output = output[usable]
    inputs = table.loc[usable].drop(columns=target)
    if output.nunique() < 2:
        raise InvalidData(
            f"The target {target!r} is constant or missing in every row: nothing to learn"
        )
    kept: dict[str, pd.Series] = {}
    for name in map(str, inputs):
        column = _clean(inputs[name])
        reason = _useless(name, column, kept)
        if reason:
            say(f"Left out column {name}: {reason}")
        else:
            kept[name] = column
    if not kept:
        raise InvalidData(f"No column is left to predict {target!r} from")
    return pd.DataFrame(kept), output


def _clean(column: pd.Series) -> pd.Series:
    """Return numbers as floats (NaN for missing and infinite), all else as text (None)."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        numbers = column.astype(float)
        return numbers.where(numbers.abs() <= LARGEST)
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        return column
    return pd.Series([parse_text(value) for value in column], index=column.index, dtype=object)


def _useless(name: str, column: pd.Series, kept: dict[str, pd.Series]) -> str | None:
    """Return why a cleaned column teaches nothing, or None."""
    present = column.dropna()
    different = present.nunique()
    if not name or name.startswith("Unnamed: "):
        return "it has no name"
    if different == 0:
        return "every value is missing"
    if different == 1 and len(present) == len(column):
        return f"it is constant ({describe(present.iloc[0])})"
    if column.dtype.kind in "Mm":
        return "it holds dates or times; turn them into numbers"
    for other, values in kept.items():
        if column.equals(values):
            return f"it repeats {other}"
    if column.dtype == object:
        if different > 0.9 * len(present) and different > 10:
            return "nearly every value is different, as in an identifier"
        if different > MAX_CATEGORIES:
            return f"it has {different} categories, at most {MAX_CATEGORIES} are used"
    elif (
        different == len(column) > 10 and (column == column.iloc[0] + np.arange(len(column))).all()
    ):
        return "it counts the rows, as an identifier does"
    return None


def learn_schema(inputs: pd.DataFrame, output: "pd.Series[float]") -> Schema:
    """Learn the schema from inputs and output that `prepare` returned."""
    specs = [
        _learn_category(name, inputs[name])
        if inputs[name].dtype == object
        else _learn_number(name, inputs[name])
        for name in map(str, inputs)
    ]
    return Schema(
        inputs=tuple(specs),
        output=Output(
            name=str(output.name),
            minimum=output.min(),
            maximum=output.max(),
            decimals=useful_decimals(output),
        ),
    )


def _learn_number(name: str, column: "pd.Series[float]") -> Number:
    decimals = useful_decimals(column)
    low, lower, middle, upper, high = column.quantile([0.05, 0.25, 0.5, 0.75, 0.95])
    return Number(
        name=name,
        minimum=column.min(),
        maximum=column.max(),
        quantiles=(low, lower, middle, upper, high),
        typical=round(middle, decimals),
        step=max(10.0**-decimals, _round_step((column.max() - column.min()) / 1000)),
        decimals=decimals,
        missing=bool(column.isna().any()),
    )


def _learn_category(name: str, column: "pd.Series[str]") -> Category:
    counts = column.value_counts()
    return Category(
        name=name,
        categories=tuple(sorted(counts.index)),
        typical=min(counts.index, key=lambda value: (-counts[value], value)),
        missing=bool(column.isna().any()),
    )


def useful_decimals(column: "pd.Series[float]") -> int:
    """Return how many decimals a person needs: the data's own, to about 1/1000 of its range."""
    values = column.dropna().to_numpy()
    spread = float(values.max() - values.min()) or abs(float(values[0])) or 1.0
    needed = max(0, math.floor(3 - math.log10(spread)))
    for decimals in range(needed):
        if np.allclose(values, np.round(values, decimals), rtol=0, atol=1e-9 * 10.0**-decimals):
            return decimals
    return needed


def _round_step(step: float) -> float:
    """Return the number 1, 2 or 5 times a power of ten at or below a step; 0 for 0."""
    if step == 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(step))
    return max(factor for factor in (1, 2, 5) if factor * power <= step * (1 + 1e-9)) * power
