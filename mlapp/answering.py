"""The one place where predictions are made for users; each gets an identifier and is recorded.

Pages, forms, REST and the command line call `answer`. Files and clusters are answered batch by
batch in `scoring.batch`; a run over a file has one identifier for all its rows.

To add an entry point, such as a route or a command: get a model from `loaders` or `store`, pass
what arrived to its `check`, call `answer` with a new `Channel`, and show `answers.records()` or
`answers.table()`. What differs between models is in `model.takes` and `model.gives`.
"""

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mlapp.errors import Fault
from mlapp.families.contract import Answers, Model
from mlapp.manifest import Manifest
from mlapp.records import writer as records
from mlapp.records.entries import Record, Refusal
from mlapp.records.transactions import Run

DRAWN, DIGITS = 250, 20  # identifiers whose digits are drawn at once, and digits of each

Channel: TypeAlias = Literal["page", "form", "v1", "v2", "file", "command"]

# A call of the system for each identifier would let another thread take the interpreter.
_random: deque[str] = deque()


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers to a batch.

    Attributes:
        id: the identifier, a UUID of version 7. Of several answers, the one in place k is `id-k`.
        batch: the checked input.
        answers: the model's answers to it.
    """

    id: str
    batch: Any
    answers: Answers


def answer(
    model: Model, batch: Any, channel: Channel, keys: Sequence[str | None] | None = None
) -> Answered:
    """Answer a batch that the model's check returned, and record the answers.

    Args:
        model: any published model.
        batch: what `check` or `check_columns` of the model returned.
        channel: where the batch came from.
        keys: the client's own name of each instance, if it sent any.
    """
    began = time.perf_counter()
    answered = Answered(new_id(), batch, model.answer(batch))
    if log := records.writer():
        seconds, now = time.perf_counter() - began, time.time_ns() // 1_000_000
        log.add(Record(answered.id, now, model, channel, seconds, batch, answered.answers, keys))
    return answered


def note_refusal(model: Model, channel: Channel, status: int, faults: Sequence[Fault]) -> None:
    """Record that a request was not answered.

    Args:
        model: the model that the request was for.
        channel: where the request came from.
        status: the HTTP status of the error.
        faults: what was wrong with the instances, if that is why.
    """
    if log := records.writer():
        log.add_refusal(Refusal(time.time_ns() // 1_000_000, model, channel, status, faults))


def count(model: Model, batch: Any, answers: Answers, refused: Mapping[str, int]) -> None:
    """Count a batch of a file and its answers for the measurement of drift.

    Args:
        model: the model.
        batch: the rows that were not refused.
        answers: the answers to them.
        refused: of how many rows each input was at fault.
    """
    if log := records.writer():
        log.count(model, batch, answers, refused)


def note_run(
    identifier: str,
    manifest: Manifest,
    channel: Channel,
    seconds: float,
    rows: tuple[int, int, int, int],
    complete: bool,
) -> None:
    """Record the run of a model over a file.

    Args:
        identifier: of the run, from `new_id`.
        manifest: of the model.
        channel: where the file came from.
        seconds: how long the run took.
        rows: how many there were, were scored, scored with a notice, and refused.
        complete: whether the run reached the end of the file.
    """
    if log := records.writer():
        now, name, version = time.time_ns() // 1_000_000, manifest.name, manifest.version
        log.add_run(Run(identifier, now, name, version, channel, seconds, *rows, complete))


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562, section 5.7); they sort by the time of creation."""
    stamp = f"{time.time_ns() // 1_000_000:012x}"
    try:
        random = _random.pop()
    except IndexError:
        random = _draw()
    variant = "89ab"[int(random[0], 16) & 3]
    return f"{stamp[:8]}-{stamp[8:]}-7{random[1:4]}-{variant}{random[4:7]}-{random[7:19]}"


def _draw() -> str:
    """Return the random digits of an identifier, and keep those of many more."""
    digits = os.urandom(DRAWN * DIGITS // 2).hex()
    drawn = [digits[start : start + DIGITS] for start in range(0, len(digits), DIGITS)]
    _random.extend(drawn[1:])
    return drawn[0]


if hasattr(os, "register_at_fork"):  # a forked process must not draw its parent's digits
    os.register_at_fork(after_in_child=_random.clear)
