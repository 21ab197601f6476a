"""The models that a text classifier is chosen from, and which of them is best."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlapp.families.linear_text import LINEAR, LinearText
from mlapp.families.sentiment import softmax
from mlapp.schema import Floats
from mlapp.store.learned import fingerprint
from training import measures, text_linear
from training.calibration import fit_temperature
from training.judging import Judgement, ask
from training.losses import log_losses
from training.plan import NETWORK_FROM, Plan
from training.recipes import Options
from training.tables import Say
from training.text_choice import Candidate, choose, compare, majority
from training.text_linear import Counted
from training.texts import Reviews

MOST_LOSSES = 20_000  # held-out texts whose losses are published


def fit_candidates(
    reviews: Reviews, counted: Counted, plan: Plan, asked: Options, say: Say
) -> list[Candidate]:
    """Return the candidates, the fastest first."""
    labels = len(reviews.labels)
    found = [majority(reviews.classes[plan.train], labels, len(plan.validation))]
    if asked.model != "network":
        say("Fitting the linear model")
        found.append(_fit_linear(reviews, counted, plan))
    trains_network = asked.model != "linear" and plan.fold is None
    if reviews.unlabelled and not trains_network:
        say("The texts without a label are not used: only networks learn from them")
    if asked.model == "linear":
        return found
    if not trains_network:
        say(
            f"Only the linear model is trained: from fewer than {NETWORK_FROM:,} texts it learns"
            " more than a network. --model network trains a network instead"
        )
        return found
    from training import text_network  # takes seconds, and only many texts need it

    say("Training the network")
    found.append(
        text_network.train(reviews, plan, asked.film_phrases, asked.recipe, asked.seed, say)
    )
    return found


def _fit_linear(reviews: Reviews, counted: Counted, plan: Plan) -> Candidate:
    classes, labels = reviews.classes, len(reviews.labels)
    model = text_linear.fit(counted, plan.train, classes, labels)
    if plan.fold is not None:
        judged, model.temperature = text_linear.cross_validate(
            counted, classes, labels, plan.fold, plan.extra
        )
        # The models of the folds know fewer words than the one that is served.
        unknown = text_linear.shares_unknown(model, counted, plan.train, plan.held_out)
        judged = replace(judged, extras={**judged.extras, "unknown": unknown})
        return _candidate(model, judged.probabilities, lambda: judged)
    scores = ask(model, reviews.pick(plan.validation)).scores
    model.temperature = fit_temperature(scores, classes[plan.validation])
    probabilities = softmax(scores / model.temperature)
    return _candidate(model, probabilities, lambda: ask(model, reviews.pick(plan.held_out)))


def _candidate(
    model: LinearText, probabilities: Floats, judge: Callable[[], Judgement]
) -> Candidate:
    metrics = {"temperature": model.temperature, "terms": len(model.terms.hashes)}
    return Candidate(
        "linear", probabilities, files={LINEAR: model.dump()}, metrics=metrics, judge=judge
    )


# --- measure ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """The candidate that is published.

    Attributes:
        candidate: the best within one standard error, and of equals the fastest.
        judged: what it says of the held-out texts.
        metrics: how good that is.
        report: the rest of what was measured.
    """

    candidate: Candidate
    judged: Judgement
    metrics: Mapping[str, Any]
    report: Mapping[str, Any]


def choose_best(candidates: Sequence[Candidate], plan: Plan, reviews: Reviews, say: Say) -> Chosen:
    """Choose a candidate, and measure it."""
    classes, labels = reviews.classes, reviews.labels
    name = choose(candidates, classes[plan.validation])
    [chosen] = (each for each in candidates if each.name == name)
    compared = compare(candidates, classes[plan.validation], name)
    say(f"On {len(plan.validation):,} texts that none of them was trained on:")
    for row in compared:
        say(
            f"  {row['model']}: accuracy {row['accuracy']:.4f} ± {row['standard_error']:.4f}"
            + (", published" if row["published"] else "")
        )
    # Held-out texts judge what was chosen; they choose nothing.
    assert chosen.judge is not None
    judged = chosen.judge()
    found = measures.of_labels(classes[plan.held_out], judged.probabilities)
    metrics: dict[str, Any] = {name: found[name] for name in ("accuracy", "log_loss", "ece")}
    report = measures.mistakes(labels, classes[plan.held_out], judged.probabilities)
    metrics |= dict(chosen.metrics) | {"held_out": len(plan.held_out)}
    metrics |= _measure_baseline(plan, reviews)
    report |= {
        "labels": list(labels),
        "compared": compared,
        "learning_curve": list(chosen.curve),
        "losses": _losses(judged, plan, reviews),
    }
    _say_measured(metrics, report, plan, say)
    return Chosen(chosen, judged, metrics, report)


def _measure_baseline(plan: Plan, reviews: Reviews) -> dict[str, float]:
    """Return how good it would be to give every held-out text the labels' shares."""
    baseline = majority(reviews.classes[plan.train], len(reviews.labels), len(plan.held_out))
    found = measures.of_labels(reviews.classes[plan.held_out], baseline.probabilities)
    return {f"baseline_{name}": found[name] for name in ("accuracy", "log_loss")}


def _losses(judged: Judgement, plan: Plan, reviews: Reviews) -> dict[str, Any]:
    """Return what held-out texts cost: of many, those with the smallest fingerprints.

    So two versions report on the same texts.
    """
    named = [(fingerprint(text), place) for place, text in enumerate(reviews.pick(plan.held_out))]
    shown = sorted(named)[:MOST_LOSSES]
    places = np.array([place for _, place in shown])
    classes = reviews.classes[plan.held_out][places]
    return log_losses([name for name, _ in shown], classes, judged.take(places).probabilities)


def _say_measured(
    metrics: Mapping[str, Any], report: Mapping[str, Any], plan: Plan, say: Say
) -> None:
    """Say how good the published model is, and where it is no better than the baseline."""
    baseline = metrics["baseline_accuracy"]
    error = math.sqrt(baseline * (1 - baseline) / len(plan.held_out))
    if metrics["accuracy"] <= baseline + error:
        say(
            "It is no better than always predicting the most frequent label, which is right in"
            f" {baseline:.1%}"
        )
    say(f"On {len(plan.held_out):,} held-out texts:")
    say(f"  accuracy          {metrics['accuracy']:.4f}")
    say(f"  log loss          {metrics['log_loss']:.4f}")
    say(f"  calibration error {metrics['ece']:.4f}, at temperature {metrics['temperature']:.3f}")
    for row in report["per_class"][:20]:
        say(f"  {row['label']!r}: precision {row['precision']:.4f}, recall {row['recall']:.4f}")
