"""Word vectors learned from the texts alone, labelled or not: CBOW with negative sampling.

A word is predicted from the mean of the words around it (Mikolov et al., "Efficient estimation of
word representations in vector space", 2013).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from gensim.models import Word2Vec

from mlapp.families.text import Ids
from training.progress import Progress

Vectors = npt.NDArray[np.float32]

WINDOW = 5  # words on either side
LENGTH = 3.0  # mean length of the vectors: what the weights of an LSTM begin best with


def train_vectors(
    texts: Sequence[Ids], words: int, dimensions: int, epochs: int, seed: int
) -> Vectors:
    """Return one vector per word of the vocabulary, (words, dimensions); the same for a seed.

    Args:
        texts: the ids of each text's tokens; 0 (padding) must not occur.
        words: the vocabulary's size; words that are in no text keep a vector of zeros.
        dimensions: of a vector.
        epochs: how often the texts are gone through.
        seed: of the random choices.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    progress = Progress("word vectors", (epochs + 1) * len(texts))
    # One thread: with more, the order of the steps is chance, and so are the vectors.
    model = Word2Vec(
        _Stream([texts[row] for row in order], progress),
        vector_size=dimensions,
        window=WINDOW,
        min_count=1,
        seed=seed,
        workers=1,
        epochs=epochs,
    )
    vectors = np.zeros((words, dimensions), dtype=np.float32)
    vectors[model.wv.index_to_key] = model.wv.vectors
    return vectors * np.float32(LENGTH / np.linalg.norm(model.wv.vectors, axis=1).mean())


class _Stream:
    """Texts as gensim takes them: once to count the words, and once an epoch."""

    def __init__(self, texts: Sequence[Ids], progress: Progress) -> None:
        self._texts, self._progress = texts, progress

    def __iter__(self) -> Iterator[list[int]]:
        for ids in self._texts:
            self._progress.advance(1)
            yield ids.tolist()
