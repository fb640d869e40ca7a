"""The pages that benchmarks/evidence.py writes, docs/results/evidence_*.md: tables and plots."""

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
    return table(["arm", "learning rate", "strength", *_course_heads(rows)], lines)


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
    return table(["arm", "cut to", *_course_heads(rows)], lines)


def _course_heads(rows: list[dict[str, Any]]) -> list[str]:
    epochs = [f"epoch {number}" for number in range(1, len(rows[0]["after"]))]
    return ["MACs", "rank at 5% error", "before the cut", "after the cut", *epochs]


def final_table(rows: list[dict[str, Any]]) -> str:
    """Compare each arm on final with dense, and with no force at the same cut, sample by sample."""
    groups = grouped([row for row in rows if "final" in row])
    forced = [key for key in groups if key[0] != "no force" and key[1] != DENSE]
    lines = []
    for (arm, name), some in groups.items():
        if (arm, name) == ("no force", DENSE):
            continue
        dense = paired(some, groups.get(("no force", DENSE), []))
        alike = arm == "no force" or name == DENSE
        plain = "" if alike else paired(some, groups.get(("no force", name), []), comparisons=len(forced))
        accuracy = fmean(_hits(row["final"]).float().mean().item() for row in some)
        lines.append([arm, name, len(some), f"{100 * accuracy:.2f}", dense, plain])
    heads = ["arm", "cut to", "seeds", "final", "against dense (95%)", "against no force (95%)"]
    return (
        "Paired on the same samples and seeds; the interval is that of the images, and what a training moves "
        f"by itself is seen by seed. Of {len(forced)} comparisons with no force one in twenty lies outside "
        "its interval by chance; a star marks those that Bonferroni's correction leaves.\n\n"
        + table(heads, lines)
    )


def rank_table(rows: list[dict[str, Any]]) -> str:
    """Show, of every trial, the ranks at 5% error of all, the first and the last layers, and the price.

    The price is against no force at the same learning rate.
    """
    controls = {row["learning_rate"]: row["before"] for row in rows if row["arm"] == "no force"}
    lines, reached = [], []
    for row in sorted(_once(rows), key=lambda row: row["rank_ratio"]):
        ratios = list(row["ranks"].values())
        third = max(len(ratios) // 3, 1)
        lost = row["before"] - controls[row["learning_rate"]]
        lines.append(
            [
                row["arm"],
                f"{row['learning_rate']:g}",
                f"{row['strength']:g}",
                *(f"{fmean(some):.2f}" for some in (ratios, ratios[:third], ratios[-third:])),
                f"{row['output_ratio']:.2f}",
                f"{100 * lost:+.2f}",
            ]
        )
        if fmean(ratios) <= RANKS and lost >= -LOST:
            reached.append(f"{row['arm']} at {row['strength']:g}")
    heads = ["arm", "learning rate", "strength", "all layers", "first third", "last third", "of outputs"]
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

    A ρ of -1 says that the lower the rank, the better; 0 that the rank says nothing. It describes these
    trials, which are no independent draws, so there is no p.
    Source: `scipy.stats.spearmanr`.
    """
    cut = [row for row in rows if row["cut"] != DENSE]
    lines = []
    for said, key in (("of the weights", "rank_ratio"), ("of the outputs", "output_ratio")):
        ranks = [row[key] for row in cut]
        found = [_spearman(ranks, [row["after"][place] for row in cut]) for place in (0, -1)]
        lines.append([said, *found])
    heads = ["mean rank at 5% error", "ρ right after the cut", "ρ recovered"]
    return f"Over the {len(cut)} trials that were cut; -1 would be: the lower, the better.\n\n" + table(
        heads, lines
    )


def _spearman(ranks: list[float], ends: list[float]) -> str:
    if min(ranks) == max(ranks) or min(ends) == max(ends):
        return "all alike"
    return f"{spearmanr(ranks, ends).statistic:+.2f}"


def _without_run(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "run"}  # how it was measured is told once


def _once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row of each training, whose cuts share what is before them."""
    return list({(row["arm"], row["learning_rate"], row["strength"]): row for row in rows}.values())


def paired(
    some: list[dict[str, Any]],
    others: list[dict[str, Any]],
    key: str = "final",
    comparisons: int = 1,
) -> str:
    """Write the difference of two arms, on the same samples and seeds, in points with its 95% interval.

    Seeds that one of them lacks are left out; nothing is written where that are all. The interval is that of
    the images: differences are averaged over the seeds first.

    Args:
        some, others: rows of the two arms, whose `key` says of each sample whether it was right, 1 or 0.
        key: of the step that is compared.
        comparisons: made on one page; a star marks a difference that is told from none among so many, by
            Bonferroni's correction.

    >>> paired([{"seed": 0, "final": "1100"}], [{"seed": 0, "final": "1000"}]).split(" ")[0]
    '+25.00'
    """
    by_seed = {row["seed"]: row for row in others}
    pairs = [(_hits(row[key]), _hits(by_seed[row["seed"]][key])) for row in some if row["seed"] in by_seed]
    if not pairs:
        return ""
    mine, theirs = (torch.stack(side, dim=1) for side in zip(*pairs, strict=True))
    low, high = difference_interval(mine, theirs)
    certain = difference_interval(mine, theirs, 1 - 0.05 / comparisons)
    star = "*" if comparisons > 1 and not certain.low <= 0 <= certain.high else ""
    gaps = (mine - theirs).float().mean(0)
    spread = ", ".join(f"{100 * gap:+.2f}" for gap in gaps.tolist())
    return f"{100 * gaps.mean():+.2f}{star} ({100 * low:+.2f} to {100 * high:+.2f}); by seed {spread}"


def _hits(told: str) -> torch.Tensor:
    return torch.tensor([int(one) for one in told])


def write_page(
    name: str,
    problem: Problem,
    screen: list[dict[str, Any]],
    full: list[dict[str, Any]],
    run: Mapping[str, Any],
    *,
    caveat: str,
    times: Mapping[str, Any],
    planned: int,
    keep: bool,
) -> None:
    """Print the page, and store it with its plots and figures unless it was only tried.

    Args:
        screen, full: the rows of both stages; of the second as many as there are.
        caveat: what a reader must know of the network that all start from.
        times: of the networks that were cut by time, as `time_networks` returns them; perhaps none.
        planned: networks of the second stage.
    """
    ran = {row["arm"] for row in screen}
    absent = ", ".join(arm for arm in ARMS if arm not in ran)
    left = planned - sum("final" in row for row in full)
    sections = [
        f"{problem.model}; {problem.data}. All arms start at the same trained weights and are cut by one "
        "data-aware method, to a share of dense's multiply-accumulates (MACs) or of its time in "
        f"{ENGINES[0]}, as the latency table predicts it. All recover at one learning rate. Dev decides; "
        f"final was read once. Accuracy in percent. {caveat}"
    ]
    if left:
        sections.append(f"**Not finished: {left} of {planned} networks are not trained and read yet.**")
    if full:
        sections += [
            f"## Final\n{final_table(full)}",
            f"## Recovery, on dev\nMean over the seeds.\n\n{course_table(full)}",
            f"![Recovery](evidence_{name}.svg)",
        ]
    if times:
        sections.append(f"## Measured time\n{times_table(times)}")
    sections += [
        "## Is the rank the right target?\nHow the rank before the cut goes with dev accuracy after it, in "
        "the screen: that of the weights, which most forces lower, and that of the outputs, by which the cut "
        f"is made. {rank_use(screen)}",
        "## Ranks at 5% error\nThe screen's trials before the cut: what the force does to the layers, and "
        f"what it costs.\n\n{rank_table(screen)}",
        f"![Ranks by layer](evidence_{name}_ranks.svg)",
        "## The screen, on dev\nTwo trials of every arm; the best four go on, and no force at the learning "
        "rate of the best, so that nothing but the force is compared. One seed: near places are noise. "
        f"Arms that were not run here: {absent or 'none'}.\n\n{screen_table(screen)}",
    ]
    body = "\n\n".join(sections)
    if not keep:
        print(body)
        return
    if full:
        draw_recovery(full, RESULTS / f"evidence_{name}.svg")
    draw_ranks(_once(screen), RESULTS / f"evidence_{name}_ranks.svg")
    stages = {"screen": screen, "full": full}
    figures = {stage: [_without_run(row) for row in rows] for stage, rows in stages.items()}
    store(
        f"evidence_{name}",
        f"Does coordinating filters win? {problem.model}",
        body,
        rounded(figures | {"times": times}),
        run,
    )
