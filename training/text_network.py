"""Trains the network of a text classifier, and exports it.

    training part (and unlabelled texts) -> vocabulary -> word vectors
    training part -> network, and a linear teacher
    both -> soft labels for unlabelled and for short texts -> the network goes on with all
    network -> ONNX, checked against Keras -> temperature

`train` calls the steps in this order.
"""

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from mlapp.errors import InvalidData
from mlapp.families.network import HEAD, NETWORK, NO_WORD, TOKENIZER, Head, Network
from mlapp.families.sentiment import softmax
from mlapp.families.text import Ids, Tokens, Vocabulary, train_vocabulary
from mlapp.schema import Floats
from training.calibration import fit_temperature
from training.export import export_head, export_network
from training.judging import ask
from training.linear import fit_linear
from training.network import Shape, Trainer, build, score
from training.phrases import make_phrases
from training.plan import Plan
from training.progress import MANY, Progress, describe_seconds
from training.recipes import Recipe
from training.tables import Say
from training.text_choice import Candidate
from training.texts import Reviews
from training.vectors import train_vectors

LEAST_STEPS = 100  # few texts are gone through more often, until there were so many steps
LEAST_WORDS = 1_000_000  # fewer teach no vectors first: they are learned with the network
PHRASES = 100_000  # sentences of our own that the epochs draw from
AGREE = 1e-4  # how far the scores of Keras and of the exported network may be apart
AGREE_ON = 64  # texts of the calibration part that are compared
INT8_COSTS = 0.002  # the accuracy that 8-bit weights may cost
PILOT = 2  # batches that are timed to estimate the whole

Labelled: TypeAlias = tuple[Sequence[Ids], Floats]  # n texts and their labels, (n, labels)
Classified: TypeAlias = tuple[Sequence[Ids], Ids]  # n texts and the places of their labels, (n,)


def train(
    reviews: Reviews, plan: Plan, phrases: bool, recipe: Recipe, seed: int, say: Say
) -> Candidate:
    """Train the network, and export it.

    Args:
        reviews: the texts.
        plan: the rows that it learns from, is calibrated on, and is judged by.
        phrases: whether sentences of our own about films are mixed into the training part.
        recipe: the knobs.
        seed: of everything random; the same seed on the same machine gives the same network.
        say: called with each line of the report.

    Raises:
        InvalidData: the exported network differs from the trained one.
    """
    tf.config.experimental.enable_op_determinism()
    if not recipe.rounds and not recipe.vector_epochs:
        reviews = replace(reviews, unlabelled=[])
    texts = reviews.pick(plan.train)
    tokenizer = train_vocabulary([*texts, *reviews.unlabelled], recipe.words, recipe.minimum)
    vocabulary = Vocabulary(tokenizer)
    calibration = _read(vocabulary, reviews.pick(plan.validation))
    spoken, spoken_classes = make_phrases(PHRASES if phrases and recipe.phrases else 0, seed)
    data = TrainingData(
        _ids(_read(vocabulary, texts)),
        reviews.classes[plan.train],
        _ids(_read(vocabulary, reviews.unlabelled)),
        (_ids(calibration), reviews.classes[plan.validation]),
        (_ids(_read(vocabulary, spoken)), np.array(spoken_classes, dtype=np.int64)),
        vocabulary,
        len(reviews.labels),
    )
    if len(texts) >= MANY:
        seconds = estimate(data, recipe)
        say(f"Training the network takes about {describe_seconds(seconds)}")
    network, curve = fit(data, recipe, seed, say)
    files, metrics = export(
        network, tokenizer, recipe, calibration, reviews.classes[plan.validation], say
    )
    served = Network(files)
    return Candidate(
        "network",
        softmax(served.scores(calibration)),
        files=files,
        metrics=metrics | {"texts_unlabelled": len(reviews.unlabelled)},
        curve=curve,
        judge=lambda: ask(served, reviews.pick(plan.held_out)),
    )


# --- learning --------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingData:
    """What a network is trained on.

    Attributes:
        texts: the ids of n texts of the training part.
        classes: the place of each text's label, (n,).
        unlabelled: the ids of m texts without a label.
        watched: texts and labels of the calibration part, for the learning curve.
        phrases: sentences of our own and their labels; an epoch sees a part of them.
        vocabulary: trained on the training part.
        labels: how many labels there are.
    """

    texts: Sequence[Ids]
    classes: Ids
    unlabelled: Sequence[Ids]
    watched: Classified
    phrases: Classified
    vocabulary: Vocabulary
    labels: int

    def shape(self, recipe: Recipe) -> Shape:
        """Return the shape of a recipe's network."""
        return Shape(
            len(self.vocabulary),
            recipe.dimensions,
            recipe.units,
            self.labels,
            recipe.bidirectional,
            recipe.pooling,
            recipe.spatial_dropout,
            recipe.dropout,
        )


def fit(
    data: TrainingData, recipe: Recipe, seed: int, say: Say
) -> tuple[keras.Model, list[dict[str, Any]]]:
    """Train the network; return it with a row of the learning curve per epoch."""
    random = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    vectors, everything = None, [*data.texts, *data.unlabelled]
    if recipe.vector_epochs and sum(map(len, everything)) >= LEAST_WORDS:
        vectors = train_vectors(
            everything, len(data.vocabulary), recipe.dimensions, recipe.vector_epochs, seed
        )
    fitter = Fitter(build(data.shape(recipe), vectors), data, recipe, random, say)
    own = fitter.soften(data.classes)
    fitter.run_epochs("epoch", recipe.epochs, data.texts, own, ([], own[:0]))
    if recipe.rounds:
        teacher = fit_linear(data.texts, data.classes, data.labels)
        taught = teacher.predict(data.unlabelled)
        fitter.network.get_layer("table").trainable = True
        for number, epochs in enumerate(recipe.rounds, 1):
            targets = np.vstack([own, (taught + predict(fitter.network, data.unlabelled)) / 2])
            # A short text says less than the whole: its label is the mean of its own and that.
            pieces = [fitter.shortener.short(ids) for ids in everything]
            soft = (teacher.predict(pieces) + predict(fitter.network, pieces)) / 2
            short = pieces, (soft + targets) / 2
            title = f"round {number}/{len(recipe.rounds)}, epoch"
            fitter.run_epochs(title, epochs, everything, targets, short)
    return fitter.network, fitter.curve


class Fitter:
    """Fits a network, one call of `run_epochs` after the other.

    Attributes:
        network: that learns.
        curve: a row per epoch.
        shortener: makes short texts.
    """

    def __init__(
        self,
        network: keras.Model,
        data: TrainingData,
        recipe: Recipe,
        random: np.random.Generator,
        say: Say,
    ) -> None:
        self.network, self._data, self._recipe = network, data, recipe
        self._random, self._say = random, say
        self.shortener = Shortener(data.vocabulary, recipe, random)
        self.curve: list[dict[str, Any]] = []
        self._own_phrases = self.soften(data.phrases[1])

    def soften(self, classes: Ids) -> Floats:
        """Return what texts with labels are taught as, (n, labels)."""
        labels, hard = self._data.labels, self._recipe.hard
        targets: Floats = hard * np.eye(labels)[classes] + (1 - hard) / labels
        return targets

    def run_epochs(
        self, title: str, epochs: int, whole: Sequence[Ids], targets: Floats, short: Labelled
    ) -> None:
        """Fit it to whole texts, some of the short ones and some phrases."""
        recipe, random, phrases = self._recipe, self._random, self._data.phrases[0]
        count = min(len(short[0]), round(recipe.short * len(whole)))
        size = len(whole) + count + min(len(phrases), recipe.phrases)
        steps = -(-size // recipe.batch)
        epochs *= max(1, -(-LEAST_STEPS // (epochs * steps)))
        trainer = Trainer(self.network, recipe.rate, recipe.batch, epochs * steps)
        for epoch in range(epochs):
            chosen = random.permutation(len(short[0]))[:count]
            spoken = random.permutation(len(phrases))[: recipe.phrases]
            seen = [self.shortener.stretch(ids) for ids in whole]
            seen += [short[0][row] for row in chosen] + [phrases[row] for row in spoken]
            wanted = np.vstack([targets, short[1][chosen], self._own_phrases[spoken]])
            progress = Progress(f"{title} {epoch + 1}/{epochs}", size)
            loss, accuracy = trainer.epoch(seen, wanted, random, progress, recipe.pad_to)
            self._note(f"{title} {epoch + 1}/{epochs}", loss, accuracy)

    def _note(self, title: str, loss: float, accuracy: float) -> None:
        texts, classes = self._data.watched
        right = float(np.mean(predict(self.network, texts).argmax(axis=1) == classes))
        self.curve.append({"loss": loss, "accuracy": accuracy, "accuracy_calibration": right})
        self._say(
            f"  {title}: loss {loss:.4f}, accuracy {accuracy:.4f}, on the calibration part"
            f" {right:.4f}"
        )


def predict(network: keras.Model, texts: Sequence[Ids]) -> Floats:
    """Return the network's probabilities (n, labels) of n texts."""
    return softmax(score(network, texts))


def estimate(data: TrainingData, recipe: Recipe) -> float:
    """Return about how many seconds training takes on this machine, from a few steps of it."""
    trainer = Trainer(build(data.shape(recipe)), recipe.rate, recipe.batch, PILOT + 1)
    random, longest = np.random.default_rng(0), recipe.pad_to or recipe.longest
    texts = [ids[:longest] for ids in data.texts[: PILOT * recipe.batch]]
    targets = np.eye(data.labels)[data.classes[: len(texts)]]
    once = Progress("estimate", 2 * len(texts), stream=io.StringIO())  # not shown
    trainer.epoch(texts, targets, random, once, recipe.pad_to)  # compiles
    began = time.monotonic()
    trainer.epoch(texts, targets, random, once, recipe.pad_to)
    a_token = (time.monotonic() - began) / max(1, sum(map(len, texts)))
    labelled, rest = (
        sum(min(len(ids), longest) for ids in each) for each in (data.texts, data.unlabelled)
    )
    return a_token * (recipe.epochs * labelled + sum(recipe.rounds) * (labelled + rest))


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


# --- exporting -------------------------------------------------------------------------------


def export(
    network: keras.Model,
    tokenizer: bytes,
    recipe: Recipe,
    read: Sequence[Tokens],
    classes: Ids,
    say: Say,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of a network, calibrated, and what was measured on the way.

    Args:
        network: that was trained.
        tokenizer: of its vocabulary.
        recipe: the knobs.
        read: the calibration part; it chooses the weights' precision, and the temperature.
        classes: the labels of that part, (n,).
        say: called with a line of each result.

    Raises:
        InvalidData: the exported network differs from the trained one.
    """
    head = export_head(network, recipe.pooling)
    found = [_files(export_network(network, int8), tokenizer, head) for int8 in (False, True)]
    served = [Network(files) for files in found]
    difference = compare(network, served[0], read[:AGREE_ON])
    say(f"Keras and the exported network agree within {difference:.1e}")
    scores = [each.scores(read) for each in served]
    exact, small = (float(np.mean(each.argmax(axis=1) == classes)) for each in scores)
    int8 = exact - small <= INT8_COSTS
    say(f"Accuracy on the calibration part {exact:.4f}, with 8-bit weights {small:.4f}")
    temperature = fit_temperature(scores[int8], classes)
    files = found[int8] | {HEAD: replace(head, temperature=temperature).dump()}
    return files, {
        "temperature": temperature,
        "keras_difference": difference,
        "calibration_accuracy_32_bit": exact,
        "calibration_accuracy_8_bit": small,
        "weight_bits": 8 if int8 else 32,
    }


def _files(network: bytes, tokenizer: bytes, head: Head) -> dict[str, bytes]:
    return {NETWORK: network, TOKENIZER: tokenizer, HEAD: head.dump()}


def compare(network: keras.Model, served: Network, read: Sequence[Tokens]) -> float:
    """Return how far the scores of Keras and of the exported network are apart at most.

    Raises:
        InvalidData: by more than `AGREE`: the network cannot be served.
    """
    there, here = score(network, _ids(read)), served.scores(read)
    difference = float(np.abs(there - here).max())
    if not difference <= AGREE:
        raise InvalidData(
            f"The exported network differs from Keras by {difference:.2g}, at most {AGREE:.0e} is"
            " allowed: nothing was published"
        )
    return difference


def _read(vocabulary: Vocabulary, texts: Sequence[str]) -> list[Tokens]:
    """Return the tokens of texts; where there are none, one unknown word."""
    return [each if len(each.ids) else NO_WORD for each in vocabulary.read_many(texts)]


def _ids(read: Sequence[Tokens]) -> list[Ids]:
    return [each.ids for each in read]
