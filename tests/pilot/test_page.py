import base64
import copy
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from corank.errors import ExtraError, FileError
from corank.pilot.drawing import PALETTE
from corank.pilot.page import page_language, render, write_report
from corank.wording import LANGUAGES
from tests.pilot.sample import ENGINES, SHAPES, make_result

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=y> {{ 7*7 }} $x^2$ </svg>"
VOID = {"meta", "br", "hr", "img", "link", "input", "col"}


class Page(HTMLParser):
    """Collects what a page is made of, and fails where a tag is not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attrs, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attrs += [(tag, name, value or "") for name, value in attrs]
        assert len({name for name, _ in attrs}) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attrs += [(tag, name, value or "") for name, value in attrs]
        assert "svg" in self.open  # elsewhere HTML ignores the slash, and the element would stay open

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def values(self, name):
        return [value for _, attr, value in self.attrs if attr == name]


@pytest.fixture(scope="module")
def result():
    return make_result()


@pytest.fixture(scope="module")
def html(result):
    return render(result)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_a_report_is_written_whole_and_alone(tmp_path, result, html):
    path = tmp_path / "report.html"
    path.write_text("older")

    assert write_report(result, path) == path
    assert path.read_text(encoding="utf-8") == html
    assert list(tmp_path.iterdir()) == [path]


def test_equal_results_give_equal_pages(html):
    assert render(make_result()) == html


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_figure_of_an_arm_is_on_the_page(result, page, number, engine):
    arm = result["arms"][number]
    low, high = (100 * x for x in arm["accuracy_ci"])
    fast, slow = arm["latency_p5_p95"][engine]
    expected = [
        f"{100 * arm['accuracy']:.1f}%",
        f"{low:.1f} to {high:.1f}%",
        f"{arm['macs'] / 1e6:.2f} M",
        f"{arm['params'] / 1e3:.{0 if arm['params'] > 1e5 else 1}f} k",
        f"{arm['bytes'] / 1024:.0f} KiB",
        f"{arm['latency_ms'][engine]:#.3g} ms",
        f"{fast:#.3g} to {slow:#.3g} ms",
        f"torch {arm['peak_memory']['torch'] / 2**20:.2f} MiB",
        arm["model_file"],
    ]
    if arm["name"] != "dense":
        low, high = arm["speedup_ci"][engine]
        less, more = (100 * x for x in arm["accuracy_difference_ci"])
        expected += [
            f"{arm['speedup'][engine]:.2f}×",
            f"{low:.2f} to {high:.2f}×",
            f"−{-100 * arm['accuracy_difference']:.1f}",
            f"{less:+.1f} to {more:+.1f}".replace("-", "−"),
            f"{100 * arm['accuracy_after_cut']:.1f}% right after the cut",
            f"{arm['decomposed']} of {len(SHAPES)} layers decomposed",
            f"spectral rank {100 * arm['spectral_rank_ratio']:.0f}% of full",
            f"plan rank {100 * arm['plan_rank_ratio']:.0f}% of full",
            arm["plan_file"],
        ]
    assert [text for text in expected if text not in page.text] == []


def test_each_layer_is_on_the_page_with_its_ranks_or_the_reason(result, page):
    for layer in result["arms"][1]["layers"]:
        row = page.text.split(f" {layer['name']} {layer['kind']} ")[1]
        start = f"{layer['full_rank']} {layer['spectral_rank']} "
        if layer["plan_rank"] is None:
            start += f"left alone {layer['reason']}"
        else:
            start += f"{layer['plan_rank']} of {layer['full_rank']} {layer['method']} {layer['error']:.2f}"
        assert row.startswith(start)


def test_protocol_and_proofs_are_shown_in_full(result, page):
    protocol = result["protocol"]
    expected = [*result["proves"], result["command"], result["created"]]
    expected += [protocol["data"], protocol["model"], "train 1077, dev 360, final 360", "strength 0.003"]
    expected += [f"{name} {version}" for name, version in protocol["versions"].items()]
    expected += ["shared 6, before_cut 12, after_cut 8, total 26", "macs 0.5", "float32", "x86_64, 2 cores"]
    assert [text for text in expected if text not in page.text] == []


def test_subnormal_weights_are_counted_where_the_result_has_them(result, page):
    assert "1,234 before the cut, 17 at the end" in page.text
    older = copy.deepcopy(result)
    for arm in older["arms"]:
        del arm["subnormal"]
    assert "ubnormal" not in Page(render(older)).text


def test_a_part_of_the_protocol_that_is_new_is_shown_too(result):
    more = copy.deepcopy(result)
    more["protocol"]["augmentation"] = {"shift": 1}
    assert "augmentation shift 1" in Page(render(more)).text


def test_the_spread_over_seeds_is_shown_where_there_are_several(result, page):
    values = result["spread"]["arms"]["force"]["speedup"]["torch"]
    assert f"{min(values):.2f} to {max(values):.2f}×" in page.text.split("Spread over seeds")[1]
    assert "Spread over seeds" not in render(make_result(seeds=(0,)))


def test_every_picture_is_there_and_says_what_it_shows(html, page):
    pictures = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    cut = len(SHAPES) - 1  # all but the last layer
    assert len(pictures) == 2 * len(ENGINES) + 1 + 2 + cut + 2
    for svg in pictures:
        title = re.search(r'<title id="(.*?)">(.+?)</title><desc id="(.*?)">(.+?)</desc>', svg)
        assert f'role="img" aria-labelledby="{title[1]} {title[3]}"' in svg
        assert len(title[4]) > 20
    assert page.tags.count("h1") == 1


def test_ids_are_unique_and_references_lead_to_them(html, page):
    ids = page.values("id")
    assert len(ids) == len(set(ids)) > 50
    named = [name for attr in ("aria-labelledby", "aria-describedby") for name in page.values(attr)]
    wanted = {name for names in named for name in names.split()}
    wanted |= {value[1:] for value in page.values("href") if value.startswith("#")}
    wanted |= set(re.findall(r"url\(#(.*?)\)", html))
    assert wanted <= set(ids)


def test_nothing_is_loaded_and_nothing_runs_but_the_slider(html, page):
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert {"link", "img", "iframe", "object"} & set(page.tags) == set()
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'; " in page.values("content")[0]
    assert "<script" not in render(make_result() | {"front": None})
    assert page.values("src") == []
    assert {value[:1] for value in page.values("href")} == {"#", "d"}
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in page.values("href"))
    assert set(re.findall(r"url\((.)", html)) == {"#"}
    assert page.values("content")[0].startswith(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-"
    )


def test_a_picture_cannot_restyle_the_page(html):
    assert html.count("<style") == 1


def test_hostile_names_stay_text():
    result = make_result(engines=(HOSTILE, "b"), names={layer: f"{layer}{HOSTILE}" for layer in SHAPES})
    for arm in result["arms"]:
        arm["reasons"] = {"peak_memory": HOSTILE}
        arm["peak_memory"] = {}
        for layer in arm["layers"]:
            layer["reason"] = HOSTILE
    result["arms"][1]["name"] = HOSTILE
    result["arms"][1]["model_file"] = HOSTILE
    result["spread"]["arms"][HOSTILE] = result["spread"]["arms"].pop("lowrank")
    result |= {
        "summary": [HOSTILE],
        "proves": [HOSTILE],
        "command": HOSTILE,
        "created": HOSTILE,
        "corank": HOSTILE,
    }
    for key in ("data", "model", "precision"):
        result["protocol"][key] = HOSTILE
    result["protocol"]["classes"] = [HOSTILE]
    result["protocol"]["versions"] = {HOSTILE: HOSTILE}

    page = Page(render(result))

    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert [name for _, name, _ in page.attrs if name.startswith("on")] == []
    assert page.text.count(HOSTILE) > 30


@pytest.mark.parametrize("name", ["\x00\x1b", "\ud800", "日本語", "\u202eabc", "", "a" * 400])
def test_names_of_any_characters_can_be_drawn_and_written(name):
    text = render(make_result(seeds=(0,), engines=(f"e{name}",), names={"stem.conv": f"x{name}"}))
    Page(text)
    assert text.encode("utf-8")


def test_a_missing_figure_says_so_with_its_reason(result):
    less = copy.deepcopy(result)
    arm = less["arms"][2]
    arm |= {"accuracy_ci": None, "accuracy_difference": None, "accuracy_difference_ci": None, "macs": None}
    arm |= {"force_overhead": None, "training_seconds": float("nan"), "basis_filters": None, "bytes": None}
    arm["speedup"]["torch"] = None
    arm["reasons"] = {"speedup.torch": "the engine refused it", "macs": "no formula"}

    text = Page(render(less)).text

    row = text.split("Force + low rank 26 epochs")[1].split("Intervals of accuracy")[0]
    assert row.count("not measured") == 8  # seven here, and peak memory on the second engine
    assert "not measured the engine refused it" in row
    assert "not measured no formula" in row


def test_a_result_with_almost_nothing_in_it_is_still_a_page(result):
    bare = result | {"arms": [{"name": arm["name"]} for arm in result["arms"]], "spread": None}
    assert "not measured" in Page(render(bare)).text
    alone = result | {"arms": result["arms"][:1], "spread": None}
    assert "Only the dense network was run" in Page(render(alone)).text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 1}, "schema 2, got schema 1"),
        ({"arms": []}, "arms need names"),
        ({"arms": [{"name": "a"}, {"name": "a"}]}, "each its own"),
    ],
)
def test_what_is_no_pilot_result_is_refused(result, tmp_path, change, message):
    with pytest.raises(FileError, match=message):
        write_report(result | change, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_without_the_extra_the_error_names_it(result, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExtraError, match=r"corank\[report\]"):
        render(result)


def test_the_page_imports_nothing_heavy_until_it_is_written_and_never_pyplot():
    code = (
        "import sys, corank.pilot.page as page; assert not {'matplotlib', 'jinja2'} & set(sys.modules);"
        "from tests.pilot.sample import make_result; page.render(make_result(seeds=(0,)));"
        "import matplotlib; assert matplotlib.rcParams['svg.hashsalt'] is None;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    root = files("corank.pilot").joinpath("../../..")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def _themes():
    style = files("corank.pilot").joinpath("templates/report.css").read_text()
    return [
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]


def _contrast(a, b):
    def light(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((light(a), light(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_arms_stand_out_from_the_paper(theme):
    colours = _themes()[theme]
    for name in ("ink", "muted", "force"):
        assert _contrast(colours[name], colours["wash"]) >= 4.5
    assert _contrast(colours["ink"], colours["mark"]) >= 4.5
    for name in ("ink", "muted", "dense", "lowrank", "force", "other", "go", "stop"):
        assert _contrast(colours[name], colours["paper"]) >= 4.5  # WCAG AA, for text


def test_every_colour_of_a_picture_is_one_of_the_page(html):
    for theme in _themes():
        assert set(PALETTE) <= set(theme)
    pictures = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert re.findall(r"#[0-9a-f]{6}", pictures) == []
    assert {f"var(--{name})" for name in ("dense", "lowrank", "force")} <= set(
        re.findall(r"var\(--\w+\)", pictures)
    )


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_language_of_a_page_is_read_from_it(result, tmp_path, lang):
    assert page_language(tmp_path / "absent.html") == "en"
    assert page_language(write_report(result, tmp_path / "report.html", lang)) == lang
