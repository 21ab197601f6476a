"""Make the regression table that ships with the project.

    python data/make_linear_regression_dataset.py [FILE]

The table is synthetic. Its 1,232 rows are drawn from a normal distribution and then moved, in
whole steps of each column, until every sum, sum of squares and sum of products of its six columns
equals that of the table the book chapter trains on. Means, covariances and hence every
least-squares result are therefore those of the chapter's table, while no row is taken from it.

The result is the same, bit for bit, at every run.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

COLUMNS = ("var_1", "var_2", "var_3", "var_4", "var_5", "output")
DECIMALS = (0, 0, 0, 3, 3, 3)
ROWS = 1232
SEED = 12

# Sums and sums of products of the chapter's table, in units of each column's last decimal.
SUMS = np.array([880981, 880981, 99674, 402040, 319424, 489525])
PRODUCTS = np.array(
    [
        [640287605, 633960581, 71935789, 289014850, 229617110, 353494377],
        [633960581, 640638867, 70576107, 288052958, 228903523, 351714446],
        [71935789, 70576107, 8225664, 32628764, 25917159, 39793032],
        [289014850, 288052958, 32628764, 131475630, 104441229, 160233514],
        [229617110, 228903523, 25917159, 104441229, 83023012, 127338307],
        [353494377, 351714446, 39793032, 160233514, 127338307, 195871037],
    ]
)


def make_table() -> Ints:
    """Return the table in units of each column's last decimal, shape (1232, 6)."""
    rng = np.random.default_rng(SEED)
    mean = SUMS / ROWS
    covariance = PRODUCTS / ROWS - np.outer(mean, mean)
    drawn = rng.standard_normal((ROWS, len(COLUMNS)))
    drawn -= drawn.mean(axis=0)
    whitened = np.linalg.solve(np.linalg.cholesky(drawn.T @ drawn / ROWS), drawn.T)
    table = np.rint(mean + (np.linalg.cholesky(covariance) @ whitened).T).astype(np.int64)
    for column in range(len(COLUMNS)):
        fix_sums(table[:, column], SUMS[column], PRODUCTS[column, column], rng)
        fix_products(table[:, column], table[:, :column], PRODUCTS[column, :column], rng)
    return table


def fix_sums(x: Ints, total: int, squares: int, rng: np.random.Generator) -> None:
    """Move values of `x` by one step, in place, until its sum and sum of squares are as asked."""
    difference = int(total - x.sum())
    x[rng.choice(ROWS, abs(difference), replace=False)] += np.sign(difference)
    while missing := int(squares - x @ x):
        up, down = rng.integers(ROWS, size=(2, 4096))
        gain = np.where(up == down, 0, 2 * (x[up] - x[down] + 1))
        best = np.abs(missing - gain).argmin()
        x[up[best]] += 1
        x[down[best]] -= 1


def fix_products(x: Ints, others: Ints, products: Ints, rng: np.random.Generator) -> None:
    """Let values of `x` change places until its products with the other columns are as asked.

    Changing places keeps the sum and the sum of squares. Single swaps bring the products near;
    then four swaps that together make up the rest are found by meeting in the middle.
    """
    if not others.shape[1]:
        return
    scale = others.std(axis=0)
    while True:
        missing = products - x @ others
        if not missing.any():
            return
        swaps = rng.integers(ROWS, size=(400_000, 2))
        gains = (x[swaps[:, 0]] - x[swaps[:, 1]])[:, None] * (
            others[swaps[:, 1]] - others[swaps[:, 0]]
        )
        distance = np.linalg.norm((missing - gains) / scale, axis=1)
        if distance.min() < 0.5 * np.linalg.norm(missing / scale):
            swap(x, swaps[[distance.argmin()]])
            continue
        small = np.argsort(np.linalg.norm(gains / scale, axis=1), kind="stable")[:20_000]
        halves = rng.choice(small, size=(4_000_000, 2))
        gain = gains[halves].sum(axis=1)
        wanted = missing - gain
        fits = (np.abs(gain) < 2047).all(axis=1) & (np.abs(wanted) < 2047).all(axis=1)
        radix = 4096 ** np.arange(gain.shape[1], dtype=np.int64)
        have, want = (gain[fits] + 2048) @ radix, (wanted[fits] + 2048) @ radix
        _, first, second = np.intersect1d(have, want, return_indices=True)
        for four in np.hstack([halves[fits][first], halves[fits][second]]):
            if len(np.unique(swaps[four])) == swaps[four].size:
                swap(x, swaps[four])
                return


def swap(x: Ints, pairs: Ints) -> None:
    """Let the values at both places of each pair change places."""
    x[pairs] = x[pairs[:, ::-1]]


def main() -> None:
    """Write the table as CSV."""
    parser = argparse.ArgumentParser(description="Make the synthetic regression table.")
    default = Path(__file__).with_name("linear_regression_dataset.csv")
    parser.add_argument("file", nargs="?", type=Path, default=default)
    file = parser.parse_args().file
    scaled = make_table() / 10.0 ** np.array(DECIMALS)
    lines = [
        ",".join(f"{value:.{places}f}" for value, places in zip(row, DECIMALS, strict=True))
        for row in scaled
    ]
    file.write_text("\n".join([",".join(COLUMNS), *lines, ""]), encoding="utf-8", newline="\n")
    print(f"Wrote {ROWS} rows to {file}")


if __name__ == "__main__":
    main()
