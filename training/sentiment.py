"""Train a text classifier on labelled texts, with the help of unlabelled ones, and publish it.

python -m training.sentiment --data FILE [--unlabelled FILE] [--text-column review]
    [--label-column sentiment] [--labels Negative,Positive] [--film-phrases] [--name NAME]
    [--artifacts DIR] [--seed N] [--recipe best|chapter]

    texts -> held-out, calibration and training part
    training part (and unlabelled texts) -> vocabulary -> word vectors
    training part -> network, and a linear teacher
    both -> soft labels for unlabelled and for short texts -> the network goes on with all
    network -> ONNX, checked against Keras -> temperature -> metrics -> published
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize_scalar

from mlapp.errors import InvalidData, MlappError
from mlapp.families.contract import replay
from mlapp.families.network import HEAD, NETWORK, TOKENIZER, Head, Pooling
from mlapp.families.sentiment import REPORT, SentimentModel, softmax
from mlapp.families.text import Ids, Tokens, Vocabulary, train_vocabulary
from mlapp.manifest import Artifact
from mlapp.schema import Floats, quote
from mlapp.settings import read_settings
from mlapp.store import artifacts
from mlapp.tables.options import READING, add_reading_options
from training.export import export_head, export_network
from training.linear import fit_linear
from training.network import Shape, Trainer, build, score
from training.phrases import LABELS, make_phrases
from training.progress import Progress
from training.tables import Say
from training.texts import IMDB, IMDB_SHA256, download, read_reviews
from training.vectors import train_vectors

NAME = "sentiment"
SEED = 0  # of the split, the weights, and the order of the texts
HELD_OUT = 0.25  # share of the texts that judge the model, and nothing else
CALIBRATION = 0.05  # share that the temperature is fitted on, and that the learning curve shows
LEAST_STEPS = 100  # few texts are gone through more often, until there were so many steps
LEAST_WORDS = 1_000_000  # fewer teach no vectors first: they are learned with the network
PHRASES = 100_000  # sentences of our own that the epochs draw from
BINS = 15  # of the reliability diagram
AGREE = 1e-4  # how far the scores of Keras and of the exported network may be apart
AGREE_ON = 64  # texts of the calibration part that are compared
INT8_COSTS = 0.002  # the accuracy that 8-bit weights may cost
CACHE = Path.home() / ".cache" / "mlapp"  # where the public data set is kept


@dataclass(frozen=True)
class Recipe:
    """The knobs of a training.

    Attributes:
        words: size of the vocabulary.
        minimum: how often a word must occur to be in it.
        dimensions: of a word's vector.
        vector_epochs: over all texts, to learn the vectors first; 0 learns them with the network.
        units: of the LSTM, in each direction.
        bidirectional: whether texts are read backwards, too.
        pooling: max over time, or the last state.
        spatial_dropout, dropout: shares left out of the vectors' dimensions and of the pooled.
        rate: of Adam, at the start.
        batch: texts per step.
        epochs: over the labelled texts.
        rounds: of soft labels, each with its number of epochs: the network and the linear teacher
            together label unlabelled and short texts, and the network and its vectors go on with
            all.
        hard: what a labelled text's own label counts for; all labels share the rest.
        short: short texts in a soft epoch, as a share of the whole ones.
        phrases: sentences of `training.phrases` in an epoch, where they are asked for.
        longest: tokens; of longer texts another stretch is seen each time.
        pad_to: tokens that every text is padded to; None pads to the longest of a batch.
    """

    words: int = 40_000
    minimum: int = 5
    dimensions: int = 128
    vector_epochs: int = 5
    units: int = 128
    bidirectional: bool = True
    pooling: Pooling = "max"
    spatial_dropout: float = 0.1
    dropout: float = 0.3
    rate: float = 2e-3
    batch: int = 64
    epochs: int = 4
    rounds: tuple[int, ...] = (1, 2)
    hard: float = 0.95
    short: float = 0.3
    phrases: int = 8_000
    longest: int = 400
    pad_to: int | None = None


Labelled: TypeAlias = tuple[Sequence[Ids], Floats]  # n texts and their labels, (n, labels)

LIBRARIES = ("mlapp", "numpy", "onnxruntime", "tokenizers", "tensorflow", "keras", "gensim")

RECIPES = {
    "best": Recipe(),
    # The chapter's, as printed; padding is masked, so that texts can be served without.
    "chapter": Recipe(
        words=1000,
        minimum=1,
        dimensions=100,
        vector_epochs=0,
        units=10,
        bidirectional=False,
        pooling="last",
        spatial_dropout=0.0,
        dropout=0.0,
        rate=1e-3,
        batch=32,
        epochs=5,
        rounds=(),
        hard=1.0,
        short=0.0,
        phrases=0,
        longest=1473,
        pad_to=1473,
    ),
}

GOLDEN = (
    "I loved every minute of it.",
    "I hated every minute of it.",
    "The film was not good at all, and far too long!",
    "Not bad: the story is simple, but the actors are wonderful.",
    "It begins well enough.<br /><br />Then it falls apart, and nobody seems to care.",
)


# --- the parts -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Rows of the three parts; no text is in two of them."""

    train: Ids
    calibration: Ids
    held_out: Ids


def split(classes: Ids, random: np.random.Generator) -> Split:
    """Split n texts at random, each label in the same proportion."""
    parts: list[list[Ids]] = [[], [], []]
    for label in np.unique(classes):
        rows = random.permutation(np.flatnonzero(classes == label))
        out = round(HELD_OUT * len(rows))
        own = max(1, round(CALIBRATION * len(rows)))
        for part, chosen in zip(
            parts, (rows[out + own :], rows[out : out + own], rows[:out]), strict=True
        ):
            part.append(chosen)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))


class Shortener:
    """Makes what an epoch sees of texts: stretches of long ones, and short pieces."""

    def __init__(self, vocabulary: Vocabulary, recipe: Recipe, random: np.random.Generator) -> None:
        """Learn which tokens end a sentence."""
        ends = [place for place, word in enumerate(vocabulary.words) if word in (*".!?", "...")]
        self._ends, self._longest, self._random = np.array(ends, dtype=int), recipe.longest, random

    def stretch(self, ids: Ids, length: int | None = None) -> Ids:
        """Return a stretch of a text, at most `length` tokens and by default the recipe's."""
        length = length or self._longest
        if len(ids) <= length:
            return ids
        start = self._random.integers(len(ids) - length + 1)
        return ids[start : start + length]

    def short(self, ids: Ids) -> Ids:
        """Return a sentence, the first and the last most often, or 6 to 40 tokens in a row."""
        if self._random.random() < 0.5:
            return self.stretch(ids, int(self._random.integers(6, 41)))
        ends = np.flatnonzero(np.isin(ids, self._ends)) + 1
        bounds = [0, *ends.tolist(), len(ids)]
        found = [(a, b) for a, b in pairwise(bounds) if 4 <= b - a <= 60]
        if not found:
            return self.stretch(ids, int(self._random.integers(6, 41)))
        # Reviews say what they think where they begin and where they end.
        drawn = self._random.random()
        place = 0 if drawn < 0.25 else -1 if drawn < 0.5 else self._random.integers(len(found))
        start, end = found[place]
        return ids[start:end]


# --- the recipe ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A trained network, its shape, and a row of the learning curve per epoch."""

    network: keras.Model
    shape: Shape
    curve: list[dict[str, Any]]


def fit(
    texts: Sequence[Ids],
    classes: Ids,
    unlabelled: Sequence[Ids],
    watched: tuple[Sequence[Ids], Ids],
    phrases: tuple[Sequence[Ids], Ids],
    vocabulary: Vocabulary,
    labels: int,
    recipe: Recipe,
    seed: int,
    say: Say,
) -> Trained:
    """Train the network.

    Args:
        texts: the ids of n texts of the training part.
        classes: the place of each text's label, (n,).
        unlabelled: the ids of m texts without a label.
        watched: texts and labels of the calibration part, for the learning curve.
        phrases: sentences of our own and their labels; an epoch sees a part of them.
        vocabulary: trained on the training part.
        labels: how many labels there are.
        recipe: the knobs.
        seed: of everything random.
        say: called with a line per epoch.
    """
    random = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    vectors, everything = None, [*texts, *unlabelled]
    if recipe.vector_epochs and sum(map(len, everything)) >= LEAST_WORDS:
        vectors = train_vectors(
            everything, len(vocabulary), recipe.dimensions, recipe.vector_epochs, seed
        )
    shape = Shape(
        len(vocabulary),
        recipe.dimensions,
        recipe.units,
        labels,
        recipe.bidirectional,
        recipe.pooling,
        recipe.spatial_dropout,
        recipe.dropout,
    )
    network = build(shape, vectors)
    shortener = Shortener(vocabulary, recipe, random)
    curve: list[dict[str, Any]] = []
    own, own_phrases = (
        recipe.hard * np.eye(labels)[each] + (1 - recipe.hard) / labels
        for each in (classes, phrases[1])
    )

    def go_through(
        title: str, epochs: int, whole: Sequence[Ids], targets: Floats, short: Labelled
    ) -> None:
        """Go through whole texts, some of the short ones and some phrases."""
        count = min(len(short[0]), round(recipe.short * len(whole)))
        size = len(whole) + count + min(len(phrases[0]), recipe.phrases)
        steps = -(-size // recipe.batch)
        epochs *= max(1, -(-LEAST_STEPS // (epochs * steps)))
        trainer = Trainer(network, recipe.rate, recipe.batch, epochs * steps)
        for epoch in range(epochs):
            chosen = random.permutation(len(short[0]))[:count]
            spoken = random.permutation(len(phrases[0]))[: recipe.phrases]
            seen = [shortener.stretch(ids) for ids in whole]
            seen += [short[0][row] for row in chosen] + [phrases[0][row] for row in spoken]
            wanted = np.vstack([targets, short[1][chosen], own_phrases[spoken]])
            progress = Progress(f"{title} {epoch + 1}/{epochs}", size)
            loss, accuracy = trainer.epoch(seen, wanted, random, progress, recipe.pad_to)
            right = float(np.mean(predict(network, watched[0]).argmax(axis=1) == watched[1]))
            curve.append({"loss": loss, "accuracy": accuracy, "accuracy_calibration": right})
            say(
                f"  {title} {epoch + 1}/{epochs}: loss {loss:.4f}, accuracy {accuracy:.4f},"
                f" on the calibration part {right:.4f}"
            )

    go_through("epoch", recipe.epochs, texts, own, ([], own[:0]))
    if recipe.rounds:
        teacher = fit_linear(texts, classes, labels)
        taught = teacher.predict(unlabelled)
        network.get_layer("table").trainable = True
        for number, epochs in enumerate(recipe.rounds, 1):
            targets = np.vstack([own, (taught + predict(network, unlabelled)) / 2])
            # A short text says less than the whole: its label is the mean of its own and that.
            pieces = [shortener.short(ids) for ids in everything]
            soft = (teacher.predict(pieces) + predict(network, pieces)) / 2
            short = pieces, (soft + targets) / 2
            title = f"round {number}/{len(recipe.rounds)}, epoch"
            go_through(title, epochs, everything, targets, short)
    return Trained(network, shape, curve)


def predict(network: keras.Model, texts: Sequence[Ids]) -> Floats:
    """Return the network's probabilities (n, labels) of n texts."""
    return softmax(score(network, texts))


# --- measuring -------------------------------------------------------------------------------


def fit_temperature(scores: Floats, classes: Ids) -> float:
    """Return the temperature at which scores (n, labels) give the smallest log loss.

    No label counts as quite certain: of m texts with it, its share is (m + 1) / (m + 2), as in
    Platt, "Probabilistic outputs for support vector machines" (1999). A few texts that are all
    told apart would make every answer certain otherwise.
    """
    labels = scores.shape[1]
    counts = np.bincount(classes, minlength=labels)[classes][:, None]
    own = np.eye(labels)[classes]
    targets = np.where(own > 0, (counts + 1) / (counts + 2), 1 / (counts + 2) / (labels - 1))

    def loss(power: float) -> float:
        probabilities = softmax(scores / np.exp(power))
        return float(-(targets * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def log_loss(probabilities: Floats, classes: Ids) -> float:
    """Return the mean negative log probability of the true labels."""
    own = probabilities[np.arange(len(classes)), classes]
    return float(-np.log(np.maximum(own, 1e-12)).mean())


def reliability(probabilities: Floats, classes: Ids) -> tuple[list[dict[str, float]], float]:
    """Return the filled bins of the reliability diagram and the expected calibration error.

    Both as in Guo et al. (2017): bins of the predicted label's probability, and the mean distance
    of accuracy and confidence, weighted by how many texts a bin holds.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == classes
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for place in range(BINS):
        inside = places == place
        if inside.any():
            mean, accuracy = float(confidence[inside].mean()), float(right[inside].mean())
            bins.append(
                {
                    "lower": place / BINS,
                    "upper": (place + 1) / BINS,
                    "texts": int(inside.sum()),
                    "confidence": mean,
                    "accuracy": accuracy,
                }
            )
            error += abs(mean - accuracy) * float(inside.mean())
    return bins, error


def measure(
    probabilities: Floats, classes: Ids, labels: Sequence[str]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the metrics of n held-out texts, and the rest of the report."""
    predicted = probabilities.argmax(axis=1)
    count = len(labels)
    confusion = np.bincount(count * classes + predicted, minlength=count**2).reshape(count, count)
    per_class = []
    for place, label in enumerate(labels):
        hits, called, there = (
            int(confusion[place, place]),
            int(confusion[:, place].sum()),
            int(confusion[place].sum()),
        )
        per_class.append(
            {
                "label": label,
                "precision": hits / max(1, called),
                "recall": hits / max(1, there),
                "texts": there,
            }
        )
    bins, error = reliability(probabilities, classes)
    metrics = {
        "accuracy": float(np.mean(predicted == classes)),
        "log_loss": log_loss(probabilities, classes),
        "ece": error,
    }
    return metrics, {"confusion": confusion.tolist(), "per_class": per_class, "reliability": bins}


# --- publishing ------------------------------------------------------------------------------


def train(
    data: Path,
    unlabelled: Path | None = None,
    name: str = NAME,
    root: Path | None = None,
    *,
    text_column: str = "review",
    label_column: str = "sentiment",
    labels: Sequence[str] = (),
    film_phrases: bool = False,
    seed: int = SEED,
    recipe: Recipe = RECIPES["best"],
    command: str = "python -m training.sentiment",
    say: Say = print,
    encoding: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
) -> Artifact:
    """Train on labelled texts and publish the model as the next version of `name`.

    Args:
        data: the labelled texts, as `training.texts.read_reviews` takes them.
        unlabelled: texts without a label, likewise.
        name: the model's name.
        root: the artifact folder; by default that of the settings.
        text_column: the table's column of texts.
        label_column: the table's column of labels.
        labels: names for the labels, in the order of the sorted values.
        film_phrases: whether sentences of our own about films, `training.phrases`, are mixed into
            the training part; the labels must be theirs, Negative and Positive.
        seed: of everything random; the same seed on the same machine gives the same model.
        recipe: the knobs.
        command: the command that trains it anew, for the manifest.
        say: called with each line of the report.
        encoding: of a text file; see `FileFormat`.
        decimal: the decimal mark of CSV and TSV; see `FileFormat`.
        sheet: of an Excel workbook; see `FileFormat`.

    Raises:
        InvalidData: the texts cannot be trained on; the message says why.
        ArtifactError: the name cannot be used, or the folder cannot be published to.
    """
    root = read_settings().artifacts if root is None else root
    tf.config.experimental.enable_op_determinism()
    reviews = read_reviews(
        data,
        unlabelled,
        text_column=text_column,
        label_column=label_column,
        labels=labels,
        say=say,
        encoding=encoding,
        decimal=decimal,
        sheet=sheet,
    )
    say(
        f"Read {len(reviews.texts):,} texts labelled {', '.join(reviews.labels)} and"
        f" {len(reviews.unlabelled):,} without a label"
    )
    if film_phrases and reviews.labels != LABELS:
        raise InvalidData(
            f"--film-phrases: got the labels {quote(reviews.labels)}, expected {quote(LABELS)};"
            f" --labels {','.join(LABELS)} names them"
        )
    parts = split(reviews.classes, np.random.default_rng(seed))
    say(
        f"Training on {len(parts.train):,}; held out are {len(parts.held_out):,},"
        f" and {len(parts.calibration):,} for calibration"
    )
    if not recipe.rounds and not recipe.vector_epochs:
        reviews = replace(reviews, unlabelled=[])
    texts = [reviews.texts[row] for row in parts.train]
    tokenizer = train_vocabulary([*texts, *reviews.unlabelled], recipe.words, recipe.minimum)
    vocabulary = Vocabulary(tokenizer)
    read = {
        part: _read(vocabulary, [reviews.texts[row] for row in getattr(parts, part)])
        for part in ("train", "calibration", "held_out")
    }
    classes = {part: reviews.classes[getattr(parts, part)] for part in read}
    phrases, phrase_classes = make_phrases(PHRASES if film_phrases and recipe.phrases else 0, seed)
    trained = fit(
        _ids(read["train"]),
        classes["train"],
        _ids(_read(vocabulary, reviews.unlabelled)),
        (_ids(read["calibration"]), classes["calibration"]),
        (_ids(_read(vocabulary, phrases)), np.array(phrase_classes, dtype=np.int64)),
        vocabulary,
        len(reviews.labels),
        recipe,
        seed,
        say,
    )

    fields: dict[str, Any] = {
        "task": "text-classification",
        "data": reviews.about,
        "labels": reviews.labels,
        "training": {
            "command": command,
            "seed": seed,
            "held_out": HELD_OUT,
            "calibration": CALIBRATION,
            "film_phrases": film_phrases,
            "texts_used": len(texts),
            "texts_unlabelled": len(reviews.unlabelled),
            "recipe": asdict(recipe) | {"rounds": list(recipe.rounds)},
        },
    }

    def draft(
        network: bytes,
        head: Head,
        metrics: Mapping[str, float] | None = None,
        report: Mapping[str, Any] | None = None,
        golden: Sequence[Mapping[str, Any]] = (),
    ) -> Artifact:
        files = {
            NETWORK: network,
            TOKENIZER: tokenizer,
            HEAD: head.dump(),
            REPORT: json.dumps(report or {}, allow_nan=False).encode(),
        }
        return artifacts.draft(
            name, files, LIBRARIES, metrics=metrics or {}, golden=golden, **fields
        )

    head = export_head(trained.network, recipe.pooling)
    networks = [export_network(trained.network, int8) for int8 in (False, True)]
    models = [SentimentModel(draft(network, head)) for network in networks]
    difference = compare(trained.network, models[0], read["calibration"][:AGREE_ON])
    say(f"Keras and the exported network agree within {difference:.1e}")
    # Held-out texts judge what was chosen; they choose nothing.
    exact, small = (
        accuracy_of(model, read["calibration"], classes["calibration"]) for model in models
    )
    int8 = exact - small <= INT8_COSTS
    say(f"Accuracy on the calibration part {exact:.4f}, with 8-bit weights {small:.4f}")

    model, network = models[int8], networks[int8]
    temperature = fit_temperature(model.scorer.scores(read["calibration"]), classes["calibration"])
    head = replace(head, temperature=temperature)
    probabilities = softmax(model.scorer.scores(read["held_out"]) / temperature)
    metrics, report = measure(probabilities, classes["held_out"], reviews.labels)
    metrics |= {
        "temperature": temperature,
        "keras_difference": difference,
        "calibration_accuracy_32_bit": exact,
        "calibration_accuracy_8_bit": small,
        "weight_bits": 8 if int8 else 32,
        "held_out": len(classes["held_out"]),
    }
    report |= {"labels": list(reviews.labels), "learning_curve": trained.curve}
    texts = golden_texts(vocabulary)
    predicted = SentimentModel(draft(network, head)).predict(texts).to_dict("records")
    golden = [
        {"input": {"text": text}, "output": out} for text, out in zip(texts, predicted, strict=True)
    ]
    published = artifacts.publish(
        root,
        draft(network, head, metrics, report, golden),
        lambda artifact: replay(SentimentModel(artifact)),
    )

    say(f"On {len(classes['held_out']):,} held-out texts:")
    say(f"  accuracy          {metrics['accuracy']:.4f}")
    say(f"  log loss          {metrics['log_loss']:.4f}")
    say(f"  calibration error {metrics['ece']:.4f}, at temperature {temperature:.3f}")
    for row in report["per_class"]:
        say(f"  {row['label']}: precision {row['precision']:.4f}, recall {row['recall']:.4f}")
    say(f"Published {published.path}, {published.size / 1e6:.1f} MB")
    return published


def accuracy_of(model: SentimentModel, read: Sequence[Tokens], classes: Ids) -> float:
    """Return the share of n texts whose label a model gets right."""
    return float(np.mean(model.scorer.scores(list(read)).argmax(axis=1) == classes))


def compare(network: keras.Model, model: SentimentModel, read: Sequence[Tokens]) -> float:
    """Return how far the scores of Keras and of the exported network are apart at most.

    Raises:
        InvalidData: by more than `AGREE`: the network cannot be served.
    """
    there, here = score(network, _ids(read)), model.scorer.scores(list(read))
    difference = float(np.abs(there - here).max())
    if not difference <= AGREE:
        raise InvalidData(
            f"The exported network differs from Keras by {difference:.2g}, at most {AGREE:.0e} is"
            " allowed: nothing was published"
        )
    return difference


def golden_texts(vocabulary: Vocabulary) -> list[str]:
    """Return sentences of our own, and frequent words: some of them are in any vocabulary."""
    texts = [*GOLDEN, " ".join(vocabulary.words[2:22])]
    read = vocabulary.read_many(texts)
    return [text for text, each in zip(texts, read, strict=True) if each.unknown < each.words]


def _read(vocabulary: Vocabulary, texts: Sequence[str]) -> list[Tokens]:
    """Return the tokens of texts; where there are none, one unknown word."""
    nothing = Tokens(
        np.ones(1, dtype=np.int64),
        np.zeros((1, 2), dtype=np.int64),
        np.zeros(1, dtype=np.bool_),
        1,
        1,
    )
    return [each if len(each.ids) else nothing for each in vocabulary.read_many(texts)]


def _ids(read: Sequence[Tokens]) -> list[Ids]:
    return [each.ids for each in read]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, 1 when nothing was published."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sentiment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        required=True,
        help="labelled texts: a CSV, TSV or JSON lines file (also .gz or .zip), Parquet or .xlsx,"
        " a folder or .tar.gz in the layout of aclImdb, or imdb, which downloads the public one"
        " (84 MB)",
    )
    parser.add_argument("--unlabelled", type=Path, help="texts without a label, likewise")
    parser.add_argument(
        "--text-column", default="review", help="the texts' column (default: %(default)s)"
    )
    parser.add_argument(
        "--label-column", default="sentiment", help="the labels' column (default: %(default)s)"
    )
    parser.add_argument(
        "--labels",
        default="",
        help="names for the labels, in the order of the sorted values, as in Negative,Positive",
    )
    parser.add_argument(
        "--film-phrases",
        action="store_true",
        help="mix sentences of our own about films into the training; for Negative and Positive",
    )
    parser.add_argument("--name", default=NAME, help="the model's name (default: %(default)s)")
    parser.add_argument(
        "--artifacts",
        type=Path,
        help="the folder to publish to (default: MLAPP_ARTIFACTS, or artifacts)",
    )
    parser.add_argument(
        "--seed", type=int, default=SEED, help="of everything random (default: %(default)s)"
    )
    parser.add_argument(
        "--recipe", choices=RECIPES, default="best", help="the knobs (default: %(default)s)"
    )
    add_reading_options(parser)
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    names = [label.strip() for label in options.labels.split(",") if label.strip()]
    try:
        public = options.data == "imdb"
        train(
            download(IMDB, IMDB_SHA256, CACHE) if public else Path(options.data),
            options.unlabelled,
            options.name,
            options.artifacts,
            text_column=options.text_column,
            label_column=options.label_column,
            labels=names,
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


def _command(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """Return the command line with what differs from the defaults, but for the folder."""
    words = ["python", "-m", "training.sentiment"]
    for key, value in vars(options).items():
        if key != "artifacts" and value != parser.get_default(key):
            words += [f"--{key.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)


if __name__ == "__main__":
    sys.exit(main())
