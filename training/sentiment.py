"""Train a text classifier on labelled texts, with the help of unlabelled ones, and publish it.

read     texts and labels; what cannot be learned from is left out
split    parts that learn, choose and judge; near copies stay together
fit      a linear model, and of many texts a network, too
measure  which is best, and how good it is on texts that it has not seen
publish  the best within one standard error, and of equals the fastest
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mlapp.errors import InvalidData, MlappError
from mlapp.families.contract import Labels, replay
from mlapp.families.sentiment import REPORT, ReadTexts, SentimentModel
from mlapp.families.text import check_texts, is_readable
from mlapp.manifest import Artifact
from mlapp.records.reference import REFERENCE, learn
from mlapp.schema import quote
from mlapp.store import artifacts
from mlapp.store.learned import dump_learned
from mlapp.tables.options import READING, add_reading_options, holds_texts
from training import text_linear
from training.download import download
from training.examples import FILM, frequent_words, make_examples
from training.phrases import LABELS
from training.plan import MANY_LABELS, NETWORK_FROM, Plan, count_folds, in_folds, split_texts
from training.progress import MANY, count_of, describe_seconds
from training.recipes import RECIPES, SEED, Options
from training.rows import FEEDBACK_HELP
from training.splits import CALIBRATION, HELD_OUT
from training.tables import Say
from training.text_candidates import Chosen, choose_best, fit_candidates
from training.text_linear import Counted
from training.texts import IMDB, IMDB_SHA256, NAMED, Reviews, read_reviews

NAME = "sentiment"
CACHE = Path.home() / ".cache" / "mlapp"  # where the public data set is kept
LIBRARIES = ("mlapp", "numpy", "scikit-learn", "scipy", "tokenizers")
LARGEST_SEED = 2**32 - 1  # that NumPy takes
OF_ONE_RUN = ("artifacts", "candidate", "feedback")  # options that are not of the next training
NOUNS = {"text": "text", "label": "label"}  # of folders, which have no columns
OF_NETWORK = ("mlapp", "numpy", "onnxruntime", "tokenizers", "tensorflow", "keras", "gensim")


def train(
    data: Path,
    unlabelled: Path | None = None,
    name: str = NAME,
    root: Path | None = None,
    *,
    text_column: str = "review",
    label_column: str = "sentiment",
    labels: Sequence[str] = (),
    extra: Sequence[Path] = (),
    feedback: Path | None = None,
    candidate: bool = False,
    say: Say = print,
    encoding: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
    **options: Any,
) -> Artifact:
    """Train on labelled texts and publish the model as the next version of `name`.

    Args:
        data: the labelled texts, as `training.texts.read_reviews` takes them.
        unlabelled: texts without a label, likewise; the network learns from them.
        name: the model's name.
        root: the artifact folder; by default that of the settings.
        text_column: the table's column of texts.
        label_column: the table's column of labels.
        labels: names for the labels, in the order of the sorted values.
        extra: files of more labelled texts, likewise, which are used for training only.
        feedback: the same, of judged answers.
        candidate: whether the version waits for `promotion.promote` before it is served.
        say: called with each line of the report.
        encoding: of a text file; see `FileFormat`.
        decimal: the decimal mark of CSV and TSV; see `FileFormat`.
        sheet: of an Excel workbook; see `FileFormat`.
        options: the fields of `Options`.

    Raises:
        InvalidData: the texts cannot be trained on; the message says why.
        ArtifactError: the name cannot be used, or the folder cannot be published to.
    """
    root = artifacts.choose_root(root, name)
    asked = Options(**options)
    reading: dict[str, Any] = {"encoding": encoding, "decimal": decimal, "sheet": sheet}
    reading |= {"text_column": text_column, "label_column": label_column}
    added: dict[str, Any] = {"extra": extra, "feedback": feedback}
    reviews = read_reviews(data, unlabelled, labels=labels, say=say, **added, **reading)
    _require_sense(asked, reviews)
    counted = _count(reviews, asked, say)
    plan = split_texts(reviews, counted, asked, say)
    candidates = fit_candidates(reviews, counted, plan, asked, say)
    chosen = choose_best(candidates, plan, reviews, say)
    unnamed = holds_texts(data) and reviews.labels not in NAMED.values()
    columns = NOUNS if unnamed else {"text": text_column, "label": label_column}
    drafted = _draft(name, chosen, reviews, plan, asked, columns)
    published = artifacts.publish(
        root, drafted, lambda artifact: replay(SentimentModel(artifact)), candidate=candidate
    )
    say(f"Published {published.path}, {published.size / 1e6:.1f} MB")
    return published


def _require_sense(asked: Options, reviews: Reviews) -> None:
    """Refuse what cannot be done before anything is computed.

    Raises:
        InvalidData: options and labels do not go together.
    """
    if asked.film_phrases and asked.model == "linear":
        raise InvalidData("--film-phrases teaches the network; got --model linear")
    if asked.film_phrases and reviews.labels != LABELS:
        raise InvalidData(
            f"--film-phrases: got the labels {quote(reviews.labels)}, expected {quote(LABELS)};"
            f" --labels {','.join(LABELS)} names them"
        )
    if asked.examples:
        try:
            check_texts(asked.examples)
        except MlappError as error:
            raise InvalidData(f"--example: {error}") from error


# --- read ------------------------------------------------------------------------------------


def _count(reviews: Reviews, asked: Options, say: Say) -> Counted:
    """Say what was read, and count it."""
    texts = reviews.texts
    say(f"Read {reviews.own:,} texts with the labels {quote(reviews.labels, 10)}")
    if reviews.unlabelled:
        say(f"Read {count_of(len(reviews.unlabelled), 'text')} without a label")
    many = len(texts) >= MANY or len(reviews.labels) >= MANY_LABELS
    if many and asked.model != "network":
        fits = count_folds(reviews) + 1 if in_folds(reviews, asked) else 1
        seconds = text_linear.estimate(reviews, fits)
        say(f"Training the linear model takes about {describe_seconds(seconds)}")
    return text_linear.count(texts)


# --- publish ---------------------------------------------------------------------------------


def _draft(
    name: str,
    chosen: Chosen,
    reviews: Reviews,
    plan: Plan,
    asked: Options,
    columns: Mapping[str, str],
) -> Artifact:
    """Draft the chosen model with its examples, golden predictions and reference."""
    examples = list(asked.examples or (FILM if asked.film_phrases else make_examples(reviews)))
    report = {**chosen.report, "examples": examples, "columns": columns}
    files = {**chosen.candidate.files, REPORT: json.dumps(report, allow_nan=False).encode()}
    files |= dump_learned(reviews.pick(np.union1d(plan.train, plan.validation)))
    libraries = OF_NETWORK if chosen.candidate.name == "network" else LIBRARIES
    fields: dict[str, Any] = {
        "task": "text-classification",
        "data": reviews.about,
        "labels": reviews.labels,
        "metrics": chosen.metrics,
        "training": _describe(chosen, plan, reviews, asked),
    }
    model = SentimentModel(artifacts.draft(name, files, libraries, golden=(), **fields))
    held_out = ReadTexts(reviews.pick(plan.held_out), ())
    answers = Labels(model.gives, chosen.judged.probabilities, chosen.judged.extras)
    bins, files[REFERENCE] = learn(model, held_out, answers, answers)
    texts = [each for each in [*examples, frequent_words(reviews)] if is_readable(each)]
    predicted = model.predict(texts).to_dict("records")
    golden = [
        {"input": {"text": text}, "output": out} for text, out in zip(texts, predicted, strict=True)
    ]
    return artifacts.draft(name, files, libraries, golden=golden, bins=bins, **fields)


def _describe(chosen: Chosen, plan: Plan, reviews: Reviews, asked: Options) -> dict[str, Any]:
    """Return how a candidate was trained, for the manifest."""
    found: dict[str, Any] = {
        "command": asked.command,
        "seed": asked.seed,
        "model": asked.model,
        "chosen": chosen.candidate.name,
    }
    found["texts_used"] = len(plan.train)
    if reviews.judged:
        found["judged_answers"] = True
    if plan.fold is None:
        found |= {"held_out": HELD_OUT, "calibration": CALIBRATION}
    else:
        found |= {"folds": int(plan.fold.max()) + 1}
    if chosen.candidate.name == "linear":
        return found | {"strength": text_linear.STRENGTH, "minimum": text_linear.MINIMUM}
    recipe = asdict(asked.recipe) | {"rounds": list(asked.recipe.rounds)}
    return found | {"film_phrases": asked.film_phrases, "recipe": recipe}


# --- the command -----------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, 1 when nothing was published."""
    parser = _parser()
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        public = options.data == "imdb"
        train(
            download(IMDB, IMDB_SHA256, CACHE) if public else Path(options.data),
            options.unlabelled,
            options.name,
            options.artifacts,
            text_column=options.text_column,
            label_column=options.label_column,
            labels=_read_names(options.labels),
            extra=options.extra,
            feedback=options.feedback,
            candidate=options.candidate,
            model=options.model,
            examples=options.example,
            film_phrases=options.film_phrases,
            seed=options.seed,
            recipe=RECIPES[options.recipe],
            command=_command(parser, options),
            **{key: getattr(options, key) for key in READING},
        )
    except MlappError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: nothing was published", file=sys.stderr)
        return 130
    return 0


def _read_names(text: str) -> list[str]:
    """Return the names of labels, which commas separate; of no text, none.

    Raises:
        InvalidData: the text holds no name.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if text and not names:
        raise InvalidData(f"--labels: got {text!r}, expected names separated by commas")
    return names


def _seed(text: str) -> int:
    """Read a seed, a whole number that NumPy, Keras and Python take.

    Raises:
        ArgumentTypeError: the text is something else.
    """
    if not (text.isascii() and text.isdecimal() and int(text) <= LARGEST_SEED):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 0 to {LARGEST_SEED}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.sentiment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data_options(parser)
    _add_model_options(parser)
    parser.add_argument("--name", default=NAME, help="the model's name (default: %(default)s)")
    parser.add_argument(
        "--artifacts",
        type=Path,
        help="the folder to publish to (default: MLAPP_ARTIFACTS, or artifacts)",
    )
    parser.add_argument(
        "--seed", type=_seed, default=SEED, help="random seed (default: %(default)s)"
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="best",
        help="the hyperparameters (default: %(default)s)",
    )
    parser.add_argument(
        "--candidate",
        action="store_true",
        help="publish a candidate, which is not served until it is promoted",
    )
    add_reading_options(parser)
    return parser


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        required=True,
        help="labelled texts: a CSV, TSV or JSON lines file (also .gz or .zip), Parquet or .xlsx,"
        " a folder or .tar.gz in the layout of aclImdb, or imdb, which downloads the public one"
        " (84 MB)",
    )
    parser.add_argument("--unlabelled", type=Path, help="unlabelled texts, in the same formats")
    parser.add_argument(
        "--text-column", default="review", help="the column of texts (default: %(default)s)"
    )
    parser.add_argument(
        "--label-column", default="sentiment", help="the column of labels (default: %(default)s)"
    )
    parser.add_argument(
        "--labels",
        default="",
        help="names for the labels, in the order of the sorted values, as in Negative,Positive",
    )
    parser.add_argument(
        "--extra",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="more labelled texts with the same columns, which are used for training only; may be"
        " repeated",
    )
    parser.add_argument("--feedback", type=Path, metavar="FILE", help=FEEDBACK_HELP)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        choices=("auto", "linear", "network"),
        default="auto",
        help="what is fitted; auto compares a linear model and, from"
        f" {NETWORK_FROM:,} texts, the network (default: %(default)s)",
    )
    parser.add_argument(
        "--example",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text that shows what the model is for, published with it; may be repeated"
        " (default: typical words of the labels)",
    )
    parser.add_argument(
        "--film-phrases",
        action="store_true",
        help="mix sentences of our own about films into what the network learns from; for Negative"
        " and Positive",
    )


def _command(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """Return the command line with what differs from the defaults, but for `OF_ONE_RUN`."""
    words = ["python", "-m", "training.sentiment"]
    for key, value in vars(options).items():
        if key in OF_ONE_RUN or value == parser.get_default(key):
            continue
        flag = f"--{key.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            if each is True:
                words.append(flag)
            elif str(each).startswith("-"):  # it would be taken for a flag
                words.append(f"{flag}={each}")
            else:
                words += [flag, str(each)]
    return shlex.join(words)


if __name__ == "__main__":
    sys.exit(main())
