"""Trained models, checked, predicted with and explained.

    data -> training/* -> artifacts/<name>/<version>/ -> mlapp -> pages/*, service, `mlapp`

    errors      what can go wrong, and the HTTP status each error has
    settings    what is read from the environment
    schema      the inputs of a table model, and the one check of a row
    text        the check and the tokenizer of texts, shared with training
    artifacts   versions on disk: publish, open, pin
    regression  RegressionModel: predict, explain, what_if
    sentiment   SentimentModel: predict, explain
    models      any published model, by its task
    repository  models opened once per process and version, and kept up to date
    tables      files of tables, read and written the same way for training and for serving
    scoring     a table through a model; `score_batch` is what every engine calls
    files       a file scored into a file: whole or not there, and resumable
    cluster     folders of tables on Ray
    loaders     what the pages call to get a model
    ui          what the pages share; with the pages, all that knows Streamlit
    many        the pages' part for whole files; jobs does the work, tallies counts for charts
    charts      the pages' charts
    markup      a text with its decisive words marked
    service     the web service: forms, REST, metrics
    cli         the `mlapp` command; `mlapp score` is in score_command

Serving never imports `training`, and never TensorFlow.
"""
