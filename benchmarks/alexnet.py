"""AlexNet's convolutions at the ranks of the paper, on every engine: measured, counted, and at the roofline.

Run: python -m benchmarks.alexnet [--engines torch onnxruntime …] [--batches 1 16] [--quick] [--threads 2]
One engine takes minutes; each call adds its engines and batches to the stored results, so that they can be
run one by one.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from benchmarks.alexnet_page import page
from benchmarks.alexnet_ranks import (
    LAYERS,
    cut,
    example,
    features,
    paper_choices,
    paper_ranks,
)
from benchmarks.alexnet_search import (
    DENSE,
    Option,
    Structure,
    candidates,
    describe,
    errors,
    fastest,
)
from benchmarks.chains import ENGINES, against, random_chain, time_chains
from benchmarks.networks import AlexNet
from benchmarks.peaks import Peaks, better, find_stages, measure_peaks, predict
from benchmarks.record import describe_run, rounded, say, store, stored
from corank.benchmarks import bench, pinned
from corank.benchmarks.machine import usable_threads
from corank.methods import METHODS

ROWS = tuple(paper_ranks())
TARGETS = ("b", "b, Figure 6")  # rows whose error our plans must not exceed
OPTIONS = dict.fromkeys(ENGINES, 7) | {"torch_compile": 2}  # ranks of each structure; compiling takes seconds
ROUNDS, ROUNDS_WHOLE = 10, 30
HELD_BACK = {"conv2": ("spatial", 20), "conv3": ("filter_basis", 124)}


def measure(engine: str, batch: int, threads: int, quick: bool, seed: int) -> dict[str, Any]:
    """Measure one engine at one batch size: layers, whole networks, and what holds them back."""
    network, x = features(seed), example(batch)
    peaks = measure_peaks()
    layers, options, lost = {}, {}, dict.fromkeys(ROWS, 0.0)
    for name in LAYERS:
        say(f"{engine}, batch {batch}: {name}")
        layers[name], options[name] = measure_layer(network, name, engine, batch, threads, quick, seed)
        for row in ROWS:
            lost[row] += layers[name]["rows"][row]["error"]
    plans = {}
    for row in TARGETS:
        worst = max(one["rows"][row]["error"] for one in layers.values())
        sane = {name: [one for one in some if one.structure.error <= worst] for name, some in options.items()}
        plans[row] = fastest(sane, lost[row])
    say(f"{engine}, batch {batch}: whole networks")
    choices = {row: paper_choices(network, row) for row in ROWS}
    choices |= {
        f"ours for {row}": {name: (one.method, one.rank) for name, one in plan.items() if one.method != DENSE}
        for row, plan in plans.items()
    }
    models, shares = {DENSE: network}, {DENSE: 1.0}
    for row, chosen in choices.items():
        models[row], plan = cut(network, chosen, x)
        shares[row] = plan.after.macs / plan.before.macs
    whole = measure_whole(models, shares, x, engine, threads, quick, seed)
    for row, picked in plans.items():
        ours = whole["convolutions"][f"ours for {row}"]
        ours["error"] = sum(one.error for one in picked.values())
        ours["structures"] = {name: one.name for name, one in picked.items()}
    for row in ROWS:
        whole["convolutions"][row]["error"] = lost[row]
    held = {} if quick else held_back(network, engine, batch, threads, seed)
    peaks = better(peaks, measure_peaks())
    predict_layers(network, layers, peaks, batch)
    seconds = {row: predict(find_stages(model, tuple(x.shape)), peaks) for row, model in models.items()}
    for row, one in whole["convolutions"].items():
        one["roofline"] = seconds[DENSE] / seconds[row]
    return {"peaks": asdict(peaks), "layers": layers, **whole, "held_back": held}


def measure_layer(
    network: nn.Sequential, name: str, engine: str, batch: int, threads: int, quick: bool, seed: int
) -> tuple[dict[str, Any], list[Option]]:
    """Time a layer alone, with its ReLU: dense, at the paper's ranks, and in each candidate structure."""
    layer, x = network.get_submodule(name), example(batch, name)
    rows = {row: paper_choices(network, row)[name] for row in ROWS}
    found: dict[str, Structure] = {}
    for method, rank in rows.values():
        one = describe(layer, method, rank, x, float(errors(layer, method)[rank - 1]))
        found[one.name] = one
    for one in candidates(layer, x, 1 if quick else OPTIONS[engine]):
        found.setdefault(one.name, one)
    chains = {DENSE: nn.Sequential(layer, nn.ReLU())}
    chains |= {
        label: random_chain(METHODS[one.method].structure(layer, one.rank)) for label, one in found.items()
    }
    times = time_chains(engine, chains, x, threads, rounds=4 if quick else ROUNDS, seed=seed)
    measured = {
        label: against(times[DENSE], times[label], seed)
        | {"share": one.share, "error": one.error, "method": one.method, "rank": one.rank}
        for label, one in found.items()
    }
    dense = against(times[DENSE], times[DENSE])["ms"]
    # the speedup over neighbours in time, not the bare median, ranks the structures
    options = [Option(Structure(DENSE, 0, 0.0, 1.0), dense)]
    options += [Option(one, dense / measured[label]["speedup"]) for label, one in found.items()]
    labels = {row: f"{method} {rank}" for row, (method, rank) in rows.items()}
    return {
        "dense_ms": dense,
        "rows": {row: measured[label] for row, label in labels.items()},
        # one line each: there are hundreds
        "candidates": {
            "columns": "method,rank,share,error,speedup,low,high",
            "rows": [
                ",".join(
                    [one["method"], str(one["rank"])]
                    + [f"{v:.4g}" for v in (one["share"], one["error"], one["speedup"], *one["ci"])]
                )
                for one in measured.values()
            ],
        },
    }, options


def measure_whole(
    models: dict[str, nn.Module],
    shares: dict[str, float],
    x: torch.Tensor,
    engine: str,
    threads: int,
    quick: bool,
    seed: int,
) -> dict[str, Any]:
    """Time the five convolutions with their activations and poolings, and the network with its classifier."""
    rounds = 4 if quick else ROUNDS_WHOLE
    settings: dict[str, Any] = {"backends": [engine], "threads": threads, "rounds": rounds, "seed": seed}
    convolutions = bench(models, x, memory=not quick, **settings)
    found = {"convolutions": timings(convolutions, shares), "notes": list(convolutions.notes)}
    if not quick:
        picked = (DENSE, "a", "b", *(f"ours for {row}" for row in TARGETS[:1]))
        classifier = AlexNet().eval().classifier
        whole = {row: nn.Sequential(models[row], classifier) for row in picked}
        result = bench(whole, x, memory=False, **settings | {"rounds": 20})
        found["with_classifier"] = timings(result, {})
    return found


def timings(result: Any, shares: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Return `{model: figures}` of a BenchResult of one engine."""
    return {
        one.model: {
            "ms": one.median_ms,
            "speedup": one.speedup,
            "ci": list(one.speedup_ci),
            "peak_memory": one.peak_memory,
            "share": shares.get(one.model),
        }
        for one in result.timings
    }


def predict_layers(network: nn.Sequential, layers: dict[str, Any], peaks: Peaks, batch: int) -> None:
    """Add the speedups at the roofline to those of the layers."""
    for name, one in layers.items():
        layer, shape = network.get_submodule(name), tuple(example(batch, name).shape)
        dense = predict(find_stages(nn.Sequential(layer), shape), peaks)
        one["dense_of_roofline"] = dense * 1e3 / one["dense_ms"]
        for measured in one["rows"].values():
            structure = METHODS[measured["method"]].structure(layer, measured["rank"])
            measured["roofline"] = dense / predict(find_stages(structure, shape), peaks)


def held_back(
    network: nn.Sequential, engine: str, batch: int, threads: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Time the parts of two splits alone and together, with and without ReLU, and on one thread."""
    found: dict[str, dict[str, Any]] = {}
    for name, (method, rank) in HELD_BACK.items():
        layer, x = network.get_submodule(name), example(batch, name)
        both, rounder = (METHODS[method].structure(layer, size) for size in (rank, -(-rank // 16) * 16))
        bare = random_chain(both, relu=False)
        chains = {
            "dense": nn.Sequential(layer, nn.ReLU()),
            "dense, no ReLU": nn.Sequential(layer),
            "both": nn.Sequential(*bare, nn.ReLU()),
            "both, no ReLU": bare,
            "first part": nn.Sequential(bare[0]),
            "second part": nn.Sequential(bare[1], nn.ReLU()),
            f"both at rank {rounder[0].out_channels}": random_chain(rounder),
        }
        with torch.no_grad():
            inputs = dict.fromkeys(chains, x) | {"second part": bare[0](x)}
        counts = {threads} if engine == "torch_compile" else {threads, 1}  # each would be compiled anew
        for count in sorted(counts, reverse=True):
            say(f"{engine}, batch {batch}: what holds {name} back, {count} threads")
            with pinned(count):
                peak = measure_peaks(5)
                times = time_chains(engine, chains, inputs, count, rounds=ROUNDS, seed=seed)
            found[f"{name}, {count} threads"] = {
                label: against(times["dense"], times[label], seed)
                | {
                    "of_peak": sum(one.flops for one in find_stages(chain, tuple(inputs[label].shape)))
                    / float(torch.tensor(times[label]).median())
                    / peak.flops
                }
                for label, chain in chains.items()
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--quick", action="store_true", help="a reduced form, under a minute; writes nothing")
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    engines, batches = (("torch",), (1,)) if options.quick else (options.engines, options.batches)
    data = {} if options.quick else stored("alexnet")
    with pinned(options.threads):
        for engine in engines:
            for batch in batches:
                one = measure(engine, batch, options.threads, options.quick, options.seed)
                one["run"] = describe_run(options.seed) | {"load_average_before": load}
                data.setdefault(engine, {"batches": {}})["batches"][str(batch)] = rounded(one)
                data[engine]["batches"] = dict(
                    sorted(data[engine]["batches"].items(), key=lambda item: int(item[0]))
                )
        run = describe_run(options.seed)
    body = page(data)
    if options.quick:
        sys.stdout.write(f"{body}\n\nA quick run, to see that it works: {run['command']}.\n")
    else:
        store("alexnet", "AlexNet at the paper's ranks", body, data, run)


if __name__ == "__main__":
    main()
