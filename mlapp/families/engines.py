"""The engines that compute the numbers of a table model, one for each kind of file.

    model.onnx     compiled, in double precision, run by onnxruntime: nearly every model
    model.skops    a scikit-learn estimator that cannot be compiled exactly
    model.joblib   the linear regressions of earlier versions, read without scikit-learn

No engine runs code from the file. ONNX is a graph of standard operators. A skops file is refused
unless every type in it is a class of scikit-learn, numpy or scipy. From a pickle only the numbers
are read; its classes are never imported.

An engine takes checked rows, as one of

    values   `Schema.expand` (n, columns): numbers, parts of dates, positions of categories, NaN
             where missing
    terms    `Schema.encode` of it (n, terms): categories as indicators, missing values filled in
    frame    a data frame like the one that the estimator was fitted on; for skops files only

and returns columns by name: `prediction` (n,) or `probabilities` (n, labels), and with a prediction
what its interval needs: `scale` (n,), or `lower` and `upper` (n,). A row that a model cannot answer
has NaN or infinity.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as library_version
from pickle import UnpicklingError
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from joblib.numpy_pickle import NumpyUnpickler

from mlapp.errors import ArtifactError
from mlapp.manifest import Artifact, command_of
from mlapp.schema import Category, Checked, Floats, Schema

if TYPE_CHECKING:  # takes longer to import than a row takes to predict
    import pandas as pd

ONNX, SKOPS, JOBLIB = "model.onnx", "model.skops", "model.joblib"
INTERVAL, FRAME = "interval.npz", "frame.json"
ADDITIVE = "additive"  # a key of an ONNX file's metadata: whether the model is additive
PRECISE = "precise"  # another: whether small probabilities are, of either of two labels
SKLEARN = "scikit-learn"

# What estimators raise at values that they do not know; others are faults of the software.
REFUSALS = (ArithmeticError, LookupError, ValueError)

Columns = Mapping[str, Floats]

# The only names in the pickle of a pipeline that are allowed besides scikit-learn's classes.
_NUMPY = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "scalar"),
    ("joblib.numpy_pickle", "NumpyArrayWrapper"),
}


class Engine(Protocol):
    """Computes a table model's numbers."""

    @property
    def platform(self) -> str:
        """The platform, in the terms of the Open Inference Protocol."""

    @property
    def additive(self) -> bool:
        """Whether the prediction, or the logit, is a sum of one function of each input."""

    @property
    def precise(self) -> bool:
        """Whether the smaller of two probabilities is not merely 1 less the larger, rounded."""

    @property
    def tolerance(self) -> float:
        """The absolute and relative tolerance of a replayed number."""

    def run(self, checked: Checked) -> Columns:
        """Return the columns that the module's docstring lists, for n checked rows."""


def open_engine(artifact: Artifact) -> Engine:
    """Return the engine of an opened version.

    Raises:
        ArtifactError: it has no such file, the file cannot be read, or a library is missing.
    """
    schema, files = artifact.manifest.input_schema, artifact.files
    assert schema is not None  # families ask for it first
    try:
        if ONNX in files:
            return OnnxEngine(files[ONNX], schema)
        if SKOPS in files:
            _require_same_sklearn(artifact, SKOPS)
            return SkopsEngine(files[SKOPS], json.loads(files[FRAME]))
        if JOBLIB in files:
            _require_same_sklearn(artifact, JOBLIB)
            return LinearEngine(files[JOBLIB], Interval.load(files[INTERVAL]), schema)
    except ArtifactError:
        raise
    except Exception as error:  # the libraries' exceptions share no base
        raise ArtifactError(
            f"{artifact.path} cannot be loaded: {error}", command_of(artifact.manifest)
        ) from error
    raise ArtifactError(
        f"{artifact.path} has none of {ONNX}, {SKOPS} and {JOBLIB}", command_of(artifact.manifest)
    )


def _require_same_sklearn(artifact: Artifact, file: str) -> None:
    saved = artifact.manifest.libraries.get(SKLEARN, "an unknown version")
    installed = library_version(SKLEARN)
    if saved.split(".")[:2] == installed.split(".")[:2]:
        return
    command = command_of(artifact.manifest)
    again = f", or train again: {command}" if command else ""
    raise ArtifactError(
        f"{artifact.path / file} was saved by scikit-learn {saved}, and {installed} is installed,"
        " which may read it wrongly",
        f'pip install "scikit-learn=={saved}"{again}',
    )


# --- compiled --------------------------------------------------------------------------------


class OnnxEngine:
    """A graph of standard operators, whose one input is called `values` or `terms`."""

    platform = "onnx"
    tolerance = 1e-9

    def __init__(self, content: bytes, schema: Schema) -> None:
        import onnxruntime  # the linear regressions of earlier versions need none

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        [given] = self._session.get_inputs()
        if given.name not in ("values", "terms"):
            raise ArtifactError(f"its graph takes {given.name!r}, expected 'values' or 'terms'")
        self.takes = given.name
        width = len(schema.expanded if self.takes == "values" else schema.terms)
        if given.type != "tensor(double)" or given.shape[1:] != [width]:
            raise ArtifactError(
                f"its graph takes {given.type} {given.shape}, expected {width} columns of double"
            )
        self._schema = schema
        self._names = [each.name for each in self._session.get_outputs()]
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.additive = metadata.get(ADDITIVE) == "true"
        self.precise = metadata.get(PRECISE) == "true"

    def run(self, checked: Checked) -> Columns:
        """Run the graph; a row's numbers do not depend on the other rows."""
        rows = (self._schema.expand if self.takes == "values" else self._schema.encode)(checked)
        found = self._session.run(None, {self.takes: np.ascontiguousarray(rows)})
        return {
            name: column if name == "probabilities" else column[:, 0]
            for name, column in zip(self._names, found, strict=True)
        }


# --- scikit-learn's own ----------------------------------------------------------------------


def untrusted_types(content: bytes) -> list[str]:
    """Return the types in a skops file that are neither skops's trusted ones nor scikit-learn's."""
    return [name for name in _skops().get_untrusted_types(data=content) if not _is_of_sklearn(name)]


def _is_of_sklearn(name: str) -> bool:
    """Return whether a name is that of a class of scikit-learn; functions are not allowed."""
    if name == "numpy.dtype":
        return True
    if not name.startswith("sklearn."):
        return False
    try:
        return isinstance(resolve_name(name), type)
    except (AttributeError, ImportError, ValueError):
        return False


def _skops() -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise ArtifactError(
            "This model is served by scikit-learn itself, which needs skops",
            'pip install "mlapp[publish]"',
        ) from error
    return skops.io


class SkopsEngine:
    """Estimators of scikit-learn, which take a data frame; slower than the other engines."""

    platform = "sklearn"
    additive = precise = False
    tolerance = 1e-6  # sums of floats differ between processors

    def __init__(self, content: bytes, layout: "Layout | Mapping[str, Any]") -> None:
        if found := untrusted_types(content):
            raise ArtifactError(f"{SKOPS} has types that are not scikit-learn's: {found}")
        known = _skops().get_untrusted_types(data=content)
        self._models: dict[str, Any] = _skops().loads(content, trusted=known)
        self._layout = layout if isinstance(layout, Layout) else Layout.from_json(layout)

    def run(self, checked: Checked) -> Columns:
        """Call each estimator; a row that one of them refuses has NaN."""
        if not len(checked):  # which estimators refuse
            return self._without_answer(0)
        try:
            return self._ask(checked)
        except REFUSALS:
            if len(checked) == 1:
                return self._without_answer(1)
        half = len(checked) // 2
        sides = checked.matrix[:half], checked.matrix[half:]
        parts = [self.run(Checked(checked.schema, each)) for each in sides]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._models}

    def say_why(self, checked: Checked) -> str | None:
        """Return the message with which an estimator refuses the one row of a batch."""
        try:
            self._ask(checked)
        except REFUSALS as error:
            return str(error) or type(error).__name__
        return None

    def _ask(self, checked: Checked) -> Columns:
        rows = self._layout.restore(checked)
        with np.errstate(all="ignore"):  # what is not finite is reported as no answer
            return {name: ask(model, name, rows) for name, model in self._models.items()}

    def _without_answer(self, rows: int) -> Columns:
        return {
            name: np.full((rows, len(model.classes_)) if name == "probabilities" else rows, np.nan)
            for name, model in self._models.items()
        }


def ask(model: Any, name: str, rows: Any) -> Floats:
    """Return an estimator's `probabilities` (n, labels) or `prediction` (n,) for n rows."""
    if name == "probabilities":
        return np.asarray(model.predict_proba(rows), dtype=np.float64)
    return np.asarray(model.predict(rows), dtype=np.float64).reshape(len(rows))


@dataclass(frozen=True)
class Layout:
    """The layout of the table that an estimator was fitted on.

    Attributes:
        kinds: of each column, by the input's name: `float`, `int`, `bool`, `text`, or `category`
            for a categorical column of pandas. The input of a column of numbers is a category if
            the numbers are codes.
        named: whether the estimator takes a data frame; otherwise it takes an array.
    """

    kinds: Mapping[str, str]
    named: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the layout for JSON."""
        return {"kinds": dict(self.kinds), "named": self.named}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Layout":
        """Read what `to_json` returned."""
        return cls(content["kinds"], content["named"])

    def restore(self, checked: Checked) -> "pd.DataFrame | npt.NDArray[Any]":
        """Return n checked rows as a data frame, or as an array if columns have no names."""
        import pandas as pd

        columns = {
            spec.name: self._restore(spec, values)
            for spec, values in zip(checked.schema.inputs, checked.matrix.T, strict=True)
        }
        frame = pd.DataFrame(columns, index=pd.RangeIndex(len(checked)))
        return frame if self.named else frame.to_numpy()

    def _restore(self, spec: Any, values: Floats) -> Any:
        import pandas as pd

        kind, missing = self.kinds[spec.name], np.isnan(values)
        if kind in ("float", "int"):
            if isinstance(spec, Category):
                numbers = np.array([*map(float, spec.categories), np.nan])
                values = numbers[np.where(missing, -1, values).astype(np.int64)]
            whole = kind == "int" and not missing.any() and (values == np.floor(values)).all()
            return values.astype(np.int64) if whole else values.copy()
        codes = np.where(missing, -1, values).astype(np.int64)
        if kind == "category":
            return pd.Categorical.from_codes(codes, pd.Index(spec.categories))
        known = (
            [_TRUE_FALSE[each] for each in spec.categories]
            if kind == "bool"
            else (list(spec.categories))
        )
        found = np.array([*known, np.nan], dtype=object)[codes]
        return found.astype(bool) if kind == "bool" and not missing.any() else found


_TRUE_FALSE = {"True": True, "False": False}


# --- the linear regressions of earlier versions ----------------------------------------------


class _Record:
    """Replaces any class of scikit-learn, with its attributes."""


class _Reader(NumpyUnpickler):  # type: ignore[misc]
    """Reads a fitted pipeline as plain records: serving needs its numbers, not scikit-learn."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the class of that name.

        Raises:
            UnpicklingError: the class is not part of a linear regression.
        """
        if module.split(".")[0] == "sklearn":
            return _Record
        if (module, name) not in _NUMPY:
            raise UnpicklingError(f"{module}.{name} is not part of a linear regression")
        return super().find_class(module, name)


@dataclass(frozen=True)
class Interval:
    """The prediction interval: its level, q, the number of training rows, and (Z'Z)^-1 (k, k).

    The interval is prediction +- q * sqrt(1 + h(z)), with h(z) = 1/n + z' (Z'Z)^-1 z the leverage
    of a new row, so that it widens away from the training data as the least-squares interval does.
    q is not taken from the t distribution but is the conformal quantile of the leave-one-out
    residuals divided by the same factor (the jackknife of Lei et al., "Distribution-free predictive
    inference for regression", 2018, with studentized residuals as in Vovk, Gammerman and Shafer,
    "Algorithmic learning in a random world", 2005): no normal distribution is assumed.
    """

    level: float
    quantile: float
    rows: int
    inverse: Floats

    def leverage(self, standardised: Floats) -> Floats:
        """Return h(z) for each of n standardised rows (n, k)."""
        # One small product per row: a large one would round a row depending on the other rows.
        weighted = (standardised[:, None, :] @ self.inverse)[:, 0, :]
        spread: Floats = np.vecdot(weighted, standardised)
        return 1 / self.rows + spread

    def scale(self, standardised: Floats) -> Floats:
        """Return half the interval's width over q, for each of n standardised rows (n, k)."""
        scale: Floats = np.sqrt(1 + self.leverage(standardised))
        return scale

    def half_width(self, standardised: Floats) -> Floats:
        """Return half the interval's width for each of n standardised rows (n, k)."""
        half: Floats = self.quantile * self.scale(standardised)
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


class LinearEngine:
    """A least-squares fit on standardised terms z (n, k): intercept + z @ coefficients.

    The intercept is the mean of the training outputs.
    """

    platform = "sklearn"
    additive = True
    precise = False  # it gives none
    tolerance = 1e-9

    def __init__(self, content: bytes, interval: Interval, schema: Schema) -> None:
        self.interval, self._schema = interval, schema
        try:
            pipeline = _Reader(JOBLIB, io.BytesIO(content), True).load()
            steps = {name: vars(step) for name, step in pipeline.steps}
            scale, regress = steps["scale"], steps["regress"]
            self._mean, self._scale = scale["mean_"], scale["scale_"]
            self._coefficients = regress["coef_"]
            self.intercept = float(regress["intercept_"])
        except (UnpicklingError, AttributeError, KeyError) as error:
            raise ArtifactError(f"{JOBLIB} is not a pipeline of mlapp: {error}") from error

    def run(self, checked: Checked) -> Columns:
        """Predict; a row's numbers do not depend on the other rows, to the last bit."""
        standardised = self._standardise(checked)
        return {
            "prediction": self.intercept + np.vecdot(standardised, self._coefficients),
            "scale": self.interval.scale(standardised),
        }

    def effects(self, checked: Checked) -> dict[str, Floats]:
        """Return what each input adds to the intercept, (n,) each, by its name.

        These are the exact Shapley values of a linear model with independent inputs (Strumbelj and
        Kononenko, "Explaining prediction models and individual predictions with feature
        contributions", 2014).
        """
        parts = self._schema.split(self._standardise(checked))
        weights = self._schema.split(self._coefficients[None])
        return {
            name: np.vecdot(part, weight)
            for (name, part), (_, [weight]) in zip(parts, weights, strict=True)
        }

    def _standardise(self, checked: Checked) -> Floats:
        standardised = (self._schema.encode(checked) - self._mean) / self._scale
        # Row by row in memory, or products would round a row by the rows that come with it.
        return np.ascontiguousarray(standardised)
