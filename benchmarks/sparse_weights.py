"""What zeros buy in time: single weights and 2:4 in every engine, and OpenVINO's packed int8 weights.

A feed-forward block as wide as BERT-base's and a VGG-like convolution, each dense, with zeros, and with whole
channels removed, which is what zeros are compared with. OpenVINO packs the sparse weights of int8 matrix
products on processors with AMX alone; the page says whether this one has it. On an idle machine:
    python -m benchmarks.sparse_weights
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

import corank
from benchmarks.record import describe_run, rounded, say, store, table
from corank.benchmarks.machine import pinned, usable_threads
from corank.benchmarks.zeros import COPIES

SHARES = (0.5, 0.8, 0.95)
COPIED = ("dense, a copy", "dense, another copy")  # by which two equal networks differ here
RATE = 0.5  # the share of zeros from which OpenVINO packs
ENGINES = ("torch", "torch_compile", "onnxruntime", "openvino")


def block() -> nn.Module:
    """Make the feed-forward block of BERT-base."""
    return nn.Sequential(nn.Linear(768, 3072), nn.GELU(), nn.Linear(3072, 768)).eval()


def convolutions() -> nn.Module:
    """Make two convolutions between two of 1×1."""
    wide = [nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1), nn.ReLU()]
    return nn.Sequential(nn.Conv2d(64, 128, 1), nn.ReLU(), *wide, nn.Conv2d(128, 64, 1)).eval()


CASES = {
    "feed-forward block, 1 token": (block, (1, 768)),
    "feed-forward block, 64 tokens": (block, (64, 768)),
    "convolutions, 28×28": (convolutions, (1, 64, 28, 28)),
}


def sparse(model: nn.Module, example: torch.Tensor, shares: tuple[float, ...]) -> dict[str, nn.Module]:
    """Return a network dense, copied, with zeros, and with half of its channels."""
    found = {"dense": model} | {name: deepcopy(model) for name in COPIED}
    for share in shares:
        found[f"{share:.0%} zeros"] = corank.sparsify(model, corank.Unstructured(share)).model
    found["2:4"] = corank.sparsify(model, corank.SemiStructured()).model
    halved = corank.sparsify(model, corank.Channels(0.5, scope="layer", multiple=8), example=example)
    return found | {"half of the channels": halved.model}


def files(
    models: Mapping[str, nn.Module], example: torch.Tensor, folder: Path, threads: int
) -> dict[str, nn.Module]:
    """Quantize every network, and open each in OpenVINO as it is and with packed weights."""
    found: dict[str, nn.Module] = {}
    for index, (name, model) in enumerate(models.items()):
        path = folder / f"{index}.onnx"
        corank.export(model, example, path, dynamic_batch=False)
        made = corank.quantize(path, [example], folder / f"{index}-int8.onnx").path
        for text, rate in (("", None), (", packed", RATE)):
            found[f"{name}, int8{text}"] = corank.open_exported(
                made, backend="openvino", threads=threads, sparse_rate=rate
            )
    return found


def measure(case: str, engines: tuple[str, ...], threads: int, rounds: int, seed: int) -> dict[str, Any]:
    """Time one case in every engine, and its int8 files in OpenVINO."""
    torch.manual_seed(seed)
    make, shape = CASES[case]
    model, example = make(), torch.randn(shape)
    models = sparse(model, example, SHARES)
    options = {"threads": threads, "rounds": rounds, "memory": False}
    report = corank.sparsity_report(models, example, backends=engines, **options)
    with tempfile.TemporaryDirectory() as folder:
        low = corank.bench(
            files(models, example, Path(folder), threads), example, backends=("openvino",), **options
        )
    rows = {
        name: {
            "zeros": report.sizes[name].zeros,
            "zipped": report.sizes[name].compressed_bytes / report.sizes["dense"].compressed_bytes,
            "speedup": {engine: _speedup(report.bench, name, engine) for engine in engines},
            "int8": _speedup(low, f"{name}, int8", "openvino"),
            "packed": _speedup(low, f"{name}, int8, packed", "openvino"),
        }
        for name in models
    }
    return {"rows": rows, "flags": report.bench.machine.get("flags", [])}


def _speedup(result: corank.BenchResult, name: str, engine: str) -> list[float]:
    timing = result.row(name, engine)
    return [timing.speedup, *timing.speedup_ci]


def page(data: Mapping[str, Any], amx: bool) -> str:
    """Write the tables, and say in words where zeros buy no time."""
    has = "has" if amx else "has no"
    parts = [
        "Speedup over dense in the same engine, with its 95% interval; int8 columns over dense int8. Weights "
        f"are random: this is about time alone. This processor {has} AMX, which OpenVINO needs to pack "
        "weights. Two copies of dense show by how much equal networks differ here, mostly by where their "
        "weights lie in memory.\n"
    ]
    for case, found in data.items():
        engines = list(next(iter(found["rows"].values()))["speedup"])
        columns = ["network", "zeros", "zipped", *engines, "openvino, int8", "int8, packed"]
        lines = [
            [
                name,
                f"{100 * row['zeros']:.0f}%",
                f"{row['zipped']:.2f}",
                *(_interval(one) for one in (*row["speedup"].values(), row["int8"], row["packed"])),
            ]
            for name, row in found["rows"].items()
        ]
        parts += [f"\n## {case}\n", table(columns, lines), "\n" + verdict(found["rows"])]
    return "\n".join(parts)


def verdict(rows: Mapping[str, Any]) -> str:
    """Say in which engines zeros of single weights, 2:4 included, buy more than copies of dense differ by.

    >>> rows = {"dense, a copy": {"speedup": {"torch": [1.0, 0.98, 1.03]}}}
    >>> verdict(rows | {"50% zeros": {"speedup": {"torch": [1.02, 1.01, 1.02]}}})
    'Zeros buy no time in torch.'
    >>> verdict(rows | {"50% zeros": {"speedup": {"torch": [1.10, 1.05, 1.15]}}})
    'They buy some in torch: see the table.'
    """
    zeros = [row["speedup"] for name, row in rows.items() if "zeros" in name or name == "2:4"]
    copies = [row["speedup"] for name, row in rows.items() if name in COPIED]
    limit = {one: max(1 + COPIES, *(row[one][2] for row in copies)) for one in zeros[0]}
    none = [one for one in limit if all(row[one][1] <= limit[one] for row in zeros)]
    some = [one for one in limit if one not in none]
    said = [f"Zeros buy no time in {', '.join(none)}."] if none else []
    return " ".join([*said, *([f"They buy some in {', '.join(some)}: see the table."] if some else [])])


def _interval(one: list[float]) -> str:
    return "{:.2f} ({:.2f} – {:.2f})".format(*one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=ENGINES)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = {}
    with pinned(options.threads):
        for case in CASES:
            say(case)
            data[case] = measure(case, tuple(options.engines), options.threads, options.rounds, options.seed)
        run = describe_run(options.seed)
    amx = any("amx_int8" in found.pop("flags") for found in list(data.values()))
    store("sparse_weights", "What zeros buy in time", page(data, amx), rounded(data), run)


if __name__ == "__main__":
    main()
