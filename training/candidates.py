"""The models that are tried on a table: a baseline, linear ones, boosted trees; and the choice.

All are measured on the same folds, by what each held-out row costs them: the squared error of a
number, the log loss of a label. Published is the simplest model that is no worse than the best
beyond chance (Breiman et al., "Classification and regression trees", 1984, section 3.4.3: the rule
of one standard error). The error is that of the mean difference between the two on the same rows,
and a difference of more than `TOLERATED` is never put down to chance.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlapp.schema import Category, Checked, Floats, Schema
from training.calibration import cross_temper, fit_temperature, set_temperature, to_scores
from training.folds import Fold, Groups, each_fold, held_out
from training.losses import row_losses
from training.progress import Progress
from training.scales import fill_empty

BASELINE, LINEAR, RIDGE, BOOSTED = "baseline", "linear", "ridge", "boosted"
MODELS = ("auto", LINEAR, BOOSTED)  # of --model

# Boosted trees: small steps, and as many trees as the folds find best.
STAGES = (5, 10, 20, 30, 40, 60, 80, 100, 150, 200)
RATE = 0.1
LEAVES = 31  # of a tree
FEWEST_IN_LEAF = 10
TREES = 1_500  # of all labels together, at most
ROWS_PER_TREE = 10  # of a small table; more trees would only repeat its noise
LEAST_TREES = 100

STRENGTHS = np.logspace(-2, 5, 15)  # of ridge regression, chosen by leaving rows out one by one
TOLERATED = 0.01  # of R² or log loss that a simpler model may be worse
NO_BOUNDS = (-np.inf, np.inf)  # of predicted numbers
Takes = Literal["terms", "values"]
Bounds: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Candidate:
    """A model that may be fitted.

    Attributes:
        name: what it is called.
        takes: the rows that it is fitted on: `terms` or `values`, see `mlapp.families.engines`.
        make: returns an estimator, of so many trees where it has stages.
        stages: the numbers of trees that are tried, ascending; () for a model without trees.
    """

    name: str
    takes: Takes
    make: Callable[[int], Any]
    stages: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tried:
    """A candidate as measured on the folds.

    Attributes:
        candidate: what was measured.
        answers: to held-out rows: (n,) or (n, labels); NaN for rows that no fold holds out.
        losses: of the held-out rows, in their order.
        trees: how many were best; 0 for a model without trees.
        temperature: by which the logits of the labels are divided; the answers are at it.
    """

    candidate: Candidate
    answers: Floats
    losses: Floats
    trees: int
    temperature: float = 1.0

    def fit(self, rows: Mapping[Takes, Floats], target: Any) -> Any:
        """Return the candidate fitted on all rows."""
        fitted = self.candidate.make(self.trees).fit(rows[self.candidate.takes], target)
        if self.temperature != 1:
            set_temperature(fitted, self.temperature)
        return fitted


def list_candidates(
    model: str, schema: Schema, rows: int, labels: int, least_squares: bool
) -> list[Candidate]:
    """Return the models to try, the simplest first.

    Args:
        model: one of `MODELS`.
        schema: of the inputs.
        rows: how many there are.
        labels: how many labels are told apart; 0 where a number is predicted.
        least_squares: whether there are rows enough for a fit of least squares.
    """
    found = [Candidate(BASELINE, "terms", lambda _: _dummy(labels))]
    if model != BOOSTED and labels:
        found.append(Candidate(LINEAR, "terms", lambda _: _logistic()))
    elif model != BOOSTED:
        if least_squares:
            found.append(Candidate(LINEAR, "terms", lambda _: _scaled(LinearRegression())))
        found.append(Candidate(RIDGE, "terms", lambda _: _scaled(RidgeCV(alphas=STRENGTHS))))
    if model != LINEAR:
        most = min(TREES // max(labels - 1, 1), max(LEAST_TREES, rows // ROWS_PER_TREE))
        stages = tuple(each for each in STAGES if each <= max(most, STAGES[0]))
        found.append(Candidate(BOOSTED, "values", partial(_boosted, schema, rows, labels), stages))
    return found


def _dummy(labels: int) -> Any:
    return DummyClassifier(strategy="prior") if labels else DummyRegressor()


def _scaled(estimator: Any) -> Any:
    return make_pipeline(StandardScaler(), estimator)


def _logistic() -> Any:
    return _scaled(LogisticRegression(C=1.0, max_iter=200, tol=1e-4))


def _boosted(schema: Schema, rows: int, labels: int, trees: int) -> Any:
    kind = HistGradientBoostingClassifier if labels else HistGradientBoostingRegressor
    categories = [isinstance(spec, Category) for spec in schema.expanded]
    return kind(
        max_iter=trees,
        learning_rate=RATE,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=max(FEWEST_IN_LEAF, min(20, rows // 20)),
        early_stopping=False,
        categorical_features=categories if any(categories) else None,
        random_state=0,
    )


# --- measuring -------------------------------------------------------------------------------


def rows_for(checked: Checked) -> dict[Takes, Floats]:
    """Return checked rows in each form that a candidate may take."""
    return {"terms": checked.schema.encode(checked), "values": checked.schema.expand(checked)}


def try_all(
    candidates: Sequence[Candidate],
    rows: Mapping[Takes, Floats],
    target: Any,
    folds: Sequence[Fold],
    labels: int,
    bounds: Bounds = NO_BOUNDS,
) -> list[Tried]:
    """Measure each candidate on the folds, showing progress.

    Args:
        candidates: what to try.
        rows: in each form that a candidate may take.
        target: of all rows, (n,).
        folds: which rows are held out.
        labels: how many there are, 0 for numbers.
        bounds: where predicted numbers end when they are served; answers are kept as they are.
    """
    progress = Progress("Comparing models", len(candidates) * len(folds))
    return [
        _try(each, rows[each.takes], target, folds, labels, bounds, progress) for each in candidates
    ]


def _try(
    candidate: Candidate,
    rows: Floats,
    target: Any,
    folds: Sequence[Fold],
    labels: int,
    bounds: Bounds,
    progress: Progress,
) -> Tried:
    def cost(actual: Any, answers: Floats) -> Floats:
        return row_losses(actual, answers if labels else np.clip(answers, *bounds))

    def work(fold: Fold) -> Floats:
        fitted, stages = candidate.make(max(candidate.stages, default=0)), candidate.stages
        if labels and len(np.unique(target[fold.train])) == 1:  # as early rows may have
            fitted, stages = DummyClassifier(strategy="prior"), (0,) * len(stages)
        fitted = fitted.fit(fill_empty(rows[fold.train]), target[fold.train])
        found = _answers(fitted, rows[fold.test], stages, labels)
        progress.advance(1, candidate.name)
        return found

    found = each_fold(work, folds)
    costs = [
        np.array([cost(target[fold.test], part) for part in parts])
        for fold, parts in zip(folds, found, strict=True)
    ]  # (stages, rows) of each fold
    sums = np.array([each.sum(axis=1) for each in costs])
    held = held_out(folds)
    answers = np.full((len(rows), labels) if labels else (len(rows),), np.nan)
    for place, (fold, parts) in enumerate(zip(folds, found, strict=True)):
        # The other folds say how many trees, so that a row has no part in the choice.
        answers[fold.test] = parts[int((sums.sum(axis=0) - sums[place]).argmin())]
    trees = candidate.stages[int(sums.sum(axis=0).argmin())] if candidate.stages else 0
    tried = Tried(candidate, answers, cost(target[held], answers[held]), trees)
    return _calibrate(tried, target, folds) if labels and candidate.name != BASELINE else tried


def _calibrate(tried: Tried, target: Any, folds: Sequence[Fold]) -> Tried:
    """Bring the probabilities of a candidate to the temperature at which they are right."""
    held = held_out(folds)
    temperature = fit_temperature(to_scores(tried.answers[held]), target[held])
    answers = cross_temper(target, tried.answers, folds)
    return replace(
        tried,
        answers=answers,
        losses=row_losses(target[held], answers[held]),
        temperature=temperature,
    )


def _answers(fitted: Any, rows: Floats, stages: Sequence[int], labels: int) -> Floats:
    """Return the answers after each stage, or of a model without stages once: (stages, n, ...)."""
    if not labels:
        if not stages:
            return np.asarray(fitted.predict(rows), dtype=np.float64).reshape(1, len(rows))
        staged = enumerate(fitted.staged_predict(rows), start=1)
        return np.array([each for trees, each in staged if trees in stages])
    if not stages or not stages[0]:
        found = [fitted.predict_proba(rows)] * max(1, len(stages))
    else:
        staged = enumerate(fitted.staged_predict_proba(rows), start=1)
        found = [each for trees, each in staged if trees in stages]
    # A fold may lack a label: those of a group, or of a time.
    answers = np.zeros((len(found), len(rows), labels))
    answers[:, :, fitted.classes_] = found
    return answers


# --- choosing --------------------------------------------------------------------------------


def choose(
    tried: Sequence[Tried], spread: float, groups: Groups
) -> tuple[Tried, list[dict[str, Any]]]:
    """Return the model to publish, and what is reported of all.

    Args:
        tried: the baseline, then models from the simplest on.
        spread: what turns a loss into a figure: the variance of the target, by which R² is 1 less
            the loss; 0 where the figure is the log loss itself.
        groups: the number of each held-out row's group, (n,); rows of a group are copies, or of
            one group of `--group`.
    """
    best = min(tried, key=lambda each: each.losses.mean())
    scale = spread or 1.0
    compared, chosen = [], None
    for each in tried:
        behind = (each.losses - best.losses) / scale
        error = standard_error(behind, groups)
        close = behind.mean() <= min(error, TOLERATED) or each is best
        if chosen is None and close and each is not tried[0]:
            chosen = each
        loss = float(each.losses.mean() / scale)
        compared.append(
            {
                "model": each.candidate.name,
                "metric": "R²" if spread else "log loss",
                "figure": 1 - loss if spread else loss,
                "standard_error": standard_error(each.losses / scale, groups),
                "behind_best": float(behind.mean()),
                "behind_error": error,
                "published": False,
            }
        )
    if chosen is None:  # the baseline is the best; a model that looks at its input is wanted
        chosen = min(tried[1:], key=lambda each: each.losses.mean())
    compared[[each is chosen for each in tried].index(True)]["published"] = True
    return chosen, compared


def standard_error(values: Floats, groups: Groups) -> float:
    """Return the standard error of the mean of values (n,), of which those of a group are alike.

    It is that of clustered observations: A. C. Cameron and D. L. Miller, "A practitioner's guide to
    cluster-robust inference", Journal of Human Resources 50 (2015), section II.
    """
    _, places = np.unique(groups, return_inverse=True)
    sums = np.bincount(places, values - values.mean())
    largest = float(np.abs(sums).max()) or 1.0  # squares of squared errors may be out of range
    variance = np.sum((sums / largest) ** 2) * len(sums) / max(1, len(sums) - 1)
    return float(largest * np.sqrt(variance) / len(values))


def is_better(one: Tried, other: Tried, groups: Groups) -> bool:
    """Return whether a model is better than another by more than one standard error."""
    gain = other.losses - one.losses
    return bool(gain.mean() > standard_error(gain, groups))
