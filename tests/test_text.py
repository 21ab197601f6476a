import json
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlapp.errors import InvalidInput
from mlapp.families.text import LONGEST, Vocabulary, check_texts, clean, train_vocabulary

SAMPLES = [
    "Don't go! It isn't <br /><br />a GOOD film... 10/10 :) 8.5, really?",
    "I can't say it's bad; a café, naïve. 😍 pad unk [PAD] [UNK]",
]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(train_vocabulary(SAMPLES * 3, 100, 1))


def words(vocabulary: Vocabulary, text: str) -> list[str]:
    return [vocabulary.words[place] for place in vocabulary.read(text).ids]


def test_negations_contractions_and_marks_survive(vocabulary: Vocabulary) -> None:
    text = "DON'T go! It isn't good? No..."
    assert words(vocabulary, text) == [
        "don't",
        "go",
        "!",
        "it",
        "isn't",
        "good",
        "?",
        "[UNK]",
        "...",
    ]


@pytest.mark.parametrize("apostrophe", "'’‘`´ʼ")
def test_every_keyboards_apostrophe_is_the_same(vocabulary: Vocabulary, apostrophe: str) -> None:
    assert words(vocabulary, f"don{apostrophe}t") == ["don't"]


@pytest.mark.parametrize(
    "between", ["<br />", "<br>", "<BR/>", "<br /><br />", '<a href="x">', "&nbsp;", "&#39;", "\0"]
)
def test_markup_stands_between_words(vocabulary: Vocabulary, between: str) -> None:
    assert words(vocabulary, f"good{between}film") == ["good", "film"]


def test_a_less_than_sign_is_not_markup(vocabulary: Vocabulary) -> None:
    assert words(vocabulary, "bad < good and 1 > go") == ["bad", "good", "[UNK]", "[UNK]", "go"]


def test_markdown_and_web_addresses_are_not_read(vocabulary: Vocabulary) -> None:
    assert words(vocabulary, "**good** _film_ https://go.example/bad?a=1") == ["good", "film"]


def test_ratings_emoticons_and_emoji_are_words(vocabulary: Vocabulary) -> None:
    assert words(vocabulary, "10/10 8.5 :) 😍") == ["10/10", "8.5", ":)", "😍"]


def test_composed_and_decomposed_letters_are_the_same(vocabulary: Vocabulary) -> None:
    assert words(vocabulary, unicodedata.normalize("NFD", "café naïve")) == ["café", "naïve"]


def test_special_words_cannot_be_typed(vocabulary: Vocabulary) -> None:
    assert words(vocabulary, "[PAD][UNK]") == ["pad", "unk"]


def test_spans_count_characters_of_the_text_as_given(vocabulary: Vocabulary) -> None:
    text = "\ud800 Don’t\0<br />\U0001f600 go\x1b!"
    spans = vocabulary.find_spans(text)
    assert [text[start:end] for start, end in spans] == ["Don’t", "\U0001f600", "go", "!"]


def test_unknown_words_are_counted_and_marks_are_no_words(vocabulary: Vocabulary) -> None:
    read = vocabulary.read("Good, zzz!")
    assert (len(read.ids), read.words, read.unknown) == (4, 2, 1)


def test_a_text_alone_is_read_as_among_many(vocabulary: Vocabulary) -> None:
    for text, read in zip(SAMPLES, vocabulary.read_many(SAMPLES), strict=True):
        np.testing.assert_array_equal(read.ids, vocabulary.read(text).ids)


BITS = "<b </i> > &amp ; http:// https:/ /x ' it's 9 8.5 .. :) ;-( =p :D a Z ?! 1,2/3 _ - <br/>"
LETTERS = "é É ß ẞ ÿ Ÿ ø × ª µ ² e\u0301 İ \u212a"
PIECES = [*BITS.split(), *LETTERS.split(), " ", "\n"]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.characters(max_codepoint=255)), max_size=30))
def test_a_text_of_latin_letters_is_read_as_among_other_characters(
    vocabulary: Vocabulary, parts: list[str]
) -> None:
    assert vocabulary.reads_latin
    text = "".join(parts)
    ours, other = vocabulary.read(text), vocabulary.read(text + "\u00a0")
    np.testing.assert_array_equal(ours.ids, other.ids)
    np.testing.assert_array_equal(ours.marks, other.marks)
    assert (ours.words, ours.unknown) == (other.words, other.unknown)


@given(st.text(st.characters(exclude_categories=[]), max_size=60))
def test_cleaning_keeps_every_position(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) == len(text)
    cleaned.encode()
    assert all(new in (old, " ", "'", ".") for old, new in zip(text, cleaned, strict=True))


@given(
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=[]), max_size=8),
            st.sampled_from(
                ["Don’t", "<br />", "\0", "\ud83d", "e\u0301", "😍", "ﬁ", "¼", "İ", "..."]
            ),
        ),
        max_size=12,
    )
)
def test_spans_are_ordered_apart_and_inside_whatever_is_typed(
    vocabulary: Vocabulary, parts: list[str]
) -> None:
    text = "".join(parts)
    read, spans = vocabulary.read(text), vocabulary.find_spans(text)
    flat = spans.ravel()
    assert (flat >= 0).all() and (flat <= len(text)).all()
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (spans[1:, 0] >= spans[:-1, 1]).all()
    for place, (start, end) in zip(read.ids, spans, strict=True):
        if place > 1:
            piece = unicodedata.normalize("NFC", clean(text[start:end])).lower()
            assert piece.startswith(vocabulary.words[place][:1])


def test_the_vocabulary_is_bounded_and_leaves_out_rare_words() -> None:
    known = Vocabulary(train_vocabulary(["a a a b b c"], 4, 2))
    assert known.words == ["[PAD]", "[UNK]", "a", "b"]
    assert len(Vocabulary(train_vocabulary(["a a a b b c"], 3, 1))) == 3


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"model": 3}'])
def test_a_file_that_is_not_a_tokenizer_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no tokenizer"):
        Vocabulary(content)


def test_a_tokenizer_with_other_special_words_is_refused() -> None:
    content = json.loads(train_vocabulary(["a b"], 10, 1))
    content["model"]["vocab"] = {"a": 0, "[UNK]": 1}
    with pytest.raises(ValueError, match="its words begin with"):
        Vocabulary(json.dumps(content).encode())


# --- the check --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "got"),
    [("", "nothing"), (" \n\t", "nothing"), (None, "nothing"), ("?!", "'?!'")],
)
def test_what_holds_nothing_to_read_is_refused_with_what_arrived(text: object, got: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_texts(["fine", text])  # type: ignore[list-item]
    [fault] = caught.value.faults
    assert (fault.row, fault.input, fault.got) == (1, "text", got)
    assert fault.allowed == "a text with at least one letter, digit or symbol"


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (5, "the number 5"),
        (3.5, "the number 3.5"),
        (b"5", "b'5'"),
        (["5"], "['5']"),
    ],
)
def test_a_value_that_is_no_text_is_refused_as_one(value: object, got: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_texts(["fine", value])  # type: ignore[list-item]
    assert str(caught.value) == f"row 1, text: got {got}, expected a text"


def test_every_fault_is_reported_with_its_row() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_texts(pd.Series(["", "good", None], index=["a", "b", "c"]))
    assert [fault.row for fault in caught.value.faults] == ["a", "c"]


@pytest.mark.parametrize("texts", ["good", None, 3, {"a": "good"}])
def test_what_is_not_a_sequence_of_texts_is_refused(texts: object) -> None:
    with pytest.raises(InvalidInput, match="a sequence of texts"):
        check_texts(texts)  # type: ignore[arg-type]


def test_a_text_beyond_the_limit_is_refused_and_one_at_it_is_not() -> None:
    assert check_texts(["a" * LONGEST])
    with pytest.raises(InvalidInput, match="at most 2,000,000 characters"):
        check_texts(["a" * (LONGEST + 1)])
