"""A published linear regression: predict with an interval, explain exactly, ask what if.

The prediction is a least-squares fit on standardised encoded columns z (n, k):

    prediction = intercept + z @ coefficients

so the intercept is the mean of the training outputs, and coefficient times z is what a column
adds to it: the exact Shapley values of a linear model with independent inputs (Strumbelj and
Kononenko, 2014).

The interval is prediction +- q * sqrt(1 + h(z)), with h(z) = 1/n + z' (Z'Z)^-1 z the leverage of
a new row, so that it widens away from the training data as the least-squares interval does. q is
not taken from the t distribution but is the conformal quantile of the leave-one-out residuals
divided by the same factor (the jackknife of Lei et al., "Distribution-free predictive inference
for regression", 2018, with studentized residuals as in Vovk, Gammerman and Shafer, "Algorithmic
learning in a random world", 2005): no normal distribution is assumed.
"""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as library_version
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib.numpy_pickle import NumpyUnpickler

from mlapp.errors import ArtifactError
from mlapp.families.contract import Headline, NumberOutput, Numbers, RowInput, RowReasons
from mlapp.families.varying import what_if
from mlapp.manifest import Artifact, command_of
from mlapp.schema import Checked, Column, Floats, Notice, Rows, describe_outside

if TYPE_CHECKING:  # takes longer to import than a row takes to predict
    import pandas as pd

LIBRARY = "scikit-learn"
COLUMNS = ("prediction", "lower", "upper")
MODEL, INTERVAL, REPORT = "model.joblib", "interval.npz", "report.json"
# All that the pickle of the pipeline may name besides scikit-learn's own classes.
_NUMPY = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "scalar"),
    ("joblib.numpy_pickle", "NumpyArrayWrapper"),
}


class _Record:
    """Stands for any class of scikit-learn, and holds its attributes."""


class _Reader(NumpyUnpickler):  # type: ignore[misc]
    """Reads a fitted pipeline as plain records: serving needs its numbers, not scikit-learn."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the class of that name.

        Raises:
            UnpicklingError: a linear regression has no such part.
        """
        if module.split(".")[0] == "sklearn":
            return _Record
        if (module, name) not in _NUMPY:
            raise UnpicklingError(f"{module}.{name} is no part of a linear regression")
        return super().find_class(module, name)


@dataclass(frozen=True)
class Interval:
    """What the interval needs: its level, q, the number of training rows, and (Z'Z)^-1 (k, k)."""

    level: float
    quantile: float
    rows: int
    inverse: Floats

    def leverage(self, standardised: Floats) -> Floats:
        """Return h(z) for each of n standardised rows (n, k)."""
        # One small product a row: a large one would round a row by the rows that it comes with.
        weighted = (standardised[:, None, :] @ self.inverse)[:, 0, :]
        spread: Floats = np.vecdot(weighted, standardised)
        return 1 / self.rows + spread

    def half_width(self, standardised: Floats) -> Floats:
        """Return half the interval's width for each of n standardised rows (n, k)."""
        half: Floats = self.quantile * np.sqrt(1 + self.leverage(standardised))
        return half

    def dump(self) -> bytes:
        """Return the interval as the bytes of an .npz file."""
        file = io.BytesIO()
        np.savez(
            file, level=self.level, quantile=self.quantile, rows=self.rows, inverse=self.inverse
        )
        return file.getvalue()

    @classmethod
    def load(cls, content: bytes) -> "Interval":
        """Read what `dump` returned."""
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            level, quantile, rows = (file[key].item() for key in ("level", "quantile", "rows"))
            return cls(level, quantile, rows, file["inverse"])


class RegressionModel:
    """A linear regression: takes a row, gives a number with an interval.

    Attributes:
        schema: the inputs and the output.
        interval: what the interval needs.
    """

    platform = "sklearn"
    tolerance = 1e-9

    def __init__(self, artifact: Artifact) -> None:
        """Load the model from an opened artifact.

        Raises:
            ArtifactError: it is no regression, or was saved by another scikit-learn.
        """
        manifest = artifact.manifest
        command = command_of(manifest)
        if manifest.input_schema is None or manifest.task != "regression":
            raise ArtifactError(f"{artifact.path} is a {manifest.task} model, not a regression")
        saved = manifest.libraries.get("scikit-learn", "an unknown version")
        installed = library_version("scikit-learn")
        if saved.split(".")[:2] != installed.split(".")[:2]:
            raise ArtifactError(
                f"{artifact.path / MODEL} was saved by scikit-learn {saved}, and {installed} is"
                " installed, which may read it wrongly",
                f'pip install "scikit-learn=={saved}"'
                + (f", or train again: {command}" if command else ""),
            )
        self.manifest, self.schema, self.size = manifest, manifest.input_schema, artifact.size
        self._report = artifact.files[REPORT]
        self.interval = Interval.load(artifact.files[INTERVAL])
        self.takes = RowInput(self.schema)
        self.gives = NumberOutput(self.schema.output.name, self._decimals(), self.interval.level)
        try:
            pipeline = _Reader(MODEL, io.BytesIO(artifact.files[MODEL]), True).load()
            steps = {name: vars(step) for name, step in pipeline.steps}
            scale, regress = steps["scale"], steps["regress"]
            self._mean, self._scale = scale["mean_"], scale["scale_"]
            self._coefficients = regress["coef_"]
            self._intercept = float(regress["intercept_"])
        except (UnpicklingError, AttributeError, KeyError) as error:
            raise ArtifactError(
                f"{artifact.path / MODEL} holds no pipeline of ours: {error}", command
            ) from error

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

    def answer(self, batch: Checked) -> Numbers:
        """Predict checked rows, each with its interval."""
        predicted = self.predict_array(batch)
        return Numbers(self.gives, predicted, self.notices(batch, predicted))

    def reasons(self, batch: Checked) -> RowReasons:
        """Say what each input adds to the mean output in training, exactly."""
        standardised = self._standardise(batch)
        parts = self.schema.split(standardised)
        weights = self.schema.split(self._coefficients[None])
        effects = {
            name: np.vecdot(part, weight)
            for (name, part), (_, [weight]) in zip(parts, weights, strict=True)
        }
        return RowReasons(self.takes, np.full(len(batch), self._intercept), effects)

    def predict(self, rows: Rows | Checked) -> "pd.DataFrame":
        """Predict n rows: columns prediction, lower and upper, in the output's unit, same index.

        Raises:
            InvalidInput: with every fault of every row.
        """
        import pandas as pd

        checked = self.check(rows)
        return pd.DataFrame(self.predict_array(checked), checked.index, list(COLUMNS))

    def predict_array(self, checked: Checked) -> Floats:
        """Predict checked rows as (n, 3): prediction, lower, upper.

        A row's answer is the same to the last bit whatever rows come with it.
        """
        standardised = self._standardise(checked)
        answer = np.empty((3, len(standardised)))
        answer[:] = self._intercept + np.vecdot(standardised, self._coefficients)
        half = self.interval.half_width(standardised)
        answer[1] -= half
        answer[2] += half
        return answer.T

    def notices(self, checked: Checked, predicted: Floats) -> list[Notice]:
        """Return what is unusual about checked rows, and about their predictions.

        Args:
            checked: n rows.
            predicted: what `predict_array` returned for them, (n, 3).
        """
        return checked.notices + [
            Notice(
                self.schema.output.name,
                detail,
                row if checked.row_labels is None else checked.row_labels[row],
            )
            for row, detail in self.unusual_predictions(predicted).items()
        ]

    def unusual_predictions(self, predicted: Floats) -> dict[int, str]:
        """Return what is unusual about predictions (n, 3), by their place.

        Unusual is a prediction whose whole interval lies outside the range of the outputs in
        training, or which is below zero where no output was, or above zero: a straight line goes
        on where the data ends.
        """
        least, most = self._unusual
        outside = (predicted < least) | (predicted > most)
        if not np.count_nonzero(outside):  # nearly always; quicker than any()
            return {}
        output = self.schema.output
        return {
            row: "the prediction "
            + describe_outside(float(predicted[row, 0]), output.minimum, output.maximum)
            for row in np.flatnonzero(outside.any(axis=1)).tolist()
        }

    @cached_property
    def _unusual(self) -> tuple[Floats, Floats]:
        """The values below and above which prediction, lower and upper are unusual, (3,) each."""
        output, infinity = self.schema.output, math.inf
        least = [0.0 if output.minimum >= 0 else -infinity, -infinity, output.minimum]
        most = [0.0 if output.maximum <= 0 else infinity, output.maximum, infinity]
        return np.array(least), np.array(most)

    def explain(self, rows: Rows | Checked) -> "pd.DataFrame":
        """Explain n rows: a column baseline and one per input; each row sums to its prediction.

        The baseline is the mean output in training; an input's column is what its value adds.

        Raises:
            InvalidInput: with every fault of every row.
        """
        import pandas as pd

        checked = self.check(rows)
        return pd.DataFrame(self.reasons(checked).columns(), index=checked.index)

    def what_if(self, row: Mapping[str, Any], name: str, points: int = 81) -> "pd.DataFrame":
        """Move one input of a row across its training range, the others held.

        Args:
            row: the row that is varied; the range is widened to hold its value.
            name: the input that moves. A category takes each of its values.
            points: how many values a number takes, 2 or more.

        Returns:
            Columns: the input's name, prediction, lower, upper.
        """
        return what_if(self, row, name, points)

    @property
    def baseline(self) -> float:
        """The mean output in training."""
        return self._intercept

    @property
    def headline(self) -> Headline:
        """The cross-validated R²."""
        r2 = float(str(self.manifest.metrics["r2"]))
        meaning = "Share of the variance explained; 1 is perfect, 0 is no better than the mean."
        return Headline("cross-validated R²", f"{r2:.3f}", meaning)

    @cached_property
    def report(self) -> dict[str, Any]:
        """What training measured, for pictures.

        `held_out`: lists actual, predicted, lower and upper, each row predicted by a fit that did
        not see it (a sample of them where they are many); `coefficients`: a list of term,
        estimate, lower and upper, in the inputs' own units.
        """
        report: dict[str, Any] = json.loads(self._report)
        return report

    def _decimals(self) -> int:
        """Return how many decimals a prediction deserves: two digits of its half-width."""
        if self.interval.quantile == 0:
            return self.schema.output.decimals
        return max(0, 1 - math.floor(math.log10(self.interval.quantile)))

    def _standardise(self, checked: Checked) -> Floats:
        standardised = (self.schema.encode(checked) - self._mean) / self._scale
        # Row by row in memory, or products would round a row by the rows that come with it.
        return np.ascontiguousarray(standardised)
