"""The engines that run an exported file on the CPU, pinned to float32 and to a number of threads.

Both engines report their use over the network when they are imported (OpenVINO also writes a client id
into the home folder, ONNX Runtime a database into the cache folder). A measurement should do neither, so
they are imported here under the switches that each offers for build machines.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corank.extras import import_extra

Array = NDArray[Any]

# read by the engines, and by MLflow, while they are imported
QUIET = {"CI": "true", "ORT_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass(frozen=True, slots=True)
class Session:
    """An exported file, loaded; `bind(arrays)` gives a function that runs it on them, in input order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    version: str
    bind: Callable[[Sequence[Array]], Callable[[], list[Array]]]


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import packages that report their use under the switches that keep them from it."""
    before = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the engines, none of the caller's business
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def silenced() -> Iterator[None]:
    """Keep an exporter or a compiler from warning, logging and printing; what it raises says it all."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(before)


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, without its telemetry.

    Raises: ExtraError, when it is not installed.
    """
    with without_telemetry():
        return import_extra("onnxruntime", "onnx")


def import_openvino() -> ModuleType:
    """Import OpenVINO, without its telemetry.

    Raises: ExtraError, when it is not installed.
    """
    with without_telemetry():
        return import_extra("openvino", "openvino")


def openvino_options(
    threads: int, precision: str = "f32", sparse_rate: float | None = None
) -> dict[str, Any]:
    """Say how OpenVINO is set up.

    `sparse_rate`: weights of an int8 matrix product with at least this share of zeros are kept packed. Only
    processors with AMX have a kernel for that; others take the option and do nothing with it.

    Without the hint it runs bfloat16 on processors that have it. It binds its threads to processors, which
    the other engines do not, and then waits for whatever else runs there.
    """
    packed = {} if sparse_rate is None else {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": sparse_rate}
    return {
        **packed,
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }


def open_onnxruntime(path: Path, threads: int) -> Session:
    """Load an ONNX file into ONNX Runtime's CPU provider, which computes in the file's own precision."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised as well
    # threads that spin after a run would take the processor from whatever is timed next
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = tuple(item.name for item in session.get_inputs())

    def bind(arrays: Sequence[Array]) -> Callable[[], list[Array]]:
        feed = dict(zip(names, arrays, strict=True))
        return lambda: list(session.run(None, feed))

    return Session(names, tuple(item.name for item in session.get_outputs()), onnxruntime.__version__, bind)


def open_openvino(
    path: Path, threads: int, precision: str = "f32", sparse_rate: float | None = None
) -> Session:
    """Load an ONNX file or OpenVINO IR into OpenVINO's CPU device."""
    openvino = import_openvino()
    core = openvino.Core()
    options = openvino_options(threads, precision, sparse_rate)
    compiled = core.compile_model(core.read_model(str(path)), "CPU", options)
    request = compiled.create_infer_request()
    names = tuple(item.any_name for item in compiled.inputs)
    outputs = tuple(item.any_name if item.names else f"output{i}" for i, item in enumerate(compiled.outputs))

    def bind(arrays: Sequence[Array]) -> Callable[[], list[Array]]:
        if len(arrays) != len(names):
            raise ValueError(f"takes {len(names)} inputs, got {len(arrays)}")
        tensors = [openvino.Tensor(np.ascontiguousarray(array), shared_memory=True) for array in arrays]
        for index, tensor in enumerate(tensors):
            request.set_input_tensor(index, tensor)

        def run() -> list[Array]:
            request.infer()
            return [request.get_output_tensor(index).data for index in range(len(outputs))]

        return run

    version = openvino.__version__.partition("-")[0]  # what follows is the build
    return Session(names, outputs, version, bind)


OPENERS: dict[str, Callable[[Path, int], Session]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
}
