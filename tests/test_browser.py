"""What only a real browser shows: Debian's Chromium, driven by Playwright."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from mlapp.regression import open_regression

ROW = {"var_1": "734", "var_2": "688", "var_3": "81", "var_4": "0.328", "var_5": "0.259"}
ADDRESS = "regression?" + "&".join(f"{name}={value}" for name, value in ROW.items())
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS + QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        context.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield context.new_page()


def fill(page: Page, row: dict[str, str]) -> None:
    for name, value in row.items():
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_role("button", name="Predict", exact=True).click()


def answer(page: Page, text: str) -> None:
    expect(page.get_by_test_id("stMetricValue")).to_have_text(text)


def test_a_person_predicts_the_chapters_row_and_shares_the_link(
    browser: Browser, page: Page, dashboard: Callable[[Path], str], shipped: Path
) -> None:
    prediction = open_regression(shipped, "regression").predict([ROW])["prediction"][0]
    page.goto(dashboard(shipped))
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    page.get_by_role("link", name="Use regression").click()
    fill(page, ROW)
    answer(page, f"{prediction:.3f}")
    expect(page.get_by_text("90% interval")).to_be_visible()
    expect(page.locator("canvas, svg.marks").first).to_be_visible()
    page.wait_for_url("**/regression?*var_4=0.328*")
    shared = {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}
    assert shared == ROW | {"_model": "regression"}
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
    page: Page, dashboard: Callable[[Path], str], shipped: Path
) -> None:
    page.goto(f"{dashboard(shipped)}/{ADDRESS}")
    answer(page, "0.401")
    fill(page, {"var_1": "800"})
    answer(page, "0.424")
    page.go_back()
    answer(page, "0.401")
    expect(page.get_by_label("var_1", exact=True)).to_have_value("734")


def test_a_cleared_field_is_refused_under_the_form(
    page: Page, dashboard: Callable[[Path], str], shipped: Path
) -> None:
    page.goto(f"{dashboard(shipped)}/regression")
    fill(page, {"var_2": ""})
    expect(page.get_by_text("Please enter valid values")).to_be_visible()
    expect(page.get_by_text("var_2: got nothing, expected a finite number")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_loaded_from_elsewhere_and_nothing_overflows_a_phone(
    scheme: str, browser: Browser, dashboard: Callable[[Path], str], shipped: Path
) -> None:
    address = dashboard(shipped)
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
