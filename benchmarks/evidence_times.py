"""The time that the arms of benchmarks/evidence.py are cut to, and what their networks then take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import corank
from corank.benchmarks import Timing
from corank.benchmarks.machine import usable_threads
from corank.files import write_text
from corank.latency import LatencyTable

ENGINES = ("onnxruntime", "torch")  # the cut is planned for the first
SECONDS = 120  # for the table
ROUNDS = 60


def measure_table(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Measure and keep the latency table that the cuts by time are planned from; on an idle machine.

    Raises: SystemExit, where there is one: all cuts must be planned from the same.
    """
    if path.exists():
        raise SystemExit(f"{path} is there already. All cuts by time must be planned from one table.")
    threads = usable_threads()
    made = corank.latency_table(model, example, backend=ENGINES[0], threads=threads, time_budget=SECONDS)
    write_text(path, made.to_json())


def read_table(path: Path) -> LatencyTable:
    """Read the latency table again.

    Raises: SystemExit, where it was not measured: a training that runs beside would spoil it.
    """
    if not path.exists():
        raise SystemExit(f"{path} is not there: run the stage `table` first, on an idle machine.")
    return LatencyTable.from_json(path.read_text())


def time_networks(networks: Mapping[str, nn.Module], example: torch.Tensor, threads: int) -> dict[str, Any]:
    """Return how fast each network is beside the first, by engine, timed in turns in one run."""
    result = corank.bench(networks, example, backends=ENGINES, threads=threads, rounds=ROUNDS, memory=False)
    return {
        name: {engine: _figures(result.row(name, engine)) for engine in ENGINES}
        for name in list(networks)[1:]
    }


def _figures(row: Timing) -> dict[str, Any]:
    return {"speedup": row.speedup, "ci": list(row.speedup_ci)}
