"""A chain of stock layers as an ONNX file, written directly.

torch's exporter takes a second and more a network, too long for the hundreds of small chains of a latency
table. What cannot be written here, `corank.export` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from corank.extras import import_extra
from corank.layers import CONVS, TRANSPOSED_CONVS

OPSET = 20  # the first with Gelu
_IR_VERSION = 9


class CannotWriteError(Exception):
    """A chain holds something that this file does not know."""


@dataclass(slots=True)
class _Graph:
    """Nodes and weights so far; each node takes what the one before gave."""

    dims: int
    last: str = "input"
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)

    def weight(self, value: Tensor | NDArray[Any]) -> str:
        onnx = import_extra("onnx", "onnx")
        array = value.detach().cpu().contiguous().numpy() if isinstance(value, Tensor) else value
        name = f"w{len(self.weights)}"
        self.weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, kind: str, *weights: str, first: str | None = None, **settings: Any) -> str:
        onnx = import_extra("onnx", "onnx")
        output = f"v{len(self.nodes)}"
        inputs = [self.last if first is None else first, *weights]
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], **settings))
        self.last = output
        return output


def write_chain(chain: nn.Sequential, shape: tuple[int, ...]) -> bytes:
    """Write a chain of stock float32 layers in eval mode as ONNX, for one input shape.

    Args:
        chain: convolutions, transposed ones, linear layers, batch norms and activations.
        shape: of the input, with its batch.
    Returns: the file's bytes.
    Raises: CannotWriteError, for a layer that is not known here; ExtraError, without onnx.

    >>> len(write_chain(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), (1, 4))) > 100
    True
    """
    onnx = import_extra("onnx", "onnx")
    graph = _Graph(len(shape))
    for module in chain:
        writer = next((write for kind, write in _WRITERS.items() if type(module) is kind), None)
        if writer is None:
            raise CannotWriteError(f"{type(module).__name__} is not known")
        writer(graph, module)
    if not graph.nodes:
        graph.add("Identity")
    value = onnx.helper.make_tensor_value_info
    float32 = onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(
        graph.nodes,
        "chain",
        [value("input", float32, shape)],
        [value(graph.last, float32, [None] * graph.dims)],
        graph.weights,
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(made, opset_imports=[opset], ir_version=_IR_VERSION)
    data: bytes = model.SerializeToString()
    return data


def _conv(graph: _Graph, layer: Any) -> None:
    if layer.padding_mode != "zeros":
        raise CannotWriteError(f"padding mode {layer.padding_mode}")
    if graph.dims != layer.weight.dim():
        raise CannotWriteError("an input without a batch")
    settings: dict[str, Any] = {
        "kernel_shape": layer.kernel_size,
        "strides": layer.stride,
        "dilations": layer.dilation,
        "group": layer.groups,
        "pads": _pads(layer),
    }
    kind = "Conv"
    if isinstance(layer, TRANSPOSED_CONVS):
        kind, settings["output_padding"] = "ConvTranspose", layer.output_padding
    graph.add(kind, *_weights(graph, layer), **settings)


def _pads(layer: Any) -> list[int]:
    if layer.padding == "valid":
        return [0] * 2 * len(layer.kernel_size)
    if layer.padding == "same":  # torch puts the odd one behind
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [*(total // 2 for total in totals), *(total - total // 2 for total in totals)]
    return [*layer.padding, *layer.padding]


def _weights(graph: _Graph, layer: Any) -> Iterator[str]:
    yield graph.weight(layer.weight)
    if layer.bias is not None:
        yield graph.weight(layer.bias)


def _linear(graph: _Graph, layer: nn.Linear) -> None:
    if graph.dims == 2:
        graph.add("Gemm", *_weights(graph, layer), transB=1)
        return
    graph.add("MatMul", graph.weight(layer.weight.T))
    if layer.bias is not None:
        graph.add("Add", graph.weight(layer.bias))


def _batch_norm(graph: _Graph, norm: Any) -> None:
    if norm.running_mean is None:
        raise CannotWriteError("a batch norm without statistics")
    ones = np.ones(norm.num_features, np.float32)
    scale, shift = (ones, 0 * ones) if norm.weight is None else (norm.weight, norm.bias)
    values = (scale, shift, norm.running_mean, norm.running_var)
    graph.add("BatchNormalization", *map(graph.weight, values), epsilon=norm.eps)


def _clip(graph: _Graph, low: float, high: float) -> None:
    graph.add("Clip", *(graph.weight(np.array(end, np.float32)) for end in (low, high)))


def _silu(graph: _Graph, _: nn.Module) -> None:
    given = graph.last
    gate = graph.add("Sigmoid")
    graph.add("Mul", gate, first=given)


def _simple(kind: str, **settings: Any) -> Callable[[_Graph, Any], None]:
    def write(graph: _Graph, _: Any) -> None:
        graph.add(kind, **settings)

    return write


_WRITERS: dict[type[nn.Module], Callable[[_Graph, Any], None]] = {
    **dict.fromkeys((*CONVS, *TRANSPOSED_CONVS), _conv),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    nn.Linear: _linear,
    nn.Identity: lambda graph, _: None,
    nn.ReLU: _simple("Relu"),
    nn.ReLU6: lambda graph, _: _clip(graph, 0.0, 6.0),
    nn.Hardtanh: lambda graph, layer: _clip(graph, layer.min_val, layer.max_val),
    nn.SiLU: _silu,
    nn.GELU: lambda graph, layer: _simple("Gelu", approximate=layer.approximate)(graph, layer),
    nn.Hardswish: _simple("HardSwish"),
    nn.Hardsigmoid: _simple("HardSigmoid", alpha=1 / 6, beta=0.5),
    nn.Mish: _simple("Mish"),
    nn.LeakyReLU: lambda graph, layer: _simple("LeakyRelu", alpha=layer.negative_slope)(graph, layer),
    nn.ELU: lambda graph, layer: _simple("Elu", alpha=layer.alpha)(graph, layer),
    nn.Sigmoid: _simple("Sigmoid"),
    nn.Tanh: _simple("Tanh"),
}
