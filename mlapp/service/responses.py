"""Responses as JSON Schema, for the OpenAPI document."""

from typing import Any

from mlapp.families.contract import BASELINE, ERROR, Model
from mlapp.service.v2 import HEADER, tensors

TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number"}
WHOLE: dict[str, Any] = {"type": "integer"}
TRUTH: dict[str, Any] = {"type": "boolean"}
SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
DATATYPES = {"FP64": NUMBER, "INT64": WHOLE, "BOOL": TRUTH, "BYTES": TEXT}
IDENTIFIER = {
    "type": "string",
    "description": "Of the answer, for feedback; with several rows, that of row k, from 0, is ID-k",
}
LABELS = "The labels, in the order of the values: a JSON list as text"
NOTICES = {
    "type": "array",
    "items": TEXT,
    "description": "What is unusual about the rows, which are numbered from 0",
}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = required | (optional or {})
    return {"type": "object", "required": list(required), "properties": properties}


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def respond(schema: dict[str, Any], description: str = "The answer") -> dict[str, Any]:
    """Return an OpenAPI response of JSON, given its schema."""
    return {"description": description, "content": {"application/json": {"schema": schema}}}


# --- the server -------------------------------------------------------------------------------

SERVER = _object({"name": TEXT, "version": TEXT, "extensions": _list(TEXT)})
LIVE = _object({"live": TRUTH})
READY = _object({"ready": TRUTH})
INDEX = _list(
    _object(
        {"name": TEXT, "version": TEXT, "state": {"enum": ["READY", "UNAVAILABLE"]}, "reason": TEXT}
    )
)
MODELS = _object(
    {
        "models": _list(
            {
                "anyOf": [
                    _object(
                        {"name": TEXT, "version": WHOLE, "task": TEXT, "ready": {"const": True}}
                    ),
                    _object({"name": TEXT, "ready": {"const": False}}),
                ]
            }
        )
    }
)
_RECORDED = _object({"id": TEXT, "new": TRUTH})
FEEDBACK = {"anyOf": [_RECORDED, _object({"feedback": _list(_RECORDED)})]}


# --- v1 ---------------------------------------------------------------------------------------


def describe_model() -> dict[str, Any]:
    """Return the schema of the description of a model."""
    item = {"type": "object", "required": ["kind", "name"], "description": "An input of a row"}
    return _object(
        {
            "name": TEXT,
            "version": WHOLE,
            "task": TEXT,
            "ready": TRUTH,
            "created": {"type": "string", "format": "date-time"},
            "metrics": {"type": "object"},
            "versions": _list(WHOLE),
        },
        {"inputs": _list(item), "output": {"type": ["object", "null"]}, "labels": _list(TEXT)},
    )


def describe_predictions(model: Model) -> dict[str, Any]:
    """Return the response of `:predict`."""
    gives = model.gives
    if gives.kind == "labels":
        row = {"label": {"enum": list(gives.labels)}, "probability": SHARE}
        row |= dict.fromkeys(gives.columns.values(), SHARE)
        row |= {field.name: DATATYPES[field.datatype] for field, _ in gives.extras}
    else:
        row = {field.name: DATATYPES[field.datatype] for field in gives.fields}
    outputs = _object({name: _list(value) for name, value in row.items()})
    outputs["description"] = "The same by column, if the request has `inputs`"
    content = {"id": IDENTIFIER, "predictions": _list(_object(row))}
    return _named(_object(content, {"outputs": outputs, "notices": NOTICES}))


def describe_explanations(model: Model) -> dict[str, Any]:
    """Return the response of `:explain`."""
    content = {"id": IDENTIFIER, "explanations": _list(_explanation(model))}
    return _named(_object(content, {"notices": NOTICES}))


def _explanation(model: Model) -> dict[str, Any]:
    """Return the schema of the reasons of one answer."""
    gives, takes = model.gives, model.takes
    explained: dict[str, Any] = {}
    total = "the prediction"
    if gives.kind == "labels":
        second = len(gives.labels) == 2
        which = f"always the second, {gives.labels[1]!r}" if second else "that of the answer"
        about = f"The label whose logit is explained: {which}"
        label = {"enum": list(gives.labels), "description": about}
        explained, total = {"label": label, "logit": NUMBER}, "the logit of the label"
    if takes.kind == "text":
        span = _object({"start": WHOLE, "end": WHOLE, "weight": NUMBER})
        span["description"] = "Characters of the text, and what they add"
        schema = _object(explained | {"bias": NUMBER, "spans": _list(span)})
        return schema | {"description": f"The bias and the weights sum to {total}"}
    columns = [BASELINE, *takes.reason_columns.values()]
    error = {ERROR: NUMBER | {"description": "The largest standard error"}}
    schema = _object(explained | dict.fromkeys(columns, NUMBER), error if takes.estimated else None)
    return schema | {"description": f"The baseline and what each input adds sum to {total}"}


def _named(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a response with an identifier, given its schema."""
    return respond(schema) | {"headers": {"Mlapp-Id": {"schema": IDENTIFIER}}}


# --- v2 ---------------------------------------------------------------------------------------


def describe_metadata(model: Model) -> dict[str, Any]:
    """Return the schema of the metadata of a model."""
    labels = {"type": "string", "description": LABELS}
    tensor = _object(
        {"name": TEXT, "datatype": {"enum": list(DATATYPES)}, "shape": _list(WHOLE)},
        {"parameters": _object({}, {"labels": labels})},
    )
    return _object(
        {
            "name": {"const": model.manifest.name},
            "versions": _list(TEXT),
            "platform": TEXT,
            "inputs": _list(tensor),
            "outputs": _list(tensor),
        }
    )


def describe_ready(model: Model) -> dict[str, Any]:
    """Return the schema of the readiness of a model."""
    return _object({"name": {"const": model.manifest.name}, "ready": TRUTH})


def describe_outputs(model: Model) -> dict[str, Any]:
    """Return the response of `/infer`."""
    outputs = [_output(each) for each in tensors(model)[1]]
    content = {
        "model_name": {"const": model.manifest.name},
        "model_version": TEXT,
        "id": {"type": "string", "description": "That of the request, or else of the answer"},
        "parameters": _object({"mlapp_id": IDENTIFIER}, {"notices": NOTICES}),
        "outputs": _list({"anyOf": outputs}),
    }
    response = _named(_object(content))
    response["content"]["application/octet-stream"] = {}
    length = "The length of the JSON; the binary data of the outputs follow it"
    response["headers"][HEADER] = {"description": length, "schema": WHOLE}
    return response


def _output(tensor: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an output, given the metadata of its tensor."""
    own = {
        name: {"const": value, "description": LABELS}
        for name, value in tensor.get("parameters", {}).items()
    }
    data = _list(DATATYPES[tensor["datatype"]])
    fixed = {name: {"const": tensor[name]} for name in ("name", "datatype")}
    parameters = {"parameters": _object(own, {"binary_data_size": WHOLE})}
    return _object(
        fixed | {"shape": _list(WHOLE)} | (parameters if own else {}),
        parameters | {"data": data | {"description": "All values; absent if they are binary"}},
    )
