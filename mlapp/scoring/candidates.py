"""Candidates: comparing one with the served version, and promoting it if it is not worse.

There are two verdicts, both by a paired bootstrap (`store.gate`): on the held-out rows that both
versions report on, and on the held-back answers with feedback (`records.confirmed`) whose inputs
neither has learned from, as it may from other data. `replay` shows where the two versions differ on
recent requests.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mlapp import families, store
from mlapp.errors import (
    ArtifactError,
    GateRefused,
    InvalidInput,
    InvalidTable,
    ModelNotFound,
    RecordsUnavailable,
)
from mlapp.families.contract import Model, TextInput
from mlapp.records import confirmed, queries
from mlapp.records.confirmed import Confirmed
from mlapp.records.database import Database
from mlapp.schema import Floats
from mlapp.scoring.batch import Options
from mlapp.scoring.comparison import Comparison, plan_comparison
from mlapp.scoring.distributions import Differences
from mlapp.store import artifacts, gate, promotion
from mlapp.store.gate import Verdict
from mlapp.store.learned import fingerprint, key, load_learned, unify
from mlapp.store.promotion import Change

REPLAYED = 1_000  # the most recent rows that are replayed
AT_ONCE = 250  # rows that are answered at once
PREFIX = "candidate_"  # of the candidate's columns, unless inputs have it
SMALLEST = 1e-12  # the smallest probability, so that the log loss stays finite
SOURCE = "judged answers"


def judge(root: Path, database: Database, name: str, version: int) -> list[Verdict]:
    """Compare a candidate with the served version: on held-out rows, and on answers with feedback.

    The result is empty if no version is served.

    Raises:
        ModelNotFound: there is no such candidate.
        ArtifactError: the candidate or the served version cannot be opened.
        RecordsUnavailable: the records cannot be read.
    """
    opened = artifacts.open(root, name, version)
    candidate = families.from_artifact(opened)
    try:
        old, _ = store.open_served(root, name)
    except ModelNotFound:
        return []
    current = artifacts.open(root, name, old.manifest.version)
    held_back = confirmed.read(database, name).held_back
    known = [(load_learned(current), old), (load_learned(opened), candidate)]
    new = [each for each in held_back if not any(_is_learned(each, *both) for both in known)]
    return [gate.compare_held_out(current, opened), judge_confirmed(old, candidate, new)]


def _is_learned(given: Confirmed, learned: frozenset[str], model: Model) -> bool:
    """Return whether a version has learned from the inputs of an answer."""
    row = {name: given.inputs.get(name) for name in model.takes.names}
    if isinstance(model.takes, TextInput):
        text = str(next(iter(row.values())))
        spelled: list[Mapping[str, Any] | str] = [text, key(text)]
    else:
        # The answer may be spelled as another version does, whose data had another format.
        parsed = [(spec, spec.parse(row[spec.name])) for spec in model.takes.inputs]
        own = {spec.name: spec.plain(value) for spec, value in parsed if value is not None}
        spelled = [row, row | own]
    return any(fingerprint(each) in learned for each in spelled)


def judge_confirmed(current: Model, candidate: Model, held_back: Sequence[Confirmed]) -> Verdict:
    """Compare two versions on answers with feedback, without those that one version refuses.

    Equal inputs share their mean loss, since they are no independent observations.
    """
    kind = str if candidate.gives.kind == "labels" else float
    metric = "log loss" if kind is str else "squared error"
    usable = [each for each in held_back if isinstance(each.truth, kind)]
    losses = np.empty((0, 2))
    if usable and current.manifest.kind == candidate.manifest.kind:
        truths = [each.truth for each in usable]
        try:
            comparison, batches = _compare(current, candidate, [each.inputs for each in usable])
            whole = pa.Table.from_batches(batches, comparison.plan.schema)
        except (InvalidInput, InvalidTable):  # the versions have no inputs in common
            return gate.compare([], [], metric, SOURCE)
        losses = np.column_stack(
            [
                _losses(whole, prefix, truths)
                for prefix in (comparison.other_prefix, comparison.prefix)
            ]
        )
        accepted = np.flatnonzero(~np.isnan(losses).any(axis=1))
        inputs = [usable[row].inputs for row in accepted.tolist()]
        losses = _average(losses[accepted], inputs)
    old, new = losses.T.tolist()
    return gate.compare(old, new, metric, SOURCE)


def _average(losses: Floats, inputs: Sequence[Mapping[str, Any]]) -> Floats:
    """Return the mean losses of each different instance, (m, 2).

    Args:
        losses: of n instances, (n, 2).
        inputs: the instances.
    """
    found: dict[str, list[Floats]] = {}
    for each, row in zip(inputs, losses, strict=True):
        given = {name: value for name, value in each.items() if value is not None}
        found.setdefault(fingerprint(unify(given)), []).append(row)
    return np.array([np.mean(rows, axis=0) for rows in found.values()]).reshape(-1, 2)


def promote(
    root: Path,
    database: Database,
    name: str,
    version: int,
    reason: str = "",
    *,
    force: bool = False,
    by: str | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Change:
    """Serve a candidate, unless it is worse beyond chance.

    Args:
        root: the artifact folder.
        database: the records.
        name: the model's name.
        version: the candidate.
        reason: for the history; by default the verdicts.
        force: whether it is promoted even if it is worse or cannot be judged, which needs a reason;
            the history says so.
        by: who; by default the user of the machine.
        say: called with each verdict.

    Raises:
        GateRefused: it is worse, or cannot be judged.
        ModelNotFound, InvalidSettings, OutputError: as `promotion.promote`.
        ArtifactError: it cannot be opened.
    """
    promotion.require_promotable(root, name, version)  # before a comparison, which takes longer
    families.from_artifact(artifacts.open(root, name, version))
    try:
        verdicts = judge(root, database, name, version)
        against = [str(each) for each in verdicts if each.worse]
    except (ArtifactError, RecordsUnavailable) as error:
        verdicts, against = [], [f"it cannot be judged: {error}"]
    for verdict in verdicts:
        say(str(verdict))
    if against and not (force and reason):
        raise GateRefused(f"{name} {version} is not promoted: {'; '.join(against)}")
    outcome = "; ".join(map(str, verdicts)) or "nothing was served before"
    return promotion.promote(root, name, version, reason or outcome, forced=bool(against), by=by)


def replay(database: Database, current: Model, candidate: Model) -> Differences | None:
    """Replay recent requests with both versions; return how the answers differ.

    The result is None if no inputs were recorded, or a version does not accept them.

    Raises:
        RecordsUnavailable: the records cannot be read.
    """
    name = candidate.manifest.name
    asked = [row["inputs"] for row in queries.latest(database, name, REPLAYED, with_inputs=True)]
    if not asked or current.manifest.kind != candidate.manifest.kind:
        return None
    try:
        comparison, batches = _compare(current, candidate, asked)
    except (InvalidInput, InvalidTable):
        return None
    found = Differences(comparison.prefix, comparison.other_prefix)
    before = 0
    for batch in batches:
        found.add(batch, before)
        before += batch.num_rows
    return found


def _compare(
    current: Model, candidate: Model, asked: Sequence[Mapping[str, Any]]
) -> tuple[Comparison, Iterator[pa.RecordBatch]]:
    """Return the comparison of two versions, and their answers to the same rows.

    Raises:
        InvalidInput, InvalidTable: as `plan_comparison`.
    """
    names = {*current.takes.names, *candidate.takes.names}  # and not of versions before
    table = tabulate([{name: row[name] for name in row if name in names} for row in asked])
    options = Options(prefix=choose_prefix(current, candidate))
    plan = plan_comparison(candidate, current, table.schema, options)
    batches = table.to_batches(max_chunksize=AT_ONCE)
    return plan, (plan.score(candidate, plan.plan, batch).batch for batch in batches)


def choose_prefix(current: Model, candidate: Model) -> str:
    """Return what the names of the candidate's columns begin with, and no input's does."""
    prefix = PREFIX
    while any(name.startswith(prefix) for name in (*current.takes.names, *candidate.takes.names)):
        prefix += "_"
    return prefix


def tabulate(asked: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return instances as a table; an input that an instance lacks is null."""
    names = dict.fromkeys(name for row in asked for name in row)
    columns = {}
    for name in names:
        values = [row.get(name) for row in asked]
        if len({type(value) for value in values if value is not None}) > 1:
            values = [None if value is None else str(value) for value in values]
        array = pa.array(values)
        columns[name] = array.cast(pa.float64()) if pa.types.is_null(array.type) else array
    return pa.table(columns)


def _losses(table: pa.Table, prefix: str, truths: Sequence[float | str]) -> Floats:
    """Return the loss of each row, (n,): NaN where it was refused."""

    def numbers(name: str) -> Floats:
        found: Floats = table.column(prefix + name).to_numpy().astype(float)
        return found

    if f"{prefix}label" not in table.column_names:
        losses: Floats = (numbers("prediction") - np.array(truths, dtype=float)) ** 2
        return losses
    refused = np.isnan(numbers("probability"))
    found = np.zeros(len(truths))
    for label in set(truths):
        if f"{prefix}p_{label}" in table.column_names:
            chosen = np.array([truth == label for truth in truths])
            found[chosen] = numbers(f"p_{label}")[chosen]
    losses = -np.log(np.maximum(found, SMALLEST))
    losses[refused] = np.nan
    return losses
