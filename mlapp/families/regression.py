"""A published regression: takes a row, gives a number, usually with an interval.

The file output.json (`Answer`) says how an answer is computed from the engine's columns:

    prediction                              clipped to minimum and maximum
    prediction +- margin                    if the engine gives only the prediction
    prediction +- margin * scale            if it gives a scale: normalised conformal scores
                                            (Lei et al., "Distribution-free predictive inference for
                                            regression", 2018, section 5.2)
    lower - margin to upper + margin        if it gives quantiles: conformalized quantile
                                            regression (Romano, Patterson and Candes, 2019)

The margin is a conformal quantile of rows that the model had not seen. Without a level there is no
interval. The linear regressions of earlier versions have an interval.npz instead.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mlapp.errors import ArtifactError
from mlapp.families.contract import Headline, NumberOutput, Numbers, RowReasons
from mlapp.families.engines import INTERVAL as INTERVAL
from mlapp.families.engines import JOBLIB as MODEL
from mlapp.families.engines import Columns, LinearEngine
from mlapp.families.engines import Interval as Interval
from mlapp.families.table import REPORT as REPORT
from mlapp.families.table import TableModel
from mlapp.manifest import Artifact
from mlapp.schema import Checked, Floats, Notice, Output, Rows, describe_outside, find_outside

if TYPE_CHECKING:  # takes longer to import than a row takes to predict
    import pandas as pd

__all__ = [
    "ANSWER",
    "COLUMNS",
    "INTERVAL",
    "MODEL",
    "REPORT",
    "Answer",
    "Interval",
    "RegressionModel",
]

COLUMNS = ("prediction", "lower", "upper")
ANSWER = "output.json"


@dataclass(frozen=True)
class Answer:
    """How a prediction and its interval are computed from the engine's columns.

    Attributes:
        level: the share of new rows that the interval is meant to hold; None for no interval.
        margin: the conformal constant, in units of the scale if there is one.
        minimum, maximum: the bounds of predictions and intervals; None if there are none.
    """

    level: float | None = None
    margin: float = 0.0
    minimum: float | None = None
    maximum: float | None = None

    def dump(self) -> bytes:
        """Return this as the bytes of a JSON file."""
        return json.dumps(asdict(self), allow_nan=False).encode()

    @classmethod
    def load(cls, content: bytes) -> "Answer":
        """Read what `dump` returned."""
        return cls(**json.loads(content))

    @property
    def width(self) -> int:
        """How many numbers an answer has: 3 with an interval, otherwise 1."""
        return 1 if self.level is None else 3

    def make(self, columns: Columns) -> Floats:
        """Return prediction, lower and upper (n, 3), or prediction alone (n, 1)."""
        prediction = columns["prediction"]
        answer = np.empty((self.width, len(prediction)))
        answer[:] = prediction
        if self.level is not None:
            if "lower" in columns:
                # Quantiles may cross the prediction, but the interval must contain it.
                answer[1] = np.minimum(columns["lower"] - self.margin, prediction)
                answer[2] = np.maximum(columns["upper"] + self.margin, prediction)
            else:
                half = self.margin * columns["scale"] if "scale" in columns else self.margin
                answer[1] -= half
                answer[2] += half
        # One call each, which takes a single row a third as long as np.clip.
        if self.minimum is not None:
            np.maximum(answer, self.minimum, out=answer)
        if self.maximum is not None:
            np.minimum(answer, self.maximum, out=answer)
        return answer.T


class RegressionModel(TableModel):
    """A regression: takes a row, gives a number, with an interval or without.

    Attributes:
        gives: what it gives.
    """

    gives: NumberOutput

    def __init__(self, artifact: Artifact) -> None:
        """Load the model from an opened artifact.

        Raises:
            ArtifactError: it is not a regression, or its files cannot be read here.
        """
        manifest = artifact.manifest
        if manifest.task != "regression":
            raise ArtifactError(f"{artifact.path} is a {manifest.task} model, not a regression")
        super().__init__(artifact)
        if self.schema.output is None:
            raise ArtifactError(f"{artifact.path} does not say what it predicts")
        self.output: Output = self.schema.output
        if isinstance(self.engine, LinearEngine):
            self.interval = self.engine.interval
            made = Answer.load(artifact.files[ANSWER]) if ANSWER in artifact.files else Answer()
            level, margin = self.interval.level, self.interval.quantile
            self._answer = replace(made, level=level, margin=margin)
        else:
            self._answer = Answer.load(artifact.files[ANSWER])
        self.gives = NumberOutput(self.output.name, self._decimals(), self._answer.level)

    def answer(self, batch: Checked) -> Numbers:
        """Predict checked rows, each with its interval if the model has intervals.

        Raises:
            InvalidInput: as `predict_array`.
        """
        predicted = self.predict_array(batch)
        return Numbers(self.gives, predicted, self.notices(batch, predicted))

    def predict_array(self, checked: Checked) -> Floats:
        """Predict checked rows as (n, 3): prediction, lower, upper; (n, 1) without intervals.

        A row's answer does not depend on the other rows, to the last bit.

        Raises:
            InvalidInput: with a fault for each row that gets no finite answer.
        """
        return self.require_finite(checked, self._answer.make(self.engine.run(checked)))

    def predict(self, rows: Rows | Checked) -> "pd.DataFrame":
        """Predict n rows: columns prediction, and lower and upper if the model has intervals.

        All are in the output's unit; the index is that of the rows.

        Raises:
            InvalidInput: with every fault of every row.
        """
        import pandas as pd

        checked = self.check(rows)
        columns = list(COLUMNS[: self._answer.width])
        return pd.DataFrame(self.predict_array(checked), checked.index, columns)

    def reasons(self, batch: Checked) -> RowReasons:
        """Say what each input adds to the mean prediction of the background.

        Where a bound holds the prediction of an additive model, which is no sum then, the effects
        are shortened in proportion, so that they sum to the bound; a mean beyond it is the bound.

        Raises:
            InvalidInput: with a fault for each row whose reasons are not finite.
        """
        found = super().reasons(batch)
        if not self.engine.additive or not self._is_bounded:
            return found
        free, mean = found.totals, found.baseline
        held, baseline = (
            np.clip(each, self._answer.minimum, self._answer.maximum) for each in (free, mean)
        )
        if np.array_equal(held, free) and np.array_equal(baseline, mean):
            return found
        share = np.divide(held - baseline, free - mean, out=np.ones(len(free)), where=free != mean)
        effects = {name: each * share for name, each in found.effects.items()}
        return replace(found, baseline=baseline, effects=effects)

    @property
    def _is_bounded(self) -> bool:
        return self._answer.minimum is not None or self._answer.maximum is not None

    def explained(self, columns: Columns) -> Floats:
        """Return what reasons explain, (n, 1): the prediction; of an additive model unbounded."""
        if self.engine.additive:
            return Answer().make(columns)
        return Answer(None, 0.0, self._answer.minimum, self._answer.maximum).make(columns)

    def notices(self, checked: Checked, predicted: Floats) -> list[Notice]:
        """Return what is unusual about checked rows, and about their predictions.

        Args:
            checked: n rows.
            predicted: what `predict_array` returned for them.
        """
        return checked.notices + [
            Notice(
                self.output.name,
                detail,
                row if checked.row_labels is None else checked.row_labels[row],
            )
            for row, detail in self.unusual_predictions(predicted).items()
        ]

    def unusual_predictions(self, predicted: Floats) -> dict[int, str]:
        """Return what is unusual about predictions of `predict_array`, by their place.

        A prediction is unusual if its whole interval is outside the range of the outputs in
        training, or if it is negative and no output was (or positive and no output was): a linear
        model extrapolates without limit.
        """
        least, most = self._unusual
        output = self.output
        return {
            row: "the prediction "
            + describe_outside(
                float(predicted[row, 0]), output.minimum, output.maximum, self.gives.format
            )
            for row, _ in find_outside(predicted, least, most)
        }

    @cached_property
    def _unusual(self) -> tuple[Floats, Floats]:
        """The values below and above which those of an answer are unusual, (3,) or (1,) each."""
        output, infinity = self.output, math.inf
        least = [0.0 if output.minimum >= 0 else -infinity, -infinity, output.minimum]
        most = [0.0 if output.maximum <= 0 else infinity, output.maximum, infinity]
        if self._answer.width == 1:
            return np.array([output.minimum]), np.array([output.maximum])
        return np.array(least), np.array(most)

    @property
    def headline(self) -> Headline:
        """The R² on rows that the model had not seen; if there are none, on its training rows."""
        metrics = self.manifest.metrics
        meaning = "Share of the variance explained; 1 is perfect, 0 is no better than the mean."
        if "r2" in metrics:
            measured = self.manifest.training.get("measured", "cross-validated")
            return Headline(f"{measured} R²", f"{float(str(metrics['r2'])):.3f}", meaning)
        value = f"{float(str(metrics['r2_in_sample'])):.3f}"
        return Headline("R² on its own training rows", value, meaning)

    def _decimals(self) -> int:
        """Return how many decimals of a prediction are shown: two digits of its half-width."""
        margin = self._answer.margin
        if self._answer.level is None or margin <= 0 or not isinstance(self.engine, LinearEngine):
            return self.output.decimals
        return max(0, 1 - math.floor(math.log10(margin)))
