"""The README and the pages under docs/ hold what they say: code runs, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.cli.running import corank

__all__ = ["corank"]  # a fixture

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIAL = ROOT / "docs" / "tutorial.md"


@pytest.mark.parametrize("page", [p for p in PAGES if p != TUTORIAL], ids=lambda p: str(p.relative_to(ROOT)))
def test_code_blocks_run_one_after_another(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    assert "error" not in capsys.readouterr().out.lower()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tutorial_runs_from_top_to_bottom(corank, tmp_path, monkeypatch, capsys):
    """Files are written under their names, Python runs, and every `corank` command ends well."""
    # its own tests measure memory; a process for every network and engine takes a minute here
    monkeypatch.setattr("corank.benchmarks.backends.onnxruntime.peak_in_fresh_process", lambda *_, **__: None)
    for package in ("sklearn", "matplotlib", "onnxscript"):
        pytest.importorskip(package, reason="the tutorial uses the extras onnx, report and digits")
    monkeypatch.syspath_prepend(tmp_path)
    fences = re.findall(r"```(\w+)(?: (\S+))?\n(.*?)```", TUTORIAL.read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    commands = 0
    for language, file, text in fences:
        if file:
            (tmp_path / file).write_text(text)
        elif language == "python":
            exec(compile(text, str(TUTORIAL), "exec"), names)
        else:
            for line in (one for one in text.splitlines() if one.startswith("corank ")):
                code, out, err = corank(*shlex.split(line)[1:], "-q")
                assert code == 0, err
                assert out.startswith("| Arm |")
                commands += 1
    assert commands == 3
    assert (tmp_path / "small.onnx").exists()
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]
