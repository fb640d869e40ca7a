"""One worker of a search, started by torchrun: it notes which trials are its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from corank.pilot.problem import Problem, SameTask
from corank.tuning import search, tune
from tests.cli import own
from tests.tuning.killing import OPTIONS, SPACE


def main(out: Path) -> None:
    """Take part until the search is done."""
    torch.set_num_threads(1)
    run_one = search._Search._run

    def noted(self: Any, trial: Any, folder: Path, *rest: Any) -> None:
        (folder / "worker").write_text(os.environ["RANK"])
        run_one(self, trial, folder, *rest)

    search._Search._run = noted
    problem = Problem("made up", "small", {}, (), SameTask(own.seeded(0)), own.net, keep=("6",))
    tune(problem, out, OPTIONS, SPACE, trials=4, progress=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
