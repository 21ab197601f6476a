"""`mlapp predict`: one row or one text."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mlapp.errors import InvalidInput, quote
from mlapp.records.process import start_early
from mlapp.settings import read_settings


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "predict",
        help='predict one row (--var_1 734 ...) or one text ("a review")',
        usage='mlapp predict [--model NAME] (--INPUT VALUE ... | "TEXT")',
        epilog="Without inputs, it names those that are needed. --set INPUT=VALUE sets an input"
        " that is called model, help or set. A text that begins with a hyphen comes after --.",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="(default: sentiment for a text, else regression)"
    )

    def run(options: argparse.Namespace) -> int:
        try:
            return predict_one(options.model, options.rest)
        except UsageError as error:
            parser.error(str(error))

    parser.set_defaults(run=run)


class UsageError(Exception):
    """Arguments that do not fit what the model takes."""


def predict_one(name: str | None, words: Sequence[str]) -> int:
    """Print the prediction for one row or text, one line per value.

    Args:
        name: the model's name; by default that for rows or for texts in `loaders.USUAL`.
        words: `--INPUT VALUE` for each input of a row, or one text; `--` before it if it begins
            with a hyphen.

    Raises:
        UsageError: the arguments do not fit what the model takes.
        InvalidInput: the row or the text is refused.
    """
    settings = read_settings()
    process = start_early(settings)
    from mlapp import answering, store
    from mlapp.loaders import USUAL
    from mlapp.records import writer as records

    records.start(process)
    if is_text := words[:1] == ["--"]:
        words = words[1:]
    is_row = not is_text and (not words or words[0].startswith("--"))
    model = store.open_model(settings.artifacts, name or USUAL["row" if is_row else "text"])
    own = model.manifest.name
    instances: Sequence[object] = words
    if model.takes.kind == "row":
        if not is_row:
            raise UsageError(f"{own} takes inputs, not a text")
        instances = [read_row(model.takes.names, words)]
    elif words and is_row:
        raise UsageError(f"{own} takes a text, not inputs")
    elif len(words) != 1:
        raise UsageError(f"{own} takes one text, in quotes; got {len(words)} words")
    try:
        answers = answering.answer(model, model.check(instances), "command").answers
    except InvalidInput as error:  # there is only one row
        raise InvalidInput([replace(fault, row=None) for fault in error.faults]) from None
    for key, value in answers.records()[0].items():
        print(f"{key}: {value}")
    for notice in answers.notices:
        print(f"notice: {notice.message}", file=sys.stderr)
    return 0


def read_row(names: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """Read a row from `--INPUT VALUE`, `--INPUT=VALUE` and `--set INPUT=VALUE`.

    Names must be complete; `--set` is for those that are also options of the command.

    Args:
        names: the model's inputs.
        words: the command's arguments.

    Raises:
        UsageError: an argument has none of these forms, or an input has no value or two.
    """
    row: dict[str, str] = {}
    left, options = list(words), {f"--{name}" for name in names}
    while left:
        word = left.pop(0)
        given = word.removeprefix("--")
        if not word.startswith("--"):
            raise UsageError(f"got {word!r}, expected --INPUT VALUE")
        if word == "--set":
            if not left or "=" not in left[0]:
                raise UsageError("--set needs INPUT=VALUE")
            given = left.pop(0)
        elif given in names:
            if not left or left[0] in options:
                raise UsageError(f"{word} needs a value")
            given = f"{given}={left.pop(0)}"
        fitting = [name for name in names if given.startswith(f"{name}=")]
        if not fitting:
            unknown = given.partition("=")[0]
            raise UsageError(f"there is no input {unknown!r}; there are {quote(names)}")
        name = max(fitting, key=len)
        if name in row:
            raise UsageError(f"the input {name!r} has two values")
        row[name] = given[len(name) + 1 :]
    return row
