"""The nouns on pages: what a model predicts, and its name as a title."""

import re

from mlapp.families.contract import Model


def name_target(model: Model) -> str:
    """Return what people call that which a model predicts: the column that it was trained on."""
    wording = getattr(model, "wording", None)
    return str(wording.label if wording else model.gives.name)


def as_title(name: str) -> str:
    """Return a model's name as a title."""
    words = re.sub("[-_.]+", " ", name).strip()
    return words[:1].upper() + words[1:]
