"""A pilot on a trained ResNet-20 or ResNet-56: dense, low rank, force, and force towards the plan.

The weights of ../shared/data have seen all of CIFAR-10's training images and were chosen on its test images,
so test is split once, by the fixed list of `corank.data.splits`, into 5,000 dev and 5,000 final images. All
arms start at these weights, train the same epochs and are cut to the same share of the measured time.

    python -m benchmarks.real_network 20
    python -m benchmarks.real_network 56

It goes on where it was stopped; its checkpoints are in runs/. `--epochs` and `--files` shrink it, and then
nothing is stored. Training is in bfloat16, twice as quick here; networks are judged and timed in float32. Two
processes of one thread each train as much as one of two, so that the arms may be shared out, between a table
measured on an idle machine and an end that times the networks on one:

    OMP_NUM_THREADS=1 python -m benchmarks.real_network 56 --stage table
    OMP_NUM_THREADS=1 python -m benchmarks.real_network 56 --stage dense,lowrank &
    OMP_NUM_THREADS=1 python -m benchmarks.real_network 56 --stage force,force_plan; wait
    OMP_NUM_THREADS=1 python -m benchmarks.real_network 56
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from functools import partial
from pathlib import Path

import torch

from benchmarks.cifar import MEAN, SHARED, STD, ResNet, resnet
from benchmarks.record import RESULTS, describe_run, table
from corank.cut_targets import parse_target
from corank.data.cifar10 import read_cifar10
from corank.data.tasks import make_task
from corank.decision.intervals import Interval, difference_interval
from corank.files import write_text
from corank.latency import LatencyTable
from corank.pilot.arms import Trainer
from corank.pilot.folder import WORK, trial_folder
from corank.pilot.identity import identity_of
from corank.pilot.options import ARMS, TrialOptions, split_epochs
from corank.pilot.problem import Problem
from corank.pilot.tables import label, to_markdown
from corank.pilot.times import measure_times
from corank.pilot.trial import run_trial
from corank.replay import set_seed
from corank.weights import file_digest

RUNS = Path(__file__).resolve().parents[1] / "runs"
EPOCHS = 10
THREADS = 2  # of what is timed


def make_problem(depth: int, files: int | None) -> Problem:
    """Describe the problem; `files` mosaics of 1,000 images of each split, all without it."""
    parts = read_cifar10(SHARED / "cifar10", files)
    (weights,) = (SHARED / "resnet_cifar10").glob(f"*{depth}*.safetensors")
    mean, std = tuple(MEAN.tolist()), tuple(STD.tolist())
    return Problem(
        data=f"{parts.name}; test split once into dev and final",
        model=f"ResNet-{depth} with the weights of akamaster/pytorch_resnet_cifar10",
        samples={"train": len(parts.train), "dev": len(parts.dev), "final": len(parts.final)},
        classes=parts.classes,
        make_task=partial(make_task, parts, batch_size=128, latency_batch=16, mean=mean, std=std),
        make_model=partial(ResNet, (depth - 2) // 6),
        keep=("linear",),
        make_start=partial(resnet, depth),
        weights=file_digest(weights),
    )


def prepare(problem: Problem, out: Path, options: TrialOptions) -> None:
    """Open the trial and measure its latency table."""
    with trial_folder(out, identity_of(problem, options.to_dict())) as work:
        _times(problem, work, options)


def train(problem: Problem, out: Path, options: TrialOptions, arms: list[str]) -> None:
    """Train some arms of a trial that is open; another process may train others beside."""
    (seed,) = options.seeds
    table = _times(problem, out / WORK, options)
    set_seed(seed)
    trainer = Trainer(problem, seed, options, out / WORK / f"seed{seed}", table)
    start = trainer.make_start()
    for arm in arms:
        trainer.make_arm(arm, start)


def _times(problem: Problem, work: Path, options: TrialOptions) -> LatencyTable:
    return measure_times(
        problem,
        options.seeds[0],
        work,
        backend=options.target.backend,
        time_budget=options.target.time_budget,
        threads=options.threads,
    )


def compare(out: Path) -> list[tuple[str, str, float, Interval]]:
    """Compare each forced arm with low rank without force, on the same final images."""
    with (out / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    hits = {arm: torch.tensor([int(row[f"{arm}_correct"]) for row in rows]) for arm in ARMS}
    return [
        (arm, _verdict(interval), (hits[arm].sum() - hits["lowrank"].sum()).item() / len(rows), interval)
        for arm in ("force", "force_plan")
        for interval in [difference_interval(hits[arm], hits["lowrank"])]
    ]


def _verdict(interval: Interval) -> str:
    if interval.low > 0:
        return "won"
    return "lost" if interval.high < 0 else "neither won nor lost: the interval includes no difference"


def store_pages(depth: int, out: Path, result: dict, options: TrialOptions, seed: int) -> None:
    """Write docs/results/resnet<depth>/: the page, and pilot.json without spectra and filters."""
    run = describe_run(seed)
    compared = [
        [label(arm), f"{100 * gap:+.2f}", f"{100 * low:+.2f} to {100 * high:+.2f}", said]
        for arm, said, gap, (low, high) in compare(out)
    ]
    target = ", ".join(f"{key} {value}" for key, value in options.target.to_dict().items())
    began = (
        f"Every arm started at the trained weights and trained {options.epochs} epochs; the cut came after "
        f"{options.before_cut}. Target of the cut: {target}. The weights had seen all training images and "
        "were chosen on the test images, so accuracy here is a little too high, in all arms alike."
    )
    versions = ", ".join(f"{name} {one}" for name, one in result["protocol"]["versions"].items())
    made = (
        f"`{run['command']}`, {run['date']}, seed {seed}, trained in {options.precision}, judged and "
        f"timed in {run['precision']} on {options.threads} threads, corank {run['corank']}, "
        f"training threads {run['threads']}, load {run['load_average']:.1f} at the end; {versions}. "
        "All figures: [pilot.json](pilot.json), without singular values and filters."
    )
    lines = [
        f"# ResNet-{depth} on CIFAR-10: does the force pay?",
        began,
        "",
        to_markdown(result),
        "## The force against the cut alone",
        "On the same final images, in points of accuracy with the 95% interval:",
        "",
        table(["arm", "difference", "interval", f"at {options.epochs} epochs the force"], compared),
        "",
        "## What this can prove",
        *(f"- {sentence}" for sentence in result["proves"]),
        "",
        "## How it was measured",
        made,
    ]
    folder = RESULTS / f"resnet{depth}"
    write_text(folder / "README.md", "\n".join(lines) + "\n")
    for arm in result["arms"]:
        arm["basis_filters"] = None
        for layer in arm["layers"]:
            layer["singular_values"] = []
    write_text(folder / "pilot.json", json.dumps({"run": run, **result}, indent=1, default=str))


def main() -> None:
    """Run the trial, print its table, and store it if it was run in full."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("depth", type=int, choices=(20, 56))
    parser.add_argument("--stage", default="all", help="table, or arms by commas, or all that is left")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of each arm, half of them before the cut")
    parser.add_argument("--target", default="latency=0.7,backend=onnxruntime", help="as in corank pilot")
    # of the forces tried here before (shared/design.md, fact 12), the one that paid right after a cut
    parser.add_argument("--kind", default="output", help="the force")
    parser.add_argument("--strength", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="bfloat16", help="of training")
    parser.add_argument("--files", type=int, help="read only so many thousand images of each split")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = TrialOptions(
        arms=tuple(ARMS),
        **split_epochs(given.epochs, trained=True),
        target=parse_target(given.target),
        kind=given.kind,
        strength=given.strength,
        seeds=(given.seed,),
        precision=given.precision,
        threads=THREADS,
    )
    whole = given.files is None and given.epochs == EPOCHS
    name = f"resnet{given.depth}" if whole else f"resnet{given.depth}-{given.epochs}-{given.files}"
    out, problem = RUNS / name, make_problem(given.depth, given.files)
    if given.stage == "table":
        prepare(problem, out, options)
        return
    if given.stage != "all":
        train(problem, out, options, given.stage.split(","))
        return
    result = run_trial(problem, out, options, command=describe_run(given.seed)["command"])
    print(to_markdown(result))
    for arm, said, gap, (low, high) in compare(out):
        interval = f"{100 * low:+.2f} to {100 * high:+.2f}"
        print(f"{label(arm)} against low rank: {100 * gap:+.2f} points ({interval}), {said}")
    if whole:
        store_pages(given.depth, out, result, options, given.seed)


if __name__ == "__main__":
    main()
