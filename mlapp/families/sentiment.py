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
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime

from mlapp.errors import ArtifactError, Fault, InvalidInput
from mlapp.families.contract import (
    Explanation,
    Field,
    Headline,
    LabelOutput,
    Labels,
    Span,
    TextInput,
    TextReasons,
)
from mlapp.families.text import ALLOWED_KNOWN, Texts, Tokens, Vocabulary, check_texts
from mlapp.manifest import Artifact, command_of
from mlapp.schema import TEXT, Column, Floats, Notice, describe, is_series

if TYPE_CHECKING:  # takes longer to import than a text takes to classify
    import pandas as pd

NETWORK, TOKENIZER, HEAD, REPORT = "network.onnx", "tokenizer.json", "head.npz", "report.json"

EXTRAS = ((Field("tokens", "INT64"), False), (Field("unknown", "FP64"), True))
EXAMPLE = "I did not want it to end: a wonderful, funny film."
FEW_KNOWN = 0.5  # share of unknown words above which a text may be in another language

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


@dataclass(frozen=True)
class ReadTexts:
    """Texts that passed the check.

    Attributes:
        texts: as they were given.
        read: the tokens of each.
        row_labels: the labels of the n texts; None stands for 0 to n-1.
    """

    texts: list[str]
    read: list[Tokens]
    row_labels: "pd.Index | None" = None

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def notices(self) -> list[Notice]:
        """The texts of which hardly a word is known."""
        found = []
        for place, tokens in enumerate(self.read):
            known = 1 - tokens.unknown / tokens.words
            if known < 1 - FEW_KNOWN:
                label = place if self.row_labels is None else self.row_labels[place]
                detail = f"the model knows only {known:.0%} of the words"
                found.append(Notice(TEXT, detail, label))
        return found

    def row(self, place: int) -> dict[str, str]:
        """Return one text by its input's name."""
        return {TEXT: self.texts[place]}


class SentimentModel:
    """A text classifier: takes a text, gives labels with probabilities.

    Attributes:
        labels: what it distinguishes.
    """

    platform = "onnx"
    tolerance = 1e-3  # the arithmetic of the network differs a little between processors

    def __init__(self, artifact: Artifact) -> None:
        """Load the model from an opened artifact.

        Raises:
            ArtifactError: it is no text classifier, or its files do not fit together.
        """
        manifest = artifact.manifest
        if manifest.labels is None or manifest.task != "text-classification":
            raise ArtifactError(f"{artifact.path} is a {manifest.task} model, not a classifier")
        self.manifest, self.size, self.labels = manifest, artifact.size, manifest.labels
        example = manifest.golden[0].input.get(TEXT) if manifest.golden else None
        self.takes = TextInput(str(example or EXAMPLE))
        self.gives = LabelOutput(self.labels, "the label", EXTRAS)
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
            raise ArtifactError(
                f"{artifact.path} cannot be loaded: {error}", command_of(manifest)
            ) from error

    @property
    def headline(self) -> Headline:
        """The held-out accuracy."""
        accuracy = float(str(self.manifest.metrics["accuracy"]))
        meaning = "Share of texts that the training never saw which get their own label."
        return Headline("held-out accuracy", f"{accuracy:.1%}", meaning)

    def check(self, texts: Texts) -> ReadTexts:
        """Read texts, each with a word that the model knows.

        Raises:
            InvalidInput: with a fault for each text that `check_texts` refuses, or that holds no
                word of the vocabulary.
        """
        index = texts.index if is_series(texts) else None
        checked = check_texts(texts)
        read = list(_spread(self.vocabulary.read, checked))
        rows = range(len(read)) if index is None else index
        faults = []
        for row, text, tokens in zip(rows, checked, read, strict=True):
            if tokens.unknown == tokens.words:
                what = "no known word" if tokens.words else "no word"
                faults.append(Fault(TEXT, f"{what}: {describe(text)}", ALLOWED_KNOWN, row))
        if faults:
            raise InvalidInput(faults)
        return ReadTexts(checked, read, index)

    def check_columns(self, columns: Mapping[str, Column]) -> ReadTexts:
        """Read the texts of a column.

        Raises:
            InvalidInput: as `check`.
        """
        return self.check(list(columns[TEXT]))

    def answer(self, batch: ReadTexts) -> Labels:
        """Classify texts that were read."""
        extras = {
            "tokens": np.array([len(each.ids) for each in batch.read], dtype=np.int64),
            "unknown": np.array([each.unknown / each.words for each in batch.read], dtype=float),
        }
        return Labels(self.gives, softmax(self.scores(batch.read)), extras, batch.notices)

    def reasons(self, batch: ReadTexts) -> TextReasons:
        """Say which words decide; of more than two labels, for the one given."""
        labels = self.answer(batch).labels if len(self.labels) > 2 else [""] * len(batch)
        pairs = zip(batch.texts, batch.read, labels, strict=True)
        found = [
            self._explain(text, tokens, self.gives.explained(label))
            for text, tokens, label in pairs
        ]
        return TextReasons(batch.texts, found)

    def predict(self, texts: Texts) -> "pd.DataFrame":
        """Classify n texts.

        Args:
            texts: a sequence of n str, or a pandas series of them.

        Returns:
            n rows, with the series' index or 0 to n-1, and columns label; probability (of that
            label, calibrated); one per label, its probability, called as `gives.columns` says;
            tokens (how many were read); unknown (the share of words that are not in the
            vocabulary, 0 to 1).

        Raises:
            InvalidInput: as `check`.
        """
        import pandas as pd

        batch = self.check(texts)
        columns = ["label", "probability", *self.gives.columns.values(), "tokens", "unknown"]
        return pd.DataFrame(self.answer(batch).records(), batch.row_labels, columns)

    def explain(self, text: str, label: str | None = None) -> Explanation:
        """Say how much each word of a text speaks for a label.

        Args:
            text: the text; spans count its characters as given.
            label: the label to explain, by default the last, which is the positive one of two.

        Raises:
            InvalidInput: the text is refused as by `predict`, or there is no such label.
        """
        [tokens] = self.check([text]).read
        label = self.labels[-1] if label is None else label
        if label not in self.labels:
            allowed = f"one of {', '.join(map(repr, self.labels))}"
            raise InvalidInput([Fault("label", describe(label), allowed)])
        return self._explain(text, tokens, label)

    def _explain(self, text: str, tokens: Tokens, label: str) -> Explanation:
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
