"""A bare Flask handler over the same models, without any check: what ours is compared with.

`service.py` runs it under gunicorn.
"""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
from flask import Flask, jsonify, request

from mlapp.sentiment import open_sentiment, softmax

ROOT = Path(__file__).resolve().parents[1] / "artifacts"

app = Flask(__name__)
pipeline = joblib.load(ROOT / "regression" / "1" / "model.joblib")
scale = pipeline["scale"].scale_
coefficients = pipeline["regress"].coef_ / scale
intercept = pipeline["regress"].intercept_ - coefficients @ pipeline["scale"].mean_
sentiment = open_sentiment(ROOT, "sentiment")


@app.post("/rows")
def rows() -> Any:
    """Predict rows."""
    content = request.get_json()
    values = np.array([list(row.values()) for row in content["instances"]], dtype=float)
    return jsonify({"predictions": (intercept + values @ coefficients).tolist()})


@app.post("/reviews")
def reviews() -> Any:
    """Classify reviews."""
    tokens = [sentiment.vocabulary.read(text) for text in request.get_json()["instances"]]
    return jsonify({"predictions": softmax(sentiment.scores(tokens)).tolist()})
