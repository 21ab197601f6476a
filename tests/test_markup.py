import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mlapp.dashboard.markup import MARKED, literal, mark
from mlapp.families.contract import Span

TAGS = re.compile(r"<(?:/?(?:div|span))(?: [^<>]*)?>")


def shown(markup: str) -> str:
    """Return the text that a browser shows of marked text."""
    assert set(re.findall(r"<[^>]*>", markup)) == set(TAGS.findall(markup))
    return html.unescape(TAGS.sub("", markup))


def spans_of(text: str, weights: list[float]) -> list[Span]:
    words = re.finditer(r"\S+", text)
    return [Span(word.start(), word.end(), w) for word, w in zip(words, weights, strict=False)]


@pytest.mark.slow
@given(st.text(), st.lists(st.floats(-100, 100)))
def test_any_text_is_shown_as_it_was_typed(text: str, weights: list[float]) -> None:
    expected = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", "\ufffd", text)
    # A browser reads a lone carriage return as a line feed, and html.unescape maps C1 numbers.
    assert shown(mark(text, spans_of(text, weights))) == expected


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;b&gt;", "</div><div>"],
)
def test_markup_in_a_text_stays_text(text: str) -> None:
    marked = mark(text, spans_of(text, [1.0]))
    assert "<script" not in marked
    assert "<img" not in marked
    assert shown(marked) == text


def test_what_cannot_be_shown_becomes_a_replacement_character() -> None:
    assert shown(mark("a\0b\ud800c", [])) == "a\ufffdb\ufffdc"
    mark("\ud800", []).encode()


def test_heavier_words_are_marked_more_and_the_direction_shows_without_colour() -> None:
    marked = mark("good bad fine", spans_of("good bad fine", [2.0, -1.0, 0.01]))
    good, bad = re.findall(r"<span[^>]*>\w+</span>", marked)
    assert "solid" in good
    assert "font-weight:600" in good
    assert "dashed" in bad
    assert "fine" not in good + bad


def test_a_long_text_has_a_bounded_number_of_marks() -> None:
    text = "word " * 20_000
    marked = mark(text, spans_of(text, [1.0] * 20_000))
    assert marked.count("<span") == MARKED
    assert shown(marked) == text


def test_a_text_without_weights_has_no_marks() -> None:
    assert "<span" not in mark("plain words", spans_of("plain words", [0.0, 0.0]))


@pytest.mark.parametrize(
    "text",
    [
        "![x](https://evil.example/a.png)",
        "[x](https://evil.example)",
        "https://evil.example/a.png",
        "www.evil.example",
        "<img src=x>",
        "*a* **b** _c_ ~d~ `e`",
        ":material/home: :smile: :red[x]",
        "$x^2$",
        "# title",
        "- item",
        "1. item",
        "a | b",
        "&lt;b&gt;",
        "a\\*b",
    ],
)
def test_nothing_in_a_literal_text_is_markup(text: str) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(literal(text))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    children = tokens[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    assert "".join(child.content for child in children) == text
    # What Streamlit and GitHub's Markdown read besides has no such characters left.
    assert not re.search(r"(?<!\\)(:(?=\S)|\$)|www\.", literal(text))


@pytest.mark.parametrize("text", ["var_1: got 'abc', expected a finite number", "size-in_cm 3.5"])
def test_plain_words_stay_as_they_are(text: str) -> None:
    assert literal(text) == text
