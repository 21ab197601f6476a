"""The choice between text classifiers, by how they do on texts that none of them saw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlapp.families.text import Ids
from mlapp.schema import Floats
from training.judging import Judgement
from training.losses import row_losses


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
                "log_loss": float(row_losses(classes, each.probabilities).mean()),
                "published": each.name == chosen,
            }
        )
    return rows
