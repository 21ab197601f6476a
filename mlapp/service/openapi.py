"""/openapi.json (OpenAPI 3.1), made from the schemas of the models that are there, and /docs."""

import csv
import io
from importlib.metadata import version as library_version
from typing import Any

import orjson
from flask import Blueprint, Response, render_template

from mlapp.errors import ArtifactError
from mlapp.models import Model
from mlapp.regression import RegressionModel
from mlapp.schema import LARGEST, Number
from mlapp.sentiment import SentimentModel
from mlapp.service.bodies import answer
from mlapp.service.score import COUNTS, FLAGS, PARAMETERS, TYPES
from mlapp.service.state import state
from mlapp.service.tensors import TYPES as TENSOR_TYPES
from mlapp.service.v2 import tensors

blueprint = Blueprint("openapi", __name__)

TEXT = "I did not want it to end: a wonderful, funny film."


@blueprint.get("/openapi.json")
def document() -> Response:
    """Return the OpenAPI document."""
    return answer(make_document())


@blueprint.get("/docs")
def docs() -> str:
    """Show the OpenAPI document to a person."""
    return render_template("docs.html", document=make_document())


def make_document() -> dict[str, Any]:
    """Return the OpenAPI document of the published models that open."""
    paths: dict[str, Any] = {
        "/v1/models": {"get": _read("List the published models", "listModels")},
        "/v2": {"get": _read("Metadata of the server", "serverMetadata", v2=True)},
        "/v2/health/live": {"get": _read("Whether the server answers", "serverLive", v2=True)},
        "/v2/health/ready": {
            "get": _read("Whether models can be served", "serverReady", v2=True)
            | {"responses": _responses("200", "503", v2=True)}
        },
    }
    for name in state().models.names():
        try:
            model = state().models.get(name)
        except ArtifactError:
            continue
        paths |= _model_paths(name, model)
    components: dict[str, Any] = {
        "schemas": {
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
    }
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "mlapp",
            "version": library_version("mlapp"),
            "description": "Predictions of published models, and their explanations.",
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


def _model_paths(name: str, model: Model) -> dict[str, Any]:
    operation = name.replace("-", "_").replace(".", "_")
    instance, example = _instance(model)
    body = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["instances"],
                    "properties": {
                        "instances": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": state().settings.max_rows,
                            "items": instance,
                        }
                    },
                },
                "example": {"instances": [example]},
            }
        },
    }
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string"},
            "shape": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "integer", "minimum": 0},
            },
            "datatype": {"enum": [*TENSOR_TYPES, "BYTES"]},
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
    }
    inputs, _ = tensors(model)
    values = example if isinstance(example, dict) else {"text": example}
    infer = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "inputs": {"type": "array", "minItems": 1, "items": tensor},
                    },
                },
                "example": {
                    "inputs": [
                        {
                            "name": entry["name"],
                            "shape": [1],
                            "datatype": entry["datatype"],
                            "data": [values[entry["name"]]],
                        }
                        for entry in inputs
                    ]
                },
            }
        },
    }
    bad = ("400", "413", "415", "422", "429")
    return {
        f"/v1/models/{name}": {"get": _read(f"What {name} is", f"show_{operation}")},
        f"/v1/models/{name}:predict": {
            "post": _read(f"Predict with {name}", f"predict_{operation}")
            | {"requestBody": body, "responses": _responses("200", *bad)}
        },
        f"/v1/models/{name}:explain": {
            "post": _read(f"Explain predictions of {name}", f"explain_{operation}")
            | {"requestBody": body, "responses": _responses("200", *bad)}
        },
        f"/v1/models/{name}:score": {"post": _score(name, operation, values)},
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


def _score(name: str, operation: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return the operation that scores a file; `row` is an example."""
    cells = io.StringIO()
    csv.writer(cells, lineterminator="\n").writerows([row, row.values()])
    examples = {"csv": cells.getvalue(), "jsonl": f"{orjson.dumps(row).decode()}\n"}
    body, answer = {}, {}
    for kind, form in TYPES.items():
        text = {} if form == "parquet" else {"schema": {"type": "string"}}
        answer[kind] = text
        body[kind] = text | ({"example": examples[form]} if form in examples else {})
    parameters = [
        {
            "name": parameter,
            "in": "query",
            "description": meaning,
            "schema": {"type": "boolean" if parameter in FLAGS else "string"},
        }
        for parameter, meaning in PARAMETERS.items()
    ]
    counts = {
        header: {
            "description": "Rows, of Parquet and strict answers",
            "schema": {"type": "integer"},
        }
        for header in COUNTS
    }
    good = {
        "description": "The file, its columns followed by the prediction's; a refused row has an"
        " empty prediction and says why in its column error. One that breaks off is not whole",
        "headers": counts,
        "content": answer,
    }
    bad = ("400", "406", "411", "413", "415", "422", "429")
    return _read(f"Score a file of rows with {name}", f"score_{operation}") | {
        "parameters": parameters,
        "requestBody": {"required": True, "content": body},
        "responses": _responses("200", *bad) | {"200": good},
    }


def _instance(model: Model) -> tuple[dict[str, Any], Any]:
    """Return the JSON schema of an instance, and an example."""
    if isinstance(model, SentimentModel):
        return {"type": "string", "minLength": 1}, TEXT
    assert isinstance(model, RegressionModel)
    properties: dict[str, Any] = {}
    for spec in model.schema.inputs:
        if isinstance(spec, Number):
            kind: dict[str, Any] = {
                "type": ["number", "null"] if spec.missing else "number",
                "minimum": -LARGEST,
                "maximum": LARGEST,
                "description": f"in training: {spec.minimum:.12g} to {spec.maximum:.12g}",
            }
        else:
            kind = {"enum": [*spec.categories, *([None] if spec.missing else [])]}
        properties[spec.name] = kind
    required = [spec.name for spec in model.schema.inputs if not spec.missing]
    schema = {"type": "object", "properties": properties, "required": required}
    return schema, model.schema.typical


def _read(summary: str, operation: str, v2: bool = False) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": operation,
        "responses": _responses("200", v2=v2),
    }


def _responses(*statuses: str, v2: bool = False) -> dict[str, Any]:
    """Return the responses of an operation; the default is the error of its protocol."""
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
