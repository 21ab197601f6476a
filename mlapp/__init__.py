"""Trained models, checked, predicted with and explained.

    data -> training/* -> artifacts/<name>/<version>/ -> mlapp -> pages/*, service, `mlapp`

    errors      what can go wrong, and the HTTP status each error has
    settings    what is read from the environment
    tables      files of tables, read and written the same way for training and for serving
    schema      the inputs of a table model, and the one check of a row
    manifest    what a published version says of itself
    families    what a model takes and gives, and one file for each family of models
    store       versions on disk, and the models opened from them
    loaders     what the pages call to get a model
    records     what was answered, and whether it was right
    answering   the one function that makes predictions
    scoring     a batch, a file, a background job, a cluster
    service     the web service: forms, REST, metrics
    dashboard   what the pages share
    cli         the `mlapp` command

Serving never imports `training`, and never TensorFlow. import-linter checks the layers; its
contracts are in pyproject.toml.
"""
