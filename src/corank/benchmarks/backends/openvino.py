"""OpenVINO on the CPU in float32, from an exported file."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from corank.benchmarks.backends.runners import Runner
from corank.benchmarks.memory import peak_in_fresh_process
from corank.engines import import_openvino, open_openvino
from corank.exported import Exported
from corank.exporting import export
from corank.inputs import Example, tensors


def prepare(model: nn.Module, example: Example, threads: int, folder: Path) -> Runner:
    """Export a model to OpenVINO IR at the example's batch size, checked, and load it into OpenVINO.

    Raises: ExtraError, when it is not installed; FileError, when the model cannot be exported.
    """
    import_openvino()
    if isinstance(model, Exported):
        path, sparse_rate = model.path, model.sparse_rate
        notes = [f"it runs {path.name} as it is"]
    else:
        path, sparse_rate, notes = folder / "model.xml", None, []
        export(model, example, path, dynamic_batch=False)
    session = open_openvino(path, threads, sparse_rate=sparse_rate)
    arrays = [tensor.detach().contiguous().numpy() for tensor in tensors(example)]
    return Runner(
        session.bind(arrays),
        {"openvino": session.version},
        # without the packing of sparse weights, which saves no more than their own bytes
        lambda: peak_in_fresh_process("openvino", path, arrays, threads, folder),
        tuple(notes),
    )
