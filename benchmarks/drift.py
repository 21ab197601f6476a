"""How often drift is flagged without a reason, and how often a real one is missed.

    python benchmarks/drift.py [--weeks 2000]

Method: training draws 200 to 20,000 values of a distribution (normal, skewed, whole numbers, flags,
mostly zeros, categories), a week brings 100 to 5,000 of the same, and the share of weeks that
`records.drift` flags is counted. Then the mean of a week of 500 rows moves by half a standard
deviation. Bins are learned from the training's values, as published models have them.
"""

import argparse
from collections.abc import Callable

import numpy as np

from mlapp.records import drift, reference
from mlapp.records.bins import Binning, Series
from mlapp.tables.numbers import Floats

SHARES = (0.5, 0.2, 0.15, 0.1, 0.04, 0.01)  # of categories
Draw = Callable[[int], Floats]


def main() -> None:
    """Print the share of weeks that are flagged."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weeks", type=int, default=2000)
    weeks = parser.parse_args().weeks
    random = np.random.default_rng(0)
    draws: dict[str, Draw] = {
        "normal": lambda n: random.normal(size=n),
        "skewed": lambda n: random.lognormal(sigma=1.5, size=n),
        "whole numbers": lambda n: random.poisson(2.0, size=n).astype(float),
        "flags": lambda n: (random.random(n) < 0.5).astype(float),
        "mostly zeros": lambda n: random.exponential(size=n) * (random.random(n) < 0.1),
        "categories": lambda n: random.choice(6, size=n, p=SHARES).astype(np.float64),
    }
    print("training   week   distribution     flagged without drift")
    for training, week in ((200, 100), (1000, 500), (20_000, 5000)):
        for name, draw in draws.items():
            share = flagged(draw, draw, training, week, name == "categories", weeks)
            print(f"{training:8}{week:7}   {name:16}{share:8.2%}")
    moved: dict[str, Draw] = {
        "normal": lambda n: random.normal(0.5, size=n),
        "whole numbers": lambda n: random.poisson(2.0 + 0.5 * 2.0**0.5, size=n).astype(float),
        "flags": lambda n: (random.random(n) < 0.75).astype(float),
    }
    print("training   week   distribution     flagged when moved by half a standard deviation")
    for training in (500, 1000, 20_000):
        for name, draw in moved.items():
            share = flagged(draws[name], draw, training, 500, False, weeks)
            print(f"{training:8}{500:7}   {name:16}{share:8.2%}")


def flagged(
    before: Draw, after: Draw, training: int, week: int, categories: bool, weeks: int
) -> float:
    """Return the share of weeks in which a series is flagged."""
    found = 0
    for _ in range(weeks):
        old, new = before(training), after(week)
        cut = Binning(values=tuple("abcdef")) if categories else reference.cut(old)
        one, other = cut.count(old), cut.count(new)
        found += drift.compare(Series("input", "x"), cut, one, other).state in ("watch", "act")
    return found / weeks


if __name__ == "__main__":
    main()
