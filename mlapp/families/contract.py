"""The contract of models: what a model takes and gives. Nothing else is known about a model.

    instances -> `Model.check` -> Batch -> `Model.answer` -> Answers
                                        -> `Model.reasons` -> Reasons

A model takes a row of typed inputs (`schema.Schema`) or a text (`TextInput`). It gives a number
(`NumberOutput`, `Numbers`) or labels with probabilities (`LabelOutput`, `Labels`). Code that serves
models relies on these descriptions alone, never on the family of a model.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from mlapp.errors import ArtifactError, Fault, InvalidInput
from mlapp.manifest import Artifact, Manifest, command_of
from mlapp.schema import TEXT, Column, Floats, Input, Notice, Schema, Text, name_columns

if TYPE_CHECKING:  # takes longer to import than a row takes to predict
    import pandas as pd

Datatype: TypeAlias = Literal["FP64", "INT64", "BOOL", "BYTES"]  # of the Open Inference Protocol
Values: TypeAlias = npt.NDArray[Any]

BASELINE = "baseline"  # the first column of reasons, before those of the inputs
ERROR = "error"  # the last column of estimated reasons
EFFECT = "effect_"  # the prefix of the columns of reasons in a file
MARGIN = 0.2  # by how much the most likely label must lead


class Field(NamedTuple):
    """A column of answers or reasons.

    Attributes:
        name: the column's name.
        datatype: of its values.
        width: how many values a row has in a list; None if it has a single value.
    """

    name: str
    datatype: Datatype
    width: int | None = None


class Headline(NamedTuple):
    """The most informative metric of a model: its name, its value as text, what it means."""

    name: str
    value: str
    meaning: str


# --- what a model takes ----------------------------------------------------------------------


@dataclass(frozen=True)
class TextInput:
    """A model that takes a text. An instance is the text itself; in a table it is one column.

    Attributes:
        example: a text of the kind that the model was trained on.
    """

    example: str

    kind: ClassVar[Literal["text"]] = "text"

    @cached_property
    def inputs(self) -> tuple[Text]:
        """The one input."""
        return (Text(typical=self.example),)

    @property
    def names(self) -> list[str]:
        """Its name."""
        return [self.inputs[0].name]

    @property
    def typical(self) -> dict[str, Any]:
        """The example, by the input's name."""
        return {self.inputs[0].name: self.example}

    @property
    def reason_fields(self) -> tuple[Field, ...]:
        """The columns that the reasons add to a file."""
        return (Field("words", "BYTES"),)


class RowInput:
    """A model that takes a row. An instance is a mapping from input name to value."""

    kind: ClassVar[Literal["row"]] = "row"

    def __init__(self, schema: Schema, estimated: bool = False) -> None:
        """Describe the inputs of a schema.

        Args:
            schema: the inputs.
            estimated: whether reasons are estimated, with a standard error.
        """
        self.schema, self.estimated = schema, estimated
        self.inputs: tuple[Input, ...] = schema.inputs
        self.names = schema.names
        taken = (BASELINE, "label", "logit", *([ERROR] if estimated else []))
        self._columns = name_columns(self.names, taken, "input_")

    @property
    def typical(self) -> dict[str, Any]:
        """The row of typical values."""
        return self.schema.typical

    @property
    def reason_columns(self) -> dict[str, str]:
        """The column of each input in the reasons: its name, prefixed with `input_` if taken."""
        return self._columns

    @property
    def reason_fields(self) -> tuple[Field, ...]:
        """The columns that the reasons add to a file."""
        names = [BASELINE, *self._columns.values(), *([ERROR] if self.estimated else [])]
        return tuple(Field(EFFECT + name, "FP64") for name in names)


Takes: TypeAlias = RowInput | TextInput


class Batch(Protocol):
    """Instances that passed a model's check."""

    @property
    def row_labels(self) -> "pd.Index | None":
        """The labels of the n instances; None means 0 to n-1."""

    @property
    def notices(self) -> Sequence[Notice]:
        """What is unusual about the instances."""

    def __len__(self) -> int: ...

    def row(self, place: int) -> Mapping[str, Any]:
        """Return one instance as a user would enter it, by input name; None where missing."""


# --- what a model gives ----------------------------------------------------------------------


@dataclass(frozen=True)
class NumberOutput:
    """A model that gives a number, with an interval unless `level` is None.

    Attributes:
        name: of the target.
        decimals: how many decimals of a prediction are worth showing.
        level: the share of new rows that the interval is meant to hold, between 0 and 1.
    """

    name: str
    decimals: int
    level: float | None

    kind: ClassVar[Literal["number"]] = "number"

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The columns of an answer."""
        names = ("prediction", "lower", "upper") if self.level is not None else ("prediction",)
        return tuple(Field(name, "FP64") for name in names)

    @property
    def table_fields(self) -> tuple[Field, ...]:
        """The columns that an answer adds to a file."""
        return self.fields

    def format(self, value: float) -> str:
        """Return a prediction as text, in the precision that the data supports."""
        return f"{value:,.{self.decimals}f}" if abs(value) < 1e15 else f"{value:.6g}"


@dataclass(frozen=True)
class LabelOutput:
    """A model that gives one of two or more labels, and the probability of each.

    Attributes:
        labels: what the model distinguishes.
        name: of the target.
        extras: further columns of an answer, such as how much of a text was read; each with
            whether files have it too.
        margin: an answer is unsure if the probabilities of the two most likely labels differ by no
            more; with two labels, 0.2 means a probability of 0.4 to 0.6.
    """

    labels: tuple[str, ...]
    name: str
    extras: tuple[tuple[Field, bool], ...] = ()
    margin: float = MARGIN

    kind: ClassVar[Literal["labels"]] = "labels"

    @cached_property
    def own(self) -> tuple[str, ...]:
        """The names of an answer's columns, except those of the labels."""
        names = [each.name for each, _ in self.extras]
        return ("label", "probability", *names, "probabilities")

    @cached_property
    def columns(self) -> dict[str, str]:
        """The column of each label: the label, prefixed with `p_` if that is taken.

        A label may be called `label` or `probability`, like a column of the answer.
        """
        return name_columns(self.labels, self.own, "p_")

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The columns of an answer, with the labels' probabilities in one."""
        return (
            Field("label", "BYTES"),
            Field("probability", "FP64"),
            Field("probabilities", "FP64", len(self.labels)),
            *(each for each, _ in self.extras),
        )

    @cached_property
    def table_fields(self) -> tuple[Field, ...]:
        """The columns that an answer adds to a file: `p_` and each label, and `unsure`."""
        return (
            Field("label", "BYTES"),
            Field("probability", "FP64"),
            *(Field(f"p_{label}", "FP64") for label in self.labels),
            *(each for each, in_files in self.extras if in_files),
            Field("unsure", "BOOL"),
        )

    def explained(self, label: str) -> str:
        """Return the label that reasons explain by default, given the most likely label.

        Of two labels it is the second, so that positive reasons always favour the same one.
        """
        return self.labels[1] if len(self.labels) == 2 else label


Gives: TypeAlias = NumberOutput | LabelOutput


@dataclass(frozen=True)
class Numbers:
    """The answers to n instances, of a model that gives a number.

    Attributes:
        output: what the model gives.
        values: prediction, lower and upper (n, 3), or prediction alone (n, 1).
        notices: what is unusual about the instances and their predictions.
    """

    output: NumberOutput
    values: Floats
    notices: Sequence[Notice] = ()

    def __len__(self) -> int:
        return len(self.values)

    def tensors(self) -> dict[str, Values]:
        """Return the columns `output.fields` by name."""
        names = (each.name for each in self.output.fields)
        return dict(zip(names, self.values.T, strict=True))

    def records(self) -> list[dict[str, Any]]:
        """Return each answer as a mapping by column."""
        names = [each.name for each in self.output.fields]
        return [dict(zip(names, row, strict=True)) for row in self.values.tolist()]

    def table(self) -> dict[str, Values]:
        """Return the columns `output.table_fields` by name."""
        return self.tensors()


@dataclass(frozen=True)
class Labels:
    """The answers to n instances, of a model that gives labels.

    Attributes:
        output: what the model gives.
        probabilities: of each label, calibrated, (n, labels).
        extras: the columns `output.extras` by name, (n,) each.
        notices: what is unusual about the instances.
    """

    output: LabelOutput
    probabilities: Floats
    extras: Mapping[str, Values] = field(default_factory=dict)
    notices: Sequence[Notice] = ()

    def __len__(self) -> int:
        return len(self.probabilities)

    @cached_property
    def labels(self) -> list[str]:
        """The most likely label of each instance."""
        return [self.output.labels[place] for place in self.probabilities.argmax(axis=1).tolist()]

    @cached_property
    def probability(self) -> Floats:
        """The probability of each instance's most likely label, (n,)."""
        highest: Floats = self.probabilities.max(axis=1, initial=0.0)
        return highest

    @cached_property
    def unsure(self) -> npt.NDArray[np.bool_]:
        """Whether the two most likely labels differ by no more than the margin, (n,)."""
        ordered = np.sort(self.probabilities, axis=1)
        close: npt.NDArray[np.bool_] = ordered[:, -1] - ordered[:, -2] <= self.output.margin
        return close

    def tensors(self) -> dict[str, Values]:
        """Return the columns `output.fields` by name."""
        return {
            "label": np.array(self.labels, dtype=object),
            "probability": self.probability,
            "probabilities": self.probabilities,
            **self.extras,
        }

    def records(self) -> list[dict[str, Any]]:
        """Return each answer as a mapping by column; each label has its own column."""
        columns = list(self.output.columns.values())
        extras = {name: values.tolist() for name, values in self.extras.items()}
        found = zip(
            self.labels, self.probability.tolist(), self.probabilities.tolist(), strict=True
        )
        return [
            {"label": label, "probability": probability}
            | dict(zip(columns, own, strict=True))
            | {name: values[place] for name, values in extras.items()}
            for place, (label, probability, own) in enumerate(found)
        ]

    def table(self) -> dict[str, Values]:
        """Return the columns `output.table_fields` by name."""
        whole = self.tensors() | {"unsure": self.unsure}
        whole |= {
            f"p_{label}": column
            for label, column in zip(self.output.labels, self.probabilities.T, strict=True)
        }
        return {each.name: whole[each.name] for each in self.output.table_fields}


Answers: TypeAlias = Numbers | Labels


# --- why -------------------------------------------------------------------------------------


class Reasons(Protocol):
    """The reasons of n answers: contributions that sum to a stated total."""

    def records(self) -> list[dict[str, Any]]:
        """Return each instance's reasons for JSON."""

    def table(self) -> dict[str, Values]:
        """Return the columns `takes.reason_fields` by name."""


@dataclass(frozen=True)
class RowReasons:
    """What each input adds to the answers to n rows.

    Attributes:
        takes: what the model takes.
        baseline: where the sums begin, (n,).
        effects: what each input adds, by its name, (n,) each. Baseline and effects sum to the
            prediction, or to the logit of the label.
        labels: the label that is explained in each row; None if it is a number.
        error: the largest standard error of a row's effects, (n,); None if they are exact.
    """

    takes: RowInput
    baseline: Floats
    effects: Mapping[str, Floats]
    labels: Sequence[str] | None = None
    error: Floats | None = None

    @property
    def totals(self) -> Floats:
        """What the reasons sum to, (n,): the prediction, or the label's logit."""
        total: Floats = self.baseline + sum(self.effects.values())
        return total

    def columns(self) -> dict[str, Floats]:
        """Return baseline, effects and error by column; see `RowInput.reason_columns`."""
        named = self.takes.reason_columns
        columns = {BASELINE: self.baseline}
        columns |= {named[name]: effect for name, effect in self.effects.items()}
        return columns | ({} if self.error is None else {ERROR: self.error})

    def records(self) -> list[dict[str, Any]]:
        """Return each row's reasons for JSON."""
        columns = {name: values.tolist() for name, values in self.columns().items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if self.labels is None:
            return rows
        named = zip(self.labels, self.totals.tolist(), rows, strict=True)
        return [{"label": label, "logit": logit} | row for label, logit, row in named]

    def table(self) -> dict[str, Values]:
        """Return the columns `takes.reason_fields` by name."""
        return {EFFECT + name: values for name, values in self.columns().items()}


@dataclass(frozen=True, slots=True)
class Span:
    """A word or a phrase with its weight: `text[start:end]` adds `weight` to the logit."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Explanation:
    """Why a text is given a label: the bias and the spans' weights sum to the logit.

    Attributes:
        label: the label that is explained. With two labels the logit is log(p / (1 - p)) of its
            calibrated probability p. With more it is its score less the mean of all scores.
        logit: see above; positive speaks for the label.
        bias: the part of the logit that is not due to any word.
        spans: every token of the text, in order, each with its weight, 0 for most.
    """

    label: str
    logit: float
    bias: float
    spans: tuple[Span, ...]


WORDS = 10  # words of a text that a file names
MOST_EXPLAINED = 500_000  # tokens of the texts of a request; each becomes an object of its JSON


@dataclass(frozen=True)
class TextReasons:
    """Which words decide the answers to n texts.

    Attributes:
        texts: the n texts.
        tokens: how many tokens each has.
        explain: returns the explanation of the text in a place. A file's long texts are explained
            one at a time, since together they would take too much memory.
        method: a sentence for users about how the weights are computed.
    """

    texts: Sequence[str]
    tokens: Sequence[int]
    explain: Callable[[int], Explanation]
    method: str = ""

    @cached_property
    def explanations(self) -> list[Explanation]:
        """One for each text."""
        return list(map(self.explain, range(len(self.texts))))

    def records(self) -> list[dict[str, Any]]:
        """Return each text's reasons for JSON.

        Raises:
            InvalidInput: the texts have more than `MOST_EXPLAINED` tokens together.
        """
        if (total := sum(self.tokens)) > MOST_EXPLAINED:
            got = f"{total:,} tokens to explain"
            allowed = f"at most {MOST_EXPLAINED:,} in all texts of a request"
            raise InvalidInput([Fault(TEXT, got, allowed)])
        return [
            {
                "label": each.label,
                "logit": each.logit,
                "bias": each.bias,
                "spans": [
                    {"start": span.start, "end": span.end, "weight": span.weight}
                    for span in each.spans
                ],
            }
            for each in self.explanations
        ]

    def table(self) -> dict[str, Values]:
        """Return each text's strongest words with their weights, as JSON.

        A positive weight speaks for the second of two labels, or for the given one of more.
        """
        found = []
        for place, text in enumerate(self.texts):
            spans = self.explain(place).spans
            strongest = sorted(spans, key=lambda span: -abs(span.weight))[:WORDS]
            words = [[text[each.start : each.end], round(each.weight, 6)] for each in strongest]
            found.append(json.dumps(words, ensure_ascii=False, separators=(",", ":")))
        return {"words": np.array(found, dtype=object)}


# --- a model ---------------------------------------------------------------------------------


class Model(Protocol):
    """A published model of any family."""

    @property
    def manifest(self) -> Manifest:
        """The manifest of the version."""

    @property
    def size(self) -> int:
        """The size of its files, in bytes."""

    @property
    def takes(self) -> Takes:
        """What it takes."""

    @property
    def gives(self) -> Gives:
        """What it gives."""

    @property
    def platform(self) -> str:
        """The platform, in the terms of the Open Inference Protocol."""

    @property
    def tolerance(self) -> float:
        """The absolute and relative tolerance of a replayed number."""

    @property
    def headline(self) -> Headline:
        """Its headline metric, on data that it was not trained on."""

    def check(self, instances: Any) -> Batch:
        """Check instances: rows or texts, as a sequence or from pandas.

        Raises:
            InvalidInput: with every fault of every instance.
        """

    def check_columns(self, columns: Mapping[str, Column]) -> Batch:
        """Check instances that arrive as columns of equal length, one or more, by input name.

        Names that do not match get a notice; inputs that allow missing values need no column.

        Raises:
            InvalidInput: with every fault of every instance.
        """

    def answer(self, batch: Any) -> Answers:
        """Answer a checked batch; an answer does not depend on the other instances of the batch.

        Raises:
            InvalidInput: with a fault for each instance that the model has no answer to.
        """

    def reasons(self, batch: Any) -> Reasons:
        """Explain the answers to a checked batch.

        Raises:
            InvalidInput: with a fault for each instance that the model has no reasons for.
        """


class Family(Protocol):
    """A function that opens a model: usually the model's class."""

    def __call__(self, artifact: Artifact) -> Model:
        """Load the model of an opened artifact.

        Raises:
            ArtifactError: its files do not fit together.
        """


def name_target(model: Model) -> str:
    """Return what people call that which a model predicts: the column that it was trained on."""
    wording = getattr(model, "wording", None)
    return str(wording.label if wording else model.gives.name)


def replay(model: Model) -> None:
    """Answer a model's golden instances again.

    Raises:
        ArtifactError: an answer differs from the published one by more than the model's tolerance.
    """
    golden = model.manifest.golden
    rows: list[Mapping[str, Any]] = [each.input for each in golden]
    name = model.takes.names[0]
    instances = rows if model.takes.kind == "row" else [row[name] for row in rows]
    found = model.answer(model.check(instances)).records()
    wanted = [each.output for each in golden]
    if not all(
        _same(ours.get(key), value, model.tolerance)
        for ours, theirs in zip(found, wanted, strict=True)
        for key, value in theirs.items()
    ):
        manifest = model.manifest
        raise ArtifactError(
            f"Version {manifest.version} of {manifest.name!r} does not repeat its golden"
            " predictions",
            command_of(manifest),
        )


def _same(ours: object, theirs: object, tolerance: float) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float | int):
        return bool(np.isclose(ours, theirs, rtol=tolerance, atol=tolerance))
    return ours == theirs


def place_notices(notices: Sequence[Notice]) -> dict[int, str]:
    """Return the notices of each row as one text, by the row's place; for rows without labels."""
    found: dict[int, list[str]] = {}
    for notice in notices:
        if isinstance(notice.row, int):
            found.setdefault(notice.row, []).append(notice.message)
    return {row: "; ".join(messages) for row, messages in found.items()}
