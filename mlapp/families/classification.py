"""A published classifier of rows: takes a row, gives labels with probabilities.

Reasons explain a logit. With two labels it is log(p / (1 - p)) of the second. With more it is that
of the predicted label: log(p) less the mean of all labels' log(p), which for a softmax is the
label's score less the mean score. Probabilities of 0 and 1, which forests may give, are clipped to
1e-7 and 1 - 1e-7.
"""

from typing import TYPE_CHECKING

import numpy as np

from mlapp.errors import ArtifactError
from mlapp.families.contract import Headline, LabelOutput, Labels, RowReasons
from mlapp.families.engines import Columns
from mlapp.families.table import TableModel
from mlapp.manifest import Artifact
from mlapp.schema import Checked, Floats, Rows

if TYPE_CHECKING:  # takes longer to import than a row takes to classify
    import pandas as pd

NEAREST = 1e-7  # how near to 0 and 1 probabilities are explained
SMALLEST = 1e-300  # the same, of linear models
ROUNDED = 1e-10  # the same, of versions of two labels that give 1 less a probability, rounded


class ClassificationModel(TableModel):
    """A classifier: takes a row, gives labels with probabilities.

    Attributes:
        labels: the labels that it distinguishes.
        gives: what it gives.
    """

    gives: LabelOutput

    def __init__(self, artifact: Artifact) -> None:
        """Load the model from an opened artifact.

        Raises:
            ArtifactError: it is not a classifier of rows, or its files cannot be read here.
        """
        manifest = artifact.manifest
        if manifest.task != "classification" or manifest.labels is None:
            raise ArtifactError(
                f"{artifact.path} is a {manifest.task} model, not a classifier of rows"
            )
        super().__init__(artifact)
        self.labels = manifest.labels
        self.gives = LabelOutput(self.labels, str(manifest.training.get("target", "the label")))

    @property
    def headline(self) -> Headline:
        """The balanced accuracy on rows that the model had not seen, or on its training rows."""
        metrics = self.manifest.metrics
        meaning = "Mean over the labels of the share of their rows that are predicted correctly."
        if "balanced_accuracy" in metrics:
            measured = self.manifest.training.get("measured", "cross-validated")
            value = f"{float(str(metrics['balanced_accuracy'])):.1%}"
            return Headline(f"{measured} balanced accuracy", value, meaning)
        value = f"{float(str(metrics['balanced_accuracy_in_sample'])):.1%}"
        return Headline("balanced accuracy on its own training rows", value, meaning)

    def answer(self, batch: Checked) -> Labels:
        """Classify checked rows.

        Raises:
            InvalidInput: as `probabilities`.
        """
        return Labels(self.gives, self.probabilities(batch), notices=batch.notices)

    def probabilities(self, checked: Checked) -> Floats:
        """Return the probability of each label for checked rows, (n, labels).

        Raises:
            InvalidInput: with a fault for each row that gets no finite answer.
        """
        return self.require_finite(checked, self.engine.run(checked)["probabilities"])

    def predict(self, rows: Rows | Checked) -> "pd.DataFrame":
        """Classify n rows: columns label, probability and one per label; same index.

        `gives.columns` has the names of the labels' columns.

        Raises:
            InvalidInput: with every fault of every row.
        """
        import pandas as pd

        checked = self.check(rows)
        columns = ["label", "probability", *self.gives.columns.values()]
        return pd.DataFrame(self.answer(checked).records(), checked.index, columns)

    def explained(self, columns: Columns) -> Floats:
        """Return the logits that reasons explain: (n, 1) for two labels, otherwise (n, labels)."""
        # The logits of a linear model are sums, which a nearer end would cut off.
        nearest = NEAREST
        if self.engine.additive:
            precise = self.engine.precise or len(self.labels) > 2
            nearest = SMALLEST if precise else ROUNDED
        likely = np.clip(columns["probabilities"], nearest, 1 - nearest)
        logs = np.log(likely)
        if len(self.labels) == 2:
            return np.ascontiguousarray(logs[:, 1:] - logs[:, :1])
        centred: Floats = logs - logs.mean(axis=1, keepdims=True)
        return centred

    def reasons(self, batch: Checked) -> RowReasons:
        """Return what each input adds to the mean logit of the label.

        Raises:
            InvalidInput: with a fault for each row whose answer or reasons are not finite.
        """
        found = self.shapley_values(batch)
        given = self.probabilities(batch).argmax(axis=1)
        if len(self.labels) == 2:
            labels = [self.labels[1]] * len(batch)
            return self.select_reasons(batch, found, np.zeros_like(given), labels)
        labels = [self.labels[place] for place in given.tolist()]
        return self.select_reasons(batch, found, given, labels)
