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
    """Return a sample of training rows, as `Checked.matrix` has them, as the bytes of a file."""
    file = io.BytesIO()
    np.save(file, matrix)
    return file.getvalue()


class TableModel:
    """A model that takes a row; its subclass says what it gives.

    Attributes:
        manifest: what the version says of itself.
        size: of its files, in bytes.
        schema: the inputs.
        engine: what computes its numbers.
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
        """What computes it, as the Open Inference Protocol names platforms."""
        return self.engine.platform

    @property
    def tolerance(self) -> float:
        """By how much a number may differ when replayed, absolutely and relatively."""
        return self.engine.tolerance

    @property
    def estimates_reasons(self) -> bool:
        """Whether reasons are estimated, with a stated error; else they are exact."""
        return not self.engine.additive and len(self.schema.inputs) > shapley.MOST_EXACT

    def check(self, rows: Rows | Checked) -> Checked:
        """Return checked rows; those that are checked already pass through.

        Raises:
            InvalidInput: with every fault of every row.
        """
        return rows if isinstance(rows, Checked) else self.schema.check(rows)

    def check_columns(self, columns: Mapping[str, Column]) -> Checked:
        """Check rows that arrive as columns, some of which may be left out.

        Raises:
            InvalidInput: with every fault of every row.
        """
        return self.schema.check_some(columns)

    def explained(self, columns: Columns) -> Floats:
        """Return what reasons explain, (n, outputs), of what the engine gave for n rows."""
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
        """Say what each input adds to the mean prediction of the background."""
        if isinstance(self.engine, LinearEngine):
            baseline = np.full(len(batch), self.engine.intercept)
            return RowReasons(self.takes, baseline, self.engine.effects(batch))
        found = self.shapley_values(batch)
        return self.describe(found, np.zeros(len(batch), dtype=np.int64))

    def describe(
        self, found: shapley.Shapley, outputs: Any, labels: list[str] | None = None
    ) -> RowReasons:
        """Return the reasons for one output of each row.

        Args:
            found: the Shapley values of n rows.
            outputs: the place of the output that is explained in each row, (n,).
            labels: the labels that are explained, where labels are.
        """
        rows = np.arange(len(outputs))
        effects = found.effects[rows, :, outputs]
        error = None
        if found.errors is not None:
            error = found.errors[rows, :, outputs].max(axis=1, initial=0.0)
        by_name = dict(zip(self.schema.names, effects.T, strict=True))
        return RowReasons(self.takes, found.baseline[outputs], by_name, labels, error)

    def explain(self, rows: Rows | Checked) -> "pd.DataFrame":
        """Explain n rows: a column baseline and one per input, and `error` where estimated.

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
        """Move one input of a row across its training range, the others held.

        Args:
            row: the row that is varied; the range is widened to hold its value.
            name: the input that moves. A category takes each of its values.
            points: how many values a number takes, 2 or more.

        Returns:
            What `varying.what_if` does.
        """
        return what_if(cast(Model, self), row, name, points)

    @cached_property
    def report(self) -> dict[str, Any]:
        """What training measured, for pictures.

        `held_out`: lists actual and the columns of `predict`, each row answered by a fit that did
        not see it (a sample of them where they are many). A linear regression has `coefficients`,
        too: a list of term, estimate, lower and upper, in the inputs' own units.
        """
        report: dict[str, Any] = json.loads(self._report)
        return report
