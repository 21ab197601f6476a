"""What only a real browser shows: Debian's Chromium, driven by Playwright."""

import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from mlapp.scoring import files
from mlapp.store import open_model
from tests.conftest import open_regression

pytestmark = pytest.mark.slow(8)

ROW = {"var_1": "734", "var_2": "688", "var_3": "81", "var_4": "0.328", "var_5": "0.259"}
ADDRESS = "regression?" + "&".join(f"{name}={value}" for name, value in ROW.items())


def fill(page: Page, row: dict[str, str]) -> None:
    for name, value in row.items():
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_role("button", name="Predict", exact=True).click()


def answer(page: Page, text: str) -> None:
    expect(page.get_by_test_id("stMetricValue")).to_have_text(text)


def test_a_person_predicts_the_chapters_row_and_shares_the_link(
    browser: Browser, page: Page, shipped_dashboard: str, shipped: Path
) -> None:
    model = open_regression(shipped)
    prediction, version = model.predict([ROW])["prediction"][0], model.manifest.version
    page.goto(shipped_dashboard)
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    page.get_by_role("link", name="Use regression").click()
    fill(page, ROW)
    answer(page, f"{prediction:.3f}")
    expect(page.get_by_text("90% interval")).to_be_visible()
    expect(page.locator("canvas, svg.marks").first).to_be_visible()
    page.wait_for_url("**/regression?*var_4=0.328*")
    shared = {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}
    assert shared == ROW | {"_model": "regression", "_version": str(version)}
    with browser.new_context() as elsewhere:
        other = elsewhere.new_page()
        other.goto(page.url)
        answer(other, f"{prediction:.3f}")
        expect(other.get_by_label("var_4", exact=True)).to_have_value("0.328")


def test_a_processes_first_visitor_may_come_by_a_link(
    page: Page, dashboard: Callable[[Path], str], shipped: Path
) -> None:
    page.goto(f"{dashboard(shipped)}/{ADDRESS}")
    answer(page, "0.401")
    expect(page.get_by_role("link", name="Home")).to_be_visible()
    expect(page.get_by_test_id("stSidebar")).to_have_count(0)


def test_the_browsers_back_button_returns_to_the_prediction_before(
    page: Page, shipped_dashboard: str
) -> None:
    page.goto(f"{shipped_dashboard}/{ADDRESS}")
    answer(page, "0.401")
    fill(page, {"var_1": "800"})
    answer(page, "0.424")
    page.go_back()
    answer(page, "0.401")
    expect(page.get_by_label("var_1", exact=True)).to_have_value("734")


def test_a_cleared_field_is_refused_under_the_form(
    page: Page, shipped_dashboard: str, shipped: Path
) -> None:
    page.goto(f"{shipped_dashboard}/regression")
    fill(page, {"var_2": ""})
    expect(page.get_by_text("Please enter valid values")).to_be_visible()
    expect(page.get_by_text("var_2: got nothing, expected a finite number")).to_be_visible()


def test_no_hint_covers_the_number_that_is_typed_and_enter_predicts(
    page: Page, shipped_dashboard: str
) -> None:
    page.goto(f"{shipped_dashboard}/{ADDRESS}")
    answer(page, "0.401")
    number = page.get_by_label("var_4", exact=True)
    for width in (320, 390, 768, 1024, 1280, 1366, 1440, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        number.fill(str(width / 10_000))
        entry = number.bounding_box()
        assert entry
        for hint in page.get_by_test_id("InputInstructions").all():
            covering = hint.bounding_box()
            assert covering is None or covering["y"] >= entry["y"] + entry["height"], width
    number.fill("0.2")
    number.press("Enter")
    page.wait_for_url("**var_4=0.2&*")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_loaded_from_elsewhere_and_nothing_overflows_a_phone(
    scheme: str, browser: Browser, shipped_dashboard: str, shipped: Path
) -> None:
    address = shipped_dashboard
    with browser.new_context(
        viewport={"width": 390, "height": 844}, color_scheme="dark" if scheme == "dark" else "light"
    ) as phone:
        page = phone.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for place in ("", ADDRESS):
            page.goto(f"{address}/{place}")
            expect(page.get_by_test_id("stMetricValue").first).to_be_visible()
        page.get_by_role("tab", name="About this model").click()
        expect(page.get_by_text("Interval coverage")).to_be_visible()
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= 390
    hosts = {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}


def bring(page: Page, address: str, source: Path) -> None:
    page.goto(address)
    page.get_by_role("tab", name=re.compile("^Many ")).click()
    page.locator("input[type=file]").set_input_files(source)
    page.get_by_role("button", name="Score the file").click()


def test_a_file_is_brought_scored_and_taken_home(
    page: Page, shipped_dashboard: str, shipped: Path, tmp_path: Path
) -> None:
    source, row = tmp_path / "rows.csv", ",".join(ROW.values())
    bad = row.replace("688", "n/a")
    lines = [f"id,{','.join(ROW)}", *(f"{number},{row}" for number in range(999)), f"999,{bad}"]
    source.write_text("\n".join(lines))
    address = shipped_dashboard
    bring(page, f"{address}/regression", source)
    expect(page.get_by_test_id("stMetricValue")).to_have_text(
        ["1,000", "999", "0", "1", re.compile(r"[\d.]+")]
    )
    with urllib.request.urlopen(f"{address}/_stcore/metrics") as response:
        assert b"UploadedFileManager" not in response.read()
    model = open_model(shipped, "regression")
    summary = files.score(model, source, tmp_path / "rows.parquet")
    assert summary.refused == ((1000, "var_2: got 'n/a', expected a finite number"),)
    files.score(model, source, tmp_path / "expected.csv")
    for button, name, expected in (
        ("CSV,", "rows-scored.csv", "expected.csv"),
        ("Parquet,", "rows-scored.parquet", "rows.parquet"),
    ):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        assert download.value.suggested_filename == name
        assert download.value.path().read_bytes() == (tmp_path / expected).read_bytes()
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390


def test_a_long_run_shows_how_far_it_is_leaves_the_page_usable_and_can_be_stopped(
    page: Page, shipped_dashboard: str, tmp_path: Path
) -> None:
    review = "A warm and wonderful film: I would gladly see it again"
    source = tmp_path / "reviews.csv"
    # Minutes of work, so that no machine is done before the button is pressed.
    source.write_text("review\n" + f"{review}\n" * 1_000_000)
    bring(page, f"{shipped_dashboard}/sentiment", source)
    expect(
        page.get_by_text(re.compile(r"[1-9][\d,]* rows · [\d,]+ rows/s · \d+:\d\d left"))
    ).to_be_visible()
    page.get_by_role("tab", name="Predict").click()
    page.get_by_label("Review", exact=True).fill(review)
    page.get_by_role("button", name="Predict sentiment").click()
    expect(page.get_by_test_id("stMetricValue").first).to_have_text("Positive")
    page.get_by_role("tab", name="Many texts").click()
    progress = page.get_by_text(re.compile(r"rows · "))
    before = progress.inner_text()
    expect(progress).not_to_have_text(before)  # the page is done with changing tabs
    # Streamlit has a button of that name in the header while a script runs.
    page.get_by_role("tabpanel").get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Only complete results are kept")).to_be_visible()
    expect(page.get_by_role("button", name="Score the file")).to_be_enabled()
