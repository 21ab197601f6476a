"""Training on any texts: which model is chosen, what judges it, and what cannot be learned from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlapp.cli import main as command_line
from mlapp.errors import InvalidData
from mlapp.families.linear_text import LINEAR
from mlapp.families.network import NETWORK
from mlapp.families.sentiment import SentimentModel, share_unknown
from mlapp.manifest import Artifact
from mlapp.model_card import write_card
from mlapp.records import reference
from mlapp.records import writer as records
from mlapp.records.bins import Series, binnings
from mlapp.store import artifacts
from mlapp.store.gate import compare_held_out
from mlapp.store.learned import fingerprint
from tests.conftest import make_topics, quiet, use_artifacts
from tests.small_networks import TINY
from tests.test_retrain import ask, judge
from training import plan, progress, text_linear
from training.plan import split_texts
from training.recipes import Options
from training.sentiment import main, train
from training.splits import count_copies, folds, group, loosen, split
from training.text_candidates import fit_candidates
from training.text_choice import Candidate, choose
from training.text_linear import count
from training.texts import read_reviews

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "reviews_sample.tsv"


def publish(folder: Path, frame: pd.DataFrame, **options: Any) -> Artifact:
    """Train on texts and labels in the columns `review` and `sentiment`."""
    path = folder / "data.csv"
    frame.to_csv(path, index=False)
    return train(path, root=folder / "artifacts", **{"say": quiet, **options})


def topics(rows: int = 60) -> pd.DataFrame:
    return make_topics(rows).rename(columns={"message": "review", "topic": "sentiment"})


def accuracy(made: Artifact) -> float:
    return float(str(made.manifest.metrics["accuracy"]))


# --- which model is published -----------------------------------------------------------------


def candidate(name: str, right: Sequence[int], baseline: bool = False) -> Candidate:
    """A candidate that gives the label 1 to the texts of some places, and 0 to 100 in all."""
    found = np.tile([1.0, 0.0], (100, 1))
    found[list(right)] = [0.0, 1.0]
    return Candidate(name, found, baseline)


@pytest.mark.parametrize(
    ("fast", "slow", "chosen"),
    [
        (range(80), range(95), "slow"),
        (range(95), range(80), "fast"),
        (range(90), range(90), "fast"),
        # One text more is within one standard error of the difference, four are not.
        (range(90), range(91), "fast"),
        (range(90), range(94), "slow"),
    ],
)
def test_the_fastest_within_one_standard_error_of_the_best_is_chosen(
    fast: Sequence[int], slow: Sequence[int], chosen: str
) -> None:
    baseline = candidate("majority baseline", range(100), baseline=True)
    found = [baseline, candidate("fast", fast), candidate("slow", slow)]
    assert choose(found, np.ones(100, dtype=np.int64)) == chosen


def test_few_texts_are_learned_by_the_linear_model_in_folds(tmp_path: Path) -> None:
    said: list[str] = []
    made = publish(tmp_path, topics(), say=said.append)
    assert LINEAR in made.files and NETWORK not in made.files
    assert made.manifest.training["chosen"] == "linear"
    assert made.manifest.training["folds"] == 10
    assert made.manifest.metrics["held_out"] == 60
    compared = json.loads(made.files["report.json"])["compared"]
    assert [row["model"] for row in compared] == ["majority baseline", "linear"]
    assert [row["published"] for row in compared] == [False, True]
    assert compared[0]["accuracy"] == pytest.approx(1 / 3)
    assert any(
        line.startswith("Only the linear model is trained: from fewer than 10,000 texts")
        for line in said
    )


@pytest.mark.slow(12)
def test_many_texts_are_learned_by_the_linear_model_and_the_network_and_all_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "NETWORK_FROM", 400)
    monkeypatch.setattr("training.text_network.LEAST_STEPS", 10)
    said: list[str] = []
    made = train(SAMPLE, root=tmp_path, recipe=TINY, say=said.append)
    compared = json.loads(made.files["report.json"])["compared"]
    assert [row["model"] for row in compared] == ["majority baseline", "linear", "network"]
    [published] = [row["model"] for row in compared if row["published"]]
    assert made.manifest.training["chosen"] == published
    assert sum(line.startswith("  linear: ") or "  network: " in line for line in said) == 2
    assert (NETWORK in made.files) == (published == "network")


@pytest.mark.slow
def test_the_linear_model_alone_may_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "NETWORK_FROM", 400)
    made = train(SAMPLE, root=tmp_path, model="linear", say=quiet)
    assert LINEAR in made.files
    assert 110 < float(str(made.manifest.metrics["held_out"])) <= 120
    assert made.manifest.training["held_out"] == 0.25
    assert accuracy(made) > 0.9


@pytest.mark.slow
def test_texts_that_say_nothing_about_their_labels_are_no_better_than_the_baseline(
    tmp_path: Path,
) -> None:
    frame = topics(90)
    frame["sentiment"] = np.random.default_rng(1).permutation(["x"] * 60 + ["y"] * 30)
    said: list[str] = []
    made = publish(tmp_path, frame, say=said.append)
    assert any("no better than always predicting" in line for line in said)
    assert made.manifest.metrics["baseline_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_linear_model(tmp_path: Path) -> None:
    first, same = (publish(tmp_path, topics()) for _ in range(2))
    assert first.files == same.files


def test_many_texts_are_told_beforehand_how_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (text_linear, progress):
        monkeypatch.setattr(module, "MANY", 50)
    monkeypatch.setattr("training.sentiment.MANY", 50)
    said: list[str] = []
    publish(tmp_path, topics(), say=said.append)
    place = next(i for i, line in enumerate(said) if "linear model takes about" in line)
    assert place < said.index("Fitting the linear model")


@pytest.mark.slow
def test_of_more_texts_than_memory_holds_a_part_is_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = topics(120)
    size = int(frame["review"].str.len().sum())
    monkeypatch.setattr(text_linear, "MOST_CHARACTERS", size // 2)
    found = count(list(frame["review"])).counts
    assert 50 <= sum(each is not None for each in found) <= 70
    made = publish(tmp_path, frame)
    assert made.manifest.metrics["held_out"] == 120
    assert accuracy(made) > 0.9


# --- labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 1], ("0", "1")),
        ([1.0, 0.0], ("0", "1")),
        ([10, 2, -1.5], ("-1.5", "2", "10")),
        ([True, False], ("False", "True")),
        (["2024-02-01", "2023-12-31"], ("2023-12-31", "2024-02-01")),
        (["neg", "pos"], ("neg", "pos")),
        (["v1.0", "v1.10"], ("v1.0", "v1.10")),
        (["?", "  two words ", "ja/nein", "很好"], ("?", "ja/nein", "two words", "很好")),
        (["label", "probability", "text"], ("label", "probability", "text")),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_labels_of_any_kind_stay_as_they_are(
    tmp_path: Path, values: list[object], labels: tuple[str, ...], suffix: str
) -> None:
    frame = topics(60)
    frame["sentiment"] = pd.Series([values[place % len(values)] for place in range(60)])
    path = tmp_path / f"data.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    assert read_reviews(path, say=quiet).labels == labels


def test_dates_are_days_in_every_format(tmp_path: Path) -> None:
    frame = topics(60)
    frame["sentiment"] = pd.to_datetime([f"2024-0{1 + place % 2}-01" for place in range(60)])
    frame.to_parquet(tmp_path / "data.parquet")
    frame.to_excel(tmp_path / "data.xlsx", index=False)
    for name in ("data.parquet", "data.xlsx"):
        labels = read_reviews(tmp_path / name, say=quiet).labels
        assert labels == ("2024-01-01", "2024-02-01")


def test_0_and_1_are_told_apart_without_a_word_about_films(tmp_path: Path) -> None:
    frame = topics(60)
    frame = frame[frame["sentiment"] != "food"]
    frame["sentiment"] = (frame["sentiment"] == "travel").astype(int)
    made = publish(tmp_path, frame)
    model = SentimentModel(made)
    assert model.labels == ("0", "1")
    assert not any("film" in text for text in model.examples)
    assert model.predict(["a ticket for the train"])["label"][0] == "1"


def test_no_word_of_a_single_text_is_published(tmp_path: Path) -> None:
    frame = topics(60)
    frame["review"] = [f"customer{place}@{topic}" for place, topic in enumerate(frame["sentiment"])]
    made = publish(tmp_path, frame)
    assert "customer" not in (made.path / "manifest.json").read_text(encoding="utf-8")


def test_words_that_nobody_writes_are_no_examples(tmp_path: Path) -> None:
    frame = topics(60)
    frame["review"] += " " + 50 * frame["sentiment"]
    made = publish(tmp_path, frame)
    texts = [
        *SentimentModel(made).examples,
        *(str(each.input["text"]) for each in made.manifest.golden),
    ]
    assert max(len(word) for text in texts for word in text.split()) <= 40


@pytest.mark.slow(6)
def test_the_answers_of_a_hundred_labels_of_eight_texts_are_as_certain_as_they_are_right(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(0)
    rows = []
    for place in range(800):
        words = [f"{place % 100}x{random.integers(5)}", *random.integers(0, 300, 6).astype(str)]
        rows.append({"sentiment": f"label {place % 100}", "review": " word".join(words)})
    made = publish(tmp_path, pd.DataFrame(rows))
    assert accuracy(made) > 0.95
    assert float(str(made.manifest.metrics["ece"])) < 0.05


@pytest.mark.nightly
@pytest.mark.slow(17)
def test_five_hundred_labels_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "FEWER_FOLDS", 2)
    rows = [
        {"sentiment": f"label {label}", "review": f"{label} {chr(97 + copy)}"}
        for label in range(500)
        for copy in range(5)
    ]
    made = publish(tmp_path, pd.DataFrame(rows))
    model = SentimentModel(made)
    assert len(model.labels) == 500
    assert made.manifest.training["folds"] == 2
    assert accuracy(made) > 0.95
    answers = model.answer(model.check(["321 z"]))
    assert answers.labels == ["label 321"]
    assert model.explain("321 z", "label 321").logit > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentiment": "x"}, "one label only, 'x'"),
        ({"sentiment": ["rare", *["x", "y"] * 29, "x"]}, "1 usable text labelled 'rare'"),
        ({"review": ""}, "no usable text with a label"),
        ({"review": " ?! "}, "no usable text with a label"),
        ({"review": "the same text"}, "0 usable texts labelled 'food'"),
    ],
)
def test_texts_that_teach_nothing_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidData, match=message):
        publish(tmp_path, topics(60).assign(**change))
    assert artifacts.names(tmp_path / "artifacts") == []


def test_texts_that_nearly_all_are_the_same_are_learned_from(tmp_path: Path) -> None:
    text = "this is always the very same text with nothing but a number at its end"
    frame = topics(60)
    frame["review"] = [f"{text} {place}" for place in range(60)]
    assert 0 <= accuracy(publish(tmp_path, frame)) <= 1


def test_texts_of_markup_alone_get_the_shares_of_the_labels(tmp_path: Path) -> None:
    frame = topics(60)
    frame["review"] = [f"<b{'r' * place} />" for place in range(60)]
    model = SentimentModel(publish(tmp_path, frame))
    chances = model.predict(["anything at all"])[list(model.labels)].to_numpy()[0]
    np.testing.assert_allclose(chances, 1 / 3, atol=0.02)


@pytest.mark.slow
def test_a_text_of_a_million_characters_is_learned_from(tmp_path: Path) -> None:
    frame = topics(30)
    frame.loc[0, "review"] = ("bread soup " * 100_000)[:1_000_000]
    assert accuracy(publish(tmp_path, frame)) > 0.8


@pytest.mark.parametrize(
    ("names", "words"),
    [({"food": "neg", "music": "pos"}, ("review", "sentiment")), ({}, ("text", "label"))],
)
def test_a_folder_is_of_reviews_if_its_labels_are_those_of_the_film_reviews(
    tmp_path: Path, names: dict[str, str], words: tuple[str, str]
) -> None:
    frame = topics()
    for place, (text, label) in enumerate(zip(frame["review"], frame["sentiment"], strict=True)):
        if label != "travel":
            folder = tmp_path / "data" / "train" / names.get(label, label)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{place}.txt").write_text(text)
    made = train(tmp_path / "data", root=tmp_path / "artifacts", say=quiet)
    assert SentimentModel(made).wording == words


def test_labels_of_several_lines_are_said_on_one(tmp_path: Path) -> None:
    frame = topics().replace("food", "fo\nod")
    said: list[str] = []
    publish(tmp_path, frame, say=said.append)
    assert not any("\n" in line for line in said)
    assert "Read 60 texts with the labels 'fo\\nod', 'music', 'travel'" in said


def test_labels_without_a_name_among_the_commas_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics().to_csv(tmp_path / "data.csv", index=False)
    options = ["--data", str(tmp_path / "data.csv"), "--artifacts", str(tmp_path)]
    assert main([*options, "--labels", " ,,"]) == 1
    assert "--labels: got ' ,,', expected names separated by commas" in capsys.readouterr().err


# --- examples ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_examples_are_words_typical_of_the_labels_and_no_text_that_was_learned_from(
    tmp_path: Path,
) -> None:
    frame = topics(120)
    model = SentimentModel(publish(tmp_path, frame))
    assert len(model.examples) == 3
    assert list(model.predict(model.examples)["label"]) == ["food", "music", "travel"]
    assert not set(model.examples) & set(frame["review"])
    golden = {each.input["text"] for each in model.manifest.golden}
    assert set(model.examples) <= golden


def test_examples_may_be_given(tmp_path: Path) -> None:
    made = publish(tmp_path, topics(), examples=["bread today", "a new song"])
    model = SentimentModel(made)
    assert model.examples == ["bread today", "a new song"]
    assert model.takes.example == "bread today"
    with pytest.raises(InvalidData, match=r"--example: .*text"):
        publish(tmp_path, topics(), examples=[" "])


# --- what judges ------------------------------------------------------------------------------


def copies(rows: int, of_each: int = 3) -> list[str]:
    """Texts of which each few differ in one word only."""
    random = np.random.default_rng(2)
    words = [f"word{place}" for place in range(400)]
    found = []
    for place in range(0, rows, of_each):
        text = " ".join(random.choice(words, 40))
        found += [f"{text} copy{place + number}" for number in range(of_each)]
    return found


def test_near_copies_are_found_and_stay_on_one_side() -> None:
    groups = group(count(copies(300)).signatures)
    assert count_copies(groups) == 300
    assert len(set(groups.tolist())) == 100
    classes = np.arange(300) // 3 % 2
    parts = split(classes, np.random.default_rng(0), groups)
    sides = [set(groups[rows].tolist()) for rows in (parts.train, parts.calibration)]
    sides.append(set(groups[parts.held_out].tolist()))
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    fold = folds(classes, 10, np.random.default_rng(0), groups)
    assert all(len(set(fold[groups == each].tolist())) == 1 for each in set(groups.tolist()))
    assert np.ptp(np.bincount(fold)) <= 6


def test_copies_of_most_texts_are_not_held_together() -> None:
    template = " ".join(f"word{place}" for place in range(60))
    signatures = count([f"{template} {place}" for place in range(50)]).signatures
    assert len(set(group(signatures).tolist())) == 1
    assert len(set(loosen(group(signatures), np.arange(50) % 2).tolist())) == 50


def test_copies_of_all_texts_of_a_label_are_not_held_together() -> None:
    groups = np.array([0, 0, 0, 3, 3, 5, 5, 7])
    loose = loosen(groups, np.array([0, 0, 0, 1, 1, 1, 1, 1]))
    assert (loose != groups).tolist() == [True] * 3 + [False] * 5


def test_copies_of_few_sources_are_held_out_together_so_noise_is_measured_as_noise(
    tmp_path: Path,
) -> None:
    labels = np.where(np.arange(40) // 5 % 2, "pos", "neg")
    said: list[str] = []
    made = publish(
        tmp_path, pd.DataFrame({"review": copies(40, 5), "sentiment": labels}), say=said.append
    )
    assert accuracy(made) < 0.8
    assert made.manifest.training["folds"] == 8
    assert any(line.startswith("40 texts are nearly equal to another") for line in said)


@pytest.mark.slow
def test_copies_that_cannot_be_held_out_together_are_counted(tmp_path: Path) -> None:
    texts = [*copies(30, 30), *copies(60, 1)[31:51]]
    frame = pd.DataFrame({"review": texts, "sentiment": ["x", "y"] * 25})
    said: list[str] = []
    publish(tmp_path, frame, say=said.append)
    assert any(
        line.startswith("Warning: 30 texts are nearly equal to too many others") for line in said
    )


def test_extra_copies_of_a_judge_are_left_out_however_many_they_are(tmp_path: Path) -> None:
    repeated = copies(60, 60)
    frame = pd.DataFrame({"review": [*copies(60, 1)[1:31], repeated[0]]})
    extra = write_extra(tmp_path, [(text, "x") for text in repeated[1:]])
    said: list[str] = []
    publish(
        tmp_path, frame.assign(sentiment=["x", "y"] * 15 + ["x"]), extra=[extra], say=said.append
    )
    assert any("Left out 59 extra texts" in line for line in said)


def test_each_label_is_spread_evenly_over_the_folds() -> None:
    classes = np.array([0] * 200 + [1] * 40 + [2] * 10)
    fold = folds(classes, 10, np.random.default_rng(0), np.arange(250))
    for label, each in enumerate((20, 4, 1)):
        assert np.bincount(fold[classes == label], minlength=10).tolist() == [each] * 10


def test_copies_of_everything_leave_too_few_to_hold_out(tmp_path: Path) -> None:
    frame = pd.DataFrame({"review": copies(12, 2), "sentiment": ["x", "y"] * 6})
    with pytest.raises(InvalidData, match="too few to hold some out"):
        publish(tmp_path, frame, model="network", recipe=TINY)


@pytest.mark.slow
def test_a_text_of_a_cross_validation_is_read_as_by_the_served_model_without_it(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(4)
    texts = [" ".join(f"w{rank}" for rank in random.zipf(1.5, 12)) for _ in range(40)]
    path = tmp_path / "data.csv"
    pd.DataFrame({"review": texts, "sentiment": ["x", "y"] * 20}).to_csv(path, index=False)
    reviews = read_reviews(path, say=quiet)
    counted, asked = count(reviews.texts), Options()
    parts = split_texts(reviews, counted, asked, quiet)
    _, linear = fit_candidates(reviews, counted, parts, asked, quiet)
    assert linear.judge is not None
    expected = []
    for row, text in enumerate(reviews.texts):
        others = np.delete(np.arange(len(reviews.texts)), row)
        without = text_linear.fit(counted, others, reviews.classes, 2)
        expected.append(share_unknown(without.read([text])[0]))
    assert linear.judge().extras["unknown"].tolist() == expected


# --- extra texts, candidates, losses and the reference ------------------------------------------


def write_extra(folder: Path, rows: Sequence[tuple[str, object]]) -> Path:
    path = folder / "extra.csv"
    pd.DataFrame(rows, columns=["review", "sentiment"]).to_csv(path, index=False)
    return path


@pytest.mark.slow
def test_extra_texts_are_learned_from_and_judge_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    words = [(f"zebra {place} stripes", "food") for place in range(8)]
    extra = write_extra(tmp_path, [*words, ("giraffe", "animals"), ("", "food"), ("lion", None)])
    plain = publish(tmp_path, topics())
    more = publish(tmp_path, topics(), extra=[extra], say=said.append)
    assert SentimentModel(plain).predict(["zebra stripes"])["unknown"][0] == 1
    assert SentimentModel(more).predict(["zebra stripes"])["label"][0] == "food"
    assert more.manifest.training["texts_used"] == 68
    assert more.manifest.data == plain.manifest.data
    ours, theirs = (json.loads(each.files["report.json"])["losses"] for each in (plain, more))
    assert ours["values"].keys() == theirs["values"].keys()
    assert "Left out 1 extra text with a label that the data lacks" in said
    assert "Learning from 8 extra texts" in said


def test_extra_texts_that_copy_a_held_out_one_are_left_out_and_counted(tmp_path: Path) -> None:
    said: list[str] = []
    frame = topics()
    first = frame["review"][0]
    twins = [(first, "music"), (f"{first.upper()}!", "music")]
    extra = write_extra(tmp_path, [*twins, ("x y", "food")])
    made = publish(tmp_path, frame, extra=[extra], say=said.append)
    assert made.manifest.training["texts_used"] == 61
    assert "Left out 1 extra text that repeats another" in said
    assert "Left out 1 extra text that is equal or nearly equal to a held-out text" in said


@pytest.mark.slow
def test_held_out_texts_are_the_same_whatever_is_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "NETWORK_FROM", 100)
    rows = [(text, "Positive") for text in copies(60)]
    extra = write_extra(tmp_path, rows)
    found = []
    for each in ([], [extra]):
        reviews = read_reviews(SAMPLE, extra=each, say=quiet)
        made = split_texts(reviews, count(reviews.texts), Options(model="linear", seed=4), quiet)
        found.append(made)
    alone, more = found
    np.testing.assert_array_equal(alone.held_out, more.held_out)
    np.testing.assert_array_equal(alone.validation, more.validation)
    assert len(more.train) == len(alone.train) + 60
    assert not set(more.train) & {*more.held_out, *more.validation}


@pytest.mark.parametrize("labels", [["No", "Yes"], []])
def test_extra_labels_are_names_or_values(tmp_path: Path, labels: list[str]) -> None:
    frame = topics()
    frame = frame[frame["sentiment"] != "food"]
    frame["sentiment"] = (frame["sentiment"] == "travel").astype(float)
    frame.to_csv(tmp_path / "data.csv", index=False)
    given = [("one", "1"), ("two", "0.0"), ("three", (labels or ["", "1"])[1])]
    extra = write_extra(tmp_path, given)
    reviews = read_reviews(tmp_path / "data.csv", labels=labels, extra=[extra], say=quiet)
    assert reviews.texts[-3:] == ["one", "two", "three"]
    assert reviews.classes[-3:].tolist() == [1, 0, 1]
    assert (reviews.extra, reviews.own) == (3, 40)


@pytest.mark.parametrize(
    ("names", "given", "classes"),
    [
        (["0", "1"], ["1", "2"], [0, 1]),  # values: a 2 is no name
        (["2", "3"], ["3", "2"], [1, 0]),  # names: a 3 is no value
        (["1", "2"], ["1", "2"], [0, 1]),  # both, and the same
    ],
)
def test_labels_of_an_extra_file_are_read_in_one_way(
    tmp_path: Path, names: list[str], given: list[str], classes: list[int]
) -> None:
    data = write_numbered(tmp_path)
    extra = write_extra(tmp_path, [(f"text {label}", label) for label in given])
    reviews = read_reviews(data, labels=names, extra=[extra], say=quiet)
    assert reviews.classes[-2:].tolist() == classes


@pytest.mark.parametrize("given", [["1", "2"], ["1"], ["1", "2.0"], ["1.0"]])
def test_labels_of_an_extra_file_that_could_be_others_are_refused(
    tmp_path: Path, given: list[str]
) -> None:
    data = write_numbered(tmp_path)
    extra = write_extra(tmp_path, [(f"text {label}", label) for label in given])
    with pytest.raises(
        InvalidData, match="'1' is named '2', '2' is named '1'; give them other names"
    ):
        read_reviews(data, labels=["2", "1"], extra=[extra], say=quiet)
    # Judged answers have the names that were published.
    reviews = read_reviews(data, labels=["2", "1"], feedback=extra, say=quiet)
    named = [reviews.labels[place] for place in reviews.classes[-len(given) :]]
    assert named == [label.removesuffix(".0") for label in given]


def write_numbered(folder: Path) -> Path:
    """Write texts with the labels 1 and 2."""
    frame = topics()
    frame = frame[frame["sentiment"] != "food"]
    frame["sentiment"] = (frame["sentiment"] == "travel") + 1
    frame.to_csv(folder / "data.csv", index=False)
    return folder / "data.csv"


@pytest.mark.slow
def test_losses_of_held_out_texts_let_two_versions_be_compared(tmp_path: Path) -> None:
    frame = topics()
    made = publish(tmp_path, frame)
    report = json.loads(made.files["report.json"])
    losses = report["losses"]
    assert losses["metric"] == "log loss"
    assert set(losses["values"]) == {fingerprint(text) for text in frame["review"]}
    assert np.mean(list(losses["values"].values())) == pytest.approx(
        made.manifest.metrics["log_loss"]
    )
    verdict = compare_held_out(made, publish(tmp_path, frame, seed=1))
    assert verdict.rows == 60
    assert not verdict.worse


def test_what_was_held_out_is_the_reference_for_drift(tmp_path: Path) -> None:
    made = publish(tmp_path, topics())
    counts = reference.read(tmp_path / "artifacts", "sentiment", 1)
    assert counts is not None
    answers = counts[Series("answer", "the label")]
    assert sum(answers.values()) == 60
    assert {series.name for series in counts if series.kind == "extra"} == {"tokens", "unknown"}
    # Each text has a word of its own, which the models of its fold cannot know.
    assert binnings(SentimentModel(made))[Series("extra", "unknown")].edges[0] >= 0.1
    assert made.manifest.metrics["held_out"] == 60


@pytest.mark.slow
def test_a_candidate_is_published_but_not_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics().to_csv(tmp_path / "data.csv", index=False)
    extra = write_extra(tmp_path, [("a zebra", "food")])
    root = tmp_path / "artifacts"
    options = ["--data", str(tmp_path / "data.csv"), "--artifacts", str(root)]
    options += ["--example=-a dash", "--example", "bread"]
    assert main(options) == 0
    judged = tmp_path / "judged.csv"
    pd.DataFrame({"review": ["a yak"], "sentiment": ["food"]}).to_csv(judged, index=False)
    more = ["--extra", str(extra), "--extra", str(extra), "--feedback", str(judged)]
    assert main([*options, "--candidate", *more]) == 0
    assert artifacts.open(root, "sentiment").manifest.version == 1
    candidate = artifacts.open(root, "sentiment", 2).manifest
    assert candidate.training["texts_used"] == 62
    assert candidate.training["command"] == (
        f"python -m training.sentiment --data {tmp_path / 'data.csv'} --extra {extra}"
        f" --extra {extra} '--example=-a dash' --example bread"
    )


@pytest.mark.slow
def test_a_text_model_is_trained_again_with_judged_answers(
    recording: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLAPP_LOG_INPUTS", "values")
    root = tmp_path / "artifacts"
    use_artifacts(root, monkeypatch)
    make_topics(60).to_csv(tmp_path / "data.csv", index=False)
    options = ["--data", str(tmp_path / "data.csv"), "--text-column", "message"]
    options += ["--label-column", "topic", "--name", "topics", "--artifacts", str(root)]
    assert main(options) == 0
    texts = [f"zebra {place} stripes" for place in range(40)]
    judge(root, ask("topics", list(texts)), ["music"] * 40)
    assert command_line(["retrain", "topics"]) == 0
    records.close()
    told = capfd.readouterr().out
    assert "Learning from " in told
    assert "Version 2 of topics is a candidate" in told
    served, candidate = (SentimentModel(artifacts.open(root, "topics", v)) for v in (1, 2))
    assert served.predict(["zebra stripes"])["unknown"][0] == 1
    assert candidate.predict(["zebra stripes"])["label"][0] == "music"
    assert candidate.manifest.training["command"] == served.manifest.training["command"]
    for model, says in ((served, False), (candidate, True)):
        assert ("judged answers, which" in write_card(model.manifest)) is says
