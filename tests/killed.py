"""Run a program that kills itself again and again, and read what it prints in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def run_killed(module: str, folder: Path, seed: int, kills: int) -> dict[str, Any]:
    """Run a module of the tests that is killed so many times, in a folder of its own."""
    done = subprocess.run(
        [sys.executable, "-m", module, str(folder), str(seed), str(kills)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
