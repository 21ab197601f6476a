"""How good a classifier is: calibration, metrics, and the choice between several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from mlapp.families.sentiment import softmax
from mlapp.families.text import Ids
from mlapp.schema import Floats
from training.judging import Judgement

BINS = 15  # of the reliability diagram


@dataclass(frozen=True)
class Candidate:
    """A model that may be published, as it does on the validation texts.

    Attributes:
        name: what it is.
        probabilities: of each label, for the n validation texts, (n, labels).
        baseline: whether it learned nothing, and is only there to be compared with.
        files: what is published of it.
        metrics: what is known of it beside its quality.
        curve: a row of its learning curve per epoch.
        judge: asks about the held-out texts; to be called once, for the model that is published.
    """

    name: str
    probabilities: Floats
    baseline: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    curve: Sequence[Mapping[str, Any]] = ()
    judge: Callable[[], Judgement] | None = None


def majority(classes: Ids, labels: int, count: int) -> Candidate:
    """Return the baseline that gives n texts the shares of the labels among those trained on."""
    shares = (np.bincount(classes, minlength=labels) + 1) / (len(classes) + labels)
    return Candidate("majority baseline", np.tile(shares, (count, 1)), baseline=True)


def choose(candidates: Sequence[Candidate], classes: Ids) -> str:
    """Return the name of the first candidate within one standard error of the best.

    The standard error is that of the difference of two accuracies on the same texts. A baseline
    is never chosen.

    Args:
        candidates: the fastest first.
        classes: the labels of the n validation texts, (n,).
    """
    able = [each for each in candidates if not each.baseline]
    right = [(each.probabilities.argmax(axis=1) == classes).astype(float) for each in able]
    best = max(right, key=lambda own: own.mean())
    for candidate, own in zip(able, right, strict=True):
        lead = best - own
        error = np.sqrt(lead.var() / max(1, len(lead) - 1))
        if lead.mean() <= error + 1e-9:
            return candidate.name
    raise AssertionError("the best is as good as itself")


def compare(candidates: Sequence[Candidate], classes: Ids, chosen: str) -> list[dict[str, Any]]:
    """Return a row per candidate, for the report."""
    rows = []
    for each in candidates:
        right = each.probabilities.argmax(axis=1) == classes
        rows.append(
            {
                "model": each.name,
                "accuracy": float(right.mean()),
                "standard_error": float(right.std() / np.sqrt(len(right))),
                "log_loss": log_loss(each.probabilities, classes),
                "published": each.name == chosen,
            }
        )
    return rows


def fit_temperature(scores: Floats, classes: Ids) -> float:
    """Return the temperature at which scores (n, labels) give the smallest log loss.

    No label counts as quite certain: of m texts with it, its share is (m + 1) / (m + 2), as in
    Platt, "Probabilistic outputs for support vector machines" (1999). A few texts that are all
    told apart would make every answer certain otherwise.
    """
    labels = scores.shape[1]
    counts = np.bincount(classes, minlength=labels)[classes][:, None]
    own = np.eye(labels)[classes]
    targets = np.where(own > 0, (counts + 1) / (counts + 2), 1 / (counts + 2) / (labels - 1))

    def loss(power: float) -> float:
        probabilities = softmax(scores / np.exp(power))
        return float(-(targets * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def log_loss(probabilities: Floats, classes: Ids) -> float:
    """Return the mean negative log probability of the true labels."""
    own = probabilities[np.arange(len(classes)), classes]
    return float(-np.log(np.maximum(own, 1e-12)).mean())


def reliability(probabilities: Floats, classes: Ids) -> tuple[list[dict[str, float]], float]:
    """Return the filled bins of the reliability diagram and the expected calibration error.

    Both as in Guo et al. (2017): bins of the predicted label's probability, and the mean distance
    of accuracy and confidence, weighted by how many texts a bin holds.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == classes
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for place in range(BINS):
        inside = places == place
        if inside.any():
            mean, accuracy = float(confidence[inside].mean()), float(right[inside].mean())
            bins.append(
                {
                    "lower": place / BINS,
                    "upper": (place + 1) / BINS,
                    "texts": int(inside.sum()),
                    "confidence": mean,
                    "accuracy": accuracy,
                }
            )
            error += abs(mean - accuracy) * float(inside.mean())
    return bins, error


def measure(
    probabilities: Floats, classes: Ids, labels: Sequence[str]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the metrics of n held-out texts, and the rest of the report."""
    predicted = probabilities.argmax(axis=1)
    count = len(labels)
    confusion = np.bincount(count * classes + predicted, minlength=count**2).reshape(count, count)
    called, there = confusion.sum(axis=0), confusion.sum(axis=1)
    per_class = [
        {
            "label": label,
            "precision": int(confusion[place, place]) / max(1, int(called[place])),
            "recall": int(confusion[place, place]) / max(1, int(there[place])),
            "texts": int(there[place]),
        }
        for place, label in enumerate(labels)
    ]
    bins, error = reliability(probabilities, classes)
    metrics = {
        "accuracy": float(np.mean(predicted == classes)),
        "log_loss": log_loss(probabilities, classes),
        "ece": error,
    }
    return metrics, {"confusion": confusion.tolist(), "per_class": per_class, "reliability": bins}
