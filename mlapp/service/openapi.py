"""/openapi.json (OpenAPI 3.1), made from the schemas of the models that are there, and /docs."""

import re
from importlib.metadata import version as library_version
from typing import Any

from flask import Blueprint, render_template

from mlapp.errors import ArtifactError
from mlapp.families.contract import Model
from mlapp.records.feedback import IDENTIFIER, LONGEST_NOTE
from mlapp.service.bodies import JsonResponse
from mlapp.service.requests import (
    FILES,
    describe_files,
    describe_instances,
    describe_tensors,
)
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
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    },
}


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
    paths: dict[str, Any] = {
        "/v1/models": {"get": _read("List the published models", "listModels")},
        "/v1/feedback": {"post": _feedback()},
        "/v2": {"get": _read("Metadata of the server", "serverMetadata", v2=True)},
        "/v2/health/live": {"get": _read("Whether the server answers", "serverLive", v2=True)},
        "/v2/health/ready": {
            "get": _read("Whether models can be served", "serverReady", v2=True)
            | {"responses": _responses("200", "503", v2=True)}
        },
        "/v2/repository/index": {"post": _index()},
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
    return made


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
    return _read("Record feedback on answers", "giveFeedback") | {
        "description": "A list is recorded completely or not at all. Acknowledged feedback is on"
        " the disk. The same truth may be sent again; a different one is refused with status 409.",
        "requestBody": {"required": True, "content": body},
        "responses": _responses("200", *bad),
    }


def _index() -> dict[str, Any]:
    """Return the operation that lists the models' versions."""
    text = {"type": "string"}
    entry = {
        "type": "object",
        "required": ["name", "version", "state", "reason"],
        "properties": {
            "name": text,
            "version": text,
            "state": {"enum": ["READY", "UNAVAILABLE"]},
            "reason": text,
        },
    }
    ready = {"type": ["boolean", "null"], "description": "whether only served ones are listed"}
    body = {"type": "object", "properties": {"ready": ready}}
    good = {
        "description": "The versions",
        "content": {"application/json": {"schema": {"type": "array", "items": entry}}},
    }
    return _read("List the version of each model that is served", "repositoryIndex") | {
        "requestBody": {"content": {"application/json": {"schema": body}}},
        "responses": _responses("200", "400", "413", "415", v2=True) | {"200": good},
    }


def _model_paths(name: str, operation: str, model: Model) -> dict[str, Any]:
    """Return the operations on a model; `operation` is its name in their identifiers."""
    values = model.takes.typical
    bad = ("400", "413", "415", "422", "429")
    short, infer = describe_instances(model), describe_tensors(model)
    return {
        f"/v1/models/{name}": {"get": _read(f"What {name} is", f"show_{operation}")},
        f"/v1/models/{name}:predict": {
            "post": _read(f"Predict with {name}", f"predict_{operation}")
            | {"requestBody": short, "responses": _responses("200", *bad)}
        },
        f"/v1/models/{name}:explain": {
            "post": _read(f"Explain predictions of {name}", f"explain_{operation}")
            | {"requestBody": short, "responses": _responses("200", *bad)}
        },
        f"/v1/models/{name}:score": {"post": _score(name, operation, model, values)},
        f"/v2/models/{name}": {
            "get": _read(f"Metadata of {name}", f"metadata_{operation}", v2=True)
        },
        f"/v2/models/{name}/ready": {
            "get": _read(f"Whether {name} can be served", f"ready_{operation}", v2=True)
        },
        f"/v2/models/{name}/infer": {
            "post": _read(f"Predict with {name}, by tensors", f"infer_{operation}", v2=True)
            | {"requestBody": infer, "responses": _responses("200", *bad, v2=True)}
        },
    }


def _score(name: str, operation: str, model: Model, row: dict[str, Any]) -> dict[str, Any]:
    """Return the operation that scores a file; `row` is an example."""
    parameters, body, answer = describe_files(model, row)
    counts = {
        header: {
            "description": "Rows, of Parquet and strict answers",
            "schema": {"type": "integer"},
        }
        for header in COUNTS
    }
    good = {
        "description": "The file, its columns followed by those of the prediction; a refused row"
        " has an empty prediction, and its column error says why. A response that is cut off is"
        " incomplete",
        "headers": counts,
        "content": answer,
    }
    bad = ("400", "406", "411", "413", "415", "422", "429", "507")
    return _read(f"Score a file of rows with {name}", f"score_{operation}") | {
        "description": FILES,
        "parameters": parameters,
        "requestBody": {"required": True, "content": body},
        "responses": _responses("200", *bad) | {"200": good},
    }


def _read(summary: str, operation: str, v2: bool = False) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": operation,
        "responses": _responses("200", v2=v2),
    }


def _plain(summary: str, operation: str, *statuses: str) -> dict[str, Any]:
    """Return an operation that answers with plain text, also with other statuses."""
    text = {
        "description": "The answer",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    answers = _responses() | dict.fromkeys(("200", *statuses), text)
    return _read(summary, operation) | {"responses": answers}


def _responses(*statuses: str, v2: bool = False) -> dict[str, Any]:
    """Return the responses of an operation; the default response is the protocol's error."""
    kind = ("application/json", "Error") if v2 else ("application/problem+json", "Problem")
    failed = {
        "description": "What is wrong",
        "content": {kind[0]: {"schema": {"$ref": f"#/components/schemas/{kind[1]}"}}},
    }
    good = {
        "description": "The answer",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    named = {each: good if each == "200" else failed for each in statuses}
    return named | {"default": failed}
