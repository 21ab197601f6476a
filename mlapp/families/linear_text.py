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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlapp.families.contract import Span
from mlapp.families.units import Hashes, Ids, Reader, Units
from mlapp.schema import Floats

Weights = npt.NDArray[np.float32]


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
        places = np.searchsorted(self.hashes, hashes)
        places[places == len(self.hashes)] = 0
        known = self.hashes[places] == hashes if len(self.hashes) else np.zeros(len(places), bool)
        return np.where(known, places, -1)

    def weigh(self, units: Units, places: Ids) -> tuple[Ids, Floats, Floats]:
        """Return a text's terms (t,), their values (t,), and the share of each n-gram, (m,).

        The value of a term is its weight in the text's vector; the shares of the n-grams that are
        the same term sum to its value, and those of unknown ones are 0.
        """
        found = np.flatnonzero(places >= 0)
        terms, own, counts = np.unique(places[found], return_inverse=True, return_counts=True)
        values = (1 + np.log(counts)) * self.rarity[terms]
        of_characters = np.zeros(len(terms), dtype=bool)
        of_characters[own[found >= len(places) - units.pieces]] = True
        for block in (of_characters, ~of_characters):
            values[block] /= max(1e-12, float(np.sqrt(np.square(values[block]).sum())))
        shares = np.zeros(len(places))
        shares[found] = (values / counts)[own]
        return terms, values, shares


@dataclass(frozen=True)
class Reading:
    """A text as the model reads it.

    Attributes:
        units: its units and n-grams.
        places: of the n-grams among the model's terms, -1 where unknown.
        unknown: how many of its words are not known.
    """

    units: Units
    places: Ids
    unknown: int

    @property
    def tokens(self) -> int:
        """How many units were read."""
        return len(self.units.spans)

    @property
    def words(self) -> int:
        """How many of them are no marks."""
        return len(self.units.words)


@dataclass(frozen=True)
class LinearText:
    """A fitted linear model.

    Attributes:
        terms: what it knows.
        weights: what a term adds to the scores, (k, labels), or (k, 1) where there are two labels:
            then to the score of the second, and less of the first.
        bias: the scores of nothing, (labels,) or (1,).
        temperature: what scores are divided by.
    """

    terms: Terms
    weights: Weights
    bias: Floats
    temperature: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "_reader", Reader())

    def read(self, texts: Iterable[str]) -> list[Reading]:
        """Read texts."""
        return [self._read(text) for text in texts]

    def _read(self, text: str) -> Reading:
        reader: Reader = self.__dict__["_reader"]
        units = reader.read(text)
        places = self.terms.find(units.hashes)
        return Reading(units, places, int(np.count_nonzero(places[units.words] < 0)))

    def scores(self, readings: Sequence[Reading]) -> Floats:
        """Return the calibrated scores (n, labels); their softmax is the probabilities."""
        count = max(2, len(self.bias))
        rows = [self._score(reading) for reading in readings]
        scores = np.array(rows, dtype=float).reshape(len(rows), len(self.bias)) / self.temperature
        return scores if count == len(self.bias) else np.hstack([-scores / 2, scores / 2])

    def _score(self, reading: Reading) -> Floats:
        terms, values, _ = self.terms.weigh(reading.units, reading.places)
        score: Floats = values @ self.weights[terms].astype(np.float64) + self.bias
        return score

    def contributions(self, text: str, reading: Reading, place: int) -> tuple[list[Span], float]:
        """Return what each unit adds to the logit of a label, and the bias.

        Args:
            text: as it was read.
            reading: what `read` made of it.
            place: of the label.
        """
        units = reading.units
        weights, bias = self._towards(place)
        _, _, shares = self.terms.weigh(units, reading.places)
        known = reading.places >= 0
        added = np.zeros(len(shares))
        added[known] = shares[known] * weights[reading.places[known]]
        added /= np.maximum(1, units.length)
        credit = np.zeros(len(units.spans))
        for step in range(int(units.length.max(initial=0))):
            covered = units.length > step
            np.add.at(credit, units.first[covered] + step, added[covered])
        spans = [
            Span(start, end, weight)
            for (start, end), weight in zip(units.spans.tolist(), credit.tolist(), strict=True)
        ]
        return spans, bias

    def _towards(self, place: int) -> tuple[Floats, float]:
        """Return the terms' weights towards a label and the bias, both of its logit."""
        weights = self.weights.astype(np.float64)
        if len(self.bias) == 1:
            sign = 1.0 if place == 1 else -1.0
            own, bias = sign * weights[:, 0], sign * float(self.bias[0])
        else:
            own = weights[:, place] - weights.mean(axis=1)
            bias = float(self.bias[place] - self.bias.mean())
        return own / self.temperature, bias / self.temperature

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
            ValueError: the parts do not fit together.
        """
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            terms = Terms(file["hashes"], file["rarity"])
            model = cls(terms, file["weights"], file["bias"], float(file["temperature"]))
        if model.weights.shape != (len(terms.hashes), len(model.bias)):
            raise ValueError(f"weights of shape {model.weights.shape}")
        return model
