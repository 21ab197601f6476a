"""The part "Many rows" of the pages, without a browser; `test_browser.py` has it with one."""

import gc
import gzip
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

from mlapp.dashboard import whole_files
from mlapp.families.regression import RegressionModel
from mlapp.scoring import background, distributions, files
from mlapp.scoring.background import Job, Upload
from mlapp.scoring.batch import Options
from mlapp.scoring.distributions import Histogram, Shares
from mlapp.scoring.workspace import Workspace
from mlapp.store import open_model
from tests.conftest import make_houses, wait_until
from tests.test_pages import home, run
from training.regression import train

pytestmark = pytest.mark.slow

NAMES = ["var_1", "var_2", "var_3", "var_4", "var_5"]
ROW = "734,688,81,0.328,0.259"
HEADER = ",".join(NAMES)
ROWS = f"id,{HEADER}\n1,{ROW}\n2,much,688,81,0.328,0.259\n3,734,688,81,0.328,99\n".encode()


@pytest.fixture
def folder(every_model: Path) -> Path:
    return every_model


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let no row be scored until it is set."""
    opened, predict = threading.Event(), RegressionModel.predict_array

    def wait(model: RegressionModel, checked: Any) -> Any:
        assert opened.wait(60)
        return predict(model, checked)

    monkeypatch.setattr(RegressionModel, "predict_array", wait)
    yield opened
    opened.set()


def page(name: str = "regression") -> AppTest:
    kind = "sentiment" if name in ("sentiment", "moods") else "regression"
    app = home()
    app.query_params["_model"] = name
    run(app.switch_page(f"pages/{kind}.py"))
    app.session_state[f"_tabs_{name}"] = "Many texts" if kind == "sentiment" else "Many rows"
    return run(app)


def bring(app: AppTest, **contents: bytes) -> AppTest:
    for name, content in contents.items():
        app.file_uploader[0].upload(name.replace("__", "."), content)
    return run(app)


def column(app: AppTest, name: str) -> Any:
    """Return the widget with the column for an input."""
    labels = (f"Column for {name}", f"Column of {name}")
    [found] = [each for each in app.selectbox if each.label.replace("\\", "") in labels]
    return found


def job(app: AppTest, name: str = "regression") -> Job:
    found: Job = app.session_state[f"_many_{name}"].job
    return found


def score(app: AppTest, name: str = "regression") -> AppTest:
    app.button(key="many_start").click()
    run(app)
    job(app, name).join()
    return run(app)


def shown(app: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def reported(app: AppTest) -> str:
    return "\n".join(f"{error.proto.title}: {error.value}" for error in app.error)


def scratch_files() -> int:
    """Return how many temporary files without a name this process has open."""
    gc.collect()
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            links.append(str(descriptor.readlink()))
    return sum(link.endswith("(deleted)") for link in links)


@pytest.mark.usefixtures("folder")
def test_the_part_costs_nothing_while_it_is_closed() -> None:
    app = home()
    run(app.switch_page("pages/regression.py"))
    assert not app.file_uploader
    assert "_many_regression" not in app.session_state


@pytest.mark.usefixtures("folder")
def test_a_file_is_scored_and_its_refused_row_says_why() -> None:
    app = bring(page(), rows__csv=ROWS)
    assert list(app.dataframe[0].value["id"]) == ["1", "2", "3"]
    assert column(app, "var_1").value == "var_1"
    app = score(app)
    counts = {key: shown(app)[key] for key in ("Rows", "Scored", "With a notice", "Refused")}
    assert counts == {"Rows": "3", "Scored": "2", "With a notice": "1", "Refused": "1"}
    refused = app.dataframe[1].value
    assert list(refused["row"]) == [2]
    assert list(refused["why"]) == ["var_1: got 'much', expected a finite number"]
    assert len(app.get("vega_lite_chart")) == 1


def test_a_preview_shows_dates_that_python_cannot_hold() -> None:
    source = io.BytesIO()
    dates = pa.array([0, 5_000_000], pa.date32())
    pq.write_table(pa.table({"day": dates, "size": [1, 2]}), source)
    source.seek(0)
    _, shown = Upload("days.parquet", source).preview()
    assert shown["day"].tolist() == ["1970-01-01", "15659-07-15"]
    assert shown["size"].tolist() == [1, 2]


@pytest.mark.parametrize("name", ["regression", "houses", "sentiment", "moods"])
def test_the_downloads_are_what_the_command_line_writes(
    name: str, folder: Path, tmp_path: Path
) -> None:
    model = open_model(folder, name)
    source = tmp_path / "rows.csv"
    source.write_text(whole_files.template(model) * 3)  # the header as a row is a bad one
    result = Job(model, [Upload("rows.csv", io.BytesIO(source.read_bytes()))], Options())
    result.join()
    for form in ("csv", "parquet"):
        files.score(model, source, tmp_path / f"out.{form}")
        assert result.results[0].read(form) == (tmp_path / f"out.{form}").read_bytes()


@pytest.mark.parametrize("name", ["regression", "houses", "sentiment", "moods"])
def test_the_template_is_scored_without_a_word(name: str, folder: Path) -> None:
    app = page(name)
    template = whole_files.template(open_model(folder, name))
    app = score(bring(app, template__csv=template.encode()), name)
    assert (shown(app)["Scored"], shown(app)["Refused"]) == ("1", "0")


def test_the_template_has_whole_numbers_as_the_form_has_them(folder: Path) -> None:
    template = whole_files.template(open_model(folder, "regression"))
    assert template.splitlines()[1].split(",")[:3] == ["716", "714", "81"]


@pytest.mark.usefixtures("folder")
def test_a_file_that_lacks_all_columns_is_told_so_in_one_sentence() -> None:
    app = bring(page(), wrong__csv=b"a,b\n1,\n")
    lacking = "There is no column for 5 inputs: var_1, var_2, var_3, var_4, var_5."
    said = f"wrong.csv lacks columns: {lacking} Choose them above."
    assert reported(app).replace("\\", "") == said
    assert app.dataframe[0].proto.placeholder == ""


@pytest.mark.usefixtures("folder")
def test_a_column_is_mapped_by_hand_and_one_much_alike_by_itself() -> None:
    app = bring(page(), rows__csv=f"Score,VAR 2,var-3,var_4,var_5\n{ROW}\n".encode())
    assert "var_1: got no column, expected one of the file's; choose it above" in reported(app)
    assert app.button(key="many_start").disabled
    assert column(app, "var_2").value == "VAR 2"
    column(app, "var_1").set_value("Score")
    app = score(run(app))
    assert shown(app)["Scored"] == "1"


@pytest.mark.usefixtures("folder")
def test_a_column_cannot_be_two_inputs() -> None:
    app = bring(page(), rows__csv=f"{HEADER}\n{ROW}\n".encode())
    column(app, "var_1").set_value("var_2")
    app = run(app)
    assert "got 'var_2' for var_1 and var_2, expected a different column" in reported(app)
    assert app.button(key="many_start").disabled


@pytest.mark.usefixtures("folder")
def test_another_file_gets_its_own_mapping() -> None:
    app = bring(page(), one__csv=f"Score,{HEADER}\n1,{ROW}\n".encode())
    column(app, "var_1").set_value("Score")
    app = bring(run(app), two__csv=f"Score,{HEADER}\n1,{ROW}\n".encode())
    assert column(app, "var_1").value == "var_1"


@pytest.fixture
def flats(folder: Path, tmp_path: Path) -> Path:
    """Two models with the same inputs, beside the others."""
    path = tmp_path / "flats.csv"
    make_houses(60)[["area", "rooms", "price"]].to_csv(path, index=False)
    for name in ("flats", "flats2"):
        train(path, "price", name, folder, model="linear", say=lambda line: None)
    return folder


def switch(app: AppTest, name: str) -> AppTest:
    app.selectbox(key="_model_regression").select(name)
    app.session_state[f"_tabs_{name}"] = "Many rows"
    return run(run(app))


@pytest.mark.usefixtures("flats")
def test_each_model_keeps_the_columns_that_were_chosen_for_it() -> None:
    app = bring(page("flats"), f1__csv=b"area,rooms,area_m2\n1,2,80\n")
    column(app, "area").set_value("area_m2")
    app = bring(switch(run(app), "flats2"), f2__csv=b"area,rooms\n90,3\n")
    assert column(app, "area").value == "area"
    app = switch(app, "flats")
    assert column(app, "area").value == "area_m2"
    assert column(switch(app, "flats2"), "area").value == "area"


@pytest.mark.usefixtures("flats")
def test_an_input_without_a_column_in_one_models_file_keeps_that_of_anothers() -> None:
    app = bring(page("flats"), f1__csv=b"area,rooms\n80,2\n")
    app = bring(switch(app, "flats2"), f2__csv=b"surface,rooms\n90,3\n")
    assert column(app, "area").value is None
    app = switch(app, "flats")
    assert column(app, "area").value == "area"
    assert not app.error


def test_columns_are_guessed_anew_when_another_encoding_spells_their_names(
    folder: Path, tmp_path: Path
) -> None:
    table = make_houses(60)[["area", "price"]].rename(columns={"area": "Fläche"})
    table.to_csv(tmp_path / "halls.csv", index=False)
    train(tmp_path / "halls.csv", "price", "houses", folder, model="linear", say=lambda line: None)
    app = bring(page("houses"), rows__csv="Fläche,b\n80,1\n".encode("mac-roman"))
    app.selectbox(key="many_encoding").set_value("windows-1252")
    app = run(app)
    assert column(app, "Fläche").value is None
    app.selectbox(key="many_encoding").set_value("mac-roman")
    assert column(run(app), "Fläche").value == "Fläche"


def zipped(*names: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, ROWS)
    return held.getvalue()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows__csv", b"", "rows.csv is empty"),
        ("rows__csv", f"{HEADER}\n".encode(), "rows.csv has a header but no rows"),
        ("rows__csv", f"{HEADER}\n{ROW}\xe9\n".encode("latin-1"), "got byte 0xE9 in line 2"),
        ("rows__csv", b"var_1,var_1\n1,2\n", "several columns named 'var_1'"),
        ("rows__csv__gz", gzip.compress(ROWS)[:-9], "cannot be read, or is damaged"),
        ("rows__csv__zip", zipped("a.csv", "b.csv"), "got 2 files (a.csv, b.csv)"),
        ("rows__parquet", b"PAR1", "rows.parquet cannot be read, or is damaged"),
        ("rows__gz", b"", "rows.gz: got '.gz', expected .csv"),
    ],
)
def test_a_file_that_cannot_be_read_is_reported(name: str, content: bytes, words: str) -> None:
    app = bring(page(), **{name: content})
    assert words in reported(app)
    assert app.button(key="many_start").disabled


@pytest.mark.usefixtures("folder")
def test_an_old_encoding_can_be_said() -> None:
    app = bring(page(), rows__csv=f"who,{HEADER}\nRené,{ROW}\n".encode("windows-1252"))
    assert "rows.csv is not valid UTF-8" in reported(app)
    app.selectbox(key="many_encoding").set_value("windows-1252")
    app = run(app)
    assert list(app.dataframe[0].value["who"]) == ["René"]
    assert shown(score(app))["Scored"] == "1"


@pytest.mark.usefixtures("folder")
def test_a_result_can_be_scored_again_under_a_prefix() -> None:
    app = bring(page(), rows__csv=f"{HEADER},prediction\n{ROW},0.4\n".encode())
    said = "already has columns 'prediction'; give the added columns a prefix"
    assert said in reported(app)
    assert "--" not in reported(app)
    app.text_input(key="many_prefix").set_value("new_")
    app.checkbox(key="many_explain").check()
    app = score(run(app))
    columns = pd.read_csv(io.BytesIO(job(app).results[0].read("csv"))).columns
    assert {"prediction", "new_prediction", "new_effect_var_1"} <= set(columns)


@pytest.mark.usefixtures("folder")
def test_several_files_are_scored_each_by_itself() -> None:
    other = pd.DataFrame([[734, 688, 81, 0.328, 0.259]], columns=NAMES).to_parquet()
    strange = b"a,b\n1,2\n"
    app = bring(page(), one__csv=ROWS, strange__csv=strange, two__parquet=other)
    lacking = "There is no column for 5 inputs: var_1, var_2, var_3, var_4, var_5."
    assert reported(app).replace("\\", "") == f"strange.csv lacks columns: {lacking}"
    assert app.button(key="many_start").label == "Score 2 files"
    app = score(app)
    assert [result.counts.rows for result in job(app).results] == [3, 1]
    assert shown(app)["Rows"] == "3"
    app.selectbox(key="many_result").set_value(1)
    app = run(app)
    assert shown(app)["Rows"] == "1"


@pytest.mark.usefixtures("folder")
def test_texts_are_counted_by_label_and_their_column_can_be_chosen() -> None:
    table = "said,by\nWe said it was furious rage,Ann\nmerry cheer,Ben\n?,Cem\n"
    app = bring(page("moods"), rows__csv=table.encode())
    assert "text: got no column" in reported(app)
    column(app, "the texts").set_value("said")
    app = score(run(app), "moods")
    assert (shown(app)["Scored"], shown(app)["Refused"]) == ("2", "1")
    shares = job(app, "moods").results[0].shares
    assert shares is not None
    counted = shares.bars().groupby("label")["rows"].sum().to_dict()
    assert counted == {"angry": 1, "calm": 0, "glad": 1}


@pytest.mark.usefixtures("folder")
def test_a_waiting_job_can_be_stopped(gate: threading.Event) -> None:
    busy = [page() for _ in range(background.AT_ONCE)]
    for app in busy:
        bring(app, rows__csv=ROWS).button(key="many_start").click()
        run(app)
    app = bring(page(), rows__csv=ROWS)
    app.button(key="many_start").click()
    app = run(app)
    assert app.button(key="many_start").disabled
    app.button(key="many_stop").click()
    run(app)
    job(app).join()
    app = run(app)
    assert app.info[0].proto.title == "Stopped"
    gate.set()
    for each in busy:
        job(each).join()
        assert shown(run(each))["Rows"] == "3"


def test_a_job_that_is_stopped_keeps_nothing(folder: Path, gate: threading.Event) -> None:
    before = scratch_files()
    model = open_model(folder, "regression")
    stopped = Job(model, [Upload("rows.csv", io.BytesIO(ROWS))], Options())
    wait_until(lambda: stopped.results[0].state == "scoring", "the job to begin")
    stopped.stop()
    gate.set()
    stopped.join()
    assert stopped.results[0].state == "stopped"
    assert scratch_files() == before


@pytest.mark.usefixtures("folder")
def test_another_file_stops_the_job_and_deletes_what_was_there(gate: threading.Event) -> None:
    before = scratch_files()
    app = bring(page(), rows__csv=ROWS)
    app.button(key="many_start").click()
    app = run(app)
    first = job(app)
    app = bring(app, rows__csv=ROWS)
    gate.set()
    first.join()
    assert first.results[0].state == "stopped"
    assert job(app) is None
    wait_until(lambda: scratch_files() == before + 1, "the files to be deleted")


def test_the_end_of_a_session_stops_its_job_and_deletes_its_files(
    folder: Path, gate: threading.Event
) -> None:
    before, workspace = scratch_files(), Workspace()
    workspace.replace_files(
        [Upload("rows.csv", io.BytesIO(ROWS)), Upload("more.csv", io.BytesIO(ROWS))]
    )
    workspace.start(open_model(folder, "regression"), workspace.uploads, Options(), None)
    assert workspace.job is not None
    thread, results = workspace.job._thread, workspace.job.results
    wait_until(lambda: results[0].state == "scoring", "the job to begin")
    del workspace
    gc.collect()
    gate.set()
    thread.join()
    assert [result.state for result in results] == ["stopped", "stopped"]
    assert scratch_files() == before


def test_a_job_stops_soon_after_its_session_is_disconnected_and_its_files_stay(
    folder: Path, gate: threading.Event
) -> None:
    workspace, looks = Workspace(), iter([False, True, False, True, True])
    workspace.replace_files([Upload("rows.csv", io.BytesIO(ROWS))])
    workspace.start(open_model(folder, "regression"), workspace.uploads, Options(), None)
    job = workspace.job
    assert job is not None
    wait_until(lambda: job.results[0].state == "scoring", "the job to begin")
    seen: list[bool] = []

    def left() -> bool:
        seen.append(job.stopping)
        return next(looks, False)

    workspace.clear_when(left, every=0.001, times=1000, stop_after=2)
    wait_until(lambda: len(seen) > 5, "the session to be missed")
    gate.set()
    job.join()
    assert seen[:6] == [False, False, False, False, False, True]
    assert job.results[0].state == "stopped"
    assert not workspace.uploads[0].file.closed


def test_files_of_a_user_who_left_are_deleted_and_those_of_others_kept(folder: Path) -> None:
    before, workspaces, present = scratch_files(), [Workspace(), Workspace()], threading.Event()
    for workspace in workspaces:
        workspace.replace_files([Upload("rows.csv", io.BytesIO(ROWS))])
    held = [workspaces[0].uploads]  # as Streamlit holds what a button was given
    workspaces[0].start(open_model(folder, "regression"), workspaces[0].uploads, Options(), None)
    job = workspaces[0].job
    assert job is not None
    job.join()
    assert scratch_files() == before + 4
    workspaces[0].clear_when(lambda: True, every=0.01, times=3)
    workspaces[1].clear_when(lambda: present.set() or False, every=0.01, times=3)
    wait_until(lambda: scratch_files() == before + 1, "the files to be deleted")
    assert present.wait(60)
    assert [len(workspace.uploads) for workspace in workspaces] == [0, 1]
    assert held[0][0].file.closed


def test_a_full_disk_is_reported_and_ends_the_job(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(background, "finish_parquet", full)
    failed = Job(open_model(folder, "regression"), [Upload("a.csv", io.BytesIO(ROWS))], Options())
    failed.join()
    assert failed.results[0].state == "failed"
    assert "cannot be written: No space left on device" in failed.results[0].error


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.normal(0.4, 0.01, 50_000),
        lambda rng: rng.lognormal(0, 6, 50_000),
        lambda rng: np.full(1000, 3.5),
        lambda rng: np.zeros(1000),
        lambda rng: np.arange(-500.0, 500.0),
    ],
)
def test_a_histogram_of_parts_counts_every_number_once(
    draw: Callable[[np.random.Generator], Any],
) -> None:
    values = draw(np.random.default_rng(5))
    histogram = Histogram()
    for part in np.array_split(values, 7):
        histogram.add(part)
    bars, outside = histogram.bars()
    assert bars["rows"].sum() + outside == len(values)
    assert outside <= len(values) // 10
    assert len(bars) <= distributions.SHOWN
    for _, start, end, rows in bars.itertuples():
        assert abs(((values >= start) & (values < end)).sum() - rows) <= len(values) // 1000


def test_a_histogram_leaves_out_one_number_far_off() -> None:
    histogram = Histogram()
    histogram.add(np.append(np.linspace(0.3, 0.5, 1000), [1e300, -1e18]))
    bars, outside = histogram.bars()
    assert outside == 2
    assert bars["start"].min() > 0.2
    assert bars["end"].max() < 0.6
    assert len(bars) > 10


def test_shares_are_of_all_texts() -> None:
    shares = Shares(["bad", "good"])
    shares.add(["good", "good", "bad"], [False, True, False])
    shares.add(["good"], [False])
    bars = shares.bars().set_index(["label", "answer"])
    assert bars.loc[("good", "sure"), "share"] == 0.5
    assert bars.loc[("bad", "unsure"), "rows"] == 0
