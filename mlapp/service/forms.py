"""Pages for people, as the chapter has them: a form, and its result. They need no script."""

from typing import Any

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from mlapp.errors import InvalidInput, ModelNotFound
from mlapp.regression import COLUMNS, RegressionModel
from mlapp.schema import Number
from mlapp.sentiment import SentimentModel
from mlapp.service.bodies import answer, read_form
from mlapp.service.state import state

blueprint = Blueprint("forms", __name__)

PAGES = ("/", "/form", "/predict", "/sentiment")


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


@blueprint.get("/form")
def show_form() -> str:
    """Show the form of a regression model, with its typical values."""
    model = _regression()
    return _form(model, {spec.name: _text(spec.typical) for spec in model.schema.inputs})


@blueprint.get("/predict")
def to_form() -> AnyResponse:
    """Redirect to the form."""
    return redirect(url_for("forms.show_form"))


@blueprint.post("/predict")
def predict() -> str | Response:
    """Show the prediction, or the form again with each fault beside its field."""
    model = _regression()
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


@blueprint.route("/sentiment", methods=["GET", "POST"])
def sentiment() -> str | Response:
    """Show the form of a text classifier, and its answer to a review."""
    model = _find("text-classification", "sentiment")
    assert isinstance(model, SentimentModel)
    if request.method in ("GET", "HEAD"):
        return render_template("sentiment.html", model=model, review="", fault=None, answer=None)
    review = read_form().get("review", "")
    try:
        [found] = model.classify([review])
    except InvalidInput as error:
        page = render_template(
            "sentiment.html", model=model, review=review, fault=error.faults[0], answer=None
        )
        return Response(page, 422)
    state().count(model, 1)
    return render_template(
        "sentiment.html",
        model=model,
        review=review,
        fault=None,
        answer=found,
        unsure=model.is_unsure(found.probabilities),
    )


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


def _regression() -> RegressionModel:
    model = _find("regression", "regression")
    assert isinstance(model, RegressionModel)
    return model


def _find(task: Any, usual: str) -> Any:
    """Return the model that the address names, or the usual one of a task, or any."""
    names = state().models.names(task)
    name = request.args.get("_model", usual if usual in names or not names else names[0])
    if name not in names:
        raise ModelNotFound(f"No model {name!r} is published for {task}")
    return state().model(name)


def _text(value: float | str) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else value
