"""The network of a text classifier: scores of a text, and what each word contributes to them.

    ids (time,) -> network.onnx -> states (time, width) -> pooled (width,) -> scores (labels,)

A text runs alone and at its own length, without padding; several run side by side on the cores.
Scores are divided by a temperature fitted on texts of its own (Guo et al., "On calibration of
modern neural networks", 2017); their softmax is the probability of each label.

A word contributes what its removal changes. The five words that speak most for the answer are
removed one after the other, each time the one that changes most of those left; a word counts what
its own removal changed, so that words that stand in for each other both count. Every other word
counts what leaving it out alone changes (occlusion: Zeiler and Fergus, "Visualizing and
understanding convolutional networks", 2014). What only several words together change is spread
evenly over those others, so that all contributions and the bias sum to the logit. Punctuation
contributes nothing of its own. `docs/reasons.md` compares this with other methods.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime

from mlapp.families.cores import spread
from mlapp.families.text import Contributions, Ids, Tokens, Vocabulary
from mlapp.schema import Floats

NETWORK, TOKENIZER, HEAD = "network.onnx", "tokenizer.json", "head.npz"

# Longer texts are read in pieces of so many tokens, which bounds memory; each begins afresh, and
# the maximum is taken over all. No review of the training data comes near.
PIECE = 4096

METHOD = (
    "A word's weight is how much its removal changes the logit: the five words that most support"
    " the answer are removed one after another, every other word on its own."
)
REMOVED = 5  # words that are removed one after the other
RIVALS = 12  # words of which each is chosen
EFFORT = 60_000  # tokens that are read at most to explain a text; about 0.1 s on two cores
FEWEST_RUNS = 20  # with fewer, the credit of `_credit` must do

# What is read of a text without a word.
NO_WORD = Tokens(np.array([1]), np.zeros(1, dtype=np.bool_), 1, 1)

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


class Network:
    """A network with its vocabulary; a `text.Scorer`.

    Attributes:
        vocabulary: the words that it knows.
        head: what follows the states.
    """

    platform = "onnx"
    method = METHOD

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
        # Without it, sums of 8-bit weights saturate on processors that have AVX2 and no VNNI.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(
            files[NETWORK], options, providers=["CPUExecutionProvider"]
        )

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text; one without a word is read as one unknown word."""
        found = self.vocabulary.read_many(texts)
        return [tokens if tokens.words else NO_WORD for tokens in found]

    def scores(self, readings: Sequence[Tokens]) -> Floats:
        """Return the calibrated scores (n, labels) of n texts.

        A text's scores are the same to the last bit whatever texts come with it.
        """
        scores = spread(lambda tokens: self.head.scores(self._pool(tokens.ids)), readings)
        return np.array(scores).reshape(len(readings), len(self.head.bias))

    def contributions(self, text: str, reading: Tokens, contrast: Floats) -> Contributions:
        """Return what each token adds to `scores @ contrast`; contrast is (labels,)."""
        ids = reading.ids
        spans = _span_all(text) if reading is NO_WORD else self.vocabulary.find_spans(text)
        weights = self.head.kernel @ contrast / self.head.temperature
        bias = float(self.head.bias @ contrast) / self.head.temperature
        words = np.flatnonzero(~reading.marks)
        credit = _on_words(words, self._credit(ids, weights))
        runs = EFFORT // max(1, len(ids))
        if runs < FEWEST_RUNS:
            return Contributions(spans, credit, bias)

        def ask(removed: Sequence[Sequence[int]]) -> Floats:
            """Return the logit without the tokens at some places, for each list of places."""
            left = [np.delete(ids, places) for places in removed]
            return bias + np.array(spread(lambda each: self._sum(each, weights), left))

        found = self._remove(words, credit, ask, runs, bias)
        return Contributions(spans, found, bias)

    def _remove(
        self,
        words: Ids,
        credit: Floats,
        ask: Callable[[Sequence[Sequence[int]]], Floats],
        runs: int,
        bias: float,
    ) -> Floats:
        """Return the contributions of the words at some places, by removing them.

        Args:
            words: the places.
            credit: a first guess of what each token contributes, (time,).
            ask: returns the logit without the tokens at some places, for each list of places.
            runs: how many lists may be asked about.
            bias: what all contributions and the logit differ by.
        """
        rivals = min(RIVALS, runs // (2 * REMOVED))
        tried = words[np.argsort(-np.abs(credit[words]), kind="stable")]
        tried = tried[: max(1, runs - REMOVED * rivals)]
        whole, *without = ask([[], *([place] for place in tried.tolist())]).tolist()
        found = np.zeros(len(credit))
        found[tried] = whole - np.array(without)
        sign = 1.0 if whole >= 0 else -1.0
        order = tried[np.argsort(-found[tried] * sign, kind="stable")]
        left = [place for place in order.tolist()[:rivals] if found[place] * sign > 0]
        removed: list[int] = []
        now = whole
        while left and len(removed) < REMOVED:
            after = ask([[*removed, place] for place in left])
            best = int(np.argmin(after * sign))
            if (now - after[best]) * sign <= 0:
                break
            removed.append(left.pop(best))
            found[removed[-1]], now = now - after[best], float(after[best])
        others = np.setdiff1d(words, removed)
        rest = whole - bias - float(found.sum())
        if len(others):
            found[others] += rest / len(others)
        else:
            found[removed] += rest / len(removed)
        return found

    def _states(self, ids: Ids) -> Iterator[Weights]:
        """Yield the states (time, width) of each piece of a text; the last state needs one."""
        piece = PIECE if self.head.pooling == "max" else max(1, len(ids))
        for start in range(0, len(ids), piece):
            yield self._session.run(["states"], {"ids": ids[None, start : start + piece]})[0]

    def _pool(self, ids: Ids) -> Floats:
        pooled = [self.head.pool(states) for states in self._states(ids)]
        return np.max(pooled, axis=0) if len(pooled) > 1 else pooled[0]

    def _sum(self, ids: Ids, weights: Floats) -> float:
        """Return weights (width,) times the pooled units; of no token, 0."""
        return float(self._pool(ids) @ weights) if len(ids) else 0.0

    def _credit(self, ids: Ids, weights: Floats) -> Floats:
        """Return what each token adds to weights (width,) times the pooled units, (time,).

        A pooled unit is credited to the one token at which it was largest. Where the network takes
        the last state instead, a token is credited with what its step changed.
        """
        credit = np.zeros(len(ids))
        if self.head.pooling == "last":
            [states] = self._states(ids)
            steps = np.diff(states.astype(np.float64), axis=0, prepend=0.0)
            return np.asarray(steps @ weights)
        best = np.full(len(weights), -np.inf)
        winner = np.zeros(len(weights), dtype=np.int64)
        for number, states in enumerate(self._states(ids)):
            largest = states.max(axis=0)
            better = largest > best
            winner[better] = number * PIECE + states.argmax(axis=0)[better]
            best = np.maximum(best, largest)
        np.add.at(credit, winner, weights * best)
        return credit


def _span_all(text: str) -> Ids:
    """Return where a text starts and ends, without the spaces around it, (1, 2)."""
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    return np.array([[start, max(start, end)]])


def _on_words(words: Ids, credit: Floats) -> Floats:
    """Return the credit (time,) with that of punctuation given to the word before, or else after.

    Args:
        words: the places of the words, one or more.
        credit: of each token.
    """
    count = len(credit)
    owner = words[np.maximum(np.searchsorted(words, np.arange(count), "right") - 1, 0)]
    own: Floats = np.bincount(owner, credit, minlength=count).astype(np.float64)
    return own
