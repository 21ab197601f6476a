"""Counts of values in bins, to measure drift; rows and texts cannot be reconstructed from them.

A model has a series of counts for each of its inputs, for the further columns of its answers (such
as how many words of a text were read), and for the answers. Bin k of a number has the values from
`edges[k - 1]` up to, but not including, `edges[k]`: bin 0 is below the range seen in training, and
the last bin is above it. Bin k of a label or a category is that of the k-th one. The edges are
learned with the model (`mlapp.records.reference`) and stand in its manifest.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from mlapp.families.contract import Answers, Batch, Model
from mlapp.schema import Checked
from mlapp.tables.numbers import Floats

MISSING, REFUSED = -1, -2  # bins of missing values, and of values that are not allowed
PARTS = 10  # bins of an answer's range, of a version without edges of its own

Kind: TypeAlias = Literal["input", "extra", "answer", "unsure", "seconds", "error"]


class Series(NamedTuple):
    """A series of values that are counted.

    Attributes:
        kind: input, extra (a further column of an answer), answer, unsure (bin 1: unsure, 0:
            sure), seconds (requests by the time of the model) or error (requests by status).
        name: of the input, the extra or the output; of a channel for seconds and errors.
    """

    kind: Kind
    name: str


@dataclass(frozen=True)
class Binning:
    """The bins of a series: between edges, or one for each of some values.

    Attributes:
        edges: of a number, ascending; there is one more bin than edges.
        values: of a category or a label, in order.
    """

    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values) or len(self.edges) + 1

    def count(self, values: Floats) -> dict[int, int]:
        """Return how often each bin occurs among values (n,), without those that do not.

        A value is a number, or the position of a category or a label; NaN is missing.
        """
        values = np.ascontiguousarray(values)
        there = values == values  # NaN is not equal to itself
        present = int(np.count_nonzero(there))
        if self.values:
            counts = np.bincount(values[there].astype(np.int64)).tolist()
        else:  # comparing with every edge is quicker than searching for each value's bin
            above = [int(np.count_nonzero(values >= edge)) for edge in self.edges]
            counts = [one - other for one, other in pairwise([present, *above, 0])]
        found = {MISSING: len(values) - present} | dict(enumerate(counts))
        return {place: count for place, count in found.items() if count}


SECONDS = Binning((0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10))
TENTHS = Binning((0.0, *(part / 10 for part in range(1, 10)), math.nextafter(1, 2)))
POWERS = Binning(tuple(float(2**power) for power in range(17)))
SURE = Binning(values=("sure", "unsure"))


def between(cuts: Iterable[float]) -> Binning:
    """Return bins between cuts, the first and the last of which are the ends of a range.

    A value at the upper end is inside; equal cuts count once.
    """
    distinct = sorted(set(map(float, cuts)))
    return Binning((*(distinct[:-1] or distinct), math.nextafter(distinct[-1], math.inf)))


def binnings(model: Model) -> dict[Series, Binning]:
    """Return the bins of each series of a model, except those of requests."""
    stored = model.manifest.bins
    if stored is None:
        return by_value(model) | _by_range(model)
    learned = {Series(each.kind, each.name): Binning(each.edges) for each in stored}
    return by_value(model) | learned


def by_value(model: Model) -> dict[Series, Binning]:
    """Return the bins of a model's categories and labels, one for each value."""
    found: dict[Series, Binning] = {}
    for spec in model.takes.inputs:
        if spec.kind == "category":
            found[Series("input", spec.name)] = Binning(values=spec.categories)
    gives = model.gives
    if gives.kind == "labels":
        found[Series("answer", gives.name)] = Binning(values=gives.labels)
        found[Series("unsure", gives.name)] = SURE
    return found


def _by_range(model: Model) -> dict[Series, Binning]:
    """Return the bins of a model's numbers where its manifest has none.

    The cuts of an input are the quantiles in its schema; the range of the output has ten bins.
    """
    found: dict[Series, Binning] = {}
    for spec in model.takes.inputs:
        if spec.kind in ("number", "date"):
            cuts = (spec.minimum, *spec.quantiles, spec.maximum)
            found[Series("input", spec.name)] = between(cuts)
    gives = model.gives
    if gives.kind == "number":
        schema = model.manifest.input_schema
        if schema is not None and schema.output is not None:
            ends = schema.output.minimum, schema.output.maximum
            found[Series("answer", gives.name)] = between(np.linspace(*ends, PARTS + 1).tolist())
        return found
    for field, _ in gives.extras:
        kind = {"INT64": POWERS, "FP64": TENTHS}.get(field.datatype)
        if kind and field.width is None:
            found[Series("extra", field.name)] = kind
    return found


def inputs(model: Model, batch: Batch) -> Floats | None:
    """Return the values of a batch that are counted (n, inputs); None for texts.

    Args:
        model: the model that checked the batch.
        batch: n instances.
    """
    if isinstance(batch, Checked):
        return batch.matrix
    if model.takes.kind != "row":
        return None
    specs = model.takes.inputs
    rows = [batch.row(place) for place in range(len(batch))]
    values = [[spec.parse(row[spec.name]) for spec in specs] for row in rows]
    return np.array(values, dtype=float).reshape(len(rows), len(specs))


def columns(model: Model, given: Floats | None, answers: Answers) -> dict[Series, Floats]:
    """Return the values of instances that are counted, (n,) for each series.

    Args:
        model: the model that answered.
        given: what `inputs` returned for n instances.
        answers: the answers to all of them.
    """
    found: dict[Series, Floats] = {}
    if given is not None:
        for input_name, values in zip(model.takes.names, given.T, strict=True):
            found[Series("input", input_name)] = values
    output, tensors = answers.output, answers.tensors()
    name = Series("answer", output.name)
    if output.kind == "number":
        return found | {name: tensors["prediction"]}
    probabilities = tensors["probabilities"]
    found[name] = probabilities.argmax(axis=1).astype(float)
    ordered = np.sort(probabilities, axis=1)
    close = ordered[:, -1] - ordered[:, -2] <= output.margin
    found[Series("unsure", output.name)] = close.astype(float)
    for field, _ in output.extras:
        if field.datatype in ("INT64", "FP64"):
            found[Series("extra", field.name)] = np.asarray(tensors[field.name], dtype=float)
    return found
