"""The command line: its commands, and the exit status of errors.

Exit status: 0 success, 1 failure, 2 usage error; `mlapp score`, `feedback` and `drift` have 3, too.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mlapp.disk import reason
from mlapp.errors import MlappError, OutputError

# The commands of each module of this package. A module is imported when one of its commands is
# asked for: most take longer to import than to run.
COMMANDS = {
    "serve": ("serve",),
    "predict": ("predict",),
    "score": ("score",),
    "models": ("models", "verify", "pin", "unpin", "rename", "remove"),
    "publish": ("publish",),
    "export": ("export",),
    "retrain": ("retrain",),
    "promote": ("promote", "rollback", "history"),
    "feedback": ("feedback",),
    "quality": ("quality",),
    "drift": ("drift",),
    "log": ("log",),
}
# Commands whose results are not on the standard output; `mlapp score -o -` checks it itself.
SILENT = ("serve", "score", "feedback")


class Parser(argparse.ArgumentParser):
    """A parser that does not accept abbreviated options; so do those of the commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def print_help(self, file: Any = None) -> None:
        """Print the help, and raise what prevents it, which argparse ignores."""
        if file is None:
            _require_output()
        print(self.format_help(), end="", file=file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Raises:
        SystemExit: with 0 after help was printed, with 2 after a usage error.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if sys.stderr is None:  # then `print` would write messages to the standard output
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        try:
            return _run(given)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk is noticed here, while it can be reported
    except BrokenPipeError:  # the reader of the output has closed it
        _drop_output()
        return 1
    except OSError as error:
        if error.filename is not None:
            print(f"error: {error.filename}: {reason(error)}", file=sys.stderr)
            return 1
        print(f"error: the output cannot be written: {reason(error)}", file=sys.stderr)
        _drop_output()
        return 1


def _run(given: Sequence[str]) -> int:
    """Run the command, print the error that ends it, and return its exit status."""
    parser = make_parser(given[0] if given else None)
    try:
        options, rest = parser.parse_known_args(given)
        if rest and options.command != "predict":
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.rest = rest
        if options.command not in SILENT:
            _require_output()
        status: int = options.run(options)
    except MlappError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return status


def _require_output() -> None:
    """Check that there is a standard output.

    Raises:
        OutputError: it is closed.
    """
    if sys.stdout is None:
        raise OutputError("standard output cannot be written: it is closed")


def _drop_output() -> None:
    """Let flushing the rest of the output at exit not fail."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_parser(command: str | None) -> Parser:
    """Return the parser of a command, or of all commands where it is none of them."""
    parser = Parser(prog="mlapp", description="Use and serve published models.")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, title="commands"
    )
    own = [module for module, names in COMMANDS.items() if command in names]
    for module in own or COMMANDS:
        import_module(f"mlapp.cli.{module}").add_parsers(commands)
    return parser
