"""What table models of all families share: the check, the engine, reasons, and what-if."""

import io
import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlapp.errors import ArtifactError
from mlapp.families import shapley
from mlapp.families.contract import Model, RowInput, RowReasons
from mlapp.families.engines import Columns, LinearEngine, open_engine
from mlapp.families.varying import POINTS, what_if
from mlapp.manifest import Artifact
from mlapp.schema import Checked, Column, Floats, Rows

if TYPE_CHECKING:  # takes longer to import than a row takes to predict
    import pandas as pd

REPORT, BACKGROUND = "report.json", "background.npy"


def dump_background(matrix: Floats) -> bytes:
    """Return a sample of training rows, a `Checked.matrix`, as the bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, matrix)
    return file.getvalue()


class TableModel:
    """A model that takes a row; subclasses define what it gives.

    Attributes:
        manifest: the manifest of the version.
        size: of its files, in bytes.
        schema: the inputs.
        engine: computes its numbers.
    """

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

    def explained(self, columns: Columns) -> Floats:
        """Return the values that reasons explain, (n, outputs), from the engine's columns."""
        raise NotImplementedError

    def shapley_values(self, checked: Checked) -> shapley.Shapley:
        """Return the Shapley values of checked rows; see `mlapp.families.shapley`."""
        assert self._background is not None  # every version but the linear ones has it

        def function(matrix: Floats) -> Floats:
            return self.explained(self.engine.run(Checked(self.schema, matrix)))

        return shapley.explain(
            function, checked.matrix, self._background, additive=self.engine.additive
        )

    def reasons(self, batch: Checked) -> RowReasons:
        """Return what each input adds to the mean prediction over the background."""
        if isinstance(self.engine, LinearEngine):
            baseline = np.full(len(batch), self.engine.intercept)
            return RowReasons(self.takes, baseline, self.engine.effects(batch))
        found = self.shapley_values(batch)
        return self.select_reasons(found, np.zeros(len(batch), dtype=np.int64))

    def select_reasons(
        self, found: shapley.Shapley, outputs: Any, labels: list[str] | None = None
    ) -> RowReasons:
        """Return the reasons for one output of each row.

        Args:
            found: the Shapley values of n rows.
            outputs: the place of the output that is explained in each row, (n,).
            labels: the label that is explained in each row, for models that give labels.
        """
        rows = np.arange(len(outputs))
        effects = found.effects[rows, :, outputs]
        error = None
        if found.errors is not None:
            error = found.errors[rows, :, outputs].max(axis=1, initial=0.0)
        by_name = dict(zip(self.schema.names, effects.T, strict=True))
        return RowReasons(self.takes, found.baseline[outputs], by_name, labels, error)

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
