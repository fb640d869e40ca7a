"""How near each layer comes to the machine's measured peaks, dense and cut, on every engine.

Run: python -m benchmarks.roofline [--engines torch …] [--batch 1] [--quick] [--threads 2]
Each call adds its engines to the stored results.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import corank
from benchmarks.alexnet_ranks import METHOD, cut, paper_choices
from benchmarks.alexnet_ranks import example as alexnet_input
from benchmarks.alexnet_ranks import features as alexnet
from benchmarks.chains import ENGINES, against, random_chain, time_chains
from benchmarks.decaying import decay_
from benchmarks.networks import make
from benchmarks.peaks import Peaks, Stage, better, find_stages, measure_peaks, predict
from benchmarks.record import describe_run, interval, rounded, say, store, stored, table
from corank.benchmarks import pinned
from corank.benchmarks.machine import usable_threads
from corank.methods import METHODS
from corank.probing import observe

ROUNDS = 12
SHARE = 0.5  # of ResNet-18's multiply-accumulates
MULTIPLE = 16


class Case(NamedTuple):
    """A layer of a network with its input, its split, and how often the network has this shape."""

    network: str
    layer: str
    dense: nn.Conv2d
    method: str
    rank: int  # per group
    shape: tuple[int, ...]
    times: int


def find_cases(batch: int) -> Iterator[Case]:
    """Walk over the layers of AlexNet at the ranks (a) and of ResNet-18 at half its multiply-accumulates.

    Layers of one shape and rank are measured once.
    """
    network, x = alexnet(), alexnet_input(batch)
    _, plan = cut(network, paper_choices(network, "a"), x)
    yield from _cases("AlexNet", network, plan, x)
    network, x = make("resnet18", batch=batch)
    decay_(network)
    plan = corank.plan(network, corank.Budget(macs=SHARE), example=x, multiple=MULTIPLE, types=("conv",))
    yield from _cases("ResNet-18", network, plan, x)


def _cases(title: str, network: nn.Module, plan: corank.Plan, x: Tensor) -> Iterator[Case]:
    layers = {name: one for name, one in network.named_modules() if isinstance(one, nn.Conv2d)}
    uses = observe(network, layers, x)
    found: dict[tuple[object, ...], list[Case]] = {}
    for name, layer in layers.items():
        choice = plan.layers.get(name)
        method, rank = (choice.method, choice.rank) if choice else (METHOD.get(name, "filter_basis"), 0)
        shape = uses[name].calls[0].input_shape
        key = (layer.weight.shape, layer.stride, layer.groups, shape, method, rank)
        found.setdefault(key, []).append(Case(title, name, layer, method, rank, shape, 1))
    for same in found.values():
        yield same[0]._replace(times=len(same))


def measure(cases: list[Case], engine: str, threads: int, rounds: int, seed: int) -> dict[str, Any]:
    """Time every layer alone with its ReLU, dense and cut."""
    before, rows = measure_peaks(), []
    for case in cases:
        say(f"{engine}: {case.network} {case.layer}")
        chains = {"dense": nn.Sequential(case.dense, nn.ReLU())}
        if case.rank:
            chains["cut"] = random_chain(METHODS[case.method].structure(case.dense, case.rank))
        times = time_chains(engine, chains, torch.randn(case.shape), threads, rounds=rounds, seed=seed)
        for kind, chain in chains.items():
            stages = find_stages(chain, case.shape)
            rows.append(
                {
                    "network": case.network,
                    "layer": case.layer,
                    "times": case.times,
                    "kind": "dense" if kind == "dense" else f"{case.method} {case.rank}",
                    "stages": [asdict(stage) for stage in stages],
                    **against(times["dense"], times[kind], seed),
                    "seconds": float(np.median(times[kind])),
                }
            )
    peaks = better(before, measure_peaks())
    for row, stages in ((row, row["stages"]) for row in rows):
        row |= achieved(stages, row["seconds"], peaks)
    return {"peaks": asdict(peaks), "rows": rows}


def achieved(stages: list[dict[str, Any]], seconds: float, peaks: Peaks) -> dict[str, Any]:
    """Return operations and bytes a second, as shares of the peaks too, and the time at the roofline."""
    made = [Stage(**one) for one in stages]
    flops, moved = (sum(getattr(one, key) for one in made) / seconds for key in ("flops", "bytes"))
    return {
        "gflops": flops / 1e9,
        "gbytes": moved / 1e9,
        "of_flops": flops / peaks.flops,
        "of_bytes": moved / peaks.bytes,
        "of_roofline": predict(made, peaks) / seconds,
        "bound": [one.bound(peaks) for one in made],
    }


def page(data: dict[str, Any]) -> str:
    """Write one table an engine, and what the engines have in common."""
    parts, summary = [], []
    for engine, one in data.items():
        peaks, lines = one["peaks"], []
        for row in one["rows"]:
            lines.append(
                [
                    f"{row['network']} {row['layer']}" + (f" ({row['times']}×)" if row["times"] > 1 else ""),
                    row["kind"],
                    f"{row['ms']:.3f}",
                    "" if row["kind"] == "dense" else interval(row),
                    f"{row['gflops']:.0f}",
                    f"{row['of_flops']:.0%}",
                    f"{row['gbytes']:.1f}",
                    f"{row['of_bytes']:.0%}",
                    "/".join(row["bound"]),
                    f"{row['of_roofline']:.2f}",
                ]
            )
        head = ["layer", "", "ms", "speedup (95%)", "GFLOP/s", "of peak", "GB/s", "of peak", "bound by"]
        parts.append(
            f"## {engine}, batch {one['batch']}\nPeaks: {peaks['flops'] / 1e9:.0f} GFLOP/s, "
            f"{peaks['bytes'] / 1e9:.1f} GB/s.\n\n" + table([*head, "of the roofline"], lines)
        )
        for network in dict.fromkeys(row["network"] for row in one["rows"]):
            summary.append([engine, network, *_shares(one["rows"], network)])
    return (
        "Each layer alone with its ReLU, float32, random weights: dense, and cut (AlexNet at ranks (a) of "
        f"`alexnet`, ResNet-18 at {SHARE:.0%} of its multiply-accumulates, filter basis, ranks that are "
        f"multiples of {MULTIPLE}). Achieved operations (two a MAC) and bytes (inputs, weights "
        "and outputs of each part, once) a second, against the best matrix product and the best copy of the "
        "same run. *Of the roofline* is the time at the peaks, max(operations, bytes) part by part, over the "
        "measured time; above 1 the maps came from a cache, or the engine needs fewer operations than were "
        "counted.\n\n## Time at the roofline over measured time, all layers of a network\n"
        + table(["engine", "network", "dense", "cut layers, dense", "cut layers, cut", "kept"], summary)
        + "\n\n*Kept* is how much of the counted and bandwidth-limited speedup the engine gives.\n\n"
        + "\n\n".join(parts)
    )


def _shares(rows: list[dict[str, Any]], network: str) -> list[str]:
    """Return the roofline's share of the measured time: all dense layers, and those that were cut."""
    here = [row for row in rows if row["network"] == network]
    split = {row["layer"] for row in here if row["kind"] != "dense"}
    kinds = {
        "dense": [row for row in here if row["kind"] == "dense"],
        "before": [row for row in here if row["kind"] == "dense" and row["layer"] in split],
        "after": [row for row in here if row["kind"] != "dense"],
    }
    shares = {
        kind: sum(row["times"] * row["seconds"] * row["of_roofline"] for row in some)
        / sum(row["times"] * row["seconds"] for row in some)
        for kind, some in kinds.items()
        if some
    }
    if "after" not in shares:
        return [f"{shares['dense']:.2f}", "", "", ""]
    shares["kept"] = shares["after"] / shares["before"]
    return [f"{one:.2f}" for one in shares.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a reduced form, under a minute; writes nothing")
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    data = {} if options.quick else stored("roofline")
    with pinned(options.threads):
        cases = list(find_cases(options.batch))
        engines, rounds = (("torch", "onnxruntime"), 4) if options.quick else (options.engines, ROUNDS)
        for engine in engines:
            data[engine] = rounded(measure(cases, engine, options.threads, rounds, options.seed))
            data[engine] |= {"batch": options.batch, "run": describe_run(options.seed)}
        run = describe_run(options.seed) | {"load_average_before": load}
    body = page(data)
    if options.quick:
        sys.stdout.write(f"{body}\n\nA quick run, to see that it works: {run['command']}.\n")
    else:
        store("roofline", "Each layer against the machine's peaks", body, data, run)


if __name__ == "__main__":
    main()
