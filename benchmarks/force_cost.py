"""What the force costs: the time it adds to `optimizer.step()`, as a share of the whole training step.

Run: python -m benchmarks.force_cost [--quick] [--threads 2] [--seed 0]
For torchao's PAT in the same tables, run it where torchao is installed beside the same torch.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.cifar import ResNet
from benchmarks.every_kth import EPOCHS, compare
from benchmarks.force_page import page
from benchmarks.force_steps import ARMS, Arm, Case, Rival, Training
from benchmarks.rank_rivals import rivals
from benchmarks.record import describe_run, store, stored, stored_run
from benchmarks.resnet50 import ResNet50
from corank.benchmarks.machine import pinned, usable_threads
from corank.benchmarks.timing import round_orders, speedup
from corank.force import TILE, l1_force, l2_force
from corank.l2_in_place import add_l2_
from corank.output_moments import OBSERVE_EVERY
from corank.rows_in_memory import rows_in_memory

CASES = (
    Case("ResNet-20, 128×3×32×32", lambda: ResNet(3), (128, 3, 32, 32), 10, 30, 6, 5),
    Case("ResNet-50, 16×3×224×224", ResNet50, (16, 3, 224, 224), 1000, 10, 4, 3),
)
QUICK = (Case("ResNet-20, 16×3×32×32", lambda: ResNet(3), (16, 3, 32, 32), 10, 4, 2, 2),)
# Shares of the training step; those of ℓ1 hold for ResNet-50 only. That of subspace is for its default.
TARGETS = {"l2": 0.01, "AutoStrength (l2)": 0.03, "subspace": 0.03}
RESNET50_TARGETS = {"l1": 0.25, "l1, every=8": 0.05}
WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
WIDEST_FILTER = 4608
Times = np.ndarray[Any, np.dtype[np.float64]]


def measure(case: Case, seed: int) -> dict[str, Any]:
    """Time everything on one network in turns, each round in a random order and the next in reverse."""
    say(case.name)
    torch.manual_seed(seed)
    training = Training(case)
    arms = {name: Arm(training, options) for name, options in ARMS.items()}
    for name, arm in arms.items():
        say(f"  {name}: first steps")
        for _ in range(case.first_steps):
            arm.renew()
    others = {name: Rival(training, make) for name, make in rivals()[0].items()}
    plain: list[float] = []
    whole: list[float] = []
    takes: dict[str, Callable[[], object]] = {
        "whole": lambda: whole.append(training.whole()),
        "plain": lambda: plain.append(training.step(training.plain.step)),
    }
    takes |= {name: one.sample for name, one in {**arms, **others}.items()}
    gc.collect()
    gc.disable()
    for number, order in enumerate(round_orders(list(takes), case.rounds, seed)):
        say(f"  round {number + 1} of {case.rounds}")
        for name in order:
            if name not in others or number < case.rival_rounds:
                takes[name]()
    gc.enable()
    whole_R, plain_R = np.array(whole), np.array(plain)
    extra = {
        name: np.array(one.steps) - plain_R[: len(one.steps)] for name, one in {**arms, **others}.items()
    }
    rival_R = {name: extra[name] for name in others}
    rows = {
        name: row(name, arm, extra[name], plain_R, whole_R, rival_R, case, seed) for name, arm in arms.items()
    }
    return {
        "case": case.name,
        "weights": sum(one.numel() for one in training.model.parameters()),
        "whole_ms": ms(whole_R),
        "plain_ms": ms(plain_R),
        "rounds": case.rounds,
        "rows": rows,
        "rivals": {
            name: {"ms": ms(extra_R), "share": share(extra_R, whole_R, seed)}
            for name, extra_R in rival_R.items()
        },
        "memory": memory(training, arms),
    }


def row(
    name: str,
    arm: Arm,
    extra_R: Times,
    plain_R: Times,
    whole_R: Times,
    rival_R: dict[str, Times],
    case: Case,
    seed: int,
) -> dict[str, Any]:
    """Amortise what is due at first steps over their period, and compare."""
    usual = float(np.median(plain_R)) + arm.every * float(np.median(extra_R))  # a forced step
    first = statistics.median(arm.firsts)
    looking = statistics.median(arm.looks) / OBSERVE_EVERY if arm.looks else 0.0
    amortised_R = extra_R + max(first - usual, 0.0) / arm.period + looking
    shares = share(amortised_R, whole_R, seed)
    target = {**TARGETS, **(RESNET50_TARGETS if "ResNet-50" in case.name else {})}.get(name)
    return {
        "extra_ms": ms(extra_R),
        "first_step_ms": first * 1e3,
        "period": arm.period,
        "looking_ms": looking * 1e3,
        "amortised_ms": ms(amortised_R),
        "share": shares,
        "target": target,
        "passed": None if target is None else shares["median"] <= target,
        "cheaper_than": {
            rival: share(rival_extra_R, amortised_R, seed)
            for rival, rival_extra_R in rival_R.items()
            if "every=" not in name or arm.every == 1
        },
    }


def share(part_R: Times, of_R: Times, seed: int) -> dict[str, float]:
    """Return the median over rounds of part / whole with a 95% bootstrap interval over pairs of rounds."""
    rounds = min(len(part_R), len(of_R))
    median, (low, high) = speedup(part_R[:rounds], of_R[:rounds], seed)
    return {"median": median, "low": low, "high": high}


def memory(training: Training, arms: dict[str, Arm]) -> dict[str, Any]:
    """Return the peak of what torch holds more during a forced step than before it, in bytes."""
    largest = max((one for one in training.model.parameters() if one.dim() == 4), key=torch.numel)
    filters, width = largest.shape[0], largest[0].numel()
    found: dict[str, Any] = {
        "largest_layer": largest.numel() * 4,
        "tile": min(TILE, filters) * max(width, min(TILE, filters)) * 4,
    }
    for name, arm in arms.items():
        if "every=" not in name:
            arm.renew()
            while arm.taken % arm.every:  # up to the next forced step
                arm.optimizer.step()
                arm.taken += 1
            in_place = arm.options["kind"] in ("l2", "subspace", "output")
            found[name] = {"result": 0 if in_place else largest.numel() * 4, "peak": peak(arm.optimizer.step)}
    return found


def peak(take: Callable[[], object]) -> int:
    """Return the peak of the bytes allocated, less those freed, during a call: from the profiler's events."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        take()
    events = [one for one in record.profiler.kineto_results.events() if one.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def growth_with_width(widths: tuple[int, ...]) -> list[dict[str, float]]:
    """Time one layer of N filters with 9 N weights each, at most 4608: as a 3×3 convolution N to N."""
    rows = []
    for n in widths:
        d = min(9 * n, WIDEST_FILTER)
        say(f"width {n} × {d}")
        layer = nn.Linear(d, n, bias=False)
        weight, gradient = layer.weight.detach(), torch.zeros(n, d)
        timed = {
            "l2": (lambda w=weight: l2_force(w), 6.0 * n * d),
            "l2 in place": (
                lambda w=weight, g=gradient, one=layer: add_l2_([rows_in_memory(g, w, one, 1e-9)]),
                8.0 * n * d,
            ),
            "l1": (lambda w=weight: l1_force(w), 3.0 * n * n * d),
        }
        found: dict[str, float] = {"n": n, "d": d}
        for name, (take, operations) in timed.items():
            spent = typical(take)
            found |= {f"{name}, ms": spent * 1e3, f"{name}, GFLOP/s": operations / spent / 1e9}
        rows.append(found)
    return rows


def typical(take: Callable[[], object]) -> float:
    """Return the median seconds of 5 calls, or as many as make 0.1 s, after one that is not counted."""
    take()
    spent: list[float] = []
    while len(spent) < 5 or sum(spent) < 0.1:
        start = time.perf_counter()
        take()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def ms(seconds_R: Times) -> float:
    return float(np.median(seconds_R)) * 1e3


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def measure_again(name: str, seed: int) -> dict[str, Any]:
    """Return the stored data with one network measured anew."""
    data = stored("force_cost")
    (case,) = [one for one in CASES if one.name.startswith(name)]
    found = measure(case, seed)
    run = describe_run(seed)
    found["again"] = f"`{run['command']}`, {run['date']}, load {run['load_average']:.1f}"
    data["cases"] = [found if one["case"] == case.name else one for one in data["cases"]]
    data["first"] = data.get("first") or stored_run("force_cost")
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a reduced form in under a minute; writes nothing"
    )
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--network", help="measure only this one, by the beginning of its name; the rest stays as stored"
    )
    options = parser.parse_args()
    load = os.getloadavg()[0]
    if options.network:
        with pinned(options.threads):
            data = measure_again(options.network, options.seed)
            run = describe_run(options.seed) | {"load_average_before": load}
        store("force_cost", "What the force costs", page(data, load), data, run)
        return
    with pinned(options.threads):
        cases = [measure(case, options.seed) for case in (QUICK if options.quick else CASES)]
        widths = growth_with_width(WIDTHS[:3] if options.quick else WIDTHS)
        seeds, epochs = (1, 1) if options.quick else (3, EPOCHS)
        say("forces at every k-th step")
        data = {
            "pat": rivals()[1],
            "cases": cases,
            "widths": widths,
            "every_epochs": epochs,
            "every_kth": compare(seeds, epochs),
        }
        run = describe_run(options.seed) | {"load_average_before": load}
    body = page(data, load)
    if options.quick:
        sys.stdout.write(f"{body}\n\nA quick run, to see that it works: {run['command']}.\n")
    else:
        store("force_cost", "What the force costs", body, data, run)


if __name__ == "__main__":
    main()
