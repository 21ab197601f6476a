"""/openapi.json (OpenAPI 3.1), made from the schemas of the models that are there, and /docs."""

import re
from importlib.metadata import version as library_version
from typing import Any

from flask import Blueprint, current_app, render_template

from mlapp.errors import ArtifactError
from mlapp.families.contract import Model
from mlapp.records.feedback import IDENTIFIER, LONGEST_NOTE
from mlapp.service import responses
from mlapp.service.bodies import JsonResponse
from mlapp.service.requests import (
    FILES,
    describe_files,
    describe_instances,
    describe_tensors,
)
from mlapp.service.responses import respond
from mlapp.service.score import COUNTS
from mlapp.service.state import state

blueprint = Blueprint("openapi", __name__)

SCHEMAS: dict[str, Any] = {
    "Problem": {
        "type": "object",
        "description": "RFC 9457 problem details; `faults` lists every fault of a row.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "faults": {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}},
        },
    },
    "Fault": {
        "type": "object",
        "required": ["row", "input", "got", "expected"],
        "properties": {
            "row": {"type": ["integer", "null"]},
            "input": {"type": "string"},
            "got": {"type": "string"},
            "expected": {"type": "string"},
        },
    },
    "Error": {
        "type": "object",
        "description": "`faults` lists every fault of a row.",
        "required": ["error"],
        "properties": {
            "error": {"type": "string"},
            "faults": {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}},
        },
    },
}
COUNTED = (  # by the headers `COUNTS`
    "Rows of the file",
    "Rows with a prediction",
    "Rows with a prediction and a notice",
    "Rows without a prediction; their column `error` says why",
)
SENT = "Sent with Parquet, with `strict=true` and over HTTP/1.0"


@blueprint.get("/openapi.json")
def document() -> JsonResponse:
    """Return the OpenAPI document."""
    return JsonResponse(make_document())


@blueprint.get("/docs")
def docs() -> str:
    """Show the OpenAPI document as HTML."""
    return render_template("docs.html", document=make_document())


def make_document() -> dict[str, Any]:
    """Return the OpenAPI document of the published models that can be opened."""
    models = respond(responses.MODELS)
    paths: dict[str, Any] = {
        "/v1/models": {"get": _operation("List the published models", "listModels", models)},
        "/v1/feedback": {"post": _feedback()},
        **_server_paths(),
        "/livez": {"get": _plain("Whether the process answers", "livez")},
        "/readyz": {"get": _plain("Whether all models can be served", "readyz", "503")},
        "/metrics": {"get": _plain("Metrics in the text format of Prometheus", "metrics")},
    }
    operations = set[str]()
    for name in state().models.names():
        try:
            model = state().models.get(name)
        except ArtifactError:
            continue
        operation = re.sub("[-.]", "_", name)
        while operation in operations:  # a-b and a.b
            operation += "_"
        operations.add(operation)
        paths |= _model_paths(name, operation, model)
    components: dict[str, Any] = {"schemas": SCHEMAS}
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "mlapp",
            "version": library_version("mlapp"),
            "description": "Predictions of published models, and their explanations. A path that"
            " has `/versions/N` after the name of a model is for that version.",
        },
        "paths": paths,
        "components": components,
    }
    if state().settings.api_key is not None:
        components["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        made["security"] = [{"key": []}, {"bearer": []}]
        _describe_keys(paths)
    return made


def _describe_keys(paths: dict[str, Any]) -> None:
    """Add to each operation that it needs no API key, or what it answers without one."""
    app: Any = current_app
    for path, operations in paths.items():
        for method, operation in operations.items():
            if app.is_open(path, method.upper()):
                operation["security"] = []
            else:
                challenge = {"WWW-Authenticate": {"schema": {"type": "string"}}}
                refused = {"description": "The API key is missing or wrong", "headers": challenge}
                operation["responses"]["401"] = operation["responses"]["default"] | refused


def _server_paths() -> dict[str, Any]:
    """Return the operations of the Open Inference Protocol on the server."""
    server, live, ready = map(respond, (responses.SERVER, responses.LIVE, responses.READY))
    health = _operation("Whether models can be served", "serverReady", ready, v2=True)
    health["responses"]["503"] = ready
    return {
        "/v2": {"get": _operation("Metadata of the server", "serverMetadata", server, v2=True)},
        "/v2/health/live": {
            "get": _operation("Whether the server answers", "serverLive", live, v2=True)
        },
        "/v2/health/ready": {"get": health},
        "/v2/repository/index": {"post": _index()},
    }


def _feedback() -> dict[str, Any]:
    """Return the operation that takes what turned out to be true of answers."""
    one = {
        "type": "object",
        "required": ["id", "truth"],
        "additionalProperties": False,
        "properties": {
            "id": {
                "type": "string",
                "pattern": f"^{IDENTIFIER.pattern}$",
                "description": "Of an answer; with several rows, that of row k, from 0, is ID-k",
            },
            "truth": {
                "type": ["number", "string", "boolean"],
                "description": "What turned out to be true: a number, or one of the labels, which"
                " may be written as numbers or truth values where they are",
            },
            "note": {"type": ["string", "null"], "maxLength": LONGEST_NOTE},
        },
    }
    content = {"anyOf": [one, {"type": "array", "minItems": 1, "items": one}]}
    example = {"id": "019a1d4e-6d31-782b-96e5-edd5443433f4", "truth": 0.4, "note": "measured"}
    body = {"application/json": {"schema": content, "example": example}}
    bad = ("400", "404", "409", "413", "415", "422", "429", "503")
    good = respond(responses.FEEDBACK)
    return _operation("Record feedback on answers", "giveFeedback", good, *bad) | {
        "description": "A list is recorded completely or not at all. Acknowledged feedback is on"
        " the disk. The same truth may be sent again; a different one is refused with status 409.",
        "requestBody": {"required": True, "content": body},
    }


def _index() -> dict[str, Any]:
    """Return the operation that lists the models' versions."""
    ready = {"type": ["boolean", "null"], "description": "whether only served ones are listed"}
    body = {"type": "object", "properties": {"ready": ready}}
    return _operation(
        "List the version of each model that is served",
        "repositoryIndex",
        respond(responses.INDEX, "The versions"),
        *("400", "413", "415"),
        v2=True,
    ) | {"requestBody": {"content": {"application/json": {"schema": body}}}}


def _model_paths(name: str, operation: str, model: Model) -> dict[str, Any]:
    """Return the operations on a model; `operation` is its name in their identifiers."""
    bad = ("400", "413", "415", "422", "429")
    short, infer = describe_instances(model), describe_tensors(model)
    shown = respond(responses.describe_model())
    predicted = responses.describe_predictions(model)
    explained = responses.describe_explanations(model)
    metadata = respond(responses.describe_metadata(model))
    ready = respond(responses.describe_ready(model))
    inferred = responses.describe_outputs(model)
    return {
        f"/v1/models/{name}": {"get": _operation(f"What {name} is", f"show_{operation}", shown)},
        f"/v1/models/{name}:predict": {
            "post": _operation(f"Predict with {name}", f"predict_{operation}", predicted, *bad)
            | {"requestBody": short}
        },
        f"/v1/models/{name}:explain": {
            "post": _operation(
                f"Explain predictions of {name}", f"explain_{operation}", explained, *bad
            )
            | {"requestBody": short}
        },
        f"/v1/models/{name}:score": {"post": _score(name, operation, model)},
        f"/v2/models/{name}": {
            "get": _operation(f"Metadata of {name}", f"metadata_{operation}", metadata, v2=True)
        },
        f"/v2/models/{name}/ready": {
            "get": _operation(f"Whether {name} can be served", f"ready_{operation}", ready, v2=True)
        },
        f"/v2/models/{name}/infer": {
            "post": _operation(
                f"Predict with {name}, by tensors", f"infer_{operation}", inferred, *bad, v2=True
            )
            | {"requestBody": infer}
        },
    }


def _score(name: str, operation: str, model: Model) -> dict[str, Any]:
    """Return the operation that scores a file."""
    parameters, body, answer = describe_files(model, model.takes.typical)
    good = {
        "description": "The file, its columns followed by those of the prediction; a refused row"
        " has an empty prediction, and its column `error` says why. A response that is cut off is"
        " incomplete",
        "headers": {
            name: {"description": f"{counted}. {SENT}", "schema": {"type": "integer"}}
            for name, counted in zip(COUNTS, COUNTED, strict=True)
        },
        "content": answer,
    }
    bad = ("400", "406", "411", "413", "415", "422", "429", "507")
    return _operation(f"Score a file of rows with {name}", f"score_{operation}", good, *bad) | {
        "description": FILES,
        "parameters": parameters,
        "requestBody": {"required": True, "content": body},
    }


def _plain(summary: str, operation: str, *statuses: str) -> dict[str, Any]:
    """Return an operation that answers with plain text, also with other statuses."""
    text = {
        "description": "The answer",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    made = _operation(summary, operation, text)
    made["responses"] |= dict.fromkeys(statuses, text)
    return made


def _operation(
    summary: str, operation: str, good: dict[str, Any], *bad: str, v2: bool = False
) -> dict[str, Any]:
    """Return an operation; the default response is the protocol's error.

    Args:
        summary: what it does.
        operation: its identifier.
        good: its response with status 200.
        bad: the statuses of errors that are named.
        v2: whether errors are those of the Open Inference Protocol.
    """
    kind = ("application/json", "Error") if v2 else ("application/problem+json", "Problem")
    failed = {
        "description": "What is wrong",
        "content": {kind[0]: {"schema": {"$ref": f"#/components/schemas/{kind[1]}"}}},
    }
    answers = {"200": good, **dict.fromkeys((*bad, "default"), failed)}
    return {"summary": summary, "operationId": operation, "responses": answers}
