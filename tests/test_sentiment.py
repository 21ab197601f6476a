import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from mlapp.errors import ArtifactError, InvalidInput
from mlapp.families import network
from mlapp.families.contract import Explanation, Labels, replay
from mlapp.families.network import NETWORK, Head, Network
from mlapp.families.regression import RegressionModel
from mlapp.families.sentiment import SentimentModel, softmax
from mlapp.families.text import LONGEST
from mlapp.loaders import load_regression, load_sentiment
from mlapp.manifest import Artifact
from mlapp.scoring import files
from mlapp.service import create_app
from mlapp.store import artifacts, open_model
from tests.conftest import client_of, network_of, open_sentiment, run_python, use_artifacts
from training.sentiment import train

GOOD, BAD = "The film is wonderful.", "The film is awful!"
NAMES = ["sentiment", "chapter", "moods"]


@pytest.fixture(scope="module")
def model(trained_texts: Path) -> SentimentModel:
    return open_sentiment(trained_texts)


@pytest.fixture(scope="module", params=NAMES)
def each(request: pytest.FixtureRequest, trained_texts: Path) -> SentimentModel:
    return open_sentiment(trained_texts, request.param)


def some_text(model: SentimentModel, length: int = 12) -> str:
    return " ".join(filter(str.isalnum, network_of(model).vocabulary.words[2:60][:length]))


# --- predict ----------------------------------------------------------------------------------


def test_a_prediction_has_a_label_its_probability_and_one_of_each_label(
    model: SentimentModel,
) -> None:
    answer = model.predict([GOOD, BAD])
    columns = ["label", "probability", "Negative", "Positive", "tokens", "unknown"]
    assert list(answer.columns) == columns
    assert list(answer["label"]) == ["Positive", "Negative"]
    assert list(answer["probability"]) == [answer["Positive"][0], answer["Negative"][1]]
    assert list(answer["tokens"]) == [5, 5]
    assert list(answer["unknown"]) == [0, 0]


def test_probabilities_sum_to_one_and_the_label_is_the_likeliest(each: SentimentModel) -> None:
    answer = each.predict([some_text(each), some_text(each, 3), some_text(each, 30)])
    chances = answer[list(each.labels)]
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-12)
    assert list(chances.idxmax(axis=1)) == list(answer["label"])
    np.testing.assert_array_equal(chances.max(axis=1), answer["probability"])


def test_a_series_keeps_its_index(model: SentimentModel) -> None:
    assert list(model.predict(pd.Series([GOOD, BAD], index=["x", "y"])).index) == ["x", "y"]


def test_no_texts_get_no_rows(model: SentimentModel) -> None:
    answer = model.predict([])
    assert answer.shape == (0, 6)


def test_a_text_gets_the_same_answer_alone_and_among_others(each: SentimentModel) -> None:
    texts = [some_text(each, length) for length in range(3, 42)]
    together = each.predict(texts)
    for row in (0, 17, 38):
        alone = each.predict([texts[row]])
        same = together.iloc[[row]].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, same, rtol=1e-9)


def test_the_share_of_unknown_words_is_given(model: SentimentModel) -> None:
    assert model.predict(["wonderful xyzzy, quux!"])["unknown"][0] == pytest.approx(2 / 3)


def test_many_threads_get_the_answers_of_one(model: SentimentModel) -> None:
    texts = [f"{text} {extra}" for text in (GOOD, BAD) for extra in ("", "The music is dull.")]
    expected = model.predict(texts)
    start = threading.Barrier(8)

    def ask(_: int) -> bool:
        start.wait()
        return all(model.predict(texts).equals(expected) for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


def test_a_long_text_of_unknown_words_is_read_at_once(model: SentimentModel) -> None:
    """Asking the tokenizer for its spans word by word would take hours."""
    answer = model.predict(["好" * 200_000])
    assert (answer["tokens"][0], answer["unknown"][0]) == (200_000, 1)


def test_two_labels_are_unsure_from_0_4_to_0_6(model: SentimentModel) -> None:
    asked = [0.39, 0.4, 0.5, 0.6, 0.61]
    found = Labels(model.gives, np.array([[1 - chance, chance] for chance in asked])).unsure
    assert found.tolist() == [False, True, True, True, False]


def test_more_labels_are_unsure_where_the_two_likeliest_are_close(model: SentimentModel) -> None:
    shares = [[0.34, 0.33, 0.33, 0.0], [0.45, 0.2, 0.2, 0.15], [0.45, 0.4, 0.15, 0.0]]
    assert Labels(model.gives, np.array(shares)).unsure.tolist() == [True, False, True]


LABELS = ("unknown", "label", "probability", "tokens", "p_label", "probabilities", "calm")


@pytest.fixture(scope="module")
def awkward(trained_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model `awkward`, whose labels are names that answers use themselves."""
    root = tmp_path_factory.mktemp("awkward")
    rows = [
        {"sentiment": label, "review": f"word{place} says it {number}"}
        for number in range(24)
        for place, label in enumerate(LABELS)
    ]
    pd.DataFrame(rows).to_csv(root / "awkward.csv", index=False)
    train(root / "awkward.csv", name="awkward", root=root, say=lambda line: None)
    return root


def test_labels_may_be_called_as_an_answers_own_columns(
    awkward: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_artifacts(awkward, monkeypatch)
    model = load_sentiment("awkward")
    texts = [f"word{place} says it" for place in range(len(LABELS))]
    table, answers = model.predict(texts), model.answer(model.check(texts))
    assert table.columns.is_unique
    assert len(table.columns) == 4 + len(LABELS)
    posted = client_of(create_app()).post("/v1/models/awkward:predict", json={"instances": texts})
    sent = posted.json["predictions"]
    for place, row in enumerate(table.to_dict("records")):
        label = answers.labels[place]
        own = dict(zip(model.labels, answers.probabilities[place].tolist(), strict=True))
        assert row == sent[place]
        assert row["label"] == label
        assert row["probability"] == own[label] == max(own.values())
        assert row["unknown"] == answers.extras["unknown"][place]
        assert {each: row[model.gives.columns[each]] for each in model.labels} == own
    pd.DataFrame({"review": texts}).to_csv(tmp_path / "in.csv", index=False)
    files.score(model, tmp_path / "in.csv", tmp_path / "out.parquet")
    scored = pd.read_parquet(tmp_path / "out.parquet")
    assert list(scored["label"]) == answers.labels
    for place, each in enumerate(model.labels):
        assert list(scored[f"p_{each}"]) == answers.probabilities[:, place].tolist()


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "nothing"),
        ("  \n ", "nothing"),
        (None, "nothing"),
        ("?!... ,", "'?!... ,'"),
        ("\0\x07\ud800", "'"),
    ],
)
def test_what_cannot_be_classified_is_refused_with_its_row(
    model: SentimentModel, text: Any, got: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        model.predict(pd.Series([GOOD, text], index=["fine", "bad"], dtype=object))
    [fault] = caught.value.faults
    assert (fault.row, fault.input) == ("bad", "text")
    assert fault.got.startswith(got)
    assert len(str(fault)) < 250
    assert fault.allowed == "a text with at least one letter, digit or symbol"


@pytest.mark.parametrize(("value", "got"), [(5, "the number 5"), (2.5, "the number 2.5")])
def test_what_is_no_text_is_refused_with_its_row(
    model: SentimentModel, value: object, got: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        model.predict(pd.Series([GOOD, value], index=["fine", "bad"], dtype=object))
    assert str(caught.value) == f"row bad, text: got {got}, expected a text"


def test_every_refused_text_is_reported_at_once(model: SentimentModel) -> None:
    with pytest.raises(InvalidInput) as caught:
        model.predict(["", GOOD, "?!"])
    assert [fault.row for fault in caught.value.faults] == [0, 2]


@pytest.mark.parametrize(
    "text",
    ["xyzzy quux", "это кино", "电影很好看", "a" * 1000, "<br /><br />", "🙈🙉🙊", "1234567"],
)
def test_a_text_without_a_known_word_is_answered_with_a_notice(
    each: SentimentModel, text: str
) -> None:
    answers = each.answer(each.check([text]))
    [notice] = answers.notices
    assert notice.message == "text: the model knows none of the words"
    assert answers.extras["unknown"].tolist() == [1.0]
    assert_exact(each, text)


@pytest.mark.parametrize(
    "text",
    [
        "The film\0 is \x1b wonderful.",
        "The film is \ud83d wonderful.",
        "<p>The film <b>is</b> wonderful.</p>",
        "# The *film* is **wonderful**.",
        "THE FILM IS WONDERFUL.",
        "\u202eThe film is wonderful.",
    ],
)
def test_what_stands_around_words_changes_no_answer(model: SentimentModel, text: str) -> None:
    columns = ["label", "Negative", "Positive", "tokens"]
    expected = model.predict([GOOD])[columns]
    pd.testing.assert_frame_equal(model.predict([text])[columns], expected)


@pytest.mark.slow
def test_a_megabyte_of_text_is_classified_and_explained(model: SentimentModel) -> None:
    text = (f"{GOOD} " * 50_000)[:1_000_000]
    assert model.predict([text])["label"][0] == "Positive"
    assert_exact(model, text)


def test_a_text_beyond_the_limit_is_refused(model: SentimentModel) -> None:
    with pytest.raises(InvalidInput, match="2,000,001 characters, expected at most"):
        model.predict(["a" * (LONGEST + 1)])


# --- explain ----------------------------------------------------------------------------------


def assert_exact(model: SentimentModel, text: str, label: str | None = None) -> Explanation:
    """The words and the bias sum to the logit of the predicted probability."""
    found = model.explain(text, label)
    total = found.bias + sum(span.weight for span in found.spans)
    assert total == pytest.approx(found.logit, abs=1e-9)
    chances = model.predict([text])[list(model.labels)].to_numpy()[0]
    logs = np.log(chances)
    place = model.labels.index(found.label)
    if len(model.labels) == 2:
        assert found.logit == pytest.approx(logs[place] - logs[1 - place], abs=1e-4)
    else:
        assert found.logit == pytest.approx(logs[place] - logs.mean(), abs=1e-4)
    return found


def test_words_and_bias_sum_to_the_logit_of_every_label(each: SentimentModel) -> None:
    for label in (None, *each.labels):
        found = assert_exact(each, some_text(each, 30), label)
        assert found.label == (label or each.labels[-1])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["wonderful", "awful", "not", "<br />", "é", "\ud800", "😍", "!"])))
def test_explanations_are_exact_whatever_is_typed(model: SentimentModel, parts: list[str]) -> None:
    text = " ".join(["film", *parts])
    found = assert_exact(model, text)
    ends = [0, *(place for span in found.spans for place in (span.start, span.end)), len(text)]
    assert ends == sorted(ends)


@pytest.mark.parametrize("text", ["👍🏽👍🏽 done", "👍🏽🏽", "a🏽 b", "👩🏽‍🚀!", "❤️ e\u0301"])
def test_a_character_and_what_modifies_it_are_explained_together(
    each: SentimentModel, text: str
) -> None:
    found = assert_exact(each, text)
    for before, after in pairwise(found.spans):
        assert before.end <= after.start
    assert not any(text[span.start] in "🏽\ufe0f\u0301" for span in found.spans)


def test_the_explanation_points_at_the_words_as_typed(model: SentimentModel) -> None:
    text = "\ud800<br />Film:\0 WONDERFUL e\u0301!"
    spans = model.explain(text).spans
    assert [text[span.start : span.end] for span in spans] == ["Film", "WONDERFUL", "e\u0301", "!"]
    assert max(spans, key=lambda span: span.weight).start == text.index("WONDERFUL")


def test_the_word_that_decides_has_the_weight(model: SentimentModel) -> None:
    spans = model.explain(BAD).spans
    assert BAD[slice(*min((s.weight, (s.start, s.end)) for s in spans)[1])] == "awful"
    against = model.explain(BAD, "Negative").spans
    assert [s.weight for s in against] == pytest.approx([-s.weight for s in spans])


def test_a_word_counts_what_its_removal_changes(model: SentimentModel) -> None:
    spans = model.explain(f"{GOOD} {BAD}").spans
    first = max(spans, key=lambda span: span.weight)
    text = f"{GOOD} {BAD}"
    without = text[: first.start] + text[first.end :]
    before, after = (model.explain(each).logit for each in (text, without))
    assert first.weight == pytest.approx(abs(before - after), abs=0.2)


def test_punctuation_counts_nothing_of_its_own(model: SentimentModel) -> None:
    text = "Wonderful! Great, good... awful?"
    marks = [span for span in model.explain(text).spans if not text[span.start].isalpha()]
    assert len(marks) == 4
    assert {span.weight for span in marks} == {0.0}


def test_the_contributions_of_a_very_long_text_sum_to_its_logit(model: SentimentModel) -> None:
    explained = model.explain(f"{GOOD} " * 700)
    total = explained.bias + sum(span.weight for span in explained.spans)
    assert total == pytest.approx(explained.logit, abs=1e-4)
    [probability] = model.answer(model.check([f"{GOOD} " * 700])).probabilities[:, 1]
    assert math.log(probability / (1 - probability)) == pytest.approx(explained.logit, abs=1e-4)


def test_a_long_text_read_in_pieces_is_explained_exactly(
    model: SentimentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "PIECE", 7)
    text = f"{BAD} {GOOD} {GOOD} The ending is a gem. {BAD}"
    assert_exact(model, text)
    whole = model.predict([text])
    assert whole["tokens"][0] > 3 * 7


def test_the_last_state_is_never_cut_into_pieces(
    trained_texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chapter = open_sentiment(trained_texts, "chapter")
    before = chapter.predict([f"{BAD} {GOOD}"])
    monkeypatch.setattr(network, "PIECE", 3)
    pd.testing.assert_frame_equal(chapter.predict([f"{BAD} {GOOD}"]), before)


@pytest.mark.parametrize("text", ["", None, "?!"])
def test_what_cannot_be_classified_is_not_explained(model: SentimentModel, text: Any) -> None:
    with pytest.raises(InvalidInput):
        model.explain(text)


def test_a_label_that_there_is_not_is_refused(model: SentimentModel) -> None:
    with pytest.raises(InvalidInput, match="got 'Happy', expected one of 'Negative', 'Positive'"):
        model.explain(GOOD, "Happy")


# --- the artifact -----------------------------------------------------------------------------


def test_a_published_model_opens_by_its_task_and_says_how_good_it_is(trained_texts: Path) -> None:
    model = open_model(trained_texts, "moods")
    assert isinstance(model, SentimentModel)
    assert model.labels == ("angry", "calm", "glad")
    accuracy = float(str(model.manifest.metrics["accuracy"]))
    assert model.headline[:2] == ("held-out accuracy", f"{accuracy:.1%}")


def test_the_pages_loader_opens_text_classifiers_alone(
    trained_texts: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(trained_texts))
    assert load_sentiment("moods").labels == ("angry", "calm", "glad")
    assert load_sentiment() is load_sentiment()
    with pytest.raises(ArtifactError, match="not a regression"):
        load_regression("moods")
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(trained))
    with pytest.raises(ArtifactError, match="not a text classifier"):
        load_sentiment("houses")


def test_golden_texts_are_replayed(each: SentimentModel) -> None:
    replay(each)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_eight_bits_give_what_those_of_seven_give_on_every_processor(
    trained_texts: Path, name: str
) -> None:
    files = artifacts.open(trained_texts, name).files
    narrow, wide = (onnx.load_from_string(files[NETWORK]) for _ in range(2))
    for each, other in zip(narrow.graph.initializer, wide.graph.initializer, strict=True):
        value = numpy_helper.to_array(each)
        if each.name in ("W_quantized", "R_quantized"):
            # Without VNNI, a processor adds two products in 16 bits.
            assert np.abs(value.astype(int)).max() <= 64
            value = np.clip(value, -63, 63)
            each.CopyFrom(numpy_helper.from_array(value, each.name))
            other.CopyFrom(numpy_helper.from_array(value * np.int8(2), each.name))
        elif each.name in ("W_scale", "R_scale"):
            other.CopyFrom(numpy_helper.from_array(value / np.float32(2), each.name))
    of_seven, of_eight = (
        Network({**files, NETWORK: model.SerializeToString()}) for model in (narrow, wide)
    )
    readings = of_seven.read([GOOD, BAD, "Not bad at all", "It was not what I had expected"])
    assert of_eight.scores(readings) == pytest.approx(of_seven.scores(readings), abs=1e-6)


@pytest.mark.parametrize("change", [{"temperature": 9.0}, {"bias": np.array([9.0, 0.0])}])
def test_a_model_that_answers_otherwise_does_not_replay(
    trained_texts: Path, change: dict[str, Any]
) -> None:
    model = open_sentiment(trained_texts)
    network_of(model).head = replace(network_of(model).head, **change)
    with pytest.raises(ArtifactError, match=r"golden.*python -m training\.sentiment"):
        replay(model)


def test_a_head_is_read_as_it_was_written() -> None:
    head = Head(np.eye(3), np.array([0.1, 0.2, 0.3]), 1.5, "last")
    again = Head.load(head.dump())
    np.testing.assert_array_equal(again.kernel, head.kernel)
    np.testing.assert_array_equal(again.bias, head.bias)
    assert (again.temperature, again.pooling) == (1.5, "last")


def test_the_temperature_makes_answers_less_certain_and_changes_no_label(
    trained_texts: Path,
) -> None:
    model = open_sentiment(trained_texts)
    before = model.predict([GOOD, BAD])
    network_of(model).head = replace(
        network_of(model).head, temperature=2 * network_of(model).head.temperature
    )
    after = model.predict([GOOD, BAD])
    assert list(after["label"]) == list(before["label"])
    assert (after["probability"] < before["probability"]).all()


def test_the_softmax_of_huge_scores_is_finite() -> None:
    scores = np.array([[1e4, 0.0], [-1e4, -1e4]])
    np.testing.assert_allclose(softmax(scores), np.array([[1, 0], [0.5, 0.5]]))


@pytest.mark.parametrize("name", ["network.onnx", "tokenizer.json"])
def test_a_file_that_cannot_be_read_is_reported(trained_texts: Path, name: str) -> None:
    artifact = artifacts.open(trained_texts, "sentiment")
    broken = Artifact(artifact.path, artifact.manifest, {**artifact.files, name: b"broken"})
    with pytest.raises(ArtifactError, match=r"cannot be loaded.*training\.sentiment"):
        SentimentModel(broken)


def test_a_model_of_another_task_is_refused(trained_texts: Path, trained: Path) -> None:
    with pytest.raises(ArtifactError, match="not a classifier"):
        SentimentModel(artifacts.open(trained, "houses"))
    with pytest.raises(ArtifactError, match="not a regression"):
        RegressionModel(artifacts.open(trained_texts, "sentiment"))


def test_serving_imports_neither_tensorflow_nor_keras_and_rows_need_no_pandas(
    trained_texts: Path,
) -> None:
    code = f"""
import json, sys
from mlapp.loaders import load_sentiment
model = load_sentiment()
[label] = model.answer(model.check([{GOOD!r}])).labels
model.explain({GOOD!r})
assert not {{"pandas", "sklearn"}} & set(sys.modules)
assert model.predict([{GOOD!r}])["label"][0] == label
heavy = ("tensorflow", "keras", "onnx", "training", "torch")
print(json.dumps([label, [name for name in heavy if name in sys.modules]]))
"""
    assert run_python(code, trained_texts) == ["Positive", []]
