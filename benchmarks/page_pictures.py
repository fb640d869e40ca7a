"""Take the pictures of a report that the documentation shows, in Debian's Chromium.

python -m benchmarks.page_pictures demo/pilot.json
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from corank.decision.results import read_result
from corank.pilot.page import write_report

IMAGES = Path(__file__).parent.parent / "docs" / "images"
SHOTS = (  # name, language, width, height, scheme
    ("report", "en", 1100, 1560, "light"),
    ("report.ja", "ja", 1100, 1500, "light"),
    ("report.phone", "en", 390, 1100, "dark"),
)


def main(pilot: Path) -> None:
    """Write the pictures into docs/images."""
    from playwright.sync_api import sync_playwright

    result = read_result(pilot)
    with sync_playwright() as started, tempfile.TemporaryDirectory() as folder:
        chromium = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, lang, width, height, scheme in SHOTS:
            path = write_report(result, Path(folder) / f"{name}.html", lang)
            page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(path.as_uri())
            page.screenshot(path=IMAGES / f"{name}.png")
            print(IMAGES / f"{name}.png")
        chromium.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
