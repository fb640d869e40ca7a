"""The page in a real Chromium: nothing on the console, and the slider shows the figures of pilot.json."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest

from corank.pilot.page import render
from tests.pilot.sample import ENGINES, SHAPES, make_result

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `dev` brings playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
NASTY = {
    "stem.conv": "<script>document.title='owned'</script>",
    "body.0.conv1": "\"'><img src=x onerror=document.title='owned'>",
    "body.0.conv2": "\u202eright to left",
    "body.1.conv1": "layer." * 60,
    "body.1.conv2": "</script><b>bold</b>",
}


@cache
def _page(lang, nasty):
    result = make_result(names=NASTY if nasty else None)
    if nasty:
        result["arms"][2]["comparison"]["slices"][0]["name"] = NASTY["stem.conv"]
    return render(result, lang)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Open a page; what the console said must be nothing at the end, and nothing be asked for."""
    said, opened = [], []

    def open_page(lang="en", nasty=False, **terms):
        path = tmp_path / "report.html"
        path.write_text(_page(lang, nasty), encoding="utf-8")
        page = browser.new_page(**terms)
        opened.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url == path.as_uri() or said.append(request.url[:80]))
        page.goto(path.as_uri())
        return page

    yield open_page
    for page in opened:
        page.close()
    assert [one for one in said if not one.startswith("data:image/png")] == []


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_the_slider_shows_the_figures_of_the_json(visit, lang):
    result = make_result()
    page = visit(lang)
    points = result["front"]["points"]
    slider = page.get_by_role("slider")
    assert slider.input_value() == "2"  # the network of the page
    slider.focus()
    for place, key in ((2, None), (3, "ArrowRight"), (2, "ArrowLeft"), (0, "Home")):
        if key:
            page.keyboard.press(key)
        assert slider.input_value() == str(place)
        point = points[place]
        shown = page.locator(".shown-point dd .value").all_text_contents()
        assert shown[0] == f"{100 * point['accuracy']:.1f}%"
        macs = shown[2 + len(ENGINES)]
        assert macs == f"{point['macs'] / 1e6:.2f} M"
        if place:
            change = 100 * point["accuracy_difference"]
            assert shown[1] == f"{change:+.1f}".replace("-", "−")
            paces = [f"{point['speedup'][engine]:.2f}{'×' if lang == 'en' else '倍'}" for engine in ENGINES]
            assert shown[2 : 2 + len(ENGINES)] == paces
            assert paces[1] in page.locator("#front-said").text_content()
        assert shown[-1].startswith("€")
        assert float(shown[-1][1:]) == pytest.approx(result["economics"]["front"][place], rel=0.05)
        assert slider.get_attribute("aria-valuetext") == page.locator("#front-said").text_content()
        rings = page.locator('[id*="-ring"].shown')
        assert rings.count() == len(ENGINES)
        assert page.locator("#front-table tr.shown").count() == 1
    assert page.locator("html").get_attribute("lang") == lang


def test_every_figure_of_the_opening_leads_to_something_that_is_there(visit):
    page = visit()
    links = page.locator(".meeting a")
    assert links.count() > 10
    targets = links.evaluate_all("all => all.map(one => !!document.querySelector(one.hash))")
    assert all(targets)
    links.nth(2).click()
    assert page.locator(":target").text_content().strip().startswith("2.62 M")


def test_without_script_the_table_says_it_all(visit):
    page = visit(java_script_enabled=False)
    assert not page.locator("#front-box").is_visible()
    assert page.locator("#front-table tbody tr").count() == 4


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_hostile_names_stay_text(visit, lang):
    page = visit(lang, nasty=True)
    page.get_by_role("slider").press("End")
    assert page.title() != "owned"
    assert page.locator("img, b:text('bold')").count() == 0
    names = page.locator(".layers tbody th code").all_text_contents()
    assert names == [NASTY.get(layer, layer) for layer in SHAPES]


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_a_phone_does_not_scroll_sideways(visit, lang):
    page = visit(lang, nasty=True, viewport={"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_light_and_dark_are_told_apart(visit):
    dark, light = (visit(color_scheme=scheme) for scheme in ("dark", "light"))
    paper = "getComputedStyle(document.body).backgroundColor"
    assert dark.evaluate(paper) != light.evaluate(paper) == "rgb(255, 255, 255)"


def test_it_prints(visit, tmp_path):
    page = visit()
    assert page.pdf(path=str(Path(tmp_path, "report.pdf")), format="A4").startswith(b"%PDF")
    page.emulate_media(media="print")
    assert not page.locator("#front-box").is_visible()
    assert page.locator("#front-table").is_visible()
