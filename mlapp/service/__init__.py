"""The web service: the published models over HTTP, as HTML forms and as REST.

server    uvicorn: limits for slow clients, worker processes
gateway   the service as an ASGI application: hosts, bodies, queues, threads
app       create_app(): the API key, headers, errors, the access log, health checks
state     shared by the requests of a process: settings, models, metrics
metrics   metrics for Prometheus, over all workers
drift_metrics   metrics of drift, for Prometheus
bodies    request bodies and JSON responses
v1        the short form: /v1/models/{name}:predict and :explain
score     whole files: /v1/models/{name}:score
feedback  /v1/feedback: what turned out to be true of answers
v2        the Open Inference Protocol, with the binary tensor extension
tensors   its tensors, in JSON and as binary data
forms     HTML forms: /form, /predict, /sentiment
openapi   /openapi.json and /docs, from the models' schemas
requests  the JSON schemas of requests, for that document
responses   the JSON schemas of its responses
run       `mlapp serve`
replicas  `mlapp serve --engine ray`

    connection -> server -> gateway -> app -> v1, v2, score, forms -> the model
"""

from mlapp.service.app import create_app

__all__ = ["create_app"]
