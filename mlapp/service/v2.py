"""The Open Inference Protocol (v2) over REST, with the binary tensor data extension.

Tables arrive as one tensor [n, inputs], or as one tensor [n] or [n, 1] per input, by name; texts
as one BYTES tensor. A NaN, null or empty BYTES stands for a missing value.

A request that is not in this form is refused with 400, and values that the model does not allow
with 422.
"""

from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version as library_version
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import BadRequest

from mlapp.errors import ArtifactError
from mlapp.families.contract import Model
from mlapp.families.regression import COLUMNS, RegressionModel
from mlapp.schema import (
    MOST_MISMATCHES,
    NOT_GIVEN,
    Checked,
    Column,
    Notice,
    Number,
    describe,
    quote,
)
from mlapp.service.bodies import answer, check_rows, parse_json, read_body
from mlapp.service.state import FRESH, state
from mlapp.service.tensors import name_datatype, read_flag, read_tensor, to_binary
from mlapp.store import artifacts

blueprint = Blueprint("v2", __name__, url_prefix="/v2")

HEADER = "Inference-Header-Content-Length"


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


@blueprint.post("/repository/index")
def index() -> Response:
    """List the version of each model that is served, and those that should be but do not open.

    This is the index of Triton's model repository extension; its field `ready` asks for the
    served ones only.
    """
    content = parse_json(read_body(state().settings.max_bytes) or b"{}")
    ready = content.get("ready")
    if ready is not None and not isinstance(ready, bool):
        raise BadRequest(f"ready: got {describe(ready)}, expected true or false")
    models, found = state().models, []
    for name in models.names():
        with suppress(ArtifactError):
            version = models.get(name, max_age=FRESH).manifest.version
            found.append({"name": name, "version": str(version), "state": "READY", "reason": ""})
        if models.refused(name) and not ready:
            root = models.root
            version = artifacts.pinned(root, name) or max(artifacts.versions(root, name), default=1)
            reason = "It cannot be opened; the server's log says why"
            entry = {"name": name, "version": str(version), "state": "UNAVAILABLE"}
            found.append(entry | {"reason": reason})
    return answer(found)


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
    given_id = content.get("id")
    if given_id is not None and not isinstance(given_id, str):
        raise BadRequest(f"id: got {describe(given_id)}, expected a text")
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise BadRequest("inputs: expected a list of one or more tensors")
    given: dict[str, npt.NDArray[Any]] = {}
    for entry in inputs:
        tensor_name, tensor, binary = read_tensor(entry, binary)
        if tensor_name in given:
            raise BadRequest(f"inputs: got {describe(tensor_name)} twice, expected each name once")
        given[tensor_name] = tensor
    if binary:
        raise BadRequest(f"The body has {len(binary):,} bytes more than its tensors")
    wanted = _wanted(content, [output["name"] for output in tensors(model)[1]])
    outputs, rows, notices = _predict(model, given)
    state().count(model, rows)
    return _respond(model, given_id, outputs, wanted, notices)


# --- predicting ------------------------------------------------------------------------------


def _predict(
    model: Model, given: dict[str, npt.NDArray[Any]]
) -> tuple[dict[str, npt.NDArray[Any]], int, list[str]]:
    """Return the output tensors, how many rows there are, and the notices."""
    if isinstance(model, RegressionModel):
        columns, rows = _columns(model, given)
        checked = _check(model, columns, rows)
        predicted = model.predict_array(checked)
        notices = list(map(str, model.notices(checked, predicted)))
        return dict(zip(COLUMNS, predicted.T, strict=True)), rows, notices
    if len(given) != 1:
        raise BadRequest(f"inputs: got {len(given)} tensors, expected one of BYTES")
    [(name, tensor)] = given.items()
    if tensor.dtype != object or not all(isinstance(each, str | None) for each in tensor.flat):
        raise BadRequest(f"{name[:80]}: got other values than texts, expected BYTES")
    texts = _flat(name, tensor).tolist()
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
    """Return the columns by name, and how many rows they have."""
    names = model.schema.names
    if len(given) == 1 and not set(given) & set(names):
        [(name, tensor)] = given.items()
        if tensor.ndim != 2 or tensor.shape[1] != len(names):
            raise BadRequest(
                f"{name[:80]}: got shape {list(tensor.shape)}, expected [n, {len(names)}]:"
                f" {quote(names)}"
            )
        return dict(zip(names, tensor.T, strict=True)), len(tensor)
    columns = {name: _flat(name, tensor) for name, tensor in given.items()}
    rows = {len(column) for column in columns.values()}
    if len(rows) != 1:
        got = ", ".join(map(str, sorted(rows)))
        raise BadRequest(f"inputs: got tensors of {got} rows, expected equally many each")
    return dict(columns), rows.pop()


def _check(model: RegressionModel, columns: dict[str, Column], rows: int) -> Checked:
    """Check columns; a tensor may be left out where its values may be missing.

    Raises:
        BadRequest: a tensor is not there.
        RequestEntityTooLarge: there are too many rows.
        InvalidInput: values are not allowed.
    """
    check_rows(rows, state().settings.max_rows)
    schema = model.schema
    absent = [spec for spec in schema.inputs if spec.name not in columns]
    if needed := [spec.name for spec in absent if not spec.missing]:
        raise BadRequest(f"inputs: got no tensor for {quote(needed)}, expected one each")
    notices = [Notice(spec.name, NOT_GIVEN, None) for spec in absent]
    unknown = [name for name in columns if name not in schema.names]
    notices += [Notice(name[:80], schema.not_an_input, None) for name in unknown[:MOST_MISMATCHES]]
    whole = columns | {spec.name: np.full(rows, np.nan) for spec in absent}
    return replace(schema.check_columns(whole, rows), mismatches=tuple(notices))


def _flat(name: str, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if tensor.ndim == 1 or (tensor.ndim == 2 and tensor.shape[1] == 1):
        return tensor.reshape(-1)
    raise BadRequest(f"{name[:80]}: got shape {list(tensor.shape)}, expected [n] or [n, 1]")


# --- reading ---------------------------------------------------------------------------------


def _read_request() -> tuple[dict[str, Any], bytes]:
    body = read_body(state().settings.max_bytes)
    if (text := request.headers.get(HEADER)) is None:
        return parse_json(body), b""
    if not text.isascii() or not text.isdigit() or int(text) > len(body):
        raise BadRequest(f"{HEADER}: got {text!r}, expected a length within {len(body)} bytes")
    return parse_json(body[: int(text)]), body[int(text) :]


# --- answering -------------------------------------------------------------------------------


def _wanted(content: dict[str, Any], names: list[str]) -> dict[str, bool]:
    """Return the outputs to send, in order, and whether each is wanted as binary data."""
    usual = read_flag("parameters", content, "binary_data_output", False)
    outputs = content.get("outputs")
    if outputs is None or outputs == []:
        return dict.fromkeys(names, usual)
    if not isinstance(outputs, list) or not all(isinstance(each, dict) for each in outputs):
        raise BadRequest(f"outputs: got {describe(outputs)}, expected a list of objects with name")
    wanted = {}
    for entry in outputs:
        name = entry.get("name")
        if not isinstance(name, str) or name not in names:
            raise BadRequest(f"outputs: got {describe(name)}, expected some of {quote(names)}")
        wanted[name] = read_flag(f"outputs: {name}", entry, "binary_data", usual)
    return wanted


def _respond(
    model: Model,
    given_id: str | None,
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
            "datatype": name_datatype(tensor),
            "shape": list(tensor.shape),
        }
        if binary:
            data = to_binary(tensor)
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
