"""Word vectors learned from the texts alone, labelled or not: CBOW with shared negatives.

A word is predicted from the mean of the words around it (Mikolov et al., "Efficient estimation of
word representations in vector space", 2013). The texts are one long stream; a step takes a
stretch of it, so that window sums are shifted sums, and all words of the stretch share one set of
negatives (as in Ji et al., "Parallelizing Word2Vec in shared and distributed memory", 2016).
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mlapp.text import Ids
from training.tables import Say

Vectors = npt.NDArray[np.float32]

WINDOW = 5  # words on either side
STRETCH = 8192  # words per step
NEGATIVES = 256  # shared by the words of a step
WEIGHT = 5.0  # how many negatives per word those count for
RATE = 0.1  # of Adagrad, falling to a tenth
LENGTH = 3.0  # mean length of the vectors: what the weights of an LSTM begin best with
RARE = 10  # texts added to the counts of `polarity`
POLARITY = 1.0  # what its columns are multiplied by, to weigh like the others
FREQUENT = 1e-4  # words more frequent than this share are left out at random (Mikolov, 2013)


def polarity(texts: Sequence[Ids], classes: Ids, words: int, labels: int) -> Vectors:
    """Return how much each word speaks for each label, (words, labels); one column for two.

    The log ratio of the shares of texts that a word occurs in, as in `training.linear`, with
    `RARE` texts added to each count, so that rare words say little.
    """
    counts = np.zeros((words, labels))
    for ids, label in zip(texts, classes, strict=True):
        counts[np.unique(ids), label] += 1
    sizes = np.bincount(classes, minlength=labels)
    others = (counts.sum(axis=1, keepdims=True) - counts + RARE) / (sizes.sum() - sizes)
    ratios = np.log((counts + RARE) / sizes) - np.log(others)
    ratios[0] = 0
    return np.asarray(POLARITY * (ratios[:, 1:] if labels == 2 else ratios), dtype=np.float32)


def train_vectors(
    texts: Sequence[Ids], words: int, dimensions: int, epochs: int, seed: int, say: Say
) -> Vectors:
    """Return one vector per word of the vocabulary, (words, dimensions).

    Args:
        texts: the ids of each text's tokens; 0 (padding) must not occur.
        words: the vocabulary's size.
        dimensions: of a vector.
        epochs: how often the texts are gone through.
        seed: of the random choices.
        say: called with a line per epoch.
    """
    random = np.random.default_rng(seed)
    stream = np.concatenate([np.append(ids, [0] * WINDOW) for ids in texts])
    counts = np.bincount(stream, minlength=words).astype(float)
    counts[0] = 0
    share = counts / counts.sum()
    keep = np.minimum(1, np.sqrt(FREQUENT / np.maximum(share, 1e-12)))
    keep[0] = 1
    noise = np.cumsum(counts**0.75)
    noise /= noise[-1]

    def variable(value: npt.NDArray[Any]) -> Any:
        return tf.Variable(value.astype(np.float32))

    inner = variable((random.random((words, dimensions)) - 0.5) / dimensions)
    outer = variable(np.zeros((words, dimensions)))
    sums = [variable(np.full((words, dimensions), 0.1)) for _ in range(2)]

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(ids: Any, negatives: Any, rate: Any) -> Any:
        rows = tf.gather(inner, ids)
        targets = tf.gather(outer, ids)
        against = tf.gather(outer, negatives)
        with tf.GradientTape() as tape:
            tape.watch([rows, targets, against])
            present = tf.cast(ids > 0, tf.float32)[:, None]
            around = tf.concat([rows * present, present], axis=1)
            padded = tf.pad(around, [[WINDOW, WINDOW], [0, 0]])
            length = tf.shape(ids)[0]
            window = tf.add_n([padded[at : at + length] for at in range(2 * WINDOW + 1)]) - around
            context = window[:, :-1] / tf.maximum(window[:, -1:], 1)
            right = tf.nn.softplus(-tf.reduce_sum(context * targets, axis=1))
            wrong = tf.nn.softplus(tf.matmul(context, against, transpose_b=True))
            each = right + (WEIGHT / NEGATIVES) * tf.reduce_sum(wrong, axis=1)
            loss = tf.reduce_sum(each * present[:, 0])
        row, target, negative = tape.gradient(loss, [rows, targets, against])
        for place, (vectors, gradient, where) in enumerate(
            [
                (inner, row, ids),
                (outer, tf.concat([target, negative], 0), tf.concat([ids, negatives], 0)),
            ]
        ):
            tf.raw_ops.ResourceSparseApplyAdagradV2(
                var=vectors.handle,
                accum=sums[place].handle,
                lr=rate,
                epsilon=1e-7,
                grad=gradient,
                indices=where,
            )
        return loss / tf.reduce_sum(present)

    started = time.monotonic()
    for epoch in range(epochs):
        kept = stream[random.random(len(stream)) < keep[stream]].astype(np.int32)
        starts = random.permutation(np.arange(0, len(kept), STRETCH))
        losses = []
        for place, start in enumerate(starts):
            done = (epoch + place / len(starts)) / epochs
            drawn = np.searchsorted(noise, random.random(NEGATIVES)).astype(np.int32)
            rate = np.float32(RATE * (1 - 0.9 * done))
            losses.append(step(kept[start : start + STRETCH], drawn, rate))
        loss = float(np.mean([float(each) for each in losses]))
        spent = time.monotonic() - started
        left = spent / (epoch + 1) * (epochs - epoch - 1)
        say(f"  word vectors, epoch {epoch + 1}/{epochs}: loss {loss:.4f}, {left:.0f} s left")
    vectors: Vectors = inner.numpy()
    vectors[0] = 0
    return vectors * np.float32(LENGTH / np.linalg.norm(vectors[1:], axis=1).mean())
