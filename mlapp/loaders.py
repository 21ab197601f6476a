"""The cached loaders that the pages call.

A model is opened once per process and version. Every call looks whether another version is to be
served, at the price of a few file look-ups, so that pages follow within one rerun.
"""

from typing import TYPE_CHECKING

from mlapp.artifacts import Task
from mlapp.errors import ArtifactError
from mlapp.models import Model
from mlapp.repository import Repository, repository
from mlapp.settings import read_settings

if TYPE_CHECKING:  # imported with the first model of the family
    from mlapp.regression import RegressionModel
    from mlapp.sentiment import SentimentModel


def model_names(task: Task | None = None) -> list[str]:
    """Return the names of the published models, of one task or of all."""
    return _repository().names(task)


def load_model(name: str) -> Model:
    """Return the served version of a model of any task.

    Raises:
        ArtifactError: it cannot be opened, and no version of it was opened before.
    """
    return _repository().get(name)


def load_regression(name: str = "regression") -> "RegressionModel":
    """Return the served version of a regression model.

    Raises:
        ArtifactError: it cannot be opened, or is no regression.
    """
    from mlapp.regression import RegressionModel

    model = load_model(name)
    if not isinstance(model, RegressionModel):
        raise ArtifactError(f"{name!r} is a {model.manifest.task} model, not a regression")
    return model


def load_sentiment(name: str = "sentiment") -> "SentimentModel":
    """Return the served version of a text classifier.

    Raises:
        ArtifactError: it cannot be opened, or is no text classifier.
    """
    from mlapp.sentiment import SentimentModel

    model = load_model(name)
    if not isinstance(model, SentimentModel):
        raise ArtifactError(f"{name!r} is a {model.manifest.task} model, not a text classifier")
    return model


def refused(name: str) -> ArtifactError | None:
    """Return why the version that should be served is not, as the last load found."""
    return _repository().refused(name)


def _repository() -> Repository:
    return repository(read_settings().artifacts.resolve())
