"""Pages for people, as the chapter has them: a form, and its result. They need no script."""

from typing import Any

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from mlapp.errors import InvalidInput, ModelNotFound
from mlapp.families.regression import COLUMNS, RegressionModel
from mlapp.families.sentiment import SentimentModel
from mlapp.manifest import Task
from mlapp.schema import Number
from mlapp.service.bodies import answer, read_form
from mlapp.service.state import state

blueprint = Blueprint("forms", __name__)

PAGES = ("/", "/form", "/predict", "/sentiment")
TASKS: tuple[Task, ...] = ("regression", "text-classification")
USUAL = ("regression", "sentiment")  # the models that are shown where the address names none


def is_page(path: str) -> bool:
    """Return whether a path is one of the pages for people."""
    return path in PAGES


def show_home() -> str | Response:
    """Show the form to a person; tell KServe's v1 client, which asks here, that the server is live.

    Browsers name HTML among what they accept, and programs do not.
    """
    accepted = {kind.lower() for kind, _ in request.accept_mimetypes}
    if accepted and not accepted & {"text/html", "application/xhtml+xml", "text/*"}:
        return answer({"status": "alive"})
    return show_form()


@blueprint.app_context_processor
def published() -> dict[str, Any]:
    """Give every page the names of the published models, for its links."""
    return {"published": state().models.names()}


@blueprint.get("/form")
def show_form() -> str:
    """Show the form of a model of any task; a row's has its typical values."""
    model = _find(*TASKS)
    if isinstance(model, SentimentModel):
        return _text_form(model)
    return _form(model, {spec.name: _text(spec.typical) for spec in model.schema.inputs})


@blueprint.get("/predict")
def to_form() -> AnyResponse:
    """Redirect to the form."""
    return redirect(url_for("forms.show_form", _model=request.args.get("_model")))


@blueprint.post("/predict")
def predict() -> str | Response:
    """Show the prediction, or the form again with each fault beside its field."""
    model = _find(*TASKS)
    return _classify(model) if isinstance(model, SentimentModel) else _predict(model)


@blueprint.route("/sentiment", methods=["GET", "POST"])
def sentiment() -> str | Response:
    """Show the form of a text classifier, and its answer to a review."""
    model = _find("text-classification")
    return _text_form(model) if request.method in ("GET", "HEAD") else _classify(model)


def show_error(status: int, detail: str) -> Response:
    """Return a page that tells what went wrong."""
    return Response(render_template("error.html", status=status, detail=detail), status)


def _form(model: RegressionModel, given: dict[str, str], faults: Any = None) -> str:
    fields = [
        {
            "name": spec.name,
            "value": given[spec.name],
            "fault": (faults or {}).get(spec.name),
            "choices": None if isinstance(spec, Number) else spec.categories,
            "missing": spec.missing,
            "help": (
                f"in training: {spec.minimum:.12g} to {spec.maximum:.12g}"
                if isinstance(spec, Number)
                else ""
            ),
        }
        for spec in model.schema.inputs
    ]
    return render_template("home.html", model=model, fields=fields, faults=faults)


def _predict(model: RegressionModel) -> str | Response:
    given = {spec.name: read_form().get(spec.name, "") for spec in model.schema.inputs}
    try:
        checked = model.check([given])
        predicted = model.predict_array(checked)
    except InvalidInput as error:
        faults = {fault.input: fault for fault in error.faults}
        return Response(_form(model, given, faults), 422)
    state().count(model, 1)
    return render_template(
        "predict.html",
        model=model,
        given=given,
        **dict(zip(COLUMNS, map(model.format, predicted[0].tolist()), strict=True)),
        notices=[notice.message for notice in model.notices(checked, predicted)],
    )


def _text_form(model: SentimentModel, review: str = "", **shown: Any) -> str:
    return render_template("sentiment.html", model=model, review=review, **shown)


def _classify(model: SentimentModel) -> str | Response:
    review = read_form().get("review", "")
    try:
        [found] = model.classify([review])
    except InvalidInput as error:
        return Response(_text_form(model, review, fault=error.faults[0]), 422)
    state().count(model, 1)
    unsure = model.is_unsure(found.probabilities)
    return _text_form(model, review, answer=found, unsure=unsure)


def _find(*tasks: Task) -> Any:
    """Return the model that the address names, or the usual one of the first task that has any.

    Raises:
        ModelNotFound: none of these tasks has a model, or none of that name.
    """
    names = [name for task in tasks for name in sorted(state().models.names(task), key=_order)]
    if not names:
        raise ModelNotFound(f"No model is published for {' or '.join(tasks)}")
    name = request.args.get("_model", names[0])
    if name not in names:
        raise ModelNotFound(f"No model {name!r} is published for {' or '.join(tasks)}")
    return state().model(name)


def _order(name: str) -> tuple[bool, str]:
    """Return what sorts the usual models first."""
    return name not in USUAL, name


def _text(value: float | str) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else value
