"""The small networks that tests serve: `python -m tests.small_networks` trains `tests/networks`.

They are kept, so that a test that serves one need not wait until TensorFlow has trained it.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import NETWORKS, ROOT, make_moods, quiet
from training.recipes import RECIPES, Recipe

# As the best recipe, but small.
TINY = Recipe(
    minimum=1,
    dimensions=16,
    vector_epochs=0,
    units=12,
    rounds=(1,),
    phrases=0,
    rate=1e-2,
    batch=16,
)


def train_all(root: Path) -> None:
    """Train the networks into a folder.

    `sentiment` and `chapter` learn from the shipped sample, by either recipe; `moods` has three
    labels.
    """
    from training import sentiment, text_network  # imported here, since TensorFlow takes seconds

    sample = ROOT / "data" / "reviews_sample.tsv"
    chapter = replace(RECIPES["chapter"], pad_to=80, rate=1e-2, epochs=2)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(text_network, "LEAST_STEPS", 50)
        moods = Path(folder) / "moods.csv"
        make_moods().to_csv(moods, index=False)
        for name, data, recipe in (
            ("sentiment", sample, TINY),
            ("chapter", sample, chapter),
            ("moods", moods, replace(TINY, rounds=())),
        ):
            sentiment.train(data, name=name, root=root, model="network", recipe=recipe, say=quiet)


if __name__ == "__main__":
    shutil.rmtree(NETWORKS, ignore_errors=True)
    train_all(NETWORKS)
