"""Shapley values of any function of a row, against a background sample of rows.

What an input adds is the mean, over all orders in which the inputs may be revealed, of how much
the expected value moves when it is. Inputs that are not yet revealed take the values of a row of
the background, whatever the others are: interventional values, as Strumbelj and Kononenko,
"Explaining prediction models and individual predictions with feature contributions" (2014), define
them, and Lundberg and Lee, "A unified approach to interpreting model predictions" (2017), call
SHAP. They sum to the value of the row less the mean over the background.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlapp.schema import Floats

MOST_EXACT = 10  # inputs; each further one would double the cost
BACKGROUND = 64  # rows of a background sample
EVALUATIONS = 1 << 16  # of the function, for a row with more inputs; two rounds of orders at least
APART = 1e-6  # how far from a value the effects of an additive function may sum, relative to it
CHUNK = 1 << 14  # rows that are evaluated at once, which bounds memory

Function = Callable[[Floats], Floats]  # rows (n, inputs) to values (n, outputs)


@dataclass(frozen=True)
class Shapley:
    """What each input adds to n rows' values.

    Attributes:
        baseline: the mean over the background, (outputs,).
        effects: (n, inputs, outputs).
        errors: the standard errors of the effects, of the same shape; None if they are exact.
    """

    baseline: Floats
    effects: Floats
    errors: Floats | None


def explain(
    function: Function, rows: Floats, background: Floats, *, additive: bool = False
) -> Shapley:
    """Explain n rows; the result for a row does not depend on the other rows.

    Args:
        function: what is explained.
        rows: (n, inputs).
        background: (m, inputs).
        additive: whether the function is a sum of one function of each input, which makes the
            values exact and cheap, however many inputs there are.
    """
    outputs = function(background)
    baseline = outputs.mean(axis=0)
    if additive:
        return Shapley(baseline, _additive(function, rows, background, outputs), None)
    if rows.shape[1] <= MOST_EXACT:
        found = [_exact(function, row, background, baseline) for row in rows]
        return Shapley(baseline, _stack(found, rows, baseline), None)
    pairs = [_sampled(function, row, background) for row in rows]
    effects = _stack([effect for effect, _ in pairs], rows, baseline)
    return Shapley(baseline, effects, _stack([error for _, error in pairs], rows, baseline))


def _stack(found: list[Floats], rows: Floats, baseline: Floats) -> Floats:
    return np.array(found).reshape(len(rows), rows.shape[1], len(baseline))


def _evaluate(function: Function, rows: Floats) -> Floats:
    """Return the values of rows, computed in chunks."""
    parts = [function(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)]
    return np.concatenate(parts)


def _additive(function: Function, rows: Floats, background: Floats, outputs: Floats) -> Floats:
    """Return effects (n, inputs, outputs): an input adds the same whatever the other inputs are.

    A logit ends where its probability is too small for a float. Where a row's effects therefore do
    not sum to its value, they are found as those of any function if there are few inputs, and
    otherwise each is moved in proportion to its size.
    """
    if not len(rows):
        return np.empty((0, rows.shape[1], outputs.shape[1]))
    reference, start = background[:1], outputs[0]
    effects = []
    for place in range(rows.shape[1]):
        moved = []
        for values in (rows[:, place], background[:, place]):
            changed = np.repeat(reference, len(values), axis=0)
            changed[:, place] = values
            moved.append(_evaluate(function, changed) - start)
        effects.append(moved[0] - moved[1].mean(axis=0))
    found: Floats = np.stack(effects, axis=1)
    baseline, values = outputs.mean(axis=0), _evaluate(function, rows)
    missing = values - baseline - found.sum(axis=1)  # (n, outputs)
    for row in np.flatnonzero((np.abs(missing) > APART * (1 + np.abs(values))).any(axis=1)):
        if rows.shape[1] <= MOST_EXACT:
            found[row] = _exact(function, rows[row], background, baseline)
        else:
            sizes = np.abs(found[row]) + np.finfo(float).tiny
            found[row] += missing[row] * sizes / sizes.sum(axis=0)
    return found


def _exact(function: Function, row: Floats, background: Floats, baseline: Floats) -> Floats:
    """Return the effects (inputs, outputs) of a row: the mean over all sets of inputs."""
    count = len(row)
    sets = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1 == 1  # (2^k, k)
    mixed = np.where(sets[:, None, :], row, background)  # (2^k, m, k)
    values = _evaluate(function, mixed.reshape(-1, count))
    means = values.reshape(len(sets), len(background), -1).mean(axis=1)  # (2^k, outputs)
    sizes = sets.sum(axis=1)
    effects = np.empty((count, means.shape[1]))
    weight = np.array(
        [math.factorial(s) * math.factorial(count - s - 1) for s in range(count)]
    ) / math.factorial(count)
    for place in range(count):
        without = np.flatnonzero(~sets[:, place])
        gain = means[without | 1 << place] - means[without]
        effects[place] = weight[sizes[without]] @ gain
    # What rounding leaves is spread, so that baseline and effects sum to the value.
    effects += (means[-1] - baseline - effects.sum(axis=0)) / count
    return effects


def _sampled(function: Function, row: Floats, background: Floats) -> tuple[Floats, Floats]:
    """Return a row's effects and their standard errors, (inputs, outputs) each.

    Every row of the background is taken equally often, each time with an order and its reverse
    (antithetic sampling), so that the effects sum exactly.
    """
    count, size = len(row), len(background)
    repeats = max(2, EVALUATIONS // (2 * size * count))
    random = np.random.default_rng(0)
    rounds = []
    for _ in range(repeats):
        orders = random.permuted(np.tile(np.arange(count), (size, 1)), axis=1)
        forward = _walk(function, row, background, orders)
        rounds.append((forward + _walk(function, row, background, orders[:, ::-1])) / 2)
    means = np.array([each.mean(axis=0) for each in rounds])  # (repeats, inputs, outputs)
    # Each round uses all rows of the background, so only the orders are random.
    return means.mean(axis=0), means.std(axis=0, ddof=1) / math.sqrt(repeats)


def _walk(
    function: Function, row: Floats, background: Floats, orders: npt.NDArray[np.int64]
) -> Floats:
    """Return each input's gain (m, inputs, outputs) when m rows turn into the row, in m orders."""
    size, count = orders.shape
    ranks = np.argsort(orders, axis=1)
    steps = np.arange(count + 1)[:, None, None]
    mixed = np.where(ranks < steps, row, background)  # (k + 1, m, k)
    values = _evaluate(function, mixed.reshape(-1, count)).reshape(count + 1, size, -1)
    gains = np.diff(values, axis=0)  # by step
    return gains[ranks.T, np.arange(size)].transpose(1, 0, 2)
