"""The gate for candidates: whether one is worse than the served version, beyond chance.

Both versions carry what each held-out row cost them: `losses` in report.json, by a fingerprint of
the row. Rows that neither version was trained on are compared in pairs, by a bootstrap of the mean
difference (Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13). Where the
versions know groups of rows, as of `--group`, whole groups are resampled: rows of one are alike.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlapp.manifest import Artifact
from mlapp.tables.numbers import Floats

REPORT = "report.json"
LEVEL = 0.95  # of the interval of the difference
RESAMPLES = 2000
FEWEST = 30  # the fewest pairs for a bootstrap
FEWEST_GROUPS = 10  # the fewest groups of pairs


@dataclass(frozen=True)
class Verdict:
    """A comparison of two versions on the same rows.

    Attributes:
        rows: how many rows were compared.
        metric: what a row costs: squared error, or log loss.
        current, candidate: the mean of it; smaller is better.
        lower, upper: the interval of candidate minus current.
        source: where the rows come from.
        groups: how many groups the rows are of; None where each stands alone.
        same: whether each held-out row cost both exactly the same, as where only the final fit saw
            judged answers: that says nothing of what only one of the two learned from.
    """

    rows: int
    metric: str
    current: float
    candidate: float
    lower: float
    upper: float
    source: str
    groups: int | None = None
    same: bool = False

    @property
    def worse(self) -> bool:
        """Whether the candidate is worse beyond chance."""
        return self.lower > 0

    @property
    def better(self) -> bool:
        """Whether the candidate is better beyond chance."""
        return self.upper < 0

    @property
    def outcome(self) -> str:
        """What came of it, in words."""
        if self.rows < FEWEST:
            return f"{self.rows} rows in common, too few to compare"
        if self.groups is not None and self.groups < FEWEST_GROUPS:
            return f"{self.rows:,} rows of {self.groups} groups in common, too few to compare"
        if self.same:
            return (
                f"no verdict: each of {self.rows:,} rows cost both versions exactly the same, which"
                " says nothing of what only one of them learned from"
            )
        of_groups = "" if self.groups is None else f" of {self.groups:,} groups"
        outcome = "worse" if self.worse else "better" if self.better else "no different"
        return (
            f"{outcome}; mean {self.metric} {self.candidate:.6g} against"
            f" {self.current:.6g} on {self.rows:,} rows{of_groups}, difference {self.lower:+.3g} to"
            f" {self.upper:+.3g} ({LEVEL:.0%} interval)"
        )

    def __str__(self) -> str:
        return f"{self.source}: {self.outcome}"


def compare_held_out(current: Artifact, candidate: Artifact) -> Verdict:
    """Compare two versions on the held-out rows that both report on.

    Where all losses are the same, they are of the same fits, and there is no verdict.
    """
    ours, theirs = _losses(current), _losses(candidate)
    old, new = ours.get("values", {}), theirs.get("values", {})
    common = sorted(old.keys() & new.keys()) if ours.get("metric") == theirs.get("metric") else []
    groups = theirs.get("groups") or ours.get("groups")  # none in reports without `--group`
    found = compare(
        [old[key] for key in common],
        [new[key] for key in common],
        str(theirs.get("metric", "loss")),
        "held-out rows",
        None if groups is None else [groups[key] for key in common],
    )
    return replace(found, same=bool(common) and all(old[key] == new[key] for key in common))


def compare(
    current: Sequence[float],
    candidate: Sequence[float],
    metric: str,
    source: str,
    groups: Sequence[float] | None = None,
) -> Verdict:
    """Compare what the same n rows cost two versions.

    Fewer than `FEWEST` rows, or `FEWEST_GROUPS` groups, are never worse.

    Args:
        current: what each row costs the served version.
        candidate: what it costs the other.
        metric: what that is.
        source: where the rows come from.
        groups: the number of each row's group; by default each row stands alone.
    """
    old, new = np.asarray(current, dtype=float), np.asarray(candidate, dtype=float)
    places = np.arange(len(old)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(places)
    known = None if groups is None else len(sizes)
    mean = (float(old.mean()), float(new.mean())) if len(old) else (0.0, 0.0)
    if len(old) < FEWEST or len(sizes) < FEWEST_GROUPS:
        return Verdict(len(old), metric, *mean, -np.inf, np.inf, source, known)
    interval = _interval(np.bincount(places, new - old).astype(float), sizes)
    return Verdict(len(old), metric, *mean, *interval, source, known)


def _interval(sums: Floats, sizes: Any) -> tuple[float, float]:
    """Return the percentile interval of the mean difference of rows in n groups.

    Args:
        sums: of the differences of each group, (n,).
        sizes: how many rows each group has, (n,).
    """
    random = np.random.default_rng(0)
    drawn = (random.integers(len(sums), size=len(sums)) for _ in range(RESAMPLES))
    means = [sums[places].sum() / sizes[places].sum() for places in drawn]
    lower, upper = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return lower, upper


def _losses(artifact: Artifact) -> Mapping[str, dict[str, float]]:
    """Return `losses` of a version's report: metric, and values by fingerprint of the row."""
    report = json.loads(artifact.files.get(REPORT, b"{}"))
    found: Mapping[str, dict[str, float]] = report.get("losses", {})
    return found
