"""Requests as JSON Schema, for the OpenAPI document.

A schema here describes requests that are certainly valid, but not all valid requests: JSON Schema
cannot express "as many values as the shape says".
"""

import csv
import io
import re
from typing import Any

import orjson

from mlapp.families.contract import Model
from mlapp.schema import LARGEST, MISSING, Category, Date, Input, Number, Text
from mlapp.service.score import ANSWERS, FLAGS, PARAMETERS
from mlapp.service.state import LONGEST_KEY, state
from mlapp.service.v2 import datatype_of, tensors
from mlapp.tables.formats import MEDIA_TYPES, TEXT_FORMATS

TEXT_SCHEMA = {
    "type": "string",
    "minLength": 1,
    "pattern": r"[\p{L}\p{N}\p{S}]",
    "description": "A text with at least one letter, digit or symbol; others get status 422",
}

# Numbers that are written as text and are certainly not too large.
DECIMAL = r"[+-]?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})([eE][+-]?[0-9])?"
ENCODINGS = ("utf-8", "iso-8859-1")  # encodings in which any described file can be read
DELIMITERS = {"csv": ",", "tsv": "\t"}
DESCRIBED_ROWS = (1, 2)  # the numbers of rows for which the tensors of v2 are described
FILES = (
    "If a row is refused, its column `error` says why. With the parameter `strict=true` the whole"
    " file is then refused, with status 422. A model of texts reads the column that"
    " `text_column` names, by default the one that it was trained on, `text`, `review` or the only"
    " column of texts. The body may have more columns than those described, in any order. `decimal`"
    " is the mark of its numbers; `sheet` names the sheet of a workbook."
)


def describe_instances(model: Model) -> dict[str, Any]:
    """Return the request body of v1."""
    row = model.takes.typical
    most = f"At most {state().settings.max_rows:,}"
    instances = {"type": "array", "minItems": 1, "items": _instance(model)}
    columns = {"anyOf": [instances, *_columns(model)]}
    about = f"{most}, or the same as columns: an object of lists of equal length, by input name"
    key = {
        "type": ["string", "null"],
        "minLength": 1,
        "maxLength": LONGEST_KEY,
        "description": "The client's own name for the instance, for later feedback; with several"
        " instances, that of instance k, from 0, is KEY-k",
    }
    schema = {
        "type": "object",
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
        "properties": {
            "instances": instances | {"description": most},
            "inputs": columns | {"description": about},
            "key": key,
        },
    }
    return _json_body(
        schema,
        {"instances": [row if model.takes.kind == "row" else row[model.takes.names[0]]]},
    )


def describe_tensors(model: Model) -> dict[str, Any]:
    """Return the request body of v2."""
    values = model.takes.typical
    inputs, outputs = tensors(model)
    nullable = {"type": ["object", "null"]}
    output = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"enum": [each["name"] for each in outputs]}},
    }
    schema = {
        "type": "object",
        "required": ["inputs"],
        "description": "A tensor for each input with a value for each of n rows, of shape [n] or"
        " [n, 1]. JSON Schema cannot express this for any n; a few are described. A table may also"
        " be one tensor of any name, of shape [n, inputs]",
        "properties": {
            "id": {"type": ["string", "null"]},
            "inputs": {"anyOf": [_tensors(model, rows) for rows in DESCRIBED_ROWS]},
            "outputs": {"type": ["array", "null"], "items": output},
            "parameters": nullable,
        },
    }
    example = [
        {
            "name": entry["name"],
            "shape": [1],
            "datatype": entry["datatype"],
            "data": [values[entry["name"]]],
        }
        for entry in inputs
    ]
    return _json_body(schema, {"inputs": example})


def _tensors(model: Model, rows: int) -> dict[str, Any]:
    """Return the schema of the input tensors of some rows, optional ones last."""
    specs = sorted(model.takes.inputs, key=lambda spec: spec.missing)
    needed = max(1, sum(not spec.missing for spec in specs))
    other = {"type": "string", "not": {"enum": model.takes.names}}
    unknown = _tensor(other, "FP64", {"type": ["number", "null"]}, rows)  # gets a notice
    tensor: list[dict[str, Any]] = []
    for spec in specs:
        name = {"type": "string"} if spec.kind == "text" else {"const": spec.name}
        own = _tensor(name, datatype_of(spec), _tensor_value(spec), rows)
        tensor.append({"anyOf": [own, unknown]} if spec.missing and tensor else own)
    return {"type": "array", "prefixItems": tensor, "minItems": needed, "items": False}


def _tensor(
    name: dict[str, Any], datatype: str, value: dict[str, Any], rows: int
) -> dict[str, Any]:
    """Return the schema of a tensor of some rows, given the schemas of its name and a value."""
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": name,
            "shape": {"enum": [[rows], [rows, 1]]},
            "datatype": {"const": datatype},
            "data": {"type": "array", "items": value, "minItems": rows, "maxItems": rows},
            "parameters": {"type": ["object", "null"]},
        },
    }


def _json_body(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "example": example}}
    return {"required": True, "content": content}


def _instance(model: Model) -> dict[str, Any]:
    """Return the schema of an instance of v1."""
    inputs = model.takes.inputs
    values = {spec.name: _value(spec) for spec in inputs}
    row: dict[str, Any] = {
        "type": "object",
        "properties": values,
        "required": [spec.name for spec in inputs if not spec.missing],
    }
    ordered = {
        "type": "array",
        "description": f"The values of {', '.join(values)}, in this order",
        "prefixItems": list(values.values()),
        "minItems": len(values),
        "items": False,
    }
    if model.takes.kind == "text":
        return {"anyOf": [_value(inputs[0]), row | {"additionalProperties": False}, ordered]}
    return {"anyOf": [row, ordered]}


def _columns(model: Model) -> list[dict[str, Any]]:
    """Return schemas of the instances of v1 as columns, of rows for some numbers of them."""
    inputs = model.takes.inputs
    if model.takes.kind == "text":
        texts = {"type": "array", "items": _value(inputs[0]), "minItems": 1}
        [name] = model.takes.names
        column = {"type": "object", "required": [name], "properties": {name: texts}}
        return [column | {"additionalProperties": False}]
    return [
        {
            "type": "object",
            "required": [spec.name for spec in inputs if not spec.missing],
            "minProperties": 1,
            "properties": {spec.name: _column(rows, _value(spec)) for spec in inputs},
            "additionalProperties": _column(rows, {}),  # gets a notice
        }
        for rows in DESCRIBED_ROWS
    ]


def _column(rows: int, value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": value, "minItems": rows, "maxItems": rows}


def _value(spec: Input | Text) -> dict[str, Any]:
    """Return the schema of an input's value in v1, where numbers may be written as text."""
    value = _tensor_value(spec)
    if not isinstance(spec, Number):
        return value
    texts = "|".join([DECIMAL, *MISSING] if spec.missing else [DECIMAL])
    return {"anyOf": [value, {"type": "string", "pattern": rf"^\s*({texts})\s*$"}]}


def _tensor_value(spec: Input | Text) -> dict[str, Any]:
    """Return the schema of an input's value in a tensor."""
    if isinstance(spec, Text):
        return TEXT_SCHEMA
    if isinstance(spec, Date) or (isinstance(spec, Category) and spec.other is not None):
        kind = ["string", "null"] if spec.missing else "string"
        return {"type": kind, "minLength": 1, "description": f"in training: {spec.seen}"}
    if isinstance(spec, Category):
        return {"enum": [*spec.categories, *([None] if spec.missing else [])]}
    return {
        "type": ["number", "null"] if spec.missing else "number",
        "minimum": -LARGEST,
        "maximum": LARGEST,
        "description": f"in training: {spec.seen}",
    }


def describe_files(
    model: Model, row: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Return the parameters, bodies and responses of `:score`, by media type.

    Parameters whose valid values depend on the file are left out: `FILES` explains them.

    Args:
        model: any published model.
        row: an example of a row.
    """
    cells = io.StringIO()
    csv.writer(cells, lineterminator="\n").writerows([row, row.values()])
    examples = {"csv": cells.getvalue(), "jsonl": f"{orjson.dumps(row).decode()}\n"}
    body: dict[str, Any] = {}
    answer: dict[str, Any] = {}
    for kind, format_ in MEDIA_TYPES.items():
        is_text = format_ in TEXT_FORMATS
        if kind in ANSWERS:
            answer[kind] = {"schema": {"type": "string"}} if is_text else {}
        body[kind] = {}
        if is_text:
            body[kind] = {"schema": {"type": "string", "pattern": _file_pattern(model, format_)}}
            body[kind] |= {"example": examples[format_]} if format_ in examples else {}
    schemas: dict[str, Any] = {
        **{flag: {"type": "boolean"} for flag in FLAGS if flag != "strict"},
        "columns": {"enum": ["", "{0}={0}".format(next(iter(row)))]},
        "encoding": {"enum": list(ENCODINGS)},
        "prefix": {"type": "string"},
    }
    parameters = [
        {"name": name, "in": "query", "description": PARAMETERS[name], "schema": schema}
        for name, schema in schemas.items()
    ]
    return parameters, body, answer


def _file_pattern(model: Model, format_: str) -> str:
    """Return a regular expression of files with the inputs, in order, and at least one row."""
    cells = {spec.name: _line_value(spec) for spec in model.takes.inputs}
    if format_ == "jsonl":
        pairs = ", ?".join(f"{_literal(name)}: ?{value}" for name, value in cells.items())
        return rf"^\{{{pairs}\}}(\n|$)"
    head = io.StringIO()
    csv.writer(head, delimiter=DELIMITERS[format_], lineterminator="").writerow(cells)
    return rf'^{_escape(head.getvalue())}\r?\n[^\s"]'


def _line_value(spec: Input | Text) -> str:
    if isinstance(spec, Text):
        return '"[A-Za-z .,:]*"'
    if isinstance(spec, Number):
        return r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?"
    if isinstance(spec, Date):
        return '"20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"'
    return f"({'|'.join(map(_literal, spec.categories))})"


def _literal(text: str) -> str:
    """Return a regular expression that matches a text as JSON."""
    return _escape(orjson.dumps(text).decode())


def _escape(text: str) -> str:
    """Return a regular expression that matches a text, in every dialect."""
    return re.sub(r"([\\^$.*+?()[\]{}|/])", r"\\\1", text)
