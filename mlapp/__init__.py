"""Trained models, checked, predicted with and explained.

    data -> training/* -> artifacts/<name>/<version>/ -> mlapp -> pages/*, the `mlapp` command

    errors      what can go wrong, and the HTTP status each error has
    settings    what is read from the environment
    schema      the inputs of a table model, and the one check of a row
    artifacts   versions on disk: publish, open, pin
    regression  RegressionModel: predict, explain, what_if
    text        the check and the tokenizer of texts, shared with training
    sentiment   SentimentModel: predict, explain
    models      any published model, by its task
    loaders     the cached loaders that the Streamlit pages call
    charts      the pages' charts
    cli         the `mlapp` command

Serving never imports `training`, and never TensorFlow.
"""
