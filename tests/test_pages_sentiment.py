import json
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mlapp.families.sentiment import SentimentModel
from mlapp.loaders import load_sentiment
from mlapp.manifest import Artifact
from mlapp.service import create_app
from mlapp.settings import read_settings
from mlapp.store import artifacts, open_model
from tests.conftest import client_of, open_sentiment
from tests.test_pages import home, run, texts

pytestmark = pytest.mark.slow

GOOD = "The acting is wonderful and I loved every minute of it."
BAD = "A dull mess: I hated the story and the acting."


@pytest.fixture
def folder(every_model: Path) -> Path:
    return every_model


def page(address: dict[str, str] | None = None) -> AppTest:
    app = home()
    for key, value in (address or {}).items():
        app.query_params[key] = value
    return run(app.switch_page("pages/sentiment.py"))


def predict(app: AppTest, review: str) -> AppTest:
    app.text_area(key="review").set_value(review)
    app.button(key="predict").click()
    return run(app)


def publish_again(folder: Path) -> None:
    """Publish the model `chapter` as the next version of `sentiment`."""
    chapter = artifacts.open(folder, "chapter")
    manifest = chapter.manifest.model_copy(update={"name": "sentiment"})
    drafted = Artifact(chapter.path, manifest, chapter.files)
    artifacts.publish(folder, drafted, lambda artifact: None)


def test_home_shows_text_models_with_their_accuracy_on_unseen_texts(folder: Path) -> None:
    accuracy = open_model(folder, "topics").manifest.metrics["accuracy"]
    app = home()
    assert [card.value for card in app.header][-2:] == ["sentiment", "topics"]
    shown = app.metric[-1].label, app.metric[-1].value
    assert shown == ("Cross-validated accuracy", f"{accuracy:.1%}")
    assert "texts" in texts(app)


def test_predict_shows_the_label_its_probability_and_the_words_that_decided(folder: Path) -> None:
    app = predict(page(), GOOD)
    answer = open_sentiment(folder).predict([GOOD]).iloc[0]
    assert (app.metric[0].label, app.metric[0].value) == ("Sentiment", answer["label"])
    assert app.metric[1].label == "Probability"
    assert "<span" in app.html[0].value
    assert len(app.get("vega_lite_chart")) == 1
    assert app.dataframe[0].value["label"][0] == answer["label"]


@pytest.mark.usefixtures("folder")
def test_good_and_bad_get_different_labels() -> None:
    app = page()
    assert predict(app, GOOD).metric[0].value != predict(app, BAD).metric[0].value


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("review", ["", "  \n ", "?!"])
def test_a_text_without_a_letter_is_refused_and_nothing_is_predicted(review: str) -> None:
    app = predict(page(), review)
    assert app.error[0].proto.title == "Please enter a review"
    assert app.error[0].value.startswith("- Review: got ")
    assert "expected a text with at least one letter, digit or symbol" in app.error[0].value
    assert not app.metric


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "review", ["wonderful Handlung großartig gespielt ganz prima", "xyzzy plugh", "电影"]
)
def test_a_text_with_hardly_any_known_word_is_answered_with_a_notice(review: str) -> None:
    app = predict(page(), review)
    assert app.metric
    assert "another language" in app.warning[0].value


@pytest.mark.usefixtures("folder")
def test_a_very_long_text_is_answered_with_a_notice_and_stays_out_of_the_address() -> None:
    app = predict(page(), f"{GOOD} " * 1500)
    assert app.metric
    assert "were read" in app.info[0].value
    assert dict(app.query_params) == {"_model": "sentiment", "_version": "1"}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "review",
    [
        "<script>alert('wonderful')</script> & <b>dull</b>",
        "**wonderful** [link](http://x) `code` :red[dull] $x$",
        "wonderful \u202edull\u202c \u0645\u0645\u062a\u0627\u0632 \U0001f600 e\u0301",
        "wonderful\x00\x07dull",
    ],
)
def test_any_text_is_shown_safely(review: str) -> None:
    app = predict(page(), review)
    assert app.metric
    assert "<script" not in app.html[0].value
    assert "<b>" not in app.html[0].value


@pytest.mark.usefixtures("folder")
def test_an_example_is_answered_at_one_click() -> None:
    app = page()
    [first, *_] = load_sentiment().examples
    app.button(key="_example_0").click()
    run(app)
    assert app.text_area(key="review").value == first
    assert app.metric


@pytest.mark.usefixtures("folder")
def test_the_page_speaks_of_the_models_own_texts_labels_and_examples(folder: Path) -> None:
    app = page({"_model": "topics"})
    assert app.title[0].value == "Topics"
    assert app.text_area(key="review").label == "Message"
    assert app.button(key="predict").label == "Predict topic"
    offered = [app.button(key=f"_example_{place}").label for place in range(3)]
    assert offered == open_sentiment(folder, "topics").examples
    app = predict(app, "a fast train")
    assert (app.metric[0].label, app.metric[0].value) == ("Topic", "travel")
    shown = texts(app) + app.title[0].value + "".join(offered)
    assert not any(word in shown.lower() for word in ("film", "review", "sentiment"))


@pytest.mark.usefixtures("folder")
def test_the_history_calls_texts_as_the_models_column_is_called() -> None:
    app = predict(page({"_model": "topics"}), "a fast train")
    assert list(app.dataframe[0].value)[1:3] == ["version", "message"]
    assert app.query_params["review"] == "a fast train"


@pytest.mark.usefixtures("folder")
def test_home_and_the_plain_form_speak_of_the_models_own_texts_and_labels() -> None:
    assert "Predicts **topic**" in texts(home())
    client = client_of(create_app(read_settings()))
    form = client.get("/form?_model=topics").text
    assert "<h1>Predict topic</h1>" in form
    assert ">Message</label>" in form
    assert 'name="review"' in form
    assert "<h1>Predict sentiment</h1>" in client.get("/form?_model=sentiment").text
    assert "<h1>Predict price</h1>" in client.get("/form?_model=houses").text


@pytest.mark.usefixtures("folder")
def test_a_long_label_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_sentiment()
    long = ("a label of thirty characters..", "another label that is as long")
    monkeypatch.setattr(model, "gives", replace(model.gives, labels=long))
    monkeypatch.setattr(model, "labels", long)
    app = predict(page(), GOOD)
    assert [metric.label for metric in app.metric] == ["Probability"]
    assert "**another label that is as long**" in texts(app)


@pytest.mark.usefixtures("shipped")
def test_the_shipped_model_is_asked_for_the_sentiment_of_reviews() -> None:
    app = page()
    assert app.title[0].value == "Sentiment"
    assert app.text_area(key="review").label == "Review"
    assert app.button(key="predict").label == "Predict sentiment"
    app.button(key="_example_1").click()
    run(app)
    assert (app.metric[0].label, app.metric[0].value) == ("Sentiment", "Negative")


def test_an_answer_within_the_margin_is_shown_as_unsure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Unsure" not in texts(predict(page(), GOOD))
    model = load_sentiment()
    monkeypatch.setattr(model, "gives", replace(model.gives, margin=1.0))
    assert "Unsure" in texts(predict(page(), GOOD))


@pytest.mark.usefixtures("folder")
def test_a_link_reproduces_the_answer() -> None:
    app = predict(page(), GOOD)
    linked = {"review": GOOD, "_model": "sentiment", "_version": "1"}
    assert dict(app.query_params) == linked
    other = page(linked)
    assert other.text_area(key="review").value == GOOD
    assert [metric.value for metric in other.metric] == [metric.value for metric in app.metric]


@pytest.mark.usefixtures("folder")
def test_three_labels_are_distinguished_and_explained() -> None:
    app = predict(page({"_model": "moods"}), "we said it was furious rage again")
    assert app.metric[0].value == "angry"
    bars, words = app.get("vega_lite_chart")
    assert '"probability"' in bars.proto.spec
    spec = json.loads(words.proto.spec)
    assert spec["encoding"]["color"]["scale"]["domain"] == ["angry", "another label"]


@pytest.mark.usefixtures("folder")
def test_the_network_runs_once_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    predict_texts = SentimentModel.answer
    monkeypatch.setattr(
        SentimentModel, "answer", lambda model, t: asked.append(t) or predict_texts(model, t)
    )
    app = predict(page(), GOOD)
    app.session_state["_tabs_sentiment"] = "About this model"
    run(app)
    run(app)
    assert [batch.texts for batch in asked] == [[GOOD]]


@pytest.mark.usefixtures("folder")
def test_about_shows_what_was_measured_on_held_out_texts() -> None:
    app = page()
    app.session_state["_tabs_sentiment"] = "About this model"
    run(app)
    labels = [metric.label for metric in app.metric]
    assert labels == ["Accuracy", "Calibration error", "Log loss", "Size"]
    assert len(app.get("vega_lite_chart")) == 3
    assert list(app.dataframe[0].value["model"]) == ["majority baseline", "network"]
    formats = json.loads(app.dataframe[0].proto.columns)
    assert formats["accuracy"]["type_config"]["format"] == "percent"
    assert "on the same texts, the calibration part rather than the held-out one" in texts(app)
    assert list(app.dataframe[1].value["label"]) == ["Negative", "Positive"]


def test_a_newer_version_answers_again(folder: Path, trained_texts: Path) -> None:
    app = predict(page(), GOOD)
    publish_again(folder)
    app.button(key="predict").click()
    assert run(app).dataframe[0].value["version"][0] == 2


def test_two_versions_read_one_text_side_by_side(folder: Path) -> None:
    publish_again(folder)
    app = predict(page(), GOOD)
    app.session_state["_tabs_sentiment"] = "Compare"
    run(app)
    assert "Both say" in texts(app) or "version 1" in texts(app)
    assert len(app.html) == 3  # the page's own answer and both versions'
    assert sum(metric.label == "Probability" for metric in app.metric) == 3


def test_a_model_that_cannot_be_opened_says_why(folder: Path) -> None:
    (folder / "sentiment" / "1" / "tokenizer.json").write_text("{}")
    app = page()
    assert "tokenizer.json" in app.error[0].value
    assert "training.sentiment" in app.code[0].value


@pytest.mark.usefixtures("folder")
def test_moving_between_the_pages_keeps_both_as_they_were() -> None:
    app = predict(page(), GOOD)
    run(app.switch_page("pages/regression.py"))
    assert app.number_input(key="var_1").value == 716.0
    run(app.switch_page("pages/sentiment.py"))
    assert app.text_area(key="review").value == GOOD
    assert app.metric[0].label == "Sentiment"
