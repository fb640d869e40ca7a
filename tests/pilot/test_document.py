"""Markdown and JSON say what the page says."""

import json

import pytest

from corank.errors import CorankError, FileError
from corank.pilot.document import FORMATS, document, to_json, to_markdown, write_document
from corank.pilot.page import render
from corank.pilot.tables import escape_markdown
from tests.pilot.sample import make_result
from tests.pilot.test_page import HOSTILE, Page


@pytest.fixture(scope="module")
def result():
    return make_result()


def _texts(content):
    if isinstance(content, dict):
        return [
            text for key, value in content.items() if key not in ("key", "lang") for text in _texts(value)
        ]
    if isinstance(content, list):
        return [text for value in content for text in _texts(value)]
    return [content] if isinstance(content, str) and content else []


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_every_text_of_the_json_is_on_the_page_and_in_the_markdown(result, lang):
    content = document(result, lang)
    squeeze = lambda text: "".join(text.split())  # noqa: E731
    page, markdown = squeeze(Page(render(result, lang)).text), squeeze(to_markdown(result, lang))
    assert [one["key"] for one in content["tables"]][:3] == ["checks", "front", "arms"]
    heads = {head["title"] for one in content["tables"] if one["key"] == "layers" for head in one["columns"]}
    checks = content["tables"][0].pop("note")
    assert checks.startswith("Hold, needs" if lang == "en" else "保留（最終評価用サンプルが")
    texts = [text for text in _texts(content) if text not in heads]  # two lines of heads on the page
    assert len(texts) > 300
    assert [text for text in texts if squeeze(text) not in page] == []
    assert [text for text in texts if squeeze(escape_markdown(text)) not in markdown] == []


def test_a_table_in_markdown_has_as_many_cells_in_each_row(result):
    import re

    tables = re.findall(r"(?:^\|.*\n)+", to_markdown(result), re.MULTILINE)
    assert len(tables) >= 7
    for table in tables:
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_hostile_names_stay_text_in_markdown():
    text = to_markdown(make_result(names={"stem.conv": HOSTILE}))
    assert "<script" not in text
    assert "<img" not in text


@pytest.mark.parametrize("form", ["html", "md", "json"])
def test_a_document_is_written_in_each_format(result, tmp_path, form):
    path = write_document(result, tmp_path / f"report.{form}", form, "ja")
    text = path.read_text(encoding="utf-8")
    assert "元のネットワーク" in text
    if form == "json":
        assert text == to_json(result, "ja")
        assert json.loads(text)["lang"] == "ja"


@pytest.mark.parametrize(("form", "lang"), [("pdf", "en"), ("html", "xx")])
def test_another_format_or_language_is_refused(result, tmp_path, form, lang):
    with pytest.raises(CorankError, match="allowed are"):
        write_document(result, tmp_path / "report", form, lang)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "odd",
    [
        {"schema": 2, "protocol": {}, "arms": [{"name": "dense"}, {"name": "force"}]},
        {"schema": 2, "protocol": {}, "arms": 5},
        {"schema": 2, "protocol": {}, "arms": [{"name": ["dense"]}]},
    ],
)
def test_a_file_of_another_shape_is_one_error_and_writes_nothing(tmp_path, form, odd):
    with pytest.raises(FileError, match="Use the pilot.json as it was written"):
        write_document(odd, tmp_path / "page", form)
    assert not list(tmp_path.iterdir())
