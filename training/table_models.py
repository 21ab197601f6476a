"""What training a number and training labels share: options, the split, the fits, the command.

read -> split -> fit -> measure -> publish
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from mlapp.errors import InvalidData, MlappError
from mlapp.manifest import Artifact
from mlapp.schema import Category, Floats, Schema
from mlapp.tables.options import add_reading_options
from training import candidates
from training.candidates import Tried
from training.folds import (
    FEWEST_DIFFERENT,
    SEED,
    Fold,
    Groups,
    count_folds,
    find_observations,
    forward_folds,
    group_rows,
    held_out,
    join_groups,
    number_rows,
    random_folds,
    set_apart,
)
from training.least_squares import LEVEL as LEVEL
from training.least_squares import MOST_TERMS
from training.rows import FEEDBACK_HELP, Source, TrainingRows
from training.tables import Say

LEAKS = 0.999  # of R², or of the area under the ROC curve: too good to be true
MOST_COMPARED = 20_000  # rows that say which input is closest to the target
MOST_BINS, ROWS_OF_BIN = 100, 10  # of the values of a number; narrow bins show rare labels


@dataclass(frozen=True)
class Options:
    """What a training command is asked for.

    Attributes:
        source: what is read.
        name: the model's name.
        root: the artifact folder.
        model: one of `candidates.MODELS`.
        minimum, maximum: where predictions end; infinite for nowhere, None to learn it.
        candidate: whether the version waits for `mlapp promote`.
    """

    source: Source
    name: str
    root: Path
    model: str = "auto"
    minimum: float | None = None
    maximum: float | None = None
    candidate: bool = False


@dataclass(frozen=True)
class Split:
    """Which rows are held out together.

    Attributes:
        folds: of the cross-validation.
        groups: rows that are alike, (n,).
        clusters: rows that are no independent observations: alike, or of one group of `--group`,
            (n,).
        plain: whether folds are random, keep alike rows alone together, and every row is held out.
        least_squares: whether there are rows enough for a fit of least squares.
    """

    folds: list[Fold]
    groups: Groups
    clusters: Groups
    plain: bool
    least_squares: bool


@dataclass(frozen=True)
class Chosen:
    """What was tried, and what is published of it.

    Attributes:
        best: the one that is published.
        fitted: it, fitted on all rows.
        compared: what the report says of all.
        baseline: the answers of the baseline to held-out rows, as those of `best`.
        better: whether it is better than the baseline beyond chance.
        rows: all rows in the forms that estimators take.
    """

    best: Tried
    fitted: Any
    compared: list[dict[str, Any]]
    baseline: Floats
    better: bool
    rows: dict[Any, Floats]

    @property
    def inputs(self) -> Floats:
        """All rows as the chosen model takes them."""
        return self.rows[self.best.candidate.takes]


def _without_groups(folds: list[Fold], groups: Groups) -> list[Fold]:
    """Return folds whose training parts have no group of their test parts.

    Raises:
        InvalidData: a training part has no other rows.
    """
    apart = [_apart(fold, groups) for fold in folds]
    if any(not len(fold.train) for fold in apart):
        raise InvalidData(
            "--group with --time: every group of the earliest rows occurs later, too, so nothing is"
            " left to learn from"
        )
    return apart


def _without_copies(folds: list[Fold], alike: Groups) -> list[Fold]:
    """Return folds whose training parts have no copies of their test parts.

    A part of which hardly a row would be left keeps its copies.
    """
    apart = [_apart(fold, alike) for fold in folds]
    return [
        new if len(new.train) >= min(FEWEST_DIFFERENT, len(old.train)) else old
        for old, new in zip(folds, apart, strict=True)
    ]


def _apart(fold: Fold, groups: Groups) -> Fold:
    """Return a fold whose training part has no group of its test part."""
    return Fold(fold.train[~np.isin(groups[fold.train], groups[fold.test])], fold.test)


def split(rows: TrainingRows, say: Say) -> Split:
    """Draw the folds.

    Raises:
        InvalidData: there are too few different rows, groups or times.
    """
    terms, count = len(rows.checked.schema.terms), len(rows.target) - rows.extra
    target = rows.target[:count]
    alike = group_rows(rows.checked.matrix[:count], target, FEWEST_DIFFERENT, rows.about.rows, say)
    clusters = alike if rows.groups is None else join_groups(alike, rows.groups)
    parts = count_folds(count)
    if rows.times is not None:
        folds = forward_folds(rows.times, parts)
        if rows.groups is not None:
            folds = _without_groups(folds, rows.groups)
        folds = _without_copies(folds, alike)
    else:
        if rows.groups is not None:
            parts = max(2, min(parts, len(np.unique(clusters))))
        folds = random_folds(clusters, parts, target if rows.labels else None)
    added = np.arange(count, count + rows.extra)
    # Without them, nobody knows which held-out rows they would give away.
    unknown = "group" if rows.groups is not None else "time" if rows.times is not None else None
    if rows.extra and unknown:
        say(
            f"{rows.extra:,} more rows have no known {unknown}: only the final fit uses them, the"
            " folds do not"
        )
    elif rows.extra:
        copies = number_rows(rows.checked.matrix)
        copies = set_apart(copies, find_observations(copies, rows.target))
        folds = [_with_extra(fold, added, copies) for fold in folds]
    # Twice as many rows as terms leave enough freedom for an interval.
    enough = len(np.unique(alike)) >= 2 * terms + 10 and terms <= MOST_TERMS
    plain = rows.groups is None and rows.times is None and not rows.extra
    alike, clusters = np.concatenate([alike, added]), np.concatenate([clusters, added])
    return Split(folds, alike, clusters, plain, enough)


def _with_extra(fold: Fold, added: Groups, copies: Groups) -> Fold:
    """Return a fold whose fit also sees the extra rows, but no copies of rows that it holds out."""
    new = added[~np.isin(copies[added], copies[fold.test])]
    return Fold(np.concatenate([fold.train, new]), fold.test)


def fit(
    rows: TrainingRows,
    parts: Split,
    model: str,
    say: Say,
    bounds: candidates.Bounds = candidates.NO_BOUNDS,
) -> Chosen:
    """Compare the candidates on the folds, and fit the chosen one on all rows."""
    forms, labels = candidates.rows_for(rows.checked), len(rows.labels)
    found = candidates.list_candidates(
        model, rows.checked.schema, len(rows.target), labels, parts.least_squares
    )
    tried = candidates.try_all(found, forms, rows.target, parts.folds, labels, bounds)
    held = held_out(parts.folds)
    groups = parts.clusters[held]
    spread = 0.0 if labels else float(np.var(rows.target[held])) or 1.0
    best, compared = candidates.choose(tried, spread, groups)
    say(f"On held-out rows, {len(parts.folds)} folds:")
    for each in compared:
        say(
            f"  {each['model']:<10} {each['metric']} {each['figure']:.4f}"
            f" ± {each['standard_error']:.4f}{'  <- published' if each['published'] else ''}"
        )
    better = candidates.is_better(best, tried[0], groups)
    if not better:
        say(
            f"Warning: {best.candidate.name} is no better than the baseline, which does not look at"
            " its inputs: they may say nothing about the target"
        )
    with threadpool_limits(1, user_api="openmp"):
        fitted = best.fit(forms, rows.target)
    return Chosen(best, fitted, compared, tried[0].answers, better, forms)


def clusters_of(rows: TrainingRows, parts: Split, places: Groups) -> Groups | None:
    """Return the clusters of some rows, for the report, where `--group` names groups."""
    return None if rows.groups is None else parts.clusters[places]


def warn_of_leak(found: str, rows: TrainingRows, say: Say) -> None:
    """Warn of a result above `LEAKS`, as in "R² is 0.99999,"."""
    say(
        f"Warning: {found} too good to be true of most tables: does a column hold the target, or"
        f" follow from it? The closest is {closest_input(rows)}"
    )


def closest_input(rows: TrainingRows) -> str:
    """Return the input that says most about the target alone: a number, a date or a category."""
    count = len(rows.target)
    some = np.random.default_rng(0).permutation(count)[:MOST_COMPARED]
    target = rows.target[some]
    if rows.labels:
        columns = [(target == place).astype(float) for place in np.unique(target)]
    else:
        columns = [pd.Series(target).rank().to_numpy()]  # so that a few large values do not decide
    found = {}
    for spec in rows.checked.schema.inputs:
        values = rows.checked.values[spec.name][some]
        bins = values if isinstance(spec, Category) else bin_ranks(values)
        found[spec.name] = left_out_error(bins, columns)
    return min(found, key=lambda name: found[name])


def bin_ranks(values: Floats) -> Floats:
    """Return the bin of each value, with about as many in each bin; NaN stays NaN."""
    ranks = pd.Series(values).rank(pct=True).to_numpy(dtype=float)
    found: Floats = np.ceil(ranks * min(MOST_BINS, len(values) // ROWS_OF_BIN))
    return found


def left_out_error(bins: Floats, columns: Sequence[Floats]) -> float:
    """Return the squared error of predicting each row by the mean of the others in its bin.

    A row alone in its bin is predicted by the mean of all others, so many bins have no advantage by
    chance.

    Args:
        bins: of n rows; NaN is a bin, too.
        columns: what is predicted, each (n,).
    """
    _, places = np.unique(bins, return_inverse=True)
    others = (np.bincount(places) - 1)[places]
    error = 0.0
    for column in columns:
        inside = np.bincount(places, column)[places] - column
        outside = (column.sum() - column) / max(1, len(column) - 1)
        means = np.where(others > 0, inside / np.maximum(others, 1), outside)
        error += float(np.sum((column - means) ** 2))
    return error


def golden_rows(schema: Schema) -> list[dict[str, Any]]:
    """Return a typical row and rows along the quantiles; none is a row of the training data."""
    rows = [schema.typical]
    for place in range(5):
        row: dict[str, Any] = {}
        for spec in schema.inputs:
            if not isinstance(spec, Category):
                row[spec.name] = spec.plain(spec.quantiles[place])
            else:
                row[spec.name] = spec.categories[place % len(spec.categories)]
        rows.append(row)
    missing = {spec.name: None for spec in schema.inputs if spec.missing}
    return rows + ([schema.typical | missing] if missing else [])


def training_fields(
    options: Options, rows: TrainingRows, parts: Split, best: Tried
) -> dict[str, Any]:
    """Return what the manifest says of the training, but for its command: every knob."""
    source = options.source
    return {
        "target": source.target,
        "rows_used": len(rows.target),
        "folds": len(parts.folds),
        "seed": SEED,
        "model": options.model,
        "chosen": best.candidate.name,
        **({"trees": best.trees} if best.trees else {}),
        **({"group": source.group} if source.group else {}),
        **({"time": source.time} if source.time else {}),
        **({"judged_answers": True} if source.feedback else {}),
    }


# --- the command -----------------------------------------------------------------------------


def command(module: str, options: Options, usual: Mapping[str, object]) -> str:
    """Return the command that trains the same model again.

    Args:
        module: that is run.
        options: what it was asked for.
        usual: what flags are by default, which are left out.
    """
    source = options.source
    given: list[tuple[str, Any]] = [
        ("--data", source.data),
        ("--target", source.target),
        ("--name", options.name),
        ("--model", options.model),
        ("--group", source.group),
        ("--time", source.time),
        *(("--drop", name) for name in source.drop),
        *(("--keep", name) for name in source.keep),
        *(("--extra", path) for path in source.extra),
        ("--minimum", options.minimum),
        ("--maximum", options.maximum),
        *((f"--{flag}", value) for flag, value in source.reading.items()),
    ]
    parts = ["python", "-m", module]
    for flag, value in given:
        if value is None or value == usual.get(flag):
            continue
        # With an equals sign, since a value may begin with a dash.
        parts += [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]
    return shlex.join(parts)


def make_parser(
    module: str, description: str | None, usual: Mapping[str, Any]
) -> argparse.ArgumentParser:
    """Return a parser of the options that both commands have."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        required="--data" not in usual,
        default=usual.get("--data"),
        help="a CSV, TSV or JSON lines file (also .gz or .zip), Parquet or .xlsx"
        + (" (default: the shipped table)" if "--data" in usual else ""),
    )
    add(
        "--target",
        required="--target" not in usual,
        default=usual.get("--target"),
        help="the column to predict" + (" (default: %(default)s)" if "--target" in usual else ""),
    )
    add("--name", default=usual["--name"], help="the model's name (default: %(default)s)")
    add(
        "--model",
        choices=candidates.MODELS,
        default=usual["--model"],
        help="auto compares linear models and boosted trees (default: %(default)s)",
    )
    add("--group", metavar="COLUMN", help="rows with the same value are held out together")
    add("--time", metavar="COLUMN", help="predict each row from earlier ones only")
    add(
        "--drop",
        metavar="COLUMN",
        action="append",
        default=[],
        help="leave a column out; may be repeated",
    )
    add(
        "--keep",
        metavar="COLUMN",
        action="append",
        default=[],
        help="use only this column; may be repeated",
    )
    add(
        "--extra",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="more rows, used only for training; may be repeated",
    )
    add("--feedback", type=Path, metavar="FILE", help=FEEDBACK_HELP)
    add("--candidate", action="store_true", help="publish a version that is not served yet")
    add(
        "--artifacts",
        type=Path,
        help="the folder to publish to (default: MLAPP_ARTIFACTS, or artifacts)",
    )
    add_reading_options(parser)
    return parser


def run(
    train: Callable[..., Artifact],
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
) -> int:
    """Run a training command; return its exit status, 1 when nothing was published.

    Args:
        train: takes data, target, name and root, then the other options by name.
        parser: of the options.
        arguments: by default those of the command line.
    """
    options = vars(parser.parse_args(arguments))
    first = [options.pop(key) for key in ("data", "target", "name", "artifacts")]
    try:
        train(*first, **options)
    except MlappError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
