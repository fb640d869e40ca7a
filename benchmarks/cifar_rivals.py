"""ResNet-20 and ResNet-56 on CIFAR-10 at equal accuracy: our cut, the paper's rule, and channel pruning.

Each way cuts the same trained network at several depths, recovers in the same epochs on the same images with
the dense network as its teacher, and is judged on the same test images: chosen on dev, reported on final.
Then all are timed against dense in one run. Three stages, since the second takes long and times nothing:
    python -m benchmarks.cifar_rivals --depth 20 --stage table     # our latency table, on an idle machine
    python -m benchmarks.cifar_rivals --depth 20 --stage recover   # cut and recover; goes on where it stopped
    python -m benchmarks.cifar_rivals --depth 20 --stage time      # time and write, on an idle machine
Torch-Pruning must be importable for its rows: pip install --no-deps torch-pruning==1.6.1.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

import corank
from benchmarks.cifar import Block, batches, load_images, resnet
from benchmarks.record import describe_run, kept, rounded, say, store, stored, table
from corank.benchmarks.machine import pinned, usable_threads
from corank.cost import model_cost
from corank.decision.intervals import accuracy_interval
from corank.files import write_text
from corank.latency import LatencyTable
from corank.tasks import cross_entropy, evaluate_accuracy

ENGINES = ("torch", "onnxruntime", "openvino")
PLANNED_FOR = "onnxruntime"
BATCH = 8
TRAIN_FILES = 10  # of a thousand images
EPOCHS = {20: 2, 56: 1}
LEARNING_RATE = 0.01
LEFT_OUT = {56: (0.78, 0.9, 0.8, 0.45)}  # settings that are not tried on a network that takes long
RATIOS = (0.85, 0.78, 0.7)  # of the dense network's time: ours
ENERGIES = (0.95, 0.9, 0.8)  # of each layer's filters: the paper's rule
PRUNED = (0.15, 0.3, 0.45)  # of the channels inside each block
DROPS = (0.005, 0.01, 0.02)
ROUNDS = 30
CALIBRATION = 8  # batches
NORM_BATCHES = 20  # over which batch norm is measured anew
Cut = Callable[[nn.Module, float, "Bench"], nn.Module]


class Bench:
    """What every cut of one network shares; `terms` are those of its latency table, `suffix` its file's."""

    suffix = ""
    terms: Mapping[str, Any] = MappingProxyType({"time_budget": 150})

    def __init__(self, depth: int, cache: Path, seed: int) -> None:
        self.depth, self.cache, self.seed = depth, cache, seed
        self.dense = resnet(depth)
        self.example = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        self.train = batches(*load_images("train", TRAIN_FILES), size=125, seed=seed)
        images, labels = load_images("test")
        half = len(labels) // 2  # by mosaics, each with a hundred of every class
        self.dev = batches(images[:half], labels[:half])
        self.final = batches(images[half:], labels[half:])
        cache.mkdir(parents=True, exist_ok=True)

    @cached_property
    def measured(self) -> tuple[Any, Any]:
        """Moments of the layers and how much each matters: the same for every depth of cut."""
        some = self.train[:CALIBRATION]
        stats = corank.calibrate(self.dense, some, inputs=True)

        def loss(net: nn.Module) -> float:
            with torch.no_grad():
                return sum(cross_entropy(net.eval(), batch).item() for batch in some[:4]) / 4

        def rows() -> list[Any]:
            found = corank.sensitivity(
                self.dense, loss, example=self.example, stats=stats, table=self.table(), progress=False
            )
            return [[*key, value] for key, value in found.items()]

        # of each layer and method, so the same for the table of another precision
        path = self.cache / f"sensitivity{self.depth}.json"
        found = kept(path, f"sensitivities of ResNet-{self.depth}", rows)
        return stats, {(layer, method): value for layer, method, value in found}

    def table(self) -> LatencyTable:
        """Return our latency table, measured once."""
        path = self.cache / f"table{self.depth}{self.suffix}.json"
        if not path.exists():
            made = corank.latency_table(self.dense, self.example, backend=PLANNED_FOR, **self.terms)
            write_text(path, made.to_json())
        return LatencyTable.from_json(path.read_text())


def ours(network: nn.Module, ratio: float, bench: Bench) -> nn.Module:
    """Plan from measured time with asymmetric factors and measured sensitivities, as `compress` does."""
    stats, found = bench.measured
    plan = corank.plan(
        network,
        corank.Latency(ratio=ratio),
        example=bench.example,
        stats=stats,
        table=bench.table(),
        sensitivity=found,
    )
    # batch norm then stays as it is
    return corank.decompose(network, plan, stats, asymmetric=bench.train[:CALIBRATION])


def paper(network: nn.Module, energy: float, bench: Bench) -> nn.Module:
    """Cut every layer at one energy of its filters, as the paper does."""
    plan = corank.plan(network, corank.Energy(energy), example=bench.example, types=("conv",))
    small = corank.decompose(network, plan)
    corank.recalibrate_batchnorm(small, bench.train, max_batches=NORM_BATCHES)
    return small


def pruned(network: nn.Module, ratio: float, bench: Bench) -> nn.Module:
    """Prune channels inside each block by Torch-Pruning; the shortcuts without weights keep the others."""
    import torch_pruning as tp

    small = copy.deepcopy(network)
    inside = {block.conv1 for block in small.modules() if isinstance(block, Block)}
    others = [one for one in small.modules() if isinstance(one, nn.Conv2d | nn.Linear) and one not in inside]
    for parameter in small.parameters():
        parameter.requires_grad_(True)
    tp.pruner.BasePruner(
        small,
        bench.example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=ratio,
        max_pruning_ratio=0.9,
        ignored_layers=others,
        round_to=4,
    ).step()
    corank.recalibrate_batchnorm(small, bench.train, max_batches=NORM_BATCHES)
    return small


WAYS: dict[str, tuple[Cut, tuple[float, ...]]] = {
    "corank, planned in time": (ours, RATIOS),
    "one energy (the paper's rule)": (paper, ENERGIES),
    "Torch-Pruning 1.6.1": (pruned, PRUNED),
}


def recover(bench: Bench) -> dict[str, Any]:
    """Cut and recover every way at every depth; what is done is kept."""
    rows: dict[str, Any] = {}
    for way, (cut, knobs) in WAYS.items():
        if cut is pruned and importlib.util.find_spec("torch_pruning") is None:
            continue
        for knob in knobs:
            if knob in LEFT_OUT.get(bench.depth, ()):
                continue
            path = bench.cache / f"{bench.depth}-{cut.__name__}-{knob}.json"
            row = kept(path, f"{way}, {knob}", partial(_recovered, bench, cut, knob))
            rows[f"{way}, {knob}"] = row | {"way": way, "knob": knob}
    return rows


def _recovered(bench: Bench, cut: Cut, knob: float) -> dict[str, Any]:
    torch.manual_seed(bench.seed)
    try:
        small = cut(bench.dense, knob, bench)
    except corank.InfeasibleError as reason:
        return {"not_run": str(reason)[:200]}
    row = {"after_cut": score(small, bench.dev)[0]}
    corank.finetune(
        small,
        bench.train,
        epochs=EPOCHS[bench.depth],
        teacher=bench.dense,
        learning_rate=LEARNING_RATE,
        progress=False,
    )
    row["dev"], row["final"] = score(small, bench.dev), score(small, bench.final)
    row["macs"] = model_cost(small.eval(), bench.example).macs
    corank.save(
        small, bench.cache / f"{bench.depth}-{cut.__name__}-{knob}.safetensors", reference=bench.dense
    )
    return row


def score(model: nn.Module, loader: list) -> list[float]:
    """Return the accuracy with its 95% interval."""
    hits = evaluate_accuracy(model, loader)["accuracy"].per_sample
    return [hits.mean().item(), *accuracy_interval(hits)]


def time_all(bench: Bench, rows: dict[str, Any], threads: int) -> dict[str, Any]:
    """Time every recovered network against dense, in one run an engine."""
    models: dict[str, nn.Module] = {"dense": bench.dense}
    for name, row in rows.items():
        if "not_run" not in row:
            file = f"{bench.depth}-{WAYS[row['way']][0].__name__}-{row['knob']}.safetensors"
            models[name] = corank.load(bench.cache / file, lambda: resnet(bench.depth)).eval()
    result = corank.bench(models, bench.example, backends=ENGINES, threads=threads, rounds=ROUNDS)
    for name, row in rows.items():
        if name in models:
            row["speedup"] = {
                engine: [result.row(name, engine).speedup, *result.row(name, engine).speedup_ci]
                for engine in ENGINES
            }
            row["peak"] = {engine: result.row(name, engine).peak_memory for engine in ENGINES}
    return rows


def fastest(rows: dict[str, Any], way: str, engine: str, least: float) -> tuple[str, dict[str, Any]] | None:
    """Return the fastest network of a way that is accurate enough on dev."""
    fit = [
        (row["speedup"][engine][0], name)
        for name, row in rows.items()
        if row["way"] == way and "speedup" in row and row["dev"][0] >= least
    ]
    if not fit:
        return None
    name = max(fit)[1]
    return name, rows[name]


def cells(name: str, row: dict[str, Any], macs: int) -> list[str]:
    """Write one recovered network as a line of the table."""
    if "not_run" in row:
        return [name, f"not run: {row['not_run']}", *[""] * (3 + len(ENGINES))]
    return [
        name,
        f"{row['macs'] / macs:.2f}",
        f"{100 * row['after_cut']:.1f}",
        f"{100 * row['dev'][0]:.2f}",
        "{:.2f} ({:.2f} – {:.2f})".format(*(100 * one for one in row["final"])),
        *(
            "{:.2f} ({:.2f} – {:.2f}), {:.0f} MB".format(*row["speedup"][engine], row["peak"][engine] / 1e6)
            for engine in ENGINES
        ),
    ]


def section(depth: int, found: dict[str, Any]) -> str:
    """Write the tables of one network."""
    rows, dense = found["rows"], found["dense"]
    every = [cells(name, row, found["macs"]) for name, row in rows.items()]
    equal = []
    for drop in DROPS:
        for engine in ENGINES:
            line: list[object] = [f"≤ {100 * drop:g}", engine]
            best = []
            for way in WAYS:
                one = fastest(rows, way, engine, dense["dev"][0] - drop)
                best.append(one[1]["speedup"][engine][0] if one else 1.0)
                line.append(
                    f"{one[1]['speedup'][engine][0]:.2f}× ({one[1]['knob']:g}; final "
                    f"{100 * (one[1]['final'][0] - dense['final'][0]):+.2f})"
                    if one
                    else "dense"
                )
            winner = list(WAYS)[best.index(max(best))] if max(best) > 1 else "dense"
            ours_first = winner == next(iter(WAYS)) or engine == PLANNED_FOR
            line.append(winner if ours_first else f"{winner}; ours was planned for {PLANNED_FOR}")
            equal.append(line)
    return (
        f"\n## ResNet-{depth}: dense {100 * dense['dev'][0]:.2f}% on dev, {100 * dense['final'][0]:.2f}% on "
        "final\n"
        f"{EPOCHS[depth]} epochs of recovery on {TRAIN_FILES * 1000:,} training images, learning rate "
        f"{LEARNING_RATE}, dense as teacher; batch {BATCH}.\n\n"
        + table(
            [
                "cut",
                "MACs",
                "after the cut, dev",
                "dev",
                "final (95%)",
                *(f"{one}, speedup and peak memory" for one in ENGINES),
            ],
            every,
        )
        + "\n\nAt equal accuracy: the fastest of each way that loses at most so many points on dev, with "
        "its setting and what it loses on final; dense where none does. Ours is planned once, from the times "
        f"of {PLANNED_FOR}: in another engine it is not what corank would ship there.\n\n"
        + table(["points lost", "engine", *WAYS, "fastest"], equal)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, choices=tuple(EPOCHS), default=20)
    parser.add_argument("--stage", choices=("table", "recover", "time"), required=True)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("runs/cifar_rivals"))
    options = parser.parse_args()
    bench = Bench(options.depth, options.cache, options.seed)
    with pinned(options.threads):
        if options.stage == "table":
            say(f"{len(bench.table().rows)} rows")
            return
        rows = recover(bench)
        if options.stage == "recover":
            return
        rows = time_all(bench, rows, options.threads)
        dense = {"dev": score(bench.dense, bench.dev), "final": score(bench.dense, bench.final)}
        macs = model_cost(bench.dense, bench.example).macs
        run = describe_run(options.seed)
    data = stored("cifar_rivals") | {str(options.depth): {"rows": rows, "dense": dense, "macs": macs}}
    body = (
        "Trained ResNets on CIFAR-10; 5,000 test images are dev, the other 5,000 final, by mosaic. One seed: "
        "differences of a few tenths of a point are noise (95%: ±0.8). Torch-Pruning prunes inside "
        "the blocks only, since the shortcuts have no weights.\n"
        + "\n".join(section(int(depth), found) for depth, found in sorted(data.items()))
    )
    store("cifar_rivals", "ResNets on CIFAR-10 at equal accuracy", body, rounded(data), run)


if __name__ == "__main__":
    main()
