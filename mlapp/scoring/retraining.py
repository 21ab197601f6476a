"""Retraining: train a model again with the feedback on its answers, and publish a candidate."""

import re
import shlex
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from mlapp import store
from mlapp.errors import TrainingError, describe
from mlapp.families.contract import Model
from mlapp.manifest import Manifest, command_of
from mlapp.records import confirmed
from mlapp.records.confirmed import Confirmed, Feedback
from mlapp.records.database import Database
from mlapp.scoring import candidates
from mlapp.scoring.distributions import Differences
from mlapp.settings import Settings
from mlapp.store import artifacts
from mlapp.tables.options import READING, find_applicable

Say: TypeAlias = Callable[[str], object]

LAST_LINES = 15  # of the output of a training that failed
SHOWN = 10  # the most different rows that are listed, those whose answers differ most
# The default columns of texts and labels of the training command.
COLUMNS = {"--text-column": "review", "--label-column": "sentiment"}


def _print(line: str) -> None:
    print(line, flush=True)  # training takes long, and the output may be a file


def retrain(
    settings: Settings,
    name: str,
    data: Path | None = None,
    dry_run: bool = False,
    say: Say = _print,
) -> int | None:
    """Train a candidate, and say how it compares with the served version.

    Args:
        settings: the artifact folder and the records.
        name: the model's name.
        data: replaces the data of the training command.
        dry_run: whether to only report what would be done.
        say: called with each line of the report.

    Returns:
        The candidate's version; None if nothing was trained.

    Raises:
        TrainingError: it cannot be trained again, or its training failed.
        ModelNotFound, ArtifactError: the served version cannot be opened.
        RecordsUnavailable: the records cannot be read.
    """
    root, database = settings.artifacts, Database(settings)
    current = store.open_model(root, name)
    words = set_data(read_command(current.manifest), data)
    gives_labels = current.gives.kind == "labels"
    feedback = confirmed.read(database, name).of_kind(str if gives_labels else float)
    say(count_feedback(name, feedback, settings))
    if not feedback.learned and data is None:
        raise TrainingError(
            f"There is nothing new to train {name} on: no answer with feedback can be used, and"
            " there is no --data FILE"
        )
    with tempfile.TemporaryDirectory(prefix="mlapp-retrain-") as folder:
        # The model may have been renamed since.
        words = [*_without(words, "--name"), "--name", name]
        words += ["--candidate", "--artifacts", str(root.resolve())]
        if feedback.learned:
            judged = Path(folder) / "feedback.parquet"
            write_feedback(judged, current, words, feedback.learned)
            words += ["--feedback", str(judged)]
        say(f"Running {shlex.join(['python', '-m', *words])}")
        if dry_run:
            return None
        version = _train(root, name, words, say)
    candidate = store.open_model(root, name, version)
    say(f"Version {version} of {name} is a candidate")
    verdicts = candidates.judge(root, database, name, version)
    for verdict in verdicts:
        say(str(verdict))
    for line in describe_replay(
        candidates.replay(database, current, candidate), current, candidate
    ):
        say(line)
    say(describe_promotion(name, version, is_worse=any(verdict.worse for verdict in verdicts)))
    return version


def read_command(manifest: Manifest) -> list[str]:
    """Return the module that trained a version, and its arguments.

    Raises:
        TrainingError: the manifest has no command that trains it.
    """
    which = f"version {manifest.version} of {manifest.name}"
    command = command_of(manifest)
    if command is None:
        raise TrainingError(f"The manifest of {which} has no command that trains it again")
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if words[:2] == ["mlapp", "publish"]:
        raise TrainingError(
            f"{which} was published as it was fitted, elsewhere: fit the estimator again, and"
            " publish it with mlapp publish --candidate"
        )
    if len(words) < 3 or not re.fullmatch(r"(.*/)?python[0-9.]*", words[0]) or words[1] != "-m":
        raise TrainingError(
            f"The command of {which} is {describe(command)}, expected python -m MODULE ..."
        )
    return words[2:]


def set_data(words: Sequence[str], data: Path | None) -> list[str]:
    """Return a module and its arguments, with other data if given.

    Options to read the data are left out where they do not apply to the other data.

    Raises:
        TrainingError: the data, or a file with more rows, does not exist.
    """
    for more in find_options(words, "--extra"):
        if not Path(more).exists():
            raise TrainingError(
                f"The file {more} of the training's --extra is not in {Path.cwd()}: go where it is"
            )
    if data is not None:
        if not data.exists():
            raise TrainingError(f"--data: there is no file {data}")
        kept = _without(words, "--data")
        for option in set(READING) - find_applicable(data):
            kept = _without(kept, f"--{option}")
        return [*kept, "--data", str(data)]
    given = find_option(words, "--data")
    # A name without a folder or a suffix may be that of a public data set.
    if given is not None and re.search(r"[/\\.]", given) and not Path(given).exists():
        raise TrainingError(
            f"The data {given} of the training is not in {Path.cwd()}; say where it is: --data FILE"
        )
    return list(words)


def find_options(words: Sequence[str], flag: str) -> list[str]:
    """Return the values of an option that may be repeated, in order."""
    found = []
    for word, after in zip(words, [*words[1:], None], strict=True):
        if word == flag and after is not None:
            found.append(after)
        elif word.startswith(f"{flag}="):
            found.append(word.partition("=")[2])
    return found


def find_option(words: Sequence[str], flag: str) -> str | None:
    """Return the value of an option among arguments, the last one, None if it is not given."""
    return next(reversed(find_options(words, flag)), None)


def _without(words: Sequence[str], flag: str) -> list[str]:
    kept, skip = [], False
    for word in words:
        if not skip and word != flag and not word.startswith(f"{flag}="):
            kept.append(word)
        skip = word == flag
    return kept


def count_feedback(name: str, feedback: Feedback, settings: Settings) -> str:
    """Return a line about how many answers have feedback, and how they are used."""
    line = (
        f"{feedback.judged:,} answers of {name} have feedback: {len(feedback.learned):,} for"
        f" training, {len(feedback.held_back):,} held back to compare versions"
    )
    if feedback.without_inputs:
        line += f", {feedback.without_inputs:,} without their inputs"
        line += "" if settings.log_inputs else " (MLAPP_LOG_INPUTS=values keeps them)"
    if feedback.of_other_kind:
        line += f", {feedback.of_other_kind:,} left out, of versions with another kind of answer"
    return line


def write_feedback(
    path: Path, model: Model, words: Sequence[str], learned: Sequence[Confirmed]
) -> None:
    """Write answers with feedback as a Parquet table with the columns of the training data."""
    if model.takes.kind == "text":
        text, target = (find_option(words, flag) or name for flag, name in COLUMNS.items())
        asked = [{text: next(iter(each.inputs.values()))} for each in learned]
    else:
        target = model.gives.name
        asked = [{name: each.inputs.get(name) for name in model.takes.names} for each in learned]
    table = candidates.tabulate(asked)
    pq.write_table(table.append_column(target, pa.array([each.truth for each in learned])), path)


def _train(root: Path, name: str, words: Sequence[str], say: Say) -> int:
    """Run a training, and return the version of the candidate that it published.

    Raises:
        TrainingError: it failed, or published no candidate.
    """
    before = artifacts.versions(root, name)
    last = deque[str](maxlen=LAST_LINES)
    with subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout
        for line in process.stdout:
            last.append(line.rstrip())
            say(f"  {last[-1]}")
    output = "\n".join(["", *last])
    if process.returncode:
        raise TrainingError(
            f"The training failed with exit status {process.returncode}. Its last lines:{output}"
        )
    added = [each for each in artifacts.candidates(root, name) if each not in before]
    if not added:
        raise TrainingError(
            f"The training published no candidate of {name} in {root}. Its last lines:{output}"
        )
    return added[-1]


def describe_replay(found: Differences | None, current: Model, candidate: Model) -> Iterator[str]:
    """Yield lines about how two versions differ on recent requests, and where they differ most."""
    if found is None:
        yield "Nothing is replayed: the inputs of requests were not recorded, or do not fit"
        return
    versions = f"version {candidate.manifest.version}", f"version {current.manifest.version}"
    is_label = candidate.gives.kind == "labels"
    changed = "have another label" if is_label else f"lie outside the interval of {versions[1]}"
    yield (
        f"Of the last {found.compared:,} recorded rows, {found.differing:,} are answered"
        f" differently by {versions[0]}, and {found.changed:,} {changed}; the mean difference is"
        f" {found.mean:.4g}"
    )
    own = candidates.choose_prefix(current, candidate)
    other = f"{own}v{current.manifest.version}_"
    listed: set[tuple[Any, ...]] = set()
    for _, row in found.largest:
        inputs = {key: value for key, value in row.items() if not key.startswith(own)}
        given = tuple(inputs.values())
        if given in listed or len(listed) == SHOWN:
            continue
        listed.add(given)
        asked = ", ".join(f"{key} = {describe(value)}" for key, value in inputs.items())
        yield (
            f"  difference {row[f'{own}difference']:+.4g}: {_describe_answer(row, own)} instead of"
            f" {_describe_answer(row, other)}, for {asked}"
        )


def _describe_answer(row: Mapping[str, Any], prefix: str) -> str:
    """Return the answer in the columns with a prefix: a number, or a label with its probability."""
    if (label := f"{prefix}label") in row:
        return f"{describe(row[label])} at {row[f'{prefix}probability']:.1%}"
    return f"{row[f'{prefix}prediction']:.6g}"


def describe_promotion(name: str, version: int, is_worse: bool) -> str:
    """Return a line that says how to serve a candidate, which is refused if it is worse."""
    if is_worse:
        return f"It is worse. To serve it anyway: mlapp promote {name} {version} --force WHY"
    return f"To serve it: mlapp promote {name} {version}"
