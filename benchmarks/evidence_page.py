"""The tables and plots of docs/results/evidence.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.record import RESULTS, rounded, store, table
from corank.decision.intervals import difference_interval

DENSE = 1.0


def screen_table(rows: list[dict[str, Any]]) -> str:
    """List every trial of the screen, the best recovered first."""
    lines = [
        [
            row["arm"],
            f"{row['learning_rate']:g}",
            f"{row['strength']:g}",
            f"{row['macs']:.2f}",
            f"{row['rank_ratio']:.2f}",
            f"{100 * row['before']:.2f}",
            *(f"{100 * one:.2f}" for one in row["after"]),
        ]
        for row in sorted(rows, key=lambda row: (row["cut"] == DENSE, -row["after"][-1]))
    ]
    epochs = len(rows[0]["after"]) - 1
    heads = [
        "arm",
        "learning rate",
        "strength",
        "MACs",
        "rank at 5% error",
        "before the cut",
        "after the cut",
    ]
    return table([*heads, *(f"epoch {number + 1}" for number in range(epochs))], lines)


def course_table(rows: list[dict[str, Any]]) -> str:
    """Show the recovery of every arm and cut, mean over the seeds."""
    lines = []
    for (arm, ratio), some in _grouped(rows).items():
        courses = [row["after"] for row in some]
        lines.append(
            [
                arm,
                f"{ratio:g}",
                f"{fmean(row['rank_ratio'] for row in some):.2f}",
                f"{100 * fmean(row['before'] for row in some):.2f}",
                *(f"{100 * fmean(one):.2f}" for one in zip(*courses, strict=True)),
            ]
        )
    epochs = len(rows[0]["after"]) - 1
    heads = ["arm", "MACs", "rank at 5% error", "before the cut", "after the cut"]
    return table([*heads, *(f"epoch {number + 1}" for number in range(epochs))], lines)


def final_table(rows: list[dict[str, Any]]) -> str:
    """Compare each arm on final with dense, and with no force at the same cut, sample by sample."""
    groups = _grouped(rows)
    lines = []
    for (arm, ratio), some in groups.items():
        if ratio == DENSE:
            continue
        dense = _paired(some, groups["no force", DENSE])
        plain = "" if arm == "no force" else _paired(some, groups["no force", ratio])
        accuracy = fmean(_hits(row).float().mean().item() for row in some)
        lines.append([arm, f"{ratio:g}", len(some), f"{100 * accuracy:.2f}", dense, plain])
    return table(["arm", "MACs", "seeds", "final", "against dense (95%)", "against no force (95%)"], lines)


def _grouped(rows: list[dict[str, Any]]) -> dict[tuple[str, float], list[dict[str, Any]]]:
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["arm"], row["cut"]), []).append(row)
    return found


def _hits(row: Mapping[str, Any]) -> torch.Tensor:
    return torch.tensor([int(one) for one in row["final"]])


def _paired(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> str:
    by_seed = {row["seed"]: row for row in others}
    pairs = [(_hits(row), _hits(by_seed[row["seed"]])) for row in some]
    mine, theirs = (torch.cat(side) for side in zip(*pairs, strict=True))
    low, high = difference_interval(mine, theirs)
    gap = (mine.float() - theirs.float()).mean().item()
    spread = ", ".join(f"{100 * (a.float() - b.float()).mean().item():+.2f}" for a, b in pairs)
    return f"{100 * gap:+.2f} ({100 * low:+.2f} to {100 * high:+.2f}); by seed {spread}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy on dev against epochs after the cut, one panel a cut."""
    from matplotlib.figure import Figure

    cuts = sorted({row["cut"] for row in rows if row["cut"] < DENSE}, reverse=True)
    figure = Figure(figsize=(4.2 * len(cuts), 3.4), layout="constrained")
    for number, ratio in enumerate(cuts):
        axes = figure.add_subplot(1, len(cuts), number + 1)
        for (arm, at), some in _grouped(rows).items():
            if at == ratio:
                means = [100 * fmean(one) for one in zip(*(row["after"] for row in some), strict=True)]
                axes.plot(range(len(means)), means, marker="o", markersize=3, label=arm)
        axes.set(title=f"{ratio:g} of the MACs", xlabel="epochs after the cut", ylabel="dev accuracy, %")
    axes.legend(fontsize=7)
    figure.savefig(path, format="svg", metadata={"Date": None})


def write_page(
    network: str,
    model: str,
    data: str,
    screen: list[dict[str, Any]],
    full: list[dict[str, Any]],
    run: Mapping[str, Any],
    *,
    keep: bool,
) -> None:
    """Print the page, and store it with its plot and figures unless it was only tried."""
    body = (
        f"{model}; {data}. All arms start at the same trained weights and are cut by one data-aware method. "
        "Dev decides; final was read once. Accuracy in percent.\n\n"
        "## Final\nPaired on the same samples and seeds.\n\n"
        f"{final_table(full)}\n\n## Recovery, on dev\nMean over the seeds.\n\n{course_table(full)}\n\n"
        f"![Recovery](evidence_{network}.svg)\n\n"
        f"## The screen, on dev\nTwo trials of every arm, one seed.\n\n{screen_table(screen)}"
    )
    if not keep:
        print(body)
        return
    draw(full, RESULTS / f"evidence_{network}.svg")
    figures = rounded({"screen": screen, "full": full})
    store(f"evidence_{network}", f"Does coordinating filters win? {model}", body, figures, run)
