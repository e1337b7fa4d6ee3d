"""Report pages in a real browser: Debian's Chromium, driven by Playwright, without a display.

Without a browser these tests fail: `apt-get install chromium` is what they need.
"""

from __future__ import annotations

import json
import shutil

import pytest
from hostile_study import hostile_study, traced_study, training_run
from playwright.sync_api import sync_playwright

from distributed_estimator.analysis.page import study_page, write_run_report
from distributed_estimator.analysis.study.data import study_data
from distributed_estimator.analysis.study.runs import load_study

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
LONGEST = 20_000
"""Milliseconds that a busy machine may take to open a page."""
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser():
    """Chromium; a machine without one fails the tests instead of leaving them out."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail(f"no browser of {NAMES} is installed: run `apt-get install chromium`")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of a study, a hostile one, a run and a hostile run, as URLs."""
    place = tmp_path_factory.mktemp("pages")
    studies = {"paper": traced_study(place / "paper"), "hostile": hostile_study(place / "hostile")}
    found = {}
    for name, folder in studies.items():
        data = study_data(load_study(folder))
        hashes = {sheet.name: "0" * 64 for sheet in data.sheets}
        path = place / f"{name}.html"
        path.write_text(study_page(data, place, "dest study report DIR", hashes))
        found[name] = path.as_uri()
    run = training_run(place / "run")
    evil = training_run(place / "evil", name="</script><img src=x onerror=alert(1)>")
    found["run"] = write_run_report(run).as_uri()
    return {**found, "hostile run": write_run_report(evil).as_uri()}


@pytest.fixture
def opened(browser, pages):
    """Opens pages, and fails at the end if one complained, asked something or fetched anything."""
    complaints, contexts = [], []

    def open_page(name, **options):
        context = browser.new_context(**{"viewport": DESK, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LONGEST)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda asked: asked.url == pages[name] or complaints.append(asked.url))
        page.goto(pages[name], timeout=LONGEST)
        page.wait_for_selector("html[data-drawn]", timeout=LONGEST)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def specs(page):
    """The charts of a page as its data has them."""
    return json.loads(page.locator("#data").text_content())["charts"]


def count(spec):
    """How many marks a chart is to have."""
    chart = spec["choices"][0]["chart"] if "choices" in spec else spec
    rows = [row for p in chart["panels"] for g in p.get("groups", ()) for row in g["rows"]]
    points = [one for p in chart["panels"] for one in p.get("series", ())]
    return sum(len(row["marks"]) for row in rows) + sum(len(one["points"]) for one in points)


def sideways(page):
    """By how many pixels the page scrolls sideways."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.mark.parametrize("name", ["paper", "run"])
def test_every_figure_is_drawn_with_a_mark_for_each_number(opened, name):
    page = opened(name)
    for chart, spec in specs(page).items():
        place = page.locator(f'[data-chart="{chart}"]')
        for number in range(place.locator("svg[data-panel]").count()):
            box = place.locator("svg[data-panel]").nth(number).bounding_box()
            assert min(box["width"], box["height"]) > 60, chart
        assert place.locator(".mark").count() == count(spec) > 0, chart


def test_page_opens_within_a_generous_limit(opened):
    page = opened("paper")
    took = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    print(f"the page opened in {took:.0f} ms")
    assert 0 < took < LONGEST


def test_bars_are_as_long_as_their_numbers(opened):
    page = opened("paper")
    place = page.locator("#fig7-accuracy")
    boxes = place.locator(".mark .box").all()
    lengths = [box.bounding_box()["width"] for box in boxes]
    spec = specs(page)["fig7-accuracy"]
    rows = [row for p in spec["panels"] for g in p["groups"] for row in g["rows"]]
    values = [row["marks"][0]["to"] for row in rows]
    scale = lengths[0] / values[0]
    # A bar's box includes its outline.
    assert lengths == pytest.approx([scale * value for value in values], abs=3)


def test_series_are_hidden_and_shown_with_the_keyboard(opened):
    page = opened("paper")
    figure = page.locator("#fig4-training-time")
    button = figure.locator(".legend button").nth(3)
    before = figure.locator(".mark").count()
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    assert button.evaluate("node => getComputedStyle(node).outlineWidth") == "3px"
    assert 0 < figure.locator(".mark").count() < before
    assert figure.locator('.mark[aria-label*="3 cuts"]').count() == 0
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert figure.locator(".mark").count() == before


def test_a_figure_without_any_series_says_so(opened):
    page = opened("paper")
    figure = page.locator("#stage-shares")
    for button in figure.locator(".legend button").all():
        button.click()
    assert figure.get_by_text("All series are hidden.").count() == figure.locator(".panel").count()


def test_hidden_stages_leave_no_gap(opened):
    page = opened("paper")
    figure = page.locator("#stage-shares")
    left = figure.locator(".mark .box").first.bounding_box()["x"]
    figure.locator(".legend button").first.click()
    assert figure.locator(".mark .box").first.bounding_box()["x"] == pytest.approx(left, abs=1)


def test_pointer_and_focus_show_the_numbers(opened):
    page = opened("paper")
    tip = page.locator("#tooltip")
    assert not tip.is_visible()
    mark = page.locator("#fig5-speed-up .mark").first
    mark.scroll_into_view_if_needed()
    mark.hover()
    assert tip.is_visible()
    assert "n = 1, measured, local simulator" in tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    mark.focus()
    assert tip.is_visible()
    first = tip.inner_text()
    page.keyboard.press("ArrowDown")
    assert tip.is_visible()
    assert tip.inner_text() != first
    shown = tip.bounding_box()
    assert shown["x"] >= 0
    assert shown["x"] + shown["width"] <= DESK["width"]


def test_a_figure_is_one_stop_of_the_tab_key(opened):
    page = opened("paper")
    for figure in page.locator("figure").all():
        assert figure.locator('.mark[tabindex="0"]').count() <= 1
    assert page.locator('#policies .mark[tabindex="0"]').count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_zoom_by_button_key_and_mouse(opened):
    page = opened("paper")
    figure = page.locator("#fig7-accuracy")
    reset = figure.get_by_role("button", name="Show all of the axis")

    def ticks():
        return figure.locator("svg[data-panel]").first.locator(".tick").all_text_contents()

    whole = ticks()
    assert reset.is_disabled()
    figure.get_by_role("button", name="Zoom in").click()
    assert ticks() != whole
    reset.click()
    assert ticks() == whole
    figure.locator(".mark").first.focus()
    page.keyboard.press("+")
    assert ticks() != whole
    page.keyboard.press("0")
    box = figure.locator("svg[data-panel]").first.bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 250, box["y"] + 60, steps=3)
    page.mouse.up()
    assert ticks() != whole
    assert not reset.is_disabled()


def test_an_axis_becomes_logarithmic_and_back(opened):
    page = opened("paper")
    figure = page.locator("#fig4-training-time")
    button = figure.get_by_role("button", name="Logarithmic axis")
    assert button.get_attribute("aria-pressed") == "true"
    assert "(logarithmic)" in figure.locator("text.axis").first.text_content()
    button.click()
    assert "(logarithmic)" not in figure.locator("text.axis").first.text_content()
    assert figure.locator(".mark").count() == count(specs(page)["fig4-training-time"])


def test_timelines_are_chosen_from_a_list(opened):
    page = opened("paper")
    figure = page.locator("#timeline")
    assert figure.locator("option").count() == 2
    figure.locator("select").select_option("1")
    assert "2 cuts" in figure.locator("h4").text_content()
    assert figure.get_by_text("injected delay").count() == 1
    assert figure.locator('.mark[aria-label^="injected delay"]').count() == 1


def ground(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_light_and_dark_follow_the_system_and_the_buttons(opened):
    light, dark = "rgb(255, 255, 255)", "rgb(20, 23, 28)"
    page = opened("paper", color_scheme="dark")
    assert ground(page) == dark
    page.get_by_role("button", name="Light").click()
    assert ground(page) == light
    page.reload()
    assert ground(page) == light
    page = opened("paper", color_scheme="light")
    assert ground(page) == light
    page.get_by_role("button", name="Dark").click()
    assert ground(page) == dark
    assert page.get_by_role("button", name="Dark").get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("name", ["paper", "hostile", "run", "hostile run"])
def test_a_phone_never_scrolls_sideways(opened, name):
    page = opened(name, viewport=PHONE)
    assert sideways(page) <= 0
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert sideways(page) <= 0
    page.set_viewport_size({"width": 320, "height": 600})
    assert sideways(page) <= 0


def test_figures_are_drawn_anew_when_the_window_narrows(opened):
    page = opened("paper")
    panel = page.locator("#policies svg[data-panel]").first
    before = panel.bounding_box()["width"]
    page.set_viewport_size(PHONE)
    page.wait_for_function(
        "width => document.querySelector('#policies svg[data-panel]').clientWidth < width - 100",
        arg=before,
    )
    assert sideways(page) <= 0


def test_paper_shows_all_tables_and_no_buttons(opened):
    page = opened("paper")
    page.emulate_media(media="print")
    assert not page.locator(".tools").first.is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() < page.locator("details").count()


@pytest.mark.parametrize("name", ["hostile", "hostile run"])
def test_hostile_text_does_nothing_wherever_it_is_shown(opened, name):
    page = opened(name)
    for mark in page.locator("figure .panel:first-child .mark").all()[:40]:
        mark.focus()
        assert page.locator("#tooltip").is_visible()
    for number in range(page.locator("#timeline option").count()):
        page.locator("#timeline select").select_option(str(number))
    assert page.locator("img, iframe, svg script, svg image, [onerror], [onload]").count() == 0
    assert page.locator("script").count() == 2
    assert "onerror=alert(1)" in page.locator("body").inner_text()


def test_a_script_that_is_not_the_pages_own_is_refused(browser, pages):
    context = browser.new_context()
    page = context.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(pages["paper"], timeout=LONGEST)
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        " document.body.append(s); }"
    )
    ran = page.evaluate("window.ran")
    context.close()
    assert ran is None
    assert any("Content Security Policy" in text for text in refused)
