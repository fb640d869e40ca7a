"""Does coordinating filters win, at equal cost and equal training?

All arms start at the same trained weights, train some epochs with their force or rival, are cut by one
data-aware method to the same share of the multiply-accumulates, and recover. Every choice is made on dev;
final is read by a command of its own, at the end. Networks: ResNet-20 and ResNet-56 on CIFAR-10, and the
pilot's VGG on digits, the reduced form that takes minutes (`make reproduce-fast`).

    python -m benchmarks.evidence screen     # all arms, two trials each, one seed, one cut, 2 + 3 epochs
    python -m benchmarks.evidence full       # the best four, no force, repel: 3 seeds, 3 cuts, 5 + 5 epochs
    python -m benchmarks.evidence final      # read final, once, and write the pages

What is done is kept in runs/evidence, and an epoch is the most that a kill loses. `--arms` takes some of the
arms, so that processes of one thread may share them out (OMP_NUM_THREADS=1). `--axis` changes the training
images: few, imbalanced or noisy; the trained ResNets have seen all of them as they are. torchao's PAT wants
torchao (0.18.0) beside torch; without it the arm is left out, and the page says so.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import corank
from benchmarks.evidence_arms import ARMS, Start
from benchmarks.evidence_axes import AXES, along
from benchmarks.evidence_networks import NETWORKS
from benchmarks.evidence_page import write_page
from benchmarks.evidence_plots import DENSE
from benchmarks.real_network import RUNS
from benchmarks.record import describe_run, kept
from benchmarks.recoveries import CALIBRATION, cut, plan_from
from corank.cost import model_cost
from corank.data.tasks import Task
from corank.pilot.problem import Problem
from corank.pilot.scores import dev_score, measure
from corank.recovery import default_optimizer
from corank.replay import set_seed, undisturbed

LEARNING_RATE_AFTER = 0.01
FACTORS = "outputs"


@dataclass(frozen=True, slots=True)
class Stage:
    """How long, and how often."""

    before: int
    after: int
    seeds: tuple[int, ...]


STAGES = {"screen": Stage(2, 3, (0,)), "full": Stage(5, 5, (0, 1, 2))}
BEST = 4
UNCUT = tuple(name for name, arm in ARMS.items() if not arm.cut)


@dataclass(frozen=True, slots=True)
class Trial:
    """One training up to the cut, whose cuts share it."""

    arm: str
    learning_rate: float
    strength: float
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        arm = self.arm.replace(" ", "_").replace(",", "")
        return f"{arm}-{self.learning_rate:g}-{self.strength:g}-{self.seed}"


class Runner:
    """Run trials of one network at one stage; what is done is read instead."""

    def __init__(
        self, network: str, stage: str, out: Path, files: int | None = None, axis: str | None = None
    ) -> None:
        self.network, self.stage, self.files, self.axis = NETWORKS[network], STAGES[stage], files, axis
        self.cuts = self.network.cuts[stage]
        self.home = out / page_name(network, axis)
        self.folder = self.home / stage

    @cached_property
    def problem(self) -> Problem:
        """The data, read once."""
        return along(self.network.problem(self.files), self.axis)

    def start(self) -> nn.Module:
        """Return the trained network."""
        return self.network.start(self.problem, self.home)

    def run(self, trial: Trial, cuts: tuple[float, ...]) -> list[dict[str, Any]]:
        """Return a row for each cut."""
        rows = []
        for ratio in cuts:
            path = self.folder / trial.name / f"{ratio:g}.json"
            rows.append(kept(path, f"{trial.name}, {ratio:g}", partial(self._run, trial, ratio)))
        return rows

    def _run(self, trial: Trial, ratio: float) -> dict[str, Any]:
        task, model, before = self._before(trial)
        samples = self.problem.make_task(trial.seed + 1).train
        small = model
        if ratio < DENSE:
            with undisturbed(task.train):
                small = cut(model, FACTORS, ratio, task, samples)
        course = [dev_score(small, task)]
        name = self.folder / trial.name / f"{ratio:g}"
        self._train(
            small,
            task,
            self.stage.after,
            default_optimizer(small, LEARNING_RATE_AFTER),
            name.with_name(f"{ratio:g}-recovery.safetensors"),
            trial.seed,
            course,
        )
        corank.save(small.eval(), name.with_name(f"{ratio:g}.safetensors"), reference=self.network.make)
        name.with_name(f"{ratio:g}-recovery.safetensors").unlink()
        macs = model_cost(small, task.example).macs / model_cost(model, task.example).macs
        return {**before, "cut": ratio, "macs": macs, "after": course}

    def _before(self, trial: Trial) -> tuple[Task, nn.Module, dict[str, Any]]:
        """Train up to the cut; a second cut finds that finished."""
        arm = ARMS[trial.arm]
        set_seed(trial.seed)
        task, model = self.problem.make_task(trial.seed), self.start()
        strength = trial.strength * (self.network.dose if arm.dosed else 1.0)
        steps = self.stage.before * len(task.train)
        regularizer = optimizer = None
        if arm.make is not None:
            with undisturbed(task.train):
                plan = partial(self._plan, model, task, trial.seed)
                regularizer = arm.make(Start(model, strength, steps, plan))
        if arm.optimizer is not None:
            optimizer = arm.optimizer(model, trial.learning_rate, strength)
        course: list[float] = []
        self._train(
            model,
            task,
            self.stage.before,
            optimizer or default_optimizer(model, trial.learning_rate),
            self.folder / trial.name / "before.safetensors",
            trial.seed,
            course,
            regularizer,
        )
        spectrum = corank.spectrum(model, types=("conv",))
        ranks = {row.layer: row.rank() / row.full_rank for row in spectrum}
        found = {
            "arm": trial.arm,
            "learning_rate": trial.learning_rate,
            "strength": trial.strength,
            "seed": trial.seed,
            "before": course[-1],
            "rank_ratio": spectrum.rank_ratio(),
            "ranks": ranks,
        }
        return task, model, found

    def _plan(self, model: nn.Module, task: Task, seed: int) -> corank.Plan:
        batches = list(islice(self.problem.make_task(seed + 1).train, CALIBRATION))
        return plan_from(model, min(self.cuts), task, batches)[0]

    def _train(
        self,
        model: nn.Module,
        task: Task,
        epochs: int,
        optimizer: torch.optim.Optimizer,
        path: Path,
        seed: int,
        course: list[float],
        regularizer: Any = None,
    ) -> None:
        set_seed(1000 * seed + epochs)
        corank.finetune(
            model,
            task.train,
            epochs=epochs,
            loss=task.loss,
            optimizer=optimizer,
            scheduler=CosineAnnealingLR(optimizer, epochs * len(task.train)),
            force=regularizer,
            precision=self.network.precision,
            checkpoint=corank.Checkpoint(path, keep={"course": _Course(course)}),
            after_epoch=lambda _: course.append(dev_score(model, task)),
            progress=False,
        )


class _Course:
    """The accuracies seen so far, put back when a training goes on."""

    def __init__(self, values: list[float]) -> None:
        self._values = values

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self._values)}

    def load_state_dict(self, state: Any) -> None:
        self._values[:] = state["values"]


def page_name(network: str, axis: str | None) -> str:
    """Return how a network and its data are called in file names."""
    return network if axis is None else f"{network}_{axis}"


def able_arms() -> list[str]:
    """List the arms that can run here."""
    able = importlib.util.find_spec("torchao") is not None
    return [name for name, arm in ARMS.items() if able or arm.optimizer is None]


def screen(runner: Runner, arms: list[str]) -> list[dict[str, Any]]:
    """Run both trials of each arm."""
    rows = []
    for arm in arms:
        for learning_rate, strength in ARMS[arm].trials:
            trial = Trial(arm, learning_rate, strength, runner.stage.seeds[0])
            rows += runner.run(trial, _cuts(runner, arm))
    return rows


def best_trials(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the better trial of each arm on dev, the best arm first; the dense control is no arm."""
    best: dict[str, dict[str, Any]] = {}
    judged = [row for row in rows if row["cut"] < DENSE or row["arm"] in UNCUT]
    for row in sorted(judged, key=lambda row: -row["after"][-1]):
        best.setdefault(row["arm"], row)
    return best


def full(runner: Runner, chosen: dict[str, dict[str, Any]], arms: list[str] | None) -> list[dict[str, Any]]:
    """Run the chosen trials with every seed and cut."""
    rows = []
    for arm, row in chosen.items():
        if arms is not None and arm not in arms:
            continue
        for seed in runner.stage.seeds:
            trial = Trial(arm, row["learning_rate"], row["strength"], seed)
            rows += runner.run(trial, _cuts(runner, arm))
    return rows


def _cuts(runner: Runner, arm: str) -> tuple[float, ...]:
    if arm in UNCUT:
        return (DENSE,)
    return (DENSE, *runner.cuts) if arm == "no force" else runner.cuts


def read_final(runner: Runner, rows: list[dict[str, Any]]) -> None:
    """Add to each row which final samples its network gets right."""
    task = runner.problem.make_task(0)
    for row in rows:
        trial = Trial(row["arm"], row["learning_rate"], row["strength"], row["seed"])
        path = runner.folder / trial.name / f"{row['cut']:g}.safetensors"
        network = corank.load(path, runner.network.make)
        hits = measure(network, task, "final")["accuracy"].per_sample
        row["final"] = "".join("1" if one else "0" for one in hits)


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stage", choices=(*STAGES, "final"))
    parser.add_argument("--network", choices=tuple(NETWORKS), default="resnet20")
    parser.add_argument("--axis", choices=tuple(AXES), help="how the training images are changed")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), help="only these")
    parser.add_argument("--files", type=int, help="only so many thousand images of each split, to try it")
    given = parser.parse_args()
    out = RUNS / "evidence" / ("all" if given.files is None else str(given.files))
    runner = partial(Runner, given.network, out=out, files=given.files, axis=given.axis)
    rows = screen(runner("screen"), given.arms or able_arms())
    if given.stage == "screen":
        return
    chosen = best_trials(rows)
    names = [name for name in chosen if name != "no force" and name not in UNCUT][:BEST]
    names += [name for name in UNCUT if name in chosen]
    chosen = {name: chosen[name] for name in ("no force", *names)}
    last = runner("full")
    found = full(last, chosen, given.arms)
    if given.stage == "final":
        read_final(last, found)
        run = describe_run(0, f"trained in {last.network.precision}, judged in float32")
        problem = last.problem
        name = page_name(given.network, given.axis)
        write_page(name, problem, rows, found, run, keep=given.files is None)


if __name__ == "__main__":
    main()
