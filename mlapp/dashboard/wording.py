"""The nouns for a model's texts and labels on its page: the columns that it was trained on."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_PLAIN = re.compile(r"[^\W\d_]+(?:[ _-][^\W\d_]+){0,2}")  # one to three words
LONGEST = 30  # the most characters of a column's name that is used as a noun


class Wording(NamedTuple):
    """Nouns, in lower case.

    Attributes:
        text: for a text, as in "Enter a review".
        label: for a label, as in "Predict sentiment".
    """

    text: str
    label: str

    @property
    def a_text(self) -> str:
        """The noun of a text with its article."""
        return f"{'an' if self.text[0] in 'aeiou' else 'a'} {self.text}"


def read_wording(report: Mapping[str, Any]) -> Wording:
    """Return the nouns of a model, from its report.

    Versions that do not name their columns were trained on reviews and sentiments.
    """
    columns = report.get("columns", {"text": "review", "label": "sentiment"})
    return Wording(_noun(columns["text"], "text"), _noun(columns["label"], "label"))


def _noun(column: str, usual: str) -> str:
    if len(column) > LONGEST or not _PLAIN.fullmatch(column):
        return usual
    return re.sub("[_-]", " ", column).lower()


def as_title(name: str) -> str:
    """Return a model's name as a title."""
    words = re.sub("[-_.]+", " ", name).strip()
    return words[:1].upper() + words[1:]
