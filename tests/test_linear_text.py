"""The linear model of texts: its units, its scores, its reasons, and every way in."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlapp.cli import main
from mlapp.errors import ArtifactError
from mlapp.families import contract
from mlapp.families.contract import Explanation, replay
from mlapp.families.linear_text import LINEAR, LinearText, Terms
from mlapp.families.sentiment import SentimentModel
from mlapp.families.units import Reader
from mlapp.manifest import Artifact
from mlapp.service import create_app
from mlapp.store import artifacts
from tests.conftest import client_of, open_sentiment, quiet, run_python, use_artifacts
from training.sentiment import train
from training.splits import sign

TRAVEL = "we bought a ticket for the train"


@pytest.fixture(scope="module")
def model(trained_topics: Path) -> SentimentModel:
    return open_sentiment(trained_topics, "topics")


def units(text: str) -> list[str]:
    return [text[start:end] for start, end in Reader().read(text).spans.tolist()]


# --- units and n-grams ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't go: 10/10! <br />☺", ["Don't", "go", "10/10", "!", "☺"]),
        ("电影很好。", ["电", "影", "很", "好", "。"]),
        ("とてもデータ", ["と", "て", "も", "デ", "ー", "タ"]),
        ("ดีมาก", ["ดี", "ม", "า", "ก"]),
        ("영화가 좋다", ["영화가", "좋다"]),
        ("فيلم رائع", ["فيلم", "رائع"]),
        ("सुंदर फ़िल्म", ["सुंदर", "फ़िल्म"]),
        ("电影movie好", ["电", "影", "movie", "好"]),
        ("😀👍🏽", ["😀", "👍", "🏽"]),
        ("?", ["?"]),
        ("<br />", []),
    ],
)
def test_a_unit_is_a_word_or_where_there_are_no_spaces_a_character(
    text: str, expected: list[str]
) -> None:
    assert units(text) == expected


def test_composed_and_decomposed_letters_and_either_case_are_the_same() -> None:
    reader = Reader()
    one, other = (reader.read(unicodedata.normalize(form, "Café CAFÉ")) for form in ("NFC", "NFD"))
    np.testing.assert_array_equal(one.hashes, other.hashes)
    assert one.hashes[0] == one.hashes[1]


def test_n_grams_are_runs_of_units_and_pieces_of_words() -> None:
    read = Reader().read("a big cat")
    assert read.pieces == 3 + 2 + 1
    assert list(zip(read.first[:6], read.length[:6], strict=True)) == [
        (0, 1),
        (1, 1),
        (2, 1),
        (0, 2),
        (1, 2),
        (0, 3),
    ]
    # " b", "bi", "ig", "g ", then three, four and five characters, of either long word.
    assert len(read.hashes) - read.pieces == 2 * (4 + 3 + 2 + 1)
    assert set(read.first[6:]) == {1, 2}
    assert len(np.unique(read.hashes)) == len(read.hashes)


@given(st.text(st.characters(exclude_categories=[]), max_size=40))
def test_spans_are_ordered_apart_and_inside_whatever_is_typed(text: str) -> None:
    read = Reader().read(text)
    flat = read.spans.ravel()
    assert (flat >= 0).all() and (flat <= len(text)).all()
    assert (np.diff(flat) >= 0).all() and (read.spans[:, 0] < read.spans[:, 1]).all()
    assert (read.first + read.length <= len(read.spans)).all()


# --- scores and reasons -----------------------------------------------------------------------


def explain_exactly(model: SentimentModel, text: str, label: str) -> Explanation:
    """Explain a label, and hold the sum to the logit of the answer."""
    found = model.explain(text, label)
    assert found.bias + sum(span.weight for span in found.spans) == pytest.approx(found.logit)
    chances = model.predict([text])[list(model.labels)].to_numpy()[0]
    logs, place = np.log(chances), model.labels.index(label)
    expected = logs[place] - (logs.mean() if len(logs) > 2 else logs[1 - place])
    assert found.logit == pytest.approx(expected, abs=1e-6)
    return found


def two_terms(labels: int) -> LinearText:
    """A model that knows the words "good" and "bad"."""
    hashes = np.array([Reader().read(word).hashes[0] for word in ("good", "bad")])
    order = np.argsort(hashes)
    weights = np.array([[2.0], [-3.0]] if labels == 2 else np.eye(2, labels), dtype=np.float32)
    terms = Terms(hashes[order], np.ones(2, dtype=np.float32))
    return LinearText(terms, weights[order], np.zeros(weights.shape[1]))


def test_a_score_is_the_weighted_sum_of_the_known_terms() -> None:
    model = two_terms(2)
    [only_good, both, nothing] = model.scores(model.read(["good", "good bad", "zzz"]))
    assert only_good[1] - only_good[0] == pytest.approx(2)
    assert both[1] - both[0] == pytest.approx((2 - 3) / np.sqrt(2))
    assert nothing.tolist() == [0, 0]


def test_a_model_is_read_as_it_was_written() -> None:
    model = two_terms(3)
    model.temperature = 2.5
    again = LinearText.load(model.dump())
    texts = model.read(["good", "bad bad good"])
    np.testing.assert_array_equal(again.scores(texts), model.scores(texts))
    with pytest.raises(ValueError, match="weights of shape"):
        LinearText(model.terms, model.weights[:1], model.bias)


@pytest.mark.slow
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_reasons_sum_to_the_logit_of_every_label_whatever_is_typed(
    model: SentimentModel, text: str
) -> None:
    for label in model.labels:
        explain_exactly(model, f"{TRAVEL} {text}", label)


def test_the_words_that_tell_the_topic_have_the_weight(model: SentimentModel) -> None:
    found = explain_exactly(model, TRAVEL, "travel")
    strongest = sorted(found.spans, key=lambda span: -span.weight)[:2]
    assert {TRAVEL[span.start : span.end] for span in strongest} == {"ticket", "train"}


def test_a_text_gets_the_same_answer_alone_and_among_others(model: SentimentModel) -> None:
    texts = [TRAVEL, "bread and butter", "🎻", "a song for 电影"]
    together = model.predict(texts)
    for place, text in enumerate(texts):
        alone = model.predict([text])
        pd.testing.assert_frame_equal(alone, together.iloc[[place]].reset_index(drop=True))


@pytest.mark.parametrize(
    "text",
    ["电影很好看", "とても楽しい", "ดีมาก", "فيلم رائع", "😀😀", "σπίτι", "12345", "a" * 1000],
)
def test_a_language_never_seen_is_answered_with_a_notice(model: SentimentModel, text: str) -> None:
    answers = model.answer(model.check([text, TRAVEL]))
    assert [notice.row for notice in answers.notices] == [0]
    assert answers.notices[0].detail == "the model knows none of the words"
    explain_exactly(model, text, "food")


@pytest.mark.slow
def test_a_text_of_a_million_characters_is_answered_and_explained(model: SentimentModel) -> None:
    text = (f"{TRAVEL} " * 40_000)[:1_000_000]
    assert model.predict([text])["label"][0] == "travel"
    explain_exactly(model, text, "travel")


def test_a_request_with_too_many_tokens_is_answered_and_not_explained(
    trained_topics: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(contract, "MOST_EXPLAINED", 13)
    use_artifacts(trained_topics, monkeypatch)
    client, sent = client_of(create_app()), {"instances": [TRAVEL, TRAVEL]}
    assert client.post("/v1/models/topics:predict", json=sent).status_code == 200
    refused = client.post("/v1/models/topics:explain", json=sent)
    assert refused.status_code == 422
    message = "text: got 14 tokens to explain, expected at most 13 in all texts of a request"
    assert message in refused.text
    alone = client.post("/v1/models/topics:explain", json={"instances": [TRAVEL]})
    assert alone.status_code == 200
    # The texts of a file are explained one by one.
    (tmp_path / "in.csv").write_text(f"text\n{TRAVEL}\n{TRAVEL}\n")
    options = ["--model", "topics", "--output", str(tmp_path / "out.csv"), "--explain"]
    assert main(["score", str(tmp_path / "in.csv"), *options]) == 0
    assert pd.read_csv(tmp_path / "out.csv")["words"].notna().all()


# --- every way in -----------------------------------------------------------------------------


def test_it_is_served_without_scikit_learn(trained_topics: Path) -> None:
    code = f"""
import json, sys
from mlapp.loaders import load_sentiment
model = load_sentiment("topics")
batch = model.check([{TRAVEL!r}])
model.reasons(batch).records()
heavy = ("sklearn", "scipy", "tensorflow", "training", "pandas")
print(json.dumps([model.answer(batch).labels, [name for name in heavy if name in sys.modules]]))
"""
    assert run_python(code, trained_topics) == [["travel"], []]


def test_every_way_in_gives_the_same_answer_and_reasons(
    model: SentimentModel,
    trained_topics: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_artifacts(trained_topics, monkeypatch)
    client = client_of(create_app())
    [answer] = model.predict([TRAVEL]).to_dict("records")
    explained = model.explain(TRAVEL, "travel")
    v1 = "/v1/models/topics"
    assert client.post(f"{v1}:predict", json={"instances": [TRAVEL]}).json["predictions"] == [
        answer
    ]
    sent = client.post(f"{v1}:explain", json={"instances": [TRAVEL]}).json["explanations"][0]
    assert (sent["label"], sent["logit"]) == ("travel", explained.logit)
    assert [each["weight"] for each in sent["spans"]] == [each.weight for each in explained.spans]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [TRAVEL]}
    outputs = client.post("/v2/models/topics/infer", json={"inputs": [tensor]}).json["outputs"]
    assert {each["name"]: each["data"] for each in outputs}["label"] == ["travel"]
    assert client.get("/v2/models/topics").json["platform"] == "numpy"
    assert "travel" in client.post("/predict?_model=topics", data={"review": TRAVEL}).text
    (tmp_path / "in.csv").write_text(f"text\n{TRAVEL}\n\n电影\n")
    options = ["--model", "topics", "--output", str(tmp_path / "out.csv"), "--explain"]
    assert main(["score", str(tmp_path / "in.csv"), *options]) == 0
    scored = pd.read_csv(tmp_path / "out.csv")
    assert scored["label"][0] == "travel"
    assert scored["p_travel"][0] == pytest.approx(answer["travel"])
    assert json.loads(scored["words"][0])[0][0] in ("ticket", "train")
    assert scored["notice"].iloc[-1] == "text: the model knows none of the words"
    capsys.readouterr()
    assert main(["predict", TRAVEL, "--model", "topics"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("label: travel")
    assert all(label in said for label in model.labels)


def test_an_exported_folder_needs_no_scikit_learn(
    trained_topics: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_artifacts(trained_topics, monkeypatch)
    out = tmp_path / "topics"
    assert main(["export", "topics", "--to", "mlflow", "--out", str(out)]) == 0
    needed = (out / "requirements.txt").read_text()
    assert "tokenizers" in needed and "scikit-learn" not in needed


def test_golden_texts_are_replayed_and_a_damaged_file_is_refused(
    model: SentimentModel, trained_topics: Path
) -> None:
    replay(model)
    artifact = artifacts.open(trained_topics, "topics")
    broken = Artifact(artifact.path, artifact.manifest, {**artifact.files, LINEAR: b"broken"})
    with pytest.raises(ArtifactError, match=r"cannot be loaded.*training\.sentiment"):
        SentimentModel(broken)


# --- texts in any script ----------------------------------------------------------------------

SCRIPTS = {
    "Chinese": ("这部电影很好看", "这部电影很难看", "我们昨天去了"),
    "Japanese": ("とても楽しい映画", "とても退屈な映画", "昨日みました"),
    "Thai": ("หนังดีมาก", "หนังแย่มาก", "เมื่อวานนี้"),
    "Arabic": ("فيلم رائع وجميل", "فيلم سيئ وممل", "شاهدناه بالأمس"),
    "Hebrew": ("סרט נפלא ויפה", "סרט גרוע ומשעמם", "ראינו אתמול"),
    "emoji": ("😀👍🎉", "😡👎💩", "🎬🍿🎥🎭🎪🎨"),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_texts_of_any_script_are_learned_and_explained_from_their_characters(
    script: str, tmp_path: Path
) -> None:
    good, bad, filler = SCRIPTS[script]
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for place in range(60):
        said = (good, bad)[place % 2]
        around = "".join(random.permutation(list(filler))[:4])
        rows.append({"text": f"{around} {said}", "label": ("good", "bad")[place % 2]})
    pd.DataFrame(rows).to_csv(tmp_path / "data.csv", index=False)
    made = train(
        tmp_path / "data.csv",
        name="any",
        root=tmp_path / "artifacts",
        text_column="text",
        label_column="label",
        say=quiet,
    )
    model = SentimentModel(made)
    assert float(str(made.manifest.metrics["accuracy"])) > 0.9
    answers = model.answer(model.check([good, bad]))
    assert answers.labels == ["good", "bad"]
    assert not answers.notices
    found = explain_exactly(model, good, "good")
    assert max(found.spans, key=lambda span: span.weight).weight > 0
    assert all(span.end <= len(good) for span in found.spans)


def test_near_copies_have_nearly_equal_signatures() -> None:
    reader = Reader()
    text = " ".join(f"word{place}" for place in range(60))
    whole, edited, other = (
        sign(reader.read(each)) for each in (text, f"{text} indeed", text[::-1])
    )
    assert np.mean(whole == edited) > 0.8
    assert np.mean(whole == other) < 0.2
