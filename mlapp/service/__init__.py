"""The web service: the published models behind HTTP, for people and for programs.

app      create_app(): limits, keys, headers, errors, the access log, health
state    what a process's requests share: settings, models, metrics
bodies   reading a request's body, and writing JSON
v1       the short form: /v1/models/{name}:predict and :explain
score    whole files: /v1/models/{name}:score
v2       the Open Inference Protocol, with the binary tensor extension
forms    pages for people: /form, /predict, /sentiment
tensors  the tensors of v2, in JSON and as binary data
openapi  /openapi.json and /docs, from the models' schemas
requests  what requests look like, for that document
gateway  the service within the dashboard's server
run      `mlapp serve`
replicas `mlapp serve --engine ray`
"""

from mlapp.service.app import create_app

__all__ = ["create_app"]
