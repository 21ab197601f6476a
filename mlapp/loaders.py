"""The cached loaders that the pages call; the one module of the core that knows Streamlit.

A model is opened once per process and version. Every call looks whether another version is to be
served, at the price of a few file look-ups; a version that cannot be opened changes nothing for
those who have a model already.
"""

import logging
from dataclasses import dataclass

import streamlit as st

from mlapp import artifacts, models
from mlapp.artifacts import MANIFEST, Task
from mlapp.errors import ArtifactError
from mlapp.models import Model
from mlapp.regression import RegressionModel
from mlapp.sentiment import SentimentModel
from mlapp.settings import read_settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Held:
    """The model last opened under a name, and why a newer one was refused, if one was."""

    model: Model
    refused: ArtifactError | None = None


def model_names(task: Task | None = None) -> list[str]:
    """Return the names of the published models, of one task or of all.

    A model whose task cannot be read is listed under every task, so that its fault is shown.
    """
    root = read_settings().artifacts
    names = artifacts.names(root)
    return [name for name in names if not task or artifacts.task(root, name) in (task, None)]


def load_model(name: str) -> Model:
    """Return the served version of a model of any task, opened once per process.

    Raises:
        ArtifactError: it cannot be opened, and no version of it was opened before.
    """
    root = read_settings().artifacts
    key = f"{root.resolve()}/{name}"
    held = _models_held().get(key)
    try:
        version = artifacts.served_version(root, name)
        stamp = (root / name / str(version) / MANIFEST).stat().st_mtime_ns
        model = _open(key, name, version, stamp)
    except (ArtifactError, FileNotFoundError) as caught:
        error = caught if isinstance(caught, ArtifactError) else ArtifactError(str(caught))
        if held is None:
            raise error from caught
        if str(error) != str(held.refused):
            _log.warning("%s %s stays in use: %s", name, held.model.manifest.version, error)
        _models_held()[key] = _Held(held.model, error)
        return held.model
    _models_held()[key] = _Held(model)
    return model


def load_regression(name: str = "regression") -> RegressionModel:
    """Return the served version of a regression model, opened once per process.

    Raises:
        ArtifactError: it cannot be opened, or is no regression.
    """
    model = load_model(name)
    if not isinstance(model, RegressionModel):
        raise ArtifactError(f"{name!r} is a {model.manifest.task} model, not a regression")
    return model


def load_sentiment(name: str = "sentiment") -> SentimentModel:
    """Return the served version of a text classifier, opened once per process.

    Raises:
        ArtifactError: it cannot be opened, or is no text classifier.
    """
    model = load_model(name)
    if not isinstance(model, SentimentModel):
        raise ArtifactError(f"{name!r} is a {model.manifest.task} model, not a text classifier")
    return model


def refused(name: str) -> ArtifactError | None:
    """Return why the version that should be served is not, as the last load found."""
    held = _models_held().get(f"{read_settings().artifacts.resolve()}/{name}")
    return held.refused if held else None


@st.cache_resource(show_spinner=False)
def _models_held() -> dict[str, _Held]:
    return {}


@st.cache_resource(max_entries=16, show_spinner=False)
def _open(key: str, name: str, version: int, stamp: int) -> Model:  # noqa: ARG001 - cache key
    return models.open_model(read_settings().artifacts, name, version)
