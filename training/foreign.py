"""An ONNX model of another tool: as an estimator, and as a part of a graph of ours.

It takes one tensor (n, columns) of numbers, or one tensor (n, 1) for each column, of numbers or
texts. It gives numbers (n, 1) or (n,), or probabilities (n, labels).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from onnx import TensorProto, helper, load_model_from_string

from mlapp.errors import InvalidData
from mlapp.schema import Floats, parse_text
from mlapp.tables.numbers import is_missing

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
_TYPES: dict[str, tuple[int, Any]] = {
    "tensor(double)": (TensorProto.DOUBLE, np.float64),
    "tensor(float)": (TensorProto.FLOAT, np.float32),
    "tensor(int64)": (TensorProto.INT64, np.int64),
    "tensor(int32)": (TensorProto.INT32, np.int32),
    "tensor(string)": (TensorProto.STRING, object),
}


class OnnxEstimator:
    """An ONNX model with the methods of an estimator.

    Attributes:
        labels: what its probabilities are of, in order; None for a regressor.
        inputs: the name and the type of each input.
        output: the name of the output that is used.
        proto: the model.
    """

    def __init__(self, content: bytes, target: Sequence[Any]) -> None:
        """Read a model.

        Args:
            content: the file's bytes.
            target: what it predicts, of some rows. Where it gives several numbers for a row, they
                are the probabilities of the values that are here, in ascending order.

        Raises:
            InvalidData: it cannot be read, or takes or gives something else.
        """
        import onnxruntime

        try:
            self.proto = load_model_from_string(content)
            self._refuse_what_is_outside()
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except InvalidData:
            raise
        except Exception as error:  # the libraries' exceptions share no base
            raise InvalidData(f"The model cannot be read as ONNX: {error}") from error
        given = self._session.get_inputs()
        if unknown := [f"{each.name}: {each.type}" for each in given if each.type not in _TYPES]:
            raise InvalidData(f"The model takes {unknown}, expected tensors of numbers or texts")
        self.inputs = [(each.name, each.type) for each in given]
        width = given[0].shape[1] if len(given[0].shape) == 2 else None
        self.n_features_in_ = (
            len(given) if len(given) > 1 else width if isinstance(width, int) else None
        )
        if len(given) > 1:
            self.feature_names_in_ = [each.name for each in given]
        output = self._find_output()
        self.output = str(output.name)
        self.labels: tuple[str, ...] | None = None
        shares = output.shape[-1] if len(output.shape) == 2 else 1
        if isinstance(shares, int) and shares > 1:
            present = sorted({each for each in target if not is_missing(each)})
            if len(present) != shares:
                raise InvalidData(
                    f"The model gives {shares} numbers for a row, and the target has"
                    f" {len(present)} different values"
                )
            self.classes_ = np.array(present, dtype=object)
            self.labels = tuple(parse_text(each) or str(each) for each in present)

    def predict(self, rows: Any) -> Any:
        """Return the numbers (n,), or the labels, of n rows."""
        if self.labels is not None:
            return self.classes_[self.predict_proba(rows).argmax(axis=1)]
        return self._run(rows).reshape(len(rows))

    def predict_proba(self, rows: Any) -> Floats:
        """Return the probabilities (n, labels) of n rows."""
        return self._run(rows)

    def _run(self, rows: Any) -> Floats:
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(np.asarray(rows))
        if len(self.inputs) == 1:
            [(name, kind)] = self.inputs
            fed = {name: frame.to_numpy().astype(_TYPES[kind][1])}
        else:
            fed = {
                name: frame[[name]].to_numpy().astype(_TYPES[kind][1]) for name, kind in self.inputs
            }
        return np.asarray(self._session.run([self.output], fed)[0], dtype=np.float64)

    def _refuse_what_is_outside(self) -> None:
        domains = {node.domain for node in self.proto.graph.node} - _DOMAINS
        if domains:
            raise InvalidData(f"The model has operators of {sorted(domains)}, expected ONNX's own")
        if any(each.data_location == TensorProto.EXTERNAL for each in self.proto.graph.initializer):
            raise InvalidData("The model keeps weights in other files; save it as one file")

    def _find_output(self) -> Any:
        """Return the output with the answer: the last tensor of floats."""
        outputs = self._session.get_outputs()
        floats = [each for each in outputs if each.type in ("tensor(float)", "tensor(double)")]
        if not floats:
            found = [f"{each.name}: {each.type}" for each in outputs]
            raise InvalidData(
                f"The model gives {found}, expected a tensor of floats; a classifier is converted"
                " without ZipMap (zipmap=False)"
            )
        return floats[-1]


def inline(graph: Any, estimator: OnnxEstimator, block: Any) -> str:
    """Write a model into a graph of ours, and return what it gives as doubles, (n, columns)."""
    proto = estimator.proto
    names: dict[str, str] = {}
    if len(estimator.inputs) == 1:
        [(name, kind)] = estimator.inputs
        names[name] = graph.op("Cast", block.numbers().tensor, to=_TYPES[kind][0])
    else:
        for place, (name, kind) in enumerate(estimator.inputs):
            names[name] = _column(graph, graph.pick(block, [place]), kind)
    for constant in proto.graph.initializer:
        names[constant.name] = f"own_{constant.name}"
        copy = TensorProto()
        copy.CopyFrom(constant)
        copy.name = names[constant.name]
        graph.constants.append(copy)
    for node in proto.graph.node:
        copied = type(node)()
        copied.CopyFrom(node)
        del copied.input[:], copied.output[:]
        copied.input.extend(names.get(each, f"own_{each}") if each else "" for each in node.input)
        copied.output.extend(f"own_{each}" if each else "" for each in node.output)
        copied.name = ""
        graph.nodes.append(copied)
    graph.opsets = {each.domain: each.version for each in proto.opset_import}
    found = graph.double(f"own_{estimator.output}")
    if estimator.labels is None:
        return str(graph.op("Reshape", found, graph.constant([-1, 1], np.int64)))
    return str(found)


def _column(graph: Any, column: Any, kind: str) -> str:
    """Return one column as a model's input of some type."""
    [codes] = column.codes
    if kind != "tensor(string)":
        return str(graph.op("Cast", column.numbers().tensor, to=_TYPES[kind][0]))
    if codes is None:
        raise InvalidData("The model takes texts where the data has numbers")
    texts = helper.make_tensor("texts", TensorProto.STRING, [len(codes)], [*codes])
    texts.name = f"constant_{len(graph.constants)}"
    graph.constants.append(texts)
    whole = graph.op("Cast", column.tensor, to=TensorProto.INT64)
    return str(graph.op("Gather", texts.name, whole, axis=0))
