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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def open_onnxruntime(path: Path, arrays: list[Any], threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = dict(zip([one.name for one in session.get_inputs()], arrays))  # noqa: B905 (old Pythons)
    return lambda: session.run(None, feed)


def open_openvino(path: Path, arrays: list[Any], threads: int) -> Callable[[], object]:
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    request = core.compile_model(core.read_model(str(path)), "CPU", options).create_infer_request()
    tensors = [openvino.Tensor(array, shared_memory=True) for array in arrays]
    for index, tensor in enumerate(tensors):
        request.set_input_tensor(index, tensor)

    def run(held: list[Any] = tensors) -> None:
        request.infer()

    return run


ENGINES = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


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
        arrays = make_inputs(group["inputs"])
        runs = [ENGINES[given.backend](folder / file, arrays, given.threads) for file in group["files"]]
        done["groups"][str(number)] = time_in_turns(runs, manifest["rounds"], manifest["min_time"])
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
