"""Fits linear text models: TF-IDF of n-grams, then a logistic regression per label."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from mlapp.families.linear_text import LinearText, Terms
from mlapp.families.text import Ids
from mlapp.families.units import Counts, Hashes, Reader, Units
from mlapp.schema import Floats
from training.calibration import fit_temperature
from training.judging import Judgement, ask, join
from training.progress import MANY, Progress
from training.splits import Signature, sign
from training.texts import Reviews

STRENGTH = 30.0  # C of the regression; smaller is stiffer
MINIMUM = 2  # texts that a term must occur in
MOST_TERMS = 1 << 18
MOST_WEIGHTS = 1 << 23  # terms times labels
PILOT = 500  # texts that the time of all is estimated from
MOST_CHARACTERS = 150_000_000  # of texts that a model is fitted on; more takes too much memory

Narrow: TypeAlias = tuple[Hashes, npt.NDArray[np.uint16]]


@dataclass(frozen=True)
class Counted:
    """Texts as they are counted.

    Attributes:
        texts: n texts.
        counts: the n-grams of units and of characters of each; None where a text is beyond what
            memory holds, so that no model is fitted on it.
        signatures: what near copies are found by, n.
    """

    texts: Sequence[str]
    counts: Sequence[tuple[Narrow, Narrow] | None]
    signatures: Sequence[Signature]


def count(texts: Sequence[str]) -> Counted:
    """Read texts once, for all that follows."""
    reader, counts, signatures = Reader(), list[tuple[Narrow, Narrow] | None](), []
    progress = Progress("reading", len(texts)) if len(texts) >= MANY else None
    for text, keep in zip(texts, _sample(texts), strict=True):
        units = reader.read(text)
        counts.append(_count(units) if keep else None)
        signatures.append(sign(units))
        if progress:
            progress.advance(1)
    return Counted(texts, counts, signatures)


def _sample(texts: Sequence[str]) -> list[bool]:
    """Return which texts' counts are kept: all, or a random part that fits into memory."""
    sizes = np.array([len(text) for text in texts])
    order = np.random.default_rng(0).permutation(len(texts))
    kept = np.ones(len(texts), dtype=np.bool_)
    kept[order] = np.cumsum(sizes[order]) <= MOST_CHARACTERS
    found: list[bool] = kept.tolist()
    return found


def _count(units: Units) -> tuple[Narrow, Narrow]:
    one, two = units.count()
    return _narrow(one), _narrow(two)


def _narrow(counts: Counts) -> Narrow:
    return counts[0], np.minimum(counts[1], 65535).astype(np.uint16)


def fit(counted: Counted, rows: Ids, classes: Ids, labels: int) -> LinearText:
    """Fit a model, uncalibrated: for each label, one regression against all others.

    Args:
        counted: n texts.
        rows: of the texts to fit on; those whose counts were not kept are left out.
        classes: the place of each of the n texts' labels, (n,).
        labels: how many labels there are; of two, one regression is enough.
    """
    kept = [(row, found) for row in rows.tolist() if (found := counted.counts[row]) is not None]
    blocks = [found for _, found in kept]
    terms = find_terms(blocks, labels)
    vectors = vectorize(terms, blocks)
    own = classes[[row for row, _ in kept]]

    def regress(label: int) -> tuple[Floats, float]:
        there = int(np.count_nonzero(own == label))
        if there in (0, len(own)) or not len(terms.hashes):
            return np.zeros(len(terms.hashes)), float(np.log((there + 1) / (len(own) - there + 1)))
        regression = LogisticRegression(
            C=STRENGTH, solver="liblinear", dual=True, tol=0.01, random_state=0, max_iter=200
        )
        regression.fit(vectors, own == label)
        return regression.coef_[0], float(regression.intercept_[0])

    # One after the other: liblinear draws from one generator for all threads.
    found = [regress(label) for label in ([1] if labels == 2 else range(labels))]
    weights = np.array([each for each, _ in found], dtype=np.float32).T
    bias = np.array([each for _, each in found])
    return LinearText(terms, np.ascontiguousarray(weights), bias)


def find_terms(texts: Sequence[tuple[Narrow, Narrow]], labels: int) -> Terms:
    """Return the most frequent n-grams of texts, at most `MOST_TERMS` or `MOST_WEIGHTS`."""
    hashes, frequency = _count_texts(texts)
    most = min(MOST_TERMS, MOST_WEIGHTS // labels)
    kept = frequency >= _fewest_texts(frequency, labels)
    # Where all are equally frequent, the first few must do.
    kept = kept if kept.any() else np.arange(len(hashes)) < most
    rarity = np.log((1 + len(texts)) / (1 + frequency[kept])) + 1
    return Terms(hashes[kept], rarity.astype(np.float32))


def _count_texts(texts: Sequence[tuple[Narrow, Narrow]]) -> tuple[Hashes, Ids]:
    """Return the different n-grams of texts, and how many texts each is in."""
    every = np.concatenate([block[0] for blocks in texts for block in blocks])
    return np.unique(every, return_counts=True)


def _fewest_texts(frequency: Ids, labels: int) -> int:
    """Return how many texts an n-gram must occur in to be a term."""
    most = min(MOST_TERMS, MOST_WEIGHTS // labels)
    minimum = MINIMUM if np.any(frequency >= MINIMUM) else 1
    if np.count_nonzero(frequency >= minimum) > most:
        minimum = int(np.partition(frequency, -most)[-most]) + 1
    return minimum


def shares_unknown(model: LinearText, counted: Counted, learned: Ids, judged: Ids) -> Floats:
    """Return the share of each text's words that a model would not know without the text, (m,).

    Args:
        model: fitted on all texts.
        counted: n texts.
        learned: the rows that it was fitted on.
        judged: m of these.
    """
    kept = [found for row in learned.tolist() if (found := counted.counts[row]) is not None]
    hashes, frequency = _count_texts(kept)
    # A term of as few texts as it takes would be none if one of them were missing.
    fewest = frequency == _fewest_texts(frequency, model.labels)
    owned = fewest[np.isin(hashes, model.terms.hashes)]
    reader, shares = Reader(), []
    for row in judged.tolist():
        units = reader.read(counted.texts[row])
        places = model.terms.find(units.hashes[units.words])
        known = np.count_nonzero(~owned[places[places >= 0]])
        shares.append((len(places) - known) / len(places) if len(places) else 1.0)
    return np.array(shares)


def vectorize(terms: Terms, texts: Sequence[tuple[Narrow, Narrow]]) -> sparse.csr_matrix:
    """Return the vectors of m texts, (m, terms)."""
    columns, values, ends = [], [], [0]
    for blocks in texts:
        size = 0
        for block in blocks:
            places, weights = terms.weigh(*block)
            known = places >= 0
            columns.append(places[known].astype(np.int32))
            values.append(weights[known])
            size += len(columns[-1])
        ends.append(ends[-1] + size)
    return sparse.csr_matrix(
        (np.concatenate(values), np.concatenate(columns), np.array(ends)),
        shape=(len(texts), len(terms.hashes)),
    )


def cross_validate(
    counted: Counted, classes: Ids, labels: int, fold: Ids, extra: Ids
) -> tuple[Judgement, float]:
    """Judge each text by a model that has not seen it.

    Args:
        counted: n texts, and some that are only ever learned from.
        classes: the place of each text's label.
        labels: how many labels there are.
        fold: of each of the n texts, (n,).
        extra: the rows of those that every model learns from.

    Returns:
        What the models say of the n texts, each fold calibrated by the temperature of the others;
        and the temperature of all.
    """
    own, found = classes[: len(fold)], list[Judgement]()
    for each in np.unique(fold):
        rows = np.flatnonzero(fold == each)
        learned = np.concatenate([np.flatnonzero(fold != each), extra])
        model = fit(counted, learned, classes, labels)
        found.append(ask(model, [counted.texts[row] for row in rows.tolist()]))
    order = np.argsort(fold, kind="stable")  # that in which the folds were judged
    judged = join(found).take(np.argsort(order))
    scores, calibrated = judged.scores, np.zeros((len(fold), labels))
    for each in np.unique(fold):
        others = fold != each
        calibrated[~others] = scores[~others] / fit_temperature(scores[others], own[others])
    return replace(judged, scores=calibrated), fit_temperature(scores, own)


def estimate(reviews: Reviews, fits: int) -> float:
    """Return about how many seconds it takes to fit models, from one of a few texts.

    Args:
        reviews: the texts.
        fits: how many models are fitted on them.
    """
    rows = np.random.default_rng(0).permutation(len(reviews.texts))[:PILOT]
    began = time.monotonic()
    counted = count([reviews.texts[row] for row in rows.tolist()])
    read = time.monotonic()
    fit(counted, np.arange(len(rows)), reviews.classes[rows], len(reviews.labels))
    seconds = read - began + fits * (time.monotonic() - read)
    return seconds * len(reviews.texts) / len(rows)
