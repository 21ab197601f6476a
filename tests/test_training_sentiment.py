"""How text classifiers are trained. TensorFlow takes seconds to import: tests that need it do."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, log_loss

from mlapp.errors import ArtifactError, InvalidData
from mlapp.families.network import Network
from mlapp.families.sentiment import SentimentModel, softmax
from mlapp.families.text import Vocabulary, train_vocabulary
from mlapp.store import artifacts, open_model
from tests import small_networks
from tests.conftest import NETWORKS, network_of, no_coverage, open_sentiment
from tests.small_networks import TINY
from training import phrases
from training.calibration import fit_temperature
from training.linear import fit_linear
from training.measures import mistakes, of_labels, reliability
from training.recipes import RECIPES
from training.sentiment import main, train
from training.splits import split
from training.texts import key

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "reviews_sample.tsv"
QUICK = replace(TINY, epochs=2, rounds=(1,))
PHRASED = replace(QUICK, rounds=(), phrases=30)


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def trained_networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact folder with the small networks, trained anew."""
    root = tmp_path_factory.mktemp("trained-networks")
    with no_coverage():
        small_networks.train_all(root)
    return root


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.text_network.LEAST_STEPS", 10)


# --- the whole path ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sentiment", "chapter", "moods"])
def test_the_networks_that_tests_serve_are_what_training_publishes(
    trained_networks: Path, name: str
) -> None:
    kept, new = (open_sentiment(root, name) for root in (NETWORKS, trained_networks))
    assert kept.manifest.files.keys() == new.manifest.files.keys()
    assert kept.manifest.metrics.keys() == new.manifest.metrics.keys()
    assert kept.manifest.training == new.manifest.training
    assert kept.manifest.data == new.manifest.data
    assert network_of(kept).vocabulary.words == network_of(new).vocabulary.words


@pytest.mark.slow(20)
def test_the_network_learns_the_sample(trained_networks: Path) -> None:
    metrics = open_model(trained_networks, "sentiment").manifest.metrics
    assert float(str(metrics["accuracy"])) > 0.9


@pytest.mark.slow
def test_the_chapters_recipe_is_published_and_served_by_the_same_path(
    trained_networks: Path,
) -> None:
    chapter = open_sentiment(trained_networks, "chapter")
    assert network_of(chapter).head.pooling == "last"
    assert network_of(chapter).head.kernel.shape == (10, 2)
    assert RECIPES["chapter"].words == 1000
    assert (RECIPES["chapter"].pad_to, RECIPES["chapter"].epochs) == (1473, 5)
    assert set(chapter.predict(["The film is wonderful."])["label"]) <= {"Negative", "Positive"}


@pytest.mark.slow
def test_what_was_measured_is_published(trained_networks: Path) -> None:
    model = open_sentiment(trained_networks)
    metrics, report = model.manifest.metrics, model.report
    assert {"accuracy", "log_loss", "ece", "temperature", "keras_difference"} <= set(metrics)
    confusion = np.array(report["confusion"])
    assert confusion.sum() == metrics["held_out"]
    # A quarter of the 480, less those that have a near copy among the texts trained on.
    assert 110 < float(str(metrics["held_out"])) <= 120
    assert np.trace(confusion) / confusion.sum() == pytest.approx(metrics["accuracy"])
    assert [row["label"] for row in report["per_class"]] == ["Negative", "Positive"]
    assert sum(row["texts"] for row in report["reliability"]) == metrics["held_out"]
    assert {"loss", "accuracy", "accuracy_calibration"} == set(report["learning_curve"][0])
    assert float(str(metrics["keras_difference"])) <= 1e-4


@pytest.mark.slow
def test_the_manifest_says_how_it_was_trained(trained_networks: Path) -> None:
    manifest = open_model(trained_networks, "sentiment").manifest
    assert manifest.training["seed"] == 0
    assert manifest.training["recipe"] == json.loads(json.dumps(asdict(TINY)))
    assert manifest.data.source == "reviews_sample.tsv"
    assert manifest.data.rows == 480
    assert {"tensorflow", "keras", "onnxruntime", "tokenizers"} <= set(manifest.libraries)


@pytest.mark.slow(20)
def test_the_command_line_trains_and_says_what_it_did(
    tmp_path: Path,
    few_steps: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(RECIPES, "best", QUICK)
    unlabelled = tmp_path / "more.csv"
    pd.DataFrame({"review": ["A dull film.", "The cast is a joy."]}).to_csv(unlabelled, index=False)
    options = ["--data", str(SAMPLE), "--unlabelled", str(unlabelled), "--labels", "Bad,Good"]
    options += ["--name", "my-sentiment", "--seed", "3", "--artifacts", str(tmp_path)]
    options += ["--model", "network"]
    assert main(options) == 0
    out = capsys.readouterr().out
    assert "Read 480 texts with the labels 'Bad', 'Good'\nRead 2 texts without a label\n" in out
    assert "Keras and the exported network agree within" in out
    assert "accuracy" in out and "calibration error" in out
    manifest = open_model(tmp_path, "my-sentiment").manifest
    assert manifest.labels == ("Bad", "Good")
    assert manifest.training["command"] == (
        f"python -m training.sentiment --data {SAMPLE} --unlabelled {unlabelled}"
        " --labels Bad,Good --model network --name my-sentiment --seed 3"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "gone.csv"], "gone.csv cannot be read"),
        (["--data", str(SAMPLE), "--text-column", "words"], "no column 'words'"),
        (["--data", str(SAMPLE), "--labels", "One"], "--labels names 'One'"),
    ],
)
def test_data_that_cannot_be_trained_on_is_reported_in_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--artifacts", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert artifacts.names(tmp_path) == []


@pytest.mark.slow
def test_a_name_that_cannot_be_used_is_refused(tmp_path: Path, few_steps: None) -> None:
    with pytest.raises(ArtifactError, match="name"):
        train(SAMPLE, name="No Name", root=tmp_path, say=quiet)


@pytest.mark.nightly
@pytest.mark.slow(35)
def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    tmp_path: Path, few_steps: None
) -> None:
    made = [
        train(SAMPLE, root=tmp_path, model="network", recipe=QUICK, seed=seed, say=quiet).manifest
        for seed in (1, 1, 2)
    ]
    first, same, other = ({**each.metrics} for each in made)
    assert first == same != other
    assert made[0].files == made[1].files
    assert made[0].golden == made[1].golden
    assert [each.version for each in made] == [1, 2, 3]


@pytest.mark.slow(15)
def test_unlabelled_texts_teach_the_vocabulary(tmp_path: Path, few_steps: None) -> None:
    unlabelled = tmp_path / "more.csv"
    texts = [f"a zebra number {place}" for place in range(30)]
    pd.DataFrame({"review": texts}).to_csv(unlabelled, index=False)
    published = train(SAMPLE, unlabelled, root=tmp_path, model="network", recipe=QUICK, say=quiet)
    assert "zebra" in network_of(SentimentModel(published)).vocabulary.words
    assert published.manifest.metrics["texts_unlabelled"] == 30


@pytest.mark.slow(20)
def test_training_that_is_interrupted_publishes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.sentiment", "--data", str(SAMPLE)]
    command += ["--model", "network"]
    process = subprocess.Popen(
        [*command, "--artifacts", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stderr
    for line in process.stdout:
        if "epoch 1/" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped: nothing was published" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.slow
def test_a_network_that_is_served_otherwise_is_not_published(trained_networks: Path) -> None:
    from training.network import Shape, build
    from training.text_network import compare

    model = open_sentiment(trained_networks)
    other = build(Shape(len(network_of(model).vocabulary), 16, 12, 2))
    with pytest.raises(InvalidData, match=r"differs from Keras .* nothing was published"):
        compare(other, network_of(model), network_of(model).read(["The film is wonderful."]))


# --- the parts --------------------------------------------------------------------------------


def test_the_parts_share_no_text_and_hold_each_label_in_proportion() -> None:
    classes = np.array([0] * 100 + [1] * 300)
    parts = split(classes, np.random.default_rng(0))
    rows = [*parts.train, *parts.calibration, *parts.held_out]
    assert sorted(rows) == list(range(400))
    assert len(parts.held_out) == 100
    assert len(parts.calibration) == 20
    assert [int((classes[part] == 1).sum()) for part in (parts.held_out, parts.calibration)] == [
        75,
        15,
    ]


@pytest.mark.slow
def test_short_texts_are_pieces_of_the_whole() -> None:
    from training.text_network import Shortener

    text = "this is the first sentence here . and then a second one ? the last one ends it !"
    vocabulary = Vocabulary(train_vocabulary([text], 100, 1))
    ids = vocabulary.read(text).ids
    shortener = Shortener(vocabulary, RECIPES["best"], np.random.default_rng(0))
    words = [[vocabulary.words[i] for i in shortener.short(ids)] for _ in range(200)]
    found = {" ".join(each) for each in words}
    assert all(each in text for each in found)
    assert {"this is the first sentence here .", "the last one ends it !"} <= found
    assert len(shortener.stretch(np.arange(2, 1000))) == RECIPES["best"].longest


@pytest.mark.slow
def test_batches_hold_every_text_once_and_texts_of_similar_length() -> None:
    from training.network import batches

    lengths = np.random.default_rng(0).integers(1, 400, 1000)
    texts = [np.ones(length, dtype=np.int64) for length in lengths]
    found = list(batches(texts, 10, np.random.default_rng(1)))
    assert sorted(np.concatenate(found)) == list(range(1000))
    assert np.mean([np.ptp(lengths[rows]) for rows in found]) < 20


@pytest.mark.slow
def test_padding_changes_no_score() -> None:
    from training.network import Shape, build, pad, score

    network = build(Shape(50, 8, 6, 2))
    ids = [np.array([5, 6, 7]), np.arange(2, 40)]
    alone = np.vstack([network(pad([each])).numpy() for each in ids])
    np.testing.assert_allclose(score(network, ids), alone, atol=1e-6)
    np.testing.assert_allclose(network(pad(ids, 60)).numpy(), alone, atol=1e-6)


def test_word_vectors_bring_words_together_that_stand_in_the_same_places() -> None:
    from training.vectors import train_vectors

    random = np.random.default_rng(0)
    # Words 2 and 3 stand among 10 to 19, and 4 and 5 among 20 to 29.
    texts = []
    for _ in range(4000):
        group = int(random.integers(2))
        around = random.integers(10 + 10 * group, 20 + 10 * group, 8)
        texts.append(np.insert(around, 4, 2 + 2 * group + random.integers(2)))
    made = train_vectors(texts, 30, 8, 3, 0)
    assert made.shape == (30, 8)
    assert (made[0] == 0).all()
    unit = made[2:6] / np.linalg.norm(made[2:6], axis=1, keepdims=True)
    alike = unit @ unit.T
    assert alike[0, 1] > alike[0, 2] and alike[2, 3] > alike[2, 1]
    np.testing.assert_array_equal(made, train_vectors(texts, 30, 8, 3, 0))


@pytest.mark.parametrize("count", [2, 3])
def test_the_linear_teacher_knows_word_pairs(count: int) -> None:
    random = np.random.default_rng(0)
    # The label is told by which of a few pairs stands in the text, and by no word alone.
    pairs = {0: [(2, 3), (4, 5)], 1: [(3, 2), (5, 4)], 2: [(2, 5), (4, 3)]}
    texts, labels = [], []
    for place in range(300):
        label = place % count
        noise = random.integers(10, 30, 6)
        texts.append(np.insert(noise, 3, pairs[label][random.integers(2)]))
        labels.append(label)
    teacher = fit_linear(texts[:200], np.array(labels[:200]), count)
    chances = teacher.predict(texts[200:])
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert np.mean(chances.argmax(axis=1) == labels[200:]) > 0.95


# --- measuring --------------------------------------------------------------------------------


def test_the_metrics_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, 500)
    chances = softmax(2 * np.eye(3)[classes] + random.normal(0, 1.5, (500, 3)))
    metrics = of_labels(classes, chances)
    report = mistakes(["a", "b", "c"], classes, chances)
    assert metrics["log_loss"] == pytest.approx(log_loss(classes, chances))
    expected = confusion_matrix(classes, chances.argmax(axis=1))
    np.testing.assert_array_equal(report["confusion"], expected)
    assert metrics["accuracy"] == pytest.approx(np.trace(expected) / 500)
    for place, row in enumerate(report["per_class"]):
        assert row["recall"] == pytest.approx(expected[place, place] / expected[place].sum())
        assert row["precision"] == pytest.approx(expected[place, place] / expected[:, place].sum())
    assert json.dumps(report)


def test_the_calibration_error_is_the_distance_of_confidence_and_accuracy() -> None:
    chances = np.array([[0.9, 0.1]] * 10 + [[0.3, 0.7]] * 10)
    classes = np.array([0] * 8 + [1] * 2 + [1] * 7 + [0] * 3)
    bins, error = reliability(classes, chances)
    assert error == pytest.approx(0.5 * 0.1 + 0.5 * 0)
    assert [(row["texts"], row["accuracy"]) for row in bins] == [(10, 0.7), (10, 0.8)]


def test_a_certain_answer_falls_into_the_last_bin() -> None:
    bins, error = reliability(np.array([0]), np.array([[1.0, 0.0]]))
    assert (bins[0]["upper"], error) == (1.0, 0.0)


def test_the_temperature_undoes_overconfidence() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(0, 2, (20_000, 2))
    classes = (random.random(20_000) < softmax(scores)[:, 1]).astype(int)
    assert fit_temperature(3 * scores, classes) == pytest.approx(3, rel=0.05)


def test_a_few_texts_that_are_all_told_apart_make_no_answer_certain() -> None:
    scores = np.array([[2.0, -2.0], [-2.0, 2.0]] * 12)
    temperature = fit_temperature(scores, np.array([0, 1] * 12))
    assert softmax(scores / temperature).max() == pytest.approx(25 / 26, abs=1e-3)


def test_the_temperature_of_many_labels_of_few_rows_leaves_calibrated_answers_as_they_are() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(0, 3, (800, 100))
    classes = np.array([random.choice(100, p=chances) for chances in softmax(scores)])
    temperature = fit_temperature(scores, classes)
    assert temperature == pytest.approx(1, rel=0.05)
    assert reliability(classes, softmax(scores / temperature))[1] < 0.05


@pytest.mark.nightly
@pytest.mark.slow(12)
def test_film_phrases_are_mixed_in_where_they_are_asked_for_alone(
    tmp_path: Path, few_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    make = phrases.make_phrases
    monkeypatch.setattr(
        "training.text_network.make_phrases",
        lambda count, seed: asked.append(count) or make(count, seed),
    )
    monkeypatch.setattr("training.text_network.PHRASES", 50)
    for film_phrases in (False, True):
        made = train(
            SAMPLE,
            root=tmp_path,
            model="network",
            recipe=PHRASED,
            film_phrases=film_phrases,
            say=quiet,
        ).manifest
        assert made.training["film_phrases"] is film_phrases
    assert asked == [0, 50]


def test_film_phrases_need_labels_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="got the labels 'Bad', 'Good', expected 'Negative'"):
        train(SAMPLE, root=tmp_path, labels=["Bad", "Good"], film_phrases=True, say=quiet)


@pytest.mark.nightly
@pytest.mark.slow
def test_the_held_out_part_chooses_nothing(
    tmp_path: Path, few_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []
    scores = Network.scores
    monkeypatch.setattr(
        Network,
        "scores",
        lambda network, read: scored.append(len(read)) or scores(network, read),
    )
    made = train(SAMPLE, root=tmp_path, model="network", recipe=QUICK, say=quiet)
    metrics = made.manifest.metrics
    held_out = int(float(str(metrics["held_out"])))
    assert scored.count(held_out) == 1


# --- sentences of our own -----------------------------------------------------------------------


@pytest.mark.slow
def test_no_sentence_of_our_own_has_both_labels() -> None:
    from training.text_network import PHRASES

    made, labels = phrases.make_phrases(PHRASES, 0)
    found = {
        label: {key(text) for text, own in zip(made, labels, strict=True) if own == label}
        for label in (0, 1)
    }
    assert len(found[0]) > 10_000 and len(found[1]) > 10_000
    assert not found[0] & found[1]


@pytest.mark.slow
def test_the_one_liners_that_judge_the_film_model_are_not_among_our_own_sentences() -> None:
    from training.text_network import PHRASES

    own, _ = phrases.make_phrases(PHRASES, 0)
    judging = pd.read_csv(Path(__file__).with_name("one_liners.tsv"), sep="\t").text
    in_own, in_judging = (
        {" ".join(re.findall(r"[\w']+", text.casefold())) for text in texts}
        for texts in (own, judging)
    )
    assert in_own.isdisjoint(in_judging)


def test_the_alternatives_of_an_opinion_are_complete() -> None:
    for _, text in phrases.read_opinions():
        assert not set("[]|") & set(phrases.ALTERNATIVES.sub("", text)), text
