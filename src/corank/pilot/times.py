"""The latency table of a trial or a search: measured once, kept in its folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from corank.benchmarks.table import latency_table
from corank.files import write_text
from corank.inputs import Example
from corank.latency import LatencyTable


def measure_times(
    model: nn.Module, example: Example, work: Path, *, exclude: Iterable[str], **terms: Any
) -> LatencyTable:
    """Time the splits of the network that everything starts from, or read what was measured before.

    Args:
        model, example, exclude, terms: as in `latency_table`.
        work: the folder where table and times are kept.
    """
    path = work / "table.json"
    if path.exists():
        return LatencyTable.from_json(path.read_text(encoding="utf-8"))
    table = latency_table(model, example, cache=work / "times", exclude=exclude, **terms)
    write_text(path, table.to_json())
    return table
