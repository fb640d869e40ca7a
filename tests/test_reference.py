"""Every public name has its entry in docs/reference and an example, and the site builds without a warning."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections import Counter
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import corank

ROOT = Path(__file__).parent.parent
ENTRIES = [
    name
    for page in sorted((ROOT / "docs" / "reference").glob("*.md"))
    for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)
]
PUBLIC = [name for name in corank.__all__ if name != "__version__"]


def test_every_public_name_has_one_entry():
    counted = Counter(name.removeprefix("corank.") for name in ENTRIES if name.count(".") == 1)
    integrations = {"tracking": 1}  # a module, whole
    assert counted == Counter(PUBLIC) + Counter(integrations)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "METHODS"])
def test_a_public_name_has_an_example_or_is_a_frozen_value_or_an_error(name):
    value = getattr(corank, name)
    assert inspect.getdoc(value)
    frozen = is_dataclass(value) and value.__dataclass_params__.frozen
    error = isinstance(value, type) and issubclass(value, corank.CorankError)
    assert frozen or error or ">>> " in value.__doc__


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("material", reason="needs the extra `docs`")
    pytest.importorskip("mkdocstrings", reason="needs the extra `docs`")
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    pages = {path: path.read_text() for path in tmp_path.rglob("*.html")}
    shown = "".join(text for path, text in pages.items() if "reference" in path.parts)
    assert [name for name in ENTRIES if f'id="{name}"' not in shown] == []
    navigation = pages[tmp_path / "index.html"]
    for page in (ROOT / "docs").rglob("*.md"):
        folder = page.parent if page.stem == "README" else page.with_suffix("")
        assert f'href="{folder.relative_to(ROOT / "docs").as_posix()}/"' in navigation, page


def test_docstrings_are_laid_out():
    griffe = pytest.importorskip("griffe", reason="needs the extra `docs`")
    sys.path.insert(0, str(ROOT / "docs" / "building"))
    try:
        from docstrings import to_markdown
    finally:
        sys.path.remove(str(ROOT / "docs" / "building"))
    assert griffe
    text = "Do.\n\nArgs:\n    a, b: one\n        more.\nRaises: E, when\n    it rains.\n\n>>> f()\n1\n\nEnd."
    assert to_markdown(text) == (
        "Do.\n\n**Args**\n\n- `a, b`: one more.\n\n**Raises** E, when it rains.\n\n"
        "```pycon\n>>> f()\n1\n```\n\nEnd."
    )
