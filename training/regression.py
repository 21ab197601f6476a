"""Train a model that predicts a number, on any table, and publish it."""

import io
import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.pipeline import Pipeline

from mlapp.errors import InvalidData
from mlapp.families.regression import ANSWER, INTERVAL, MODEL, REPORT, Answer
from mlapp.families.table import BACKGROUND, dump_background
from mlapp.manifest import Artifact
from mlapp.schema import Floats
from mlapp.store import artifacts
from mlapp.tables.options import READING
from training import least_squares, measures
from training.candidates import LINEAR, MODELS
from training.compile import compile_estimator
from training.folds import held_out
from training.intervals import Calibrated, calibrate, coverage_by_fifth
from training.least_squares import Fit, coefficients, drop_dependent
from training.losses import fingerprints, squared_errors
from training.progress import count_of
from training.rows import Source, TrainingRows, read_training_rows
from training.table_models import (
    LEAKS,
    LEVEL,
    Chosen,
    Options,
    Split,
    clusters_of,
    command,
    fit,
    golden_rows,
    make_parser,
    run,
    split,
    training_fields,
    warn_of_leak,
)
from training.tables import Say
from training.versions import (
    at,
    choose_background,
    choose_losses,
    describe_learned,
    write_version,
)

_HERE = Path(__file__).resolve().parent
# The shipped table lies beside this package in a checkout, and inside it in a wheel.
DATA = (_HERE if (_HERE / "data").is_dir() else _HERE.parent) / "data/linear_regression_dataset.csv"
TARGET = "output"
NAME = "regression"
USUAL = {"--data": DATA, "--target": TARGET, "--name": NAME, "--model": MODELS[0]}


@dataclass(frozen=True)
class Measured:
    """What was measured of the chosen model.

    Attributes:
        metrics: of the manifest.
        report: of the report, without what is served.
        intervals: how they are made, and those of the held-out rows.
        linear: the fit of least squares, where it is published with its own intervals.
    """

    metrics: dict[str, float]
    report: dict[str, Any]
    intervals: Calibrated
    linear: Fit | None


def train(
    data: Path = DATA,
    target: str = TARGET,
    name: str = NAME,
    root: Path | None = None,
    *,
    model: str = MODELS[0],
    minimum: float | None = None,
    maximum: float | None = None,
    candidate: bool = False,
    say: Say = print,
    **reading: Any,
) -> Artifact:
    """Train on a table and publish the model as the next version of `name`.

    Args:
        data: the table's file.
        target: the column to predict.
        name: the model's name.
        root: the artifact folder; by default that of the settings.
        model: auto, linear or boosted.
        minimum: where predictions and intervals begin, infinite for nowhere; by default at zero
            where the target was never negative.
        maximum: where they end.
        candidate: whether the version waits for `mlapp promote`.
        say: called with each line of the report.
        reading: `group`, `time`, `drop`, `keep`, `extra` and `feedback` of `rows.Source`;
            `encoding`, `decimal` and `sheet` of `tables.read_table`.

    Raises:
        InvalidData: the table cannot be trained on; the message names the column.
        ArtifactError: the name cannot be used, or the folder cannot be published to.
    """
    given = {key: reading.pop(key, None) for key in READING}
    source = Source(data, target, given, **reading)
    root = artifacts.choose_root(root, name)
    options = Options(source, name, root, model, minimum, maximum, candidate)
    rows = read(options, say)
    parts = split(rows, say)
    say(f"Fitting {target} on {count_of(len(rows.checked.schema.inputs), 'input')}")
    bounds = choose_bounds(options, rows.target, say)
    low, high = (-np.inf if bounds.minimum is None else bounds.minimum), bounds.maximum
    chosen = fit(rows, parts, model, say, (low, np.inf if high is None else high))
    measured = measure(rows, parts, chosen, bounds, options, say)
    return publish(rows, parts, chosen, measured, options, say)


def read(options: Options, say: Say) -> TrainingRows:
    """Read the table, without columns that are sums of others."""
    rows = read_training_rows(options.source, False, say)
    # Trees may learn more from a category than from what it follows from.
    schema = drop_dependent(rows.checked, say, numbers=options.model != LINEAR)
    places = [rows.checked.schema.names.index(name) for name in schema.names]
    return replace(
        rows, checked=replace(rows.checked, schema=schema, matrix=rows.checked.matrix[:, places])
    )


def choose_bounds(options: Options, target: Floats, say: Say) -> Answer:
    """Return where predictions end: as asked for, or at zero where the target was never negative.

    Raises:
        InvalidData: the target was outside what was asked for.
    """
    minimum = options.minimum
    if minimum is None and target.min() >= 0:
        minimum = 0.0
        say(f"{options.source.target} was never negative: predictions end at 0 (see --minimum)")
    bounds = []
    for flag, bound, seen in (
        ("--minimum", minimum, float(target.min())),
        ("--maximum", options.maximum, float(target.max())),
    ):
        wrong = bound is not None and (seen < bound if flag == "--minimum" else seen > bound)
        if wrong or (bound is not None and math.isnan(bound)):
            raise InvalidData(
                f"{flag} is {bound:g}, and the target {options.source.target!r} was {seen:g}"
            )
        bounds.append(None if bound is None or math.isinf(bound) else bound)
    return Answer(None, 0.0, *bounds)


def measure(
    rows: TrainingRows, parts: Split, chosen: Chosen, bounds: Answer, options: Options, say: Say
) -> Measured:
    """Calibrate intervals and measure the chosen model on held-out rows."""
    target, held, best = rows.target, held_out(parts.folds), chosen.best
    linear, constant = None, None
    if best.candidate.name == LINEAR and parts.plain:
        with suppress(InvalidData):  # rows may be too few for its own intervals, not for others
            encoded, groups = chosen.inputs, parts.groups
            constant = least_squares.cross_validate(encoded, target, parts.folds, LEVEL, groups)
            linear = least_squares.fit(encoded, target, LEVEL, groups)
    found = calibrate(
        chosen.inputs,
        target,
        best.answers,
        parts.folds,
        bounds,
        LEVEL,
        chosen.fitted,
        parts.clusters,
        constant,
        forward=rows.times is not None,
    )
    if found.scale is not None:
        linear = None
        say("Intervals are as wide as the errors of similar rows")
    if linear is not None:
        answer = replace(found.answer, margin=linear.interval.quantile)
        found = replace(found, answer=answer)
    actual = target[held]
    judged, stated = actual[found.judged], found.rows[found.judged]
    metrics = measures.of_numbers(actual, found.rows)
    metrics["coverage"] = measures.of_numbers(judged, stated)["coverage"]
    metrics["r2_in_sample"] = chosen.fitted.score(chosen.inputs, target)
    metrics["half_width"] = found.half_width
    if linear is not None:
        metrics["half_width"] = linear.interval.quantile
    # Forwards in time the mean of all held-out rows is not known beforehand.
    apart = actual - (actual.mean() if rows.times is None else chosen.baseline[held])
    metrics["baseline_rmse"] = float(np.sqrt(np.mean(apart**2)))
    metrics["baseline_mae"] = float(np.mean(np.abs(apart)))
    shown = choose_losses(len(held))
    prints = fingerprints(
        at(rows.checked, held[shown]), actual[shown].tolist(), options.source.target
    )
    report = measures.held_out(actual, found.rows) | {
        "compared": chosen.compared,
        "coverage_by_fifth": coverage_by_fifth(stated, judged),
        "losses": squared_errors(
            prints, actual[shown], found.rows[shown, 0], clusters_of(rows, parts, held[shown])
        ),
    }
    if isinstance(chosen.fitted, Pipeline) and best.candidate.name == LINEAR:
        with suppress(InvalidData):  # too few rows
            exact = linear or least_squares.fit(chosen.inputs, target, LEVEL, parts.groups)
            report["coefficients"] = coefficients(exact, rows.checked.schema, chosen.inputs, target)
    if metrics["r2"] > LEAKS:
        warn_of_leak(f"R² is {metrics['r2']:.5f},", rows, say)
    return Measured(metrics, report, found, linear)


def publish(
    rows: TrainingRows,
    parts: Split,
    chosen: Chosen,
    measured: Measured,
    options: Options,
    say: Say,
) -> Artifact:
    """Store what is served: the fit of least squares as it is, any other model compiled."""
    files, libraries = _files(rows, chosen, measured)
    report = json.loads(files.pop("served", b"{}")) | measured.report
    files[REPORT] = json.dumps(report, allow_nan=False).encode()
    files |= describe_learned(rows.checked)
    training = training_fields(options, rows, parts, chosen.best)
    fields: dict[str, Any] = {
        "task": "regression",
        "data": rows.about,
        "training": {
            "command": command("training.regression", options, USUAL),
            "level": LEVEL,
            **training,
        },
        "input_schema": rows.checked.schema,
        "metrics": measured.metrics,
    }
    held = held_out(parts.folds)
    published = write_version(
        options.name,
        files,
        libraries,
        fields,
        at(rows.checked, held),
        measured.intervals.rows,
        rows.target[held],
        golden_rows(rows.checked.schema),
        root=options.root,
        candidate=options.candidate,
    )
    metrics = measured.metrics
    say(f"R² in sample        {metrics['r2_in_sample']:.7f}")
    shown = {key: metrics[key] for key in ("r2", "rmse", "mae", "coverage")}
    for line in measures.describe(shown, LEVEL):
        say(line)
    say(f"Published {published.path}")
    return published


def _files(
    rows: TrainingRows, chosen: Chosen, measured: Measured
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Return the files of the model, and the distributions whose versions matter for them."""
    answer = measured.intervals.answer
    files = {ANSWER: answer.dump(), BACKGROUND: dump_background(choose_background(rows.checked))}
    if measured.linear is not None:
        model_file = io.BytesIO()
        joblib.dump(measured.linear.pipeline, model_file)
        files |= {MODEL: model_file.getvalue(), INTERVAL: measured.linear.interval.dump()}
        return files, ("mlapp", "numpy", "scikit-learn", "joblib")
    estimators = {"prediction": chosen.fitted}
    if measured.intervals.scale is not None:
        estimators["scale"] = measured.intervals.scale
    compiled = compile_estimator(estimators, rows.checked, chosen.best.candidate.takes)
    files |= {**compiled.files, "served": json.dumps({"served": compiled.report}).encode()}
    return files, ("mlapp", "numpy", *compiled.libraries)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, 1 when nothing was published."""
    parser = make_parser("training.regression", __doc__, USUAL)
    for flag, what in (("--minimum", "least"), ("--maximum", "largest")):
        parser.add_argument(
            flag,
            type=float,
            help=f"the {what} value that can be predicted; inf for any"
            if flag == "--maximum"
            else "the least value that can be predicted; -inf for any (default: 0 where the target"
            " was never negative)",
        )
    return run(train, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
