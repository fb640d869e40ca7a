"""What an ONNX file says of itself, without its weights being run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corank.errors import FileError
from corank.extras import import_extra
from corank.rollout.casting import DTYPES


def input_dtype(path: Path) -> str:
    """Return the dtype of a file's first input.

    Raises: FileError, for what is no ONNX, keeps weights in other files, or takes no numbers.
    """
    onnx = import_extra("onnx", "onnx")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf has its own kinds
        raise FileError(f"{path}: it is no ONNX ({str(error)[:200]}).") from error
    outside = {
        entry.value for one in _tensors(graph) for entry in one.external_data if entry.key == "location"
    }
    if outside:
        raise FileError(
            f"{path}: keeps weights in {', '.join(sorted(outside))[:200]}, which no bundle holds. Save it "
            "with its weights inside: onnx.save(onnx.load(path), path)."
        )
    stored = {one.name for one in graph.initializer}  # older files list their weights as inputs too
    inputs = [one for one in graph.input if one.name not in stored]
    if not inputs:
        raise FileError(f"{path}: has no input.")
    kind = inputs[0].type.tensor_type.elem_type
    found: str = onnx.TensorProto.DataType.Name(kind)
    names = {"FLOAT": "float32", "DOUBLE": "float64"}
    dtype = names.get(found, found.lower())
    if dtype not in DTYPES:
        raise FileError(f"{path}: its input is {found}; allowed are {', '.join(DTYPES)}.")
    return dtype


def _tensors(graph: Any) -> Iterator[Any]:
    """Give every stored tensor, those of nodes and of graphs within included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for within in (attribute.g, *attribute.graphs):
                yield from _tensors(within)
