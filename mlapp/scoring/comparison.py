"""Two versions of a model on one table: both answers to each row, and by how much they differ.

    table -> `plan_comparison` -> chunks -> `Comparison.score` -> `batch.score_table`

The result has the table's columns, those of the first model, `difference` (and for labels
`changed`), and the columns of the second model, whose names begin with `v` and its version.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from mlapp.errors import Fault, InvalidTable
from mlapp.families.contract import LabelOutput, Model
from mlapp.schema import Floats, quote
from mlapp.scoring.batch import Options, Plan, Scored, make_plan, score_batch

DIFFERENCE, CHANGED = "difference", "changed"


@dataclass(frozen=True)
class Comparison:
    """How two models are compared on a table; make it with `plan_comparison`.

    Attributes:
        model, other: the two models; counts and errors of rows are those of the first.
        own_plan, other_plan: what `make_plan` returned for each.
        plan: that of the whole result, for `score_table`.
        prefix: what the names of the first model's columns begin with.
        other_prefix: what the names of the other model's columns begin with.
    """

    model: Model
    other: Model
    own_plan: Plan
    other_plan: Plan
    plan: Plan
    prefix: str
    other_prefix: str

    def score(
        self,
        model: Model,  # noqa: ARG002  the signature of `score_batch`
        plan: Plan,  # noqa: ARG002
        batch: pa.RecordBatch,
        faults: Mapping[int, Fault] | None = None,
    ) -> Scored:
        """Score a batch with both models; counts and errors are those of the first."""
        scored = score_batch(self.model, self.own_plan, batch, faults)
        other = score_batch(self.other, self.other_plan, batch, faults)
        own, count = self.own_plan.own, batch.num_rows
        found = differences(
            self._answers(scored.batch, self.model, self.prefix),
            self._answers(other.batch, self.other, self.other_prefix),
        )
        added = [pa.array(found, mask=np.isnan(found))] if count else [pa.array([], pa.float64())]
        if self.model.gives.kind == "labels":
            labels = [
                each.column(prefix + "label").to_pylist()
                for each, prefix in (
                    (scored.batch, self.prefix),
                    (other.batch, self.other_prefix),
                )
            ]
            changed = [
                None if ours is None or theirs is None else ours != theirs
                for ours, theirs in zip(*labels, strict=True)
            ]
            added.append(pa.array(changed, pa.bool_()))
        columns = [*scored.batch.columns, *added, *other.batch.columns[own:]]
        whole = pa.RecordBatch.from_arrays(columns, schema=self.plan.schema)
        return scored._replace(batch=whole)

    @staticmethod
    def _answers(batch: pa.RecordBatch, model: Model, prefix: str) -> dict[str, Floats]:
        """Return the numbers that are compared, NaN where a row was refused."""
        gives = model.gives
        names = (
            {label: f"p_{label}" for label in gives.labels}
            if isinstance(gives, LabelOutput)
            else {"prediction": "prediction"}
        )
        return {
            key: batch.column(prefix + name).to_numpy(zero_copy_only=False)
            for key, name in names.items()
        }


def plan_comparison(model: Model, other: Model, schema: pa.Schema, options: Options) -> Comparison:
    """Find the inputs of two models among a table's columns.

    Args:
        model: the first model.
        other: another version of it, of the same kind.
        schema: of the table.
        options: of the first model; the other reads the same columns where it has such inputs.

    Raises:
        InvalidInput: an input of one of them has no column.
        InvalidTable: the table already has a column with the name of one of the result's.
    """
    own_plan = make_plan(model, schema, options)
    other_prefix = f"{options.prefix}v{other.manifest.version}_"
    known = set(other.takes.names)
    columns = {theirs: ours for theirs, ours in options.columns.items() if ours in known}
    other_plan = make_plan(other, schema, replace(options, columns=columns, prefix=other_prefix))
    added = [pa.field(options.prefix + DIFFERENCE, pa.float64())]
    if model.gives.kind == "labels":
        added.append(pa.field(options.prefix + CHANGED, pa.bool_()))
    if clash := [each.name for each in added if each.name in schema.names]:
        raise InvalidTable(
            f"the table already has columns {quote(clash)}; give the added columns a prefix"
        )
    fields = [*own_plan.schema, *added, *list(other_plan.schema)[other_plan.own :]]
    plan = replace(own_plan, schema=pa.schema(fields))
    return Comparison(model, other, own_plan, other_plan, plan, options.prefix, other_prefix)


def differences(ours: Mapping[str, Floats], theirs: Mapping[str, Floats]) -> Floats:
    """Return by how much two answers to each of n rows differ, NaN where one is missing.

    Args:
        ours: the predictions (n,) of numbers, or the probabilities (n,) by label.
        theirs: the other answers.

    Returns:
        For numbers, ours less theirs. For labels, the total variation distance: half the sum of
        the absolute differences of the probabilities. It is 0 if they are equal, and 1 if no label
        has a positive probability in both; with two labels it is the difference of either's.
    """
    if ours.keys() == {"prediction"}:
        return ours["prediction"] - theirs["prediction"]
    # A label that one version does not know has probability 0 there, and NaN in refused rows.
    zeros, zeros_theirs = (0 * next(iter(each.values())) for each in (ours, theirs))
    total = zeros
    for label in {**ours, **theirs}:
        total = total + np.abs(ours.get(label, zeros) - theirs.get(label, zeros_theirs))
    half: Floats = total / 2
    return half
