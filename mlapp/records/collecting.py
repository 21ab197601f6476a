"""Requests to one model in one hour, until they are written: rows, and values to be counted."""

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlapp.families.contract import Answers, Labels, Model, NumberOutput, Numbers
from mlapp.records import bins
from mlapp.records.bins import Binning, Series
from mlapp.records.entries import Record, answer_columns
from mlapp.records.transactions import Columns, Key
from mlapp.tables.numbers import Floats

Binnings: TypeAlias = Mapping[Series, Binning]
Heads: TypeAlias = NDArray[np.void]  # of requests, with the fields of `HEADS`

# Of a request: identifier, milliseconds since 1970, seconds, number of instances, and the place of
# the channel among those of the group.
HEAD = struct.Struct("<36sqdIB")
FLOAT = np.dtype(np.float64)
HEADS = np.dtype(
    [("id", "S36"), ("time", "<i8"), ("seconds", "<f8"), ("rows", "<u4"), ("channel", "u1")]
)


class Group:
    """Requests to one model in one hour.

    Requests are kept as bytes: where the next one cannot have the memory of their objects, that
    costs it more time than the recording does.
    """

    def __init__(self, model: Model, hour: int) -> None:
        """Begin without requests.

        Args:
            model: that answers.
            hour: since 1970, in which it does.
        """
        self.model, self._hour = model, hour
        self._heads = bytearray()
        self._channels: dict[str, int] = {}  # in the order of their first requests
        self._keys: dict[int, Sequence[str | None]] = {}  # by the place of the first instance
        self._size = 0
        self._inputs, self._numbers = bytearray(), bytearray()  # of 64-bit numbers
        self._labels: list[Labels] = []
        self._asked: list[str] = []

    def __len__(self) -> int:
        """Return the number of instances."""
        return self._size

    def add(self, record: Record, asked: Sequence[str] = ()) -> int:
        """Add a request, and return its number of instances.

        Args:
            record: the request.
            asked: its instances as JSON, if they are recorded.
        """
        given, answers = bins.inputs(record.model, record.batch), record.answers
        inputs, count = b"" if given is None else _bytes(given), len(answers)
        at = self._channels.setdefault(record.channel, len(self._channels))
        head = HEAD.pack(record.id.encode("ascii"), record.time, record.seconds, count, at)
        if isinstance(answers, Numbers):
            self._numbers += _bytes(answers.values)
        else:
            self._labels.append(answers)
        if record.keys:
            self._keys[self._size] = record.keys
        self._heads += head
        self._inputs += inputs
        self._asked += asked
        self._size += count
        return count

    def collect(self, binnings: Binnings) -> tuple[Columns, Counter[Key]]:
        """Return what the table `answers` gets, and the counts of values and of requests."""
        answers, heads = self._answers(), np.frombuffer(self._heads, dtype=HEADS)
        given = None
        if self.model.takes.kind == "row":
            given = _matrix(self._inputs, len(self.model.takes.names))
        counts = count(self.model, self._hour, given, answers, binnings)
        counts.update(self._durations(heads))
        return self._columns(heads, answers), counts

    def _columns(self, heads: Heads, answers: Answers) -> Columns:
        same: dict[str, Any] = {
            "model": self.model.manifest.name,
            "version": self.model.manifest.version,
        }
        each: dict[str, Sequence[Any]] = {}
        sizes = heads["rows"].astype(np.int64)
        if (sizes == 1).all():
            same |= {"place": 0, "rows": 1}
        else:
            starts = np.cumsum(sizes) - sizes
            each["place"] = (np.arange(self._size) - np.repeat(starts, sizes)).tolist()
            each["rows"] = np.repeat(sizes, sizes).tolist()
            heads = np.repeat(heads, sizes)
        channels = list(self._channels)
        if len(channels) == 1:
            same["channel"] = channels[0]
        else:
            each["channel"] = [channels[at] for at in heads["channel"].tolist()]
        each["id"] = heads["id"].astype("U36").tolist()
        each |= {name: heads[name].tolist() for name in ("time", "seconds")}
        each |= answer_columns(answers)
        if self._keys:
            each["key"] = self._keys_of_all()
        if self._asked:
            each["inputs"] = self._asked
        return Columns(self._size, same, each)

    def _keys_of_all(self) -> list[str | None]:
        found: list[str | None] = [None] * self._size
        for first, keys in self._keys.items():
            # PostgreSQL does not take a null character.
            found[first : first + len(keys)] = [key and key.replace("\0", "") for key in keys]
        return found

    def _durations(self, heads: Heads) -> Counter[Key]:
        """Return the counts of requests by channel and time."""
        key, counts = (self.model.manifest.name, self.model.manifest.version), Counter[Key]()
        for channel, at in self._channels.items():
            found = bins.SECONDS.count(heads["seconds"][heads["channel"] == at])
            for place, times in found.items():
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
    if numbers.dtype is not FLOAT:  # the conversion takes longer than the rest, also without need
        numbers = np.asarray(numbers, dtype=FLOAT)
    return numbers.tobytes()


def _matrix(numbers: bytearray, columns: int) -> Floats:
    return np.frombuffer(numbers).reshape(-1, columns)
