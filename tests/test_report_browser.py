"""Report pages in a real browser: Debian's Chromium, driven by Playwright, without a display.

Without a browser these tests fail: `apt-get install chromium` is what they need.
"""

from __future__ import annotations

import json
import shutil

import pytest
from hostile_study import hostile_study, traced_study, training_run
from playwright.sync_api import sync_playwright

from distributed_estimator.analysis.pages import write_run_report
from distributed_estimator.analysis.report import StudyData, study_page
from distributed_estimator.analysis.study import load_study

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
LONGEST = 60_000
"""Milliseconds that a busy machine may take to open a page."""
PHONE = {"width": 375, "height": 740}
TABLET = {"width": 768, "height": 1000}
DESK = {"width": 1280, "height": 900}
WIDE = {"width": 1920, "height": 1080}


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
        path = place / f"{name}.html"
        data = StudyData.of(load_study(folder))
        path.write_text(study_page(data, place, "dest study report DIR"), "utf-8")
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


def charts(page):
    """The figures of a page as its data has them."""
    return json.loads(page.locator("#data").text_content())


def bars(figure):
    return figure.locator('.mark-rect path[aria-roledescription="bar"]')


def sideways(page):
    """By how many pixels the page scrolls sideways."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.mark.parametrize("name", ["paper", "run"])
def test_every_figure_is_drawn(opened, name):
    page = opened(name)
    for chart, spec in charts(page).items():
        panels = page.locator(f'[data-chart="{chart}"] svg')
        assert panels.count() == len(spec.get("panels", "1")), chart
        for number in range(panels.count()):
            box = panels.nth(number).bounding_box()
            assert min(box["width"], box["height"]) > 60, chart
    if name == "paper":
        figure = charts(page)["fig6-slow-down"]
        rows = [row for p in figure["panels"] for row in p["data"]["values"]]
        assert bars(page.locator("#fig6-slow-down")).count() == sum(not r["head"] for r in rows)


def test_bars_are_as_long_as_their_numbers(opened):
    page = opened("paper")
    panel = charts(page)["fig6-slow-down"]["panels"][0]
    values = [row["value"] for row in panel["data"]["values"] if not row["head"]]
    drawn = bars(page.locator("#fig6-slow-down .panel").first)
    lengths = drawn.evaluate_all("all => all.map(bar => bar.getBBox().width)")  # without outlines
    scale = lengths[0] / values[0]
    assert lengths == pytest.approx([scale * value for value in values], abs=1)


def test_series_are_hidden_and_shown_with_the_keyboard(opened):
    page = opened("paper")
    figure = page.locator("#fig4-training-time")
    button = figure.get_by_role("button", name="3 cuts")
    before = bars(figure).count()
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    assert button.evaluate("node => getComputedStyle(node).outlineWidth") == "3px"
    page.wait_for_function(
        "n => document.querySelectorAll('#fig4-training-time .mark-rect path').length < n",
        arg=before,
    )
    assert figure.locator('[aria-label*="key: 3 cuts"]').count() == 0
    page.keyboard.press("Enter")
    page.wait_for_function(
        "n => document.querySelectorAll('#fig4-training-time .mark-rect path').length === n",
        arg=before,
    )


def test_a_figure_without_any_series_says_so(opened):
    page = opened("paper")
    figure = page.locator("#stage-shares")
    assert not figure.get_by_text("All series are hidden.").is_visible()
    for button in figure.locator(".legend button").all():
        button.click()
    assert figure.get_by_text("All series are hidden.").is_visible()


def test_hidden_stages_leave_no_gap(opened):
    page = opened("paper")
    figure = page.locator("#stage-shares")
    left = bars(figure).first.bounding_box()["x"]
    figure.locator(".legend button").first.click()
    page.wait_for_timeout(300)
    assert bars(figure).first.bounding_box()["x"] == pytest.approx(left, abs=2)


def test_the_pointer_shows_the_numbers(opened):
    page = opened("paper")
    bar = bars(page.locator("#fig5-speed-up")).first
    bar.scroll_into_view_if_needed()
    bar.hover()
    tip = page.locator("#vg-tooltip-element")
    tip.wait_for(state="visible")
    assert "n = 1, measured, local simulator" in tip.inner_text()
    shown = tip.bounding_box()
    assert shown["x"] >= 0
    assert shown["x"] + shown["width"] <= DESK["width"]


def test_everything_is_reached_with_the_keyboard(opened):
    page = opened("paper")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for figure in page.locator("figure").all():  # its numbers stand in a table, too
        assert figure.locator("summary, .empty").count() > 0
        assert all(t.get_attribute("tabindex") == "0" for t in figure.locator(".table").all())


def test_an_axis_is_zoomed_and_becomes_linear(opened):
    page = opened("paper")
    figure = page.locator("#fig4-training-time")

    def ticks():
        texts = figure.locator("svg").first.locator(".role-axis-label text").all_text_contents()
        return [text for text in texts if text]

    whole = ticks()
    figure.get_by_role("button", name="Zoom in").click()
    page.wait_for_timeout(300)
    assert ticks() != whole
    figure.get_by_role("button", name="Show all of the axis").click()
    page.wait_for_timeout(500)
    assert ticks() == whole
    button = figure.get_by_role("button", name="Logarithmic axis")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    page.wait_for_timeout(500)
    assert ticks()[0] == "0 s"
    assert bars(figure).count() > 0


def test_timelines_are_chosen_from_a_list(opened):
    page = opened("paper")
    figure = page.locator("#timeline")
    assert figure.locator("option").count() == 2
    figure.locator("select").select_option("1")
    figure.locator("h4", has_text="2 cuts").wait_for()
    assert figure.get_by_role("button", name="injected delay").count() == 1
    assert figure.locator('[aria-label*="key: injected delay"]').count() == 1


def ground(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def ink(page):
    return page.locator("#fig7-accuracy svg text").first.evaluate("n => getComputedStyle(n).fill")


def test_light_and_dark_follow_the_system_and_the_buttons(opened):
    light, dark = "rgb(255, 255, 255)", "rgb(20, 23, 28)"
    page = opened("paper", color_scheme="dark")
    assert ground(page) == dark
    assert ink(page) == "rgb(170, 178, 189)" or ink(page) == "rgb(232, 234, 237)"
    page.get_by_role("button", name="Light").click()
    assert ground(page) == light
    page.reload()
    page.wait_for_selector("html[data-drawn]", timeout=LONGEST)
    assert ground(page) == light
    page = opened("paper", color_scheme="light")
    assert ground(page) == light
    page.get_by_role("button", name="Dark").click()
    assert ground(page) == dark
    assert page.get_by_role("button", name="Dark").get_attribute("aria-pressed") == "true"


def cut_off(page, selector):
    """Texts of the elements whose content is wider than they are."""
    return page.locator(selector).evaluate_all(
        "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText)"
    )


@pytest.mark.parametrize("size", [WIDE, DESK, TABLET, PHONE])
@pytest.mark.parametrize("name", ["paper", "run"])
def test_cards_are_whole_and_of_one_height(opened, name, size):
    page = opened(name, viewport=size)
    assert cut_off(page, ".card, .range") == []
    heights = [round(card.bounding_box()["height"]) for card in page.locator(".card").all()]
    assert len(heights) >= 4
    assert size is PHONE or max(heights) - min(heights) <= 1


@pytest.mark.parametrize("size", [WIDE, DESK, TABLET, PHONE])
@pytest.mark.parametrize("name", ["paper", "run"])
def test_no_chart_is_cut_off(opened, name, size):
    page = opened(name, viewport=size)
    outside = page.locator(".panel").evaluate_all(
        """all => all.flatMap(panel => {
          const edge = panel.getBoundingClientRect();
          return [...panel.querySelectorAll("text")].filter(text => {
            const box = text.getBoundingClientRect();
            return box.left < edge.left - 1 || box.right > edge.right + 1;
          }).map(text => text.textContent);
        })"""
    )
    assert outside == []


def test_a_wide_table_scrolls_beside_its_first_column(opened):
    page = opened("paper", viewport=PHONE)
    table = page.locator("#changes .table")
    first = table.locator("td").first
    before = first.bounding_box()["x"]
    assert table.evaluate("one => one.scrollWidth - one.clientWidth") > 100
    table.evaluate("one => { one.scrollLeft = one.scrollWidth; }")
    assert first.bounding_box()["x"] == pytest.approx(before, abs=1)
    last = table.locator("tbody tr").first.locator("td").last.bounding_box()
    assert last["x"] + last["width"] <= PHONE["width"]


@pytest.mark.parametrize("size", [WIDE, DESK, TABLET, PHONE])
@pytest.mark.parametrize("name", ["paper", "hostile", "run", "hostile run"])
def test_no_page_scrolls_sideways(opened, name, size):
    page = opened(name, viewport=size)
    assert sideways(page) <= 0
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
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
    for mark in page.locator(".mark-rect path, .mark-symbol path").all()[:20]:
        mark.dispatch_event("pointermove", {"bubbles": True})
    for number in range(page.locator("#timeline option").count()):
        page.locator("#timeline select").select_option(str(number))
        page.wait_for_timeout(100)
    assert page.locator("img, iframe, svg script, svg image, [onerror], [onload]").count() == 0
    assert page.locator("script").count() == 3
    assert "onerror=alert(1)" in page.locator("body").inner_text()


def test_a_script_that_is_not_the_pages_own_is_refused(browser, pages):
    context = browser.new_context()
    page = context.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(pages["run"], timeout=LONGEST)
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        " document.body.append(s); }"
    )
    ran = page.evaluate("window.ran")
    context.close()
    assert ran is None
    assert any("Content Security Policy" in text for text in refused)
