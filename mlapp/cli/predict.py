"""`mlapp predict`: one row or one text."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from mlapp.errors import Fault, InvalidInput, quote
from mlapp.records.process import start_early
from mlapp.settings import read_settings


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "predict",
        help='predict one row (--var_1 734 ...) or one text ("a review")',
        usage='mlapp predict [--model NAME] (--INPUT VALUE ... | "TEXT")',
        epilog="--set INPUT=VALUE sets an input that is called model, help or set. A text that"
        " begins with a hyphen comes after --.",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="(default: sentiment for a text, else regression)"
    )
    parser.set_defaults(run=lambda options: predict_one(options.model, options.rest))


def predict_one(name: str | None, words: Sequence[str]) -> int:
    """Print the prediction for one row or text, one line per value.

    Args:
        name: the model's name; by default that for rows or for texts in `loaders.USUAL`.
        words: `--INPUT VALUE` for each input of a row, or one text; `--` before it if it begins
            with a hyphen.

    Raises:
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
    instances: Sequence[object] = words
    if model.takes.kind == "row":
        instances = [read_row(model.takes.names, words)]
    elif len(words) != 1:
        raise InvalidInput([Fault("text", f"{len(words)} words", "one text, in quotes")])
    answers = answering.answer(model, model.check(instances), "command").answers
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
        InvalidInput: with each argument that has none of these forms.
    """
    row: dict[str, str] = {}
    faults = []
    left = list(words)
    while left:
        word = left.pop(0)
        given = word.removeprefix("--")
        if word == "--set" and left:
            given = left.pop(0)
        elif word.startswith("--") and given in names and left:
            given = f"{given}={left.pop(0)}"
        fitting = [name for name in names if given.startswith(f"{name}=")]
        if not fitting or not word.startswith("--"):
            faults.append(Fault(word, "no input with a value", f"one of {quote(names)}"))
            continue
        name = max(fitting, key=len)
        if name in row:
            faults.append(Fault(name, "two values", "one"))
        row[name] = given[len(name) + 1 :]
    if faults:
        raise InvalidInput(faults)
    return row
