"""What table models of all families share: the check, the engine, reasons, and what-if."""

import io
import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlapp.errors import ArtifactError, Fault, InvalidInput
from mlapp.families import shapley
from mlapp.families.contract import Gives, Model, RowInput, RowReasons
from mlapp.families.engines import Columns, LinearEngine, SkopsEngine, open_engine
from mlapp.families.varying import POINTS, what_if
from mlapp.manifest import Artifact
from mlapp.schema import FEW_VALUES, Checked, Column, Floats, Rows

if TYPE_CHECKING:  # takes longer to import than a row takes to predict
    import pandas as pd

REPORT, BACKGROUND = "report.json", "background.npy"
LONGEST = 200  # characters of an estimator's own message


def dump_background(matrix: Floats) -> bytes:
    """Return a sample of training rows, a `Checked.matrix`, as the bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, matrix)
    return file.getvalue()


def are_finite(values: Floats) -> bool:
    """Return whether all values are finite."""
    if values.size > FEW_VALUES:
        return bool(np.isfinite(values).all())
    # Quicker than numpy. A sum of finite values that overflows takes the long way.
    return math.isfinite(sum(values.ravel().tolist())) or bool(np.isfinite(values).all())


class TableModel:
    """A model that takes a row; subclasses define what it gives.

    Attributes:
        manifest: the manifest of the version.
        size: of its files, in bytes.
        schema: the inputs.
        engine: computes its numbers.
        gives: what it gives.
    """

    gives: Gives

    def __init__(self, artifact: Artifact) -> None:
        """Load the engine of an opened artifact.

        Raises:
            ArtifactError: its files cannot be read here.
        """
        manifest = artifact.manifest
        if manifest.input_schema is None:
            raise ArtifactError(f"{artifact.path} has no input schema")
        self.manifest, self.schema, self.size = manifest, manifest.input_schema, artifact.size
        self._report = artifact.files[REPORT]
        self.engine = open_engine(artifact)
        self._background: Floats | None = None
        if BACKGROUND in artifact.files:
            content = io.BytesIO(artifact.files[BACKGROUND])
            self._background = np.load(content, allow_pickle=False)

    @cached_property
    def takes(self) -> RowInput:
        """What it takes."""
        return RowInput(self.schema, self.estimates_reasons)

    @property
    def platform(self) -> str:
        """The platform, in the terms of the Open Inference Protocol."""
        return self.engine.platform

    @property
    def tolerance(self) -> float:
        """The absolute and relative tolerance of a replayed number."""
        return self.engine.tolerance

    @property
    def estimates_reasons(self) -> bool:
        """Whether reasons are estimated, with a standard error; otherwise they are exact."""
        return not self.engine.additive and len(self.schema.inputs) > shapley.MOST_EXACT

    def check(self, rows: Rows | Checked) -> Checked:
        """Return checked rows; rows that are already checked are returned unchanged.

        Raises:
            InvalidInput: with every fault of every row.
        """
        return rows if isinstance(rows, Checked) else self.schema.check(rows)

    def check_columns(self, columns: Mapping[str, Column]) -> Checked:
        """Check rows that arrive as columns; see `Model.check_columns`.

        Raises:
            InvalidInput: with every fault of every row.
        """
        return self.schema.check_some(columns)

    def require_finite(self, checked: Checked, values: Floats) -> Floats:
        """Return the numbers of the answers to n checked rows, (n, k).

        Raises:
            InvalidInput: with a fault for each row that has a number that is not finite.
        """
        if are_finite(values):
            return values
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
        got = {row: self._say_why(checked, row, values[row]) for row in bad}
        raise self._refuse(checked, got, "a finite number")

    def _say_why(self, checked: Checked, row: int, values: Floats) -> str:
        """Return what a row got that has no finite answer."""
        if isinstance(self.engine, SkopsEngine):
            said = self.engine.say_why(Checked(self.schema, checked.matrix[row : row + 1]))
            if said is not None:
                return f"no answer from the model ({said.splitlines()[0][:LONGEST]})"
        return f"{values[~np.isfinite(values)][0]} from the model for this row"

    def _refuse(self, checked: Checked, got: Mapping[int, str], allowed: str) -> InvalidInput:
        """Return the error for some of checked rows, by their place."""
        labels = range(len(checked)) if checked.row_labels is None else checked.row_labels
        return InvalidInput(
            [Fault(self.gives.name, each, allowed, labels[row]) for row, each in got.items()]
        )

    def explained(self, columns: Columns) -> Floats:
        """Return the values that reasons explain, (n, outputs), from the engine's columns."""
        raise NotImplementedError

    def shapley_values(self, checked: Checked) -> shapley.Shapley:
        """Return the Shapley values of checked rows; see `mlapp.families.shapley`."""
        assert self._background is not None  # every version but the linear ones has it

        def function(matrix: Floats) -> Floats:
            return self.explained(self.engine.run(Checked(self.schema, matrix)))

        with np.errstate(invalid="ignore", over="ignore"):  # see `select_reasons`
            return shapley.explain(
                function, checked.matrix, self._background, additive=self.engine.additive
            )

    def reasons(self, batch: Checked) -> RowReasons:
        """Return what each input adds to the mean prediction over the background.

        Raises:
            InvalidInput: with a fault for each row whose reasons are not finite.
        """
        if isinstance(self.engine, LinearEngine):
            baseline = np.full(len(batch), self.engine.intercept)
            return RowReasons(self.takes, baseline, self.engine.effects(batch))
        found = self.shapley_values(batch)
        return self.select_reasons(batch, found, np.zeros(len(batch), dtype=np.int64))

    def select_reasons(
        self,
        checked: Checked,
        found: shapley.Shapley,
        outputs: Any,
        labels: list[str] | None = None,
    ) -> RowReasons:
        """Return the reasons for one output of each row.

        Args:
            checked: n rows.
            found: their Shapley values.
            outputs: the place of the output that is explained in each row, (n,).
            labels: the label that is explained in each row, for models that give labels.

        Raises:
            InvalidInput: with a fault for each row whose reasons are not finite, since its values
                get no answer together with those of other rows.
        """
        rows = np.arange(len(outputs))
        effects, baseline = found.effects[rows, :, outputs], found.baseline[outputs]
        if not are_finite(effects) or not are_finite(baseline):
            good = np.isfinite(effects).all(axis=1) & np.isfinite(baseline)
            bad = np.flatnonzero(~good).tolist()
            got = dict.fromkeys(bad, "reasons from the model that are not finite numbers")
            raise self._refuse(checked, got, "finite ones")
        error = None
        if found.errors is not None:
            error = found.errors[rows, :, outputs].max(axis=1, initial=0.0)
        by_name = dict(zip(self.schema.names, effects.T, strict=True))
        return RowReasons(self.takes, baseline, by_name, labels, error)

    def explain(self, rows: Rows | Checked) -> "pd.DataFrame":
        """Explain n rows: a column `baseline`, one for each input, and `error` if estimated.

        A row's baseline and inputs sum to its prediction, or to the logit of its label. The
        baseline is the mean prediction; an input's column is what its value adds.

        Raises:
            InvalidInput: with every fault of every row.
        """
        import pandas as pd

        checked = self.check(rows)
        return pd.DataFrame(self.reasons(checked).columns(), index=checked.index)

    def predict(self, rows: Rows | Checked) -> "pd.DataFrame":
        """Answer n rows, with the same index."""
        raise NotImplementedError

    def what_if(self, row: Mapping[str, Any], name: str, points: int = POINTS) -> "pd.DataFrame":
        """Vary one input of a row over its training range; see `varying.what_if`."""
        return what_if(cast(Model, self), row, name, points)

    @cached_property
    def report(self) -> dict[str, Any]:
        """What training measured, for charts.

        `held_out`: lists `actual` and the columns of `predict`, each row answered by a fit that
        did not see it (a sample if there are many rows). A linear regression also has
        `coefficients`: a list of term, estimate, lower and upper, in the units of the inputs.
        """
        report: dict[str, Any] = json.loads(self._report)
        return report
