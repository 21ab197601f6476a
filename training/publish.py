"""Publish a fitted estimator: learn its inputs from data, measure it, and store what is served."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from mlapp.errors import InvalidData, InvalidInput, quote
from mlapp.families.regression import ANSWER, Answer
from mlapp.families.table import BACKGROUND, REPORT, dump_background
from mlapp.manifest import Artifact, Data
from mlapp.schema import Checked, Floats, Schema
from mlapp.store import artifacts
from training import measures
from training.asking import ask, require_likeliest, require_same_answers
from training.clones import FEWEST, FOLDS, Measured, measure
from training.compile import Compiled, compile_estimator, random_rows
from training.estimators import (
    check_estimator,
    label_texts,
    read_estimator,
)
from training.fitted_rows import Rows, lay_out, learn, match_rows
from training.folds import (
    SEED,
    find_observations,
    number_rows,
)
from training.intervals import halve, normalise
from training.losses import fingerprints, log_losses, squared_errors
from training.rows import TrainingRows
from training.table_models import LEAKS, warn_of_leak
from training.tables import Say, read_table, require_free_names
from training.versions import (
    at,
    choose_background,
    choose_losses,
    describe_learned,
    write_version,
)

LEVEL = 0.9  # the share of new rows that an interval is meant to hold
GOLDEN_ROWS = 5


def publish(
    model: Any,
    X: Any,  # noqa: N803
    y: Any,
    name: str,
    *,
    held_out: tuple[Any, Any] | None = None,
    root: Path | None = None,
    level: float = LEVEL,
    source: Data | None = None,
    target: str | None = None,
    command: str = "",
    candidate: bool = False,
    say: Say = print,
) -> Artifact:
    """Publish a fitted estimator or pipeline as the next version of a model.

    It is measured on `held_out`, or by cross-validating a clone, and a regressor's interval is
    calibrated on the same unseen rows. Otherwise, and where it is worse than its clones, it is
    measured on the rows of `X`.

    Args:
        model: a fitted regressor or classifier of scikit-learn, or with its interface.
        X: the rows it was fitted on, or like them: a data frame, or an array (n, columns).
        y: their targets, (n,).
        name: the model's name.
        held_out: rows and targets that the model was not fitted on; rows of `X` are left out.
        root: the artifact folder; by default that of the settings.
        level: the share of new rows that an interval is meant to hold, between 0 and 1.
        source: what the data is; by default it is described from `X`.
        target: what is predicted; by default the name of `y`, or `target`.
        command: that publishes the model again, for the manifest.
        candidate: whether the version waits for `mlapp promote`.
        say: called with each line of the report.

    Raises:
        InvalidData: the model cannot be published, or the data does not fit it.
        ArtifactError: the name cannot be used, or the folder cannot be published to.
    """
    root = artifacts.choose_root(root, name)
    if not 0 < level < 1:
        raise InvalidData(f"The level is {level}, expected a number between 0 and 1")
    with threadpool_limits(1, user_api="openmp"):  # several wait wherever a machine is busy
        classifies = check_estimator(model)
        data = match_rows(model, X, y, classifies)
        source = source or _describe(data)
        seen = None if held_out is None else _match_held_out(model, data, held_out, classifies, say)
        target = target or str(getattr(y, "name", None) or "target")
        labels = label_texts(model.classes_) if classifies else None
        own = ask(model, data.inputs, classifies, "the data")
        checked, compiled = _compile(model, data, own, target, classifies, say)
        measured = measure(model, data, own, checked, seen, classifies, say)
        files, metrics, report, values = _report(measured, labels, level, say)
        _warn_of_leaks(metrics, checked, data.target, labels, source, say)
        report |= _report_losses(model, measured, checked, seen, labels, target)
        files |= _list_files(compiled, checked, report)
        training = _describe_training(command, target, model, data, compiled, measured)
        fields = {"data": source, "training": training, "labels": labels, "metrics": metrics}
        known = None if seen else data.target
        return _store(name, files, compiled, fields, checked, values, known, root, candidate, say)


def _list_files(compiled: Compiled, checked: Checked, report: dict[str, Any]) -> dict[str, bytes]:
    content = json.dumps(report | {"served": compiled.report}, allow_nan=False).encode()
    background = dump_background(choose_background(checked))
    files = {**compiled.files, BACKGROUND: background, REPORT: content}
    return {**files, **describe_learned(checked)}


def _compile(
    model: Any, data: Rows, own: Floats, target: str, classifies: bool, say: Say
) -> tuple[Checked, Compiled]:
    """Learn the inputs from the data; return its checked rows, and what is served."""
    require_free_names(map(str, data.inputs.columns))
    cleaned, layout = lay_out(model, data.inputs)
    checked = learn(cleaned, data.target, target, classifies).check(cleaned)
    require_same_answers(model, data.inputs, own, checked, layout, classifies)
    if classifies:
        require_likeliest(model, data.inputs, own)
    given = "probabilities" if classifies else "prediction"
    compiled = compile_estimator({given: model}, checked, layout)
    _say_form(compiled, say)
    return checked, compiled


def _describe_training(
    command: str, target: str, model: Any, data: Rows, compiled: Compiled, measured: Measured
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "command": command,
        "target": target,
        "published": type(model).__name__,
        "rows_used": len(data.inputs),
        "served": str(compiled.report["form"]),
        "measured": measured.how or "in-sample",
    }
    cross_validated = measured.how == "cross-validated"
    return found | ({"folds": FOLDS, "seed": SEED} if cross_validated else {})


def _report_losses(
    model: Any,
    measured: Measured,
    checked: Checked,
    seen: Rows | None,
    labels: tuple[str, ...] | None,
    target: str,
) -> dict[str, Any]:
    """Return the losses of the rows that the model had not seen, for the report, if there are."""
    rows: Checked | None = checked if measured.how == "cross-validated" else None
    if measured.how == "held-out" and seen is not None:
        rows = _check_held_out(checked.schema, lay_out(model, seen.inputs)[0])
    return {} if rows is None else {"losses": _losses(rows, measured, labels, target)}


def _store(
    name: str,
    files: dict[str, bytes],
    compiled: Compiled,
    fields: dict[str, Any],
    checked: Checked,
    values: Floats | None,
    target: Any,
    root: Path,
    candidate: bool,
    say: Say,
) -> Artifact:
    """Publish the version, with golden predictions of a typical row and of random ones."""
    task = "regression" if fields["labels"] is None else "classification"
    fields = {"task": task, "input_schema": checked.schema, **fields}
    published = write_version(
        name,
        files,
        ("mlapp", "numpy", *compiled.libraries),
        fields,
        checked,
        values,
        target,
        _choose_golden(compiled, checked),
        root=root,
        candidate=candidate,
    )
    say(f"Published {published.path}")
    return published


def _choose_golden(compiled: Compiled, checked: Checked) -> list[dict[str, Any]]:
    """Return a typical row, random ones, and one of the data, without those that get no answer."""
    typical = checked.schema.check([checked.schema.typical]).matrix
    random = random_rows(checked, {}, GOLDEN_ROWS).matrix
    rows = Checked(checked.schema, np.concatenate([typical, random, checked.matrix[:1]]))
    return [
        rows.row(place) for place in range(len(rows)) if _is_answered(compiled, at(rows, [place]))
    ]


def _is_answered(compiled: Compiled, row: Checked) -> bool:
    try:
        columns = compiled.engine.run(row).values()
    except Exception:  # an encoder may not know a number between those of the data
        return False
    return all(bool(np.isfinite(each).all()) for each in columns)


def _describe(data: Rows) -> Data:
    hashes = pd.util.hash_pandas_object(data.inputs.astype(str), index=False).to_numpy()
    digest = hashlib.sha256(hashes.tobytes() + np.asarray(data.target).tobytes()).hexdigest()
    rows, columns = data.inputs.shape
    return Data(source="a data frame", rows=rows, columns=columns + 1, sha256=digest)


# --- measuring -------------------------------------------------------------------------------


def _match_held_out(
    model: Any, data: Rows, held_out: tuple[Any, Any], classifies: bool, say: Say
) -> Rows:
    """Return the held-out rows that are not in the data, which the model was fitted on.

    Rows with equal inputs may be different observations (`find_observations`). Where they are not,
    a label does not tell a copy from another row: without those that have a known label, the others
    would be the model's mistakes.

    Raises:
        InvalidData: they do not fit the model, or too few are left to measure it on.
    """
    seen = match_rows(model, *held_out, classifies)
    first = len(data.target)
    both = pd.concat([data.inputs, seen.inputs], ignore_index=True)
    target = np.concatenate([data.target, seen.target])
    groups = number_rows(lay_out(model, both)[0])
    alone = find_observations(groups, target)
    keys = groups if classifies else number_rows(np.column_stack([groups, target]))
    new = alone[first:] | ~np.isin(keys[first:], keys[:first])
    arrived, left = len(new), int(new.sum())
    if left == arrived:
        return seen
    if left < FEWEST:
        raise InvalidData(
            f"Of {arrived:,} held-out rows, {left} are left without those that are rows of the"
            f" data, too; at least {FEWEST} are needed. Give rows that the model was not fitted on,"
            " or no held-out rows: a clone is cross-validated then"
        )
    say(f"Left out {arrived - left:,} of {arrived:,} held-out rows: they are rows of the data, too")
    return Rows(seen.inputs[new], seen.target[new])


def _warn_of_leaks(
    metrics: Mapping[str, float],
    checked: Checked,
    target: Any,
    labels: tuple[str, ...] | None,
    source: Data,
    say: Say,
) -> None:
    """Warn where unseen rows are answered too well; figures in sample have other names."""
    found = {name: metrics.get(name, 0.0) for name in ("r2", "roc_auc", "balanced_accuracy")}
    best = max(found, key=lambda name: found[name])
    if found[best] > LEAKS:
        rows = TrainingRows(checked, target, labels or (), None, None, source)
        warn_of_leak(f"{measures.name_metric(best)} is {found[best]:.5f},", rows, say)


def _report(
    measured: Measured, labels: tuple[str, ...] | None, level: float, say: Say
) -> tuple[dict[str, bytes], dict[str, float], dict[str, Any], Floats | None]:
    """Return the files of the interval, the metrics, the report, and answers to unseen rows."""
    if labels is not None:
        metrics = measures.of_labels(measured.target, measured.answers)
        report = measures.mistakes(labels, measured.target, measured.answers)
        files, predicted = {}, measured.answers
    else:
        answer, predicted = _calibrate(measured, level, say)
        metrics = measures.of_numbers(measured.target, predicted)
        report = measures.held_out(measured.target, predicted)
        files = {ANSWER: answer.dump()}
    if measured.how is None:
        metrics = {key + measures.IN_SAMPLE: value for key, value in metrics.items()}
        report = {}
    for line in measures.describe(metrics, level):
        say(line)
    if measured.how == "held-out":
        metrics["held_out"] = len(measured.target)
    return files, metrics, report, None if measured.how is None else predicted


def _calibrate(measured: Measured, level: float, say: Say) -> tuple[Answer, Floats]:
    """Return how intervals are made, and the rows' predictions with theirs.

    The margin is the conformal quantile of the absolute residuals (split conformal prediction, Lei
    et al., "Distribution-free predictive inference for regression", 2018; of cross-validated rows
    as in Barber et al., "Predictive inference with the jackknife+", 2021). Each row's own interval
    in the report has the margin of the rows of the other half, so that its coverage is honest.
    """
    predicted = measured.answers[:, None]
    if not measured.calibrates or len(predicted) < max(FEWEST, 2 / (1 - level)):
        say("No intervals: there are no rows, or too few, that the model has not seen")
        return Answer(), predicted
    errors = np.abs(measured.target - measured.answers)
    one_width, halves = np.ones(len(errors)), halve(np.arange(len(errors)))
    found = normalise(measured.answers, errors, one_width, halves, Answer(), level)
    return found.answer, found.rows


def _say_form(compiled: Compiled, say: Say) -> None:
    found = compiled.report
    if found["form"] == "onnx":
        say(
            f"Served compiled (ONNX): {found['reason']} on {found['rows']:,} rows and"
            f" {found['random_rows']:,} random ones (largest difference"
            f" {found['largest_difference']:.1e})"
        )
    else:
        say(f"Served by scikit-learn itself: {found['reason']}")


def _check_held_out(schema: Schema, inputs: pd.DataFrame) -> Checked | None:
    """Return held-out rows as they are served; None where one would be refused."""
    try:
        return schema.check(inputs)
    except InvalidInput:
        return None


def _losses(
    rows: Checked, measured: Measured, labels: tuple[str, ...] | None, target: str
) -> dict[str, Any]:
    """Return what each held-out row cost, of many rows a sample."""
    shown = choose_losses(len(rows))
    actual, answers = measured.target[shown], measured.answers[shown]
    names = actual.tolist() if labels is None else [labels[place] for place in actual.tolist()]
    prints = fingerprints(at(rows, shown), names, target)
    if labels is None:
        return squared_errors(prints, actual, answers)
    return log_losses(prints, actual, answers)


# --- from files ------------------------------------------------------------------------------


def publish_file(
    model: Path,
    data: Path,
    target: str,
    name: str,
    *,
    held_out: Path | None = None,
    reading: Mapping[str, str | None] | None = None,
    say: Say = print,
    **options: Any,
) -> Artifact:
    """Publish the estimator in a file, with its data in another; see `publish`.

    Args:
        model: a file of `estimators.read_estimator`.
        data: a table with the rows it was fitted on, or like them.
        target: the column that it predicts.
        name: the model's name.
        held_out: a table with rows that it has not seen.
        reading: how the tables are read; see `tables.read_table`.
        say: called with each line of the report.
        options: of `publish`.

    Raises:
        InvalidData: a file cannot be read, or `publish` refuses it.
        ArtifactError: as `publish`.
    """
    reading = reading or {}
    inputs, output, source = _read(data, target, reading)
    seen = None if held_out is None else _read(held_out, target, reading)[:2]
    estimator = read_estimator(model, output.tolist(), say)
    return publish(
        estimator,
        inputs,
        output,
        name,
        held_out=seen,
        source=source,
        target=target,
        say=say,
        **options,
    )


def _read(
    path: Path, target: str, reading: Mapping[str, str | None]
) -> tuple[pd.DataFrame, pd.Series, Data]:
    """Return inputs and target of a table, and what it is, with truth values as pandas has them."""
    table, about = read_table(path, **reading)
    if target not in table:
        raise InvalidData(
            f"{path} has no column {target!r}; choose --target from {quote(map(str, table))}"
        )
    for name in [each for each in table if pd.api.types.is_object_dtype(table[each])]:
        present = table[name].dropna()
        if len(present) and present.isin(list(_TRUTHS)).all():
            table[name] = table[name].map(_TRUTHS).astype(object if table[name].hasnans else bool)
    return table.drop(columns=target), table[target], about


_TRUTHS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
