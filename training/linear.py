"""The linear teacher: words, pairs and triples weighted by naive Bayes, then a logistic regression.

After Wang and Manning, "Baselines and bigrams: simple, good sentiment and topic classification"
(2012): each word, pair or triple counts once per text, and weighs its log-count ratio between a
label and the others; a text's vector is brought to length 1. It knows what a label's words are but
not their order; the network learns both from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from mlapp.families.network import Weights
from mlapp.families.sentiment import softmax
from mlapp.families.text import Ids
from mlapp.schema import Floats

LARGEST_N = 3  # words, pairs and triples
LARGEST_BITS = 24  # of the number of columns that they are hashed into
STRENGTH = 100.0  # C of the regression; smaller is stiffer
SMOOTHING = 1.0  # added to every count


def presence(texts: Sequence[Ids], buckets: int) -> sparse.csr_matrix:
    """Return which hashed words, pairs and triples n texts hold, (n, buckets) of 0 and 1."""
    columns, ends = [], [0]
    for ids in texts:
        wide = ids.astype(np.uint64)
        grams = [wide]
        for n in range(2, LARGEST_N + 1):
            gram = wide[: max(0, len(wide) - n + 1)]
            for at in range(1, n):
                gram = gram * np.uint64(0x9E3779B97F4A7C15) + wide[at : len(wide) - n + 1 + at]
            grams.append((gram ^ (gram >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9))
        mixed = np.concatenate([each % np.uint64(buckets) for each in grams])
        columns.append(np.unique(mixed).astype(np.int32))
        ends.append(ends[-1] + len(columns[-1]))
    ones = np.ones(ends[-1], dtype=np.float32)
    indices = np.concatenate([*columns, np.empty(0, np.int32)])
    return sparse.csr_matrix((ones, indices, np.array(ends)), shape=(len(texts), buckets))


@dataclass(frozen=True)
class Linear:
    """A fitted teacher.

    Attributes:
        weights: what a column adds to the score of each label, (buckets, labels).
        squares: what it adds to the squared length that the score is divided by, likewise.
        bias: the score of nothing, (labels,).
    """

    weights: Weights
    squares: Weights
    bias: Floats

    def predict(self, texts: Sequence[Ids]) -> Floats:
        """Return the probability of each label for n texts, (n, labels)."""
        here = presence(texts, len(self.weights))
        lengths = np.sqrt(np.maximum(here @ self.squares, 1e-9))
        return softmax(here @ self.weights / lengths + self.bias)


def fit_linear(texts: Sequence[Ids], classes: Ids, labels: int) -> Linear:
    """Fit the teacher: for each label, one regression against all others; of two, one is enough.

    Args:
        texts: the ids of n texts.
        classes: the place of each text's label, (n,).
        labels: how many labels there are, 2 or more.
    """
    tokens = sum(map(len, texts))
    buckets = 1 << min(LARGEST_BITS, (2 * tokens).bit_length())
    here = presence(texts, buckets)
    weights, squares = np.zeros((2, buckets, labels), dtype=np.float32)
    bias = np.zeros(labels)
    for label in range(1 if labels == 2 else 0, labels):
        own = classes == label
        inside = here.T @ own + SMOOTHING
        outside = here.T @ ~own + SMOOTHING
        ratio = np.log(inside / inside.sum()) - np.log(outside / outside.sum())
        scaled = here @ sparse.diags(ratio)
        lengths = np.sqrt(np.maximum(here @ ratio**2, 1e-9))
        regression = LogisticRegression(
            C=STRENGTH, solver="liblinear", dual=True, tol=0.01, random_state=0
        )
        regression.fit(sparse.diags(1 / lengths) @ scaled, own)
        weights[:, label] = ratio * regression.coef_[0]
        squares[:, label] = ratio**2
        bias[label] = regression.intercept_[0]
    return Linear(weights, squares, bias)
