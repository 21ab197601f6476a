"""What each held-out row cost a model, by a fingerprint of the row; `mlapp.store.gate` reads it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlapp.schema import Checked, Floats
from mlapp.store.learned import fingerprint
from training.folds import Groups

SMALLEST = 1e-12  # of a probability, so that a log loss stays finite


def fingerprints(rows: Checked, target: Sequence[Any], name: str) -> list[str]:
    """Return what identifies each row: its inputs and its target, by name."""
    return [fingerprint({**rows.row(place), name: value}) for place, value in enumerate(target)]


def row_losses(target: Any, answers: Floats) -> Floats:
    """Return what each of n answers costs: the squared error, or the log loss.

    Args:
        target: numbers, or the places of labels, (n,).
        answers: numbers (n,), or probabilities (n, labels).
    """
    if answers.ndim == 1:
        squares: Floats = (target - answers) ** 2
        return squares
    own = answers[np.arange(len(target)), target]
    logs: Floats = -np.log(np.maximum(own, SMALLEST))
    return logs


def squared_errors(
    fingerprints: Sequence[str], target: Floats, predicted: Floats, groups: Groups | None = None
) -> dict[str, Any]:
    """Return the `losses` of a report, for numbers.

    Args:
        fingerprints: of n rows.
        target: (n,), in its unit.
        predicted: (n,), by fits that did not see the row.
        groups: the number of each row's group, (n,), where rows are not independent.
    """
    return _report("squared error", fingerprints, row_losses(target, predicted), groups)


def log_losses(
    fingerprints: Sequence[str], classes: Any, probabilities: Floats, groups: Groups | None = None
) -> dict[str, Any]:
    """Return the `losses` of a report, for labels.

    Args:
        fingerprints: of n rows or texts.
        classes: the place of each one's label, (n,).
        probabilities: of fits that did not see the row, (n, labels).
        groups: the number of each row's group, (n,), where rows are not independent.
    """
    return _report("log loss", fingerprints, row_losses(classes, probabilities), groups)


def _report(
    metric: str, fingerprints: Sequence[str], values: Floats, groups: Groups | None
) -> dict[str, Any]:
    """Return the losses, and groups if there are; rows that are equal share their mean."""
    found = defaultdict[str, list[float]](list)
    for key, value in zip(fingerprints, values.tolist(), strict=True):
        found[key].append(value)
    means = {key: float(np.mean(each)) for key, each in found.items()}
    report: dict[str, Any] = {"metric": metric, "values": means}
    if groups is not None:
        report["groups"] = dict(zip(fingerprints, groups.tolist(), strict=True))
    return report
