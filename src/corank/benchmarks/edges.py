"""What a layer timed alone pays at its edges: the engine reorders its input and its output.

ONNX Runtime and OpenVINO keep maps in blocks of channels from layer to layer. Alone, a layer takes a plain
map and gives one, and on a large map the reorders can take as long as the layer, though the whole network has
next to none, as it hands on int8 where it is quantized. So their share is read from the engine's own profile
and left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from corank.engines import import_onnxruntime, import_openvino, openvino_options

Nodes: TypeAlias = list[tuple[str, float]]  # kind and seconds, in the order they ran

RUNS = 16
_WARMUP = 3
_MOST = 0.9  # a layer has some time of its own
# the last three are ONNX Runtime's at the ends of an int8 file; no chain has a transpose of its own
_REORDERS = ("Reorder", "ReorderInput", "ReorderOutput", "QuantizeLinear", "Transpose", "DequantizeLinear")
_IDLE = ("Input", "Output", "Parameter", "Result", "Const", "Constant")


def edge_share(backend: str, path: Path, arrays: Sequence[Any], threads: int, precision: str) -> float:
    """Return the share of a file's time, from 0 to 1, that goes into reorders at its two ends.

    Args:
        backend: onnxruntime or openvino.
        path: an ONNX file of one layer or chain.
        arrays: its inputs.
        threads: of the engine.
        precision: f32 or bf16, for OpenVINO.
    """
    profile = {"onnxruntime": _profile_onnxruntime, "openvino": _profile_openvino}[backend]
    return share(profile(path, arrays, threads, precision))


def share(profile: Sequence[tuple[float, Nodes]]) -> float:
    """Return the share of edges: the shortest that they took over the shortest that a run took.

    Other programs only lengthen a time, and they do so here more than in turns: each has a run undisturbed.

    >>> share([(10.0, [("Reorder", 2.0), ("Conv", 4.0), ("Reorder", 1.0), ("Conv", 2.0), ("Reorder", 1.0)])])
    0.3
    """
    total = min(wall for wall, _ in profile)
    return min(min(_edges(nodes) for _, nodes in profile) / total, _MOST) if total > 0 else 0.0


def _edges(nodes: Nodes) -> float:
    working = [node for node in nodes if node[0] not in _IDLE]
    if all(kind in _REORDERS for kind, _ in working):
        return 0.0
    return _leading(working) + _leading(working[::-1])


def _leading(nodes: Nodes) -> float:
    seconds = 0.0
    for kind, spent in nodes:
        if kind not in _REORDERS:
            break
        seconds += spent
    return seconds


def _profile_openvino(
    path: Path, arrays: Sequence[Any], threads: int, precision: str
) -> list[tuple[float, Nodes]]:
    openvino = import_openvino()
    core = openvino.Core()
    options = openvino_options(threads, precision) | {"PERF_COUNT": True}
    request = core.compile_model(core.read_model(str(path)), "CPU", options).create_infer_request()
    held = [openvino.Tensor(array, shared_memory=True) for array in arrays]
    for index, tensor in enumerate(held):
        request.set_input_tensor(index, tensor)

    found = []
    for _ in range(_WARMUP + RUNS):
        start = time.perf_counter()
        request.infer()
        wall = time.perf_counter() - start
        nodes = [(one.node_type, one.real_time.total_seconds()) for one in request.profiling_info]
        found.append((wall, nodes))
    return found[_WARMUP:]


def _profile_onnxruntime(
    path: Path, arrays: Sequence[Any], threads: int, precision: str
) -> list[tuple[float, Nodes]]:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = dict(zip([one.name for one in session.get_inputs()], arrays, strict=True))
    for _ in range(_WARMUP + RUNS):
        session.run(None, feed)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return read_events(events)[_WARMUP:]


def read_events(events: Sequence[dict[str, Any]]) -> list[tuple[float, Nodes]]:
    """Return each run of an ONNX Runtime profile: its seconds and its nodes in the order they ran."""
    runs = [one for one in events if one.get("name") == "model_run"]
    nodes = [one for one in events if one.get("cat") == "Node" and one["name"].endswith("kernel_time")]
    return [
        (
            run["dur"] * 1e-6,
            [
                (node["args"]["op_name"], node["dur"] * 1e-6)
                for node in sorted(nodes, key=lambda node: node["ts"])
                if run["ts"] <= node["ts"] <= run["ts"] + run["dur"]
            ],
        )
        for run in sorted(runs, key=lambda run: run["ts"])
    ]
