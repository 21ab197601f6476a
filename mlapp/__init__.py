"""Trained models, checked, predicted with and explained.

    data -> training/* -> artifacts/<name>/<version>/ -> mlapp -> pages/*, service, `mlapp`

    errors      all errors, with their HTTP status
    disk        temporary files, atomic folders, errors of the disk
    settings    the environment variables
    tables      files of tables, read and written the same way for training and for serving
    schema      the inputs of a table model, and the one check of a row
    dates       dates and times as inputs
    manifest    the manifest of a published version
    model_card  a version described, to download
    calibration  how far probabilities are from the share of right answers
    families    the contract of models, and one file for each family
    store       versions on disk, and the models opened from them
    exported, exporting   a version as a folder that MLflow and MLServer load
    loaders     the functions that pages call to get a model
    records     the log of answers, feedback and drift
    answering   the one function that makes predictions
    scoring     batches, files, background jobs, clusters
    service     the web service: forms, REST, metrics
    dashboard   shared parts of the pages
    cli         the `mlapp` command
    signals     signals that a terminal sends to all processes

Serving never imports `training`, and never TensorFlow. import-linter checks the layers; its
contracts are in pyproject.toml.

    import mlapp

    mlapp.publish(model, X, y, name="houses")   # a fitted estimator; see `training.publish`
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlapp.manifest import Artifact

__all__ = ["publish"]


def publish(
    model: Any,
    X: Any,  # noqa: N803
    y: Any,
    name: str,
    *,
    held_out: tuple[Any, Any] | None = None,
    root: Path | None = None,
    **options: Any,
) -> "Artifact":
    """Publish a fitted estimator or pipeline of scikit-learn as the next version of a model.

    Args:
        model: a fitted regressor or classifier, also of XGBoost or LightGBM.
        X: the rows it was fitted on: a data frame, or an array (n, columns).
        y: their targets, (n,).
        name: the model's name.
        held_out: rows and targets that it was not fitted on, to measure it on; by default a clone
            is cross-validated.
        root: the artifact folder; by default MLAPP_ARTIFACTS, or artifacts.
        options: level, target, candidate and say; see `training.publish.publish`.

    Raises:
        InvalidData: it cannot be published; the message says why.
        ArtifactError: the name cannot be used, or the folder cannot be published to.
    """
    from training import publish as publishing  # serving does not need it

    return publishing.publish(model, X, y, name, held_out=held_out, root=root, **options)
