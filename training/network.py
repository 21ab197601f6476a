"""The network: a word table, an LSTM, max over time, one layer.

    ids (batch, time) -> vectors (batch, time, dimensions) -> states (batch, time, width)
        -> pooled (batch, width) -> scores (batch, labels)

Texts of a batch are padded and masked, so that padding changes no number. `mlapp.families.network`
serves the same network without either, one text at its own length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mlapp.families.text import Ids
from mlapp.schema import Floats
from training.progress import Progress
from training.vectors import Vectors

SORTED = 50  # batches that are sorted by length together
LOWEST = -1e9  # what a masked state counts in the maximum
CLIP = 1.0  # largest norm of a step's gradient


@dataclass(frozen=True)
class Shape:
    """What rebuilds the network: `pooling` is max over time, or the last state."""

    words: int
    dimensions: int
    units: int
    labels: int
    bidirectional: bool = True
    pooling: str = "max"
    spatial_dropout: float = 0.2
    dropout: float = 0.4


class MaskedMax(keras.layers.Layer):  # type: ignore[misc]
    """The maximum over time, (batch, time, width) to (batch, width), without masked steps."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.supports_masking = True

    def call(self, states: Any, mask: Any = None) -> Any:
        """Return the maximum."""
        if mask is not None:
            states = keras.ops.where(mask[..., None], states, LOWEST)
        return keras.ops.max(states, axis=1)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Nothing is left to mask."""


def build(shape: Shape, vectors: Vectors | None = None) -> keras.Model:
    """Return the network, untrained; where vectors are given, the word table is frozen at first."""
    layers = keras.layers
    table = layers.Embedding(
        shape.words, shape.dimensions, mask_zero=True, trainable=vectors is None, name="table"
    )
    lstm = layers.LSTM(shape.units, return_sequences=shape.pooling == "max", name="lstm")
    ids = keras.Input((None,), dtype="int32")
    flow = layers.SpatialDropout1D(shape.spatial_dropout)(table(ids))
    flow = (layers.Bidirectional(lstm, name="both") if shape.bidirectional else lstm)(flow)
    flow = MaskedMax()(flow) if shape.pooling == "max" else flow
    flow = layers.Dropout(shape.dropout)(flow)
    network = keras.Model(ids, layers.Dense(shape.labels, name="head")(flow))
    if vectors is not None:
        table.set_weights([vectors])
    return network


def pad(texts: Sequence[Ids], length: int | None = None) -> npt.NDArray[np.int32]:
    """Return ids padded with 0 behind, (texts, time); time is that of the longest, or `length`."""
    time = length or max(1, *map(len, texts)) if texts else 1
    padded = np.zeros((len(texts), time), dtype=np.int32)
    for row, ids in enumerate(texts):
        padded[row, : len(ids)] = ids[:time]
    return padded


def batches(texts: Sequence[Ids], size: int, random: np.random.Generator) -> Iterator[Ids]:
    """Yield the rows of each batch: random, but texts of similar length together."""
    order = random.permutation(len(texts))
    found = []
    for start in range(0, len(order), size * SORTED):
        part = order[start : start + size * SORTED]
        part = part[np.argsort([len(texts[row]) for row in part], kind="stable")]
        found += [part[at : at + size] for at in range(0, len(part), size)]
    for place in random.permutation(len(found)):
        yield found[place]


class Trainer:
    """Trains a network by Adam, the rate falling linearly to a hundredth."""

    def __init__(self, network: keras.Model, rate: float, batch: int, steps: int) -> None:
        """Prepare `steps` steps of `batch` texts, the first at `rate`."""
        self.rate, self.batch, self.steps, self.step = rate, batch, max(1, steps), 0
        self._optimizer = keras.optimizers.Adam(rate, clipnorm=CLIP)
        self._optimizer.build(network.trainable_variables)

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[
                tf.TensorSpec([None, None], tf.int32),
                tf.TensorSpec([None, None], tf.float32),
            ]
        )
        def step(ids: Any, targets: Any) -> Any:
            with tf.GradientTape() as tape:
                scores = network(ids, training=True)
                losses = tf.nn.softmax_cross_entropy_with_logits(targets, scores)
                loss = tf.reduce_mean(losses)
            gradients = tape.gradient(loss, network.trainable_variables)
            self._optimizer.apply(gradients)
            right = tf.equal(tf.argmax(scores, axis=1), tf.argmax(targets, axis=1))
            return loss, tf.reduce_mean(tf.cast(right, tf.float32))

        self._step = step

    def epoch(
        self,
        texts: Sequence[Ids],
        targets: Floats,
        random: np.random.Generator,
        progress: Progress,
        pad_to: int | None = None,
    ) -> tuple[float, float]:
        """Go once through n texts with targets (n, labels); return mean loss and accuracy."""
        losses, rights, weights = [], [], []
        for rows in batches(texts, self.batch, random):
            left = 1 - 0.99 * min(1.0, self.step / self.steps)
            self._optimizer.learning_rate.assign(self.rate * left)
            ids = pad([texts[row] for row in rows], pad_to)
            loss, right = self._step(ids, targets[rows].astype(np.float32))
            losses.append(float(loss))
            rights.append(float(right))
            weights.append(len(rows))
            self.step += 1
            loss, right = np.mean(losses[-100:]), np.mean(rights[-100:])
            progress.advance(len(rows), f"loss {loss:.4f}, accuracy {right:.4f}")
        return float(np.average(losses, weights=weights)), float(
            np.average(rights, weights=weights)
        )


def score(network: keras.Model, texts: Sequence[Ids], size: int = 256) -> Floats:
    """Return the scores of n texts, (n, labels), `size` at a time."""
    forward = _forward(network)
    scores = np.empty((len(texts), network.output_shape[-1]))
    order = np.argsort([len(ids) for ids in texts], kind="stable")
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        scores[rows] = forward(pad([texts[row] for row in rows])).numpy()
    return scores


@lru_cache(maxsize=1)
def _forward(network: keras.Model) -> Any:
    """Return the network as one compiled function of ids of any shape."""
    signature = [tf.TensorSpec([None, None], tf.int32)]
    return tf.function(lambda ids: network(ids, training=False), input_signature=signature)
