"""The Open Inference Protocol (v2) over REST, with the binary tensor data extension.

Tables arrive as one tensor [n, inputs], or as one tensor [n] or [n, 1] per input, by name; texts
as one BYTES tensor. A NaN, null or empty BYTES stands for a missing value.
"""

import math
import struct
from importlib.metadata import version as library_version
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import BadRequest

from mlapp import artifacts
from mlapp.models import Model
from mlapp.regression import COLUMNS, RegressionModel
from mlapp.schema import Column, Number
from mlapp.service.bodies import answer, check_rows, parse_json, read_body
from mlapp.service.state import FRESH, state

blueprint = Blueprint("v2", __name__, url_prefix="/v2")

HEADER = "Inference-Header-Content-Length"
TYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


@blueprint.get("")
def server() -> Response:
    """Return the server's metadata."""
    return answer(
        {
            "name": "mlapp",
            "version": library_version("mlapp"),
            "extensions": ["binary_tensor_data"],
        }
    )


@blueprint.get("/health/live")
def live() -> Response:
    """Say that the server answers."""
    return answer({"live": True})


@blueprint.get("/health/ready")
def ready() -> Response:
    """Say whether models can be served."""
    good = is_ready()
    return answer({"ready": good}, 200 if good else 503)


def is_ready() -> bool:
    """Return whether there is a model, and all can be served, by an older version if need be."""
    models = state().models
    return all([models.is_ready(name, FRESH) for name in models.names()] or [False])


@blueprint.get("/models/<model:name>")
@blueprint.get("/models/<model:name>/versions/<int:version>")
def metadata(name: str, version: int | None = None) -> Response:
    """Return a model's metadata."""
    model = state().model(name, version)
    inputs, outputs = tensors(model)
    return answer(
        {
            "name": name,
            "versions": [str(each) for each in artifacts.versions(state().models.root, name)],
            "platform": "sklearn" if isinstance(model, RegressionModel) else "onnx",
            "inputs": inputs,
            "outputs": outputs,
        }
    )


@blueprint.get("/models/<model:name>/ready")
@blueprint.get("/models/<model:name>/versions/<int:version>/ready")
def model_ready(name: str, version: int | None = None) -> Response:
    """Say whether a model can be served."""
    state().model(name, version)
    return answer({"name": name, "ready": True})


def tensors(model: Model) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the metadata of a model's input and output tensors."""
    if isinstance(model, RegressionModel):
        inputs = [
            _tensor(spec.name, "FP64" if isinstance(spec, Number) else "BYTES")
            for spec in model.schema.inputs
        ]
        return inputs, [_tensor(name, "FP64") for name in COLUMNS]
    outputs = [
        _tensor("label", "BYTES"),
        _tensor("probability", "FP64"),
        _tensor("probabilities", "FP64", len(model.labels)),
        _tensor("tokens", "INT64"),
        _tensor("unknown", "FP64"),
    ]
    return [_tensor("text", "BYTES")], outputs


def _tensor(name: str, datatype: str, *more: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1, *more]}


@blueprint.post("/models/<model:name>/infer")
@blueprint.post("/models/<model:name>/versions/<int:version>/infer")
def infer(name: str, version: int | None = None) -> Response:
    """Predict from tensors to tensors."""
    model = state().model(name, version)
    content, binary = _read_request()
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise BadRequest("inputs: expected a list of one or more tensors")
    given: dict[str, npt.NDArray[Any]] = {}
    for entry in inputs:
        tensor_name, tensor, binary = _read_tensor(entry, binary)
        if tensor_name in given:
            raise BadRequest(f"inputs: {tensor_name!r} is there twice")
        given[tensor_name] = tensor
    if binary:
        raise BadRequest(f"The body has {len(binary)} bytes more than its tensors")
    wanted = _wanted(content, [output["name"] for output in tensors(model)[1]])
    with state().room:
        outputs, rows, notices = _predict(model, given)
    state().count(model, rows)
    return _respond(model, content.get("id"), outputs, wanted, notices)


# --- predicting ------------------------------------------------------------------------------


def _predict(
    model: Model, given: dict[str, npt.NDArray[Any]]
) -> tuple[dict[str, npt.NDArray[Any]], int, list[str]]:
    """Return the output tensors, how many rows there are, and the notices."""
    if isinstance(model, RegressionModel):
        columns, rows = _columns(model, given)
        check_rows(rows, state().settings.max_rows)
        checked = model.schema.check_columns(columns, rows)
        predicted = model.predict_array(checked)
        notices = list(map(str, model.notices(checked, predicted)))
        return dict(zip(COLUMNS, predicted.T, strict=True)), rows, notices
    if len(given) != 1:
        raise BadRequest(f"inputs: got {len(given)} tensors, expected one of BYTES")
    [tensor] = given.values()
    texts = _flat(next(iter(given)), tensor).tolist()
    check_rows(len(texts), state().settings.max_rows)
    answers = model.classify(texts)
    labels = np.array([answer.label for answer in answers], dtype=object)
    own = [answer.probabilities for answer in answers]
    return (
        {
            "label": labels,
            "probability": np.array([answer.probability for answer in answers], dtype=float),
            "probabilities": np.array(own, dtype=float).reshape(len(own), len(model.labels)),
            "tokens": np.array([answer.tokens for answer in answers], dtype=np.int64),
            "unknown": np.array([answer.unknown for answer in answers], dtype=float),
        },
        len(texts),
        [],
    )


def _columns(
    model: RegressionModel, given: dict[str, npt.NDArray[Any]]
) -> tuple[dict[str, Column], int]:
    names = model.schema.names
    if len(given) == 1 and not set(given) & set(names):
        [(name, tensor)] = given.items()
        if tensor.ndim != 2 or tensor.shape[1] != len(names):
            raise BadRequest(
                f"{name}: got shape {list(tensor.shape)}, expected [n, {len(names)}]:"
                f" {', '.join(names)}"
            )
        return dict(zip(names, tensor.T, strict=True)), len(tensor)
    columns = {name: _flat(name, tensor) for name, tensor in given.items()}
    rows = {len(column) for column in columns.values()}
    if len(rows) != 1:
        raise BadRequest(f"inputs: the tensors have {sorted(rows)} rows, expected as many each")
    return dict(columns), rows.pop()


def _flat(name: str, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if tensor.ndim == 1 or (tensor.ndim == 2 and tensor.shape[1] == 1):
        return tensor.reshape(-1)
    raise BadRequest(f"{name}: got shape {list(tensor.shape)}, expected [n] or [n, 1]")


# --- reading ---------------------------------------------------------------------------------


def _read_request() -> tuple[dict[str, Any], bytes]:
    body = read_body(state().settings.max_bytes)
    if (text := request.headers.get(HEADER)) is None:
        return parse_json(body), b""
    if not text.isascii() or not text.isdigit() or int(text) > len(body):
        raise BadRequest(f"{HEADER}: got {text!r}, expected a length within {len(body)} bytes")
    return parse_json(body[: int(text)]), body[int(text) :]


def _read_tensor(entry: Any, binary: bytes) -> tuple[str, npt.NDArray[Any], bytes]:
    """Return a tensor's name and content, and what is left of the binary data."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise BadRequest("inputs: expected objects with name, datatype, shape and data")
    name, datatype, shape = entry["name"], entry.get("datatype"), entry.get("shape")
    if not isinstance(datatype, str) or datatype not in (*TYPES, "BYTES"):
        allowed = ", ".join([*TYPES, "BYTES"])
        raise BadRequest(f"{name}: got datatype {datatype!r}, expected one of {allowed}")
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= 8
        or any(type(size) is not int or not 0 <= size < 2**31 for size in shape)
    ):
        raise BadRequest(f"{name}: got shape {shape!r}, expected a list of whole numbers")
    count = math.prod(shape)
    parameters = entry.get("parameters") or {}
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        return name, _from_json(name, datatype, shape, count, entry.get("data")), binary
    if type(size) is not int or not 0 <= size <= len(binary):
        raise BadRequest(f"{name}: got binary_data_size {size!r}, {len(binary)} bytes are there")
    return name, _from_binary(name, datatype, shape, count, binary[:size]), binary[size:]


def _from_json(
    name: str, datatype: str, shape: list[int], count: int, data: Any
) -> npt.NDArray[Any]:
    flat = _flatten(data) if isinstance(data, list) else None
    if flat is None or len(flat) != count:
        got = "no list" if flat is None else f"{len(flat)} values"
        raise BadRequest(f"{name}: got {got} of data, expected {count} for shape {shape}")
    # The values stay what they are: the one check of a row tells what is wrong with them.
    tensor = np.empty(count, dtype=object)
    tensor[:] = flat
    if datatype != "BYTES" and all(type(value) in (int, float) for value in flat):
        try:
            tensor = tensor.astype(np.float64)
        except OverflowError:
            return tensor.reshape(shape)
    return tensor.reshape(shape)


def _flatten(data: list[Any]) -> list[Any]:
    """Return nested lists as one: both forms are allowed."""
    while data and any(isinstance(value, list) for value in data):
        data = [
            inner for value in data for inner in (value if isinstance(value, list) else [value])
        ]
    return data


def _from_binary(
    name: str, datatype: str, shape: list[int], count: int, data: bytes
) -> npt.NDArray[Any]:
    if datatype != "BYTES":
        dtype = np.dtype(TYPES[datatype]).newbyteorder("<")
        if len(data) != count * dtype.itemsize:
            expected = count * dtype.itemsize
            raise BadRequest(f"{name}: got {len(data)} bytes, expected {expected} for {shape}")
        return np.frombuffer(data, dtype).reshape(shape)
    values: list[str | None] = []
    place = 0
    while place < len(data):
        if place + 4 > len(data):
            raise BadRequest(f"{name}: its BYTES are cut off")
        [length] = struct.unpack_from("<I", data, place)
        value = data[place + 4 : place + 4 + length]
        if len(value) != length:
            raise BadRequest(f"{name}: its BYTES are cut off")
        try:
            values.append(value.decode())
        except UnicodeDecodeError as error:
            raise BadRequest(f"{name}: its BYTES are no UTF-8 text: {error}") from error
        place += 4 + length
    if len(values) != count:
        raise BadRequest(f"{name}: got {len(values)} values, expected {count} for shape {shape}")
    tensor = np.empty(count, dtype=object)
    tensor[:] = values
    return tensor.reshape(shape)


# --- answering -------------------------------------------------------------------------------


def _wanted(content: dict[str, Any], names: list[str]) -> dict[str, bool]:
    """Return the outputs to send, in order, and whether each is wanted as binary data."""
    parameters = content.get("parameters")
    usual = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    outputs = content.get("outputs")
    if outputs is None or outputs == []:
        return dict.fromkeys(names, usual)
    wanted = {}
    for entry in outputs if isinstance(outputs, list) else [outputs]:
        name = entry.get("name") if isinstance(entry, dict) else entry
        if name not in names:
            raise BadRequest(f"outputs: got {name!r}, expected some of {', '.join(names)}")
        own = entry.get("parameters")
        wanted[name] = bool(own.get("binary_data", usual)) if isinstance(own, dict) else usual
    return wanted


def _respond(
    model: Model,
    given_id: Any,
    outputs: dict[str, npt.NDArray[Any]],
    wanted: dict[str, bool],
    notices: list[str],
) -> Response:
    manifest = model.manifest
    content: dict[str, Any] = {"model_name": manifest.name, "model_version": str(manifest.version)}
    if given_id is not None:
        content["id"] = given_id
    if notices:
        content["parameters"] = {"notices": notices}
    content["outputs"], parts = [], []
    for name, binary in wanted.items():
        tensor = outputs[name]
        entry: dict[str, Any] = {
            "name": name,
            "datatype": _datatype(tensor),
            "shape": list(tensor.shape),
        }
        if binary:
            data = _to_binary(tensor)
            entry["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            entry["data"] = tensor.reshape(-1).tolist()
        content["outputs"].append(entry)
    text = orjson.dumps(content)
    if not parts:
        return Response(text, mimetype="application/json")
    response = Response(b"".join([text, *parts]), mimetype="application/octet-stream")
    response.headers[HEADER] = str(len(text))
    return response


def _datatype(tensor: npt.NDArray[Any]) -> str:
    return {"f": "FP64", "i": "INT64"}.get(tensor.dtype.kind, "BYTES")


def _to_binary(tensor: npt.NDArray[Any]) -> bytes:
    if tensor.dtype != object:
        return tensor.astype(tensor.dtype.newbyteorder("<")).tobytes()
    values = [str(value).encode() for value in tensor.reshape(-1)]
    return b"".join(struct.pack("<I", len(value)) + value for value in values)
