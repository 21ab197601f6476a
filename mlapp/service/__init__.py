"""The web service: the published models behind HTTP, for people and for programs.

server    uvicorn: limits for slow clients, worker processes
gateway   the service as an ASGI application: hosts, bodies, places, threads
app       create_app(): the key, headers, errors, the access log, health checks
state     what a process's requests share: settings, models, metrics
metrics   counts for Prometheus, over all workers
drift_metrics   how far inputs have moved, for Prometheus
bodies    unpacking a request's body, and writing JSON
v1        the short form: /v1/models/{name}:predict and :explain
score     whole files: /v1/models/{name}:score
v2        the Open Inference Protocol, with the binary tensor extension
tensors   its tensors, in JSON and as binary data
forms     pages for people: /form, /predict, /sentiment
openapi   /openapi.json and /docs, from the models' schemas
requests  the JSON schemas of requests, for that document
run       `mlapp serve`
replicas  `mlapp serve --engine ray`

    connection -> server -> gateway -> app -> v1, v2, score, forms -> the model
"""

from mlapp.service.app import create_app

__all__ = ["create_app"]
