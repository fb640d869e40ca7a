"""The kinds of file a network is written to: each writer gives back what it wrote, ready to run."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from corank.engines import Session, import_openvino, open_onnxruntime, open_openvino
from corank.errors import FileError
from corank.extras import import_extra
from corank.inputs import Example, call, first_tensor, tensors

SINGLE_FILE_BYTES = 2 * 10**9  # an ONNX file is one protobuf message, which ends at 2 GiB


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written: how to run it on an example, and the names of its inputs and outputs."""

    run: Callable[[Example], list[Tensor]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def map_tensors(
    value: Any, change: Callable[[Tensor], Any], other: Callable[[Any], Any] = lambda item: item
) -> Any:
    """Rebuild nested dicts, lists and tuples with every tensor changed by one function, the rest by another.

    >>> map_tensors((torch.ones(2), {"a": 3}), lambda tensor: tensor.shape[0])
    (2, {'a': 3})
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(item, change, other) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, change, other) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, change, other) for item in value)
    return other(value)


def trace(model: nn.Module, example: Example, *, dynamic_batch: bool) -> ExportedProgram:
    """Trace a network with torch.export, with one symbol for the batch dimension of all inputs if asked."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(example, Mapping):
        kwargs = dict(example)
    else:
        args = (example,) if isinstance(example, Tensor) else tuple(example)
    shapes = None
    if dynamic_batch:
        batch, size = torch.export.Dim("batch"), first_tensor(example).shape[0]

        def shape(tensor: Tensor) -> dict[int, Any] | None:
            return {0: batch} if tensor.dim() and tensor.shape[0] == size else None

        # by name, since torch.export wants what a forward takes as *args or **kwargs nested under its name
        named = inspect.signature(model.forward).bind(*args, **kwargs).arguments
        shapes = map_tensors(named, shape, lambda item: None)
    return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)


def write_onnx(program: ExportedProgram, path: Path) -> Written:
    """Write ONNX, with the weights in the same file as long as they fit; run by ONNX Runtime."""
    import_extra("onnx", "onnx")
    import_extra("onnxscript", "onnx")
    onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    if onnx is None:
        raise FileError(f"{path.name}: torch.onnx.export gave no program.")
    dims = {dim for item in onnx.model.graph.inputs for dim in item.shape or () if not isinstance(dim, int)}
    onnx.rename_axes(dict.fromkeys(dims, "batch"))  # torch calls it s77 or the like
    held = (*program.state_dict.values(), *program.constants.values())
    size = sum(value.nbytes for value in held if isinstance(value, Tensor))
    onnx.save(path, external_data=size >= SINGLE_FILE_BYTES)
    return _from_session(open_onnxruntime(path, torch.get_num_threads()))


def write_openvino(program: ExportedProgram, path: Path) -> Written:
    """Write OpenVINO IR (.xml and .bin) in float32, by way of ONNX; run by OpenVINO."""
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder) / "model.onnx"
        write_onnx(program, between)
        openvino.save_model(openvino.Core().read_model(str(between)), str(path), compress_to_fp16=False)
    return _from_session(open_openvino(path, torch.get_num_threads()))


def write_pt2(program: ExportedProgram, path: Path) -> Written:
    """Write a torch.export archive; what runs is the program in memory, since reading it may unpickle."""
    program.example_inputs = None  # the caller's data does not belong in the file
    torch.export.save(program, path)
    module, signature = program.module(), program.graph_signature
    return Written(
        lambda example: tensors(call(module, example)),
        tuple(map(str, signature.user_inputs)),
        tuple(map(str, signature.user_outputs)),
    )


def write_executorch(program: ExportedProgram, path: Path) -> Written:
    """Write an ExecuTorch program for the CPU, in XNNPACK where it has the operator; run by its runtime."""
    exir = import_extra("executorch.exir", "executorch")
    xnnpack = import_extra("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
    runtime = import_extra("executorch.runtime", "executorch").Runtime.get()
    edge = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
    path.write_bytes(edge.to_executorch().buffer)
    loaded = runtime.load_program(path.read_bytes())
    signature = program.graph_signature

    def run(example: Example) -> list[Tensor]:
        inputs = [tensor.detach().cpu().contiguous() for tensor in tensors(example)]
        # a method alone does not keep the memory of its program alive
        return list(loaded.load_method("forward").execute(inputs))

    return Written(run, tuple(map(str, signature.user_inputs)), tuple(map(str, signature.user_outputs)))


def _from_session(session: Session) -> Written:
    def run(example: Example) -> list[Tensor]:
        arrays = [tensor.detach().cpu().contiguous().numpy() for tensor in tensors(example)]
        return [torch.from_numpy(array.copy()) for array in session.bind(arrays)()]

    return Written(run, session.inputs, session.outputs)


WRITERS: dict[str, Callable[[ExportedProgram, Path], Written]] = {
    ".onnx": write_onnx,
    ".xml": write_openvino,
    ".pt2": write_pt2,
    ".pte": write_executorch,
}
FIXED_BATCH = {".pte": "ExecuTorch lays its memory out ahead"}  # and so knows every size
