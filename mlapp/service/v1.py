"""The short form, as in TensorFlow Serving and KServe v1, for people with curl.

    POST /v1/models/{name}:predict  {"instances": [...]}  ->  {"predictions": [...]}
    POST /v1/models/{name}:explain  {"instances": [...]}  ->  {"explanations": [...]}

An instance is an object of values by input name, or a text.
"""

from typing import Any

from flask import Blueprint, Response

from mlapp import artifacts
from mlapp.errors import ArtifactError, Fault, InvalidInput
from mlapp.regression import COLUMNS, RegressionModel
from mlapp.schema import describe as describe_value
from mlapp.service.bodies import answer, check_rows, parse_json, read_body, require_json
from mlapp.service.state import describe, state
from mlapp.settings import Settings

blueprint = Blueprint("v1", __name__, url_prefix="/v1")


@blueprint.get("/models")
def list_models() -> Response:
    """List every published model, those that cannot be opened with the reason."""
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
    return answer({"models": models})


@blueprint.get("/models/<model:name>")
@blueprint.get("/models/<model:name>/versions/<int:version>")
def show_model(name: str, version: int | None = None) -> Response:
    """Say what a model is: its inputs, its output or labels, its quality, its versions."""
    model = state().model(name, version)
    versions = artifacts.versions(state().models.root, name)
    return answer(describe(model) | {"versions": versions})


@blueprint.post("/models/<model:name>:predict")
@blueprint.post("/models/<model:name>/versions/<int:version>:predict")
def predict(name: str, version: int | None = None) -> Response:
    """Predict instances."""
    here = state()
    model = here.model(name, version)
    instances = _instances(here.settings)
    content: dict[str, Any]
    with here.room:
        if isinstance(model, RegressionModel):
            checked = model.check(instances)
            predicted = model.predict_array(checked)
            rows = predicted.tolist()
            content = {"predictions": [dict(zip(COLUMNS, row, strict=True)) for row in rows]}
            if notices := model.notices(checked, predicted):
                content["notices"] = [str(notice) for notice in notices]
        else:
            content = {"predictions": model.predict_rows(instances)}
    here.count(model, len(instances))
    return answer(content)


@blueprint.post("/models/<model:name>:explain")
@blueprint.post("/models/<model:name>/versions/<int:version>:explain")
def explain(name: str, version: int | None = None) -> Response:
    """Explain instances: exact contributions that sum to the prediction, or to the logit."""
    here = state()
    model = here.model(name, version)
    instances = _instances(here.settings)
    with here.room:
        if isinstance(model, RegressionModel):
            explanations = model.explain(instances).to_dict("records")
        else:
            model.read(instances)  # all faults at once, before any text is explained
            explanations = [
                {
                    "label": explained.label,
                    "logit": explained.logit,
                    "bias": explained.bias,
                    "spans": [
                        {"start": span.start, "end": span.end, "weight": span.weight}
                        for span in explained.spans
                    ],
                }
                for explained in map(model.explain, instances)
            ]
    here.count(model, len(instances))
    return answer({"explanations": explanations})


def _instances(settings: Settings) -> list[Any]:
    require_json()
    content = parse_json(read_body(settings.max_bytes))
    instances = content.get("instances")
    if not isinstance(instances, list) or not instances:
        got = "an empty list" if instances == [] else describe_value(instances)
        raise InvalidInput([Fault("instances", got, "a list of one or more instances")])
    check_rows(len(instances), settings.max_rows)
    return instances
