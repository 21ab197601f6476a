"""The state that the requests of a process share: settings, models, metrics."""

import functools
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, cast

from flask import current_app, request

from mlapp import answering
from mlapp.answering import Answered, Channel
from mlapp.errors import ArtifactError, Fault, ModelNotFound
from mlapp.families.contract import Batch, Model
from mlapp.records import writer as records
from mlapp.scoring.batch import Counts
from mlapp.service.drift_metrics import DriftMetrics
from mlapp.service.metrics import Metrics, Refusals
from mlapp.settings import Settings
from mlapp.store.repository import Repository, repository

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

P = ParamSpec("P")

LONGEST_KEY = 200  # characters of a client's own name for a request
FRESH = 0.5  # seconds between two checks for a newer version of a model


_log = logging.getLogger(__name__)


class State:
    """The settings, the models and the metrics of an application."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models: Repository = repository(settings.artifacts.resolve())
        self.metrics = Metrics()
        self.drift = DriftMetrics(self.models)
        records.observe(self.metrics.count_records)
        self.matched: OrderedDict[tuple[str, str], Any] = OrderedDict()  # rules, by path and method

    def model(self, environ: "WSGIEnvironment", name: str, version: int | None = None) -> Model:
        """Return the model that a request is for, and note it for the access log.

        Raises:
            ModelNotFound, ArtifactError: as `Repository.get`, without details of this machine.
        """
        try:
            model = self.models.get(name, version, FRESH)
        except ArtifactError as error:
            is_refused = version is None and self.models.refused(name)
            if isinstance(error, ModelNotFound) and not is_refused:
                if version is None or name not in self.models.names():
                    why = f"No model {name!r} is published; /v1/models lists all"
                else:
                    why = f"Version {version} of {name!r} is not published"
                raise ModelNotFound(why) from error
            # The reason names files of this machine: for the log only, not for the client.
            _log.warning("%s cannot be served: %s", name, error)
            raise ArtifactError(f"The model {name!r} cannot be opened at present") from error
        environ["mlapp.model"] = model
        return model

    def answer(
        self,
        environ: "WSGIEnvironment",
        model: Model,
        batch: Batch,
        channel: Channel,
        keys: Sequence[str | None] | None = None,
    ) -> Answered:
        """Answer a batch, note its identifier, and count its rows; see `answering.answer`."""
        answered = answering.answer(model, batch, channel, keys)
        rows = len(batch)
        environ["mlapp.id"], environ["mlapp.rows"] = answered.id, rows
        self.metrics.count(model, rows)
        return answered

    def note_refusal(
        self,
        environ: "WSGIEnvironment",
        channel: Channel,
        status: int,
        faults: Sequence[Fault] = (),
    ) -> None:
        """Record that a request to a model was not answered, and why."""
        if model := environ.get("mlapp.model"):
            answering.note_refusal(model, channel, status, faults)

    def count_file(self, model: Model, counts: Counts, environ: "WSGIEnvironment") -> None:
        """Count the rows of a file; its request may have ended."""
        environ["mlapp.rows"] = counts.scored
        self.metrics.count(model, counts.scored)
        for outcome in ("scored", "noticed", "refused"):
            self.metrics.count_file(model, outcome, getattr(counts, outcome))

    def expose_metrics(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        refused = {}
        for name in self.models.names():
            self.models.is_ready(name, FRESH)
            refused[name] = self.models.refused(name) is not None
        return self.metrics.expose(Refusals(refused), self.drift)


def state() -> State:
    """Return the state of the application that answers the request."""
    return cast(State, current_app.extensions["mlapp"])


def direct(
    handler: Callable[Concatenate[State, "WSGIEnvironment", P], Any],
) -> Callable[P, Any]:
    """Return the view of a handler that takes all it needs, the state and the environment.

    `Service` calls such a handler itself, without Flask's contexts, which take a fifth of the time
    of a short request.
    """

    @functools.wraps(handler)
    def view(*args: P.args, **values: P.kwargs) -> Any:
        return handler(state(), request.environ, *args, **values)

    view.handler = handler  # type: ignore[attr-defined]
    return view


def name_rows(key: str, rows: int) -> list[str] | None:
    """Return the client's name of each row: the request's key, with `-k` for the k-th of several.

    A key of more than `LONGEST_KEY` characters is ignored.
    """
    if len(key) > LONGEST_KEY:
        return None
    return [key] if rows == 1 else [f"{key}-{place}" for place in range(rows)]


def describe_model(model: Model) -> dict[str, Any]:
    """Return the description of a model that `/v1/models/{name}` gives, as JSON."""
    manifest = model.manifest
    found: dict[str, Any] = {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "ready": True,
        "created": manifest.created.isoformat(),
        "metrics": manifest.metrics,
    }
    if manifest.input_schema:
        found |= manifest.input_schema.model_dump(mode="json")
    if manifest.labels:
        found |= {"labels": list(manifest.labels)}
    return found
