"""Publish small versions without end, for the tests that kill or race publishers.

python publisher.py ROOT [COUNT]
"""

import itertools
import sys
from pathlib import Path

from mlapp.manifest import Data
from mlapp.store import artifacts

root, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None
print("ready", flush=True)
for number in itertools.islice(itertools.count(), count):
    files = {"weights.bin": bytes([number % 256]) * 50_000, "notes.txt": b"small"}
    drafted = artifacts.draft(
        "toy",
        files,
        ("mlapp",),
        task="regression",
        data=Data(source="none", rows=1, columns=1, sha256="0" * 64),
        training={"number": number},
        metrics={"r2": 1.0},
        golden=(),
    )
    artifacts.publish(root, drafted, lambda artifact: None)
