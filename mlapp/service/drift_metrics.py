"""The drift of the served models since training, as Prometheus metrics.

It is measured at most once per minute and process, so that scrapes are cheap.
"""

import logging
import threading
import time
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mlapp.errors import ArtifactError, RecordsUnavailable
from mlapp.records import drift, reference
from mlapp.records import writer as records
from mlapp.records.drift import Drift
from mlapp.store.repository import Repository

EVERY = 60.0  # seconds between two measurements
LABELS = ("model", "version", "kind", "name")

_log = logging.getLogger(__name__)


class DriftMetrics(Collector):
    """The gauges of drift over the last week. All methods are thread-safe."""

    def __init__(self, models: Repository) -> None:
        """Measure nothing yet.

        Args:
            models: whose served versions are measured.
        """
        self._models, self._lock = models, threading.Lock()
        self._found: dict[tuple[str, str], list[Drift]] = {}
        self._due: float | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; a series with too few values has no index."""
        psi = GaugeMetricFamily(
            "mlapp_drift_psi",
            "Population stability index of a series over the last week, against training.",
            labels=LABELS,
        )
        flagged = GaugeMetricFamily(
            "mlapp_drift_flagged",
            "1 if a series has moved significantly (watch), 2 if it also moved far (act).",
            labels=LABELS,
        )
        values = GaugeMetricFamily(
            "mlapp_drift_values", "Values in requests over the last week.", labels=LABELS
        )
        for model, found in self._measured().items():
            for each in found:
                labels = [*model, *each.series]
                values.add_metric(labels, each.rows)
                if each.psi is not None:
                    psi.add_metric(labels, each.psi)
                    flagged.add_metric(labels, {"watch": 1, "act": 2}.get(each.state, 0))
        yield from (psi, flagged, values)

    def _measured(self) -> dict[tuple[str, str], list[Drift]]:
        """Return the drift of each model and version that is served, measured lately."""
        with self._lock:
            if self._due is None or time.monotonic() >= self._due:
                self._found = self._measure()
                self._due = time.monotonic() + EVERY
            return self._found

    def _measure(self) -> dict[tuple[str, str], list[Drift]]:
        log = records.writer()
        found: dict[tuple[str, str], list[Drift]] = {}
        if log is None:
            return found
        for name in self._models.names():
            try:
                model = self._models.get(name)
                version = model.manifest.version
                known = reference.read(self._models.root, name, version)
                found[name, str(version)] = drift.measure(model, known, log.database)
            except ArtifactError:
                continue  # `mlapp_model_refused` says so
            except RecordsUnavailable as error:
                _log.warning("Drift is not measured: %s", error)
                break
        return found
