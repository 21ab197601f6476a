"""Texts of a model's own kind: examples for people, and golden texts.

No text of the training data is published. Unless examples are given, they are made of words that
are typical of a label and occur in several texts.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mlapp.families.text import LONGEST, Ids, is_readable
from mlapp.families.units import Reader
from training.texts import Reviews

FILM = (
    "Slow at first, but I was in tears by the end, and I would see it again.",
    "Two hours of noise, and not one idea.",
    "Not bad at all: better than its poster, anyway.",
    "Movie was pathetic",
    "It begins well enough.<br /><br />Then it falls apart, and nobody seems to care.",
)
MOST = 4  # examples; of more labels, those of the most frequent
WORDS = 5  # of an example
LEAST = 5  # texts that a word must occur in; of few texts, two
SEEN = 1_000  # texts per label that words are counted in
LONGEST_WORD = 40  # characters; what is longer is no word that people write
FREQUENT = 20  # words of the golden text that any label may get


def make_examples(reviews: Reviews) -> list[str]:
    """Return a line of typical words for each of the most frequent labels."""
    counts = [_count(reviews, label) for label in range(len(reviews.labels))]
    everywhere = Counter[str]()
    for own, _ in counts:
        everywhere.update(own)
    total = sum(seen for _, seen in counts)
    order = np.argsort(-np.bincount(reviews.classes), kind="stable")[:MOST]
    found = []
    for label in order.tolist():
        own, seen = counts[label]
        least = min(LEAST, max(2, seen // 5))
        # How much more often than among all, weighted by how often.
        worth = {
            word: times * np.log(times / seen / (everywhere[word] / total))
            for word, times in own.items()
            if times >= least
        }
        best = sorted(worth, key=lambda word: (-worth[word], word))[:WORDS]
        if best and worth[best[0]] > 0:
            found.append(" ".join(best))
    return found


def frequent_words(reviews: Reviews) -> str:
    """Return the words that occur in most texts, in one text; it is empty if none is in two."""
    everywhere = Counter[str]()
    for label in range(len(reviews.labels)):
        everywhere.update(_count(reviews, label)[0])
    frequent = (word for word, texts in everywhere.most_common(FREQUENT) if texts > 1)
    return " ".join(frequent)


def _count(reviews: Reviews, label: int) -> tuple[Counter[str], int]:
    """Return in how many of a label's first texts each word occurs, and how many texts these are.

    In scripts without spaces, and of emoji, two neighbouring characters are a word.
    """
    rows: Ids = np.flatnonzero(reviews.classes == label)[:SEEN]
    found, reader = Counter[str](), Reader()
    for row in rows.tolist():
        text = reviews.texts[row]
        spans = reader.read(text[: min(len(text), LONGEST)]).spans.tolist()
        words = _words(text, spans)
        found.update({word.lower() for word in words if len(word) <= LONGEST_WORD})
    return found, len(rows)


def _words(text: str, spans: Sequence[Sequence[int]]) -> list[str]:
    """Return the words of a text by the spans of its units; a character alone is one, too."""
    found = []
    for place, (start, end) in enumerate(spans):
        after = spans[place + 1] if place + 1 < len(spans) else (-1, -1)
        before = spans[place - 1][1] if place else -1
        if not is_readable(text[start:end]):
            continue
        if end - start > 1:
            found.append(text[start:end])
        elif after == [end, end + 1] and is_readable(text[end]):
            found.append(text[start : end + 1])
        elif before != start:
            found.append(text[start:end])
    return found
