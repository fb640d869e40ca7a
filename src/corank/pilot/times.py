"""The latency table of a trial or a search: measured once, kept in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corank.benchmarks.table import latency_table
from corank.files import write_text
from corank.latency import LatencyTable
from corank.pilot.problem import Problem


def measure_times(problem: Problem, seed: int, work: Path, **terms: Any) -> LatencyTable:
    """Time the splits of the network that everything starts from, or read what was measured before.

    Args:
        problem: its network, and the layers that are kept.
        seed: of the task that the example is from.
        work: the folder where table and times are kept.
        terms: as in `latency_table`.
    """
    path = work / "table.json"
    if path.exists():
        return LatencyTable.from_json(path.read_text(encoding="utf-8"))
    model = (problem.make_start or problem.make_model)().eval()
    example = problem.make_task(seed).example
    table = latency_table(model, example, cache=work / "times", exclude=problem.keep, **terms)
    write_text(path, table.to_json())
    return table
