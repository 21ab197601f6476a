"""Texts as units and n-grams, for linear models and for comparing texts.

    text as given -> `clean`, lower case -> units with their spans -> hashes of n-grams

A unit is a word, a number, a symbol or a mark; in scripts that put no spaces between words, it is
one character. N-grams are one to three units in a row, and two to five characters of a word, the
space before and behind it included. An n-gram is known by a hash of 32 bits alone.
"""

import unicodedata
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from mlapp.families.text import EMOTICON, MARKS, MARKUP, WORD, Ids, clean

LARGEST_UNITS = 3  # units in a row
LARGEST_PIECE = 5  # characters in a row

Hashes: TypeAlias = npt.NDArray[np.uint32]
Counts: TypeAlias = tuple[Hashes, Ids]  # different hashes, ascending, and how often each occurs

_WIDE = "\u3002\uff0c\uff01\uff1f\uff1b\u3001"  # the marks of East Asian texts
_UNIT = "|".join(
    [
        WORD,
        r"\p{N}+(?:[.,/]\p{N}+)*",
        EMOTICON,
        rf"\.\.+|[.,!?;{_WIDE}]",
        r"\p{S}\p{M}*",
    ]
)
_MARKS = MARKS | set(_WIDE)
_BASE, _MIX, _LAST = (np.uint64(each) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 29))
_HALF = np.uint64(32)


@dataclass(frozen=True)
class Units:
    """A text's n units and its m n-grams.

    Attributes:
        spans: where each unit starts and ends in the text as given, (n, 2).
        words: the places of the units that are not punctuation, (words,).
        hashes: of each n-gram, (m,); the first n are the units themselves, in order.
        first: the place of the first unit that an n-gram covers, (m,).
        length: how many units it covers, (m,).
        pieces: where the n-grams of characters begin among all; those of units come before.
    """

    spans: Ids
    words: Ids
    hashes: Hashes
    first: Ids
    length: Ids
    pieces: int

    def count(self) -> tuple[Counts, Counts]:
        """Return the different n-grams of units, ascending, with their counts; and the pieces."""
        units, pieces = (
            np.unique(block, return_counts=True)
            for block in (self.hashes[: self.pieces], self.hashes[self.pieces :])
        )
        return units, pieces


class Reader:
    """Reads texts as units and n-grams."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer(WordLevel({"": 0}, unk_token=""))
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(MARKUP), "removed"),
                pre_tokenizers.Split(Regex(_UNIT), "removed", invert=True),
            ]
        )

    def read(self, text: str) -> Units:
        """Return a text's units; there may be none."""
        cleaned = clean(text)
        lowered = cleaned.lower()
        if len(lowered) != len(cleaned):  # a few capitals become two characters
            lowered = "".join(each if len(each.lower()) > 1 else each.lower() for each in cleaned)
        spans = self._tokenizer.encode(lowered).offsets
        names = [lowered[start:end] for start, end in spans]
        if not unicodedata.is_normalized("NFC", lowered):
            names = [unicodedata.normalize("NFC", name) for name in names]
        words = np.flatnonzero([not _MARKS.issuperset(name) for name in names])
        grams, pieces, owners = _hash_units(names)
        count = len(names)
        firsts = [np.arange(max(0, count - n)) for n in range(LARGEST_UNITS)]
        lengths = [np.full(len(each), n) for n, each in enumerate(firsts, 1)]
        return Units(
            np.array(spans, dtype=np.int64).reshape(count, 2),
            words,
            np.concatenate([*grams, pieces]),
            np.concatenate([*firsts, owners]),
            np.concatenate([*lengths, np.ones(len(pieces), dtype=np.int64)]),
            sum(map(len, grams)),
        )


def _hash_units(names: list[str]) -> tuple[list[Hashes], Hashes, Ids]:
    """Return the hashes of units, pairs and triples, and of pieces of words with their words."""
    joined = f" {' '.join(names)} " if names else ""
    codes = np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    spaces = codes == ord(" ")
    units = np.cumsum(spaces) - 1  # the unit that a character, or the space before it, belongs to
    mixed = (codes + np.uint64(1)) * _BASE
    mixed ^= mixed >> _HALF
    starts = np.flatnonzero(spaces)[:-1]
    grams: list[Hashes] = []
    if names:
        inside = np.arange(len(codes)) - np.append(starts, 0)[units]
        powers = np.full(int(inside.max()) + 1, _MIX)
        powers[0] = 1
        weighted = mixed * np.multiply.accumulate(powers)[inside]
        whole = np.add.reduceat(weighted[:-1], starts)  # the last space begins no unit
        row = whole
        for n in range(1, LARGEST_UNITS + 1):
            grams.append(_finish(row[: max(0, len(whole) - n + 1)]))
            row = row[:-1] * _BASE + whole[n:] if len(whole) > n else row[:0]
    long = np.append(np.diff(np.flatnonzero(spaces)) > 2, False)[units]  # more than one character
    pieces, owners = [np.empty(0, np.uint32)], [np.empty(0, np.int64)]
    row = mixed
    for n in range(2, LARGEST_PIECE + 1):
        row = row[:-1] * _MIX + mixed[n - 1 :]
        end = len(codes) - 1
        good = long[: len(row)] & (units[n - 2 : end] == units[: len(row)])
        pieces.append(_finish(row[good] ^ _MIX))
        owners.append(units[: len(row)][good])
    return grams, np.concatenate(pieces), np.concatenate(owners)


def _finish(values: npt.NDArray[np.uint64]) -> Hashes:
    """Spread what differs in any bit over the upper half, and return that."""
    spread = (values ^ (values >> _LAST)) * _MIX
    return ((spread ^ (spread >> _LAST)) * _BASE >> _HALF).astype(np.uint32)
