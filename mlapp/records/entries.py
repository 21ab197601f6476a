"""What is handed to the writer: answered requests, refused ones, and files that were scored."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from mlapp.errors import Fault, without_surrogates
from mlapp.families.contract import Answers, Batch, Model
from mlapp.records.bins import REFUSED
from mlapp.records.transactions import HOUR, Key, Row


class Record(NamedTuple):
    """What is known of a request that was answered.

    Attributes:
        id: the identifier of its answers.
        time: when it was answered, in milliseconds since 1970.
        model: what answered.
        channel: where it came from.
        seconds: that the model took.
        batch: what was asked.
        answers: the answers.
        keys: what the client calls each instance, if it does.
    """

    id: str
    time: int
    model: Model
    channel: str
    seconds: float
    batch: Batch
    answers: Answers
    keys: Sequence[str | None] | None = None


class Refusal(NamedTuple):
    """What is known of a request that was not answered."""

    time: int
    model: Model
    channel: str
    status: int
    faults: Sequence[Fault]

    def counts(self) -> Counter[Key]:
        """Return what it adds to the counts."""
        manifest, hour = self.model.manifest, self.time // HOUR
        key = manifest.name, manifest.version, hour
        counts = Counter[Key]({(*key, "error", self.channel, self.status): 1})
        names = set(self.model.takes.names)
        for fault in self.faults:
            if fault.input in names:
                counts[*key, "input", fault.input, REFUSED] += 1
        return counts


class Shadowed(NamedTuple):
    """A candidate's answers to a request: its identifier and time, the candidate, the answers."""

    id: str
    time: int
    model: str
    version: int
    answers: Answers

    def rows(self) -> list[Row]:
        """Return the rows of the table `shadows`."""
        columns, nothing = answer_columns(self.answers), [None] * len(self.answers)
        names = ("prediction", "label", "probability")
        given = zip(*(columns.get(name, nothing) for name in names), strict=True)
        fixed = (self.time, self.model, self.version)
        return [(self.id, place, *fixed, *each) for place, each in enumerate(given)]


def instances(record: Record) -> list[str]:
    """Return what was asked as JSON, for each instance."""
    return [_dumps(record.batch.row(place)) for place in range(len(record.answers))]


def _dumps(row: Mapping[str, Any]) -> str:
    try:
        return orjson.dumps(row).decode()
    except orjson.JSONEncodeError:  # a text with half of a surrogate pair, as a terminal may give
        return without_surrogates(json.dumps(row, ensure_ascii=False))


def answer_columns(answers: Answers) -> dict[str, list[Any]]:
    """Return what the answers have of prediction, lower, upper, label and probability."""
    tensors = answers.tensors()
    names = ("prediction", "lower", "upper", "label", "probability")
    return {name: tensors[name].tolist() for name in names if name in tensors}
