"""What the training of a text classifier is asked for, and the recipes of the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mlapp.families.network import Pooling

SEED = 0  # of the split, the weights, and the order of the texts


@dataclass(frozen=True)
class Recipe:
    """The knobs of a training.

    Attributes:
        words: size of the vocabulary.
        minimum: how often a word must occur to be in it.
        dimensions: of a word's vector.
        vector_epochs: over all texts, to learn the vectors first; 0 learns them with the network.
        units: of the LSTM, in each direction.
        bidirectional: whether texts are read backwards, too.
        pooling: max over time, or the last state.
        spatial_dropout, dropout: shares left out of the vectors' dimensions and of the pooled.
        rate: of Adam, at the start.
        batch: texts per step.
        epochs: over the labelled texts.
        rounds: of soft labels, each with its number of epochs: the network and the linear teacher
            together label unlabelled and short texts, and the network and its vectors go on with
            all.
        hard: what a labelled text's own label counts for; all labels share the rest.
        short: short texts in a soft epoch, as a share of the whole ones.
        phrases: sentences of `training.phrases` in an epoch, where they are asked for.
        longest: tokens; of longer texts another stretch is seen each time.
        pad_to: tokens that every text is padded to; None pads to the longest of a batch.
    """

    words: int = 40_000
    minimum: int = 5
    dimensions: int = 128
    vector_epochs: int = 5
    units: int = 128
    bidirectional: bool = True
    pooling: Pooling = "max"
    spatial_dropout: float = 0.1
    dropout: float = 0.3
    rate: float = 2e-3
    batch: int = 64
    epochs: int = 4
    rounds: tuple[int, ...] = (1, 2)
    hard: float = 0.95
    short: float = 0.3
    phrases: int = 12_000
    longest: int = 400
    pad_to: int | None = None


RECIPES = {
    "best": Recipe(),
    # The chapter's, as printed; padding is masked, so that texts can be served without.
    "chapter": Recipe(
        words=1000,
        minimum=1,
        dimensions=100,
        vector_epochs=0,
        units=10,
        bidirectional=False,
        pooling="last",
        spatial_dropout=0.0,
        dropout=0.0,
        rate=1e-3,
        batch=32,
        epochs=5,
        rounds=(),
        hard=1.0,
        short=0.0,
        phrases=0,
        longest=1473,
        pad_to=1473,
    ),
}

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
