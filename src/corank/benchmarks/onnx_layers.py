"""The layers of an ONNX file as stock layers with their input shapes: enough to time their splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from corank.benchmarks.followers import Follower
from corank.benchmarks.table_units import Unit
from corank.errors import FileError
from corank.extras import import_extra
from corank.layers import CONVS, TRANSPOSED_CONVS, FilterLayer

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ACTIVATIONS = {
    "Relu": Follower("ReLU"),
    "Clip": Follower("ReLU6"),
    "Sigmoid": Follower("Sigmoid"),
    "Tanh": Follower("Tanh"),
    "Gelu": Follower("GELU"),
    "HardSwish": Follower("Hardswish"),
    "LeakyRelu": Follower("LeakyReLU"),
}


@dataclass(frozen=True, slots=True)
class OnnxNetwork:
    """What a file holds: units by key, each layer's calls, the layers, and why others are left out."""

    units: Mapping[str, Unit]
    calls: Mapping[str, Counter[str]]
    layers: Mapping[str, FilterLayer]
    skipped: Mapping[str, str]
    inputs: Mapping[str, tuple[tuple[int, ...], str]]  # name: shape and numpy dtype


class _Skip(Exception):
    """A layer cannot be timed, for the reason given."""


def read_layers(path: Path | str, shapes: Sequence[Sequence[int]] | None = None) -> OnnxNetwork:
    """Read the convolutions and matrix products with constant weights of an ONNX file.

    Args:
        path: an .onnx file.
        shapes: of the inputs, in order; those in the file if None.
    Returns: the layers, as stock layers on meta, by the name of their node or weight.
    Raises: FileError, for a file that is not ONNX, or inputs whose shape the file leaves open.
    """
    onnx = import_extra("onnx", "onnx")
    try:
        model = onnx.load(str(path))
        if not model.graph.node:
            raise ValueError("it holds no graph")
    except Exception as error:  # protobuf and onnx raise many kinds
        said = str(error).strip().partition("\n")[0]
        raise FileError(f"{path}: is not an ONNX file ({type(error).__name__}: {said}).") from error
    constants = {one.name: one for one in model.graph.initializer}
    inputs = _set_shapes(model, constants, path, shapes)
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:
        raise FileError(f"{path}: its shapes cannot be inferred ({error}).") from error
    graph = model.graph
    known = {one.name: _shape(one) for one in (*graph.input, *graph.value_info, *graph.output)}
    readers = Counter(name for node in graph.node for name in node.input)
    after = {name: node for node in graph.node for name in node.input if readers[name] == 1}
    units: dict[str, Unit] = {}
    calls: dict[str, Counter[str]] = {}
    layers: dict[str, FilterLayer] = {}
    skipped: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in _WEIGHTED:
            continue
        name = node.name or node.output[0]
        try:
            layer = _layer(node, constants, after)
            shape = known.get(node.input[0])
            if shape is None:
                raise _Skip("the shape of its input cannot be inferred: give the shapes of the inputs")
        except _Skip as reason:
            skipped[name] = str(reason)
            continue
        unit = Unit(layer, shape, followers=tuple(_followers(node, layer, constants, after)))
        units.setdefault(unit.key, unit)
        calls[name], layers[name] = Counter([unit.key]), layer
    return OnnxNetwork(units, calls, layers, skipped, inputs)


def _set_shapes(
    model: Any, constants: Mapping[str, Any], path: Path | str, shapes: Sequence[Sequence[int]] | None
) -> dict[str, tuple[tuple[int, ...], str]]:
    onnx = import_extra("onnx", "onnx")
    inputs = [one for one in model.graph.input if one.name not in constants]
    if shapes is not None and len(shapes) != len(inputs):
        names = ", ".join(one.name for one in inputs)
        raise FileError(f"{path}: takes {len(inputs)} inputs ({names}), got {len(shapes)} shapes.")
    found = {}
    for number, one in enumerate(inputs):
        tensor = one.type.tensor_type
        if shapes is not None:
            own = tensor.shape.dim
            if len(own) != len(shapes[number]) or any(
                dim.dim_value and dim.dim_value != size for dim, size in zip(own, shapes[number], strict=True)
            ):
                said = "×".join(str(dim.dim_value or dim.dim_param or "?") for dim in own)
                raise FileError(f"{path}: input {one.name} is {said}, got {tuple(shapes[number])}.")
            for dim, size in zip(own, shapes[number], strict=True):
                dim.dim_value = size
        shape = _shape(one)
        if shape is None:
            said = "×".join(str(dim.dim_value or dim.dim_param or "?") for dim in tensor.shape.dim)
            raise FileError(f"{path}: the shape of input {one.name} is open ({said}). Give it: --shape.")
        found[one.name] = shape, str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    return found


def _shape(value: Any) -> tuple[int, ...] | None:
    dims = value.type.tensor_type.shape.dim
    sizes = tuple(dim.dim_value for dim in dims)
    return sizes if sizes and all(size > 0 for size in sizes) else None


def _layer(node: Any, constants: Mapping[str, Any], after: Mapping[str, Any]) -> FilterLayer:
    onnx = import_extra("onnx", "onnx")
    weight = constants.get(node.input[1])
    if weight is None:
        raise _Skip("its second factor is computed, not a weight")
    if weight.data_type != onnx.TensorProto.FLOAT:
        raise _Skip("its weight is not float32")
    dims = tuple(weight.dims)
    given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    if node.op_type in ("Gemm", "MatMul"):
        return _linear(node, dims, given, constants, after)
    return _conv(node, dims, given)


def _linear(
    node: Any, dims: tuple[int, ...], given: Mapping[str, Any], constants: Mapping[str, Any], after: Any
) -> nn.Linear:
    if len(dims) != 2 or given.get("transA"):
        raise _Skip("it is no linear layer: its weight has not two dimensions, or its input is transposed")
    outputs, inputs = dims if given.get("transB") else dims[::-1]
    bias = len(node.input) > 2
    if node.op_type == "MatMul":
        follower = after.get(node.output[0])
        bias = (
            follower is not None and follower.op_type == "Add" and any(i in constants for i in follower.input)
        )
    return nn.Linear(inputs, outputs, bias=bias, device="meta")


def _conv(node: Any, dims: tuple[int, ...], given: Mapping[str, Any]) -> FilterLayer:
    kernel, count = dims[2:], len(dims) - 2
    if not 1 <= count <= 3:
        raise _Skip(f"a convolution of {count} dimensions is not known")
    auto = given.get("auto_pad", b"NOTSET").decode()
    pads = list(given.get("pads", [0] * 2 * count))
    dilation, groups = tuple(given.get("dilations", [1] * count)), given.get("group", 1)
    padding: Any = tuple(pads[:count])
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    elif pads[:count] != pads[count:]:
        # torch pads both sides alike; one row more takes nearly the same time
        padding = tuple(max(low, high) for low, high in zip(pads[:count], pads[count:], strict=True))
    settings: dict[str, Any] = {
        "kernel_size": kernel,
        "stride": tuple(given.get("strides", [1] * count)),
        "dilation": dilation,
        "padding": padding,
        "groups": groups,
        "bias": len(node.input) > 2,
        "device": "meta",
    }
    kinds: tuple[type[Any], ...] = CONVS
    channels = dims[1] * groups, dims[0]
    if node.op_type == "ConvTranspose":
        kinds, channels = TRANSPOSED_CONVS, (dims[0], dims[1] * groups)
        settings["output_padding"] = tuple(given.get("output_padding", [0] * count))
    made: FilterLayer = kinds[count - 1](*channels, **settings)
    return made


def _followers(
    node: Any, layer: FilterLayer, constants: Mapping[str, Any], after: Mapping[str, Any]
) -> list[Follower]:
    found: list[Follower] = []
    follower = after.get(node.output[0])
    if node.op_type == "MatMul" and follower is not None and layer.bias is not None:
        follower = after.get(follower.output[0])  # past the addition of the bias
    if follower is not None and follower.op_type == "BatchNormalization":
        dims = max(layer.weight.dim() - 2, 1)
        scale = constants.get(follower.input[1])
        if scale is not None:
            features = scale.dims[0]
            found.append(Follower(f"BatchNorm{dims}d", (("num_features", features),)))
            follower = after.get(follower.output[0])
    if follower is not None and follower.op_type in _ACTIVATIONS:
        found.append(_ACTIVATIONS[follower.op_type])
    return found
