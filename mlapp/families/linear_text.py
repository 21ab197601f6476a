"""A linear text model: words, neighbouring words and pieces of words, weighted and summed.

    text -> n-grams of units, and of characters (`units`) -> TF-IDF -> scores (labels,)

A text without a known word still has known pieces. N-grams are known by their hashes, so that an
artifact holds no words of the texts that it was trained on.

Terms are weighted after Salton and Buckley, "Term-weighting approaches in automatic text
retrieval" (1988): 1 + log(count), times the inverse document frequency; the n-grams of units and
those of characters are each brought to length 1. A score is a sum over n-grams, so explanations
are exact: what an n-gram adds is shared equally by the units that it covers.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mlapp.families.text import Contributions, Ids
from mlapp.families.units import Counts, Hashes, Reader, Units
from mlapp.schema import Floats

LINEAR = "linear.npz"

Weights: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Terms:
    """The n-grams that a model knows.

    Attributes:
        hashes: of k n-grams, ascending, (k,).
        rarity: the inverse document frequency of each, (k,).
    """

    hashes: Hashes
    rarity: Weights

    def find(self, hashes: Hashes) -> Ids:
        """Return the place of each n-gram among those known, -1 where it is not; (m,)."""
        if not len(self.hashes):
            return np.full(len(hashes), -1)
        places = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[places] == hashes, places, -1)

    def weigh(self, hashes: Hashes, times: npt.NDArray[np.integer]) -> tuple[Ids, Floats]:
        """Return the places of different n-grams, -1 where unknown, and their weights, (t,) each.

        The weights are brought to length 1; those of unknown n-grams are 0.

        Args:
            hashes: of t n-grams.
            times: how often each occurs, (t,).
        """
        places = self.find(hashes)
        known = places >= 0
        weights = np.zeros(len(places))
        weights[known] = (1 + np.log(times[known].astype(float))) * self.rarity[places[known]]
        return places, weights / max(1e-12, float(np.sqrt(weights @ weights)))


@dataclass(frozen=True)
class Reading:
    """A text as the model reads it.

    Attributes:
        units: its units and n-grams.
        unknown: how many of its words are not known.
        counts: its different n-grams of units, and of characters, with their counts.
    """

    units: Units
    unknown: int
    counts: tuple[Counts, Counts]

    @property
    def words(self) -> int:
        """How many of the units are not punctuation."""
        return len(self.units.words)

    def __len__(self) -> int:
        return len(self.units.spans)


class LinearText:
    """A fitted linear model; a `text.Scorer`.

    Attributes:
        terms: what it knows.
        weights: what a term adds to the scores, (k, labels); where there are two labels (k, 1),
            what it adds to the second's score less the first's.
        bias: the scores of nothing, (labels,) or (1,).
        temperature: what scores are divided by.
    """

    platform = "numpy"
    method = (
        "A word's weight is what it, its pieces and its share of word pairs and triples add to the"
        " logit."
    )

    def __init__(
        self, terms: Terms, weights: Weights, bias: Floats, temperature: float = 1.0
    ) -> None:
        """Put the parts together.

        Raises:
            ValueError: they do not fit together.
        """
        if weights.shape != (len(terms.hashes), len(bias)) or len(terms.rarity) != len(weights):
            raise ValueError(f"weights of shape {weights.shape} for {len(terms.hashes)} terms")
        self.terms, self.weights, self.bias = terms, weights, bias
        self.temperature = temperature
        self._reader = Reader()

    @cached_property
    def labels(self) -> int:
        """How many labels there are."""
        return max(2, len(self.bias))

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Return the readings of texts."""
        return [self._read(text) for text in texts]

    def _read(self, text: str) -> Reading:
        units = self._reader.read(text)
        unknown = np.count_nonzero(self.terms.find(units.hashes[units.words]) < 0)
        return Reading(units, int(unknown), units.count())

    def scores(self, readings: Sequence[Reading]) -> Floats:
        """Return the calibrated scores (n, labels) of n texts."""
        rows = [self._score(reading) for reading in readings]
        scores = np.array(rows, dtype=float).reshape(len(rows), len(self.bias)) / self.temperature
        return scores if len(self.bias) > 1 else np.hstack([-scores / 2, scores / 2])

    def _score(self, reading: Reading) -> Floats:
        score = self.bias.astype(np.float64)
        for counts in reading.counts:
            places, values = self.terms.weigh(*counts)
            known = places >= 0
            score = score + values[known] @ self.weights[places[known]]
        return score

    def contributions(self, text: str, reading: Reading, contrast: Floats) -> Contributions:  # noqa: ARG002
        """Return what each unit adds to `scores @ contrast`; contrast is (labels,).

        What an n-gram adds is shared equally by its occurrences, and by the units of each.
        """
        if len(self.bias) == 1:
            contrast = np.array([contrast[1] - contrast[0]]) / 2
        contrast = contrast / self.temperature
        units, added = reading.units, []
        halves = (units.hashes[: units.pieces], units.hashes[units.pieces :])
        for hashes, counts in zip(halves, reading.counts, strict=True):
            places, values = self.terms.weigh(*counts)
            known = places >= 0
            each = np.zeros(len(places))
            each[known] = values[known] * (self.weights[places[known]] @ contrast)
            each /= counts[1]
            added.append(each[np.searchsorted(counts[0], hashes)])
        shares = np.concatenate(added) / units.length
        credit = np.zeros(len(reading))
        for step in range(int(units.length.max(initial=0))):
            covered = units.length > step
            np.add.at(credit, units.first[covered] + step, shares[covered])
        return Contributions(units.spans, credit, float(self.bias @ contrast))

    def dump(self) -> bytes:
        """Return the model as the bytes of an .npz file."""
        file = io.BytesIO()
        np.savez(
            file,
            hashes=self.terms.hashes,
            rarity=self.terms.rarity,
            weights=self.weights,
            bias=self.bias,
            temperature=self.temperature,
        )
        return file.getvalue()

    @classmethod
    def load(cls, content: bytes) -> "LinearText":
        """Read what `dump` returned.

        Raises:
            Exception: any, when it cannot be read or its parts do not fit together.
        """
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            terms = Terms(file["hashes"], file["rarity"])
            return cls(terms, file["weights"], file["bias"], float(file["temperature"]))
