"""Any published model, by its task.

To add a model family: add its task to `manifest_.Task`, give its class `manifest`, `size` and
`replay` as `RegressionModel` has, and add it to `open_model` and `headline`.
"""

from typing import TYPE_CHECKING, NamedTuple, TypeAlias, Union

from mlapp.errors import ArtifactError
from mlapp.manifest import Artifact, Manifest

if TYPE_CHECKING:  # what a model family needs is imported with its first model
    from mlapp.families.regression import RegressionModel
    from mlapp.families.sentiment import SentimentModel

Model: TypeAlias = Union["RegressionModel", "SentimentModel"]


def from_artifact(artifact: Artifact) -> Model:
    """Load the model of an opened artifact.

    Raises:
        ArtifactError: it cannot be loaded, or nothing here serves its task.
    """
    if artifact.manifest.task == "regression":
        from mlapp.families.regression import RegressionModel

        return RegressionModel(artifact)
    if artifact.manifest.task == "text-classification":
        from mlapp.families.sentiment import SentimentModel

        return SentimentModel(artifact)
    raise ArtifactError(f"Nothing here serves the task {artifact.manifest.task!r}", "upgrade mlapp")


def describe_use(manifest: Manifest, emphasis: str = "") -> str:
    """Return how many rows or texts a model was trained on, and of how many, in words.

    Args:
        manifest: the model's.
        emphasis: what is put around the number, as Markdown.
    """
    there = manifest.data.rows
    key, unit = ("texts_used", "texts") if manifest.labels else ("rows_used", "rows")
    used = manifest.training.get(key)
    used = used if isinstance(used, int) else there
    return f"{emphasis}{used:,}{emphasis} {f'of {there:,} ' if used != there else ''}{unit}"


class Headline(NamedTuple):
    """The metric that tells most about a model: its name, its value as text, what it means."""

    name: str
    value: str
    meaning: str


def headline(manifest: Manifest) -> Headline:
    """Return a model's headline metric, which is of data that it was not trained on."""
    if manifest.task == "text-classification":
        accuracy = float(str(manifest.metrics["accuracy"]))
        meaning = "Share of texts that the training never saw which get their own label."
        return Headline("held-out accuracy", f"{accuracy:.1%}", meaning)
    r2 = float(str(manifest.metrics["r2"]))
    meaning = "Share of the variance explained; 1 is perfect, 0 is no better than the mean."
    return Headline("cross-validated R²", f"{r2:.3f}", meaning)
