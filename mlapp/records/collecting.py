"""Requests to one model in one hour, until they are written: rows, and values to be counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import TypeAlias

import numpy as np

from mlapp.families.contract import Answers, Labels, Model, NumberOutput, Numbers
from mlapp.records import bins
from mlapp.records.bins import Binning, Series
from mlapp.records.entries import Record, answer_columns
from mlapp.records.transactions import Key, Row
from mlapp.tables.numbers import Floats

Binnings: TypeAlias = Mapping[Series, Binning]


class Group:
    """Requests to one model in one hour.

    As few objects as possible are kept of a request: where the next one cannot have their memory,
    that costs it more time than the recording does.
    """

    def __init__(self, model: Model, hour: int) -> None:
        """Begin without requests.

        Args:
            model: that answers.
            hour: since 1970, in which it does.
        """
        self.model, self._hour = model, hour
        self._requests: list[tuple[str, int, str, int, float, Sequence[str | None] | None]] = []
        self._inputs, self._numbers = bytearray(), bytearray()  # of 64-bit numbers
        self._labels: list[Labels] = []
        self._asked: list[str] = []

    def __len__(self) -> int:
        """Return the number of instances."""
        return sum(count for _, _, _, count, _, _ in self._requests)

    def add(self, record: Record, asked: Sequence[str] = ()) -> int:
        """Add a request, and return its number of instances.

        Args:
            record: the request.
            asked: its instances as JSON, if they are recorded.
        """
        given, answers = bins.inputs(record.model, record.batch), record.answers
        inputs, count = b"" if given is None else _bytes(given), len(answers)
        if isinstance(answers, Numbers):
            self._numbers += _bytes(answers.values)
        else:
            self._labels.append(answers)
        self._inputs += inputs
        self._asked += asked
        self._requests.append(
            (record.id, record.time, record.channel, count, record.seconds, record.keys)
        )
        return count

    def collect(self, binnings: Binnings) -> tuple[list[Row], Counter[Key]]:
        """Return the rows of the table `answers`, and the counts of values and of requests."""
        answers = self._answers()
        given = None
        if self.model.takes.kind == "row":
            given = _matrix(self._inputs, len(self.model.takes.names))
        counts = count(self.model, self._hour, given, answers, binnings)
        counts.update(self._durations())
        return self._rows(answers), counts

    def _rows(self, answers: Answers) -> list[Row]:
        name, version = self.model.manifest.name, self.model.manifest.version
        heads = [
            (id_, place, time, name, version, channel, count, seconds)
            for id_, time, channel, count, seconds, _ in self._requests
            for place in range(count)
        ]
        keys = [
            key and key.replace("\0", "")  # which PostgreSQL does not take
            for _, _, _, count, _, keys in self._requests
            for key in keys or repeat(None, count)
        ]
        asked = self._asked or repeat(None, len(keys))
        tails = zip(*answer_columns(answers), keys, asked, strict=True)
        return [(*head, *tail) for head, tail in zip(heads, tails, strict=True)]

    def _durations(self) -> Counter[Key]:
        """Return the counts of requests by channel and time."""
        key, counts = (self.model.manifest.name, self.model.manifest.version), Counter[Key]()
        seconds: dict[str, list[float]] = {}
        for _, _, channel, _, each, _ in self._requests:
            seconds.setdefault(channel, []).append(each)
        for channel, values in seconds.items():
            for place, times in bins.SECONDS.count(np.array(values)).items():
                counts[*key, self._hour, "seconds", channel, place] += times
        return counts

    def _answers(self) -> Answers:
        """Return the answers to all requests as those to one."""
        output = self.model.gives
        if isinstance(output, NumberOutput):
            return Numbers(output, _matrix(self._numbers, len(output.fields)))
        extras = {
            name: np.concatenate([each.extras[name] for each in self._labels])
            for name in self._labels[0].extras
        }
        probabilities = np.concatenate([each.probabilities for each in self._labels])
        return Labels(output, probabilities, extras)


def count(
    model: Model, hour: int, given: Floats | None, answers: Answers, binnings: Binnings
) -> Counter[Key]:
    """Return the counts of instances, and of the answers to them.

    Args:
        model: that answered.
        hour: since 1970, in which it did.
        given: what `bins.inputs` returned for the instances.
        answers: the answers to them.
        binnings: the bins of the model's series.
    """
    key, counts = (model.manifest.name, model.manifest.version, hour), Counter[Key]()
    for series, values in bins.columns(model, given, answers).items():
        if binning := binnings.get(series):
            for place, times in binning.count(values).items():
                counts[*key, *series, place] += times
    return counts


def _bytes(numbers: Floats) -> bytes:
    return np.asarray(numbers, dtype=np.float64).tobytes()


def _matrix(numbers: bytearray, columns: int) -> Floats:
    return np.frombuffer(numbers).reshape(-1, columns)
