"""A table as it is trained on: the file, the columns, and the checked rows with their targets."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlapp.errors import InvalidData, quote
from mlapp.manifest import Data
from mlapp.schema import (
    Checked,
    Floats,
    Number,
    Schema,
    match_label,
    parse_number,
    parse_text,
    settle_marks,
)
from training.columns import plain_labels, read_column
from training.folds import Groups, find_observations, number_rows
from training.losses import fingerprints
from training.progress import count_of
from training.tables import (
    Say,
    find_codes,
    for_file,
    learn_schema,
    prepare,
    prepare_inputs,
    read_rows,
    to_frame,
)

FEWEST_OF_LABEL = 5  # rows; a label with fewer can be neither learned nor measured
MOST_LABELS = 100
FEEDBACK_HELP = "judged answers, as --extra, but not of the next training: mlapp retrain adds them"


@dataclass(frozen=True)
class Source:
    """What is read.

    Attributes:
        data: the table's file.
        target: the column to predict.
        reading: how files are read; see `tables.read_table`.
        group: the column whose equal values are held out together.
        time: the column whose order the folds follow.
        drop: columns to leave out.
        keep: columns to use, and no others; by default all.
        extra: tables with more rows, which are only learned from.
        feedback: the same, of judged answers; `mlapp retrain` writes it anew each time.
    """

    data: Path
    target: str
    reading: Mapping[str, str | None] = field(default_factory=dict)
    group: str | None = None
    time: str | None = None
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    extra: Sequence[Path] = ()
    feedback: Path | None = None


@dataclass(frozen=True)
class TrainingRows:
    """Rows to fit and measure on.

    Attributes:
        checked: the inputs of n rows.
        target: what they are to predict, (n,): numbers, or the places of labels.
        labels: what is told apart; () where a number is predicted.
        groups: the group of each row that `--group` names, (n,), or None.
        times: the time of each row that `--time` names, (n,), or None.
        about: the file.
        extra: how many rows at the end are of `--extra`: they have no group, and no time.
    """

    checked: Checked
    target: Any
    labels: tuple[str, ...]
    groups: Groups | None
    times: Floats | None
    about: Data
    extra: int = 0


def read_training_rows(source: Source, classifies: bool, say: Say) -> TrainingRows:
    """Read a table, leave out what teaches nothing, and learn the inputs.

    Raises:
        InvalidData: it cannot be trained on; the message names the column.
    """
    rows, about = read_rows(source.data, **source.reading)
    texts = find_codes(rows) - {source.target, source.time}
    table = to_frame(rows, texts | {source.target} if classifies else texts)
    say(f"Read {about.rows:,} rows and {about.columns} columns from {source.data}")
    for option, name in (("--group", source.group), ("--time", source.time)):
        if name is not None and name not in table:
            raise InvalidData(
                f"There is no column {name!r}; choose {option} from {quote(map(str, table))}"
            )
        if name == source.target:
            raise InvalidData(f"{option}: {name!r} is the target")
    inputs, target, labels = _choose(table, source, classifies, say)
    schema = learn_schema(inputs, pd.Series(target, dtype=float, name=source.target))
    schema = Schema(inputs=schema.inputs) if classifies else schema
    used = inputs.index
    found = TrainingRows(
        schema.check(inputs.reset_index(drop=True)),
        np.asarray(target),
        labels,
        None if source.group is None else _number(table.loc[used, source.group]),
        None if source.time is None else _times(source.time, table.loc[used, source.time]),
        about,
    )
    added = [*source.extra, *([] if source.feedback is None else [source.feedback])]
    return add_extra(found, source, added, say) if added else found


def add_extra(rows: TrainingRows, source: Source, added: Sequence[Path], say: Say) -> TrainingRows:
    """Return the rows with those of more tables behind them, which are only learned from.

    Left out are rows that the model could not be asked about, or without a target, and those that
    are among the others, which are held out at some time, unless equal rows are observations of
    their own. Categories and labels are matched as the file writes them.

    Raises:
        InvalidData: a table cannot be read, or a column is not there.
    """
    schema = rows.checked.schema
    alone = find_observations(number_rows(rows.checked.matrix), rows.target)
    held = np.flatnonzero(~alone)
    kept = Checked(schema, rows.checked.matrix[held])
    known = set(fingerprints(kept, rows.target[held].tolist(), source.target))
    matrix, targets = list[Floats](), list[float]()
    for path in added:
        table = _read_extra(path, rows, source, say)
        found, repeated = list[tuple[Floats, float]](), 0
        usable = list(_usable(table, rows, source.target))
        for parsed, target in usable:
            one = Checked(schema, np.array([parsed], dtype=np.float64))
            if fingerprints(one, [target], source.target)[0] in known:
                repeated += 1
            else:
                found.append((one.matrix[0], target))
        what = "judged answers" if path == source.feedback else f"more rows of {path}"
        say(
            f"Learning from {len(found):,} {what}; left out are {repeated:,} that are held out, and"
            f" {len(table) - len(usable):,} whose values cannot be used"
        )
        matrix += [row for row, _ in found]
        targets += [target for _, target in found]
    if not matrix:
        return rows
    return replace(
        rows,
        checked=Checked(schema, np.vstack([rows.checked.matrix, matrix])),
        target=np.concatenate([rows.target, np.array(targets, dtype=rows.target.dtype)]),
        extra=len(matrix),
    )


def _read_extra(path: Path, rows: TrainingRows, source: Source, say: Say) -> pd.DataFrame:
    """Return a table of more rows.

    Raises:
        InvalidData: it cannot be read, or a column is not there.
    """
    read, _ = read_rows(path, **for_file(path, source.reading))
    schema = rows.checked.schema
    read = read.cast(settle_marks({spec.name: spec for spec in schema.inputs}, read.schema))
    texts = {spec.name for spec in schema.inputs if not isinstance(spec, Number)}
    table = to_frame(read, texts | {source.target} if rows.labels else texts)
    needed = [*(spec.name for spec in schema.inputs if not spec.missing), source.target]
    if absent := [name for name in needed if name not in table]:
        if path != source.feedback:
            raise InvalidData(f"{path} has no column {quote(absent)}")
        say(f"Judged answers have no value of {quote(absent)}, which the data has")
    if not rows.labels:
        mark = table.attrs["decimals"].get(source.target)
        numbers, _ = read_column(source.target, table[source.target], lambda _: None, mark)
        table[source.target] = numbers
    return table


def _usable(
    table: pd.DataFrame, rows: TrainingRows, name: str
) -> Iterator[tuple[list[float], float]]:
    """Yield the parsed inputs and the target of each row of a table that has both."""
    places = {label: place for place, label in enumerate(rows.labels)}
    marks = table.attrs["decimals"]
    for row in table.to_dict("records"):
        value = row[name]
        target = places.get(match_label(value, places) or "") if places else parse_number(value)
        parsed = [
            spec.parse(row.get(spec.name), marks.get(spec.name))
            if isinstance(spec, Number)
            else spec.parse(row.get(spec.name))
            for spec in rows.checked.schema.inputs
        ]
        values = [each for each in parsed if each is not None]
        if target is not None and not math.isnan(target) and len(values) == len(parsed):
            yield values, target


def _choose(
    table: pd.DataFrame, source: Source, classifies: bool, say: Say
) -> tuple[pd.DataFrame, Any, tuple[str, ...]]:
    """Return inputs and target of the usable rows, and the labels."""
    target = source.target
    if target not in table:
        raise InvalidData(
            f"There is no column {target!r}; choose --target from {quote(map(str, table))}"
        )
    chosen = choose_columns(table, source)
    if not classifies:
        inputs, numbers = prepare(chosen, target, say)
        return inputs, numbers, ()
    places, labels = read_labels(chosen[target], say)
    usable = places >= 0
    inputs = prepare_inputs(chosen.loc[usable].drop(columns=target), target, say)
    return inputs, places[usable], labels


def choose_columns(table: pd.DataFrame, source: Source) -> pd.DataFrame:
    """Return the target and the columns that `--keep` and `--drop` leave, without the group's.

    Raises:
        InvalidData: there is no such column, or the target is dropped.
    """
    names = [str(name) for name in table]
    for option, given in (("--drop", source.drop), ("--keep", source.keep)):
        if absent := [name for name in given if name not in names]:
            raise InvalidData(f"{option}: no column {quote(absent)}; there are {quote(names)}")
    if source.target in source.drop:
        raise InvalidData(f"--drop: {source.target!r} is the target")
    kept = {*(source.keep or names), source.target}
    left_out = {*source.drop, *([source.group] if source.group else [])} - {source.target}
    return table[[name for name in names if name in kept and name not in left_out]]


def read_labels(column: pd.Series, say: Say) -> tuple[Any, tuple[str, ...]]:
    """Return the place of each row's label, -1 where it has none, and the labels, sorted.

    Raises:
        InvalidData: there are fewer than two labels to tell apart, or too many.
    """
    name = str(column.name)
    plain = plain_labels([parse_text(value) for value in column], say)
    texts = pd.Series(list(plain), dtype=object)
    counts = texts.value_counts()
    if missing := int(texts.isna().sum()):
        say(f"Left out {count_of(missing, 'row')}: {name} is missing")
    if len(counts) > MOST_LABELS:
        numbers = all(parse_number(label) is not None for label in counts.index)
        helps = "; python -m training.regression predicts numbers" if numbers else ""
        raise InvalidData(
            f"The target {name!r} has {len(counts):,} different labels; at most {MOST_LABELS} are"
            f" supported{helps}"
        )
    if rare := [label for label in counts.index if counts[label] < FEWEST_OF_LABEL]:
        having = f"label {rare[0]!r} has" if len(rare) == 1 else f"{len(rare):,} labels have"
        shown = f" ({quote(rare, 5)})" if len(rare) > 1 else ""
        say(
            f"Left out {counts[rare].sum():,} rows: the {having} so few{shown}, and at least"
            f" {FEWEST_OF_LABEL} are needed"
        )
    labels = tuple(sorted(set(counts.index) - set(rare), key=_by_number))
    if len(labels) < 2:
        found = quote(f"{label} ({count} rows)" for label, count in counts.head(12).items())
        raise InvalidData(
            f"The target {name!r} has fewer than two labels with at least {FEWEST_OF_LABEL} rows"
            f" each: {found or 'every value is missing'}"
        )
    places = {label: place for place, label in enumerate(labels)}
    return np.array([places.get(text, -1) for text in texts], dtype=np.int64), labels


def _by_number(label: str) -> tuple[float, str]:
    """Return what labels are sorted by: numbers by value, then texts."""
    try:
        return float(label), label
    except ValueError:
        return np.inf, label


def _number(column: pd.Series) -> Groups:
    """Return the number of each row's group; rows without one share a group."""
    found: Groups = pd.factorize(column.astype(str))[0].astype(np.int64)
    return found


def _times(name: str, column: pd.Series) -> Floats:
    """Return the time of each row as a number.

    Raises:
        InvalidData: a row has none that can be read.
    """
    if pd.api.types.is_timedelta64_dtype(column):
        column = column.dt.total_seconds()
    if pd.api.types.is_numeric_dtype(column):
        times = column.to_numpy(dtype=float, na_value=np.nan)
    else:
        read, _ = read_column(name, column, lambda _: None)
        # Where they are not all written in one way, each is read for itself.
        given = read if pd.api.types.is_datetime64_any_dtype(read) else column
        moments = pd.to_datetime(given, errors="coerce", format="mixed", utc=True)
        times = moments.astype("datetime64[us, UTC]").astype("int64").to_numpy(dtype=float)
        times[moments.isna()] = np.nan
    if len(odd := np.flatnonzero(np.isnan(times))):
        raise InvalidData(
            f"--time: the column {name!r} has no time in {len(odd):,} rows, as row"
            f" {int(column.index[odd[0]]) + 1}: {column.iloc[odd[0]]!r}"
        )
    return times
