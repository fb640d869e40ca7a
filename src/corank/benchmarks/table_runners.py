"""Whole networks and single chains made ready in the engine that a latency table is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from corank.benchmarks.backends import BACKENDS, find_backend
from corank.benchmarks.chain_onnx import CannotWriteError, write_chain
from corank.benchmarks.edges import edge_share
from corank.engines import Array, import_openvino, open_onnxruntime, open_openvino
from corank.errors import CorankError
from corank.exporting import export
from corank.inputs import Example, tensors
from corank.quantizing import write_int8
from corank.targets import PRECISIONS

Run: TypeAlias = Callable[[], object]

_HINTS = {
    "float32": "f32",
    "bfloat16": "bf16",
    "int8": "f32",
}  # of OpenVINO, for what is not int8 in the file
FILE_ENGINES = ("onnxruntime", "openvino")


def check_terms(model: nn.Module, example: Example, backend: str, precision: str | None) -> str:
    """Return the precision that a model will be timed in, by its name in torch.

    Raises: CorankError, for an unknown engine or precision, for one that the engine or the processor does not
        run, and for a model that is not on the CPU.
    """
    find_backend(backend)
    if precision is not None and precision not in PRECISIONS:
        raise CorankError(f"precision: allowed are f32, bf16 and int8, got {precision!r}.")
    held = [*model.parameters(), *model.buffers(), *tensors(example)]
    for tensor in held:
        if tensor.device.type != "cpu":
            raise CorankError(
                f"latency_table: takes a model and an example on the CPU, got {tensor.device}. Call .cpu() "
                "first; backend torch_cuda moves a copy, and for another device export the table's files."
            )
    own = {tensor.dtype for tensor in held if tensor.is_floating_point()} or {torch.float32}
    names = sorted(str(dtype).removeprefix("torch.") for dtype in own)
    if len(names) > 1:
        raise CorankError(f"latency_table: model and example mix {' and '.join(names)}. Use one dtype.")
    wanted = names[0] if precision is None else PRECISIONS[precision]
    if backend in FILE_ENGINES and names[0] != "float32":
        raise CorankError(f"{backend}: takes a float32 model, got {names[0]}. Call .float() first.")
    if wanted == "int8" and backend not in FILE_ENGINES:
        raise CorankError(f"precision: int8 is timed in {' and '.join(FILE_ENGINES)}, got {backend}.")
    if wanted not in (names[0], "int8") and backend != "openvino":
        raise CorankError(
            f"precision: {backend} runs the model as it is, in {names[0]}, not {wanted}. Only OpenVINO "
            "converts by itself; for torch give a model of that dtype."
        )
    if wanted == "bfloat16" and backend == "openvino":
        can = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in can:
            raise CorankError(f"precision: this processor runs {', '.join(can)} in OpenVINO, not bf16.")
    return wanted


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network or chain ready to be timed, and what share of its time is none of its own; see `edges`."""

    run: Run
    edge_share: Callable[[], float] = lambda: 0.0


def prepare_whole(
    backend: str, model: nn.Module, example: Example, threads: int, folder: Path, precision: str
) -> Run:
    """Make a whole network ready to be timed: `run()` computes its output once."""
    if backend not in FILE_ENGINES:
        return BACKENDS[backend](model, example, threads, folder).run
    path = folder / ("model.xml" if backend == "openvino" and precision != "int8" else "model.onnx")
    export(model, example, path, dynamic_batch=False)
    arrays = [tensor.detach().contiguous().numpy() for tensor in tensors(example)]
    return prepare_file(backend, path, arrays, threads, folder, precision).run


def prepare_chain(
    backend: str, chain: nn.Sequential, x: Tensor, threads: int, folder: Path, precision: str
) -> Prepared:
    """Make a chain of stock layers ready to be timed on one input."""
    if backend not in FILE_ENGINES:
        return Prepared(BACKENDS[backend](chain, x, threads, folder).run)
    path = folder / "chain.onnx"
    save_chain(chain, x, path)
    return prepare_file(backend, path, [x.contiguous().numpy()], threads, folder, precision)


def prepare_file(
    backend: str, path: Path, arrays: Sequence[Array], threads: int, folder: Path, precision: str
) -> Prepared:
    """Load a file into its engine, held to a number of threads and a precision."""
    if precision == "int8":
        # one input gives the ranges: enough to time it, too little to ship it
        path, whole = folder / f"{path.stem}-int8.onnx", path
        write_int8(whole, [arrays], path)
    hint = _HINTS[precision]
    if backend == "onnxruntime":
        session = open_onnxruntime(path, threads)
    else:
        session = open_openvino(path, threads, hint)
    return Prepared(session.bind(arrays), lambda: edge_share(backend, path, arrays, threads, hint))


def save_chain(chain: nn.Sequential, x: Tensor, path: Path) -> None:
    """Write a chain as an ONNX file, directly where that is possible, by export where not.

    Raises: FileError, when it cannot be exported.
    """
    try:
        data = write_chain(chain, tuple(x.shape))
    except CannotWriteError:
        export(chain, x, path, dynamic_batch=False)
    else:
        path.write_bytes(data)


def terms_of(backend: str, threads: int, precision: str, machine: dict[str, Any]) -> dict[str, Any]:
    """Return all that a time depends on besides the layer: what a cache is valid for."""
    packages = ["torch", *(name for name in FILE_ENGINES if name == backend or precision == "int8")]
    return {
        "cpu": machine["cpu"],
        "cores": machine["cores"],
        "flags": machine["flags"],
        "usable_threads": machine["usable_threads"],
        "backend": backend,
        "versions": {name: machine["versions"].get(name) for name in packages},
        "threads": threads,
        "precision": precision,
        "device": torch.cuda.get_device_name() if backend == "torch_cuda" else "cpu",
    }
