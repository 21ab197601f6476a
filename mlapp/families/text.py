"""Texts: the check and the tokenizer, which training and serving share.

    text as given -> `clean` (character for character) -> tokenizers JSON -> ids and spans

A token is a word (contractions whole: "don't"), a number ("10/10"), an emoticon, a symbol, or one
of the marks . , ! ? ; and "...". In scripts without spaces between words, a character is a word.
Markup, entities, web addresses and all other characters stand between tokens. Spans count
characters of the text as given.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.trainers import WordLevelTrainer

from mlapp.errors import Fault, InvalidInput
from mlapp.schema import Floats, describe, is_series

if TYPE_CHECKING:  # takes longer to import than a text takes to classify
    import pandas as pd

Texts: TypeAlias = Union[Sequence[str], "pd.Series"]
Ids: TypeAlias = npt.NDArray[np.int64]

MARKS = set(".,!?;")  # tokens of these alone are not words
PADDING, UNKNOWN = "[PAD]", "[UNK]"  # the first two of every vocabulary: 0 and 1
LONGEST = 2_000_000  # characters; longer texts are refused

ALLOWED = "a text with at least one letter, digit or symbol"

# Not read: tags, entities, web addresses. Each alternative is linear in the text's length.
MARKUP = r"</?[a-z][^<>]*>|&#?[a-z0-9]{1,10};|https?://[^\s<>]+"
EMOTICON = r"[:;=]-?[()dp](?!\p{L})"  # lower-cased
# Scripts that put no spaces between words: there, a character is a word.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}ー"
_LETTER = rf"[\p{{L}}&&[^{UNSPACED}]]"
WORD = "|".join(
    [
        rf"[\p{{L}}&&[{UNSPACED}]]\p{{M}}*",
        # Contractions are whole.
        rf"{_LETTER}(?:{_LETTER}|[\p{{M}}\p{{N}}])*(?:'{_LETTER}(?:{_LETTER}|\p{{M}})*)*",
    ]
)
_TOKEN = "|".join(
    [
        WORD,
        r"\p{N}+(?:[.,/]\p{N}+)*",  # numbers, fractions and marks: 8.5, 10/10
        EMOTICON,
        r"\.\.+|[.,!?;]",
        r"\p{So}",  # emoji and other symbols
    ]
)
# The same in a lower-cased text of ASCII and the letters of Latin-1.
_LATIN = re.compile(r"[\x00-\x7fß-öø-ÿ]*")
_LATIN_MARKUP = re.compile(MARKUP)
_LATIN_TOKEN = re.compile(
    r"[a-zß-öø-ÿ][a-zß-öø-ÿ0-9]*(?:'[a-zß-öø-ÿ]+)*|[0-9]+(?:[.,/][0-9]+)*"
    r"|[:;=]-?[()dp](?![a-zß-öø-ÿ])|\.\.+|[.,!?;]"
)
_PROBE = (
    "It's rock'n'roll '90s; <b>don't</b> 8.5/10, 1.,2 a1b2 <3 :) ;-( =p :pa :-d... a..b &amp; &#39;"
    " (http://x.y/z?a=1) <i class='x'>A_b-C</I> x@y.z #1 50% $3.50 4th"
    " 'quoted' \"said\" ~^`|{}[]\\ ?! Café's naïve ÜBER straße ÿs'é2 :dé"
)
_UNREADABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_SAME = (*((each, "'") for each in "\u2018\u2019\u02bc\u00b4`"), ("\u2026", "."))


def clean(text: str) -> str:
    """Return a text of the same length that the tokenizer can read.

    Control characters and lone surrogates become spaces, the apostrophes of all keyboards become
    one, and an ellipsis a stop, each character for itself, so that every position stays the same.
    """
    cleaned = _UNREADABLE.sub(" ", text)
    for theirs, ours in _SAME:  # much quicker than `str.translate`
        cleaned = cleaned.replace(theirs, ours)
    return cleaned


def is_readable(text: str) -> bool:
    """Return whether a text holds a letter, a digit or a symbol."""
    # Nearly every text begins with one.
    return any(each.isalnum() or unicodedata.category(each)[0] in "LNS" for each in text)


def check_texts(texts: Texts) -> list[str]:
    """Return n texts that passed the check.

    Args:
        texts: n texts, as a sequence or a pandas series, whose index then names the rows.

    Raises:
        InvalidInput: with a fault for every text that is not a str, has no letter, digit or
            symbol, or has more than `LONGEST` characters.
    """
    if isinstance(texts, str) or not (isinstance(texts, Sequence) or is_series(texts)):
        raise InvalidInput([Fault("texts", describe(texts), "a sequence of texts")])
    rows = texts.index if is_series(texts) else range(len(texts))
    faults = []
    for row, text in zip(rows, texts, strict=True):
        if text is None:
            faults.append(Fault("text", "nothing", ALLOWED, row))
        elif not isinstance(text, str):
            faults.append(refuse_other(text, row))
        elif len(text) > LONGEST:
            got = f"{len(text):,} characters"
            faults.append(Fault("text", got, f"at most {LONGEST:,} characters", row))
        elif not text.strip():
            faults.append(Fault("text", "nothing", ALLOWED, row))
        elif not is_readable(text):
            faults.append(Fault("text", describe(text), ALLOWED, row))
    if faults:
        raise InvalidInput(faults)
    return list(texts)


def refuse_other(value: object, row: Hashable | None = None) -> Fault:
    """Return the fault of a value that is not a text, such as a number or a list."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Fault(
        "text", f"the number {describe(value)}" if number else describe(value), "a text", row
    )


@dataclass(frozen=True)
class Tokens:
    """A text's n tokens.

    Attributes:
        ids: places in the vocabulary, (n,); 1 is a word that is not in it.
        marks: which tokens are punctuation, (n,).
        words: how many tokens are not.
        unknown: how many words are not in the vocabulary.
    """

    ids: Ids
    marks: npt.NDArray[np.bool_]
    words: int
    unknown: int

    def __len__(self) -> int:
        return len(self.ids)


class _Places(dict[str, int]):
    """The id of each word; 1 for others."""

    def __missing__(self, word: str) -> int:
        return 1


class Vocabulary:
    """A trained tokenizer.

    Attributes:
        words: what it knows, by id.
        reads_latin: whether texts of ASCII and the letters of Latin-1 are read without the library,
            several times faster.
    """

    def __init__(self, content: bytes) -> None:
        """Read a `tokenizers` JSON file.

        Raises:
            ValueError: it is none, or its first two words are not padding and unknown.
        """
        try:
            self._tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises bare exceptions
            raise ValueError(f"no tokenizer: {error}") from error
        self._places = places = _Places(self._tokenizer.get_vocab())
        self.words = sorted(places, key=lambda word: places[word])
        if self.words[:2] != [PADDING, UNKNOWN]:
            raise ValueError(f"its words begin with {self.words[:2]}")
        self._marks = np.array([MARKS.issuperset(word) for word in self.words])
        # A tokenizer that splits otherwise reads all texts itself.
        self.reads_latin = True
        probed = self.read(_PROBE).ids
        self.reads_latin = np.array_equal(probed, self._tokenizer.encode(_PROBE).ids)

    def __len__(self) -> int:
        return len(self.words)

    def read(self, text: str) -> Tokens:
        """Return a text's tokens; there may be none."""
        cleaned = clean(text)
        if self.reads_latin and _LATIN.fullmatch(lowered := cleaned.lower()):
            words = _LATIN_TOKEN.findall(without_markup(lowered))
            ids = list(map(self._places.__getitem__, words))
            return self._describe(ids, words.__getitem__)
        encoding = self._tokenizer.encode(cleaned)
        spans = encoding.offsets  # made anew at each access
        return self._describe(encoding.ids, lambda place: cleaned[slice(*spans[place])])

    def read_many(self, texts: Iterable[str]) -> list[Tokens]:
        """Return the tokens of many texts."""
        return list(map(self.read, texts))

    def find_spans(self, text: str) -> Ids:
        """Return where each token starts and ends in the text as given, (n, 2)."""
        spans = self._tokenizer.encode(clean(text)).offsets
        return np.array(spans, dtype=np.int64).reshape(len(spans), 2)

    def _describe(self, ids: Sequence[int], word: Callable[[int], str]) -> Tokens:
        """Return tokens; `word` gives that in a place."""
        places = np.array(ids, dtype=np.int64)
        own = self._marks[places]
        strange = np.flatnonzero(places == 1)
        own[strange] = [MARKS.issuperset(word(place)) for place in strange.tolist()]
        words = len(places) - int(own.sum())
        return Tokens(places, own, words, len(strange) - int(own[strange].sum()))


def without_markup(text: str) -> str:
    """Return a lower-cased text with spaces for tags, entities and web addresses."""
    if "<" in text or "&" in text or "://" in text:
        return _LATIN_MARKUP.sub(lambda found: " " * len(found[0]), text)
    return text


def train_vocabulary(texts: Iterable[str], size: int, minimum: int) -> bytes:
    """Return the tokenizer JSON of the most frequent words of texts.

    Args:
        texts: the training part.
        size: the largest number of words, padding and unknown among them.
        minimum: how often a word must occur.
    """
    tokenizer = Tokenizer(WordLevel({PADDING: 0, UNKNOWN: 1}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(MARKUP), "removed"),
            pre_tokenizers.Split(Regex(_TOKEN), "removed", invert=True),
        ]
    )
    trainer = WordLevelTrainer(
        vocab_size=size,
        min_frequency=minimum,
        special_tokens=[PADDING, UNKNOWN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(clean, texts), trainer)
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    # Special words would be found in typed text; here they are only places in the vocabulary.
    content["added_tokens"] = []
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


# --- what computes scores --------------------------------------------------------------------


class Reading(Protocol):
    """What a scorer reads in a text; its length is the number of tokens."""

    @property
    def words(self) -> int:
        """How many words there are."""

    @property
    def unknown(self) -> int:
        """How many of them the scorer does not know."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Contributions:
    """What the parts of a text add to a sum of its scores.

    Attributes:
        spans: where each part starts and ends in the text as given, in order, without overlaps,
            (n, 2).
        weights: what each part adds, (n,); they and the bias sum to the whole.
        bias: what no part adds.
    """

    spans: Ids
    weights: Floats
    bias: float


class Scorer(Protocol):
    """What computes the scores of texts: a network, or a linear model. Safe for many threads."""

    @property
    def platform(self) -> str:
        """What computes it, as the Open Inference Protocol names platforms."""

    @property
    def method(self) -> str:
        """How contributions are found, in a sentence for people."""

    def read(self, texts: Sequence[str]) -> Sequence[Any]:
        """Return the readings of n texts that passed `check_texts`."""

    def scores(self, readings: Sequence[Any]) -> Floats:
        """Return calibrated scores, (n, labels); their softmax is the probabilities."""

    def contributions(self, text: str, reading: Any, contrast: Floats) -> Contributions:
        """Return what the parts of a text add to `scores @ contrast`.

        Args:
            text: the text as given.
            reading: what `read` returned for it.
            contrast: how the scores are summed to the logit of a label, (labels,).
        """
