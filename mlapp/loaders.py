"""The cached loaders that the pages call.

A model is opened once per process and version. Every call checks which version is served, at the
cost of a few file system calls, so that pages show a new version after one rerun.
"""

from typing import TYPE_CHECKING, cast

from mlapp.errors import ArtifactError, ModelNotFound
from mlapp.families.contract import Model
from mlapp.manifest import Kind
from mlapp.settings import read_settings
from mlapp.store import artifacts
from mlapp.store.repository import Repository, repository

if TYPE_CHECKING:  # imported with the first model of the family
    from mlapp.families.regression import RegressionModel
    from mlapp.families.sentiment import SentimentModel

# The names of the models when none is given.
REGRESSION, SENTIMENT, CLASSIFICATION = "regression", "sentiment", "classification"
_OUTPUTS = {"number": "a number", "labels": "labels"}
_KIND_NAMES = {
    Kind("row", "number"): "a regression",
    Kind("row", "labels"): "a classifier of rows",
    Kind("text", "labels"): "a text classifier",
}
USUAL = {"row": REGRESSION, "text": SENTIMENT}  # the default model, by what it takes


def model_names(takes: str | None = None, gives: str | None = None) -> list[str]:
    """Return the names of the served models, of some kind or all; see `Repository.names`."""
    return _repository().names(takes, gives)


def waiting_names() -> list[str]:
    """Return the names of the models that are not served, since all versions are candidates."""
    root = _repository().root
    return [name for name in artifacts.names(root) if not artifacts.is_served(root, name)]


def model_versions(name: str) -> list[int]:
    """Return the published versions of a model, oldest first; none for an unknown name."""
    return artifacts.versions(_repository().root, name)


def load_model(name: str, version: int | None = None) -> Model:
    """Return a model of any kind, by default the version that is served.

    Raises:
        ModelNotFound: no such model or version is published.
        ArtifactError: neither it nor an older version can be opened.
    """
    return _repository().get(name, version)


def load_regression(name: str = REGRESSION, version: int | None = None) -> "RegressionModel":
    """Return a model that takes a row and gives a number, by default the version that is served.

    Raises:
        ArtifactError: it cannot be opened, or is of another kind.
    """
    model = _load(name, Kind("row", "number"), REGRESSION, "regression", version)
    return cast("RegressionModel", model)


def load_classification(name: str = CLASSIFICATION, version: int | None = None) -> Model:
    """Return a model that takes a row and gives labels, by default the version that is served.

    Raises:
        ArtifactError: it cannot be opened, or is of another kind.
    """
    return _load(name, Kind("row", "labels"), CLASSIFICATION, "classification", version)


def load_sentiment(name: str = SENTIMENT, version: int | None = None) -> "SentimentModel":
    """Return a model that takes a text and gives labels, by default the version that is served.

    Raises:
        ArtifactError: it cannot be opened, or is of another kind.
    """
    command = "sentiment --data imdb --model network --film-phrases"
    model = _load(name, Kind("text", "labels"), SENTIMENT, command, version)
    return cast("SentimentModel", model)


def _load(name: str, kind: Kind, usual: str, module: str, version: int | None) -> Model:
    """Return a model of a kind; if there is none, the error names the command that trains it."""
    try:
        model = _repository().get(name, version)
    except ModelNotFound as error:
        if artifacts.versions(_repository().root, name):
            raise
        command = f"python -m training.{module}" + ("" if name == usual else f" --name {name}")
        raise ModelNotFound(error.message, command) from error
    found = model.manifest.kind
    if found != kind:
        raise ArtifactError(
            f"{name!r} takes a {found.takes} and gives {_OUTPUTS[found.gives]}:"
            f" it is not {_KIND_NAMES[kind]}"
        )
    return model


def refused(name: str) -> ArtifactError | None:
    """Return why the version that should be served cannot be opened, or None; of the last load."""
    return _repository().refused(name)


def _repository() -> Repository:
    return repository(read_settings().artifacts.resolve())
