"""What is measured of a model on rows that it has not seen: metrics, and data of pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as scores

from mlapp.calibration import BINS, bins_of, calibration_error
from mlapp.schema import Floats
from training.losses import row_losses

SHOWN = 2000  # held-out rows that are kept for the pictures

Places = npt.NDArray[np.int64]

NAMES = {"r2": "R²", "rmse": "RMSE", "mae": "MAE", "ece": "calibration error", "roc_auc": "ROC AUC"}
IN_SAMPLE = "_in_sample"  # the suffix of metrics of the rows that a model was fitted on


def name_metric(key: str) -> str:
    """Return what people call a metric: R² for r2, log loss for log_loss."""
    plain = key.removesuffix(IN_SAMPLE)
    return NAMES.get(plain, plain.replace("_", " ")) + (" in sample" if plain != key else "")


def describe(metrics: Mapping[str, float], level: float) -> list[str]:
    """Return a line about each metric of `of_numbers` or `of_labels`.

    Args:
        metrics: the values; the suffix `IN_SAMPLE` says that they are of rows fitted on.
        level: the share of the rows that an interval is meant to hold.
    """
    lines = []
    for key, value in metrics.items():
        name, shown = name_metric(key), f"{value:.4f}"
        if key.startswith("coverage"):
            name, shown = f"{level:.0%} interval", f"holds {value:.1%} of the rows"
        elif key.startswith(("rmse", "mae")):
            shown = f"{value:.6g}"
        lines.append(f"  {name:<17} {shown}")
    return lines


def of_numbers(actual: Floats, predicted: Floats) -> dict[str, float]:
    """Return the metrics of n predictions, (n, 1), or with lower and upper, (n, 3)."""
    found = {
        "r2": float(scores.r2_score(actual, predicted[:, 0])),
        "rmse": float(scores.root_mean_squared_error(actual, predicted[:, 0])),
        "mae": float(scores.mean_absolute_error(actual, predicted[:, 0])),
    }
    if predicted.shape[1] == 3:
        inside = (predicted[:, 1] <= actual) & (actual <= predicted[:, 2])
        found["coverage"] = float(inside.mean())
    return found


def of_labels(actual: Places, probabilities: Floats) -> dict[str, float]:
    """Return the metrics of n classified rows or texts.

    Args:
        actual: the place of each row's label, (n,).
        probabilities: of each label, (n, labels).
    """
    given, count = probabilities.argmax(axis=1), probabilities.shape[1]
    shares = [float((given[actual == place] == place).mean()) for place in np.unique(actual)]
    frequencies = np.bincount(actual, minlength=count) / len(actual)
    there = frequencies[frequencies > 0]
    found = {
        "accuracy": float((given == actual).mean()),
        "balanced_accuracy": float(np.mean(shares)),
        "log_loss": float(row_losses(actual, probabilities).mean()),
        "baseline_accuracy": float(frequencies.max()),
        "baseline_log_loss": float(-(there * np.log(there)).sum()),
        "ece": reliability(actual, probabilities)[1],
    }
    if count == 2 and len(shares) == 2:
        found["roc_auc"] = float(scores.roc_auc_score(actual, probabilities[:, 1]))
    return found


def reliability(actual: Places, probabilities: Floats) -> tuple[list[dict[str, float]], float]:
    """Return the filled bins of the reliability diagram and the expected calibration error.

    Both are of the likeliest label's probability; see `mlapp.calibration`.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == actual
    places = bins_of(confidence)
    bins = [
        {
            "lower": place / BINS,
            "upper": (place + 1) / BINS,
            "confidence": float(confidence[places == place].mean()),
            "accuracy": float(right[places == place].mean()),
            "texts": int((places == place).sum()),
        }
        for place in np.unique(places).tolist()
    ]
    return bins, calibration_error(right.astype(float), confidence)


def mistakes(labels: Sequence[str], actual: Places, probabilities: Floats) -> dict[str, Any]:
    """Return the parts `confusion`, `per_class` and `reliability` of a report."""
    count = len(labels)
    confusion = np.bincount(
        count * actual + probabilities.argmax(axis=1), minlength=count**2
    ).reshape(count, count)
    per_class = [
        {
            "label": label,
            "precision": int(confusion[at, at]) / max(1, int(confusion[:, at].sum())),
            "recall": int(confusion[at, at]) / max(1, int(confusion[at].sum())),
            "texts": int(confusion[at].sum()),
        }
        for at, label in enumerate(labels)
    ]
    bins, _ = reliability(actual, probabilities)
    return {"confusion": confusion.tolist(), "per_class": per_class, "reliability": bins}


def held_out(actual: Floats, predicted: Floats) -> dict[str, Any]:
    """Return the part `held_out` of a report: of many rows, a sample."""
    shown = np.arange(len(actual))
    if len(shown) > SHOWN:
        shown = np.sort(np.random.default_rng(0).choice(shown, SHOWN, replace=False))
    names = ("prediction", "lower", "upper")[: predicted.shape[1]]
    columns = {name: predicted[shown, at].tolist() for at, name in enumerate(names)}
    return {"held_out": {"actual": actual[shown].tolist()} | columns}
