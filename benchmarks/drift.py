"""Does a cut make a network brittle? The arms of a finished trial, on final images that were made worse.

Seven corruptions at five strengths, and inputs that show nothing, over part of the final images. It reads the
networks that benchmarks/real_network.py left in runs/:

    python -m benchmarks.real_network 56
    python -m benchmarks.drift 56
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from statistics import fmean
from typing import Any

import corank
from benchmarks.real_network import RUNS, make_problem
from benchmarks.record import describe_run, rounded, say, store, table
from corank.decision.policy import Policy
from corank.pilot.drift import measure_drift
from corank.pilot.options import ARMS
from corank.pilot.scores import measure
from corank.pilot.tables import label

BATCH = 128


def measured(depth: int, images: int) -> dict[str, Any]:
    """Return the samples, what each arm reaches on them, and what `measure_drift` gives of each but dense."""
    problem = make_problem(depth, None)
    task = problem.make_task(0)
    task = replace(task, final=list(islice(task.final, images // BATCH)))
    folder = RUNS / f"resnet{depth}" / "models"
    models = {arm: corank.load(folder / f"{arm}.safetensors", problem.make_model).eval() for arm in ARMS}
    clean = {arm: next(iter(measure(model, task, "final").values())) for arm, model in models.items()}
    say("corruptions")
    return {
        "samples": images // BATCH * BATCH,
        "clean": {arm: one.value for arm, one in clean.items()},
        "drift": measure_drift(models, clean, task, corruptions=True),
    }


def body(found: Mapping[str, Any], limit: float) -> str:
    """Write the page: each corruption over its strengths, and what shows nothing."""
    arms = list(found["drift"])
    first = found["drift"][arms[0]]
    lines = [
        f"On {found['samples']:,} final images: what each arm loses more than dense when images get worse "
        "(change of the arm minus change of dense, in points of accuracy, mean of five strengths, with the "
        "95% interval over images). On clean images: "
        + ", ".join(f"{label(arm)} {100 * value:.2f}%" for arm, value in found["clean"].items())
        + ".",
        "",
    ]
    rows = []
    for place, kind in enumerate(one["name"] for one in first["judged"]):
        dense = [row["reference"] for row in first["corruptions"] if row["name"] == kind]
        judged = [found["drift"][arm]["judged"][place] for arm in arms]
        rows.append(
            [kind, f"{100 * fmean(dense):.1f}%", *(_points(one["extra"], one["ci"]) for one in judged)]
        )
    lines += [table(["corruption", "dense", *map(label, arms)], rows), ""]
    for arm in arms:
        judged = found["drift"][arm]["judged"]
        worse = [one["name"] for one in judged if one["ci"][1] < 0]
        better = [one["name"] for one in judged if one["ci"][0] > 0]
        beyond = [one["name"] for one in judged if one["ci"][1] < -limit]
        lines.append(
            f"- {label(arm)}: more brittle than dense under {', '.join(worse) or 'none'}; less under "
            f"{', '.join(better) or 'none'}; by more than the default policy's {100 * limit:g} points for "
            f"certain under {', '.join(beyond) or 'none'}."
        )
    unknown = [
        [
            row["name"],
            f"{100 * row['reference']:.1f}%",
            f"{row['reference_auroc']:.3f}",
            *(
                f"{100 * one['confidence']:.1f}%, {one['auroc']:.3f}"
                for one in (found["drift"][arm]["unknown"][place] for arm in arms)
            ),
        ]
        for place, row in enumerate(first["unknown"])
    ]
    head = ["input", "dense is sure", "AUROC", *(f"{label(arm)}: sure, AUROC" for arm in arms)]
    lines += [
        "",
        "Inputs that show nothing, and how well confidence tells them from images:",
        "",
        table(head, unknown),
    ]
    return "\n".join(lines)


def _points(extra: float, ci: tuple[float, float]) -> str:
    return f"{100 * extra:+.2f} ({100 * ci[0]:+.2f} to {100 * ci[1]:+.2f})"


def main() -> None:
    """Measure the arms of one trial and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("depth", type=int, choices=(20, 56))
    parser.add_argument("--images", type=int, default=2048, help="of the final part, the first")
    given = parser.parse_args()
    found = measured(given.depth, given.images)
    limit = Policy().drift
    assert limit is not None  # the default policy judges drift
    title = f"ResNet-{given.depth} when images get worse: is the cut network brittle?"
    store(f"drift_resnet{given.depth}", title, body(found, limit), rounded(found), describe_run(0))


if __name__ == "__main__":
    main()
