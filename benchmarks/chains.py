"""Chains of convolutions and ReLUs timed side by side in one engine.

A chain is written to ONNX directly: tracing and checking it as `corank.export` does takes a second each, and
the benchmarks time hundreds. Torch's engines are those of `corank.bench`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from corank.benchmarks import find_backend, speedup, time_interleaved
from corank.benchmarks.timing import Times
from corank.engines import OPENERS

ENGINES = ("torch", "torch_channels_last", "torch_compile", "onnxruntime", "openvino")
OPSET = 18


def time_chains(
    engine: str,
    chains: Mapping[str, nn.Sequential],
    example: Tensor | Mapping[str, Tensor],
    threads: int,
    *,
    rounds: int,
    seed: int = 0,
    min_time: float = 0.004,
) -> dict[str, Times]:
    """Time chains in turns; the caller holds torch to the threads.

    Args:
        engine: one of ENGINES.
        chains: `{name: chain}`, the reference first.
        example: the input of all, or one of each by name.
        threads: of the engine.
        rounds, seed, min_time: as in `time_interleaved`.
    Returns: `{name: seconds in each round}`.
    """
    with tempfile.TemporaryDirectory() as place:
        runs = {}
        for number, (name, chain) in enumerate(chains.items()):
            x = example if isinstance(example, Tensor) else example[name]
            folder = Path(place, str(number))
            folder.mkdir()
            runs[name] = prepare(engine, chain.eval(), x, threads, folder)
        return time_interleaved(runs, rounds, warmup=2, min_time=min_time, seed=seed)


def prepare(
    engine: str, chain: nn.Sequential, example: Tensor, threads: int, folder: Path
) -> Callable[[], Any]:
    """Make a chain ready in an engine."""
    if engine not in OPENERS:
        return find_backend(engine)(chain, example, threads, folder).run
    path = folder / "chain.onnx"
    write_onnx(chain, example, path)
    return OPENERS[engine](path, threads).bind([example.numpy()])


def write_onnx(chain: nn.Sequential, example: Tensor, path: Path) -> None:
    """Write convolutions and ReLUs to an ONNX file.

    Raises: TypeError, for any other layer.
    """
    from onnx import TensorProto, helper, numpy_helper, save

    nodes, weights, name = [], [], "x"
    for number, layer in enumerate(_flat(chain)):
        out = f"y{number}"
        if isinstance(layer, nn.ReLU):
            nodes.append(helper.make_node("Relu", [name], [out]))
        elif isinstance(layer, nn.Conv2d):
            inputs = [name, f"w{number}"]
            values = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
            if len(values) == 2:
                inputs.append(f"b{number}")
            for label, value in zip(inputs[1:], values, strict=True):
                array = np.ascontiguousarray(value.detach().numpy())
                weights.append(numpy_helper.from_array(array, label))
            nodes.append(
                helper.make_node(
                    "Conv",
                    inputs,
                    [out],
                    kernel_shape=list(layer.kernel_size),
                    strides=list(layer.stride),
                    pads=[*layer.padding, *layer.padding],
                    dilations=list(layer.dilation),
                    group=layer.groups,
                )
            )
        else:
            raise TypeError(f"{type(layer).__name__}: a chain here is made of Conv2d and ReLU.")
        name = out
    with torch.no_grad():
        shape = chain(example).shape
    ends = [
        helper.make_tensor_value_info(label, TensorProto.FLOAT, list(size))
        for label, size in (("x", example.shape), (name, shape))
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8), str(path))


def _flat(chain: nn.Module) -> list[nn.Module]:
    return [one for one in chain.modules() if not isinstance(one, nn.Sequential)]


def random_chain(structure: nn.Sequential, *, relu: bool = True) -> nn.Sequential:
    """Fill a structure from the meta device with small random weights, a ReLU behind it.

    Time does not depend on the values, as long as none is subnormal.
    """
    made = structure.to_empty(device="cpu")
    with torch.no_grad():
        for one in made.parameters():
            one.normal_(std=0.02)
    return nn.Sequential(*made, *([nn.ReLU()] if relu else []))


def against(reference: Times, times: Times, seed: int = 0) -> dict[str, Any]:
    """Return the median time in ms and the speedup over a reference with its 95% interval."""
    ratio, interval = speedup(reference, times, seed)
    return {"ms": float(np.median(times)) * 1e3, "speedup": ratio, "ci": list(interval)}
