"""The linear teacher: word pairs weighted by naive Bayes, then a logistic regression.

After Wang and Manning, "Baselines and bigrams: simple, good sentiment and topic classification"
(2012): each word or pair counts once per text, and weighs its log-count ratio between a label and
the others. It knows what a label's words are but not their order; the network learns both from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from mlapp.schema import Floats
from mlapp.text import Ids

LARGEST_N = 2  # words and pairs
BUCKETS = 2**22  # columns that pairs are hashed into
STRENGTH = 4.0  # C of the regression; smaller is stiffer
SMOOTHING = 1.0  # added to every count


def presence(texts: Sequence[Ids]) -> sparse.csr_matrix:
    """Return which words and hashed pairs occur in n texts, (n, BUCKETS) of zeros and ones."""
    columns, ends = [], [0]
    for ids in texts:
        wide = ids.astype(np.uint64)
        grams = [wide]
        for n in range(2, LARGEST_N + 1):
            gram = wide[: max(0, len(wide) - n + 1)]
            for at in range(1, n):
                gram = gram * np.uint64(0x9E3779B97F4A7C15) + wide[at : len(wide) - n + 1 + at]
            grams.append((gram ^ (gram >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9))
        mixed = np.concatenate([each % np.uint64(BUCKETS) for each in grams])
        columns.append(np.unique(mixed).astype(np.int32))
        ends.append(ends[-1] + len(columns[-1]))
    ones = np.ones(ends[-1], dtype=np.float32)
    indices = np.concatenate([*columns, np.empty(0, np.int32)])
    return sparse.csr_matrix((ones, indices, np.array(ends)), shape=(len(texts), BUCKETS))


@dataclass(frozen=True)
class Linear:
    """A fitted teacher: a weight per column and label, (BUCKETS, labels), and a bias per label."""

    weights: Floats
    bias: Floats

    def predict(self, texts: Sequence[Ids]) -> Floats:
        """Return the probability of each label for n texts, (n, labels)."""
        scores = np.asarray(presence(texts) @ self.weights) + self.bias
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities: Floats = powers / powers.sum(axis=1, keepdims=True)
        return probabilities


def fit_linear(texts: Sequence[Ids], labels: Ids, classes: int) -> Linear:
    """Fit the teacher: for each label, one regression against all other labels.

    Args:
        texts: the ids of n texts.
        labels: the place of each text's label, (n,).
        classes: how many labels there are, 2 or more.
    """
    here = presence(texts)
    weights, biases = [], []
    for label in range(1 if classes == 2 else 0, classes):
        own = labels == label
        inside = np.asarray(here[own].sum(axis=0)).ravel() + SMOOTHING
        outside = np.asarray(here[~own].sum(axis=0)).ravel() + SMOOTHING
        ratio = np.log(inside / inside.sum()) - np.log(outside / outside.sum())
        regression = LogisticRegression(C=STRENGTH, solver="liblinear", dual=True, tol=0.01)
        scaled = (here @ sparse.diags(ratio.astype(np.float32))).tocsr()
        lengths = np.sqrt(np.asarray(scaled.multiply(scaled).sum(axis=1)).ravel())
        scaled = sparse.diags(1 / np.maximum(lengths, 1e-9)) @ scaled
        regression.fit(scaled, own, sample_weight=None)
        weights.append(ratio * regression.coef_[0])
        biases.append(float(regression.intercept_[0]))
    if classes == 2:
        weights, biases = [np.zeros(BUCKETS), *weights], [0.0, *biases]
    return Linear(np.array(weights, dtype=np.float64).T, np.array(biases))
