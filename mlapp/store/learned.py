"""What a version has learned from, so that it is not judged by that.

A version keeps a fingerprint of each row or text. None can be reconstructed from its fingerprint.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mlapp.manifest import Artifact
from mlapp.schema import TEXT

LEARNED = "learned.bin"  # the file of the fingerprints: 8 bytes each, ascending
MOST = 200_000  # rows of which a version keeps fingerprints; of more, it keeps none
_BYTES = 8  # of a fingerprint


def fingerprint(row: Mapping[str, Any] | str) -> str:
    """Return what identifies a row or a text: 16 hexadecimal digits.

    Args:
        row: a text; or the values of the inputs by name, with or without that of the target:
            numbers, texts, booleans, None. Numbers are compared as floats, so 1 and 1.0 are the
            same, and Booleans in one spelling, since each format has its own.
    """
    if not isinstance(row, str):
        row = json.dumps({name: _plain(row[name]) for name in sorted(row)}, ensure_ascii=False)
    return hashlib.sha256(row.encode("utf-8", "surrogatepass")).hexdigest()[: 2 * _BYTES]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, np.bool_)):
        return _spell(str(value))
    number = float(value)
    return None if np.isnan(number) else _spell(number)


def _spell(value: Any) -> Any:
    """Return a value as all that are equal to it are spelled: True for TRUE, 0.0 for -0.0."""
    if isinstance(value, str) and (word := value.capitalize()) in ("True", "False"):
        return word  # as pandas writes it, so fingerprints of most older versions hold
    return value + 0.0 if isinstance(value, float) else value


def unify(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of an instance in one spelling for all instances that are equal.

    Texts are equal where their keys are, as in training.
    """
    if row.keys() == {TEXT} and isinstance(row[TEXT], str):
        return {TEXT: key(row[TEXT])}
    return {name: _spell(value) for name, value in row.items()}


def key(text: str) -> str:
    """Return what two texts have in common that differ in case, punctuation and spaces alone."""
    return " ".join(text.lower().translate(_GAPS).split())


class _Gaps(dict[int, str]):
    """What each character becomes in a key: itself, or a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        # Emoji and vowel signs tell texts apart; the symbols of ASCII are mostly markup.
        symbol = code > 127 and unicodedata.category(character)[0] in "MS"
        self[code] = character if character.isalnum() or symbol else " "
        return self[code]


_GAPS = _Gaps()


def dump_learned(rows: Iterable[Mapping[str, Any] | str]) -> dict[str, bytes]:
    """Return the file of a version that knows what it learned from, by name; see `fingerprint`.

    Texts are known by their keys; older versions know them by the texts themselves.
    """
    found = set[str]()
    for row in rows:
        found.add(fingerprint(key(row) if isinstance(row, str) else row))
        if len(found) > MOST:
            return {}
    return {LEARNED: bytes.fromhex("".join(sorted(found)))}


def load_learned(artifact: Artifact) -> frozenset[str]:
    """Return the fingerprints of what a version learned from; none if it kept none."""
    content = artifact.files.get(LEARNED, b"").hex()
    size = 2 * _BYTES
    return frozenset(content[start : start + size] for start in range(0, len(content), size))
