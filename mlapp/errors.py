"""All errors that mlapp raises on purpose, each with its HTTP status."""

import reprlib
import sys
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, time
from itertools import islice
from typing import Any, ClassVar


class _WholeRow(str):
    """Tells a row as a whole from an input that is called the same."""

    __slots__ = ()


ROW = _WholeRow("row")  # the input of a fault that is in a row as a whole


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one input, or with a whole row (`ROW`): what arrived, what is allowed.

    `row` is the row's label; None if the fault is in the whole table.
    """

    input: str
    got: str
    allowed: str
    row: Hashable | None = None

    @property
    def message(self) -> str:
        """The fault without its row, for where there is only one row."""
        said = f"got {self.got}, expected {self.allowed}"
        return said if isinstance(self.input, _WholeRow) else f"{self.input}: {said}"

    def __str__(self) -> str:
        return self.message if self.row is None else f"row {self.row}, {self.message}"


class MlappError(Exception):
    """Any error whose message is for the user; `status` is its HTTP status."""

    status: ClassVar[int] = 500


class InvalidInput(MlappError):
    """Rows or texts that the model's check refuses; `faults` lists every reason."""

    status = 422

    def __init__(self, faults: Sequence[Fault], message: str | None = None) -> None:
        """Make the error.

        Args:
            faults: one or more.
            message: all of them in a sentence; by default they are listed.
        """
        self.faults = tuple(faults)
        super().__init__(message or "; ".join(map(str, self.faults)))


class InvalidData(MlappError):
    """A data set that a model cannot be trained on."""

    status = 422


class InvalidTable(MlappError):
    """A table that cannot be read, or cannot be scored with the given options."""

    status = 422


class OutputError(MlappError):
    """A file that cannot be written."""


class DiskFull(OutputError):
    """A file that does not fit on the disk."""

    status = 507


class ClusterError(MlappError):
    """A Ray cluster that cannot be reached, or that failed."""


class InvalidSettings(MlappError):
    """An environment variable or an option with a value that cannot be used."""


class ArtifactError(MlappError):
    """A published version that cannot be opened; `fix` is the command that fixes it, if known."""

    status = 503

    def __init__(self, message: str, fix: str | None = None) -> None:
        self.message, self.fix = message, fix
        super().__init__(f"{message}. To fix it: {fix}" if fix else message)


class ModelNotFound(ArtifactError):
    """No such model or version is published."""

    status = 404


class TrainingError(MlappError):
    """A training that cannot be run again, or that failed."""


class GateRefused(MlappError):
    """A candidate that is worse than the version that is served, or cannot be judged."""

    status = 409


class RecordsUnavailable(MlappError):
    """The database of the records cannot be reached, read or written."""

    status = 503


class AnswerNotFound(MlappError):
    """No answer of that identifier is recorded."""

    status = 404


class OtherTruth(MlappError):
    """Feedback that contradicts what was recorded before."""

    status = 409


def without_surrogates(text: str) -> str:
    """Return a text with U+FFFD for each half of a surrogate pair, which UTF-8 cannot hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def quote(names: Iterable[str], most: int = 20) -> str:
    """Return names in quotes, separated by commas; only the first `most`."""
    names = list(names)
    return ", ".join(map(repr, names[:most])) + (", ..." if names[most:] else "")


def describe(value: object) -> str:
    """Return a value as messages show what arrived, in at most 80 characters.

    Truth values are as in JSON, dates and times as in ISO 8601; all others are as in Python.
    """
    numpy = sys.modules.get("numpy")  # not imported for this: the process of the records is small
    if value is None or (isinstance(value, str) and not value.strip()):
        return "nothing"
    if numpy and isinstance(value, numpy.generic) and not isinstance(value, numpy.datetime64):
        value = value.item()
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, date | time) or (numpy and isinstance(value, numpy.datetime64)):
        text = str(value)
    elif isinstance(value, dict | list | tuple):
        text = _describe_nested(value)
    else:
        text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _describe_nested(value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> str:
    """Return the beginning of a nested value, at a cost that does not depend on its size."""
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxstring, brief.maxother = 3, 80, 80
    brief.maxlist = brief.maxtuple = brief.maxdict = 8
    return brief.repr(dict(islice(value.items(), 9)) if isinstance(value, dict) else value)
