"""Report pages as text: what they hold, what is escaped, and that nothing is fetched."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from hostile_study import HOSTILE, hostile_study, task, traced_study, write_tasks
from report_pages import marks, page_of
from study_folders import StudyFolder, on_machine, paper_study, sampled_by, trained

from distributed_estimator.analysis.page import study_page
from distributed_estimator.analysis.page.render import json_in_html
from distributed_estimator.analysis.page.timeline import MOST_TASKS, timelines_of
from distributed_estimator.analysis.study.data import study_data
from distributed_estimator.analysis.study.report import write_report
from distributed_estimator.analysis.study.runs import load_study
from distributed_estimator.errors import MissingExtraError

ASSETS = Path(study_page.__code__.co_filename).parent / "assets"
MOST_BYTES = 6 * 2**20


def study_page_of(folder):
    """The page of a study, without its tables and figures."""
    hashes = defaultdict(lambda: "0" * 64)
    place = folder / "report"
    html = study_page(study_data(load_study(folder)), place, f"dest study report {folder}", hashes)
    place.mkdir(exist_ok=True)
    (place / "report.html").write_text(html)
    return page_of(place / "report.html")


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """A study's folder, what it found, and its page."""
    folder = traced_study(tmp_path_factory.mktemp("page") / "study")
    with pytest.MonkeyPatch.context() as undrawn:  # the page has its own charts
        for name in ("draw_chart", "draw_stages"):
            place = f"distributed_estimator.analysis.study.report.{name}"
            undrawn.setattr(place, lambda _, png, svg, **__: (png.touch(), svg.touch()))
        written = write_report(folder)
    return folder, written.data, page_of(written.out / "report.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The page of a study with hostile text in every field."""
    return study_page_of(hostile_study(tmp_path_factory.mktemp("hostile") / "study"))


def test_every_figure_is_there_with_a_mark_for_each_number(paper):
    _, data, page = paper
    for chart in data.charts:
        bars = marks(page.charts[chart.name.replace("_", "-")])
        assert sorted(mark["to"] for mark in bars) == sorted(bar.value for bar in chart.bars)
    for name in ("stage-shares", "fleet-stages", "table1-reconstruction-share", "speed-ups"):
        assert marks(page.charts[name])
    assert [choice["label"] for choice in page.charts["timeline"]["choices"]] == [
        "mnist, 1 cut, eager, 8 workers",
        "mnist, 2 cuts, eager, 8 workers",
    ]
    drawn = page.parsed.attributes("data-chart")
    assert set(drawn) == set(page.charts)
    assert len(drawn) == 14
    assert page.parsed.count("figure") == 14 + 2  # two are tables alone


def test_bars_keep_spread_count_basis_and_bound(paper):
    _, _, page = paper
    by_name = {mark["told"][0]: mark for mark in marks(page.charts["fig4-training-time"])}
    measured = by_name["iris, ours, 2 cuts"]
    assert (measured["low"], measured["high"], measured["look"]) == (12, 36, "solid")
    assert measured["told"][2:] == ["min–max: 12 to 36", "n = 3, measured, local simulator"]
    extrapolated = by_name["iris, the paper's pipeline, 1 cut"]
    assert extrapolated["look"] == "hollow"
    assert "from 3 measured queries" in extrapolated["told"]
    assert all(mark["bound"] > 0 for mark in marks(page.charts["policies"]))


def test_table_1_shows_what_the_paper_states_beside_what_was_found(paper):
    stated = [
        m for m in marks(paper[2].charts["table1-reconstruction-share"]) if "stated" in m["look"]
    ]
    values = {(mark["to"], mark["high"]) for mark in stated}
    assert values == {(0.43, 0.474), (0.489, 0.533), (0.53, 0.58)}


def test_head_names_study_machine_versions_and_headlines(paper):
    text = paper[2].parsed.text
    for told in (
        "Study paper, scale full",
        "Machine",
        "Versions",
        "python 3.",
        "Commit",
        "usable_cpus",
    ):
        assert told in text
    for told in ("RQ1: what cutting costs", "paper: increases sharply", "not met", "at most 0.02"):
        assert told in text
    assert "failed" in text.lower()
    assert "Aer died" in text


def test_figures_link_to_records_and_files_that_exist_and_say_the_command(paper):
    folder, data, page = paper
    links = [link for link in page.parsed.attributes("href") if not link.startswith(("#", "data:"))]
    report_folder = folder / "report"
    assert all((report_folder / unquote(link)).exists() for link in links)
    folders = {Path(unquote(link)).name for link in links if link.startswith("../runs/")}
    assert folders >= {run for chart in data.charts for bar in chart.bars for run in bar.runs}
    assert page.parsed.text.count(f"Redraw: dest study report {folder}") >= 13
    about = json.loads((report_folder / "figures" / "policies.json").read_text())
    assert about["data_sha256"] in page.html


def test_a_report_elsewhere_links_back_to_the_records(tmp_path):
    folder = StudyFolder(tmp_path / "the study").path
    StudyFolder.add(
        SimpleNamespace(path=folder, config=StudyFolder.config), "training", "train", trained(2.0)
    )
    write_report(folder, tmp_path / "some" / "place")
    page = page_of(tmp_path / "some" / "place" / "report.html")
    links = [link for link in page.parsed.attributes("href") if "runs/" in link]
    assert links
    assert all(link.startswith("../../the%20study/runs/") for link in links)
    assert all((tmp_path / "some" / "place" / unquote(link)).is_dir() for link in links)


def test_what_was_not_measured_says_so_and_how_to_run_it(tmp_path):
    study = StudyFolder(tmp_path / "study", scale="smoke")
    study.add("training", "train", cause="no memory")
    page = study_page_of(study.path)
    assert page.charts == {}
    assert page.parsed.text.count("Not measured. To run what is missing: dest study run") == 15
    assert "not measured" in page.parsed.text
    assert "Not measured here: repeated subexperiments" in page.parsed.text


def test_explanation_is_made_of_the_studys_own_numbers(tmp_path):
    study = paper_study(tmp_path / "study")
    on_machine(study.path, usable_cpus="2")
    told = [reason.text for reason in study_data(load_study(study.path)).reasons]
    # 864 and 30 subexperiments; 1000, 2000 and 3000 s a query, half of it reconstruction.
    assert any("864 subexperiments a query" in one and "28.8 times fewer" in one for one in told)
    assert any("That took 1,000 s of a query" in one for one in told)
    # 0.4 of 2000 s for 864 subexperiments, against 0.4 of 2 s uncut.
    assert any(
        "is 800 ms for one circuit; with 3 cuts" in one and "is 926 ms for" in one for one in told
    )
    assert any("Thread oversubscription" in one and "3 times as long" in one for one in told)
    assert all(re.search(r"\d", one) or one.startswith("Not measured here") for one in told)


def test_sentences_lead_to_their_numbers_and_say_what_is_extrapolated(tmp_path):
    folder = traced_study(tmp_path / "study")
    on_machine(folder, usable_cpus="2")
    sampled_by(folder, "x.Y")
    page = study_page_of(folder)
    links = page.parsed.attributes("href")
    assert links.count("#causes") == 4
    assert links.count("#savings") == 0  # drawn as two figures, of which one is named
    assert {"#saved-subexperiments", "#stage-shares"} <= set(links)
    soft = re.findall(r'<li class="unmeasured">(.*?)</li>', page.html)
    assert any(one.startswith("Extrapolated, not measured") for one in soft)
    assert not any(one.startswith("Thread oversubscription") for one in soft)


def test_the_cost_model_is_on_the_page_with_its_bar(paper, tmp_path):
    text = paper[2].parsed.text
    assert "Held-out configurations, median relative error of T_total. Bar: at most 0.15." in text
    assert "n = 20 configurations" in text
    study = StudyFolder(tmp_path / "study")
    study.add("shares", "queries", {"median_seconds": 1.0}, queries=[{}])
    told = study_page_of(study.path).parsed.text
    assert "all setups not measured 1 setup is not validated: that takes 9" in told


def test_page_is_one_file_within_its_size_and_fetches_nothing(paper):
    page = paper[2]
    assert len(page.html.encode()) < MOST_BYTES
    fetched = Counter(tag for tag, a in page.parsed.elements if "src" in a or "srcset" in a)
    assert not fetched
    assert [a["href"] for tag, a in page.parsed.elements if tag == "link"] == ["data:,"]
    outside = [link for link in page.parsed.attributes("href") if re.match(r"\w+:(?!,)", link)]
    assert outside == []
    assert "@import" not in page.html
    assert "default-src 'none'" in page.html


@pytest.mark.soak
def test_many_long_timelines_stay_within_the_pages_size(tmp_path):
    study = StudyFolder(tmp_path / "study")
    for cuts in range(4):
        for workers in range(1, 13):
            what = {"cuts": cuts, "workers": workers}
            results = {"median_seconds": 1.0}
            folder = study.add("shares", "queries", results, queries=[{}], **what)
            write_tasks(folder, [task(number) for number in range(MOST_TASKS + 1)])
    found, kinds = timelines_of(load_study(study.path))
    assert (len(found), kinds) == (40, 48)
    page = study_page_of(study.path)
    assert len(page.html.encode()) < MOST_BYTES
    assert "40 of 48 kinds are shown" in page.parsed.text
    assert "300 of 301 shown" in page.html


def test_ids_are_unique_and_landmarks_and_headings_in_place(paper):
    parsed = paper[2].parsed
    ids = parsed.attributes("id")
    assert len(ids) == len(set(ids))
    assert dict(parsed.elements[0][1]) == {"lang": "en"}
    assert [parsed.count(tag) for tag in ("h1", "main", "header", "nav", "footer", "title")] == [
        1
    ] * 6
    assert {link[1:] for link in parsed.attributes("href") if link.startswith("#")} <= set(ids)
    assert set(parsed.attributes("aria-labelledby")) <= set(ids)
    captions = parsed.count("caption")
    assert captions == parsed.count("table") >= 13
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(below <= above + 1 for above, below in pairwise(levels))


def test_hostile_text_is_shown_and_never_taken_for_html(hostile):
    parsed = hostile.parsed
    assert Counter(tag for tag, _ in parsed.elements)["script"] == 2
    assert not {"img", "svg", "iframe", "object", "base"} & {tag for tag, _ in parsed.elements}
    assert not [name for _, a in parsed.elements for name in a if name.startswith("on")]
    assert all(
        link.startswith(("#", "../", "tables/", "figures/", "data:,"))
        for link in parsed.attributes("href")
    )
    assert "<img src=x" not in hostile.html
    assert "alert(1)</script>" not in hostile.html
    for shown in ("<img src=x onerror=alert(1)>", "{{ 7 * 191 }}{% raw %}", "שלום عالم", "🧪"):
        assert shown in parsed.text
    assert "1337" not in hostile.html
    assert parsed.text.count("Mid-circuit measurement (") >= len(HOSTILE)
    assert "contracted: sampled value, <img src=x onerror=alert(1)>" in parsed.text
    assert ASSETS.joinpath("page.js").read_text() in hostile.html


def test_hostile_text_is_shortened_and_cannot_turn_the_writing_round(hostile):
    for left_out in ("\u202e", "\u2066", "\u2028", "\x00", "\x1b", "y" * 500):
        assert left_out not in hostile.html
    assert "yyy…" in hostile.parsed.text
    told = json.dumps(hostile.charts)
    for left_out in ("\\u202e", "\\u2028", "\\u0000", "y" * 500):
        assert left_out not in told


@pytest.mark.parametrize("text", HOSTILE)
def test_json_cannot_end_its_element(text):
    written = json_in_html({"name": text})
    assert json.loads(written) == {"name": text}
    assert written.isascii()
    assert not re.search(r"[<>&]", written)


def test_the_same_records_give_the_same_page(tmp_path):
    folder = traced_study(tmp_path / "study")
    first, second = (study_page_of(folder).html for _ in range(2))
    assert first == second


def colours(css):
    """Custom properties by theme."""
    light, dark = (
        re.search(start + r"([^}]*)\}", css).group(1) for start in (r":root \{", r'="dark"\] \{')
    )
    return [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in (light, dark)]


def luminance(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_bars_have_the_contrast_of_wcag_aa(theme):
    found = colours(ASSETS.joinpath("page.css").read_text())[theme]
    for ground in (found["paper"], found["raised"]):
        for text in ("text", "soft", "link", "good", "bad"):
            assert contrast(found[text], ground) >= 4.5, text
        for drawn in ("blue", "orange", "green", "red", "pink", "grey", "focus"):
            assert contrast(found[drawn], ground) >= 3, drawn


def test_series_differ_by_pattern_and_not_by_colour_alone(paper):
    seen = 0
    for spec in paper[2].charts.values():
        for chart in [choice["chart"] for choice in spec.get("choices", ())] or [spec]:
            cuts = [key for key in chart["keys"] if key["id"].startswith("cuts-")]
            seen += len(cuts) == 4
            assert len({key["pattern"] for key in cuts}) == len(cuts)
            assert len({key["shape"] for key in cuts}) == len(cuts)
    assert seen >= 5  # Fig. 4 to 8


def test_without_jinja_nothing_is_written(tmp_path, monkeypatch):
    study = StudyFolder(tmp_path / "study")
    study.add("training", "train", cause="no memory")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match="distributed-estimator\\[report\\]"):
        write_report(study.path)
    assert not (study.path / "report").exists()
