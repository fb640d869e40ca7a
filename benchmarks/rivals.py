"""Our plan against rivals' cuts of the same networks at equal multiply-accumulates: latency, side by side.

Run, in an environment that has the rivals (see docs/results/rivals.md), one network at a time:
    python -m benchmarks.rivals --networks resnet18 [--quick] [--threads 2]
Each call adds its networks to the stored results. Where a rival is not installed its row says so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import corank
from benchmarks.chains import against
from benchmarks.decaying import RANK_SHARE, decay_
from benchmarks.networks import make
from benchmarks.record import describe_run, interval, rounded, say, store, stored, table
from benchmarks.rival_cuts import AIMET_CANDIDATES, RIVALS, TABLE_SECONDS, macs, our_plan
from corank.benchmarks import find_backend, pinned, time_interleaved
from corank.benchmarks.machine import usable_threads
from corank.engines import silenced

ENGINES = ("torch", "onnxruntime", "openvino")
NETWORKS = ("resnet18", "resnet50", "vgg16", "mobilenet_v2")
SHARE = 0.5
ROUNDS = 20
PACKAGES = ("aimet-torch", "tensorly-torch", "tensorly", "fasterai", "pulp")


def load(name: str, seed: int) -> tuple[nn.Module, Tensor]:
    """Make a network with falling spectra; VGG-16 without its linear layers, which no cut here touches."""
    network, x = make(name, seed)
    if name == "vgg16":
        network = nn.Sequential(*[one for one in network if not isinstance(one, nn.Linear)])
    decay_(network)
    # random batch norm statistics would let the signal die or grow; one batch sets them
    network.train()
    with torch.no_grad():
        network(torch.randn(8, *x.shape[1:], generator=torch.Generator().manual_seed(seed)))
    return network.eval(), x


def cut_all(network: nn.Module, x: Tensor, names: tuple[str, ...]) -> tuple[dict[str, nn.Module], dict]:
    """Cut a network by every rival; those that cannot are named with their reason."""
    made: dict[str, nn.Module] = {}
    rows: dict[str, dict[str, Any]] = {}
    before = macs(network, x)
    for name in names:
        say(f"cut by {name}")
        start = time.perf_counter()
        try:
            with silenced():
                made[name] = RIVALS[name](network, x, SHARE)
        except Exception as error:  # rivals raise anything
            rows[name] = {"not_run": f"{type(error).__name__}: {str(error)[:160] or 'no message'}"}
            continue
        rows[name] = {
            "share": macs(made[name], x) / before,
            "output_error": output_error(network, made[name], x),
            "cut_seconds": time.perf_counter() - start,
        }
    return made, rows


def output_error(network: nn.Module, small: nn.Module, x: Tensor) -> float:
    """Return ‖y − ŷ‖ / ‖y‖ on one input."""
    with torch.no_grad():
        y = network(x)
        return float((small(x) - y).norm() / y.norm())


def measure(name: str, threads: int, quick: bool, seed: int) -> dict[str, Any]:
    """Cut a network by all and time the results in every engine."""
    network, x = load(name, seed)
    chosen = ("uniform energy", "fasterai SVD") if quick else tuple(RIVALS)
    made, rows = cut_all(network, x, chosen)
    found: dict[str, Any] = {"macs": macs(network, x), "rows": rows, "engines": {}}
    for engine in ("torch",) if quick else ENGINES:
        say(f"{name} in {engine}")
        start = time.perf_counter()
        plan = our_plan(network, x, SHARE, engine, threads)
        ours = corank.decompose(network, plan)
        one = time_models(
            {"dense": network, "ours": ours, **made}, x, engine, threads, 4 if quick else ROUNDS, seed
        )
        one["ours"] |= {
            "share": plan.after.macs / plan.before.macs,
            "output_error": output_error(network, ours, x),
        }
        one["seconds"] = time.perf_counter() - start
        found["engines"][engine] = one
    return found


def time_models(
    models: dict[str, nn.Module], x: Tensor, engine: str, threads: int, rounds: int, seed: int
) -> dict[str, Any]:
    """Time networks in turns in an engine: speedup over dense, and how much faster ours is than each."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        runners = {}
        for number, (name, model) in enumerate(models.items()):
            folder = Path(place, str(number))
            folder.mkdir()
            try:
                runners[name] = find_backend(engine)(model, x, threads, folder)
            except corank.CorankError as error:
                rows[name] = {"not_run": str(error)[:160]}
        runs = {name: runner.run for name, runner in runners.items()}
        times = time_interleaved(runs, rounds, warmup=2, seed=seed)
        for name in runs:
            rows[name] = against(times["dense"], times[name], seed)
            ratio = against(times[name], times["ours"], seed)
            rows[name]["ours_faster"] = {"speedup": ratio["speedup"], "ci": ratio["ci"]}
            rows[name]["peak_memory"] = runners[name].peak_memory()
    return rows


def page(data: dict[str, Any]) -> str:
    """Write one table a network, and a line for each row where ours is not the fastest."""
    parts, behind, versions = [], [], {}
    for network, one in data.items():
        lines = []
        versions |= one["versions"]
        for name in ("dense", "ours", *one["rows"]):
            row = one["rows"].get(name, {})
            if "not_run" in row:
                lines.append([name, f"not run: {row['not_run']}".replace("|", "/")])
                continue
            line = [name]
            for engine, timed in one["engines"].items():
                here = timed.get(name, {})
                if "not_run" in here or not here:
                    line += [f"not run: {here.get('not_run', 'not measured')}".replace("|", "/"), "", ""]
                    continue
                memory = here.get("peak_memory")
                faster = "" if name in ("dense", "ours") else interval(here["ours_faster"])
                line += [interval(here), faster, "" if memory is None else f"{memory / 1e6:.0f}"]
                if name not in ("dense", "ours") and here["ours_faster"]["ci"][0] < 1:
                    errors = row["output_error"], timed["ours"]["output_error"]
                    behind.append((network, engine, name, here["ours_faster"], *errors))
            first = next(iter(one["engines"].values()))
            share, error = (row.get(key, first[name].get(key)) for key in ("share", "output_error"))
            line += ["" if share is None else f"{share:.3f}", "" if error is None else f"{error:.2f}"]
            lines.append(line)
        head = ["cut"]
        for engine in one["engines"]:
            head += [f"{engine}: over dense (95%)", "ours faster (95%)", "peak MB"]
        head += ["MACs", "output error"]
        lines = [line + [""] * (len(head) - len(line)) for line in lines]
        parts.append(f"## {network}, {one['macs'] / 1e9:.2f} GMACs\n{table(head, lines)}")
    losses = [
        f"- {network}, {engine}: {name} is "
        + ("faster" if ratio["ci"][1] < 1 else "not told apart")
        + f", ours over it {interval(ratio)}; its output error is {theirs:.2f}, ours {ours:.2f}"
        for network, engine, name, ratio, theirs, ours in behind
    ]
    installed = ", ".join(f"{name} {version}" for name, version in versions.items()) or "no rival installed"
    return (
        f"Batch 1, float32. Every cut aims at {SHARE:.0%} of the network's multiply-accumulates (the table "
        "says what it reached) and touches convolutions only; ours is planned from a latency table of that "
        f"engine, measured in {TABLE_SECONDS:.0f} s. Weights are made, with spectra such that 95% of the "
        f"energy lies in about {RANK_SHARE:.0%} of the directions, so that "
        "an energy has something to choose; nothing here speaks of accuracy. *Over dense* is the speedup; "
        "*ours faster* the ratio of a rival's time to ours, interleaved in one run. *Output error* is the "
        "relative difference of the outputs on one random input: the cuts do not keep equally much. tltorch "
        "runs with random factors, which decide no time, so its output error says nothing. AIMET tries "
        f"{AIMET_CANDIDATES} ratios in each layer and scores them by the output on that input. VGG-16 is "
        f"without its linear layers. The environment is in `benchmarks/rivals.txt`.\n\nRivals: {installed}; "
        "davidgonmar/compress from its repository, commit 32751aa of 28 November 2025.\n\n"
        + "\n\n".join(parts)
        + "\n\n## Where ours is not the fastest\n"
        "At equal multiply-accumulates ours takes the plan of the least loss, not of the least time; output "
        "errors tell what a faster cut gave up.\n\n"
        + ("\n".join(losses) if losses else "Ours is the fastest on every row.")
    )


def rival_versions() -> dict[str, str]:
    """Return the versions of the rivals that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--quick", action="store_true", help="a reduced form, under a minute; writes nothing")
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    before = os.getloadavg()[0]
    data = {} if options.quick else stored("rivals")
    with pinned(options.threads):
        for name in ("resnet18",) if options.quick else options.networks:
            data[name] = rounded(measure(name, options.threads, options.quick, options.seed))
            data[name]["versions"] = rival_versions()
            data[name]["run"] = describe_run(options.seed)
        run = describe_run(options.seed) | {"load_average_before": before}
    body = page(data)
    if options.quick:
        sys.stdout.write(f"{body}\n\nA quick run, to see that it works: {run['command']}.\n")
    else:
        store("rivals", "Rivals at equal multiply-accumulates", body, data, run)


if __name__ == "__main__":
    main()
