"""Answers with feedback whose inputs were recorded: for training and for evaluating new versions.

One in three is held back: it is never trained on, so that it can evaluate versions that were
trained on the others. The choice depends on the inputs alone, so equal inputs (`learned.unify`) are
always on the same side, and all versions are evaluated on rows that none of them was trained on.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from sqlalchemy import select

from mlapp.records.database import Database, answers, feedback
from mlapp.store.learned import unify

HELD_BACK = 3  # one in so many is held back


class Confirmed(NamedTuple):
    """An instance, by input name, and what turned out to be true."""

    inputs: Mapping[str, Any]
    truth: float | str


@dataclass
class Feedback:
    """The judged answers of a model.

    Attributes:
        learned: those for training, oldest first.
        held_back: those for evaluation, oldest first.
        without_inputs: how many others have feedback, but no recorded inputs.
        of_other_kind: how many others are numbers where labels are wanted, or labels where numbers
            are; see `of_kind`.
    """

    learned: list[Confirmed] = field(default_factory=list)
    held_back: list[Confirmed] = field(default_factory=list)
    without_inputs: int = 0
    of_other_kind: int = 0

    @property
    def judged(self) -> int:
        """How many answers were judged."""
        usable = len(self.learned) + len(self.held_back)
        return usable + self.without_inputs + self.of_other_kind

    def of_kind(self, kind: type[float] | type[str]) -> "Feedback":
        """Return the answers whose truths are of a kind; earlier versions may have given another.

        Args:
            kind: float for numbers, str for labels.
        """
        learned, held_back = (
            [each for each in side if isinstance(each.truth, kind)]
            for side in (self.learned, self.held_back)
        )
        others = len(self.learned) + len(self.held_back) - len(learned) - len(held_back)
        return Feedback(learned, held_back, self.without_inputs, self.of_other_kind + others)


def read(database: Database, model: str) -> Feedback:
    """Return the judged answers of all versions of a model.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    found = Feedback()
    if not database.exists:
        return found
    judged = (answers.c.id == feedback.c.id) & (answers.c.place == feedback.c.place)
    wanted = select(answers.c.inputs, feedback.c.number, feedback.c.label)
    wanted = wanted.select_from(feedback.join(answers, judged)).where(feedback.c.model == model)
    with database.reading() as connection:
        for row in connection.execute(wanted.order_by(answers.c.id, answers.c.place)):
            if row.inputs is None:
                found.without_inputs += 1
                continue
            inputs = orjson.loads(row.inputs)
            side = found.held_back if is_held_back(inputs) else found.learned
            side.append(Confirmed(inputs, row.number if row.label is None else row.label))
    return found


def is_held_back(inputs: Mapping[str, Any]) -> bool:
    """Return whether an instance is held back for evaluation, and never trained on."""
    content = orjson.dumps(unify(inputs), option=orjson.OPT_SORT_KEYS)
    return int.from_bytes(hashlib.sha256(content).digest()[:8]) % HELD_BACK == 0
