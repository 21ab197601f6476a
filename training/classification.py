"""Train a model that tells labels apart, on any table, and publish it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlapp.families.table import BACKGROUND, REPORT, dump_background
from mlapp.manifest import Artifact
from mlapp.schema import Floats
from mlapp.store import artifacts
from mlapp.tables.options import READING
from training import measures
from training.candidates import MODELS
from training.compile import compile_estimator
from training.folds import held_out
from training.losses import fingerprints, log_losses
from training.progress import count_of
from training.rows import Source, TrainingRows, read_training_rows
from training.table_models import (
    LEAKS,
    LEVEL,
    Chosen,
    Options,
    Split,
    clusters_of,
    command,
    fit,
    golden_rows,
    make_parser,
    run,
    split,
    training_fields,
    warn_of_leak,
)
from training.tables import Say
from training.versions import (
    at,
    choose_background,
    choose_losses,
    describe_learned,
    write_version,
)

NAME = "classification"
USUAL = {"--name": NAME, "--model": MODELS[0]}


@dataclass(frozen=True)
class Measured:
    """What was measured of the chosen model.

    Attributes:
        metrics: of the manifest.
        report: of the report, without what is served.
        probabilities: of the held-out rows, calibrated, (n, labels).
    """

    metrics: dict[str, float]
    report: dict[str, Any]
    probabilities: Floats


def train(
    data: Path,
    target: str,
    name: str = NAME,
    root: Path | None = None,
    *,
    model: str = MODELS[0],
    candidate: bool = False,
    say: Say = print,
    **reading: Any,
) -> Artifact:
    """Train on a table and publish the model as the next version of `name`.

    Args:
        data: the table's file.
        target: the column to predict: texts, truth values, or few different numbers.
        name: the model's name.
        root: the artifact folder; by default that of the settings.
        model: auto, linear or boosted.
        candidate: whether the version waits for `mlapp promote`.
        say: called with each line of the report.
        reading: `group`, `time`, `drop`, `keep`, `extra` and `feedback` of `rows.Source`;
            `encoding`, `decimal` and `sheet` of `tables.read_table`.

    Raises:
        InvalidData: the table cannot be trained on; the message names the column.
        ArtifactError: the name cannot be used, or the folder cannot be published to.
    """
    given = {key: reading.pop(key, None) for key in READING}
    source = Source(data, target, given, **reading)
    root = artifacts.choose_root(root, name)
    options = Options(source, name, root, model, None, None, candidate)
    rows = read_training_rows(source, True, say)
    parts = split(rows, say)
    inputs = count_of(len(rows.checked.schema.inputs), "input")
    say(f"Fitting the {len(rows.labels)} labels of {target} on {inputs}")
    chosen = fit(rows, parts, model, say)
    measured = measure(rows, parts, chosen, options, say)
    return publish(rows, parts, chosen, measured, options, say)


def measure(
    rows: TrainingRows, parts: Split, chosen: Chosen, options: Options, say: Say
) -> Measured:
    """Measure the chosen model, whose probabilities are calibrated, on held-out rows."""
    target, held = rows.target, held_out(parts.folds)
    actual, found = target[held], chosen.best.answers[held]
    metrics = measures.of_labels(actual, found)
    shown = choose_losses(len(held))
    names = [rows.labels[place] for place in actual[shown].tolist()]
    prints = fingerprints(at(rows.checked, held[shown]), names, options.source.target)
    report = measures.mistakes(rows.labels, actual, found) | {
        "compared": chosen.compared,
        "losses": log_losses(
            prints, actual[shown], found[shown], clusters_of(rows, parts, held[shown])
        ),
    }
    if never := [each["label"] for each in report["per_class"] if each["recall"] == 0]:
        say(f"Warning: no held-out row of {', '.join(map(repr, never))} is given its label")
    if max(metrics.get("roc_auc", 0.0), metrics["balanced_accuracy"]) > LEAKS:
        warn_of_leak("nearly every held-out row is given its label, which is", rows, say)
    return Measured(metrics, report, found)


def publish(
    rows: TrainingRows,
    parts: Split,
    chosen: Chosen,
    measured: Measured,
    options: Options,
    say: Say,
) -> Artifact:
    """Compile the model, and store it."""
    compiled = compile_estimator(
        {"probabilities": chosen.fitted}, rows.checked, chosen.best.candidate.takes
    )
    report = measured.report | {"served": compiled.report}
    files = compiled.files | {
        BACKGROUND: dump_background(choose_background(rows.checked)),
        REPORT: json.dumps(report, allow_nan=False).encode(),
        **describe_learned(rows.checked),
    }
    fields: dict[str, Any] = {
        "task": "classification",
        "data": rows.about,
        "training": {
            "command": command("training.classification", options, USUAL),
            **training_fields(options, rows, parts, chosen.best),
            "temperature": chosen.best.temperature,
        },
        "input_schema": rows.checked.schema,
        "labels": rows.labels,
        "metrics": measured.metrics,
    }
    held = held_out(parts.folds)
    published = write_version(
        options.name,
        files,
        ("mlapp", "numpy", *compiled.libraries),
        fields,
        at(rows.checked, held),
        measured.probabilities,
        rows.target[held],
        golden_rows(rows.checked.schema),
        root=options.root,
        candidate=options.candidate,
    )
    for line in measures.describe(measured.metrics, LEVEL):
        say(line)
    say(f"Published {published.path}")
    return published


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, 1 when nothing was published."""
    return run(train, make_parser("training.classification", __doc__, USUAL), arguments)


if __name__ == "__main__":
    sys.exit(main())
