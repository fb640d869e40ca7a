"""What plan and decompose cost: time, error and memory, against an SVD per layer and the rivals that run.

Weights are random with a decaying spectrum, as trained ones have: W = A diag(m^-½) B with normal A (N × R,
over √R) and B (R × D). Every layer is ordered to a share of its full rank.
Run: python -m benchmarks.decompose_speed [--quick] [--threads 2] [--rounds 4] [--patience 300] [--seed 0]
For the rivals, run it where they are installed; see benchmarks/split_rivals.py. Each network is stored when
it is done, so that they can be run one by one with --cases.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import corank
from benchmarks.networks import vgg16
from benchmarks.record import describe_run, store, stored, table
from benchmarks.resnet50 import ResNet50
from benchmarks.split_rivals import PLAIN, Split, find_rivals, plain_svd
from corank.benchmarks.machine import pinned, usable_threads
from corank.benchmarks.timing import round_orders, speedup
from corank.layers import FilterLayer, filter_layers, filter_matrix, from_filters, full_rank
from corank.leading import TILE
from corank.methods import default_method, fold
from corank.methods.projection import reconstruction_error

OURS = "corank, plan and decompose"
SAME = 1e-4  # of the error of the best split
TARGET = 5.0
SMALLEST = 32e6  # bytes of a limit below which a process's size is too coarse a measure


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    example: tuple[int, ...]
    share: float


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(4096, 11008, bias=False))


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))


CASES = {
    "linear": Case("Linear 4096 × 11008, rank 25%", linear, (1, 4096), 0.25),
    "linear-1%": Case("Linear 4096 × 11008, rank 1%", linear, (1, 4096), 0.01),
    "vgg16": Case("VGG-16, rank 25%", vgg16, (1, 3, 224, 224), 0.25),
    "resnet50": Case("ResNet-50, rank 25%", ResNet50, (1, 3, 224, 224), 0.25),
}
UNENDED = {  # what was tried and given up on
    (
        "vgg16",
        "tensorly symeig_svd",
    ): "had not ended after 12 minutes: it takes the 25088 × 25088 Gram matrix of the first linear layer",
}
QUICK = {
    "convs": Case("two convolutions, rank 25%", small_network, (1, 3, 16, 16), 0.25),
    "linear": Case("Linear 640 × 1100, rank 2%", lambda: nn.Sequential(nn.Linear(640, 1100)), (1, 640), 0.02),
}


def prepare(case: Case, seed: int) -> tuple[nn.Module, dict[str, FilterLayer], dict[str, int]]:
    """Build the network with its weights, and say which rank every layer is ordered to."""
    torch.manual_seed(seed)
    model = case.make().eval()
    layers, _ = filter_layers(model)
    with torch.no_grad():
        for layer in layers.values():
            n, d = filter_matrix(layer).shape[1:]
            r = min(n, d)
            decay = torch.arange(1, r + 1, dtype=torch.float32) ** -0.5
            w = (torch.randn(n, r) / r**0.5) @ (decay[:, None] * torch.randn(r, d)) / d**0.5
            layer.weight.copy_(from_filters(w[None], layer))
    return model, layers, {name: max(1, int(full_rank(one) * case.share)) for name, one in layers.items()}


def measure(key: str, case: Case, rivals: dict[str, Split], options: argparse.Namespace) -> dict[str, Any]:
    """Time everything on one network in turns; nobody starts again after `patience` seconds."""
    say(case.name)
    model, layers, ranks = prepare(case, options.seed)
    example = torch.zeros(case.example)
    arms: dict[str, Split] = {PLAIN: plain_svd, **rivals}
    seconds: dict[str, list[float]] = {OURS: [], **{name: [] for name in arms}}
    stages: list[tuple[float, float]] = []
    errors: dict[str, dict[str, float]] = {name: {} for name in seconds}
    failed = {arm: why for (of, arm), why in UNENDED.items() if of == key and arm in arms}

    def ours() -> None:
        start = time.perf_counter()
        plan = corank.plan(model, corank.Ranks(dict(ranks)), example=example)
        planned = time.perf_counter()
        small = corank.decompose(model, plan)
        end = time.perf_counter()
        seconds[OURS].append(end - start)
        stages.append((planned - start, end - planned))
        if not errors[OURS]:
            for name, layer in layers.items():
                errors[OURS][name] = reconstruction_error(layer, fold(small.get_submodule(name)))

    def theirs(arm: str) -> None:
        spent = 0.0
        for name, layer in layers.items():
            start = time.perf_counter()
            try:
                factors = arms[arm](layer, ranks[name])
            except Exception as error:  # a rival's failure is a result
                failed[arm] = f"{name}: {type(error).__name__}: {str(error)[:80]}"
                return
            spent += time.perf_counter() - start
            if name not in errors[arm]:
                errors[arm][name] = relative_error(layer, *factors)
        seconds[arm].append(spent)

    ours()  # loads what is loaded lazily
    seconds[OURS].clear()
    stages.clear()
    for order in round_orders(list(seconds), options.rounds, options.seed):
        for arm in order:
            gc.collect()
            if arm == OURS:
                ours()
            elif arm not in failed and sum(seconds[arm]) < options.patience:
                say(f"  {arm}")
                theirs(arm)
    rows = {name: row(name, seconds, errors, options.seed) for name in seconds if name not in failed}
    for arm, why in failed.items():
        rows[arm] = {"failed": why}
    return {
        "case": case.name,
        "layers": len(layers),
        "stages_s": dict(zip(("plan", "decompose"), np.median(stages, 0).tolist(), strict=True)),
        "rows": rows,
    }


def row(
    name: str, seconds: dict[str, list[float]], errors: dict[str, dict[str, float]], seed: int
) -> dict[str, Any]:
    theirs, ours = np.array(seconds[name]), np.array(seconds[OURS])
    rounds = min(len(theirs), len(ours))
    found: dict[str, Any] = {"seconds": float(np.median(theirs)), "rounds": rounds}
    if rounds >= 2:
        even = rounds - rounds % 2
        found["ratio"], found["ratio_ci"] = speedup(theirs[:even], ours[:even], seed)
    else:
        found["ratio"], found["ratio_ci"] = float(theirs[0] / ours[0]), None
    excess = [errors[name][layer] / errors[PLAIN][layer] - 1 for layer in errors[PLAIN]]
    found["error"] = float(np.mean(list(errors[name].values())))
    found["excess"] = [min(excess), max(excess)]
    found["same_error"] = max(abs(one) for one in excess) <= SAME
    return found


def relative_error(layer: FilterLayer, left: torch.Tensor, right: torch.Tensor) -> float:
    """Return ‖W − LR‖ / ‖W‖, of the unfolding that the factors have."""
    w = filter_matrix(layer)[0].detach().double()
    if (left.shape[0], right.shape[1]) != tuple(w.shape):
        w = layer.weight.detach().double().transpose(0, 1).flatten(1)
    return float((w - left.double() @ right.double()).norm() / w.norm())


def memory(case: Case, seed: int) -> list[dict[str, Any]]:
    """Return by how much the process grows at most while a layer's energies and factors are found."""
    warm = nn.Linear(600, 600)
    default_method(warm).energies(warm)
    default_method(warm).factors(warm, 100)
    _, layers, ranks = prepare(case, seed)
    rows = []
    for name, layer in layers.items():
        method, (n, d) = default_method(layer), filter_matrix(layer).shape[1:]
        side, factor_bytes = min(n, d), ranks[name] * (n + d) * 4
        limit = 6 * side**2 * 8 + factor_bytes + side * TILE * 8
        if limit < SMALLEST:
            continue
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the highest size is counted from here
        before = resident("VmRSS")
        method.energies(layer)
        method.factors(layer, ranks[name])
        rows.append({"layer": name, "limit": limit, "peak": resident("VmHWM") - before})
    return rows


def resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def memory_apart(key: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure memory in a fresh process, where nothing freed before hides what is taken."""
    words = ["--memory", key, "--seed", str(options.seed), "--threads", str(options.threads)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.decompose_speed", *words, *(["--quick"] * options.quick)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def page(data: dict[str, Any]) -> str:
    parts = [
        f"Plan and decompose, every layer ordered to a share of its full rank, against an SVD of every layer "
        "and against other libraries' splits, which plan nothing. "
        f"Target: {TARGET:g}× faster than `{PLAIN}`, "
        f"and no slower than any rival at the same error, to {SAME:g} of the best split's in every layer. "
        "AIMET unfolds convolutions along their input channels, so there its error is another one. "
        "Weights are random with a decaying spectrum: W = A diag(m^-½) B."
    ]
    for case in data["cases"].values():
        ours = case["stages_s"]
        shown = []
        for name, one in case["rows"].items():
            if "failed" in one:
                shown.append([name, f"no figure: {one['failed']}", "", "", "", ""])
                continue
            sure = one["ratio_ci"]
            interval = "one round" if sure is None else f"{sure[0]:.2f} to {sure[1]:.2f}"
            low, high = one["excess"]
            shown.append(
                [
                    name,
                    f"{one['seconds']:.2f}",
                    f"{one['ratio']:.2f}× ({interval})",
                    f"{one['error']:.5f}",
                    f"{low:+.1e} to {high:+.1e}",
                    "yes" if one["same_error"] else "no",
                ]
            )
        parts.append(
            f"\n## {case['case']}\n{case['layers']} layers; plan {ours['plan']:.2f} s, "
            f"decompose {ours['decompose']:.2f} s. {verdict(case)}\n\n"
            + table(
                [
                    "how",
                    "seconds",
                    "time of ours (95%)",
                    "mean error",
                    "error above the best, by layer",
                    "same error",
                ],
                shown,
            )
        )
        if case["memory"]:
            worst = max(case["memory"], key=lambda one: one["peak"] / one["limit"])
            said = "passed" if worst["peak"] <= worst["limit"] else "**missed**"
            parts.append(
                f"\nMemory, the layer closest to its limit ({worst['layer']}): {worst['peak'] / 1e6:.0f} MB "
                f"more than before, limit {worst['limit'] / 1e6:.0f} MB (6·R²·8 bytes, the factors and a "
                f"tile of {TILE} columns in float64): {said}. Layers with a limit under "
                f"{SMALLEST / 1e6:.0f} MB are not measured."
            )
    parts.append("\nRivals: " + "; ".join(f"{name} {said}" for name, said in data["rivals"].items()) + ".")
    return "\n".join(parts)


def verdict(case: dict[str, Any]) -> str:
    rows = case["rows"]
    plain, ours = rows[PLAIN], rows[OURS]
    fast = plain["ratio"] >= TARGET and ours["same_error"]
    faster = [
        name
        for name, one in rows.items()
        if name not in (OURS, PLAIN) and "failed" not in one and one["same_error"] and one["ratio"] < 1
    ]
    speed = f"{TARGET:g}× faster than an SVD at the same error: {'passed' if fast else '**missed**'}"
    rest = f"**missed**, faster are {', '.join(faster)}" if faster else "passed"
    return f"{speed}; no slower than a rival at the same error: {rest}."


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small layers; writes nothing")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=4, help="an even number")
    parser.add_argument("--patience", type=float, default=300, help="seconds after which none starts again")
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    cases = QUICK if options.quick else {key: CASES[key] for key in options.cases}
    load = os.getloadavg()[0]
    with pinned(options.threads):
        if options.memory:
            sys.stdout.write(json.dumps(memory(cases[options.memory], options.seed)))
            return
        rivals, said = find_rivals()
        data = {"cases": {}} if options.quick else stored("decompose_speed") or {"cases": {}}
        data["rivals"] = said
        for key, case in cases.items():
            found = measure(key, case, rivals, options)
            data["cases"][key] = found | {"memory": memory_apart(key, options)}
            run = describe_run(options.seed) | {"load_average_before": load}
            if not options.quick:
                store("decompose_speed", "What plan and decompose cost", page(data), data, run)
    if options.quick:
        sys.stdout.write(f"{page(data)}\n\nA quick run, to see that it works: {run['command']}.\n")


if __name__ == "__main__":
    main()
