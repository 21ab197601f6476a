"""What a version has learned from, so that it is not judged by that.

A version keeps a fingerprint of each row or text. None can be reconstructed from its fingerprint.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mlapp.manifest import Artifact

LEARNED = "learned.bin"  # the file of the fingerprints: 8 bytes each, ascending
MOST = 200_000  # rows of which a version keeps fingerprints; of more, it keeps none
_BYTES = 8  # of a fingerprint


def fingerprint(row: Mapping[str, Any] | str) -> str:
    """Return what identifies a row or a text: 16 hexadecimal digits.

    Args:
        row: a text; or the values of the inputs by name, with or without that of the target:
            numbers, texts, booleans, None. Numbers are compared as floats, so 1 and 1.0 are the
            same.
    """
    if not isinstance(row, str):
        row = json.dumps({name: _plain(row[name]) for name in sorted(row)}, ensure_ascii=False)
    return hashlib.sha256(row.encode("utf-8", "surrogatepass")).hexdigest()[: 2 * _BYTES]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, np.bool_)):
        return str(value)
    number = float(value)
    return None if np.isnan(number) else number


def dump_learned(rows: Iterable[Mapping[str, Any] | str]) -> dict[str, bytes]:
    """Return the file of a version that knows what it learned from, by name; see `fingerprint`."""
    found = set[str]()
    for row in rows:
        found.add(fingerprint(row))
        if len(found) > MOST:
            return {}
    return {LEARNED: bytes.fromhex("".join(sorted(found)))}


def load_learned(artifact: Artifact) -> frozenset[str]:
    """Return the fingerprints of what a version learned from; none if it kept none."""
    content = artifact.files.get(LEARNED, b"").hex()
    size = 2 * _BYTES
    return frozenset(content[start : start + size] for start in range(0, len(content), size))
