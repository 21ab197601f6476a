"""A recurrent network over the words of a text.

    text -> tokens (time,) -> network.onnx -> states (time, width) -> pooled (width,) -> scores

A text runs alone and at its own length, without padding; several run side by side on the cores.

Contributions are exact. Pooled unit u is the largest of its states over time, so all it adds to a
score, `kernel[u] * pooled[u]`, is credited to the one word at which it was largest. Where the
network takes the last state instead, a word is credited with what its step changed: the steps sum
to the last state. Either way the words' credits and the bias sum to the score.

Scores are divided by a temperature fitted on texts of its own (Guo et al., "On calibration of
modern neural networks", 2017).
"""

import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import onnxruntime

from mlapp.families.text import Contributions, Tokens, Vocabulary
from mlapp.schema import Floats

NETWORK, TOKENIZER, HEAD = "network.onnx", "tokenizer.json", "head.npz"

# Longer texts are read in pieces of so many tokens, which bounds memory; each begins afresh, and
# the maximum is taken over all. No review of the training data comes near.
PIECE = 4096

Pooling: TypeAlias = Literal["max", "last"]
Weights: TypeAlias = npt.NDArray[np.float32]
T = TypeVar("T")
R = TypeVar("R")


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


class Network:
    """A network with its vocabulary; a `text.Scorer`.

    Attributes:
        vocabulary: the words that it knows.
        head: what follows the states.
    """

    platform = "onnx"
    method = "A word is credited with all that it moved the network most."

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Load the network from the files of an artifact.

        Raises:
            Exception: any, when they cannot be read or do not fit together.
        """
        self.head = Head.load(files[HEAD])
        self.vocabulary = Vocabulary(files[TOKENIZER])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            files[NETWORK], options, providers=["CPUExecutionProvider"]
        )

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text."""
        return _spread(self.vocabulary.read, texts)

    def scores(self, readings: Sequence[Tokens]) -> Floats:
        """Return the calibrated scores (n, labels) of n texts.

        A text's scores are the same to the last bit whatever texts come with it.
        """
        scores = _spread(lambda tokens: self.head.scores(self._pool(tokens)), readings)
        return np.array(scores).reshape(len(readings), len(self.head.bias))

    def contributions(self, text: str, reading: Tokens, contrast: Floats) -> Contributions:  # noqa: ARG002
        """Return what each token adds to `scores @ contrast`; contrast is (labels,)."""
        weights = self.head.kernel @ contrast / self.head.temperature
        bias = float(self.head.bias @ contrast) / self.head.temperature
        return Contributions(reading.spans, self._credit(reading, weights), bias)

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


def _spread(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return the results of work on each item, in order, spread over the cores.

    The tokenizer and the network let other threads run while they work.
    """
    threads = min(len(items), os.cpu_count() or 1)
    if threads < 2:
        return list(map(work, items))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
