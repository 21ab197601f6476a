"""The regression served by LitServe, as in its documentation, for comparison.

    python benchmarks/litserve_service.py PORT

It runs in an environment with `litserve`, `joblib` and `scikit-learn`; two workers, one API server
each.
"""

import sys
from pathlib import Path
from typing import Any

import joblib
import litserve
import numpy as np

MODEL = Path(__file__).resolve().parents[1] / "artifacts" / "regression" / "1" / "model.joblib"


class Regression(litserve.LitAPI):  # type: ignore[misc]
    """The model."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the model."""
        self.model = joblib.load(MODEL)

    def decode_request(self, request: dict[str, Any]) -> Any:
        """Return the rows of a request."""
        return np.array([list(row.values()) for row in request["instances"]], dtype=float)

    def predict(self, x: Any) -> Any:
        """Predict rows."""
        return self.model.predict(x)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Return the answer."""
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Regression(), accelerator="cpu", workers_per_device=2)
    server.run(
        port=int(sys.argv[1]),
        num_api_servers=2,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
