"""The tables and plots of docs/results/evidence.md."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import torch
from scipy.stats import spearmanr

from benchmarks.evidence_arms import ARMS
from benchmarks.evidence_cuts import DENSE
from benchmarks.evidence_plots import draw_ranks, draw_recovery, grouped
from benchmarks.evidence_times import ENGINES
from benchmarks.record import RESULTS, interval, rounded, store, table
from corank.decision.intervals import difference_interval
from corank.pilot.problem import Problem

RANKS, LOST = 0.31, 0.003  # the goal: this share of the ranks at 5% error, for no more accuracy


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
    for (arm, name), some in grouped(rows).items():
        courses = [row["after"] for row in some]
        lines.append(
            [
                arm,
                name,
                f"{fmean(row['macs'] for row in some):.2f}",
                f"{fmean(row['rank_ratio'] for row in some):.2f}",
                f"{100 * fmean(row['before'] for row in some):.2f}",
                *(f"{100 * fmean(one):.2f}" for one in zip(*courses, strict=True)),
            ]
        )
    epochs = len(rows[0]["after"]) - 1
    heads = ["arm", "cut to", "MACs", "rank at 5% error", "before the cut", "after the cut"]
    return table([*heads, *(f"epoch {number + 1}" for number in range(epochs))], lines)


def final_table(rows: list[dict[str, Any]]) -> str:
    """Compare each arm on final with dense, and with no force at the same cut, sample by sample."""
    groups = grouped([row for row in rows if "final" in row])
    lines = []
    for (arm, name), some in groups.items():
        if (arm, name) == ("no force", DENSE):
            continue
        dense = paired(some, groups.get(("no force", DENSE), []))
        alike = arm == "no force" or name == DENSE
        plain = "" if alike else paired(some, groups.get(("no force", name), []))
        accuracy = fmean(_hits(row["final"]).float().mean().item() for row in some)
        lines.append([arm, name, len(some), f"{100 * accuracy:.2f}", dense, plain])
    return table(["arm", "cut to", "seeds", "final", "against dense (95%)", "against no force (95%)"], lines)


def rank_table(rows: list[dict[str, Any]]) -> str:
    """Show, of every trial, the ranks at 5% error of all, the first and the last layers, and the price."""
    control = max(row["before"] for row in rows if row["arm"] == "no force")
    lines, reached = [], []
    for row in sorted(_once(rows), key=lambda row: row["rank_ratio"]):
        ratios = list(row["ranks"].values())
        third = max(len(ratios) // 3, 1)
        lost = row["before"] - control
        lines.append(
            [
                row["arm"],
                f"{row['learning_rate']:g}",
                f"{row['strength']:g}",
                *(f"{fmean(some):.2f}" for some in (ratios, ratios[:third], ratios[-third:])),
                f"{100 * lost:+.2f}",
            ]
        )
        if fmean(ratios) <= RANKS and lost >= -LOST:
            reached.append(f"{row['arm']} at {row['strength']:g}")
    heads = ["arm", "learning rate", "strength", "mean of the layers", "first third", "last third"]
    return (
        table([*heads, "dev before the cut, against no force"], lines)
        + f"\n\nGoal, a mean of at most {RANKS} for at most {100 * LOST:g} points: "
        + (f"reached by {', '.join(reached)}." if reached else "**missed** by all.")
    )


def times_table(times: Mapping[str, Any]) -> str:
    """List how fast each network is beside dense."""
    engines = list(next(iter(times.values())))
    lines = [[name, *(interval(found[engine]) for engine in engines)] for name, found in times.items()]
    told = "The networks cut by time: speedup over dense, one seed, timed in turns in one run (95%)."
    return f"{told}\n\n{table(['arm', *engines], lines)}"


def rank_use(rows: list[dict[str, Any]]) -> str:
    """Say by Spearman's ρ whether the trials of a lower rank end higher, right after the cut and recovered.

    A ρ of -1 says that the lower the rank, the better; 0 that the rank says nothing. p is that of chance.
    Source: `scipy.stats.spearmanr`.
    """
    cut = [row for row in rows if row["cut"] != DENSE]
    ranks = [row["rank_ratio"] for row in cut]
    said = []
    for when, place in (("right after the cut", 0), ("recovered", -1)):
        ends = [row["after"][place] for row in cut]
        if min(ranks) == max(ranks) or min(ends) == max(ends):
            said.append(f"{when} all are alike")
            continue
        found = spearmanr(ranks, ends)
        said.append(f"{when} ρ = {found.statistic:+.2f} (p = {found.pvalue:.2g})")
    return f"Spearman's over {len(cut)} trials: {', '.join(said)}; -1 would be: the lower, the better."


def _once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row of each training, whose cuts share what is before them."""
    return list({(row["arm"], row["learning_rate"], row["strength"]): row for row in rows}.values())


def paired(some: list[dict[str, Any]], others: list[dict[str, Any]], key: str = "final") -> str:
    """Write the difference of two arms, on the same samples and seeds, in points with its 95% interval.

    Seeds that one of them lacks are left out; nothing is written where that are all.

    Args:
        some, others: rows of the two arms, whose `key` says of each sample whether it was right, 1 or 0.
        key: of the step that is compared.

    >>> paired([{"seed": 0, "final": "1100"}], [{"seed": 0, "final": "1000"}]).split(" ")[0]
    '+25.00'
    """
    by_seed = {row["seed"]: row for row in others}
    pairs = [(_hits(row[key]), _hits(by_seed[row["seed"]][key])) for row in some if row["seed"] in by_seed]
    if not pairs:
        return ""
    mine, theirs = (torch.cat(side) for side in zip(*pairs, strict=True))
    low, high = difference_interval(mine, theirs)
    gap = (mine.float() - theirs.float()).mean().item()
    spread = ", ".join(f"{100 * (a.float() - b.float()).mean().item():+.2f}" for a, b in pairs)
    return f"{100 * gap:+.2f} ({100 * low:+.2f} to {100 * high:+.2f}); by seed {spread}"


def _hits(told: str) -> torch.Tensor:
    return torch.tensor([int(one) for one in told])


def write_page(
    name: str,
    problem: Problem,
    screen: list[dict[str, Any]],
    full: list[dict[str, Any]],
    run: Mapping[str, Any],
    *,
    times: Mapping[str, Any],
    left: int,
    keep: bool,
) -> None:
    """Print the page, and store it with its plots and figures unless it was only tried.

    Args:
        screen, full: the rows of both stages; of the second as many as there are.
        times: of the networks that were cut by time, as `time_networks` returns them; perhaps none.
        left: networks of the second stage that are not trained yet.
    """
    ran = {row["arm"] for row in screen}
    absent = ", ".join(arm for arm in ARMS if arm not in ran)
    body = (
        f"{problem.model}; {problem.data}. All arms start at the same trained weights and are cut by one "
        "data-aware method, to a share of dense's multiply-accumulates (MACs) or of its time in "
        f"{ENGINES[0]}, as the latency table predicts it. Dev decides; final was read once. Accuracy in "
        "percent.\n\n"
        + (
            f"**Not finished: {left} of {left + len(full)} networks are not trained yet.**\n\n"
            if left
            else ""
        )
        + (
            f"## Final\nPaired on the same samples and seeds.\n\n{final_table(full)}\n\n"
            f"## Recovery, on dev\nMean over the seeds.\n\n{course_table(full)}\n\n"
            f"![Recovery](evidence_{name}.svg)\n\n"
            if full
            else ""
        )
        + (f"## Measured time\n{times_table(times)}\n\n" if times else "")
        + "## Is the rank the right target?\nOver the screen's trials, how the mean rank at 5% error before "
        f"the cut goes with accuracy after it. {rank_use(screen)}\n\n"
        "## Ranks at 5% error\nThe screen's trials before the cut: what the force does to the layers, and "
        f"what it costs.\n\n{rank_table(screen)}\n\n![Ranks by layer](evidence_{name}_ranks.svg)\n\n"
        f"## The screen, on dev\nTwo trials of every arm, one seed. Arms that were not run here: "
        f"{absent or 'none'}.\n\n{screen_table(screen)}"
    )
    if not keep:
        print(body)
        return
    if full:
        draw_recovery(full, RESULTS / f"evidence_{name}.svg")
    draw_ranks(_once(screen), RESULTS / f"evidence_{name}_ranks.svg")
    figures = rounded({"screen": screen, "full": full, "times": times})
    store(f"evidence_{name}", f"Does coordinating filters win? {problem.model}", body, figures, run)
