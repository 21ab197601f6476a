"""How good a fitted estimator is: on held-out rows, or by clones fitted to parts of the data.

The errors of clones are those of the model on unseen rows if it was fitted on such rows as they
were. It is no worse on the rows of the data then, so both are compared, row by row.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone

from mlapp.errors import InvalidData
from mlapp.schema import Checked, Floats
from training.asking import as_fitted, ask
from training.estimators import label_texts
from training.fitted_rows import Rows
from training.folds import Groups, group_rows, random_folds
from training.foreign import OnnxEstimator
from training.losses import row_losses
from training.tables import Say

FOLDS = 5  # of the cross-validation
FEWEST = 20  # rows that an estimator is measured and its interval calibrated on
CHANCE = 3  # standard errors that a difference may have by chance
# Of the mean loss, by which fits to different samples may differ.
MARGIN_OF_SQUARES, MARGIN_OF_LOGS = 1.0, 0.5
FEW = 50  # rows; the margin is larger by their share of the rows, since fits to few differ more
ROUNDING = 1e-9  # of the loss of a constant answer

NOT_HONEST = "measured on the model's own training rows, which flatters it"
CAUSES = (
    "Was it fitted on another target or a transformation of it, such as its logarithm, on columns"
    " in another order, on other spellings of their values, or on rows of another kind?"
)


@dataclass(frozen=True)
class Measured:
    """What was measured, and on what.

    Attributes:
        how: `held-out` or `cross-validated`; None where the rows may be those of the training.
        target: of the rows, (n,): numbers, or places of labels.
        answers: predictions (n,), or probabilities (n, labels).
        calibrates: whether intervals can be calibrated on the errors.
    """

    how: str | None
    target: Any
    answers: Floats
    calibrates: bool = True


def measure(
    model: Any,
    data: Rows,
    own: Floats,
    checked: Checked,
    held_out: Rows | None,
    classifies: bool,
    say: Say,
) -> Measured:
    """Answer rows that the model has not seen, if that can be done.

    Args:
        model: a fitted estimator.
        data: n rows that it was fitted on, or like them.
        own: its answers to them.
        checked: the same rows.
        held_out: rows that it was not fitted on.
        classifies: whether it gives probabilities.
        say: called with what was done, and with warnings.

    Raises:
        InvalidData: it cannot answer a held-out row, or its answers do not fit the data.
    """
    kind = type(model).__name__
    if held_out is not None:
        say(f"Measured on {len(held_out.target):,} held-out rows")
        answers = ask(model, held_out.inputs, classifies, "the held-out rows")
        measured = Measured("held-out", held_out.target, answers)
        _warn_of_useless(kind, measured, "the held-out rows", say)
        return measured
    reason = "it is a graph that cannot be fitted again"
    if not isinstance(model, OnnxEstimator):
        try:
            answers, groups = _cross_validate(model, data, checked, classifies, say)
        except Exception as error:  # an estimator may raise anything
            reason = str(error) if isinstance(error, InvalidData) else f"its fit fails: {error}"
        else:
            measured = Measured("cross-validated", data.target, answers)
            return _require_like_clones(kind, own, measured, groups, say)
    say(f"Not cross-validated: {reason}")
    say(f"The figures are {NOT_HONEST}; --held-out FILE measures on rows it has not seen")
    measured = Measured(None, data.target, own, calibrates=False)
    _warn_of_useless(kind, measured, "the rows of the data", say)
    return measured


def _cross_validate(
    model: Any, data: Rows, checked: Checked, classifies: bool, say: Say
) -> tuple[Floats, Groups]:
    """Answer each row by a clone that was fitted on others; equal rows stay in one fold.

    Returns:
        The answers, and the number of each row's group, (n,).

    Raises:
        InvalidData: there are too few different rows, or too few of a label.
    """
    rows = len(data.target)
    groups = group_rows(checked.matrix, data.target, FEWEST, rows, say)
    labels = np.asarray(model.classes_) if classifies else None
    if labels is not None:
        _require_each_label(data.target, groups, label_texts(model.classes_))
    target = data.target if labels is None else labels[data.target]
    answers = np.empty(rows if labels is None else (rows, len(labels)))
    for fold in random_folds(groups, FOLDS, None if labels is None else data.target):
        part, rest = data.inputs.iloc[fold.train], data.inputs.iloc[fold.test]
        fitted = clone(model).fit(as_fitted(model, part), target[fold.train])
        answers[fold.test] = ask(fitted, rest, classifies, "the data after a fit to other rows")
    return answers, groups


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


def _require_like_clones(
    kind: str, own: Floats, clones: Measured, groups: Groups, say: Say
) -> Measured:
    """Return the clones' answers where they describe the model, otherwise its own.

    Args:
        kind: of the model, its class.
        own: its answers to the rows that the clones were measured on, (n, ...).
        clones: what was measured of them.
        groups: the number of each row's group, (n,).
        say: called with a warning.

    Raises:
        InvalidData: its answers are worse than theirs, and than a constant one.
    """
    target = clones.target
    losses, others = row_losses(target, own), row_losses(target, clones.answers)
    constant = _constant_losses(clones)
    classifies = own.ndim == 2
    margin = MARGIN_OF_LOGS if classifies else MARGIN_OF_SQUARES
    if not is_worse(losses, others, groups, margin, ROUNDING * float(constant.mean())):
        say(f"Measured by {FOLDS}-fold cross-validation of a clone on {len(target):,} rows")
        return clones
    found = f"{kind} has {_name_loss(losses, classifies)} on the rows of the data"
    fitted = f"clones fitted to these rows have {_figure(others, classifies)}"
    if losses.mean() > constant.mean():
        raise InvalidData(
            f"{found}, worse than {_name_constant(classifies)} ({_figure(constant, classifies)});"
            f" {fitted}. {CAUSES} Given held-out rows, it is published with its figures on those"
        )
    say(
        f"Warning: {found}; {fitted}. So the figures are of its own errors on these rows, which may"
        f" have been in its training. {CAUSES}"
    )
    return replace(clones, how=None, answers=own)


def is_worse(
    losses: Floats, others: Floats, groups: Groups, margin: float, least: float = 0.0
) -> bool:
    """Return whether losses are larger than others, beyond chance and by a margin that matters.

    Args:
        losses: of n rows, (n,).
        others: of the same rows, (n,).
        groups: the number of each row's group, (n,): rows of one are not independent.
        margin: the smallest difference of the means that matters, as a share of the others' mean;
            of few rows it is larger.
        least: the smallest one as a number.
    """
    difference = losses.mean() - others.mean()
    if not difference > max((margin + FEW / len(losses)) * others.mean(), least):
        return False
    apart = (losses - others - difference) / difference
    error = math.sqrt(float(np.sum(np.bincount(groups, apart) ** 2))) / len(losses)
    return CHANCE * error < 1


def _warn_of_useless(kind: str, measured: Measured, what: str, say: Say) -> None:
    """Warn where answers are worse than a constant one."""
    losses, constant = row_losses(measured.target, measured.answers), _constant_losses(measured)
    classifies = measured.answers.ndim == 2
    if not is_worse(losses, constant, np.arange(len(losses)), margin=0.0):
        return
    quantile = "" if classifies else "A quantile may be. "
    say(
        f"Warning: {kind} has {_name_loss(losses, classifies)} on {what}, worse than"
        f" {_name_constant(classifies)} ({_figure(constant, classifies)}). {quantile}{CAUSES}"
    )


def _constant_losses(measured: Measured) -> Floats:
    """Return the loss of each row if all get the mean of the target, or the labels' shares."""
    target, answers = measured.target, measured.answers
    if answers.ndim == 1:
        return row_losses(target, np.full(len(target), target.mean()))
    shares = np.bincount(target, minlength=answers.shape[1]) / len(target)
    return row_losses(target, np.tile(shares, (len(target), 1)))


def _figure(losses: Floats, classifies: bool) -> str:
    """Return the mean loss as people read it: of numbers its root, in the target's unit."""
    mean = float(losses.mean())
    return f"{mean if classifies else math.sqrt(mean):,.6g}"


def _name_loss(losses: Floats, classifies: bool) -> str:
    loss = "a log loss" if classifies else "a root mean squared error"
    return f"{loss} of {_figure(losses, classifies)}"


def _name_constant(classifies: bool) -> str:
    return "the labels' shares" if classifies else "the mean of the target"
