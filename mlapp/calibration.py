"""The calibration of probabilities: how far they are from the share of answers that are right.

C. Guo et al., "On calibration of modern neural networks", ICML 2017, section 2.
"""

from typing import Any

import numpy as np

from mlapp.tables.numbers import Floats

BINS = 15  # of equal width, from 0 to 1


def bins_of(probability: Floats) -> Any:
    """Return the bin of each probability (n,), from 0 to BINS - 1."""
    return np.minimum((probability * BINS).astype(int), BINS - 1)


def calibration_error(right: Floats, probability: Floats) -> float:
    """Return the expected calibration error.

    It is the mean distance of probability and share right over bins of the probability, weighted by
    the answers in a bin.

    Args:
        right: 1 for each of n answers that is right, otherwise 0, (n,).
        probability: of these answers, (n,).
    """
    gaps = np.bincount(bins_of(probability), right - probability, BINS)
    return float(np.abs(gaps).sum() / len(probability))
