"""A published text classifier: labels with calibrated probabilities, and exact reasons.

    texts -> `Scorer.read` -> readings -> `Scorer.scores` -> softmax -> probabilities
                                       -> `Scorer.contributions` -> spans and weights

What computes the scores is a `text.Scorer`; the softmax of its scores is the probability of each
label.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlapp.errors import ArtifactError, Fault, InvalidInput
from mlapp.families.contract import (
    Explanation,
    Field,
    Headline,
    LabelOutput,
    Labels,
    Span,
    TextInput,
    TextReasons,
)
from mlapp.families.linear_text import LINEAR, LinearText
from mlapp.families.network import Network
from mlapp.families.text import Contributions, Reading, Scorer, Texts, check_texts
from mlapp.manifest import Artifact, command_of
from mlapp.schema import TEXT, Column, Floats, Notice, describe, is_series, note_unknown

if TYPE_CHECKING:  # takes longer to import than a text takes to classify
    import pandas as pd

REPORT = "report.json"

EXTRAS = ((Field("tokens", "INT64"), False), (Field("unknown", "FP64"), True))
EXAMPLE = "Any text"  # of a version without golden texts
PLAIN = re.compile(r"[^\W\d_]+(?:[ _-][^\W\d_]+){0,2}")  # one to three words
LONGEST = 30  # the most characters of a column's name that is used as a noun
FEW_KNOWN = 0.5  # share of unknown words above which a text may be in another language


class Wording(NamedTuple):
    """What people call the texts and labels of a model, in lower case.

    Answers, records and requests have names of their own, which are the same for every model.

    Attributes:
        text: for a text, as in "Enter a review".
        label: for a label, as in "Predict sentiment".
    """

    text: str
    label: str

    @property
    def a_text(self) -> str:
        """The noun of a text with its article."""
        return f"{'an' if self.text[0] in 'aeiou' else 'a'} {self.text}"


@dataclass(frozen=True)
class ReadTexts:
    """Texts that passed the check.

    Attributes:
        texts: as they were given.
        read: what the scorer reads in each.
        row_labels: the labels of the n texts; None stands for 0 to n-1.
        mismatches: notices of columns that the model does not know.
    """

    texts: list[str]
    read: Sequence[Reading]
    row_labels: "pd.Index | None" = None
    mismatches: tuple[Notice, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def notices(self) -> list[Notice]:
        """The columns that do not match, then the texts with hardly any known word."""
        found = list(self.mismatches)
        for place, reading in enumerate(self.read):
            known = 1 - share_unknown(reading)
            if known < 1 - FEW_KNOWN:
                label = place if self.row_labels is None else self.row_labels[place]
                share = f"only {known:.0%}" if known else "none"
                detail = f"the model knows {share} of the words"
                found.append(Notice(TEXT, detail, label))
        return found

    def row(self, place: int) -> dict[str, str]:
        """Return one text by its input's name."""
        return {TEXT: self.texts[place]}


class SentimentModel:
    """A text classifier: takes a text, gives labels with probabilities.

    Attributes:
        labels: what it distinguishes.
        scorer: what computes its scores.
    """

    tolerance = 1e-3  # the arithmetic of a network differs a little between processors

    def __init__(self, artifact: Artifact) -> None:
        """Load the model from an opened artifact.

        Raises:
            ArtifactError: it is no text classifier, or its files do not fit together.
        """
        manifest = artifact.manifest
        if manifest.labels is None or manifest.task != "text-classification":
            raise ArtifactError(f"{artifact.path} is a {manifest.task} model, not a classifier")
        self.manifest, self.size, self.labels = manifest, artifact.size, manifest.labels
        example = manifest.golden[0].input.get(TEXT) if manifest.golden else None
        self.takes = TextInput(str(example or EXAMPLE))
        self.gives = LabelOutput(self.labels, "the label", EXTRAS)
        self._report = artifact.files[REPORT]
        try:
            self.scorer = _load_scorer(artifact.files)
        except Exception as error:  # the libraries' exceptions share no base
            raise ArtifactError(
                f"{artifact.path} cannot be loaded: {error}", command_of(manifest)
            ) from error

    @cached_property
    def examples(self) -> list[str]:
        """Texts that show what the model is for: published with it, or else its golden ones."""
        golden = [str(each.input[TEXT]) for each in self.manifest.golden]
        found: list[str] = self.report.get("examples", golden)
        return found

    @property
    def platform(self) -> str:
        """The platform, in the terms of the Open Inference Protocol."""
        return self.scorer.platform

    @property
    def headline(self) -> Headline:
        """The accuracy on texts that the model had not seen."""
        accuracy = float(str(self.manifest.metrics["accuracy"]))
        measured = "cross-validated" if "folds" in self.manifest.training else "held-out"
        meaning = "Share of texts that the training never saw which get their own label."
        return Headline(f"{measured} accuracy", f"{accuracy:.1%}", meaning)

    def check(self, texts: Texts) -> ReadTexts:
        """Read texts; one without a known word gets a notice.

        Raises:
            InvalidInput: with a fault for each text that `check_texts` refuses.
        """
        index = texts.index if is_series(texts) else None
        checked = check_texts(texts)
        return ReadTexts(checked, self.scorer.read(checked), index)

    def check_columns(self, columns: Mapping[str, Column]) -> ReadTexts:
        """Read the texts of a column; others get a notice.

        Raises:
            InvalidInput: as `check`.
        """
        notices = note_unknown(columns, [TEXT])
        return replace(self.check(list(columns[TEXT])), mismatches=tuple(notices))

    def answer(self, batch: ReadTexts) -> Labels:
        """Classify texts that were read."""
        probabilities = softmax(self.scorer.scores(batch.read))
        return Labels(self.gives, probabilities, describe_readings(batch.read), batch.notices)

    def reasons(self, batch: ReadTexts) -> TextReasons:
        """Return the words that decide; with more than two labels, for the predicted one."""
        labels = self.answer(batch).labels if len(self.labels) > 2 else [""] * len(batch)

        def explain(place: int) -> Explanation:
            label = self.gives.explained(labels[place])
            return self._explain(batch.texts[place], batch.read[place], label)

        return TextReasons(batch.texts, list(map(len, batch.read)), explain, self.scorer.method)

    def predict(self, texts: Texts) -> "pd.DataFrame":
        """Classify n texts.

        Args:
            texts: a sequence of n str, or a pandas series of them.

        Returns:
            n rows, with the series' index or 0 to n-1, and columns label; probability (of that
            label, calibrated); one per label, its probability, called as `gives.columns` says;
            tokens (how many were read); unknown (the share of words that are not in the
            vocabulary, 0 to 1).

        Raises:
            InvalidInput: as `check`.
        """
        import pandas as pd

        batch = self.check(texts)
        columns = ["label", "probability", *self.gives.columns.values(), "tokens", "unknown"]
        return pd.DataFrame(self.answer(batch).records(), batch.row_labels, columns)

    def explain(self, text: str, label: str | None = None) -> Explanation:
        """Return how much each word of a text speaks for a label.

        Args:
            text: the text; spans count its characters as given.
            label: the label to explain, by default the last, which is the positive one of two.

        Raises:
            InvalidInput: the text is refused as by `predict`, or there is no such label.
        """
        [reading] = self.check([text]).read
        label = self.labels[-1] if label is None else label
        if label not in self.labels:
            allowed = f"one of {', '.join(map(repr, self.labels))}"
            raise InvalidInput([Fault("label", describe(label), allowed)])
        return self._explain(text, reading, label)

    def _explain(self, text: str, reading: Reading, label: str) -> Explanation:
        place, count = self.labels.index(label), len(self.labels)
        # The difference of two scores is twice the distance of either from their mean.
        factor = 2.0 if count == 2 else 1.0
        contrast = factor * (np.eye(count)[place] - 1 / count)
        found = self.scorer.contributions(text, reading, contrast)
        logit = found.bias + float(found.weights.sum())
        return Explanation(label, logit, found.bias, _spans(text, found))

    @cached_property
    def report(self) -> dict[str, Any]:
        """What training measured on the held-out part, for charts; see `training.sentiment`."""
        report: dict[str, Any] = json.loads(self._report)
        return report

    @cached_property
    def wording(self) -> Wording:
        """The columns that it was trained on; versions that name none were trained on reviews."""
        columns = self.report.get("columns", {"text": "review", "label": "sentiment"})
        return Wording(_noun(columns["text"], "text"), _noun(columns["label"], "label"))


def _noun(column: str, usual: str) -> str:
    if len(column) > LONGEST or not PLAIN.fullmatch(column):
        return usual
    return re.sub("[_-]", " ", column).lower()


def _spans(text: str, found: Contributions) -> tuple[Span, ...]:
    """Return the parts of a text; one that modifies the character before belongs to its part."""
    spans: list[Span] = []
    for (start, end), weight in zip(found.spans.tolist(), found.weights.tolist(), strict=True):
        if spans and start < spans[-1].end:
            before = spans.pop()
            start, weight = before.start, before.weight + weight
        spans.append(Span(start, _whole(text, end), weight))
    return tuple(spans)


def _load_scorer(files: Mapping[str, bytes]) -> Scorer:
    """Return the scorer of an artifact: the linear model if it has its file, or the network."""
    return LinearText.load(files[LINEAR]) if LINEAR in files else Network(files)


def describe_readings(readings: Sequence[Reading]) -> dict[str, npt.NDArray[Any]]:
    """Return the columns `EXTRAS` of the answers to n texts, (n,) each."""
    return {
        "tokens": np.array([len(each) for each in readings], dtype=np.int64),
        "unknown": np.array([share_unknown(each) for each in readings], dtype=float),
    }


def share_unknown(reading: Reading) -> float:
    """Return the share of a text's words that the model does not know; 1 without words."""
    return reading.unknown / reading.words if reading.words else 1.0


def softmax(scores: Floats) -> Floats:
    """Return the probabilities (n, labels) of scores (n, labels)."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


_MARKS_FOLLOW = re.compile(r"[\u200d\ufe0f\U0001f3fb-\U0001f3ff]")


def _whole(text: str, end: int) -> int:
    """Move a span's end past the combining marks that belong to its last character."""
    while end < len(text) and (unicodedata.combining(text[end]) or _MARKS_FOLLOW.match(text[end])):
        end += 1
    return end
