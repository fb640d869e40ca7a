"""The latency table of a trial or a search: measured once, kept in its folder."""

from __future__ import annotations

from pathlib import Path

from corank.benchmarks.table import latency_table
from corank.files import write_text
from corank.latency import LatencyTable
from corank.pilot.problem import Problem


def measure_times(
    problem: Problem,
    work: Path,
    *,
    backend: str,
    time_budget: float,
    threads: int | None,
    seed: int,
    progress: bool,
) -> LatencyTable:
    """Time the splits of the network that everything starts from, or read what was measured before.

    Args:
        problem: the task and the network.
        work: the folder where table and times are kept.
        backend, time_budget, threads, progress: as in `latency_table`.
        seed: of the task that gives the example.
    """
    path = work / "table.json"
    if path.exists():
        return LatencyTable.from_json(path.read_text(encoding="utf-8"))
    table = latency_table(
        (problem.make_start or problem.make_model)().eval(),
        problem.make_task(seed).example,
        backend=backend,
        threads=threads,
        time_budget=time_budget,
        cache=work / "times",
        exclude=problem.keep,
        progress=progress,
    )
    write_text(path, table.to_json())
    return table
