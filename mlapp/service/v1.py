"""The short form of REST, like that of TensorFlow Serving and KServe v1, for use with curl.

    POST /v1/models/{name}:predict  {"instances": [...]}  ->  {"predictions": [...]}
                                    {"inputs": {...}}     ->  the same, and {"outputs": {...}}
    POST /v1/models/{name}:explain  {"instances": [...]}  ->  {"explanations": [...]}

An instance is an object of values by input name, or a list of values in the order of the schema's
inputs; a text may also stand for itself. `inputs` holds the same as columns: an object of lists by
input name. A list there is a list of instances, as in KServe. Every answer has an identifier, as
`id` and in the header `Mlapp-Id`. The client may send its own name for it as `key`, to use in
feedback.
"""

from typing import TYPE_CHECKING, Any

from flask import Blueprint, request

from mlapp.answering import Answered
from mlapp.errors import ArtifactError, Fault, InvalidInput
from mlapp.families.contract import Model
from mlapp.schema import describe, quote
from mlapp.service.bodies import JsonResponse, check_rows, parse_json, read_body, require_json
from mlapp.service.state import LONGEST_KEY, State, describe_model, direct, name_rows, state
from mlapp.store import artifacts

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

blueprint = Blueprint("v1", __name__, url_prefix="/v1")


@blueprint.get("/models")
def list_models() -> JsonResponse:
    """List every published model, and whether it can be opened."""
    models = []
    for name in state().models.names():
        try:
            manifest = state().models.get(name).manifest
            models.append(
                {
                    "name": name,
                    "version": manifest.version,
                    "task": manifest.task,
                    "ready": True,
                }
            )
        except ArtifactError:
            models.append({"name": name, "ready": False})
    return JsonResponse({"models": models})


@blueprint.get("/models/<model:name>")
@blueprint.get("/models/<model:name>/versions/<int:version>")
def show_model(name: str, version: int | None = None) -> JsonResponse:
    """Describe a model: its inputs, its output or labels, its quality, its versions."""
    model = state().model(request.environ, name, version)
    versions = artifacts.versions(state().models.root, name)
    return JsonResponse(describe_model(model) | {"versions": versions})


@blueprint.post("/models/<model:name>:predict")
@blueprint.post("/models/<model:name>/versions/<int:version>:predict")
@direct
def predict(
    here: State, environ: "WSGIEnvironment", name: str, version: int | None = None
) -> JsonResponse:
    """Predict instances."""
    _, answered, by_name = _answer(here, environ, name, version)
    rows = answered.answers.records()
    content: dict[str, Any] = {"id": answered.id, "predictions": rows}
    if by_name:  # TensorFlow Serving answers `inputs` by column, KServe by row
        content["outputs"] = {key: [row[key] for row in rows] for key in rows[0]}
    return JsonResponse(content | _notices(answered))


@blueprint.post("/models/<model:name>:explain")
@blueprint.post("/models/<model:name>/versions/<int:version>:explain")
@direct
def explain(
    here: State, environ: "WSGIEnvironment", name: str, version: int | None = None
) -> JsonResponse:
    """Explain instances: contributions that sum to the prediction, or to the logit of `label`.

    The model chooses that label, see `LabelOutput.explained`.
    """
    model, answered, _ = _answer(here, environ, name, version, explained=True)
    content = {"id": answered.id, "explanations": model.reasons(answered.batch).records()}
    return JsonResponse(content | _notices(answered))


def _answer(
    here: State,
    environ: "WSGIEnvironment",
    name: str,
    version: int | None,
    explained: bool = False,
) -> tuple[Model, Answered, bool]:
    """Return a request's model, the answers to its instances, and whether these were `inputs`.

    Raises:
        InvalidInput: the instances are not allowed, or they are to be explained and the body names
            a label.
    """
    model = here.model(environ, name, version)
    require_json(environ)
    content = parse_json(read_body(environ, here.settings.max_bytes))
    if explained and content.get("label") is not None:
        allowed = "none, since the model chooses the label that it explains"
        raise InvalidInput([Fault("label", describe(content["label"]), allowed)])
    instances, keys, by_name = _read_instances(content, here.settings.max_rows, model)
    return model, here.answer(environ, model, model.check(instances), "v1", keys), by_name


def _notices(answered: Answered) -> dict[str, list[str]]:
    """Return the notices about the instances, if there are any, by the key `notices`."""
    notices = answered.answers.notices
    return {"notices": list(map(str, notices))} if notices else {}


# --- reading ---------------------------------------------------------------------------------


def _read_instances(
    content: dict[str, Any], limit: int, model: Model
) -> tuple[list[Any], list[str] | None, bool]:
    """Return a request's instances, the client's names of them, and whether they were `inputs`.

    Args:
        content: the body.
        limit: the largest number of instances.
        model: the model that the request is for.

    Raises:
        RequestEntityTooLarge: there are too many.
        InvalidInput: there are none, or they have none of the forms above.
    """
    if "instances" in content and "inputs" in content:
        raise InvalidInput([Fault("inputs", "both instances and inputs", "one of them")])
    key = "inputs" if "inputs" in content else "instances"
    given = instances = content.get(key)
    if key == "inputs" and isinstance(given, dict):
        instances = _from_columns(given, limit)
    if not isinstance(instances, list) or not instances:
        got = "an empty list" if given == [] else describe(given)
        columns = ", or an object of lists by input name" if key == "inputs" else ""
        raise InvalidInput([Fault(key, got, f"a list of one or more instances{columns}")])
    check_rows(len(instances), limit)
    if model.takes.kind == "row":
        instances = _name_values(instances, model.takes.names)
    elif isinstance(given, dict):
        [column] = model.takes.names
        if given.keys() != {column}:
            raise InvalidInput([Fault(key, f"columns {quote(given)}", f"one column, {column!r}")])
        instances = given[column]
    else:
        instances = _unwrap_texts(instances, model.takes.names[0])
    return instances, _read_keys(content, len(instances)), key == "inputs"


def _read_keys(content: dict[str, Any], rows: int) -> list[str] | None:
    """Return the client's name of each instance, if it sent a key.

    Raises:
        InvalidInput: `key` is not a text, or too long.
    """
    key = content.get("key")
    if key is None:
        return None
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
        allowed = f"a text of 1 to {LONGEST_KEY} characters"
        raise InvalidInput([Fault("key", describe(key), allowed)])
    return name_rows(key, rows)


def _from_columns(columns: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    """Return columns by name as rows.

    Raises:
        InvalidInput: a column is not a list, or the columns differ in length.
        RequestEntityTooLarge: they are too long.
    """
    faults = [
        Fault(name[:80], describe(column), "a list of values, one for each row")
        for name, column in columns.items()
        if not isinstance(column, list)
    ]
    if faults:
        raise InvalidInput(faults)
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{name[:80]!r} of {length:,}" for name, length in [*lengths.items()][:20])
        raise InvalidInput([Fault("inputs", f"columns {got} values", "columns of equal length")])
    check_rows(max(lengths.values(), default=0), limit)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _name_values(instances: list[Any], names: list[str]) -> list[Any]:
    """Return instances with lists of values as objects.

    Raises:
        InvalidInput: a list is of another length than the schema's inputs.
    """
    if list not in set(map(type, instances)):
        return instances
    allowed = f"{len(names)} values, in this order: {quote(names)}"
    faults = [
        Fault("row", f"a list of {len(row):,} values", allowed, place)
        for place, row in enumerate(instances)
        if isinstance(row, list) and len(row) != len(names)
    ]
    if faults:
        raise InvalidInput(faults)
    return [
        dict(zip(names, row, strict=True)) if isinstance(row, list) else row for row in instances
    ]


def _unwrap_texts(instances: list[Any], name: str) -> list[Any]:
    """Return instances with objects and lists that hold a text as that text.

    Args:
        instances: as they arrived.
        name: of the model's one input.

    Raises:
        InvalidInput: an object has other members, or a list has not one value.
    """
    kinds = set(map(type, instances))
    if dict not in kinds and list not in kinds:
        return instances
    texts, faults = [], []
    for place, each in enumerate(instances):
        if isinstance(each, list) and len(each) != 1:
            got, allowed = f"a list of {len(each):,} values", "a text, or a list of one"
            faults.append(Fault(name, got, allowed, place))
        elif isinstance(each, dict) and each.keys() != {name}:
            got = f"an object with {quote(key[:80] for key in each) or 'nothing'}"
            allowed = f"a text, or an object with {name!r} alone"
            faults.append(Fault(name, got, allowed, place))
        elif isinstance(each, dict):
            texts.append(each[name])
        else:
            texts.append(each[0] if isinstance(each, list) else each)
    if faults:
        raise InvalidInput(faults)
    return texts
