"""Publish a fitted estimator: learn its inputs from data, measure it, and store what is served."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from mlapp.errors import InvalidData, InvalidInput, quote
from mlapp.families.engines import Layout
from mlapp.families.regression import ANSWER, Answer
from mlapp.families.table import BACKGROUND, REPORT, dump_background
from mlapp.manifest import Artifact, Data
from mlapp.schema import Checked, Floats, Schema
from mlapp.store import artifacts
from training import measures
from training.compile import Compiled, compile_estimator, random_rows
from training.estimators import (
    check_estimator,
    label_texts,
    names_of,
    read_estimator,
)
from training.fitted_rows import Rows, lay_out, learn, match_rows
from training.folds import (
    SEED,
    Groups,
    find_observations,
    group_rows,
    number_rows,
    random_folds,
)
from training.foreign import OnnxEstimator
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

COMPARED = 2_000  # rows that a model is asked about as they are given, and as requests reach it
OTHER_LABELS = 0.02  # share of the rows that may get another label than the likeliest
LEVEL = 0.9  # the share of new rows that an interval is meant to hold
FOLDS = 5  # of the cross-validation
FEWEST = 20  # rows that an estimator is measured and its interval calibrated on
GOLDEN_ROWS = 5

NOT_HONEST = "measured on the model's own training rows, which flatters it"


@dataclass(frozen=True)
class Measured:
    """What was measured, and on what.

    Attributes:
        how: `held-out` or `cross-validated`; None where the rows are those of the training.
        target: of the rows, (n,): numbers, or places of labels.
        answers: predictions (n,), or probabilities (n, labels).
    """

    how: str | None
    target: Any
    answers: Floats


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
    calibrated on the same unseen rows. Otherwise it is measured on its own rows, and has none.

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
    classifies = check_estimator(model)
    data = match_rows(model, X, y, classifies)
    seen = None if held_out is None else match_rows(model, *held_out, classifies)
    seen = None if seen is None else _leave_out_known(model, data, seen, classifies, say)
    target = target or str(getattr(y, "name", None) or "target")
    labels = label_texts(model.classes_) if classifies else None
    checked, compiled = _compile(model, data, target, classifies)
    _say_form(compiled, say)
    source = source or _describe(data)
    measured = _measure(model, data, checked, seen, classifies, say)
    files, metrics, report, values = _report(measured, labels, level, say)
    _warn_of_leaks(metrics, checked, data.target, labels, source, say)
    report |= _report_losses(model, measured, checked, seen, labels, target)
    files |= _list_files(compiled, checked, report)
    training = {"command": command, "target": target}
    training |= _describe_training(model, data, compiled, measured)
    fields = {"data": source, "training": training, "labels": labels, "metrics": metrics}
    known = data.target if seen is None else None
    return _store(name, files, compiled, fields, checked, values, known, root, candidate, say)


def _list_files(compiled: Compiled, checked: Checked, report: dict[str, Any]) -> dict[str, bytes]:
    content = json.dumps(report | {"served": compiled.report}, allow_nan=False).encode()
    background = dump_background(choose_background(checked))
    files = {**compiled.files, BACKGROUND: background, REPORT: content}
    return {**files, **describe_learned(checked)}


def _compile(model: Any, data: Rows, target: str, classifies: bool) -> tuple[Checked, Compiled]:
    """Learn the inputs from the data; return its checked rows, and what is served."""
    require_free_names(map(str, data.inputs.columns))
    _try(model, data, classifies)
    cleaned, layout = lay_out(model, data.inputs)
    checked = learn(cleaned, data.target, target, classifies).check(cleaned)
    _require_same_rows(model, data, checked, layout, classifies)
    if classifies:
        _require_likeliest(model, data)
    given = "probabilities" if classifies else "prediction"
    return checked, compile_estimator({given: model}, checked, layout)


def _describe_training(
    model: Any, data: Rows, compiled: Compiled, measured: Measured
) -> dict[str, Any]:
    found: dict[str, Any] = {
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
    random = random_rows(checked, {}, GOLDEN_ROWS)
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
        [checked.schema.typical, *map(random.row, range(len(random)))],
        root=root,
        candidate=candidate,
    )
    say(f"Published {published.path}")
    return published


def _describe(data: Rows) -> Data:
    hashes = pd.util.hash_pandas_object(data.inputs.astype(str), index=False).to_numpy()
    digest = hashlib.sha256(hashes.tobytes() + np.asarray(data.target).tobytes()).hexdigest()
    rows, columns = data.inputs.shape
    return Data(source="a data frame", rows=rows, columns=columns + 1, sha256=digest)


# --- measuring -------------------------------------------------------------------------------


def _leave_out_known(model: Any, data: Rows, seen: Rows, classifies: bool, say: Say) -> Rows:
    """Return the held-out rows that are not in the data, which the model was fitted on.

    Rows with equal inputs may be different observations (`find_observations`). Where they are not,
    a label does not tell a copy from another row: without those that have a known label, the others
    would be the model's mistakes.

    Raises:
        InvalidData: too few are left to measure it on.
    """
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
    return Rows(seen.inputs[new].reset_index(drop=True), seen.target[new])


def _measure(
    model: Any, data: Rows, checked: Checked, held_out: Rows | None, classifies: bool, say: Say
) -> Measured:
    """Answer rows that the model has not seen, if that can be done."""
    if held_out is not None:
        say(f"Measured on {len(held_out.target):,} held-out rows")
        answers = _require_finite(_ask(model, held_out.inputs, classifies))
        return Measured("held-out", held_out.target, answers)
    reason = "it is a graph that cannot be fitted again"
    if not isinstance(model, OnnxEstimator):
        try:
            answers = _require_finite(_cross_validate(model, data, checked, classifies, say))
        except Exception as error:  # an estimator may raise anything
            reason = str(error) if isinstance(error, InvalidData) else f"its fit fails: {error}"
        else:
            say(
                f"Measured by {FOLDS}-fold cross-validation of a clone on {len(data.target):,} rows"
            )
            return Measured("cross-validated", data.target, answers)
    say(f"Not cross-validated: {reason}")
    say(f"The figures are {NOT_HONEST}; --held-out FILE measures on rows it has not seen")
    return Measured(None, data.target, _ask(model, data.inputs, classifies))


def _require_finite(answers: Floats) -> Floats:
    """Return answers (n, ...).

    Raises:
        InvalidData: one is NaN or infinite.
    """
    rows = len(answers)
    bad = np.flatnonzero(~np.isfinite(answers.reshape(rows, -1)).all(axis=1))
    if len(bad):
        raise InvalidData(f"{len(bad):,} of {rows:,} rows get no finite answer, as row {bad[0]}")
    return answers


def _try(model: Any, data: Rows, classifies: bool) -> None:
    """Ask a model about some rows of the data.

    Raises:
        InvalidData: it cannot answer them, or gives several numbers for a row.
    """
    try:
        _ask(model, data.inputs[:100], classifies)
    except InvalidData:
        raise
    except Exception as error:  # an estimator may raise anything
        raise InvalidData(
            f"{type(model).__name__} cannot answer the rows of the data: {error}"
        ) from error


def _require_same_rows(
    model: Any, data: Rows, checked: Checked, layout: Layout, classifies: bool
) -> None:
    """Check that a model gives the rows the answers that it gives them once they are checked.

    Raises:
        InvalidData: it does not, since the check changes values, such as spaces around a text.
    """
    given = data.inputs[:COMPARED]
    restored = pd.DataFrame(layout.restore(checked), columns=data.inputs.columns)[:COMPARED]
    try:
        ours, theirs = _ask(model, restored, classifies), _ask(model, given, classifies)
    except Exception as error:  # an estimator may raise anything
        raise InvalidData(
            f"{type(model).__name__} cannot answer the rows as requests reach it: {error}"
        ) from error
    if np.allclose(ours, theirs, rtol=1e-6, atol=1e-6 * float(np.abs(theirs).max(initial=0))):
        return
    pairs = {str(name): (given[name].tolist(), restored[name].tolist()) for name in given}
    changed = [name for name, (one, two) in pairs.items() if repr(one) != repr(two)]
    if not changed:
        raise InvalidData(f"{type(model).__name__} gives equal rows different answers")
    raise InvalidData(
        f"{type(model).__name__} would answer requests differently from the rows it was fitted"
        f" on: requests give {quote(changed)} as texts without spaces around them, as whole"
        " numbers without .0, or as missing. Fit it on such values"
    )


def _require_likeliest(model: Any, data: Rows) -> None:
    """Check that a classifier gives the label with the highest probability.

    Raises:
        InvalidData: it often gives another, as where a threshold was chosen.
    """
    inputs = data.inputs[:COMPARED]
    likeliest = np.asarray(model.classes_)[_ask(model, inputs, classifies=True).argmax(axis=1)]
    other = float(np.mean(np.asarray(model.predict(_as_fitted(model, inputs))) != likeliest))
    if other > OTHER_LABELS:
        raise InvalidData(
            f"{type(model).__name__} gives {other:.0%} of the rows a label other than the most"
            " likely by its own probabilities, as a custom threshold does; the label that is"
            " served is always the most likely one"
        )


def _as_fitted(model: Any, inputs: pd.DataFrame) -> Any:
    """Return rows with names, or as an array if the model was fitted on one."""
    named = names_of(model) is not None or isinstance(model, OnnxEstimator)
    return inputs if named else inputs.to_numpy()


def _ask(model: Any, inputs: pd.DataFrame, classifies: bool) -> Floats:
    given = _as_fitted(model, inputs)
    if classifies:
        return np.asarray(model.predict_proba(given), dtype=np.float64)
    found = np.asarray(model.predict(given), dtype=np.float64)
    if found.ndim == 2 and found.shape[1] > 1:
        raise InvalidData(
            f"{type(model).__name__} gives {found.shape[1]} numbers for a row, expected one"
        )
    return found.reshape(len(inputs))


def _cross_validate(model: Any, data: Rows, checked: Checked, classifies: bool, say: Say) -> Floats:
    """Answer each row by a clone that was fitted on others; equal rows stay in one fold.

    Raises:
        InvalidData: there are too few different rows, or too few of a label.
    """
    rows = len(data.target)
    groups = group_rows(checked.matrix, data.target, FEWEST, rows, say)
    labels = np.asarray(model.classes_) if classifies else None
    if labels is not None:
        _require_each_label(data.target, groups, label_texts(model.classes_))
    target = data.target if labels is None else labels[data.target]
    named = names_of(model) is not None
    answers = np.empty(rows if labels is None else (rows, len(labels)))
    for fold in random_folds(groups, FOLDS, None if labels is None else data.target):
        part = data.inputs.iloc[fold.train]
        fitted = clone(model).fit(part if named else part.to_numpy(), target[fold.train])
        answers[fold.test] = _ask(fitted, data.inputs.iloc[fold.test], classifies)
    return answers


def _require_each_label(target: Any, groups: Groups, labels: tuple[str, ...]) -> None:
    """Check that each label has rows for every fold.

    Raises:
        InvalidData: one has not.
    """
    pairs = np.unique(np.column_stack([groups, target]), axis=0)  # repeated rows count once
    counts = np.bincount(pairs[:, 1], minlength=len(labels))
    if counts.min() < FOLDS:
        rare = labels[int(counts.argmin())]
        raise InvalidData(
            f"the label {rare!r} has {counts.min()} different rows; at least {FOLDS} are needed"
        )


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
        warn_of_leak(f"{best} is {found[best]:.5f},", rows, say)


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
        metrics = {f"{key}_in_sample": value for key, value in metrics.items()}
        report = {}
    elif measured.how == "held-out":
        metrics["held_out"] = len(measured.target)
    for key, value in metrics.items():
        say(f"  {key:<24} {value:.6g}")
    return files, metrics, report, None if measured.how is None else predicted


def _calibrate(measured: Measured, level: float, say: Say) -> tuple[Answer, Floats]:
    """Return how intervals are made, and the rows' predictions with theirs.

    The margin is the conformal quantile of the absolute residuals (split conformal prediction, Lei
    et al., "Distribution-free predictive inference for regression", 2018; of cross-validated rows
    as in Barber et al., "Predictive inference with the jackknife+", 2021). Each row's own interval
    in the report has the margin of the rows of the other half, so that its coverage is honest.
    """
    predicted = measured.answers[:, None]
    if measured.how is None or len(predicted) < max(FEWEST, 2 / (1 - level)):
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
