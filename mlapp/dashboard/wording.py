"""The name of a model as a title."""

import re


def as_title(name: str) -> str:
    """Return a model's name as a title."""
    words = re.sub("[-_.]+", " ", name).strip()
    return words[:1].upper() + words[1:]
