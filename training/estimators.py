"""Fitted estimators of others: read from files, and looked over before they are published."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from mlapp.errors import InvalidData, quote
from mlapp.families.engines import untrusted_types
from mlapp.schema import drop_ending, parse_text
from training.foreign import OnnxEstimator
from training.tables import Say

SUFFIXES = (".joblib", ".pkl", ".pickle", ".skops", ".onnx")


def read_estimator(path: Path, target: Sequence[Any], say: Say) -> Any:
    """Read a fitted estimator from a file.

    Args:
        path: a file whose suffix is one of `SUFFIXES`.
        target: what it predicts, of some rows; of an ONNX classifier they say the labels.
        say: called with what the reader should know.

    Raises:
        InvalidData: it cannot be read; the message says why.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidData(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix == ".onnx":
        return OnnxEstimator(content, target)
    if path.suffix == ".skops":
        return _read_skops(path, content)
    if path.suffix in SUFFIXES:
        say(f"Warning: reading {path} runs whatever code it holds; publish only files you trust")
        return _unpickle(path)
    raise InvalidData(f"{path} has the suffix {path.suffix!r}, expected one of {quote(SUFFIXES)}")


def _read_skops(path: Path, content: bytes) -> Any:
    import skops.io

    try:
        if not (foreign := untrusted_types(content)):
            known = skops.io.get_untrusted_types(data=content)
            return skops.io.loads(content, trusted=known)
    except Exception as error:  # skops's exceptions share no base
        reason = error if content else "it is empty"
        raise InvalidData(f"{path} is not a skops file: {reason}") from error
    raise InvalidData(f"{path} holds types that are not scikit-learn's: {quote(foreign)}")


def _unpickle(path: Path) -> Any:
    import joblib

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another version of scikit-learn; it is measured
            return joblib.load(path)
    except ModuleNotFoundError as error:
        raise InvalidData(
            f"{path} needs the module {error.name!r}, which is not installed here"
        ) from error
    except AttributeError as error:
        raise InvalidData(
            f"{path} needs a class or function that is not here: {error}. Move it from a"
            " notebook or script to a module that can be imported"
        ) from error
    except Exception as error:  # a pickle may raise anything
        raise InvalidData(
            f"{path} cannot be read as an estimator: {type(error).__name__}: {error}"
        ) from error


def check_estimator(estimator: Any) -> bool:
    """Return whether an estimator is a classifier; otherwise it is a regressor.

    Raises:
        InvalidData: it is neither, not fitted, or gives several numbers.
    """
    kind = type(estimator).__name__
    if isinstance(estimator, OnnxEstimator):
        return estimator.labels is not None
    if isinstance(estimator, type):
        raise InvalidData(f"The model is the class {estimator.__name__}, expected a fitted object")
    if not hasattr(estimator, "fit"):
        raise InvalidData(f"The model is a {kind}, expected a fitted estimator of scikit-learn")
    classifies = is_classifier(estimator)
    if not classifies and not is_regressor(estimator):
        what = "a transformer" if hasattr(estimator, "transform") else "of another kind"
        raise InvalidData(f"{kind} is {what}, expected a regressor or a classifier")
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise InvalidData(f"{kind} is not fitted: call its fit before publishing") from error
    if classifies and not hasattr(estimator, "predict_proba"):
        raise InvalidData(
            f"{kind} gives no probabilities; fit it inside a CalibratedClassifierCV, or with an"
            " option such as probability=True or loss='log_loss'"
        )
    if classifies and isinstance(estimator.classes_, list):
        raise InvalidData(f"{kind} has several targets, expected one")
    return bool(classifies)


def names_of(estimator: Any) -> list[str] | None:
    """Return the names of the columns that an estimator was fitted on; None where it knows none."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        return [str(name) for name in names]
    # XGBoost and LightGBM give names to columns that have none.
    return None


def width_of(estimator: Any) -> int | None:
    """Return how many columns an estimator was fitted on, if it says so."""
    width = getattr(estimator, "n_features_in_", None)
    return None if width is None else int(width)


def choose_columns(estimator: Any, inputs: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that an estimator was fitted on, in its order.

    Raises:
        InvalidData: the data has not all of them, or of nameless columns another number.
    """
    names = names_of(estimator)
    if names is None:
        width = width_of(estimator)
        if width is not None and width != inputs.shape[1]:
            raise InvalidData(
                f"The model was fitted on {width} columns, and the data has {inputs.shape[1]}"
                f" beside the target: {quote(map(str, inputs))}"
            )
        return inputs
    if any(name not in inputs for name in names):
        # LightGBM keeps names with underscores for spaces, and takes the data's own.
        own = {str(name).replace(" ", "_"): name for name in inputs}
        if len(own) == inputs.shape[1] and all(name in own for name in names):
            return inputs[[own[name] for name in names]]
    if absent := [name for name in names if name not in inputs]:
        raise InvalidData(
            f"The model was fitted on columns that the data does not have: {quote(absent)}; it has"
            f" {quote(map(str, inputs))}"
        )
    return inputs[names]


def as_objects(labels: Any) -> list[Any]:
    """Return labels (n,) as Python has them; a day is the text 2031-05-17, a time as ISO 8601."""
    values = np.asarray(labels)
    if values.dtype.kind == "M":  # numpy turns nanoseconds into integers
        return [drop_ending(str(each)) for each in values.astype("datetime64[us]").tolist()]
    return list(values.tolist())


def label_texts(classes: npt.NDArray[Any]) -> tuple[str, ...]:
    """Return the labels of a classifier as texts: 1.0 and 1 are `1`, True is `True`.

    Raises:
        InvalidData: two of them are one as text.
    """
    found = tuple(parse_text(each) or str(each) for each in as_objects(classes))
    if len(set(found)) < len(found):
        raise InvalidData(f"The model's labels are not different as texts: {quote(found)}")
    return found
