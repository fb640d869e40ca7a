"""A search that is killed again and again, by SIGKILL, until it is done: run as a program of its own."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from corank.pilot.options import TrialOptions
from corank.pilot.problem import Problem, SameTask
from corank.tuning import Space, tune
from tests.cli import own
from tests.pilot.killing import Killer

OPTIONS = TrialOptions(
    shared=1, before_cut=1, after_cut=2, multiple=1, backends=("torch",), checkpoint_every=1
)
SPACE = Space(kinds=("none", "subspace"), cut=(0.5, 0.95))
TRIALS = 3


def run(out: Path, die_at: int = 0) -> dict[str, Any]:
    """Run the search, from where it was killed."""
    task = replace(own.seeded(0), loss=Killer(die_at))
    problem = Problem("made up", "small", {}, (), SameTask(task), own.net, keep=("6",))
    return tune(problem, out, OPTIONS, SPACE, trials=TRIALS, progress=False)


def main(folder: Path, seed: int, kills: int) -> None:
    """Kill so many times, then let it end, and print what came of it beside an undisturbed run."""
    torch.set_num_threads(1)
    draw = random.Random(seed)
    wanted, out, signals = run(folder / "whole"), folder / "killed", []
    for number in range(kills):
        pid = os.fork()
        if pid == 0:
            run(out, 0 if number % 3 == 2 else draw.randint(3, 9))
            os._exit(0)
        if number % 3 == 2:
            time.sleep(draw.uniform(0.1, 1.0))
            os.kill(pid, signal.SIGKILL)
        signals.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    result = run(out)
    print(  # noqa: T201
        json.dumps(
            {
                "equal": result["trials"] == wanted["trials"] and result["dense"] == wanted["dense"],
                "killed": signals.count(-9),
                "first": wanted["trials"],
                "second": result["trials"],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
