"""The command line: its commands and their options.

Exit status: 0 success, 1 failure, 2 the command line is wrong; `mlapp score` has its own.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from mlapp.cli import (
    drift,
    export,
    feedback,
    log,
    models,
    predict,
    promote,
    publish,
    quality,
    retrain,
    score,
    serve,
)
from mlapp.errors import MlappError


class Parser(argparse.ArgumentParser):
    """A parser that does not accept abbreviated options; so do those of the commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "predict":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "serve":
        serve.check_options(parser, options)
    try:
        return run(options, rest)
    except MlappError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of the output has closed it; flushing the rest at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def make_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(prog="mlapp", description="Use and serve published models.")
    commands = parser.add_subparsers(dest="command", required=True)
    listed = commands.add_parser("models", help="list every published version")
    listed.add_argument("--json", action="store_true", help="as JSON, for programs")
    remove = commands.add_parser("remove", help="delete a published version")
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("version", metavar="VERSION", type=int)
    rename = commands.add_parser("rename", help="give a model another name")
    rename.add_argument("old", metavar="OLD")
    rename.add_argument("new", metavar="NEW")
    verify = commands.add_parser("verify", help="check digests and replay golden predictions")
    verify.add_argument("name", nargs="?", metavar="NAME", help="a model (default: all)")
    pin = commands.add_parser("pin", help="serve a version even if newer ones are published")
    pin.add_argument("name", metavar="NAME")
    pin.add_argument("version", metavar="VERSION", type=int)
    unpin = commands.add_parser("unpin", help="serve the newest version again")
    unpin.add_argument("name", metavar="NAME")
    one = commands.add_parser(
        "predict",
        help='predict one row (--var_1 734 ...) or one text ("a review")',
        usage='mlapp predict [--model NAME] (--INPUT VALUE ... | "TEXT")',
        epilog="--set INPUT=VALUE sets an input that is called model, help or set.",
    )
    one.add_argument(
        "--model", metavar="NAME", help="(default: sentiment for a text, else regression)"
    )
    score.add_parser(commands)
    log.add_parser(commands)
    feedback.add_parser(commands)
    serve.add_parser(commands)
    promote.add_parsers(commands)
    publish.add_parser(commands)
    export.add_parser(commands)
    drift.add_parser(commands)
    quality.add_parser(commands)
    retrain.add_parser(commands)
    return parser


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run a command and return its exit status.

    Args:
        options: the parsed options.
        rest: the other arguments: the row or text of `mlapp predict`.

    Raises:
        MlappError: it failed; the message says why.
    """
    match options.command:
        case "models":
            return models.print_models() if options.json else models.list_models()
        case "remove":
            return models.remove_version(options.name, options.version)
        case "rename":
            return models.rename_model(options.old, options.new)
        case "export":
            return export.export_version(options)
        case "publish":
            return publish.publish_model(options)
        case "verify":
            return models.verify_models(options.name)
        case "pin":
            return models.pin_version(options.name, options.version)
        case "unpin":
            return models.pin_version(options.name, None)
        case "predict":
            return predict.predict_one(options.model, rest)
        case "promote":
            return promote.promote_version(options.name, options.version, options.force)
        case "rollback":
            return promote.roll_back(options.name, options.because)
        case "history":
            return promote.show_history(options.name)
        case "drift":
            return drift.show_drift(options.name, options.days, options.json)
        case "quality":
            return quality.show_quality(options.name, options.json)
        case "retrain":
            return retrain.retrain_model(options)
        case "log":
            return log.run_log(options)
        case "feedback":
            return feedback.give_feedback(options)
        case "score":
            return score.score_file(options)
        case _:
            return serve.serve_models(options)
