"""All errors that mlapp raises on purpose, each with its HTTP status."""

import reprlib
import sys
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one input: where, what arrived, and what is allowed.

    `row` is the row's label; None if the fault is in the whole table.
    """

    input: str
    got: str
    allowed: str
    row: Hashable | None = None

    @property
    def message(self) -> str:
        """The fault without its row, for where there is only one row."""
        return f"{self.input}: got {self.got}, expected {self.allowed}"

    def __str__(self) -> str:
        return self.message if self.row is None else f"row {self.row}, {self.message}"


class MlappError(Exception):
    """Any error whose message is for the user; `status` is its HTTP status."""

    status: ClassVar[int] = 500


class InvalidInput(MlappError):
    """Rows or texts that the model's check refuses; `faults` lists every reason."""

    status = 422

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(map(str, self.faults)))


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
    """Return a value as messages show what arrived: its repr, at most 80 characters."""
    numpy = sys.modules.get("numpy")  # not imported for this: the process of the records is small
    if value is None or (isinstance(value, str) and not value.strip()):
        return "nothing"
    if isinstance(value, dict | list | tuple):
        text = _describe_nested(value)
    elif numpy and isinstance(value, numpy.generic):
        text = repr(value.item())
    else:
        text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _describe_nested(value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> str:
    """Return the beginning of a nested value, at a cost that does not depend on its size."""
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxstring, brief.maxother = 3, 80, 80
    brief.maxlist = brief.maxtuple = brief.maxdict = 8
    return brief.repr(dict(islice(value.items(), 9)) if isinstance(value, dict) else value)
