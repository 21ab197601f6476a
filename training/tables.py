"""Tables to train on: read a file, leave out what teaches nothing, learn the schema."""

import hashlib
import math
import re
from collections.abc import Callable, Container, Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mlapp.dates import DAY, varying_parts
from mlapp.errors import InvalidData, InvalidTable
from mlapp.manifest import Data
from mlapp.schema import Category, Date, Input, Number, Output, Schema, describe
from mlapp.tables.chunks import Chunk
from mlapp.tables.formats import FileFormat, format_of
from mlapp.tables.numbers import LARGEST, MISSING, decimal_of, parse_numbers
from mlapp.tables.options import find_applicable
from mlapp.tables.reading import open_table
from mlapp.tables.values import to_values
from training.columns import MAY_BE_CODES, How, are_codes, group_rare, read_column
from training.columns import Say as Say
from training.progress import count_of

# Names of the columns that models answer with, and of the pages' button.
RESERVED = ("baseline", "lower", "predict", "prediction", "upper")
LEAST_SPREAD = 1 / LARGEST  # less than that squares to nothing
YEARS = (1500, 2200)  # a series of these does not count the rows
_PANDAS_INDEX = r"__index_level_\d+__"  # what pandas calls row names in Parquet


def read_table(
    path: Path,
    *,
    encoding: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
) -> tuple[pd.DataFrame, Data]:
    """Read a table with a header row, as `mlapp.tables.reading.open_table` does for scoring.

    Columns of text become numbers where every value is a number or missing. Texts in `MISSING` are
    missing values.

    Args:
        path: a file whose suffix, or else its first bytes, says its format; otherwise it is CSV.
        encoding: of a text file; see `FileFormat`.
        decimal: the decimal mark of CSV and TSV; see `FileFormat`.
        sheet: of an Excel workbook; see `FileFormat`.

    Raises:
        InvalidData: the file cannot be read, or a row of it; the message says why.
    """
    rows, about = read_rows(path, encoding=encoding, decimal=decimal, sheet=sheet)
    return to_frame(rows), about


def to_frame(rows: pa.Table, texts: Container[str] = ()) -> pd.DataFrame:
    """Return rows for pandas, as `read_table` does.

    Args:
        rows: as `read_rows` returned them.
        texts: names of columns that stay texts, where they are, also if all are numbers.
    """
    columns: dict[str, pd.Series] = {}
    for place, field in enumerate(rows.schema):
        if not re.fullmatch(_PANDAS_INDEX, field.name):
            column = rows.column(place).combine_chunks()
            is_text = field.name in texts
            columns[field.name] = _as_is(column) if is_text else _typed(column, decimal_of(field))
    table = pd.DataFrame(columns)
    table.attrs["decimals"] = {field.name: decimal_of(field) for field in rows.schema}
    return table


def find_codes(rows: pa.Table) -> set[str]:
    """Return the names of the columns of texts that numbers cannot represent."""
    found = set()
    for place, field in enumerate(rows.schema):
        if pa.types.is_string(field.type):
            words = pc.utf8_trim_whitespace(pc.unique(rows.column(place)))
            odd = words.filter(pc.match_substring_regex(words, MAY_BE_CODES))
            if len(odd) and are_codes(words.drop_null().to_pylist()):
                found.add(field.name)
    return found


def read_rows(
    path: Path,
    keep: Callable[[Chunk], pa.RecordBatch] = attrgetter("batch"),
    /,
    *,
    encoding: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
) -> tuple[pa.Table, Data]:
    """Read a table as `read_table` does, with its columns as they are in the file.

    Args:
        path: the table's file.
        keep: returns the rows of a chunk that are kept, by default all.
        encoding: of a text file; see `FileFormat`.
        decimal: the decimal mark of CSV and TSV; see `FileFormat`.
        sheet: of an Excel workbook; see `FileFormat`.

    Raises:
        InvalidData: as `read_table`.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file_format = _format(path, file).reading(encoding, decimal, sheet)
        with open_table(path, file_format) as table:
            batches, count = [], 0
            for chunk in table.chunks():
                for place, fault in sorted(chunk.faults.items())[:1]:
                    raise InvalidData(
                        f"{path} cannot be read as a table: row {count + place + 1:,}, {fault}"
                    )
                batches.append(keep(chunk))
                count += chunk.batch.num_rows
            schema = table.schema
    except OSError as error:
        raise InvalidData(f"{path} cannot be read: {error.strerror}") from error
    except InvalidTable as error:
        raise InvalidData(str(error)) from error
    rows = pa.Table.from_batches([batch.cast(schema) for batch in batches], schema)
    about = Data(source=path.name, rows=count, columns=len(schema), sha256=digest)
    return rows, about


def for_file(path: Path, reading: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return those options to read the data that also apply to another file, or folder of texts."""
    apply = find_applicable(path)
    return {flag: value for flag, value in reading.items() if value is not None and flag in apply}


def _format(path: Path, file: BinaryIO) -> FileFormat:
    """Return a file's format: by its name, or of a name that says none, by its first bytes."""
    try:
        return format_of(path.name)
    except InvalidTable:
        file.seek(0)
        start = file.read(4)
        if start.lstrip()[:1] in (b"{", b"["):  # JSON, which as CSV makes no sense
            raise
        return FileFormat("parquet" if start == b"PAR1" else "csv")


def _typed(whole: pa.Array, decimal: str | None) -> pd.Series:
    """Return a column for pandas: numbers where all values are, else as it is."""
    if pa.types.is_string(whole.type) or pa.types.is_decimal(whole.type):
        numbers, bad = parse_numbers(whole, decimal)
        if not bad:
            return pd.Series(numbers)
    return _as_is(whole)


def _as_is(whole: pa.Array) -> pd.Series:
    """Return a column for pandas, as it is."""
    if pa.types.is_string(whole.type):
        if pc.any(pc.match_substring(whole, "\0")).as_py():
            raise InvalidData("A text of the table holds NUL bytes: is it in another encoding?")
        cells = pc.utf8_trim_whitespace(whole)
        missing = pc.is_in(cells, pa.array(MISSING, pa.string()))
        return pd.Series(pc.if_else(missing, None, cells).to_pylist(), dtype=object)
    kind, types = whole.type, pa.types
    checks = (types.is_integer, types.is_floating, types.is_boolean, types.is_duration)
    if any(check(kind) for check in checks):
        return pd.Series(whole.to_pandas())
    return pd.Series(to_values(whole), dtype=object)  # as rows to predict have them


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
    decimal = table.attrs.get("decimals", {}).get(target)
    output, _ = read_column(target, table[target], say, decimal)
    if output.dtype.kind != "f":
        found = output.dropna()
        raise InvalidData(
            f"The target {target!r} must hold numbers; it holds"
            f" {describe(found.iloc[0] if len(found) else None)};"
            " python -m training.classification tells labels apart"
        )
    usable = output.abs() <= LARGEST
    if dropped := int((~usable).sum()):
        say(f"Left out {count_of(dropped, 'row')}: {target} is missing or not finite")
    output = output[usable]
    inputs = table.loc[usable].drop(columns=target)
    if output.nunique() < 2:
        raise InvalidData(
            f"The target {target!r} is constant or missing in every row: nothing to learn"
        )
    if output.max() - output.min() < LEAST_SPREAD:
        raise InvalidData(
            f"The values of the target {target!r} differ by less than {LEAST_SPREAD:g}; give it in"
            " a smaller unit"
        )
    return prepare_inputs(inputs, target, say), output


def require_free_names(names: Iterable[str], hint: str = "") -> None:
    """Check that no input has a name that answers or pages use.

    Args:
        names: the inputs.
        hint: what else can be done than to rename one.

    Raises:
        InvalidData: one has.
    """
    for name in names:
        if name in RESERVED:
            raise InvalidData(f"Rename the column {name!r}{hint}: answers use that name")
        if name.startswith("_"):
            raise InvalidData(
                f"Rename the column {name!r}{hint}: names that begin with '_' are the pages'"
            )


def prepare_inputs(inputs: pd.DataFrame, target: str, say: Say) -> pd.DataFrame:
    """Return the columns that may teach something, cleaned; tell the others through `say`.

    Raises:
        InvalidData: a column has a name that is not free, or none is left.
    """
    require_free_names(map(str, inputs), ", or leave it out with --drop")
    decimals = inputs.attrs.get("decimals", {})
    kept: dict[str, pd.Series] = {}
    how: dict[str, How] = {}
    left_out: list[str] = []
    for name in map(str, inputs):
        mark = decimals.get(name)
        column, how[name] = read_column(name, inputs[name], say, mark, codes=True)
        reason = _useless(name, column, kept)
        if reason is None and column.dtype == object:
            found = group_rare(name, column, say)
            if isinstance(found, str):
                reason = found
            else:
                column, more = found
                how[name] |= more
        if reason:
            say(f"Left out column {name}: {reason}")
            left_out.append(f"{name}: {reason}")
        else:
            kept[name] = column
    if not kept:
        reasons = "; ".join(left_out[:12]) or "the table has no other column"
        raise InvalidData(f"No column is left to predict {target!r} from ({reasons})")
    frame = pd.DataFrame(kept)
    frame.attrs["how"] = how
    return frame


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
    if column.dtype.kind == "f" and 0 < present.max() - present.min() < LEAST_SPREAD:
        return f"its values differ by less than {LEAST_SPREAD:g}"
    if column.dtype.kind == "m":
        return "it holds durations; turn them into numbers"
    for other, values in kept.items():
        if column.equals(values):
            return f"it repeats {other}"
    if column.dtype == object:
        if different > 0.9 * len(present) and different > 10:
            return "nearly every value is different, as in an identifier"
    elif column.dtype.kind != "M" and (
        different == len(column) > 10
        and (column == column.iloc[0] + np.arange(len(column))).all()
        and not (column.iloc[0] >= YEARS[0] and column.iloc[-1] <= YEARS[1])
    ):
        return "it counts the rows, as an identifier does"
    return None


def learn_schema(inputs: pd.DataFrame, output: "pd.Series[float]") -> Schema:
    """Learn the schema from inputs and output that `prepare` returned."""
    how = inputs.attrs.get("how", {})
    specs = [_learn_input(name, inputs[name], how.get(name, {})) for name in map(str, inputs)]
    return Schema(
        inputs=tuple(specs),
        output=Output(
            name=str(output.name),
            minimum=output.min(),
            maximum=output.max(),
            decimals=useful_decimals(output),
        ),
    )


def _learn_input(name: str, column: pd.Series, how: How) -> Input:
    if column.dtype == object:
        return _learn_category(name, column).model_copy(update=how)
    if column.dtype.kind == "M":
        return _learn_date(name, column, how["pattern"]).model_copy(update=how)
    return _learn_number(name, column).model_copy(update=how)


def _learn_date(name: str, column: pd.Series, pattern: str) -> Date:
    seconds = column.dropna().astype("datetime64[us]").astype("int64").to_numpy(dtype=float) / 1e6
    low, lower, middle, upper, high = np.quantile(
        seconds, [0.05, 0.25, 0.5, 0.75, 0.95], method="lower"
    ).tolist()
    found = Date(
        name=name,
        minimum=float(seconds.min()),
        maximum=float(seconds.max()),
        quantiles=(low, lower, middle, upper, high),
        typical="",
        pattern=pattern,
        timed=bool((seconds % DAY).any()),
        parts=varying_parts(seconds),
        missing=bool(column.isna().any()),
    )
    return found.model_copy(update={"typical": found.plain(middle)})


def _learn_number(name: str, column: "pd.Series[float]") -> Number:
    decimals = useful_decimals(column)
    low, lower, middle, upper, high = column.quantile([0.05, 0.25, 0.5, 0.75, 0.95])
    return Number(
        name=name,
        minimum=column.min(),
        maximum=column.max(),
        quantiles=(low, lower, middle, upper, high),
        typical=round(middle, decimals) + 0.0,  # no -0
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
