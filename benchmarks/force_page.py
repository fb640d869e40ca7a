"""The page of `force_cost`: its tables, and which targets were met."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.every_kth import ARMS
from benchmarks.record import table
from corank.force import TILE

CHEAPER = 10  # times, than each rival
CHEAP = ("l2", "subspace", "AutoStrength (l2)")


def per_cent(values: dict[str, float]) -> tuple[str, str]:
    return f"{values['median']:.2%}", f"{values['low']:.2%} – {values['high']:.2%}"


def case_tables(found: dict[str, Any]) -> str:
    lines = []
    for name, one in found["rows"].items():
        verdict = "" if one["passed"] is None else ("passed" if one["passed"] else "**missed**")
        target = "" if one["target"] is None else f"≤ {one['target']:.0%}"
        ratios = sorted(one["cheaper_than"].values(), key=lambda ratio: ratio["median"])
        factor = "".join(
            f"{ratio['median']:.1f} ({ratio['low']:.1f} – {ratio['high']:.1f})" for ratio in ratios[:1]
        )
        times = [one["extra_ms"], one["first_step_ms"], one["amortised_ms"]]
        lines.append(
            [
                name,
                *(f"{time:.2f}" for time in times),
                one["period"],
                *per_cent(one["share"]),
                target,
                verdict,
                factor,
            ]
        )
    head = [
        *(
            "force",
            "added, ms",
            "first step, ms",
            "amortised, ms",
            "over steps",
            "of the training step",
            "95%",
        ),
        *("target", "", "times cheaper than the cheapest rival"),
    ]
    other = [[name, f"{one['ms']:.1f}", *per_cent(one["share"])] for name, one in found["rivals"].items()]
    looks = found["rows"]["output"]["looking_ms"]
    return "\n".join(
        [
            f"\n## {found['case']}\nA training step without force: {found['whole_ms']:.0f} ms, of which "
            f"`optimizer.step()` {found['plain_ms']:.2f} ms; medians of {found['rounds']} rounds."
            + (f" Measured again by {found['again']}." if "again" in found else "")
            + "\n",
            table(head, lines),
            f"\nOf `output`, {looks:.2f} ms a step are spent in the forward pass, on the covariances.\n",
            table(["rival, one application", "added, ms", "of the training step", "95%"], other),
            "",
            verdict_on_rivals(found),
        ]
    )


def verdict_on_rivals(found: dict[str, Any]) -> str:
    """Say whether the cheap forces are ten times cheaper than each rival, and what the others are."""
    least = {
        name: min((ratio["median"], rival) for rival, ratio in one["cheaper_than"].items())
        for name, one in found["rows"].items()
        if one["cheaper_than"]
    }
    verdicts = [
        f"{name} {ratio:.1f} times, {'passed' if ratio >= CHEAPER else '**missed**'} ({rival})"
        for name, (ratio, rival) in least.items()
        if name in CHEAP
    ]
    others = [f"{name} {ratio:.1f}" for name, (ratio, _) in least.items() if name not in CHEAP]
    short = [name for name, (ratio, _) in least.items() if name not in CHEAP and ratio < CHEAPER]
    plain = f" Not {CHEAPER} times cheaper are {', '.join(short)}." if short else ""
    return (
        f"Amortised, the forces that may take no more than 3% of a training step are to be at least {CHEAPER}"
        f" times cheaper than one application of each rival; against the cheapest of them: "
        f"{'; '.join(verdicts)}. `subspace` acts at every fourth step by default, as a rival could too; at "
        f"every step it is the row `subspace, every=1`. For the others no such line was drawn, since a force "
        f"between all pairs may take up to 25% of a step; they are cheaper than the cheapest rival by these "
        f"factors: {', '.join(others)}.{plain}"
    )


def memory_text(found: dict[str, Any]) -> str:
    numbers = dict(found["memory"])
    layer, tile = numbers.pop("largest_layer"), numbers.pop("tile")
    lines = []
    for name, one in numbers.items():
        extra = one["peak"] - one["result"]
        verdict = "passed" if extra <= layer + tile else "**missed**"
        sizes = [f"{size / 1e6:.2f}" for size in (one["peak"], one["result"], extra)]
        lines.append([name, *sizes, f"{extra / layer:.2f}", verdict])
    head = ["force", "peak, MB", "of it the result, MB", "beyond it, MB", "of the largest layer", ""]
    return (
        f"Of one forced step on {found['case']}, a usual one: the most that torch holds more than before, "
        "allocated less freed, by the memory events of its profiler (what the BLAS sets aside is not among "
        "them). l2, subspace and output are added in place, the others make a tensor as large as the layer, "
        "one layer or one batch of small layers at a time. The limit beyond that result is the largest layer "
        f"({layer / 1e6:.2f} MB) plus one tile of {TILE} filters at 4 bytes a weight ({tile / 1e6:.2f} MB), "
        "although what is computed in float64 takes 8.\n\n" + table(head, lines)
    )


def every_text(found: dict[str, list[dict[str, float]]], epochs: int) -> str:
    lines, used = [], {one["kind"]: one["strength"] for one in ARMS.values() if one is not None}
    strengths = ", ".join(f"{kind} of strength {strength}" for kind, strength in used.items())
    for name, runs in found.items():
        columns = [[run[key] for run in runs] for key in ("accuracy", "rank_ratio")]
        lines.append(
            [name]
            + [
                f"{statistics.fmean(one):.3f} ({', '.join(f'{value:.3f}' for value in one)})"
                for one in columns
            ]
        )
    return (
        f"The digits' VGG, {epochs} epochs from random weights, {strengths}, seeds 0 to "
        f"{len(runs) - 1}: accuracy on the 287 dev images (one image is 0.003) and mean rank ratio of the "
        "convolutions at 95% of the energy.\n\n"
        + table(["force", "dev accuracy, mean (each seed)", "rank ratio"], lines)
    )


def width_table(rows: list[dict[str, float]]) -> str:
    columns = [key for key in rows[0] if key not in ("n", "d")]
    cells = [[f"{one['n']} × {one['d']}", *(f"{one[key]:.3g}" for key in columns)] for one in rows]
    return (
        "One layer, N filters of 9 N weights, at most 4608. `l2` is `corank.force.l2_force`, in float64; `l2 "
        "in place` is what an optimizer step does. Operations counted: l2 6 N·D, in place 8 N·D, l1 3 N²·D "
        "(two products of 2 N²·D less what symmetry saves).\n\n" + table(["N × D", *columns], cells)
    )


def first(data: dict[str, Any]) -> str:
    """Say where the rest comes from, if one network was measured again."""
    return f" What does not say otherwise is from {data['first']}." if "first" in data else ""


def page(data: dict[str, Any], load: float) -> str:
    """Write all sections."""
    tables = "\n".join(map(case_tables, data["cases"]))
    memories = "\n\n".join(map(memory_text, data["cases"]))
    return f"""Time that a force adds to `optimizer.step()` (SGD with momentum, all convolutions forced), over
the time of the whole training step: forward, backward, step. Random weights and inputs, so that `subspace`
and `output` need the ranks of a random layer, the highest there are (85% of the energy). In every round each
row is timed once, and one whole step without force, in a random order that the next round reverses; the
caches are filled with other data before each. *Added* is what a usual step adds, *first step* the whole step
in which subspaces, ranks and the record for `stats()` are due; *amortised* spreads what that adds over the
steps between two of them. Shares are medians over rounds with a 95% bootstrap interval over pairs of rounds.
{data["pat"]} The load average was {load:.1f} before the start;
on a machine that others use, trust the shares more than the times.{first(data)}
{tables}

## Peak memory
{memories}

## Growth with width
{width_table(data["widths"])}

## At every k-th step, k times as strong
`subspace` acts at every fourth step by default.
{every_text(data["every_kth"], data["every_epochs"])}"""
