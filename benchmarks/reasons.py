"""How far the words that an explanation calls strongest decide, beside other ways to choose them.

    python benchmarks/reasons.py DATA [--reviews 150]

DATA is the folder with reviews_dataset.tsv.zip. Method: reviews of 20 to 90 words are drawn at
random from the quarter that the shipped classifier was not trained on. From each, five words are
deleted, and the fall of the logit of the label that was given is noted: those that `explain` calls
strongest, those that fall most when each token is left out alone, those with the largest credit of
the pooled units, and five at random. "marks" is the share of reviews whose strongest token is
punctuation. "kept" is the share whose label stays when only the ten strongest words are kept. The
cost is measured on a review of median length, 230 tokens, on all cores.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlapp.families.network import Network
from mlapp.families.sentiment import SentimentModel
from mlapp.families.text import Tokens
from mlapp.schema import Floats
from mlapp.store import artifacts
from training.splits import split
from training.texts import read_reviews

ROOT = Path(__file__).resolve().parents[1]
SHORTEST, LONGEST, MEDIAN = 20, 90, 230
REMOVED, KEPT = 5, 10


def main() -> None:
    """Print a line for each way to choose words."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--reviews", type=int, default=150)
    options = parser.parse_args()
    model = SentimentModel(artifacts.open(ROOT / "artifacts", "sentiment"))
    held_out = read_held_out(options.data, model)
    short = [each for each in held_out if SHORTEST <= each.words <= LONGEST]
    random = np.random.default_rng(5)
    chosen = [short[place] for place in random.permutation(len(short))[: options.reviews]]
    print(f"{len(chosen)} reviews   mean fall   median   marks   kept")
    ways: dict[str, Callable[[Tokens], Floats]] = {
        "chance": lambda tokens: random.normal(size=len(tokens.ids)),
        "pooled units": lambda tokens: pooled(model, tokens),
        "leaving out each": lambda tokens: left_out(model, tokens),
        "explain": lambda tokens: explain(model, tokens),
    }
    for name, way in ways.items():
        print(f"{name:18}" + measure(model, chosen, way))
    typical = min(held_out, key=lambda each: abs(len(each.ids) - MEDIAN))
    times = []
    for _ in range(20):
        began = time.perf_counter()
        explain(model, typical)
        times.append(time.perf_counter() - began)
    print(f"explain takes {statistics.median(times) * 1000:.0f} ms for {len(typical.ids)} tokens")


def read_held_out(folder: Path, model: SentimentModel) -> list[Tokens]:
    """Return the reviews that the classifier was not trained on, read."""
    reviews = read_reviews(folder / "reviews_dataset.tsv.zip", None, say=lambda _: None)
    seed = int(str(model.manifest.training["seed"]))
    rows = split(reviews.classes, np.random.default_rng(seed)).held_out
    return network(model).vocabulary.read_many([reviews.texts[row] for row in rows])


def logit(model: SentimentModel, tokens: Tokens, kept: np.ndarray) -> float:
    """Return the logit of the second label from some of a text's tokens."""
    if not kept.any():
        return 0.0
    [scores] = model.scorer.scores([replace(tokens, ids=tokens.ids[kept])])
    return float(scores[1] - scores[0])


def left_out(model: SentimentModel, tokens: Tokens) -> Floats:
    """Return how far the logit falls without each token."""
    every = np.ones(len(tokens.ids), dtype=bool)
    whole = logit(model, tokens, every)
    places = np.arange(len(every))
    return np.array([whole - logit(model, tokens, places != place) for place in places])


def pooled(model: SentimentModel, tokens: Tokens) -> Floats:
    """Return what each token adds to the logit as the step at which a pooled unit was largest."""
    head = network(model).head
    weights = (head.kernel[:, 1] - head.kernel[:, 0]) / head.temperature
    return network(model)._credit(tokens.ids, weights)


def explain(model: SentimentModel, tokens: Tokens) -> Floats:
    """Return what the explanation says of each token."""
    return model.scorer.contributions("", tokens, np.array([-1.0, 1.0])).weights


def network(model: SentimentModel) -> Network:
    """Return what computes the shipped classifier's scores."""
    assert isinstance(model.scorer, Network)
    return model.scorer


def measure(model: SentimentModel, chosen: list[Tokens], way: Callable[[Tokens], Floats]) -> str:
    """Return the figures of a way to weigh tokens."""
    falls, marks, stays = [], 0, 0
    for tokens in chosen:
        weights = way(tokens)
        every = np.ones(len(tokens.ids), dtype=bool)
        whole = logit(model, tokens, every)
        sign = 1 if whole >= 0 else -1
        order = np.argsort(-weights * sign, kind="stable")
        without, alone = every.copy(), ~every
        without[order[:REMOVED]], alone[order[:KEPT]] = False, True
        falls.append((whole - logit(model, tokens, without)) * sign)
        stays += logit(model, tokens, alone) * sign > 0
        marks += bool(tokens.marks[np.abs(weights).argmax()])
    count = len(chosen)
    return (
        f"{statistics.mean(falls):12.2f}{statistics.median(falls):9.2f}"
        f"{marks / count:8.1%}{stays / count:7.1%}"
    )


if __name__ == "__main__":
    main()
