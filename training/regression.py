"""Train a linear regression on any table, and publish it.

python -m training.regression [--data FILE] [--target COLUMN] [--name NAME] [--artifacts DIR]
"""

import argparse
import io
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from mlapp.errors import InvalidData, MlappError
from mlapp.families.contract import replay
from mlapp.families.regression import COLUMNS, INTERVAL, MODEL, REPORT, Interval, RegressionModel
from mlapp.manifest import Artifact
from mlapp.schema import Category, Checked, Floats, Number, Schema
from mlapp.settings import read_settings
from mlapp.store import artifacts
from mlapp.tables.options import READING, add_reading_options
from training.tables import Say, learn_schema, prepare, read_table

_HERE = Path(__file__).resolve().parent
# The shipped table lies beside this package in a checkout, and inside it in a wheel.
DATA = (_HERE if (_HERE / "data").is_dir() else _HERE.parent) / "data/linear_regression_dataset.csv"
TARGET = "output"
NAME = "regression"
LEVEL = 0.9  # the share of new rows that the interval is to hold
FOLDS = 10  # of the cross-validation
SEED = 0  # of the folds' shuffling, and of the sample of held-out rows
HELD_OUT_SHOWN = 2000  # held-out rows that are kept for the pictures


Groups: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fit:
    """A least-squares fit: the pipeline, its interval, and its leave-one-out residuals."""

    pipeline: Pipeline
    interval: Interval

    def predict(self, encoded: Floats) -> Floats:
        """Return prediction, lower and upper (n, 3) for encoded rows (n, k)."""
        prediction = self.pipeline.predict(encoded)
        half = self.interval.half_width(self.pipeline["scale"].transform(encoded))
        return np.column_stack([prediction, prediction - half, prediction + half])


def fit(encoded: Floats, output: Floats, level: float = LEVEL, groups: Groups | None = None) -> Fit:
    """Fit on encoded rows (n, k), and calibrate the interval on leave-one-out residuals.

    `mlapp.regression` says how the interval is made, and from where. Rows of one group, which are
    alike, are left out together. With m of them, each of leverage h, their residuals r become
    r + h * sum(r) / (1 - m * h), and the leverage h / (1 - m * h): the matrix inversion lemma, as
    in Cook and Weisberg, "Residuals and influence in regression" (1982), section 3.6.

    Args:
        encoded: the rows.
        output: their outputs, (n,).
        level: the share of new rows that the interval is to hold.
        groups: the number of each row's group, (n,); rows of one group are equal. By default each
            row is alone.

    Raises:
        InvalidData: there are too few rows for an interval of that level.
    """
    pipeline = Pipeline([("scale", StandardScaler()), ("regress", LinearRegression())])
    pipeline.fit(encoded, output)
    standardised = pipeline["scale"].transform(encoded)
    rows = len(output)
    inverse = invert(standardised.T @ standardised)
    leverage = Interval(level, math.nan, rows, inverse).leverage(standardised)
    _, own, members = np.unique(
        np.arange(rows) if groups is None else groups, return_inverse=True, return_counts=True
    )
    residuals = output - pipeline.predict(encoded)
    alike, sums = members[own], np.bincount(own, residuals)[own]
    # Rows that the fit passes through have no leave-one-out residual; they count as the largest.
    room = np.where(alike * leverage < 1 - 1e-9, 1 - alike * leverage, np.nan)
    left_out = np.abs(residuals + leverage * sums / room)
    scores = left_out / np.sqrt(1 + leverage / room)
    scores[np.isnan(scores)] = np.inf
    # Of g groups the share is (g + 1) / g of the level, as of g new rows.
    rank = math.ceil((len(members) + 1) * level * rows / len(members) - 1e-9)
    quantile = float(np.sort(scores)[rank - 1]) if rank <= rows else math.inf
    if not math.isfinite(quantile):
        raise InvalidData(
            f"{len(members)} different rows are too few for {encoded.shape[1]} columns and their"
            " intervals"
        )
    return Fit(pipeline, Interval(level, quantile, rows, inverse))


def invert(gram: Floats) -> Floats:
    """Return the pseudo-inverse of Z'Z (k, k), exactly symmetric and without negative squares.

    Directions in which the rows do not differ are left out: rounding, not data, would fill them.
    """
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-10 * values[-1]
    half = vectors[:, kept] / np.sqrt(values[kept])
    inverse: Floats = half @ half.T
    return inverse


def group_rows(checked: Checked, output: Floats, needed: int, say: Say) -> Groups:
    """Return the number of each row's group, (n,): rows with the same inputs stay together.

    A copy of a row on both sides of a fold would be predicted from itself. Where the inputs have
    few combinations, as few categories have, rows that share one are different observations, and
    each is a group.

    Raises:
        InvalidData: the rows are copies of fewer than `needed`.
    """
    table = pd.DataFrame(checked.matrix)
    groups = table.groupby(list(table), dropna=False, sort=False).ngroup().to_numpy()
    different = len(table.assign(output=output).drop_duplicates())
    if different < needed:
        raise InvalidData(
            f"The table has {len(output)} usable rows, {different} of them different; its inputs"
            f" need at least {needed}"
        )
    if (repeated := len(output) - different) > 0:
        say(f"{repeated:,} rows repeat another; they are kept, and stay in one fold with it")
    if len(np.unique(groups)) < needed:
        say("The inputs have few combinations: folds are drawn row by row")
        return np.arange(len(output), dtype=np.int64)
    return groups.astype(np.int64)


def cross_validate(
    encoded: Floats,
    output: Floats,
    folds: int,
    level: float,
    seed: int,
    groups: Groups | None = None,
) -> Floats:
    """Predict every row by a fit that saw no row of its group: (n, 3), prediction, lower, upper."""
    groups = np.arange(len(output)) if groups is None else groups
    predicted = np.empty((len(output), 3))
    split = KFold(folds, shuffle=True, random_state=seed).split(np.unique(groups))
    for _, held in split:
        test = np.isin(groups, held)
        fitted = fit(encoded[~test], output[~test], level, groups[~test])
        predicted[test] = fitted.predict(encoded[test])
    return predicted


def measure(fitted: Fit, encoded: Floats, output: Floats, held_out: Floats) -> dict[str, float]:
    """Return the metrics; all but `r2_in_sample` and the half-width are of held-out rows."""
    prediction, lower, upper = held_out.T
    return {
        "r2": r2_score(output, prediction),
        "rmse": root_mean_squared_error(output, prediction),
        "mae": mean_absolute_error(output, prediction),
        "coverage": float(np.mean((lower <= output) & (output <= upper))),
        "r2_in_sample": fitted.pipeline.score(encoded, output),
        "half_width": fitted.interval.quantile,
    }


def coefficients(
    fitted: Fit, schema: Schema, encoded: Floats, output: Floats
) -> list[dict[str, Any]]:
    """Return term, estimate, lower and upper in the inputs' own units, the intercept first.

    The limits are those of least squares with the t distribution (Draper and Smith, "Applied
    regression analysis", 1998, chapter 5), at the interval's level.
    """
    scaler, regression = fitted.pipeline["scale"], fitted.pipeline["regress"]
    rows, interval = len(output), fitted.interval
    estimates = regression.coef_ / scaler.scale_
    shift = scaler.mean_ / scaler.scale_
    intercept = regression.intercept_ - estimates @ scaler.mean_
    freedom = max(1, rows - 1 - np.linalg.matrix_rank(interval.inverse))
    variance = np.sum((output - fitted.pipeline.predict(encoded)) ** 2) / freedom
    errors = np.sqrt(variance * np.diag(interval.inverse)) / scaler.scale_
    error = math.sqrt(variance * (1 / rows + shift @ interval.inverse @ shift))
    limit = stats.t.ppf((1 + interval.level) / 2, freedom)
    return [
        {
            "term": term,
            "estimate": estimate,
            "lower": estimate - limit * e,
            "upper": estimate + limit * e,
        }
        for term, estimate, e in zip(
            ["(intercept)", *schema.terms],
            map(float, [intercept, *estimates]),
            map(float, [error, *errors]),
            strict=True,
        )
    ]


def golden_rows(schema: Schema) -> list[dict[str, Any]]:
    """Return a typical row and rows along the quantiles; none is a row of the training data."""
    rows = [schema.typical]
    for place in range(5):
        row: dict[str, Any] = {}
        for spec in schema.inputs:
            if isinstance(spec, Number):
                row[spec.name] = spec.quantiles[place]
            else:
                row[spec.name] = spec.categories[place % len(spec.categories)]
        rows.append(row)
    missing = {spec.name: None for spec in schema.inputs if spec.missing}
    return rows + ([schema.typical | missing] if missing else [])


def drop_dependent(inputs: pd.DataFrame, schema: Schema, say: Say) -> tuple[pd.DataFrame, Schema]:
    """Leave out numbers that are sums of others, which no fit can tell apart from them."""
    encoded = StandardScaler().fit_transform(schema.encode(schema.check(inputs)))
    kept: list[Number | Category] = []
    columns, rank = np.empty((len(inputs), 0)), 0
    for spec, (name, part) in zip(schema.inputs, schema.split(encoded), strict=True):
        wider = np.hstack([columns, part])
        wider_rank = int(np.linalg.matrix_rank(wider, tol=1e-9 * math.sqrt(wider.size)))
        if wider_rank == rank:
            say(f"Left out column {name}: it is a linear combination of the columns before it")
            continue
        kept.append(spec)
        columns, rank = wider, wider_rank
    names = [spec.name for spec in kept]
    return inputs[names], Schema(inputs=tuple(kept), output=schema.output)


def train(
    data: Path,
    target: str = TARGET,
    name: str = NAME,
    root: Path | None = None,
    *,
    say: Say = print,
    encoding: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
) -> Artifact:
    """Train on a table and publish the model as the next version of `name`.

    Args:
        data: the table's file.
        target: the column to predict.
        name: the model's name.
        root: the artifact folder; by default that of the settings.
        say: called with each line of the report.
        encoding: of a text file; see `FileFormat`.
        decimal: the decimal mark of CSV and TSV; see `FileFormat`.
        sheet: of an Excel workbook; see `FileFormat`.

    Raises:
        InvalidData: the table cannot be trained on; the message names the column.
        ArtifactError: the name cannot be used, or the folder cannot be published to.
    """
    root = read_settings().artifacts if root is None else root
    reading = {"encoding": encoding, "decimal": decimal, "sheet": sheet}
    table, about = read_table(data, **reading)
    say(f"Read {about.rows:,} rows and {about.columns} columns from {data}")
    inputs, target_column = prepare(table, target, say)
    schema = learn_schema(inputs, target_column)
    inputs, schema = drop_dependent(inputs, schema, say)
    output: Floats = np.asarray(target_column, dtype=np.float64)
    checked = schema.check(inputs)
    encoded = schema.encode(checked)
    groups = group_rows(checked, output, max(20, 2 * encoded.shape[1] + 10), say)
    say(f"Fitting {target} on {len(schema.inputs)} inputs: {', '.join(schema.names)}")

    fitted = fit(encoded, output, LEVEL, groups)
    held_out = cross_validate(encoded, output, FOLDS, LEVEL, SEED, groups)
    metrics = measure(fitted, encoded, output, held_out)
    shown = np.arange(len(output))
    if len(shown) > HELD_OUT_SHOWN:
        shown = np.sort(np.random.default_rng(SEED).choice(shown, HELD_OUT_SHOWN, replace=False))
    report = {
        "held_out": {"actual": output[shown].tolist()}
        | {key: held_out[shown, place].tolist() for place, key in enumerate(COLUMNS)},
        "coefficients": coefficients(fitted, schema, encoded, output),
    }
    model_file = io.BytesIO()
    joblib.dump(fitted.pipeline, model_file)
    fields: dict[str, Any] = {
        "task": "regression",
        "data": about,
        "training": {
            "command": _command(data, target, name, reading),
            "target": target,
            "rows_used": len(output),
            "level": LEVEL,
            "folds": FOLDS,
            "seed": SEED,
        },
        "input_schema": schema,
        "metrics": metrics,
    }
    files = {
        MODEL: model_file.getvalue(),
        INTERVAL: fitted.interval.dump(),
        REPORT: json.dumps(report, allow_nan=False).encode(),
    }
    libraries = ("mlapp", "numpy", "scikit-learn", "joblib")
    model = RegressionModel(artifacts.draft(name, files, libraries, golden=(), **fields))
    rows = golden_rows(schema)
    predicted = model.predict(rows).to_dict("records")
    golden = [{"input": row, "output": out} for row, out in zip(rows, predicted, strict=True)]
    drafted = artifacts.draft(name, files, libraries, golden=golden, **fields)
    published = artifacts.publish(root, drafted, lambda artifact: replay(RegressionModel(artifact)))

    say(f"R² in sample        {metrics['r2_in_sample']:.7f}")
    say(f"On held-out rows, {FOLDS}-fold cross-validation:")
    say(f"  R²                {metrics['r2']:.4f}")
    say(f"  RMSE              {metrics['rmse']:.6g}")
    say(f"  MAE               {metrics['mae']:.6g}")
    say(f"  {LEVEL:.0%} interval      holds {metrics['coverage']:.1%} of the rows")
    say(f"Published {published.path}")
    return published


def _command(data: Path, target: str, name: str, reading: Mapping[str, str | None]) -> str:
    """Return the command that trains the same model anew."""
    given = (("--data", data, DATA), ("--target", target, TARGET), ("--name", name, NAME))
    options = [
        part for flag, value, usual in given if value != usual for part in (flag, str(value))
    ]
    options += [
        part
        for flag, given in reading.items()
        if given is not None
        for part in (f"--{flag}", given)
    ]
    return shlex.join(["python", "-m", "training.regression", *options])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, 1 when nothing was published."""
    parser = argparse.ArgumentParser(prog="python -m training.regression", description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        help="a CSV, TSV or JSON lines file (also .gz or .zip), Parquet or .xlsx (default: the"
        " shipped table)",
    )
    parser.add_argument(
        "--target", default=TARGET, help="the column to predict (default: %(default)s)"
    )
    parser.add_argument("--name", default=NAME, help="the model's name (default: %(default)s)")
    parser.add_argument(
        "--artifacts",
        type=Path,
        help="the folder to publish to (default: MLAPP_ARTIFACTS, or artifacts)",
    )
    add_reading_options(parser)
    options = parser.parse_args(arguments)
    try:
        train(
            options.data,
            options.target,
            options.name,
            options.artifacts,
            **{key: getattr(options, key) for key in READING},
        )
    except MlappError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
