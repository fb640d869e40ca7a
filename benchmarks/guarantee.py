"""Whether `corank.compress` ever gives a slower network: many networks and engines, each raced again.

Every network of the shipped zoo and seven ordinary ones is compressed as deep as measured time allows; what
comes out is timed against the dense network once more, in two independent runs. Slower means: the time over
dense's has a lower bound above 1.02 in both. Cells that are done are kept in the cache folder, so that a run
that stops goes on where it was.
Run: python -m benchmarks.guarantee [--cells 40] [--seed 0] [--threads 2] [--cache runs/guarantee]
All of them, a night: python -m benchmarks.guarantee --cells 0
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import corank
from benchmarks.cifar import ResNet
from benchmarks.networks import AlexNet, mobilenet_v2, resnet18, vgg16
from benchmarks.record import describe_run, store, table
from benchmarks.resnet50 import ResNet50
from corank.benchmarks import bench
from corank.benchmarks.machine import pinned, usable_threads
from corank.errors import CorankError, ExtraError
from corank.files import write_text
from corank.testing.zoo import NETWORKS
from corank.verdicts import SLOWER

ENGINES = ("torch", "torch_channels_last", "onnxruntime", "openvino")
BATCHES = (1, 8)
RULE = corank.Energy(0.1)  # as deep as pays
SECONDS = 10.0  # for each latency table
ROUNDS = 20

Make = tuple[Callable[[], nn.Module], Callable[[int], Any]]


def _images(size: int) -> Callable[[int], Tensor]:
    return lambda batch: torch.randn(batch, 3, size, size)


def networks() -> dict[str, Make]:
    """Return every network with what it takes, by name."""
    zoo: dict[str, Make] = {name: (case.build, case.input) for name, case in NETWORKS.items()}
    return zoo | {
        "AlexNet": (AlexNet, _images(227)),
        "VGG-16": (vgg16, _images(224)),
        "ResNet-18": (resnet18, _images(224)),
        "ResNet-50": (ResNet50, _images(224)),
        "MobileNetV2": (mobilenet_v2, _images(224)),
        "ResNet-20": (lambda: ResNet(3), _images(32)),
        "ResNet-56": (lambda: ResNet(9), _images(32)),
    }


def measure(
    name: str, engine: str, batch: int, threads: int, seed: int, seconds: float = SECONDS
) -> dict[str, Any]:
    """Compress one network for one engine and batch, and race the result against dense twice."""
    begin = time.perf_counter()
    torch.manual_seed(seed)
    make, example_of = networks()[name]
    model, example = make().eval(), example_of(batch)
    row: dict[str, Any] = {"network": name, "engine": engine, "batch": batch}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = corank.compress(
                model,
                RULE,
                example=example,
                backend=engine,
                threads=threads,
                time_budget=seconds,
                rounds=ROUNDS,
                seed=seed,
                progress=False,
            )
            pair = {"dense": model, "result": result.model}
            runs = [
                bench(
                    pair,
                    example,
                    backends=[engine],
                    threads=threads,
                    rounds=ROUNDS,
                    seed=number,
                    memory=False,
                ).row("result", engine)
                for number in (seed + 1000, seed + 1001)
            ]
    except ExtraError:
        raise
    except CorankError as error:
        return row | {"outcome": "refused", "why": str(error)[:300], "seconds": time.perf_counter() - begin}
    return row | {
        "outcome": "cut" if result.verdict.shipped else "dense",
        "split": len(result.plan.layers),
        "of": len(result.plan.layers) + len(result.plan.skipped),
        "undone": len(result.verdict.undone or {}),
        "why": "; ".join(result.verdict.reasons),
        "speedup": [one.speedup for one in runs],
        "speedup_ci": [list(one.speedup_ci) for one in runs],
        "slower": all(1 / one.speedup_ci[1] > SLOWER for one in runs),
        "seconds": time.perf_counter() - begin,
    }


def page(rows: list[dict[str, Any]], every: int) -> str:
    """Write the table, with what was slower above all."""
    measured = [row for row in rows if row["outcome"] != "refused"]
    slower = [row for row in measured if row["slower"]]
    cut = [row for row in measured if row["outcome"] == "cut"]
    lines = []
    for row in sorted(rows, key=lambda one: (one["network"], one["engine"], one["batch"])):
        cells = [row["network"], row["engine"], row["batch"], row["outcome"]]
        if row["outcome"] == "refused":
            lines.append([*cells, "", "", row["why"]])
            continue
        runs = [
            f"{one:.2f} ({low:.2f} – {high:.2f})"
            for one, (low, high) in zip(row["speedup"], row["speedup_ci"], strict=True)
        ]
        split = f"{row['split']} of {row['of']}" + (f", {row['undone']} undone" if row["undone"] else "")
        lines.append([*cells, split, "; ".join(runs), "**slower**" if row["slower"] else row["why"]])
    verdict = "passed" if not slower else "**missed**"
    dense, refused = len(measured) - len(cut), len(rows) - len(measured)
    return (
        f"{len(rows)} of {every} cells (a network, an engine, a batch), drawn at random. `compress` with "
        f"{RULE}: every layer as deep as pays in measured time, no training. A latency table had "
        f"{SECONDS:g} s, in which few splits of a heavy network are measured; what was not measured is not "
        "made, so some come back dense that would have gained. Then it was raced against dense "
        f"again, in two independent runs of {ROUNDS} rounds; slower means a lower bound of the time "
        f"ratio above {SLOWER} in both.\n\n"
        f"**{len(slower)} of {len(measured)} results are slower than dense** (goal 0: {verdict}). "
        f"{len(cut)} were cut, {dense} came back dense because nothing paid, {refused} could not be "
        "compressed, with a reason.\n\n"
        + table(
            ["network", "engine", "batch", "result", "layers split", "speedup, each run (95%)", "note"], lines
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=40, help="how many, drawn at random; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--cache", type=Path, default=Path("runs/guarantee"))
    parser.add_argument("--quick", action="store_true", help="two small cells; writes nothing")
    options = parser.parse_args()
    cells = list(product(networks(), ENGINES, BATCHES))
    chosen = [("residual", "torch", 1), ("perceptron", "onnxruntime", 8)]
    if not options.quick:
        chosen = random.Random(options.seed).sample(cells, options.cells or len(cells))
        options.cache.mkdir(parents=True, exist_ok=True)
    rows = []
    with pinned(options.threads):
        for number, (name, engine, batch) in enumerate(chosen, 1):
            kept = options.cache / f"{name}-{engine}-{batch}-{options.seed}.json".replace(" ", "_")
            if kept.exists() and not options.quick:
                rows.append(json.loads(kept.read_text()))
                continue
            rows.append(measure(name, engine, batch, options.threads, options.seed))
            sys.stderr.write(f"{number} of {len(chosen)}: {rows[-1]}\n")
            if not options.quick:
                write_text(kept, json.dumps(rows[-1]))
        run = describe_run(options.seed)
    body = page(rows, len(cells))
    if options.quick:
        sys.stdout.write(f"{body}\n\nA quick run, to see that it works: {run['command']}.\n")
    else:
        store("guarantee", "Never slower: the guarantee of compress, tried", body, rows, run)
    return int(any(row.get("slower") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
