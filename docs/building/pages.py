"""What the site has beyond docs/: README, CONTRIBUTING and CHANGELOG as pages, and the order of all pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
OUTER = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LICENSE = "https://www.apache.org/licenses/LICENSE-2.0"
FIRST = (
    "index.md",
    "tutorial.md",
    "guide.md",
    "training.md",
    "compress.md",
    "latency.md",
    "sparsity.md",
    "gate.md",
)
SECTIONS = {  # folders under docs/; what lies in docs/ itself and is not in FIRST comes after it
    "tutorials": "Tutorials",
    "reference": "Reference",
    "forces": "Forces",
    "methods": "Decompositions",
    "results": "Measured results",
    "decisions": "Decisions",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every page in the navigation: a new file is there without an entry anywhere."""
    docs = Path(config.docs_dir)
    pages = [path.name for path in sorted(docs.glob("*.md"))]
    nav: list[Any] = [*FIRST, *(page for page in pages if page not in FIRST)]
    for folder, title in SECTIONS.items():
        inside = sorted(docs.glob(f"{folder}/**/*.md"), key=_order)
        nav.append({title: [path.relative_to(docs).as_posix() for path in inside]})
    config.nav = [*nav, "contributing.md", "changelog.md"]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of docs/."""
    docs = Path(config.docs_dir)

    def first_page(found: re.Match[str]) -> str:
        inside = sorted(docs.glob(f"{found[1]}/*.md"), key=_order)
        return f"]({found[1]}/{inside[0].name})"

    for source, page in OUTER.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = re.sub(r"\]\(docs/(\w+)\)", first_page, text)  # the site has no page for a folder alone
        text = text.replace("](docs/", "](").replace("](LICENSE)", f"]({LICENSE})")
        files.append(File.generated(config, page, content=_lead(text, "", "")))
    return files


def on_page_markdown(markdown: str, page: Page, **kwargs: Any) -> str:
    """Lead links that leave docs/ to where these pages are now."""
    depth = page.file.src_uri.count("/")
    text = re.sub(r"\[([^\]]+)\]\((?:\.\./)+examples/[^)]+\)", r"\1", markdown)  # code is no page of the site
    text = _lead(text, "../" * (depth + 1), "../" * depth)
    return re.sub(r"```(\w+) \S+\.\w+\n", r"```\1\n", text)  # a fence's file name is for the tests


def _lead(text: str, before: str, after: str) -> str:
    for source, page in OUTER.items():
        text = text.replace(f"]({before}{source}", f"]({after}{page}")
    return text


def _order(path: Path) -> tuple[int, bool, str]:
    return len(path.parts), path.name != "README.md", path.as_posix()
