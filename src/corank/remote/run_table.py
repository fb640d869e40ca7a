"""Time the files beside this one on this device: python run_table.py --backend onnxruntime --threads 4

It needs Python, numpy and onnxruntime (or openvino), nothing else. It writes times.json after every group
and goes on where it stopped. Bring the folder back, then: corank table --import FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RUNS = 16  # of a profile, after three to warm up
REORDERS = ("Reorder", "ReorderInput", "ReorderOutput")
IDLE = ("Input", "Output", "Parameter", "Result", "Const", "Constant")


def start_onnxruntime(path: Path, threads: int, profile: str = "") -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.enable_profiling = bool(profile)
    if profile:
        options.profile_file_prefix = profile
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_onnxruntime(path: Path, arrays: list[Any], threads: int) -> Callable[[], object]:
    session = start_onnxruntime(path, threads)
    feed = dict(zip([one.name for one in session.get_inputs()], arrays))  # noqa: B905 (old Pythons)
    return lambda: session.run(None, feed)


def profile_onnxruntime(path: Path, arrays: list[Any], threads: int) -> list[tuple[float, list[Any]]]:
    with tempfile.TemporaryDirectory() as place:
        session = start_onnxruntime(path, threads, str(Path(place) / "profile"))
        feed = dict(zip([one.name for one in session.get_inputs()], arrays))  # noqa: B905 (old Pythons)
        for _ in range(3 + RUNS):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    runs = sorted((one for one in events if one.get("name") == "model_run"), key=lambda one: one["ts"])
    nodes = [one for one in events if one.get("cat") == "Node" and one["name"].endswith("kernel_time")]
    nodes.sort(key=lambda one: one["ts"])
    return [
        (
            run["dur"] * 1e-6,
            [
                (one["args"]["op_name"], one["dur"] * 1e-6)
                for one in nodes
                if run["ts"] <= one["ts"] <= run["ts"] + run["dur"]
            ],
        )
        for run in runs[3:]
    ]


def start_openvino(path: Path, arrays: list[Any], threads: int, profile: bool = False) -> Any:
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": profile,
    }
    request = core.compile_model(core.read_model(str(path)), "CPU", options).create_infer_request()
    for index, array in enumerate(arrays):
        request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
    return request


def open_openvino(path: Path, arrays: list[Any], threads: int) -> Callable[[], object]:
    request = start_openvino(path, arrays, threads)
    return lambda: request.infer()


def profile_openvino(path: Path, arrays: list[Any], threads: int) -> list[tuple[float, list[Any]]]:
    request = start_openvino(path, arrays, threads, profile=True)
    found = []
    for _ in range(3 + RUNS):
        start = time.perf_counter()
        request.infer()
        wall = time.perf_counter() - start
        found.append(
            (wall, [(one.node_type, one.real_time.total_seconds()) for one in request.profiling_info])
        )
    return found[3:]


ENGINES = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}
PROFILES = {"onnxruntime": profile_onnxruntime, "openvino": profile_openvino}


def edge_share(profile: list[tuple[float, list[Any]]]) -> float:
    """Return the share of the time that reorders at both ends take; see corank.benchmarks.edges."""
    spent = []
    for _, nodes in profile:
        working = [one for one in nodes if one[0] not in IDLE]
        edges = 0.0
        for side in (working, working[::-1]):
            for kind, seconds in side:
                if kind not in REORDERS:
                    break
                edges += seconds
        spent.append(0.0 if all(kind in REORDERS for kind, _ in working) else edges)
    total = min(wall for wall, _ in profile)
    return min(min(spent) / total, 0.9) if total > 0 else 0.0


def sample(run: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - start


def time_in_turns(runs: list[Callable[[], object]], rounds: int, min_time: float) -> list[list[float]]:
    """Time each in turns, in a drawn order and then in reverse; return seconds per call."""
    repeats = []
    for run in runs:
        sample(run, 3)
        count = 1
        while min(sample(run, count), sample(run, count)) < min_time:
            count *= 2
        repeats.append(count)
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        if number % 2 == 0:
            order = random.sample(range(len(runs)), len(runs))
        for index in order if number % 2 == 0 else order[::-1]:
            times[index].append(sample(runs[index], repeats[index]) / repeats[index])
    return times


def make_inputs(inputs: list[dict[str, Any]]) -> list[Any]:
    generator = np.random.default_rng(0)
    return [
        generator.standard_normal(one["shape"]).astype(one["dtype"])
        if one["dtype"].startswith("float")
        else np.ones(one["shape"], one["dtype"])
        for one in inputs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=list(ENGINES), default="onnxruntime")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    os.environ.update({"CI": "true", "ORT_DISABLE_TELEMETRY": "1"})
    folder = Path(__file__).resolve().parent
    manifest = json.loads((folder / "manifest.json").read_text())
    terms = {
        "backend": given.backend,
        "threads": given.threads,
        "version": __import__(given.backend).__version__,
        "machine": {
            "cpu": cpu_name(),
            "threads": os.cpu_count(),
            "os": platform.platform(),
            "python": platform.python_version(),
        },
    }
    path = folder / "times.json"
    done = json.loads(path.read_text()) if path.exists() else {}
    if done.get("terms") != terms or done.get("manifest") != manifest["digest"]:
        done = {"schema": 1, "manifest": manifest["digest"], "terms": terms, "groups": {}}
    for number, group in enumerate(manifest["groups"]):
        if str(number) in done["groups"]:
            continue
        arrays = [make_inputs(one) for one in group["inputs"]]
        files = [folder / file for file in group["files"]]
        runs = [
            ENGINES[given.backend](file, own, given.threads)
            for file, own in zip(files, arrays)  # noqa: B905 (old Pythons)
        ]
        times = time_in_turns(runs, manifest["rounds"], manifest["min_time"])
        edges = [
            0.0  # the whole network keeps its edges
            if file.name == "model.onnx"
            else edge_share(PROFILES[given.backend](file, own, given.threads))
            for file, own in zip(files, arrays)  # noqa: B905 (old Pythons)
        ]
        done["groups"][str(number)] = {"times": times, "edges": edges}
        beside = path.with_name("times.json.tmp")
        beside.write_text(json.dumps(done))
        beside.replace(path)
        sys.stderr.write(f"group {number + 1} of {len(manifest['groups'])}\n")
    sys.stderr.write("done: bring this folder back\n")


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [
        line.partition(":")[2].strip()
        for line in lines
        if line.lower().startswith(("model name", "hardware"))
    ]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
