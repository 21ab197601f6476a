"""Feedback: what turned out to be true of answers.

    POST /v1/feedback  {"id": ID, "truth": 0.4, "note": "..."}  ->  {"id": ID, "new": true}
                       [{"id": ID-0, "truth": "angry"}, ...]    ->  {"feedback": [...]}

`ID` is an answer's `id`; with several rows, that of row k, from 0, is `ID-k`. A list is recorded
completely or not at all. Acknowledged feedback is on the disk; sent again, it changes nothing and
is not `new`.
"""

import logging
from typing import Any

from flask import Blueprint, request

from mlapp.errors import Fault, InvalidInput, RecordsUnavailable
from mlapp.records import feedback
from mlapp.records import writer as records
from mlapp.records.feedback import Given
from mlapp.schema import describe, quote
from mlapp.service.bodies import JsonResponse, check_rows, load_json, read_body, require_json
from mlapp.service.state import state

FIELDS = ("id", "truth", "note")

blueprint = Blueprint("feedback", __name__, url_prefix="/v1")

_log = logging.getLogger(__name__)


@blueprint.post("/feedback")
def give() -> JsonResponse:
    """Record what turned out to be true of one answer or several."""
    settings = state().settings
    require_json(request.environ)
    content = load_json(read_body(request.environ, settings.max_bytes))
    entries = content if isinstance(content, list) else [content]
    if not entries:
        raise InvalidInput([Fault("feedback", "an empty list", "one or more objects")])
    check_rows(len(entries), settings.max_rows)
    given = _read(entries)
    log = records.writer()
    if log is None:
        raise RecordsUnavailable("Answers are not recorded here, so feedback cannot be given")
    try:
        new = feedback.give(log.database, settings.artifacts, given, "v1", is_behind=log.is_behind)
    except RecordsUnavailable as error:
        _log.warning("feedback was refused: %s", error)  # the reason is for the log only
        raise RecordsUnavailable("The records cannot be written at present") from error
    recorded = [{"id": each.id, "new": fresh} for each, fresh in zip(given, new, strict=True)]
    return JsonResponse({"feedback": recorded} if isinstance(content, list) else recorded[0])


def _read(entries: list[Any]) -> list[Given]:
    """Return feedback from JSON.

    Raises:
        InvalidInput: with every fault of its structure.
    """
    faults = []
    for place, each in enumerate(entries):
        row = place if len(entries) > 1 else None
        if not isinstance(each, dict):
            allowed = "an object with id, truth and optionally note"
            faults.append(Fault("feedback", describe(each), allowed, row))
            continue
        faults += [
            Fault(name[:80], "an unknown member", f"one of {quote(FIELDS)}", row)
            for name in list(each)[:20]
            if name not in FIELDS
        ]
        if each.get("truth") is None:
            faults.append(Fault("truth", "nothing", "what turned out to be true", row))
    if faults:
        raise InvalidInput(faults)
    return [Given(each.get("id"), each["truth"], each.get("note")) for each in entries]
