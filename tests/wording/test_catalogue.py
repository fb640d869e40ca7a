"""Every message is in every language, with the same placeholders, and nothing else is."""

from __future__ import annotations

import ast
import re
import threading
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from string import Formatter

import pytest

from corank.decision.economics import Economics
from corank.errors import CorankError
from corank.pilot.corruptions import CORRUPTIONS, UNKNOWN
from corank.wording import Part, language, named, parts, say, speaking
from corank.wording.catalogue import CATALOGUES, LOCALES, NAMES, REASONS, reason

ROOT = Path(str(files("corank")))
jinja2 = pytest.importorskip("jinja2", reason="the page comes with the extra `report`")


def _fields(text):
    return {field for _, field, _, _ in Formatter().parse(text) if field is not None}


@pytest.fixture(scope="module")
def messages():
    found = set()
    for path in ROOT.rglob("*.py"):
        calls = [one for one in ast.walk(ast.parse(path.read_text())) if isinstance(one, ast.Call)]
        for call in calls:
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            first = call.args[0] if name in ("say", "parts", "mark") and call.args else None
            if isinstance(first, ast.Constant):
                found.add(first.value)
    template = ROOT / "pilot" / "templates" / "report.html.j2"
    for call in jinja2.Environment().parse(template.read_text()).find_all(jinja2.nodes.Call):
        if getattr(call.node, "name", "") == "say":
            found.add(call.args[0].value)
    return found


@pytest.mark.parametrize("lang", [one for one in CATALOGUES if one != "en"])
def test_a_language_has_every_message_with_its_placeholders_and_no_other(messages, lang):
    catalogue = CATALOGUES[lang]
    assert sorted(messages - set(catalogue)) == []
    assert sorted(set(catalogue) - messages) == []
    assert [text for text, said in catalogue.items() if _fields(text) != _fields(said)] == []
    assert set(LOCALES) == set(NAMES) == set(REASONS) == set(CATALOGUES)


def test_what_a_page_says_outside_a_message_is_no_prose():
    """Text of the template itself would stay English in every language."""
    template = (ROOT / "pilot" / "templates" / "report.html.j2").read_text()
    tokens = jinja2.Environment().lex(template)
    text = "".join(value for _, kind, value in tokens if kind == "data")
    words = re.findall(r">\s*([^<>]*[A-Za-z]{3}[^<>]*)<", re.sub(r"<(style|script)>.*?</\1>", "", text))
    assert [word.strip(" ·,.") for word in words] == ["corank pilot", "corank pilot", "corank", "pilot.json"]


def test_the_language_is_given_back_and_is_one_threads_own():
    heard = []

    def fail():
        with speaking("ja"):
            heard.append(say("not measured"))
            other = threading.Thread(target=lambda: heard.append(say("not measured")))
            other.start()
            other.join()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert language() == "en"
    assert heard == ["未測定", "not measured"]


def test_a_value_is_put_in_as_it_is():
    assert say("{told}, {why}", told="{why} {0}", why="%s") == "{why} {0}, %s"
    with speaking("ja"):
        pieces = parts("{verdict}: next comes {stage}.", verdict=Part("a", "x"), stage="{b}")
    assert [piece.text for piece in pieces if piece.anchor] == ["a"]
    assert "{b}" in [piece.text for piece in pieces]


def test_words_and_reasons_of_a_result_are_translated_where_they_are_known():
    with speaking("ja"):
        assert named("accuracy") == "正解率"
        assert named("my metric") == "my metric"
        shown = [one.name.replace("_", " ") for one in fields(Economics)] + [*CORRUPTIONS, *UNKNOWN]
        assert [one for one in shown if named(one) == one] == []
        assert (
            reason("Linear is not among the types asked for (conv)") == "Linearは対象の種類（conv）ではない"
        )
        assert reason("something new") == "something new"
    assert reason("excluded") == "excluded"


def test_a_language_that_is_not_there_is_refused():
    with pytest.raises(CorankError, match="lang: allowed are en, ja, got 'fr'"), speaking("fr"):
        pass
