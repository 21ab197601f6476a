"""The models that a text classifier is chosen from: which texts judge them, and which is best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from mlapp.families.linear_text import LINEAR, LinearText
from mlapp.families.sentiment import softmax
from mlapp.families.text import Ids
from mlapp.schema import Floats
from training import text_linear
from training.quality import Candidate, choose, compare, fit_temperature, majority, measure
from training.recipes import RECIPES, Recipe
from training.splits import Split, count_copies, folds, group, loosen, split
from training.tables import Say
from training.text_linear import Counted
from training.texts import Reviews

SEED = 0  # of the split, the weights, and the order of the texts
FOLDS = 10  # of the cross-validation of few texts
NETWORK_FROM = 10_000  # texts; of fewer, a network learns less than a linear model

Choice: TypeAlias = Literal["auto", "linear", "network"]


@dataclass(frozen=True)
class Options:
    """What a training is asked for, beside the data.

    Attributes:
        model: what is fitted; `auto` compares.
        examples: texts that show what the model is for, published with it.
        film_phrases: whether sentences of our own about films, `training.phrases`, are mixed into
            what the network learns from; the labels must be theirs, Negative and Positive.
        seed: of everything random; the same seed on the same machine gives the same model.
        recipe: the knobs of the network.
        command: the command that trains it again, for the manifest.
    """

    model: Choice = "auto"
    examples: Sequence[str] = ()
    film_phrases: bool = False
    seed: int = SEED
    recipe: Recipe = RECIPES["best"]
    command: str = "python -m training.sentiment"


@dataclass(frozen=True)
class Plan:
    """Which texts choose and judge.

    Attributes:
        parts: the rows of each part, where there are many texts.
        fold: of each text, (n,), where there are few: then each judges the others' model.
        validation: the rows of the texts that models are compared on.
        held_out: the rows of the texts that judge the model that is published.
    """

    parts: Split | None
    fold: Ids | None
    validation: Ids
    held_out: Ids


def split_texts(reviews: Reviews, counted: Counted, asked: Options, say: Say) -> Plan:
    """Split many texts once, and few into folds."""
    groups = loosen(group(counted.signatures))
    if copies := count_copies(groups):
        say(f"{copies:,} texts are nearly equal to another: these stay on one side of the split")
    random, classes = np.random.default_rng(asked.seed), reviews.classes
    if asked.model == "network" or asked.film_phrases or len(classes) >= NETWORK_FROM:
        parts = split(classes, random, groups)
        say(
            f"Training on {len(parts.train):,}; held out are {len(parts.held_out):,},"
            f" and {len(parts.calibration):,} for calibration"
        )
        return Plan(parts, None, parts.calibration, parts.held_out)
    fold = folds(classes, FOLDS, random, groups)
    say(f"Training on all; each is judged by a model that has not seen it ({FOLDS} folds)")
    everything = np.arange(len(classes))
    return Plan(None, fold, everything, everything)


# --- fit -------------------------------------------------------------------------------------


def fit_candidates(
    reviews: Reviews, counted: Counted, plan: Plan, asked: Options, say: Say
) -> list[Candidate]:
    """Return the candidates, the fastest first."""
    train = np.arange(len(reviews.texts)) if plan.parts is None else plan.parts.train
    found = [majority(reviews.classes[train], len(reviews.labels), len(plan.validation))]
    if asked.model != "network":
        say("Fitting the linear model")
        found.append(_fit_linear(reviews, counted, plan))
    if plan.parts is not None and asked.model != "linear":
        from training import text_network  # takes seconds, and only many texts need it

        say("Training the network")
        found.append(
            text_network.train(
                reviews, plan.parts, asked.film_phrases, asked.recipe, asked.seed, say
            )
        )
    return found


def _fit_linear(reviews: Reviews, counted: Counted, plan: Plan) -> Candidate:
    classes, labels = reviews.classes, len(reviews.labels)
    if plan.fold is not None:
        probabilities, temperature = text_linear.cross_validate(
            counted, classes, labels, plan.fold
        )
        everything = text_linear.sample(reviews.texts, plan.held_out)
        model = text_linear.fit(counted, everything, classes, labels)
        model.temperature = temperature
        return _candidate(model, probabilities, lambda: probabilities)
    assert plan.parts is not None
    rows = text_linear.sample(reviews.texts, plan.parts.train)
    model = text_linear.fit(counted, rows, classes, labels)
    scores = text_linear.score(model, counted, plan.validation)
    model.temperature = fit_temperature(scores, classes[plan.validation])

    def judge() -> Floats:
        return softmax(text_linear.score(model, counted, plan.held_out))

    return _candidate(model, softmax(scores / model.temperature), judge)


def _candidate(model: LinearText, probabilities: Floats, judge: Callable[[], Floats]) -> Candidate:
    metrics = {"temperature": model.temperature, "terms": len(model.terms.hashes)}
    return Candidate(
        "linear", probabilities, files={LINEAR: model.dump()}, metrics=metrics, judge=judge
    )


# --- measure ---------------------------------------------------------------------------------


def choose_best(
    candidates: Sequence[Candidate], plan: Plan, reviews: Reviews, say: Say
) -> tuple[Candidate, dict[str, Any], dict[str, Any]]:
    """Choose a candidate, and return it with its metrics and its report."""
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
    metrics, report = measure(chosen.judge(), classes[plan.held_out], labels)
    metrics |= dict(chosen.metrics) | {"held_out": len(plan.held_out)}
    report |= {"labels": list(labels), "compared": compared, "learning_curve": list(chosen.curve)}
    baseline = compared[0]["accuracy"]
    if metrics["accuracy"] <= baseline + compared[0]["standard_error"]:
        say(f"It is no better than always saying the same, which is right in {baseline:.1%}")
    say(f"On {len(plan.held_out):,} held-out texts:")
    say(f"  accuracy          {metrics['accuracy']:.4f}")
    say(f"  log loss          {metrics['log_loss']:.4f}")
    say(
        f"  calibration error {metrics['ece']:.4f}, at temperature {metrics['temperature']:.3f}"
    )
    for row in report["per_class"][:20]:
        say(f"  {row['label']}: precision {row['precision']:.4f}, recall {row['recall']:.4f}")
    return chosen, metrics, report
