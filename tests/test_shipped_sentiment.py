"""How the shipped text classifier behaves: on plain cases, on edits, and on real reviews."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlapp.families.contract import Span, replay
from mlapp.families.sentiment import SentimentModel
from tests.conftest import SHIPPED, open_sentiment

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 1_000_000
# Floors under what the shipped model reaches; of the one-liners, 180 are aimed at.
ACCURACY = 0.92
ONE_LINERS = 170


@pytest.fixture(scope="module")
def model() -> SentimentModel:
    return open_sentiment(SHIPPED)


def positive(model: SentimentModel, *texts: str) -> list[float]:
    return list(model.predict(texts)["Positive"])


def test_it_is_small_accurate_and_calibrated_by_its_own_account(model: SentimentModel) -> None:
    metrics = {name: float(str(value)) for name, value in model.manifest.metrics.items()}
    assert model.size <= 12 * MEGABYTE
    assert metrics["accuracy"] >= ACCURACY
    assert metrics["ece"] <= 0.01
    assert metrics["keras_difference"] <= 1e-4
    cost = metrics["calibration_accuracy_32_bit"] - metrics["calibration_accuracy_8_bit"]
    assert cost <= 0.002


def test_it_repeats_its_golden_predictions(model: SentimentModel) -> None:
    replay(model)


def test_the_chapters_sentence_is_negative(model: SentimentModel) -> None:
    assert model.predict(["Movie was pathetic"])["label"][0] == "Negative"


PLAIN = {
    "Positive": [
        "An excellent film with a superb cast. I loved it from the first scene to the last.",
        "Funny, warm and beautifully acted, this is one of the best comedies I have ever seen.",
        "A wonderful story, a great score and a perfect ending. Highly recommended!",
    ],
    "Negative": [
        "A terrible film with a boring plot and awful acting. I hated every minute of it.",
        "The worst film I have seen in years: badly written, badly acted, a waste of time.",
        "Dull, stupid and far too long. Avoid it.",
    ],
}


@pytest.mark.parametrize("label", ["Positive", "Negative"])
def test_plainly_good_and_plainly_bad_reviews_are_distinguished(
    model: SentimentModel, label: str
) -> None:
    answer = model.predict(PLAIN[label])
    assert list(answer["label"]) == [label] * 3
    assert (answer["probability"] > 0.8).all()


@pytest.mark.parametrize(
    ("plain", "negated"),
    [
        ("The film was good.", "The film was not good at all."),
        ("The acting is convincing.", "The acting is not convincing."),
        ("I enjoyed this movie.", "I did not enjoy this movie."),
        ("It is worth watching.", "It isn't worth watching."),
        ("I would recommend it.", "I would never recommend it."),
    ],
)
def test_negation_turns_the_label(model: SentimentModel, plain: str, negated: str) -> None:
    before, after = positive(model, plain, negated)
    assert before > 0.5 > after


def test_negating_something_bad_makes_it_better(model: SentimentModel) -> None:
    before, after = positive(model, "The film was bad.", "The film was not bad at all.")
    assert before < 0.5
    assert after > before + 0.3


FRAME = (
    "{name} plays a teacher in {film}.{gap}The story is moving and the acting is superb. I loved it"
)


def test_neutral_edits_keep_the_label(model: SentimentModel) -> None:
    names = ["John Smith", "Maria Garcia", "Wei Zhang", "Aisha Khan", "Someone"]
    films = ["Harbour Lights", "The Last Train", "Yesterday's Snow", "this film"]
    gaps = [" ", "<br />", "<br>", "<BR/><br />", "\n\n", "\t"]
    texts = [
        FRAME.format(name=name, film=film, gap=gap)
        for name in names
        for film in films
        for gap in gaps
    ]
    found = np.array(positive(model, *texts))
    assert (found > 0.8).all()
    assert np.ptp(found) < 0.15


def test_case_and_the_spelling_of_line_breaks_change_nothing(model: SentimentModel) -> None:
    text = "A dull film.<br /><br />It isn't funny, and it isn't sad."
    edits = [text.upper(), text.replace("<br />", "<br/>"), text.replace("'", "’")]
    assert positive(model, *edits) == pytest.approx(positive(model, text) * 3, abs=1e-6)


def test_one_liners_that_nothing_was_tuned_to_are_right_as_often_as_before(
    model: SentimentModel,
) -> None:
    lines = pd.read_csv(ROOT / "tests" / "one_liners.tsv", sep="\t")
    found = model.predict(lines["text"])
    wrong = lines[found["label"] != lines["label"]]
    assert len(lines) == 200
    assert len(wrong) <= 200 - ONE_LINERS, wrong.to_string()


def test_a_sentence_among_neutral_ones_is_credited_with_its_label(model: SentimentModel) -> None:
    text = "We saw it on Sunday. It is the worst film of the year. We went home by train."
    found = model.explain(text)
    least = min(found.spans, key=lambda span: span.weight)
    assert text[least.start : least.end] == "worst"
    assert found.logit < 0


@pytest.mark.slow(12)
def test_it_is_as_accurate_on_the_real_held_out_reviews_as_it_says(
    model: SentimentModel, real_data: Path
) -> None:
    from training.splits import split
    from training.texts import read_reviews

    reviews = read_reviews(
        real_data / "reviews_dataset.tsv.zip", labels=model.labels, say=lambda line: None
    )
    seed = int(str(model.manifest.training["seed"]))
    rows = split(reviews.classes, np.random.default_rng(seed)).held_out
    found = model.predict([reviews.texts[row] for row in rows])
    labels = np.array(reviews.labels)[reviews.classes[rows]]
    accuracy = float(np.mean(found["label"] == labels))
    assert accuracy >= ACCURACY
    assert accuracy == pytest.approx(float(str(model.manifest.metrics["accuracy"])), abs=0.002)


REVIEWS = (
    "A slow start, but the second half is gripping, the acting superb and the end unforgettable.",
    "I wanted to like it. The jokes fall flat, the plot makes no sense, and it is far too long.",
    "Charming, funny and warm; one of the best films of the year, and the music is lovely too.",
    "What a waste of a good cast: lazy writing, dull direction, and an awful, predictable twist.",
    "It is not perfect, yet I was moved to tears twice. Wonderful performances, beautifully shot.",
    "Boring. The hero mumbles, nothing happens, and I nearly fell asleep before the final scene.",
)


@pytest.mark.slow
def test_the_strongest_words_decide_at_least_as_much_as_leaving_out_each_word_finds(
    model: SentimentModel,
) -> None:
    ours, alone = 0.0, 0.0
    for text in REVIEWS:
        explained = model.explain(text)
        sign = 1 if explained.logit >= 0 else -1
        words = [span for span in explained.spans if text[span.start].isalnum()]
        logit = {span: model.explain(_without(text, [span])).logit for span in words}
        by_weight = sorted(words, key=lambda span: -span.weight * sign)[:5]
        by_leaving_out = sorted(words, key=lambda span: logit[span] * sign)[:5]
        ours += (explained.logit - model.explain(_without(text, by_weight)).logit) * sign
        alone += (explained.logit - model.explain(_without(text, by_leaving_out)).logit) * sign
        strongest = max(explained.spans, key=lambda span: abs(span.weight))
        assert text[strongest.start].isalnum()
    assert ours >= alone > 0


def _without(text: str, spans: Sequence[Span]) -> str:
    """Return a text without some of its words."""
    for span in sorted(spans, key=lambda span: -span.start):
        text = text[: span.start] + " " + text[span.end :]
    return text
