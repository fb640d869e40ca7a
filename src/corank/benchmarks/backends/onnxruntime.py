"""ONNX Runtime on the CPU, from an exported file."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from corank.benchmarks.backends.runners import Runner
from corank.benchmarks.memory import peak_in_fresh_process
from corank.engines import import_onnxruntime, open_onnxruntime
from corank.exported import Exported
from corank.exporting import export
from corank.inputs import Example, tensors


def prepare(model: nn.Module, example: Example, threads: int, folder: Path) -> Runner:
    """Export a model to ONNX at the example's batch size, checked, and load it into ONNX Runtime.

    Raises: ExtraError, when it is not installed; FileError, when the model cannot be exported.
    """
    import_onnxruntime()
    if isinstance(model, Exported):
        path = model.path
        notes = [f"it runs {path.name} as it is"]
    else:
        path, notes = folder / "model.onnx", []
        export(model, example, path, dynamic_batch=False)
    session = open_onnxruntime(path, threads)
    arrays = [tensor.detach().contiguous().numpy() for tensor in tensors(example)]
    return Runner(
        session.bind(arrays),
        {"onnxruntime": session.version},
        lambda: peak_in_fresh_process("onnxruntime", path, arrays, threads, folder),
        tuple(notes),
    )
