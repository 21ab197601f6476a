"""HTML pages without scripts: a form for each model, and its result."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from mlapp.errors import ArtifactError, Fault, InvalidInput, ModelNotFound, quote
from mlapp.families.contract import Answers, Model, name_target
from mlapp.loaders import USUAL
from mlapp.schema import TEXT, Input, Text
from mlapp.service.bodies import JsonResponse, read_form
from mlapp.service.state import state

blueprint = Blueprint("forms", __name__)

PAGES = ("/", "/form", "/predict", "/sentiment")
REVIEW = "review"  # the name of the field for a text
MODEL = "_model"  # the name of the parameter and the field for a model's name


def is_page(path: str) -> bool:
    """Return whether a path is one of the HTML pages."""
    return path in PAGES


def show_home() -> str | JsonResponse:
    """Show the form to browsers, and answer the health check of KServe's v1 client.

    Browsers accept HTML explicitly, and programs do not.
    """
    accepted = {kind.lower() for kind, _ in request.accept_mimetypes}
    if accepted and not accepted & {"text/html", "application/xhtml+xml", "text/*"}:
        return JsonResponse({"status": "alive"})
    return show_form()


@blueprint.app_context_processor
def published() -> dict[str, Any]:
    """Provide every template with the names of the published models, for links."""
    return {"published": state().models.names()}


@blueprint.get("/form")
def show_form() -> str:
    """Show the form of a model, for a row with its typical values."""
    model = _find(request.args.getlist(MODEL))
    typical = {
        spec.name: spec.as_text(spec.typical) if spec.kind == "number" else spec.typical
        for spec in model.takes.inputs
        if spec.kind != "text"
    }
    return _form(model, typical)


@blueprint.get("/predict")
def to_form() -> AnyResponse:
    """Redirect to the form."""
    return redirect(url_for("forms.show_form", _model=request.args.get(MODEL)))


@blueprint.post("/predict")
def predict() -> str | Response:
    """Show the answer, or the form again with each fault next to its field."""
    return _answer()


@blueprint.route("/sentiment", methods=["GET", "POST"])
def text_form() -> str | Response:
    """Show the form of a model of texts, and its answer to a text."""
    if request.method not in ("GET", "HEAD"):
        return _answer("text")
    return _form(_find(request.args.getlist(MODEL), "text"), {})


def show_error(status: int, detail: str) -> Response:
    """Return a page with an error."""
    return Response(render_template("error.html", status=status, detail=detail), status)


def _form(model: Model, given: Mapping[str, str], **shown: Any) -> str:
    """Show the form of a model.

    Args:
        model: any published model.
        given: the values of the fields, by input name.
        shown: `faults` by input name and the messages of `others`, or the `answer`, for the
            template.
    """
    faults, wording = shown.get("faults", {}), getattr(model, "wording", None)
    text = wording.text.capitalize() if wording else "Text"
    fields = [
        {
            "name": _field(spec),
            "label": text if spec.kind == "text" else spec.name,
            "value": given.get(spec.name, ""),
            "fault": faults.get(spec.name),
            "kind": spec.kind,
            "choices": spec.categories if spec.kind == "category" else None,
            "missing": spec.missing,
            "help": (f"in training: {spec.seen}" if spec.kind in ("number", "date") else ""),
        }
        for spec in model.takes.inputs
    ]
    target = name_target(model)
    return render_template("form.html", model=model, target=target, fields=fields, **shown)


def _answer(takes: str | None = None) -> str | Response:
    """Answer the form of a model that takes a row or a text, by default either."""
    model, form = _read(takes)
    given = {spec.name: form.get(_field(spec), "") for spec in model.takes.inputs}
    is_text = model.takes.kind == "text"
    try:
        batch = model.check([given[TEXT] if is_text else given])
        answers = state().answer(request.environ, model, batch, "form").answers
    except InvalidInput as error:
        state().note_refusal(request.environ, "form", error.status, error.faults)
        faults = {fault.input: fault for fault in error.faults}
        others = [fault.message for fault in error.faults if fault.input not in given]
        return Response(_form(model, given, faults=faults, others=others), 422)
    shown = {
        "answer": _show(answers),
        "notices": [notice.message for notice in answers.notices],
    }
    if is_text:
        return _form(model, given, **shown)
    return render_template("answer.html", model=model, given=given, **shown)


def _field(spec: Input | Text) -> str:
    """Return the name of the field of an input."""
    return REVIEW if spec.kind == "text" else spec.name


def _show(answers: Answers) -> dict[str, Any]:
    """Return the one answer in the form that the templates show."""
    if answers.output.kind == "number":
        [answer] = answers.records()
        return {key: answers.output.format(value) for key, value in answer.items()}
    probability = float(answers.probability[0])
    share = "over 99%" if probability > 0.99 else f"{probability:.0%}"
    return {"label": answers.labels[0], "share": share, "unsure": bool(answers.unsure[0])}


def _read(takes: str | None) -> tuple[Model, Mapping[str, str]]:
    """Return the model that the URL or the form names, or the default one, and the form's fields.

    The model that the URL names, or the default one, bounds their number.

    Raises:
        HTTPException: as `read_form`.
        ArtifactError, InvalidInput: as `_find`.
    """
    named, model = request.args.getlist(MODEL), None
    with suppress(ArtifactError):  # it is raised below, unless the form names another model
        model = _find(named, takes)
    inputs = model.takes.names if model else []
    form = read_form(request.environ, state().settings.max_bytes, len(inputs))
    also_named = [] if MODEL in inputs else form.getlist(MODEL)
    if model is None or also_named:
        request.environ.pop("mlapp.model", None)
        model = _find(named + also_named, takes)
    return model, form


def _find(named: Collection[str], takes: str | None = None) -> Model:
    """Return the model that a request names, or the default one.

    Args:
        named: the names in the request.
        takes: row or text; by default both.

    Raises:
        InvalidInput: the names differ.
        ModelNotFound: there is no such model, or none of that name.
        ArtifactError: it cannot be opened.
    """
    if len(set(named)) > 1:
        raise InvalidInput([Fault(MODEL, quote(sorted(set(named))), "one name")])
    names = sorted(state().models.names(takes), key=_order)
    wanted = f"that takes a {takes} is published" if takes else "is published"
    if not names:
        raise ModelNotFound(f"No model {wanted}")
    name = next(iter(named), names[0])
    if name not in names:
        raise ModelNotFound(f"No model {name!r} {wanted}")
    return state().model(request.environ, name)


def _order(name: str) -> tuple[bool, int, str]:
    """Return a sort key that puts the default models first."""
    usual = [*USUAL.values()]
    return name not in usual, usual.index(name) if name in usual else 0, name
