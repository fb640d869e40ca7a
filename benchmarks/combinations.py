"""ResNets on CIFAR-10: low rank, channels, single weights and int8, alone and together, at equal accuracy.

Every combination cuts the same trained network at three levels, recovers in the same epochs on the same
images with the dense network as its teacher, is quantized after that, and is judged on the same test images:
chosen on dev, reported on final. Then all are timed against dense in one run an engine. Low rank is planned
twice, from the times of float32 and from those of int8, since what saves time in one may not in the other.
Stages, each resumable:
    python -m benchmarks.combinations --depth 20 --stage table     # two latency tables, on an idle machine
    python -m benchmarks.combinations --depth 20 --stage recover   # cut, recover, quantize
    python -m benchmarks.combinations --depth 20 --stage lasso     # zero rows and columns on top of low rank
    python -m benchmarks.combinations --depth 20 --stage time      # time and write, on an idle machine
Torch-Pruning comes with the extra `prune`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

import corank
from benchmarks.cifar import resnet
from benchmarks.cifar_rivals import BATCH, CALIBRATION, Bench, ours, score
from benchmarks.combinations_page import page
from benchmarks.record import describe_run, kept, rounded, say, store, stored
from corank.benchmarks.machine import pinned, usable_threads
from corank.cost import model_cost
from corank.layers import is_conv, layer_type
from corank.precision import Precision

FOR_INT8 = "low rank for int8"
PARTS = ("low rank", FOR_INT8, "channels", "unstructured")
LEVELS: dict[str, tuple[float, ...]] = {
    "low rank": (0.9, 0.85, 0.78),  # of the dense network's time
    FOR_INT8: (0.9, 0.85, 0.78),  # of its time in int8
    "channels": (0.1, 0.15, 0.3),  # of all that can be removed
    "unstructured": (0.5, 0.7, 0.85),  # of all weights
}
EPOCHS = {20: 3, 56: 1}
LEARNING_RATE = 0.01
PRECISION: Precision = "bfloat16"  # of the recovery; all is judged in float32
ENGINES = ("onnxruntime", "openvino")  # besides torch, which runs no int8 file
ROUNDS = 30
INT8_BATCHES = 60  # of BATCH images, for the ranges
LASSO = (0.25, 0.5, 1.0)


class Int8Bench(Bench):
    """The same network and data, with the latency table of int8 files."""

    suffix = "-int8"
    terms = MappingProxyType({"precision": "int8", "time_budget": 300})


@cache
def for_int8(bench: Bench) -> Int8Bench:
    """Return the bench that plans for int8."""
    return Int8Bench(bench.depth, bench.cache, bench.seed)


def subsets() -> list[tuple[str, ...]]:
    """Return every combination of the parts that change the network, dense first, with one plan of ranks."""
    every = [one for size in range(len(PARTS)) for one in combinations(PARTS, size)]
    return [one for one in every if not {"low rank", FOR_INT8} <= set(one)]


def title(parts: Sequence[str]) -> str:
    """Name a combination.

    >>> title(()), title(("low rank", "channels"))
    ('dense', 'low rank + channels')
    """
    return " + ".join(parts) or "dense"


def cut(parts: Sequence[str], level: int, bench: Bench) -> nn.Module:
    """Split the dense network as planned in time, then remove channels; the ranks stay as planned."""
    small = bench.dense
    if "low rank" in parts:
        small = ours(small, LEVELS["low rank"][level], bench)
    if FOR_INT8 in parts:
        small = ours(small, LEVELS[FOR_INT8][level], for_int8(bench))
    if "channels" in parts:
        spec = corank.Channels(LEVELS["channels"][level], multiple=4, exclude=ranks(small, bench.dense))
        small = corank.sparsify(small, spec, example=bench.example).model
        corank.recalibrate_batchnorm(small, bench.train, max_batches=20)
    return corank.layers.copy_network(small)


def ranks(small: nn.Module, dense: nn.Module) -> tuple[str, ...]:
    """Return the layers of splits whose output channels are a rank: all but the last of each.

    >>> split = nn.Sequential(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4)))
    >>> ranks(split, nn.Sequential(nn.Linear(4, 4)))
    ('0.0',)
    """
    modules = dict(small.named_modules())
    splits = {
        name: modules[name]
        for name, one in dense.named_modules()
        if layer_type(one) and isinstance(modules.get(name), nn.Sequential)
    }
    return tuple(f"{name}.{index}" for name, one in splits.items() for index in range(len(one) - 1))


def schedule(small: nn.Module, parts: Sequence[str], level: int, steps: int) -> corank.Sparsifier | None:
    """Return what makes zeros over the first half of the recovery, and keeps them."""
    if "unstructured" not in parts:
        return None
    share = LEVELS["unstructured"][level]
    return corank.Sparsifier(small, corank.Unstructured(share, steps=steps // 2, every=max(steps // 40, 1)))


def recovered(bench: Bench, parts: Sequence[str], level: int, epochs: int, stem: Path) -> dict[str, Any]:
    """Cut, recover, quantize and judge one combination at one level."""
    torch.manual_seed(bench.seed)
    try:
        small = cut(parts, level, bench)
    except corank.InfeasibleError as reason:
        return {"not_run": str(reason)[:200]}
    row: dict[str, Any] = {"after_cut": score(small, bench.dev)[0]}
    if parts:
        corank.finetune(
            small,
            bench.train,
            epochs=epochs,
            teacher=bench.dense,
            learning_rate=LEARNING_RATE,
            sparsity=schedule(small, parts, level, epochs * len(bench.train)),
            precision=PRECISION,
            progress=False,
        )
    small.eval()
    zeros = corank.count_zeros(small)
    row |= {
        "dev": score(small, bench.dev),
        "final": score(small, bench.final),
        "macs": model_cost(small, bench.example).macs,
        "zeros": zeros.share,
        "bytes": zeros.bytes,
        "zipped": zeros.compressed_bytes,
        "conv_nonzero": conv_nonzero(small),
    }
    corank.save(small, stem.with_suffix(".safetensors"), reference=bench.dense)
    row["int8"] = quantized(bench, small, stem.with_suffix(".onnx"))
    return row


def quantized(bench: Bench, small: nn.Module, path: Path) -> dict[str, Any]:
    """Write the int8 file of a network, for the batch that is timed, and judge it."""
    between = path.with_name(f"{path.stem}-float.onnx")
    corank.export(small, bench.example, between, dynamic_batch=False)
    made = corank.quantize(between, rebatched(bench.train[:CALIBRATION]), path, max_batches=INT8_BATCHES)
    between.unlink()
    runs = corank.open_exported(path)
    return {
        "dev": score(runs, rebatched(bench.dev)),
        "final": score(runs, rebatched(bench.final)),
        "bytes": made.size,
    }


def rebatched(loader: Sequence[Any]) -> list[Any]:
    """Cut all samples into batches of the size that a file takes; what is left over is dropped."""
    images, labels = (torch.cat([batch[index] for batch in loader]) for index in (0, 1))
    parts = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))
    return parts if len(labels) % BATCH == 0 else parts[:-1]


def conv_nonzero(model: nn.Module) -> int:
    """Count the weights of all convolutions that are not zero.

    >>> conv_nonzero(nn.Sequential(nn.Conv2d(2, 3, 1), nn.Linear(9, 9)))
    6
    """
    return sum(int((one.weight != 0).sum()) for one in model.modules() if is_conv(one))


def recover(bench: Bench, folder: Path, epochs: int, levels: Sequence[int]) -> list[dict[str, Any]]:
    """Cut and recover every combination, one level after another; what is done is kept."""
    names, rows = subsets(), []
    for parts, level in [((), 0), *((parts, level) for level in levels for parts in names[1:])]:
        stem = folder / f"{bench.depth}-{'-'.join(parts).replace(' ', '_') or 'dense'}-{level}"
        found = kept(
            stem.with_suffix(".json"),
            f"{title(parts)}, level {level + 1}",
            partial(recovered, bench, parts, level, epochs, stem),
        )
        rows.append(found | {"parts": list(parts), "level": level, "stem": str(stem)})
    return sorted(rows, key=lambda row: (names.index(tuple(row["parts"])), row["level"]))


def lasso(bench: Bench, folder: Path, epochs: int) -> list[dict[str, Any]]:
    """Train dense and low rank with a group lasso, columns of k×k layers and rows of 1×1, as the paper does.

    All the epochs with the lasso, and half as many with its zeros kept.
    """
    rows = []
    for parts in ((), ("low rank",)):
        for strength in LASSO:
            found = kept(
                folder / f"{bench.depth}-lasso-{title(parts).replace(' ', '_')}-{strength}.json",
                f"{title(parts)}, lasso {strength}",
                partial(_lassoed, bench, parts, strength, epochs),
            )
            rows.append(found)
    return rows


def _lassoed(bench: Bench, parts: Sequence[str], strength: float, epochs: int) -> dict[str, Any]:
    torch.manual_seed(bench.seed)
    small = cut(parts, 0, bench)
    convs = {name: one for name, one in small.named_modules() if is_conv(one)}
    wide = tuple(name for name, one in convs.items() if max(one.kernel_size) > 1)
    points = tuple(name for name in convs if name not in wide)
    specs = [corank.GroupLasso(columns=strength, include=wide)]
    specs += [corank.GroupLasso(rows=strength, include=points)] if points else []
    for made, number in ((corank.Sparsifier(small, *specs), epochs), (None, max(epochs // 2, 1))):
        corank.finetune(
            small,
            bench.train,
            epochs=number,
            teacher=bench.dense,
            learning_rate=LEARNING_RATE,
            sparsity=made or corank.Sparsifier(small),
            precision=PRECISION,
            progress=False,
        )
    zeros = corank.count_zeros(small).layers
    shares = {
        "columns": _share([(zeros[name].zero_columns, zeros[name].columns) for name in wide]),
        "rows": _share([(zeros[name].zero_rows, zeros[name].rows) for name in points]),
    }
    return shares | {
        "parts": parts,
        "strength": strength,
        "dev": score(small, bench.dev),
        "final": score(small, bench.final),
        "conv_nonzero": conv_nonzero(small),
    }


def _share(counts: Sequence[tuple[int, int]]) -> float | None:
    return sum(one for one, _ in counts) / sum(of for _, of in counts) if counts else None


def time_all(bench: Bench, rows: list[dict[str, Any]], threads: int) -> None:
    """Time every network, and every int8 file where files run, against dense: one run an engine."""
    done = [row for row in rows if "not_run" not in row]
    floats = {
        row["stem"]: corank.load(f"{row['stem']}.safetensors", lambda: resnet(bench.depth)).eval()
        for row in done
    }
    options = {"threads": threads, "rounds": ROUNDS, "memory": False}
    runs = {"torch": corank.bench(floats, bench.example, backends=("torch",), **options)}
    for engine in ENGINES:
        files = {
            f"{row['stem']} int8": corank.open_exported(
                f"{row['stem']}.onnx", backend=engine, threads=threads
            )
            for row in done
        }
        runs[engine] = corank.bench(floats | files, bench.example, backends=(engine,), **options)
    for row in done:
        row["speedup"] = {engine: _speedup(run, row["stem"], engine) for engine, run in runs.items()}
        row["int8"]["speedup"] = {
            engine: _speedup(runs[engine], f"{row['stem']} int8", engine) for engine in ENGINES
        }


def _speedup(run: corank.BenchResult, name: str, engine: str) -> list[float]:
    timing = run.row(name, engine)
    return [timing.speedup, *timing.speedup_ci]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, choices=tuple(EPOCHS), default=56)
    parser.add_argument("--stage", choices=("table", "recover", "lasso", "time"), required=True)
    parser.add_argument("--epochs", type=int, help="of recovery")
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 1, 2], help="of 0, 1 and 2")
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", type=Path, default=Path("runs/cifar_rivals"), help="their folder")
    parser.add_argument("--cache", type=Path, default=Path("runs/combinations"))
    options = parser.parse_args()
    epochs = options.epochs or EPOCHS[options.depth]
    options.cache.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.depth, options.tables, options.seed)
    with pinned(options.threads):
        if options.stage == "table":
            say(f"{len(bench.table().rows)} rows in float32, {len(for_int8(bench).table().rows)} in int8")
            return
        if options.stage == "lasso":
            lasso(bench, options.cache, epochs)
            return
        rows = recover(bench, options.cache, epochs, options.levels)
        if options.stage == "recover":
            return
        time_all(bench, rows, options.threads)
        run = describe_run(options.seed, f"recovered in {PRECISION}, judged in float32 and int8")
    lassoed = sorted(options.cache.glob(f"{options.depth}-lasso-*.json"))
    found = {
        "rows": [{key: one for key, one in row.items() if key != "stem"} for row in rows],
        "lasso": [json.loads(one.read_text()) for one in lassoed],
        "epochs": epochs,
        "images": sum(len(labels) for _, labels in bench.train),
        "batch": BATCH,
    }
    data = stored("combinations") | {str(options.depth): found}
    store("combinations", "Low rank, sparsity and int8 together", page(data), rounded(data), run)


if __name__ == "__main__":
    main()
