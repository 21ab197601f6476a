"""The cached loaders that the pages call.

A model is opened once per process and version. Every call looks whether another version is to be
served, at the price of a few file look-ups, so that pages follow within one rerun.
"""

from typing import TYPE_CHECKING

from mlapp.errors import ArtifactError, ModelNotFound
from mlapp.families import Model
from mlapp.manifest import Task
from mlapp.settings import read_settings
from mlapp.store import artifacts
from mlapp.store.repository import Repository, repository

if TYPE_CHECKING:  # imported with the first model of the family
    from mlapp.families.regression import RegressionModel
    from mlapp.families.sentiment import SentimentModel


def model_names(task: Task | None = None) -> list[str]:
    """Return the names of the published models, of one task or of all."""
    return _repository().names(task)


def load_model(name: str) -> Model:
    """Return the served version of a model of any task.

    Raises:
        ModelNotFound: no such model or version is published.
        ArtifactError: it cannot be opened, and there is no older version that can.
    """
    return _repository().get(name)


def load_regression(name: str = "regression", version: int | None = None) -> "RegressionModel":
    """Return a regression model, by default the version that is served.

    Raises:
        ArtifactError: it cannot be opened, or is no regression.
    """
    from mlapp.families.regression import RegressionModel

    model = _load(name, "regression", "regression", version)
    if not isinstance(model, RegressionModel):
        raise ArtifactError(f"{name!r} is a {model.manifest.task} model, not a regression")
    return model


def load_sentiment(name: str = "sentiment", version: int | None = None) -> "SentimentModel":
    """Return a text classifier, by default the version that is served.

    Raises:
        ArtifactError: it cannot be opened, or is no text classifier.
    """
    from mlapp.families.sentiment import SentimentModel

    model = _load(name, "sentiment", "sentiment --data imdb --film-phrases", version)
    if not isinstance(model, SentimentModel):
        raise ArtifactError(f"{name!r} is a {model.manifest.task} model, not a text classifier")
    return model


def _load(name: str, usual: str, module: str, version: int | None) -> Model:
    """Return a model; where none is published, say which command trains one."""
    try:
        return _repository().get(name, version)
    except ModelNotFound as error:
        if artifacts.versions(_repository().root, name):
            raise
        command = f"python -m training.{module}" + ("" if name == usual else f" --name {name}")
        raise ModelNotFound(error.message, command) from error


def refused(name: str) -> ArtifactError | None:
    """Return why the version that should be served is not, as the last load found."""
    return _repository().refused(name)


def _repository() -> Repository:
    return repository(read_settings().artifacts.resolve())
