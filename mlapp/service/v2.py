"""The Open Inference Protocol (v2) over REST, with the binary tensor data extension.

Tables arrive as one tensor [n, inputs], or as one tensor [n] or [n, 1] per input, by name; texts
as one BYTES tensor. A NaN, null or empty BYTES means a missing value. The response's `id` is that
of the request, or else that of the answer, which is always in the parameter `mlapp_id`. An output
with a value for each label names them, in order, in its parameter `labels`: a JSON list as text,
since the protocol's parameters cannot be lists.

Malformed requests get status 400, and values that the model does not allow get 422.
"""

from contextlib import suppress
from importlib.metadata import version as library_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import BadRequest

from mlapp.answering import Answered
from mlapp.errors import ArtifactError, ModelNotFound
from mlapp.families.contract import Batch, Field, Model
from mlapp.schema import Column, Input, Text, describe, quote
from mlapp.service.bodies import JsonResponse, check_rows, parse_json, read_body
from mlapp.service.state import FRESH, State, direct, name_rows, state
from mlapp.service.tensors import name_datatype, read_flag, read_tensor, to_binary
from mlapp.store import artifacts

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

blueprint = Blueprint("v2", __name__, url_prefix="/v2")

HEADER = "Inference-Header-Content-Length"
HEADER_KEY = "HTTP_INFERENCE_HEADER_CONTENT_LENGTH"  # in the environment


@blueprint.get("")
def server() -> JsonResponse:
    """Return the server's metadata."""
    return JsonResponse(
        {
            "name": "mlapp",
            "version": library_version("mlapp"),
            "extensions": ["binary_tensor_data"],
        }
    )


@blueprint.get("/health/live")
def live() -> JsonResponse:
    """Return that the server is live."""
    return JsonResponse({"live": True})


@blueprint.get("/health/ready")
def ready() -> JsonResponse:
    """Return whether models can be served."""
    good = is_ready()
    return JsonResponse({"ready": good}, 200 if good else 503)


def is_ready() -> bool:
    """Return whether there is a model, and all can be served, if necessary by an older version."""
    models = state().models
    return all([models.is_ready(name, FRESH) for name in models.names()] or [False])


@blueprint.post("/repository/index")
def index() -> JsonResponse:
    """List the served version of each model, and the versions that should be but cannot be opened.

    This is the index of Triton's model repository extension; with `ready` true only served
    versions are listed.
    """
    content = parse_json(read_body(request.environ, state().settings.max_bytes) or b"{}")
    ready = content.get("ready")
    if ready is not None and not isinstance(ready, bool):
        raise BadRequest(f"ready: got {describe(ready)}, expected true or false")
    models, found = state().models, []
    for name in models.names():
        with suppress(ArtifactError):
            version = models.get(name, max_age=FRESH).manifest.version
            found.append({"name": name, "version": str(version), "state": "READY", "reason": ""})
        if models.refused(name) and not ready:
            version = _wanted_version(models.root, name)
            reason = "It cannot be opened; see the server's log"
            entry = {"name": name, "version": str(version), "state": "UNAVAILABLE"}
            found.append(entry | {"reason": reason})
    return JsonResponse(found)


def _wanted_version(root: Path, name: str) -> int:
    """Return the version that is pinned, or would be served if it could be opened."""
    try:
        return artifacts.served_version(root, name)
    except ModelNotFound:  # the one that is pinned is missing
        return artifacts.pinned(root, name) or 1
    except ArtifactError:  # the pin cannot be read
        return max(artifacts.versions(root, name), default=1)


@blueprint.get("/models/<model:name>")
@blueprint.get("/models/<model:name>/versions/<int:version>")
def metadata(name: str, version: int | None = None) -> JsonResponse:
    """Return a model's metadata."""
    model = state().model(request.environ, name, version)
    inputs, outputs = tensors(model)
    return JsonResponse(
        {
            "name": name,
            "versions": [str(each) for each in artifacts.versions(state().models.root, name)],
            "platform": model.platform,
            "inputs": inputs,
            "outputs": outputs,
        }
    )


@blueprint.get("/models/<model:name>/ready")
@blueprint.get("/models/<model:name>/versions/<int:version>/ready")
def model_ready(name: str, version: int | None = None) -> JsonResponse:
    """Return whether a model can be served."""
    state().model(request.environ, name, version)
    return JsonResponse({"name": name, "ready": True})


def tensors(model: Model) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the metadata of a model's input and output tensors."""
    inputs = [_tensor(spec.name, datatype_of(spec)) for spec in model.takes.inputs]
    outputs = [_output(model, each) for each in model.gives.fields]
    return inputs, outputs


def _output(model: Model, field: Field) -> dict[str, Any]:
    """Return the metadata of an output tensor."""
    tensor = _tensor(field.name, field.datatype, *([field.width] if field.width else []))
    if field.width and (labels := _labels(model)):
        tensor["parameters"] = {"labels": labels}
    return tensor


def _labels(model: Model) -> str | None:
    """Return a model's labels in order, as JSON; None if it gives a number."""
    gives = model.gives
    return orjson.dumps(gives.labels).decode() if gives.kind == "labels" else None


def datatype_of(spec: Input | Text) -> str:
    """Return the datatype of an input's tensor."""
    return "FP64" if spec.kind == "number" else "BYTES"


def _tensor(name: str, datatype: str, *more: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1, *more]}


@blueprint.post("/models/<model:name>/infer")
@blueprint.post("/models/<model:name>/versions/<int:version>/infer")
@direct
def infer(
    here: State, environ: "WSGIEnvironment", name: str, version: int | None = None
) -> JsonResponse | Response:
    """Predict from tensors to tensors."""
    model = here.model(environ, name, version)
    content, binary = _read_request(here, environ)
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
    wanted = _wanted(content, [field.name for field in model.gives.fields])
    batch = _check(model, given, here.settings.max_rows)
    keys = name_rows(given_id, len(batch)) if given_id else None  # Triton's client sends ""
    answered = here.answer(environ, model, batch, "v2", keys)
    return _respond(model, given_id, answered, wanted)


# --- checking --------------------------------------------------------------------------------


def _check(model: Model, given: dict[str, npt.NDArray[Any]], limit: int) -> Batch:
    """Check tensors; an input that allows missing values may have none.

    Raises:
        BadRequest: tensors are missing, or have another shape or datatype.
        RequestEntityTooLarge: there are too many rows.
        InvalidInput: values are not allowed.
    """
    columns = _columns(model.takes.names, given)
    inputs = {spec.name: spec for spec in model.takes.inputs}
    needed = [name for name, spec in inputs.items() if not spec.missing and name not in columns]
    if needed:
        raise BadRequest(f"inputs: got no tensor for {quote(needed)}, expected one each")
    for name, column in columns.items():
        if name in inputs and inputs[name].kind == "text" and not _is_text(column):
            raise BadRequest(f"{name}: got values that are not texts, expected BYTES")
    rows = {len(column) for column in columns.values()}
    if len(rows) != 1:
        got = ", ".join(map(str, sorted(rows)))
        raise BadRequest(f"inputs: got tensors of {got} rows, expected the same number for all")
    check_rows(rows.pop(), limit)
    return model.check_columns(columns)


def _columns(names: list[str], given: dict[str, npt.NDArray[Any]]) -> dict[str, Column]:
    """Return the columns by input name; one tensor of another name may hold all of them.

    Raises:
        BadRequest: a tensor has another shape.
    """
    if len(given) == 1 and not given.keys() & set(names):
        [(name, tensor)] = given.items()
        if len(names) == 1:
            return {names[0]: _flat(name, tensor)}
        if tensor.ndim != 2 or tensor.shape[1] != len(names):
            raise BadRequest(
                f"{name[:80]}: got shape {list(tensor.shape)}, expected [n, {len(names)}]:"
                f" {quote(names)}"
            )
        return dict(zip(names, tensor.T, strict=True))
    return {name: _flat(name, tensor) for name, tensor in given.items()}


def _is_text(column: Column) -> bool:
    """Return whether a column arrived as BYTES; values may be null."""
    is_object = isinstance(column, list) or column.dtype == object
    return is_object and all(isinstance(each, str | None) for each in column)


def _flat(name: str, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if tensor.ndim == 1 or (tensor.ndim == 2 and tensor.shape[1] == 1):
        return tensor.reshape(-1)
    raise BadRequest(f"{name[:80]}: got shape {list(tensor.shape)}, expected [n] or [n, 1]")


# --- reading ---------------------------------------------------------------------------------


def _read_request(here: State, environ: "WSGIEnvironment") -> tuple[dict[str, Any], bytes]:
    body = read_body(environ, here.settings.max_bytes)
    if (text := environ.get(HEADER_KEY)) is None:
        return parse_json(body), b""
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) > len(body):
        got = describe(text)
        raise BadRequest(f"{HEADER}: got {got}, expected a length within {len(body)} bytes")
    return parse_json(body[: int(text)]), body[int(text) :]


# --- answering -------------------------------------------------------------------------------


def _wanted(content: dict[str, Any], names: list[str]) -> dict[str, bool]:
    """Return the requested outputs, in order, and whether each is sent as binary data."""
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
    model: Model, given_id: str | None, answered: Answered, wanted: dict[str, bool]
) -> JsonResponse | Response:
    manifest, outputs = model.manifest, answered.answers.tensors()
    parameters: dict[str, Any] = {"mlapp_id": answered.id}
    if notices := answered.answers.notices:
        parameters["notices"] = list(map(str, notices))
    content: dict[str, Any] = {
        "model_name": manifest.name,
        "model_version": str(manifest.version),
        "id": answered.id if given_id is None else given_id,
        "parameters": parameters,
    }
    content["outputs"], parts = [], []
    for name, binary in wanted.items():
        tensor = outputs[name]
        entry: dict[str, Any] = {
            "name": name,
            "datatype": name_datatype(tensor),
            "shape": list(tensor.shape),
        }
        if tensor.ndim == 2 and (labels := _labels(model)):
            entry["parameters"] = {"labels": labels}
        if binary:
            data = to_binary(tensor)
            entry.setdefault("parameters", {})["binary_data_size"] = len(data)
            parts.append(data)
        else:
            entry["data"] = tensor.reshape(-1).tolist()
        content["outputs"].append(entry)
    if not parts:
        return JsonResponse(content)
    text = orjson.dumps(content)
    response = Response(b"".join([text, *parts]), mimetype="application/octet-stream")
    response.headers[HEADER] = str(len(text))
    return response
