"""The one way in: every prediction is made here, and gets an identifier.

Pages, forms, REST and the command line call `answer`. Files and clusters answer batch by batch in
`scoring.batch`.

To add a way to ask, as a route or a command: get a model from `loaders` or `store`, pass what
arrived to its `check`, call `answer` with a channel of your own, and show `answers.records()` or
`answers.table()`. What differs between models is in `model.takes` and `model.gives`.
"""

import os
import time
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mlapp.families.contract import Answers, Model

Channel: TypeAlias = Literal["page", "form", "v1", "v2", "file", "command"]


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers to a batch.

    Attributes:
        id: the identifier, a UUID of version 7.
        batch: what was asked.
        answers: what the model answers.
    """

    id: str
    batch: Any
    answers: Answers


def answer(model: Model, batch: Any, channel: Channel) -> Answered:  # noqa: ARG001
    """Answer a batch that the model's check returned.

    Args:
        model: any published model.
        batch: what `check` or `check_columns` of the model returned.
        channel: where the batch came from.
    """
    return Answered(new_id(), batch, model.answer(batch))


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562, section 5.7): those made later sort behind."""
    stamp, number = time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10))
    head, tail = number >> 68, number & (1 << 62) - 1
    digits = f"{stamp << 80 | 0x7 << 76 | head << 64 | 0b10 << 62 | tail:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
