"""A published text classifier: predict with calibrated probabilities, explain exactly.

    text -> tokens (time,) -> network.onnx -> states (time, width) -> pooled (width,) -> scores

A text runs alone and at its own length, without padding; several run side by side on the cores.

Explanations are exact. Pooled unit u is the largest of its states over time, so all it adds to a
score, `kernel[u] * pooled[u]`, is credited to the one word at which it was largest. Where the
network takes the last state instead, a word is credited with what its step changed: the steps sum
to the last state. Either way the words' credits and the bias sum to the score.

Scores are divided by a temperature fitted on texts of its own (Guo et al., "On calibration of
modern neural networks", 2017); the softmax of what results is the probability of each label.
"""

import io
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime

from mlapp.errors import ArtifactError, Fault, InvalidInput
from mlapp.families.text import ALLOWED_KNOWN, Texts, Tokens, Vocabulary, check_texts
from mlapp.manifest import Artifact, command_of
from mlapp.schema import Floats, describe, is_series, name_columns

if TYPE_CHECKING:  # takes longer to import than a text takes to classify
    import pandas as pd

NETWORK, TOKENIZER, HEAD, REPORT = "network.onnx", "tokenizer.json", "head.npz", "report.json"

UNSURE = "Unsure"
# An answer is unsure where the two likeliest labels are no farther apart; of two labels, that is a
# probability of 0.4 to 0.6.
MARGIN = 0.2
COLUMNS = ("label", "probability", "tokens", "unknown", "probabilities")  # of every answer

# Longer texts are read in pieces of so many tokens, which bounds memory; each begins afresh, and
# the maximum is taken over all. No review of the training data comes near.
PIECE = 4096

Pooling: TypeAlias = Literal["max", "last"]
Weights: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """What follows the states: how they are pooled, kernel (width, labels), bias (labels,)."""

    kernel: Floats
    bias: Floats
    temperature: float
    pooling: Pooling

    def pool(self, states: Weights) -> Floats:
        """Return the pooled units (width,) of states (time, width)."""
        pooled = states.max(axis=0) if self.pooling == "max" else states[-1]
        return np.asarray(pooled, dtype=np.float64)

    def scores(self, pooled: Floats) -> Floats:
        """Return calibrated scores, (..., labels); their softmax is the probabilities."""
        scores: Floats = (pooled @ self.kernel + self.bias) / self.temperature
        return scores

    def dump(self) -> bytes:
        """Return the head as the bytes of an .npz file."""
        file = io.BytesIO()
        np.savez(
            file,
            kernel=self.kernel,
            bias=self.bias,
            temperature=self.temperature,
            pooling=self.pooling,
        )
        return file.getvalue()

    @classmethod
    def load(cls, content: bytes) -> "Head":
        """Read what `dump` returned."""
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            temperature, pooling = file["temperature"].item(), file["pooling"].item()
            return cls(file["kernel"], file["bias"], temperature, pooling)


@dataclass(frozen=True, slots=True)
class Span:
    """A word with its weight: `text[start:end]` adds `weight` to the logit."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Explanation:
    """Why a text is given a label: the bias and the spans' weights sum to the logit.

    Attributes:
        label: the label that is explained. With two labels the logit is log(p / (1 - p)) of its
            calibrated probability p. With more it is its score less the mean of all scores.
        logit: see above; positive speaks for the label.
        bias: the part of the logit that no word has.
        spans: every token of the text, in order, each with its weight, 0 for most.
    """

    label: str
    logit: float
    bias: float
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of a text.

    Attributes:
        label: the likeliest label.
        probability: that label's, calibrated.
        probabilities: of each label, in the order of the model's labels.
        tokens: how many words and marks were read.
        unknown: the share of words that are not in the vocabulary, 0 to 1.
    """

    label: str
    probability: float
    probabilities: tuple[float, ...]
    tokens: int
    unknown: float


class SentimentModel:
    """A text classifier: `manifest` says what it is, `labels` what it distinguishes.

    Attributes:
        label_columns: what the column of each label is called in `predict`: the label, or where an
            answer has such a column of its own, `p_` and the label.
        margin: an answer is unsure where the two likeliest labels are no farther apart.
    """

    margin = MARGIN

    def __init__(self, artifact: Artifact) -> None:
        """Load the model from an opened artifact.

        Raises:
            ArtifactError: it is no text classifier, or its files do not fit together.
        """
        manifest = artifact.manifest
        self._command = command_of(manifest)
        if manifest.labels is None or manifest.task != "text-classification":
            raise ArtifactError(f"{artifact.path} is a {manifest.task} model, not a classifier")
        self.manifest, self.size, self.labels = manifest, artifact.size, manifest.labels
        self.label_columns = name_columns(self.labels, COLUMNS, "p_")
        self._report = artifact.files[REPORT]
        self.head = Head.load(artifact.files[HEAD])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.vocabulary = Vocabulary(artifact.files[TOKENIZER])
            self._session = onnxruntime.InferenceSession(
                artifact.files[NETWORK], options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's exceptions share no base
            raise ArtifactError(f"{artifact.path} cannot be loaded: {error}", self._command) from (
                error
            )

    def predict(self, texts: Texts) -> "pd.DataFrame":
        """Classify n texts.

        Args:
            texts: a sequence of n str, or a pandas series of them.

        Returns:
            n rows, with the series' index or 0 to n-1, and columns label; probability (of that
            label, calibrated); one per label, its probability, called as `label_columns` says;
            tokens (how many were read); unknown (the share of words that are not in the
            vocabulary, 0 to 1).

        Raises:
            InvalidInput: with a fault for each text that `check_texts` refuses, or that holds no
                word of the vocabulary.
        """
        import pandas as pd

        index = texts.index if is_series(texts) else None
        columns = ["label", "probability", *self.label_columns.values(), "tokens", "unknown"]
        return pd.DataFrame(self.predict_rows(texts), index, columns)

    def predict_rows(self, texts: Texts) -> list[dict[str, Any]]:
        """Classify n texts: the rows of `predict`, each as a dict by column.

        Raises:
            InvalidInput: as `predict`.
        """
        columns = self.label_columns.values()
        return [
            {"label": answer.label, "probability": answer.probability}
            | dict(zip(columns, answer.probabilities, strict=True))
            | {"tokens": answer.tokens, "unknown": answer.unknown}
            for answer in self.classify(texts)
        ]

    def classify(self, texts: Texts) -> list[Answer]:
        """Classify n texts: an answer for each.

        Raises:
            InvalidInput: as `predict`.
        """
        read = self.read(texts)
        answers = []
        for tokens, scores in zip(read, self.scores(read).tolist(), strict=True):
            # The softmax of a few numbers is quicker without arrays.
            powers = [math.exp(score - max(scores)) for score in scores]
            own = [power / sum(powers) for power in powers]
            probability = max(own)
            label, unknown = self.labels[own.index(probability)], tokens.unknown / tokens.words
            answers.append(Answer(label, probability, tuple(own), len(tokens.ids), unknown))
        return answers

    def explain(self, text: str, label: str | None = None) -> Explanation:
        """Say how much each word of a text speaks for a label.

        Args:
            text: the text; spans count its characters as given.
            label: the label to explain, by default the last, which is the positive one of two.

        Raises:
            InvalidInput: the text is refused as by `predict`, or there is no such label.
        """
        [tokens] = self.read([text])
        label = self.labels[-1] if label is None else label
        if label not in self.labels:
            allowed = f"one of {', '.join(map(repr, self.labels))}"
            raise InvalidInput([Fault("label", describe(label), allowed)])
        place, count = self.labels.index(label), len(self.labels)
        # The difference of two scores is twice the distance of either from their mean.
        factor = (2.0 if count == 2 else 1.0) / self.head.temperature
        weights = factor * (self.head.kernel[:, place] - self.head.kernel.mean(axis=1))
        bias = factor * float(self.head.bias[place] - self.head.bias.mean())
        credit = self._credit(tokens, weights)
        spans = tuple(
            Span(start, _whole(text, end), weight)
            for (start, end), weight in zip(tokens.spans.tolist(), credit.tolist(), strict=True)
        )
        return Explanation(label, bias + float(credit.sum()), bias, spans)

    def is_unsure(self, probabilities: Sequence[float]) -> bool:
        """Return whether the two likeliest labels are no farther apart than `margin`.

        Args:
            probabilities: of each label, in any order.
        """
        second, first = sorted(probabilities)[-2:]
        return first - second <= self.margin

    def read(self, texts: Texts) -> list[Tokens]:
        """Return the tokens of texts, each with a word that the model knows.

        Raises:
            InvalidInput: as `predict`.
        """
        checked = check_texts(texts)
        read = list(_spread(self.vocabulary.read, checked))
        rows = texts.index if is_series(texts) else range(len(read))
        faults = []
        for row, text, tokens in zip(rows, checked, read, strict=True):
            if tokens.unknown == tokens.words:
                what = "no known word" if tokens.words else "no word"
                faults.append(Fault("text", f"{what}: {describe(text)}", ALLOWED_KNOWN, row))
        if faults:
            raise InvalidInput(faults)
        return read

    def scores(self, read: list[Tokens]) -> Floats:
        """Return the calibrated scores (n, labels) of n texts that were read.

        A text's scores are the same to the last bit whatever texts come with it.
        """
        scores = list(_spread(lambda tokens: self.head.scores(self._pool(tokens)), read))
        return np.array(scores).reshape(len(read), len(self.labels))

    @cached_property
    def report(self) -> dict[str, Any]:
        """What training measured on the held-out part, for pictures; see `training.sentiment`."""
        report: dict[str, Any] = json.loads(self._report)
        return report

    def replay(self) -> None:
        """Classify the golden texts again.

        Raises:
            ArtifactError: a label differs, or a probability by more than 0.001: the arithmetic of
                the network differs a little between processors.
        """
        golden = self.manifest.golden
        found = self.predict([str(text.input["text"]) for text in golden])
        same = [text.output["label"] for text in golden] == list(found["label"])
        expected = [float(str(text.output["probability"])) for text in golden]
        if not same or not np.allclose(found["probability"], expected, rtol=0, atol=1e-3):
            raise ArtifactError(
                f"Version {self.manifest.version} of {self.manifest.name!r} does not repeat its"
                " golden predictions",
                self._command,
            )

    def _states(self, tokens: Tokens) -> Iterable[Weights]:
        """Yield the states (time, width) of each piece of a text; the last state needs one."""
        piece = PIECE if self.head.pooling == "max" else max(1, len(tokens.ids))
        for start in range(0, len(tokens.ids), piece):
            ids = tokens.ids[None, start : start + piece]
            yield self._session.run(["states"], {"ids": ids})[0]

    def _pool(self, tokens: Tokens) -> Floats:
        pooled = [self.head.pool(states) for states in self._states(tokens)]
        return np.max(pooled, axis=0) if len(pooled) > 1 else pooled[0]

    def _credit(self, tokens: Tokens, weights: Floats) -> Floats:
        """Return what each token adds to weights (width,) times the pooled units, (time,)."""
        credit = np.zeros(len(tokens.ids))
        if self.head.pooling == "last":
            [states] = self._states(tokens)
            steps = np.diff(states.astype(np.float64), axis=0, prepend=0.0)
            return np.asarray(steps @ weights)
        best = np.full(len(weights), -np.inf)
        winner = np.zeros(len(weights), dtype=np.int64)
        for number, states in enumerate(self._states(tokens)):
            largest = states.max(axis=0)
            better = largest > best
            winner[better] = number * PIECE + states.argmax(axis=0)[better]
            best = np.maximum(best, largest)
        np.add.at(credit, winner, weights * best)
        return credit


def softmax(scores: Floats) -> Floats:
    """Return the probabilities (n, labels) of scores (n, labels)."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _spread(work: Any, items: list[Any]) -> Iterable[Any]:
    """Return the results of work on each item, in order, spread over the cores.

    The tokenizer and the network let other threads run while they work.
    """
    threads = min(len(items), os.cpu_count() or 1)
    if threads < 2:
        return map(work, items)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


_MARKS_FOLLOW = re.compile(r"[\u200d\ufe0f\U0001f3fb-\U0001f3ff]")


def _whole(text: str, end: int) -> int:
    """Move a span's end behind the combining marks that belong to its last character."""
    while end < len(text) and (unicodedata.combining(text[end]) or _MARKS_FOLLOW.match(text[end])):
        end += 1
    return end
