"""Does coordinating filters win, at equal cost and equal training?

All arms start at the same trained weights, train some epochs with their force or rival, are cut by one
data-aware method to the same share of the multiply-accumulates, and recover. Every choice is made on dev;
final is read by a command of its own, at the end. Networks: ResNet-20 and ResNet-56 on CIFAR-10, and the
pilot's VGG on digits, the reduced form that takes minutes (`make reproduce-fast`).

    python -m benchmarks.evidence table      # the latency table of the cuts by time, on an idle machine
    python -m benchmarks.evidence screen     # all arms, two trials each, one seed, one cut, 2 + 3 epochs
    python -m benchmarks.evidence full       # the best four, no force, repel: 3 seeds, all cuts, 5 + 5 epochs
    python -m benchmarks.evidence final      # read final of what is trained, once; times; the page; idle too

Networks are kept in runs/evidence, and an epoch is the most that a kill loses. `--arms` and `--seeds` take
some of the trainings, so that processes of one thread may share them out (OMP_NUM_THREADS=1). The rows of the
ResNets, which take 15 core-hours, are kept in docs/results: another machine goes on with the rest, once
`final` has read the networks trained here. `--axis` changes the training images: few, imbalanced or noisy;
the trained ResNets have seen all of them as they are. torchao's PAT wants torchao (0.18.0) beside torch;
without it the arm is left out, and the page says so.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterable
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
from benchmarks.evidence_cuts import DENSE
from benchmarks.evidence_networks import NETWORKS
from benchmarks.evidence_page import write_page
from benchmarks.evidence_times import measure_table, read_table, time_networks
from benchmarks.real_network import RUNS
from benchmarks.record import RESULTS, describe_run, kept
from benchmarks.recoveries import CALIBRATION, cut, plan_from
from corank.cost import model_cost
from corank.data.tasks import Task
from corank.pilot.problem import Problem
from corank.pilot.scores import dev_score, measure
from corank.recovery import default_optimizer
from corank.replay import set_seed, undisturbed
from corank.spectra import LayerSpectrum

LEARNING_RATE_AFTER = 0.01
FACTORS = "outputs"
DOSE = 2 * 391  # steps of the screen on CIFAR-10, for which strengths are given


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


Job = tuple[Trial, str]  # and the name of the cut


class Runner:
    """Run trials of one network at one stage; what is done is read instead."""

    def __init__(
        self, network: str, stage: str, out: Path, files: int | None = None, axis: str | None = None
    ) -> None:
        self.network, self.stage, self.files, self.axis = NETWORKS[network], STAGES[stage], files, axis
        self.cuts = self.network.cuts[stage]
        (self.aim,) = self.network.cuts["screen"].values()  # of forces towards a plan, in both stages
        self.home = out / page_name(network, axis)
        self.folder = self.home / stage
        shared = self.network.shared and files is None
        rows = RESULTS / f"evidence_{self.home.name}" if shared else self.home
        self.rows, self.table = rows / stage, rows / "table.json"

    @cached_property
    def problem(self) -> Problem:
        """The data, read once."""
        return along(self.network.problem(self.files), self.axis)

    def start(self) -> nn.Module:
        """Return the trained network."""
        return self.network.start(self.problem, self.home)

    def jobs(self, trials: Iterable[Trial]) -> list[Job]:
        """List every cut of some trials."""
        return [(trial, name) for trial in trials for name in self._cuts(trial.arm)]

    def _cuts(self, arm: str) -> tuple[str, ...]:
        if arm in UNCUT:
            return (DENSE,)
        return (DENSE, *self.cuts) if arm == "no force" else self.cuts

    def run(self, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        """Return a row for each job."""
        return [
            kept(self._row(trial, name), f"{trial.name}, {name}", partial(self._run, trial, name))
            for trial, name in jobs
        ]

    def done(self, jobs: Iterable[Job]) -> list[Job]:
        """List the jobs whose rows are there."""
        return [job for job in jobs if self._row(*job).exists()]

    def read_final(self, jobs: list[Job]) -> list[dict[str, Any]]:
        """Return the rows of jobs that are done, with which final samples each network gets right.

        Final is read once; a row whose network is on another machine, and was not read there, stays as it is.
        """
        rows = []
        for (trial, name), row in zip(jobs, self.run(jobs), strict=True):
            path = self._row(trial, name, "-final")
            if path.exists() or self._network(trial, name).exists():
                text = f"{trial.name}, {name}, on final"
                row["final"] = kept(path, text, partial(self._read, trial, name))
            rows.append(row)
        return rows

    def times(self, jobs: list[Job]) -> dict[str, Any]:
        """Return how fast the networks of the first seed that are cut by time are beside dense.

        They are timed in one run, once all of them are here; before that there is nothing.
        """
        timed = [
            (trial, name)
            for trial, name in jobs
            if trial.seed == self.stage.seeds[0] and isinstance(self.cuts.get(name), corank.Latency)
        ]
        path = self.rows / "times.json"
        if not timed or not (path.exists() or all(self._network(*job).exists() for job in timed)):
            return {}
        return kept(path, "times beside dense", partial(self._time, timed))

    def _time(self, jobs: list[Job]) -> dict[str, Any]:
        networks = {trial.arm: self._load(trial, name) for trial, name in jobs}
        example, threads = self.problem.make_task(0).example, read_table(self.table).threads
        return time_networks({"dense": self.start(), **networks}, example, threads)

    def _row(self, trial: Trial, name: str, suffix: str = "") -> Path:
        return self.rows / trial.name / f"{name}{suffix}.json"

    def _network(self, trial: Trial, name: str) -> Path:
        return self.folder / trial.name / f"{name}.safetensors"

    def _load(self, trial: Trial, name: str) -> nn.Module:
        return corank.load(self._network(trial, name), self.network.make)

    def _read(self, trial: Trial, name: str) -> str:
        hits = measure(self._load(trial, name), self.problem.make_task(0), "final")["accuracy"].per_sample
        return "".join("1" if one else "0" for one in hits)

    def _run(self, trial: Trial, name: str) -> dict[str, Any]:
        task, model, before = self._before(trial)
        samples = self.problem.make_task(trial.seed + 1).train
        small = model
        if name != DENSE:
            rule = self.cuts[name]
            table = read_table(self.table) if isinstance(rule, corank.Latency) else None
            with undisturbed(task.train):
                small = cut(model, FACTORS, rule, task, samples, table)
        course = [dev_score(small, task)]
        recovery = self.folder / trial.name / f"{name}-recovery.safetensors"
        self._train(
            small,
            task,
            self.stage.after,
            default_optimizer(small, LEARNING_RATE_AFTER),
            recovery,
            trial.seed,
            course,
        )
        corank.save(small.eval(), self._network(trial, name), reference=self.network.make)
        recovery.unlink()
        macs = model_cost(small, task.example).macs / model_cost(model, task.example).macs
        return {**before, "cut": name, "macs": macs, "after": course, "run": describe_run(trial.seed)}

    def _before(self, trial: Trial) -> tuple[Task, nn.Module, dict[str, Any]]:
        """Train up to the cut; a second cut finds that finished."""
        arm = ARMS[trial.arm]
        set_seed(trial.seed)
        task, model = self.problem.make_task(trial.seed), self.start()
        steps = self.stage.before * len(task.train)
        strength = trial.strength * (DOSE / steps if arm.dosed else 1.0)
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
        with undisturbed(task.train):
            outputs = output_spectrum(
                model, islice(self.problem.make_task(trial.seed + 1).train, CALIBRATION)
            )
        found = {
            "arm": trial.arm,
            "learning_rate": trial.learning_rate,
            "strength": trial.strength,
            "seed": trial.seed,
            "before": course[-1],
            "rank_ratio": spectrum.rank_ratio(),
            "output_ratio": outputs.rank_ratio(),
            "ranks": ranks,
        }
        return task, model, found

    def _plan(self, model: nn.Module, task: Task, seed: int) -> corank.Plan:
        batches = list(islice(self.problem.make_task(seed + 1).train, CALIBRATION))
        return plan_from(model, self.aim, task, batches)[0]

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


def output_spectrum(model: nn.Module, batches: Iterable[Any]) -> corank.Spectrum:
    """Measure the spectra of what the convolutions put out: roots of the eigenvalues of its covariance."""
    stats = corank.calibrate(model, batches)
    rows = []
    for row in corank.spectrum(model, types=("conv",)):
        variances = torch.linalg.eigvalsh(stats[row.layer].covariance_GNN).flip(-1).clamp(min=0)
        rows.append(LayerSpectrum(row.layer, variances.shape[-1], variances.sqrt()))
    return corank.Spectrum(tuple(rows))


def page_name(network: str, axis: str | None) -> str:
    """Return how a network and its data are called in file names."""
    return network if axis is None else f"{network}_{axis}"


def able_arms(runner: Runner) -> list[str]:
    """List the arms that can run here or were run elsewhere."""
    if importlib.util.find_spec("torchao") is not None:
        return list(ARMS)
    elsewhere = {trial.arm for trial, _ in runner.done(runner.jobs(screened(ARMS)))}
    return [name for name, arm in ARMS.items() if arm.optimizer is None or name in elsewhere]


def screened(arms: Iterable[str]) -> list[Trial]:
    """List both trials of each arm."""
    return [Trial(arm, *terms, STAGES["screen"].seeds[0]) for arm in arms for terms in ARMS[arm].trials]


def best_trials(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the better trial of each arm on dev, the best arm first; the dense control is no arm."""
    best: dict[str, dict[str, Any]] = {}
    judged = [row for row in rows if row["cut"] != DENSE or row["arm"] in UNCUT]
    for row in sorted(judged, key=lambda row: -row["after"][-1]):
        best.setdefault(row["arm"], row)
    return best


def chosen(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """List arm, learning rate and strength of what goes on: no force, the best four, and the uncut ones.

    No force goes on at the learning rate of the best arm, so that nothing but the force is compared.
    """
    best = best_trials(rows)
    names = [name for name in best if name != "no force" and name not in UNCUT][:BEST]
    rate = best[names[0]]["learning_rate"]
    best |= best_trials([row for row in rows if row["arm"] == "no force" and row["learning_rate"] == rate])
    names += [name for name in UNCUT if name in best]
    return [[arm, best[arm]["learning_rate"], best[arm]["strength"]] for arm in ("no force", *names)]


def going_on(runner: Runner, rows: list[dict[str, Any]]) -> list[Trial]:
    """List what goes on with every seed, seed by seed; chosen once, before final is read for any of it."""
    terms = kept(runner.rows / "chosen.json", "the arms that go on", partial(chosen, rows))
    return [Trial(*one, seed) for seed in STAGES["full"].seeds for one in terms]


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stage", choices=("table", *STAGES, "final"))
    parser.add_argument("--network", choices=tuple(NETWORKS), default="resnet20")
    parser.add_argument("--axis", choices=tuple(AXES), help="how the training images are changed")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), help="only these")
    parser.add_argument("--files", type=int, help="only so many thousand images of each split, to try it")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these")
    given = parser.parse_args()
    out = RUNS / "evidence" / ("all" if given.files is None else str(given.files))
    runner = partial(Runner, given.network, out=out, files=given.files, axis=given.axis)
    first, last = runner("screen"), runner("full")
    if given.stage == "table":
        measure_table(last.start(), last.problem.make_task(0).example, last.table)
        return

    def asked(jobs: list[Job]) -> list[Job]:
        arms, seeds = given.arms or ARMS, given.seeds or STAGES["full"].seeds
        found = [(trial, name) for trial, name in jobs if trial.arm in arms and trial.seed in seeds]
        if not found:
            raise SystemExit(f"Nothing to train: here are {', '.join({trial.arm for trial, _ in jobs})}.")
        return found

    screen = first.jobs(screened(able_arms(first)))
    if given.stage == "screen":
        first.run(asked(screen))
        return
    done = first.done(screen)
    if left := [f"{trial.name}, {name}" for trial, name in screen if (trial, name) not in done]:
        raise SystemExit(f"Run the stage `screen` to its end first. Left of it: {'; '.join(left)}.")
    rows = first.run(screen)
    full = last.jobs(going_on(first, rows))
    if given.stage == "full":
        last.run(asked(full))
        return
    write_page(
        page_name(given.network, given.axis),
        last.problem,
        rows,
        last.read_final(last.done(full)),
        describe_run(0, f"trained in {last.network.precision}, judged in float32"),
        caveat=last.network.caveat,
        times=last.times(full),
        planned=len(full),
        keep=given.files is None,
    )


if __name__ == "__main__":
    main()
