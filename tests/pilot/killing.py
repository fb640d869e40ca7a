"""A trial that is killed again and again, by SIGKILL, until it is done: run as a program of its own."""

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
from torch import Tensor, nn

from corank.cut_targets import parse_target
from corank.errors import FileError
from corank.pilot import trial
from corank.pilot.options import ARMS, TrialOptions
from corank.pilot.problem import Problem, SameTask
from corank.tasks import Task, cross_entropy
from tests.cli import own

OPTIONS = TrialOptions(
    arms=tuple(ARMS),
    shared=1,
    before_cut=2,
    after_cut=2,
    target=parse_target("macs=0.8"),
    multiple=1,
    backends=("torch",),
    rounds=4,
    seeds=(0, 1),
    checkpoint_every=1,
    front=(0.9,),
)


class Killer:
    """Cross-entropy that kills its process in its so many'th step."""

    def __init__(self, die_at: int) -> None:
        self.left = die_at

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return cross_entropy(model, batch)


def run(out: Path, options: TrialOptions, die_at: int = 0) -> dict[str, Any]:
    """Run the trial, from where it was killed."""
    task: Task = replace(own.seeded(0), loss=Killer(die_at))
    problem = Problem("made up", "small", {}, (), SameTask(task), own.net, keep=("6",))
    return trial.run_trial(problem, out, options, command="test", progress=False)


def _child(out: Path, options: TrialOptions, die_at: int, in_rename: bool) -> None:
    if in_rename:
        rename, left = Path.replace, [die_at]

        def dying(self: Path, target: Path) -> Path:
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)

        Path.replace = dying  # type: ignore[method-assign, assignment]
    run(out, options, 0 if in_rename else die_at)
    os._exit(0)


def figures(out: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Return what must be equal, bit for bit: weights, plans, samples and the course of the training."""
    from safetensors.torch import load_file

    from corank.store.loading import read_header

    found: dict[str, Any] = {"samples": (out / "samples.csv").read_text()}
    if result["spread"]:
        found["spread"] = [arm["accuracy"] for arm in result["spread"]["arms"].values()]
    kept = ("share", "accuracy", "accuracy_difference_ci", "accuracy_after_cut", "macs", "plan_rank_ratio")
    found["front"] = [[point[key] for key in kept] for point in result["front"]["points"]]
    for arm in result["arms"]:
        weights = load_file(out / arm["model_file"])
        found[arm["name"]] = {
            "weights": {name: tensor.tolist() for name, tensor in weights.items()},
            "plan": read_header(out / arm["model_file"]).plan,
            "history": arm["history"],
            "ranks": [row["spectral_rank"] for row in arm["layers"]],
            "errors": [row["error"] for row in arm["layers"]],
            "after_cut": arm["accuracy_after_cut"],
        }
    return found


def main(folder: Path, seed: int, kills: int) -> None:
    """Kill so many times, then let it end, and print what came of it beside an undisturbed run."""
    torch.set_num_threads(1)
    trial.write_report = lambda result, path, lang: path.write_text("a page")  # type: ignore[assignment]
    draw = random.Random(seed)
    options = OPTIONS if kills > 6 else replace(OPTIONS, seeds=(0,), arms=("dense", "force_plan"))
    wanted = figures(folder / "whole", run(folder / "whole", options))
    out, signals = folder / "killed", []
    for number in range(kills):
        way = number % 3
        pid = os.fork()
        if pid == 0:
            _child(out, options, draw.randint(1, 4) if way < 2 else 0, in_rename=way == 1)
        if way == 2:
            time.sleep(draw.uniform(0.0, 0.3))
            os.kill(pid, signal.SIGKILL)
        signals.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    held = os.fork()
    if held == 0:  # a run that is alive holds the folder
        with trial.trial_folder(out, json.loads((out / "work" / "trial.json").read_text())):
            (folder / "held").touch()
            time.sleep(60)
        os._exit(1)
    while not (folder / "held").exists() and os.waitpid(held, os.WNOHANG) == (0, 0):
        time.sleep(0.01)
    try:
        run(out, options)
        refused = ""
    except FileError as error:
        refused = str(error)
    os.kill(held, signal.SIGKILL)
    os.waitpid(held, 0)
    result = run(out, options)  # a dead one does not
    text = (out / "pilot.json").read_bytes()
    again = run(out, options)  # a finished one is not run again
    print(  # noqa: T201
        json.dumps(
            {
                "equal": figures(out, result) == wanted,
                "killed": signals.count(-9),
                "refused": refused,
                "kept": again == result and (out / "pilot.json").read_bytes() == text,
                "left": sorted(path.name for path in out.iterdir()),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
