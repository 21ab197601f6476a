"""The reference of a version: its training data counted in bins, to measure drift."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mlapp.errors import ArtifactError
from mlapp.families.contract import Answers, Batch, Model
from mlapp.manifest import Edges
from mlapp.records import bins
from mlapp.records.bins import Binning, Series
from mlapp.store import artifacts
from mlapp.tables.numbers import Floats

REFERENCE = "reference.json"  # a file of a version

MOST_VALUES = 10  # different values, up to which each has a bin of its own
FREQUENT = 0.05  # share of the values, from which a value has a bin of its own among many
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # where the values of an input are cut
DECILES = tuple(part / 10 for part in range(1, 10))  # near which answers are cut
NEAR = 0.025  # by how much the share below a cut may differ from that decile
SAME = 1e-9  # of their range: answers that differ by no more are the same one

Counts = Mapping[Series, Mapping[int, int]]


def learn(
    model: Model, batch: Batch, own: Answers, unseen: Answers | None
) -> tuple[tuple[Edges, ...], bytes]:
    """Count the training data of a model; return its bins, and the content of `reference.json`.

    Args:
        model: the model, as it will be published.
        batch: the training rows; for texts, the held-out ones.
        own: its answers to them.
        unseen: answers to them, or to other rows, of fits that did not see them. Without, answers
            have no reference: a model is surer of rows that it remembers than of any others.
    """
    given = bins.inputs(model, batch)
    cuts = bins.by_value(model)
    found = bins.columns(model, given, own)
    others = {} if unseen is None else bins.columns(model, None, unseen)
    learned = {
        series: cut_at_gaps(values, others.get(series, values))
        if series.kind == "answer"
        else cut(values)
        for series, values in found.items()
        if series not in cuts and not np.all(np.isnan(values))
    }
    cuts |= learned
    counted = {series: each for series, each in found.items() if series.kind == "input"} | others
    content = [
        {"kind": series.kind, "name": series.name, "counts": cuts[series].count(values)}
        for series, values in counted.items()
        if series in cuts
    ]
    edges = tuple(
        Edges.model_validate({"kind": series.kind, "name": series.name, "edges": each.edges})
        for series, each in learned.items()
    )
    return edges, json.dumps({"series": content}).encode()


def cut(values: Floats) -> Binning:
    """Return bins for numbers like some, (n,), of which NaN is none.

    Few different values have a bin each. Many are cut at quantiles, and the frequent ones among
    them have a bin each: otherwise more of a 0, or of a highest grade, would not be seen.
    """
    values = values[~np.isnan(values)]
    distinct, counts = np.unique(values, return_counts=True)
    apart, quantiles = distinct, distinct
    if len(distinct) > MOST_VALUES:
        apart = distinct[counts >= FREQUENT * len(values)]
        quantiles = np.quantile(values, QUANTILES, method="higher")
    ends = distinct[0], np.nextafter(distinct[-1], math.inf)
    edges = np.unique([*ends, *quantiles, *apart, *np.nextafter(apart, math.inf)])
    return Binning(tuple(edges.tolist()))


def cut_at_gaps(answers: Floats, others: Floats) -> Binning:
    """Return bins for numbers that a model gives, cut between its answers to known rows.

    An answer that is given often may differ in its last digits, and fits to other rows give it a
    little higher or lower. So an edge does not lie on it, but in the widest gap near a decile.

    Args:
        answers: of the model, (n,).
        others: of fits to other rows, which are inside of the range, too, (m,).
    """
    ordered = np.sort(answers)
    first, last = min(ordered[0], others.min()), max(ordered[-1], others.max())
    least = SAME * max(last - first, abs(first), abs(last), 1e-300)
    gaps = np.diff(ordered)
    places = np.flatnonzero(gaps > least)
    middles, widths = ordered[places] + gaps[places] / 2, gaps[places]
    cuts = set(middles.tolist())
    if len(places) >= MOST_VALUES:
        below = (places + 1) / len(ordered)
        cuts = {_choose_gap(np.abs(below - decile), middles, widths) for decile in DECILES}
    return Binning(tuple(sorted({float(first - least), *cuts, float(last + least)})))


def _choose_gap(distances: Floats, middles: Floats, widths: Floats) -> float:
    """Return the middle of the widest gap that is near, or of the nearest gap."""
    near = distances <= max(NEAR, float(distances.min()))
    return float(middles[near][widths[near].argmax()])


def read(root: Path, name: str, version: int) -> Counts | None:
    """Return the counts of a version, or None if it has none.

    Raises:
        ArtifactError: the version cannot be read.
    """
    if REFERENCE not in artifacts.read_manifest(root / name / str(version)).files:
        return None
    try:
        content = json.loads((root / name / str(version) / REFERENCE).read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{name} {version}: {REFERENCE} cannot be read: {error}") from error
    return {
        Series(each["kind"], each["name"]): {int(key): n for key, n in each["counts"].items()}
        for each in content["series"]
    }
