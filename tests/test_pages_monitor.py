"""The pages Monitor and Versions, through the real records and the real store."""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mlapp import answering, loaders, model_card
from mlapp.cli import main
from mlapp.dashboard import monitor, quality
from mlapp.dates import Date
from mlapp.families.contract import NumberOutput, replay
from mlapp.families.regression import RegressionModel
from mlapp.records import bins, drift, feedback, reference
from mlapp.records import writer as records
from mlapp.records.feedback import Given
from mlapp.service import create_app, drift_metrics
from mlapp.store import artifacts
from tests.conftest import ROOT, client_of
from tests.test_promotion import losses, publish

NAME = "houses"


@pytest.fixture
def recorded(folder: Path, recording: None) -> Path:
    """A folder whose answers are recorded beside the models; `houses` has a reference."""
    first = artifacts.open(folder, NAME)
    model = RegressionModel(first)
    batch = model.check(make_rows(np.random.default_rng(0), 2000))
    own = model.answer(batch)
    edges, learned = reference.learn(model, batch, own, own)
    files = {**first.files, reference.REFERENCE: learned}
    kept = ("task", "data", "training", "input_schema", "metrics", "golden")
    fields = {field: getattr(first.manifest, field) for field in kept}
    drafted = artifacts.draft(NAME, files, tuple(first.manifest.libraries), bins=edges, **fields)
    artifacts.publish(folder, drafted, lambda each: replay(RegressionModel(each)))
    return folder


def make_rows(rng: np.random.Generator, count: int, shift: float = 0.0) -> list[dict[str, object]]:
    areas = np.clip(rng.normal(120 + shift, 30, count), 45, 190)
    return [
        {"area": float(area), "rooms": float(rng.integers(1, 8)), "district": "east"}
        for area in areas
    ]


def ask(shift: float = 0.0, count: int = 500) -> None:
    model = loaders.load_regression(NAME)
    rows = make_rows(np.random.default_rng(5), count, shift)
    answering.answer(model, model.check(rows), "v1")
    log = records.writer()
    assert log is not None
    assert log.flush()


def page(name: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "Home.py"), default_timeout=60)
    app.run()
    app.switch_page(f"pages/{name}.py").run()
    assert not app.exception
    return app


def choose(app: AppTest, key: str) -> AppTest:
    app.selectbox(key=key).select(NAME).run()
    assert not app.exception
    return app


def test_a_category_called_missing_is_told_from_missing_values() -> None:
    cut = bins.Binning(values=("missing", "there"))
    counts = {bins.MISSING: 100, 0: 200, 1: 300}
    found = drift.compare(bins.Series("input", "x"), cut, counts, counts)
    assert [name for name, _, _ in found.bins] == ["(missing)", "missing", "there"]


def test_a_series_says_why_its_drift_is_unknown() -> None:
    cut = bins.Binning(values=("a", "b"))

    def reason(before: int, now: int) -> str | None:
        return drift.compare(bins.Series("input", "x"), cut, {0: before}, {0: now}).reason

    assert reason(300, 300) is None
    assert reason(0, 300) == "no reference to compare with"
    assert reason(45, 300) == "the reference has 45 values, and at least 50 are needed"
    assert reason(300, 45) == "at least 50 values are needed"


@pytest.mark.slow
@pytest.mark.usefixtures("recorded")
def test_values_like_those_of_training_are_green() -> None:
    ask()
    app = choose(page("monitor"), "_monitor_model")
    assert [each.value for each in app.metric][:2] == ["1", "0"]
    assert app.success[0].value == "Nothing moved significantly."


@pytest.mark.slow
@pytest.mark.usefixtures("recorded")
def test_a_shift_of_half_a_standard_deviation_is_flagged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask(shift=15.0)
    app = choose(page("monitor"), "_monitor_model")
    [told] = [each.value for each in (*app.warning, *app.error)]
    assert "area" in told
    assert "rooms" not in told
    capsys.readouterr()
    assert main(["drift", NAME, "--json"]) == 3
    reported = json.loads(capsys.readouterr().out)
    states = {each["series"]["name"]: each["state"] for each in reported["series"]}
    assert states["area"] in ("watch", "act")
    assert states["rooms"] == "green"


@pytest.mark.slow
@pytest.mark.usefixtures("recorded")
def test_judged_answers_stand_beside_the_held_out_figures(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = choose(page("monitor"), "_monitor_model")
    assert any("No answer from this period has feedback yet" in each.value for each in app.caption)
    assert main(["quality", NAME]) == 0
    assert "has feedback yet" in capsys.readouterr().out
    model = loaders.load_regression(NAME)
    answered = answering.answer(model, model.check(make_rows(np.random.default_rng(1), 40)), "v1")
    log = records.writer()
    assert log is not None
    assert log.flush()
    predicted = answered.answers.tensors()["prediction"].tolist()
    given = [Given(f"{answered.id}-{place}", value + 10) for place, value in enumerate(predicted)]
    feedback.give(log.database, recorded, given, "v1")
    app.run()
    table = next(each.value for each in app.dataframe if "judged" in each.value)
    assert list(table["judged"]) == [40, 40]
    assert table["week of"][0] == "all"
    assert table["MAE"][0] == "10 (10 to 10)"
    assert table["MAE, held out"][0] == f"{model.manifest.metrics['mae']:.4g}"
    capsys.readouterr()
    assert main(["quality", NAME, "--json"]) == 0
    whole, week = json.loads(capsys.readouterr().out)["quality"]
    assert whole["figures"]["mae"]["value"] == pytest.approx(10)
    assert (whole["week"], week["rows"]) == (None, 40)
    assert main(["quality", NAME]) == 0
    assert "version 2, all weeks, 40 judged: r2" in capsys.readouterr().out
    assert main(["quality", "nobody"]) == 1


@pytest.mark.usefixtures("recorded")
def test_drift_is_a_metric_that_a_scrape_reads_and_does_not_measure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = client_of(create_app())
    assert 'mlapp_drift_values{kind="input",model="houses",name="area",version="2"} 0.0' in (
        client.get("/metrics").text
    )
    ask(shift=15.0)
    assert 'name="area",version="2"} 0.0' in client.get("/metrics").text  # as a minute ago
    monkeypatch.setattr(drift_metrics, "EVERY", 0.0)
    client = client_of(create_app())
    lines = client.get("/metrics").text.splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if line.startswith("mlapp_drift"))
    area, rooms = (
        f'{{kind="input",model="houses",name="{name}",version="2"}}' for name in ("area", "rooms")
    )
    assert float(found[f"mlapp_drift_psi{area}"]) > 0.1
    assert float(found[f"mlapp_drift_flagged{area}"]) >= 1
    assert float(found[f"mlapp_drift_flagged{rooms}"]) == 0
    assert float(found[f"mlapp_drift_values{area}"]) == 500
    ask(count=10)
    assert f"mlapp_drift_values{area} 510.0" in client.get("/metrics").text


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_a_version_without_a_reference_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "REFERENCE", "absent.json")
    app = choose(page("monitor"), "_monitor_model")
    assert "without a reference" in app.info[0].value


@pytest.mark.slow
@pytest.mark.usefixtures("recorded")
def test_a_candidate_is_promoted_and_rolled_back_on_the_page(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(recorded)
    app = choose(page("versions"), "_versions_model")
    assert not app.button
    monkeypatch.setenv("MLAPP_ADMIN", "on")
    app.run()
    app.button(key="_promote_3").click().run()
    assert not app.exception
    assert loaders.load_model(NAME).manifest.version == 3
    app.text_input(key="_why").input("complaints").run()
    app.button(key="_rollback").click().run()
    assert loaders.load_model(NAME).manifest.version == 2
    assert list(app.dataframe[-1].value["action"]) == ["rolled back", "promoted"]
    assert next(iter(app.dataframe[-1].value["reason"])) == "complaints"


@pytest.mark.slow
def test_a_worse_candidate_is_promoted_on_the_page_only_where_one_says_so(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(recorded, losses(), candidate=False)
    publish(recorded, losses(0.5))
    monkeypatch.setenv("MLAPP_ADMIN", "on")
    app = choose(page("versions"), "_versions_model")
    app.text_input(key="_why").input("every month").run()
    app.button(key="_promote_4").click().run()
    assert "To promote it anyway, tick the box and give a reason" in app.error[-1].value
    assert loaders.load_model(NAME).manifest.version == 3
    app.checkbox(key="_force").check().run()
    app.button(key="_promote_4").click().run()
    assert loaders.load_model(NAME).manifest.version == 4


@pytest.mark.usefixtures("folder")
def test_the_model_card_is_complete_and_escapes_names() -> None:
    manifest = loaders.load_model(NAME).manifest
    odd = manifest.model_copy(update={"labels": ("<b>", "calm")})
    card = model_card.write_card(odd, {"area (input)": "watch <i>"})
    assert "<b>" not in card
    assert "watch &lt;i&gt;" in card
    for part in ("Intended use", "SHA-256", "training.regression", "district", "R², held out"):
        assert part in card


@pytest.mark.usefixtures("folder")
def test_the_model_card_calls_metrics_as_the_dashboard_does_and_shows_no_others() -> None:
    manifest = loaders.load_model(NAME).manifest
    level = NumberOutput("price", 1, 0.9)
    for metric in [*quality.of_numbers(level), *quality.of_labels()]:
        for value in (0.0, 0.000_123_45, 0.123_456, -2e9):
            shown = model_card.describe_quality({metric.key: value})
            assert list(shown) == [f"{metric.label}, held out"]
            if metric.key not in ("rmse", "mae"):  # which the dashboard rounds as the output
                assert list(shown.values()) == [quality.write_metric(metric, value)]
    shown = model_card.describe_quality(manifest.metrics)
    assert {"R², held out", "R², on its own training data", "Interval coverage, held out"} <= set(
        shown
    )
    assert "RMSE of a baseline that ignores the inputs" in shown
    assert "half_width" in manifest.metrics
    assert "half_width" not in model_card.write_card(manifest)


@pytest.mark.usefixtures("folder")
def test_the_model_card_says_that_judged_answers_were_learned_from() -> None:
    manifest = loaders.load_model(NAME).manifest
    assert "judged answers" not in model_card.write_card(manifest)
    training = {**manifest.training, "judged_answers": True}
    card = model_card.write_card(manifest.model_copy(update={"training": training}))
    said = "and judged answers, which <code>mlapp retrain</code> took from the records"
    assert f"</pre><p>{said}</p>" in card


@pytest.mark.usefixtures("folder")
def test_the_model_card_tells_labels_with_commas_apart() -> None:
    labels = ("01", "1,5", *(f"label {place}" for place in range(30)))
    manifest = loaders.load_model(NAME).manifest.model_copy(update={"labels": labels})
    card = html.unescape(model_card.write_card(manifest))
    assert "Labels: '01', '1,5', 'label 0'" in card
    assert "'label 29'</p>" in card


@pytest.mark.usefixtures("folder")
def test_the_model_card_of_texts_says_what_gets_a_notice_there() -> None:
    rows = loaders.load_model(NAME).manifest
    texts = rows.model_copy(update={"input_schema": None, "labels": ("a", "b")})
    assert "Values outside the training range get a notice" in model_card.write_card(rows)
    card = model_card.write_card(texts)
    assert "Texts of mostly unknown words get a notice" in card
    assert "training range" not in card


def test_requests_include_those_with_errors_and_scored_files() -> None:
    counts = {
        bins.Series("seconds", "v1"): {0: 20, 3: 3},
        bins.Series("error", "v1"): {422: 29},
        bins.Series("error", "form"): {422: 1},
    }
    files = {bins.Series("seconds", channel): {9: 2} for channel in ("v1", "file")}
    table = monitor.traffic(counts, files).set_index("channel")
    assert table["requests"].to_dict() == {"REST v1": 54, "Form": 1, "Files": 2}
    assert table["errors"].to_dict() == {"REST v1": 29, "Form": 1, "Files": 0}
    assert table["median"].to_dict() == {"REST v1": "1 ms", "Form": "", "Files": "1000 ms"}


@pytest.mark.slow
@pytest.mark.usefixtures("recorded")
def test_scored_files_are_counted_and_listed() -> None:
    client = client_of(create_app())
    table = "area,rooms,district\n100.5,3,north\n80,2,moon\n"
    headers = {"Content-Type": "text/csv"}
    scored = client.post(f"/v1/models/{NAME}:score", data=table, headers=headers)
    assert scored.data
    assert client.post(f"/v1/models/{NAME}:predict", json={"instances": [{}]}).status_code == 422
    records.close()
    app = choose(page("monitor"), "_monitor_model")
    assert [each.value for each in app.metric][:3] == ["2", "1", "50.0%"]
    [files] = [each.value for each in app.dataframe if "scored" in each.value]
    [row] = files.to_dict("records")
    wanted = {"version": 2, "from": "Files", "rows": 2, "scored": 1, "noticed": 0, "refused": 1}
    assert {key: row[key] for key in wanted} == wanted
    assert (row["complete"], row["id"]) == (True, scored.headers["Mlapp-Id"])


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_versions_stand_side_by_side_under_the_metrics_names() -> None:
    app = choose(page("versions"), "_versions_model")
    shown = app.dataframe[0]
    assert {"version", "state", "r2", "coverage"} <= set(shown.value)
    assert "half_width" not in shown.value
    assert {"R²", "Interval coverage"} <= {
        each.get("label") for each in json.loads(shown.proto.columns).values()
    }


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_rolled_back_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAPP_ADMIN", "on")
    app = choose(page("versions"), "_versions_model")
    button = app.button(key="_rollback")
    assert (button.disabled, button.help) == (True, "There is no version before 1 to serve.")
    assert loaders.load_model(NAME).manifest.version == 1


@pytest.mark.slow
@pytest.mark.usefixtures("recorded")
def test_a_damaged_version_and_a_damaged_candidate_say_so(recorded: Path) -> None:
    publish(recorded)  # a candidate
    (recorded / NAME / "1" / "manifest.json").write_text("{")
    (recorded / NAME / "3" / "model.joblib").write_bytes(b"")
    app = choose(page("versions"), "_versions_model")
    states = app.dataframe[0].value.set_index("version")["state"]
    assert states[1].startswith("damaged: ")
    assert (states[2], states[3]) == ("served", "candidate")
    assert "model.joblib" in app.error[0].value


# --- whether a series has moved ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({0: 3000}, {1: 120}),
        ({0: 25_000}, {1: 340}),
        ({0: 2990, 1: 10}, {1: 100}),
        ({1: 100_000}, {0: 60, 1: 10}),
    ],
)
def test_values_that_training_hardly_saw_are_flagged_however_few_they_are(
    before: dict[int, int], now: dict[int, int]
) -> None:
    found = drift.compare(bins.Series("unsure", "x"), bins.SURE, before, now)
    assert found.state == "act"
    assert found.p == pytest.approx(0, abs=1e-6)


def test_values_that_are_refused_are_flagged_though_the_others_look_as_ever() -> None:
    cut, before = bins.Binning(values=("north", "south")), {0: 500, 1: 500}
    found = drift.compare(
        bins.Series("input", "x"), cut, before, {0: 120, 1: 119, bins.REFUSED: 361}
    )
    assert (found.state, found.rows, found.refused) == ("act", 239, 361)
    all_refused = drift.compare(bins.Series("input", "x"), cut, before, {bins.REFUSED: 300})
    assert all_refused.state == "act"


RANDOM = np.random.default_rng(1)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (RANDOM.random(2000) < 0.5, RANDOM.random(500) < 0.75),
        (RANDOM.random(2000) < 0.5, np.ones(500)),
        (RANDOM.random(2000) < 0.03, RANDOM.random(500) < 0.12),
        (RANDOM.integers(1, 6, 2000), RANDOM.choice([3, 4, 5], 500, p=[0.2, 0.2, 0.6])),
        (
            RANDOM.exponential(size=2000) * (RANDOM.random(2000) < 0.2),
            RANDOM.exponential(size=500) * (RANDOM.random(500) < 0.4),
        ),
        (RANDOM.normal(160, 30, 2000).round(), RANDOM.normal(190, 30, 500).round()),
        (np.full(2000, 7.0), np.full(500, 7.5)),
    ],
    ids=["flag", "always on", "rare flag", "grades", "mostly zeros", "lengths", "constant"],
)
def test_a_number_of_any_kind_that_moves_is_flagged(before: Any, now: Any) -> None:
    cut = reference.cut(before.astype(float))
    old, new = (cut.count(values.astype(float)) for values in (before, now))
    assert drift.compare(bins.Series("input", "x"), cut, old, new).state in ("watch", "act")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0] * 40 + [1.0] * 60, {"0": 0.4, "1": 0.6}),
        ([7.0] * 100, {"7": 1.0}),
        ([0.0] * 60 + list(np.linspace(1, 40, 40)), {"0": 0.6, "0 to 16": 0.15}),
        ([1.6e9] * 50 + [1.6e9 + 1] * 50, {"1600000000": 0.5, "1600000001": 0.5}),
    ],
    ids=["flag", "constant", "mostly zeros", "seconds"],
)
def test_a_frequent_value_has_a_bin_that_is_called_like_it(
    values: list[float], shown: dict[str, float]
) -> None:
    cut = reference.cut(np.array(values))
    counts = cut.count(np.array(values))
    found = drift.compare(bins.Series("input", "x"), cut, counts, counts)
    assert (found.psi, found.outside) == (0, 0)
    shares = {name: before for name, before, _ in found.bins}
    assert shown.items() <= shares.items()


def test_bins_of_dates_are_called_by_their_days() -> None:
    days = np.linspace(1_700_006_400, 1_700_006_400 + 99 * 86_400, 100)
    cut = reference.cut(days)
    counts, first, last = cut.count(days), float(days[0]), float(days[-1])
    spec = Date(name="day", minimum=first, maximum=last, quantiles=(first,) * 5, typical="")
    found = drift.compare(bins.Series("input", "x"), cut, counts, counts, spec.plain)
    assert found.bins[0][0] == "2023-11-15 to 2023-11-20"
    assert drift.name_bins(cut, spec.plain)[-1] == "above 2024-02-22"


def test_answers_are_cut_between_those_that_are_given_often() -> None:
    few = reference.cut_at_gaps(np.repeat([1.0, 2.0, 4.0], 50), np.array([0.9, 4.2]))
    assert few.edges == pytest.approx((0.9, 1.5, 3.0, 4.2))
    scattered = np.repeat([1.0, 2.0, 4.0], 4) + np.tile([-0.2, 0.0, 1e-12, 0.3], 3)
    assert few.count(scattered) == {0: 1, 1: 3, 2: 4, 3: 3, 4: 1}
    many = reference.cut_at_gaps(np.linspace(0, 1, 1001), np.array([0.5]))
    assert many.edges == pytest.approx(np.linspace(0, 1, 11), abs=0.03)
    same = reference.cut_at_gaps(np.full(50, 0.1 + 0.2), np.array([0.25, 0.35]))
    assert same.count(np.array([0.3, 0.26, 0.34])) == {1: 3}


def test_rare_categories_by_chance_are_no_large_change() -> None:
    names = tuple(map(str, range(250)))
    random = np.random.default_rng(0)
    old, new = (dict.fromkeys(random.choice(250, n, replace=False).tolist(), 1) for n in (200, 60))
    found = drift.compare(bins.Series("input", "x"), bins.Binning(values=names), old, new)
    assert found.psi is not None
    assert found.psi < drift.LARGE


def test_rare_values_that_training_also_saw_are_not_flagged() -> None:
    found = drift.compare(bins.Series("unsure", "x"), bins.SURE, {0: 2990, 1: 10}, {0: 99, 1: 1})
    assert found.state == "green"
