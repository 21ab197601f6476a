"""A bare Flask handler over the same models, without any check: what ours is compared with.

    python benchmarks/bare_service.py PORT

It runs on the same server as ours, with two workers.
"""

import sys
from pathlib import Path
from typing import Any, cast

import joblib
import numpy as np
from flask import Flask, jsonify, request

from mlapp.families.network import Network
from mlapp.families.sentiment import softmax
from mlapp.service.gateway import Gateway
from mlapp.service.server import listen, run_workers
from mlapp.settings import Settings, read_settings
from mlapp.store import artifacts

ROOT = Path(__file__).resolve().parents[1] / "artifacts"


class Bare(Flask):
    """Flask, with what the server asks of an application."""

    settings: Settings = read_settings()

    def admit(self, _environ: object) -> int:
        """Return how large a body may be."""
        return self.settings.max_bytes


def create() -> Gateway:
    """Return the application of a worker."""
    app = Bare(__name__)
    pipeline = joblib.load(ROOT / "regression" / "1" / "model.joblib")
    scale = pipeline["scale"].scale_
    coefficients = pipeline["regress"].coef_ / scale
    intercept = pipeline["regress"].intercept_ - coefficients @ pipeline["scale"].mean_
    network = Network(artifacts.open(ROOT, "sentiment").files)

    @app.post("/rows")
    def rows() -> Any:
        content = request.get_json()
        values = np.array([list(row.values()) for row in content["instances"]], dtype=float)
        return jsonify({"predictions": (intercept + values @ coefficients).tolist()})

    @app.post("/reviews")
    def reviews() -> Any:
        tokens = [network.vocabulary.read(text) for text in request.get_json()["instances"]]
        return jsonify({"predictions": softmax(network.scores(tokens)).tolist()})

    return Gateway(cast(Any, app))


if __name__ == "__main__":
    with listen("127.0.0.1", int(sys.argv[1])) as listener:
        run_workers(create, listener, 2)
