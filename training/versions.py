"""A fitted table model becomes a version: drafted, asked for its golden answers, and published."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlapp import families
from mlapp.families.contract import Answers, LabelOutput, Labels, Numbers, replay
from mlapp.families.shapley import BACKGROUND as BACKGROUND_ROWS
from mlapp.manifest import Artifact
from mlapp.records.reference import REFERENCE, learn
from mlapp.schema import Checked, Floats
from mlapp.store import artifacts
from mlapp.store.learned import dump_learned
from training.folds import SEED

MOST_LOSSES = 20_000  # held-out rows whose losses are kept
ALIKE = 0.9  # of the error on unseen rows: with more, a model remembers nothing of its own rows
REMEMBERED = 0.3  # of it: with less, it remembers even where many rows share an answer
SHARING = 5  # rows with the same answer, on average, where many do


def write_version(
    name: str,
    files: Mapping[str, bytes],
    libraries: tuple[str, ...],
    fields: Mapping[str, Any],
    rows: Checked,
    values: Floats | None,
    target: Any,
    golden: Sequence[Mapping[str, Any]],
    *,
    root: Path,
    candidate: bool = False,
) -> Artifact:
    """Publish a table model with its golden answers and its reference for drift.

    Args:
        name: the model's.
        files: all but the reference.
        libraries: the distributions whose versions matter for the files.
        fields: of the manifest.
        rows: that the reference counts.
        values: the answers to them, or to held-out rows, of fits that did not see them: (n, 1) or
            (n, 3) numbers, or probabilities (n, labels); None without such answers.
        target: of the rows, (n,), numbers or places of labels, if `values` are of other fits; None
            if they are the model's own.
        golden: rows whose answers are kept, to be replayed.
        root: the artifact folder.
        candidate: whether the version waits for `mlapp promote`.

    Raises:
        ArtifactError: the name cannot be used, or the folder cannot be published to.
    """
    model = families.from_artifact(artifacts.draft(name, files, libraries, golden=(), **fields))
    own = model.answer(rows)
    unseen = None if values is None else _answers(model.gives, values)
    if unseen is not None and target is not None and not _remembers(own, unseen, target):
        unseen = own  # other fits have other answers, which shows where there are few
    bins, reference = learn(model, rows, own, unseen)
    found = model.answer(model.check(golden)).records()
    drafted = artifacts.draft(
        name,
        {**files, REFERENCE: reference},
        libraries,
        golden=[{"input": row, "output": out} for row, out in zip(golden, found, strict=True)],
        bins=bins,
        **fields,
    )
    return artifacts.publish(
        root,
        drafted,
        lambda artifact: replay(families.from_artifact(artifact)),
        candidate=candidate,
    )


def _answers(gives: Any, values: Floats) -> Answers:
    return Labels(gives, values) if isinstance(gives, LabelOutput) else Numbers(gives, values)


def _remembers(own: Answers, unseen: Answers, target: Any) -> bool:
    """Return whether a model's answers to rows that it learned from are unlike those to others."""
    values, others = (
        each.values[:, :1] if isinstance(each, Numbers) else each.probabilities
        for each in (own, unseen)
    )
    truth = target[:, None] if isinstance(own, Numbers) else np.eye(values.shape[1])[target]
    shared = len(values) >= SHARING * len(np.unique(values, axis=0))
    # The squared error of predictions, or of probabilities, as in the Brier score.
    errors = [float(np.mean((each - truth) ** 2)) for each in (values, others)]
    return errors[0] < errors[1] * (REMEMBERED if shared else ALIKE)


def choose_background(checked: Checked) -> Floats:
    """Return the sample of training rows that reasons are measured against."""
    count = min(BACKGROUND_ROWS, len(checked))
    places = np.random.default_rng(SEED).choice(len(checked), count, replace=False)
    return checked.matrix[np.sort(places)]


def describe_learned(checked: Checked) -> dict[str, bytes]:
    """Return the file of a version that knows which rows it learned from, by name."""
    return dump_learned(map(checked.row, range(len(checked))))


def at(checked: Checked, places: Any) -> Checked:
    """Return some of checked rows."""
    return Checked(checked.schema, checked.matrix[places])


def choose_losses(rows: int) -> Any:
    """Return the places of the held-out rows whose losses are reported: of many, a sample."""
    places = np.arange(rows)
    if rows <= MOST_LOSSES:
        return places
    return np.sort(np.random.default_rng(SEED).choice(places, MOST_LOSSES, replace=False))
