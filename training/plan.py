"""Which texts a classifier learns from, and which choose and judge it."""

from dataclasses import dataclass, replace

import numpy as np

from mlapp.errors import InvalidData
from mlapp.families.text import Ids
from training.progress import count_of
from training.recipes import Options
from training.splits import count_copies, folds, group, loosen, split
from training.tables import Say
from training.text_linear import Counted
from training.texts import Reviews, key

FOLDS = 10  # of the cross-validation of few texts
FEWER_FOLDS = 4  # of many texts or labels, which take longer
MANY_TEXTS, MANY_LABELS = 1_000, 50
NETWORK_FROM = 10_000  # texts; of fewer, a network learns less than a linear model


@dataclass(frozen=True)
class Plan:
    """Which texts choose and judge.

    Attributes:
        train: the rows of the texts that what is published learns from.
        validation: the rows of the texts that models are compared on.
        held_out: the rows of the texts that judge the model that is published.
        fold: of each of the n texts of the data, (n,), where there are few: then each fold judges
            a model of the others. None where the parts have no text in common.
    """

    train: Ids
    validation: Ids
    held_out: Ids
    fold: Ids | None = None

    @property
    def extra(self) -> Ids:
        """The rows that models of every fold learn from."""
        return self.train[self.train >= (0 if self.fold is None else len(self.fold))]


def in_folds(reviews: Reviews, asked: Options) -> bool:
    """Return whether there are so few texts that all judge, and a network is out of question."""
    many = reviews.own >= NETWORK_FROM
    return not (many or asked.model == "network" or asked.film_phrases)


def count_folds(reviews: Reviews) -> int:
    """Return the number of folds of a cross-validation."""
    many = reviews.own >= MANY_TEXTS or len(reviews.labels) >= MANY_LABELS
    return FEWER_FOLDS if many else FOLDS


def split_texts(reviews: Reviews, counted: Counted, asked: Options, say: Say) -> Plan:
    """Split many texts once, and few into folds.

    What is held out depends on the data and the seed alone.

    Raises:
        InvalidData: there are too few different texts to hold some out.
    """
    classes = reviews.classes[: reviews.own]
    found = group(counted.signatures[: reviews.own])
    groups = loosen(found, classes)
    loose = groups != found
    if copies := count_copies(groups):
        say(f"{copies:,} texts are nearly equal to another: these stay on one side of the split")
    if loose.any():
        say(
            f"Warning: {np.count_nonzero(loose):,} texts are nearly equal to too many others to be"
            " held out together: copies of a text are in both training and test data, so texts"
            " that are not copies may be answered less well than measured"
        )
    random, everything = np.random.default_rng(asked.seed), np.arange(len(classes))
    if in_folds(reviews, asked):
        most = min(count_folds(reviews), len(np.unique(groups)))
        # Large groups may leave folds empty.
        used, fold = np.unique(folds(classes, most, random, groups), return_inverse=True)
        count = len(used)
        say(f"Training on all; each is judged by a model that has not seen it ({count} folds)")
        plan = Plan(everything, everything, everything, fold)
    else:
        parts = split(classes, random, groups)
        if not (len(parts.calibration) and len(parts.held_out)):
            raise InvalidData(
                f"{len(classes)} texts are too few to hold some out: most nearly equal another"
            )
        say(
            f"Training on {len(parts.train):,}; held out are {len(parts.held_out):,},"
            f" and {len(parts.calibration):,} for calibration"
        )
        plan = Plan(parts.train, parts.calibration, parts.held_out)
    return _add_extra(plan, reviews, counted, np.flatnonzero(loose), say)


def _add_extra(plan: Plan, reviews: Reviews, counted: Counted, loose: Ids, say: Say) -> Plan:
    """Return the plan with the extra texts among those to learn from, without copies of judges.

    Copies of the rows `loose` are learned from anyway.
    """
    if not reviews.extra:
        return plan
    judges = np.union1d(plan.validation, plan.held_out)
    keys = {key(reviews.texts[row]) for row in judges.tolist()}
    groups = group(counted.signatures)
    near = set(groups[np.setdiff1d(judges, loose)].tolist())
    added = [
        row
        for row in range(reviews.own, len(reviews.texts))
        if key(reviews.texts[row]) not in keys and int(groups[row]) not in near
    ]
    left_out = reviews.extra - len(added)
    say(f"Learning from {count_of(len(added), 'extra text')}")
    if left_out:
        are = "is" if left_out == 1 else "are"
        say(
            f"Left out {count_of(left_out, 'extra text')} that {are} equal or nearly equal to a"
            " held-out text"
        )
    return replace(plan, train=np.concatenate([plan.train, np.array(added, dtype=np.int64)]))
