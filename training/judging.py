"""What a model says of texts that it has not seen: scores, and how much of each was read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlapp.families.sentiment import describe_readings, softmax
from mlapp.families.text import Ids, Scorer
from mlapp.schema import Floats

AT_ONCE = 500  # texts that are read before they are scored


@dataclass(frozen=True)
class Judgement:
    """What a model says of n texts.

    Attributes:
        scores: calibrated scores, (n, labels).
        extras: the columns `sentiment.EXTRAS`, (n,) each.
    """

    scores: Floats
    extras: Mapping[str, npt.NDArray[Any]]

    @property
    def probabilities(self) -> Floats:
        """The probability of each label, (n, labels)."""
        return softmax(self.scores)

    def take(self, rows: Ids) -> "Judgement":
        """Return what is said of some of the texts, in an order."""
        extras = {name: values[rows] for name, values in self.extras.items()}
        return Judgement(self.scores[rows], extras)


def ask(scorer: Scorer, texts: Sequence[str]) -> Judgement:
    """Ask a model as it is served."""
    found = []
    for start in range(0, len(texts), AT_ONCE):
        readings = scorer.read(texts[start : start + AT_ONCE])
        found.append(Judgement(scorer.scores(readings), describe_readings(readings)))
    return join(found)


def join(parts: Sequence[Judgement]) -> Judgement:
    """Return what was said of several lists of texts as of one."""
    extras = {
        name: np.concatenate([part.extras[name] for part in parts]) for name in parts[0].extras
    }
    return Judgement(np.concatenate([part.scores for part in parts]), extras)
