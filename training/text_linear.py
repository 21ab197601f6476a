"""Fits linear text models: TF-IDF of n-grams, then a logistic regression per label."""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from mlapp.families.linear_text import LinearText, Terms
from mlapp.families.sentiment import softmax
from mlapp.families.text import Ids
from mlapp.families.units import Counts, Hashes, Reader
from mlapp.schema import Floats
from training.progress import MANY, Progress
from training.quality import fit_temperature
from training.splits import Signature, sign
from training.texts import Reviews

STRENGTH = 30.0  # C of the regression; smaller is stiffer
MINIMUM = 2  # texts that a term must occur in
MOST_TERMS = 1 << 18
MOST_WEIGHTS = 1 << 23  # terms times labels
PILOT = 500  # texts that the time of all is estimated from
MOST_CHARACTERS = 150_000_000  # of texts that a model is fitted on; more takes too much memory

Narrow = tuple[Hashes, npt.NDArray[np.uint16]]


@dataclass(frozen=True)
class Counted:
    """Texts as they are counted.

    Attributes:
        counts: the n-grams of units and of characters of each of n texts.
        signatures: what near copies are found by, n.
    """

    counts: list[tuple[Narrow, Narrow]]
    signatures: list[Signature]


def count(texts: Sequence[str]) -> Counted:
    """Read texts once, for all that follows."""
    reader, counts, signatures = Reader(), [], []
    progress = Progress("reading", len(texts)) if len(texts) >= MANY else None
    for text in texts:
        units = reader.read(text)
        one, two = units.count()
        counts.append((_narrow(one), _narrow(two)))
        signatures.append(sign(units))
        if progress:
            progress.advance(1)
    return Counted(counts, signatures)


def _narrow(counts: Counts) -> Narrow:
    return counts[0], np.minimum(counts[1], 65535).astype(np.uint16)


def fit(counted: Counted, rows: Ids, classes: Ids, labels: int) -> LinearText:
    """Fit a model, uncalibrated: for each label, one regression against all others.

    Args:
        counted: n texts.
        rows: of the m texts to fit on, (m,).
        classes: the place of each of the n texts' labels, (n,).
        labels: how many labels there are; of two, one regression is enough.
    """
    terms = find_terms(counted, rows, labels)
    vectors = vectorize(terms, counted, rows)
    own = classes[rows]

    def regress(label: int) -> tuple[Floats, float]:
        there = int(np.count_nonzero(own == label))
        if there in (0, len(own)):
            return np.zeros(len(terms.hashes)), float(np.log((there + 1) / (len(own) - there + 1)))
        regression = LogisticRegression(
            C=STRENGTH, solver="liblinear", dual=True, tol=0.01, random_state=0, max_iter=200
        )
        regression.fit(vectors, own == label)
        return regression.coef_[0], float(regression.intercept_[0])

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(pool.map(regress, [1] if labels == 2 else range(labels)))
    weights = np.array([each for each, _ in found], dtype=np.float32).T
    bias = np.array([each for _, each in found])
    return LinearText(terms, np.ascontiguousarray(weights), bias)


def find_terms(counted: Counted, rows: Ids, labels: int) -> Terms:
    """Return the most frequent n-grams of texts, at most `MOST_TERMS` or `MOST_WEIGHTS`."""
    every = np.concatenate([block[0] for row in rows.tolist() for block in counted.counts[row]])
    hashes, frequency = np.unique(every, return_counts=True)
    most = min(MOST_TERMS, MOST_WEIGHTS // labels)
    minimum = MINIMUM if np.any(frequency >= MINIMUM) else 1
    if np.count_nonzero(frequency >= minimum) > most:
        minimum = int(np.partition(frequency, -most)[-most]) + 1
    kept = frequency >= minimum
    # Where all are equally frequent, the first few must do.
    kept = kept if kept.any() else np.arange(len(hashes)) < most
    rarity = np.log((1 + len(rows)) / (1 + frequency[kept])) + 1
    return Terms(hashes[kept], rarity.astype(np.float32))


def vectorize(terms: Terms, counted: Counted, rows: Ids) -> sparse.csr_matrix:
    """Return the vectors of m texts, (m, terms)."""
    columns, values, ends = [], [], [0]
    for row in rows.tolist():
        size = 0
        for block in counted.counts[row]:
            places, weights = terms.weigh(block)
            known = places >= 0
            columns.append(places[known].astype(np.int32))
            values.append(weights[known])
            size += len(columns[-1])
        ends.append(ends[-1] + size)
    return sparse.csr_matrix(
        (np.concatenate(values), np.concatenate(columns), np.array(ends)),
        shape=(len(rows), len(terms.hashes)),
    )


def score(model: LinearText, counted: Counted, rows: Ids) -> Floats:
    """Return the scores (m, labels) of texts, as the model serves them."""
    vectors = vectorize(model.terms, counted, rows)
    scores: Floats = (vectors @ model.weights.astype(np.float64) + model.bias) / model.temperature
    return scores if model.labels > 2 else np.hstack([-scores / 2, scores / 2])


def cross_validate(counted: Counted, classes: Ids, labels: int, fold: Ids) -> tuple[Floats, float]:
    """Judge each text by a model that has not seen it.

    Args:
        counted: n texts.
        classes: the place of each text's label, (n,).
        labels: how many labels there are.
        fold: of each text, (n,).

    Returns:
        The calibrated probabilities (n, labels), each fold's by the temperature of the others; and
        the temperature of all.
    """
    scores = np.zeros((len(classes), labels))
    for each in np.unique(fold):
        model = fit(counted, np.flatnonzero(fold != each), classes, labels)
        rows = np.flatnonzero(fold == each)
        scores[rows] = score(model, counted, rows)
    probabilities = np.zeros_like(scores)
    for each in np.unique(fold):
        others = fold != each
        temperature = fit_temperature(scores[others], classes[others])
        probabilities[~others] = softmax(scores[~others] / temperature)
    return probabilities, fit_temperature(scores, classes)


def sample(texts: Sequence[str], rows: Ids) -> Ids:
    """Return the rows that a model is fitted on: all, unless they take too much memory."""
    sizes = np.cumsum([len(texts[row]) for row in rows.tolist()])
    if sizes[-1] <= MOST_CHARACTERS:
        return rows
    order = np.random.default_rng(0).permutation(rows)
    sizes = np.cumsum([len(texts[row]) for row in order.tolist()])
    return np.sort(order[: int(np.searchsorted(sizes, MOST_CHARACTERS))])


def estimate(reviews: Reviews) -> float:
    """Return about how many seconds a model of many texts takes, from one of a few of them."""
    rows = np.random.default_rng(0).permutation(len(reviews.texts))[:PILOT]
    began = time.monotonic()
    counted = count([reviews.texts[row] for row in rows.tolist()])
    fit(counted, np.arange(len(rows)), reviews.classes[rows], len(reviews.labels))
    return (time.monotonic() - began) * len(reviews.texts) / len(rows)
