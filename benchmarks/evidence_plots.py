"""The plots of benchmarks/evidence.py: recovery after a cut, and the ranks of the layers before it."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.evidence_cuts import DENSE


def draw_recovery(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy on dev against epochs after the cut, one panel a cut."""
    from matplotlib.figure import Figure

    cuts = list(dict.fromkeys(row["cut"] for row in rows if row["cut"] != DENSE))
    figure = Figure(figsize=(4.2 * len(cuts), 3.4), layout="constrained")
    for number, name in enumerate(cuts):
        axes = figure.add_subplot(1, len(cuts), number + 1)
        for (arm, at), some in grouped(rows).items():
            if at == name:
                means = [100 * fmean(one) for one in zip(*(row["after"] for row in some), strict=True)]
                axes.plot(range(len(means)), means, marker="o", markersize=3, label=arm)
        axes.set(title=f"cut to {name}", xlabel="epochs after the cut", ylabel="dev accuracy, %")
    axes.legend(fontsize=7)
    figure.savefig(path, format="svg", metadata={"Date": None})


def draw_ranks(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw each training's rank ratios at 5% error along the network's layers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for row in rows:
        ratios = list(row["ranks"].values())
        label = f"{row['arm']}, {row['strength']:g}"
        axes.plot(range(1, len(ratios) + 1), ratios, marker="o", markersize=2, linewidth=1, label=label)
    axes.set(xlabel="convolution, from input to output", ylabel="rank at 5% error / full", ylim=(0, 1.02))
    axes.legend(fontsize=6, ncols=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, format="svg", metadata={"Date": None})


def grouped(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Group rows by arm and cut."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["arm"], row["cut"]), []).append(row)
    return found
