"""`corank tune` against random search and the fixed settings, on digits, at equal trial-epochs.

The search may give trials up, random search may not: it gets as many whole trials as the search's epochs pay
for. Each is judged by the area that its front covers on dev: between the cost of the dense network and none,
above a floor of accuracy. The fixed settings are the two trials that the search begins with.

    OMP_NUM_THREADS=1 python -m benchmarks.search
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna

from benchmarks.record import describe_run, rounded, store, table
from corank.pilot.digits import digits
from corank.pilot.options import TrialOptions
from corank.tuning import Space, search, tune

RUNS = Path(__file__).resolve().parents[1] / "runs" / "search"
FLOOR = 0.8  # accuracy below which a trial covers nothing
OPTIONS = TrialOptions(shared=2, before_cut=2, after_cut=3, multiple=4)
SPACE = Space(cut=(0.03, 0.5))


@contextmanager
def random_search() -> Iterator[None]:
    """Let `tune` draw at random and finish every trial."""
    sampler, hopeless = optuna.samplers.TPESampler, search.is_hopeless
    optuna.samplers.TPESampler, search.is_hopeless = optuna.samplers.RandomSampler, lambda *_: False
    try:
        yield
    finally:
        optuna.samplers.TPESampler, search.is_hopeless = sampler, hopeless


def covered(points: Iterable[tuple[float, float]]) -> float:
    """Return the share of the area left of cost 1 and above the floor that (score, cost) points dominate.

    >>> covered([(1.0, 0.5)])
    0.5
    >>> round(covered([(1.0, 0.5), (0.9, 0.25)]), 3)  # half the height for another quarter of the width
    0.625
    """
    area, height = 0.0, FLOOR
    for score, cost in sorted(points, key=lambda one: one[1]):  # the cheapest first
        if score > height:
            area += (score - height) * (1 - cost)
            height = score
    return area / (1 - FLOOR)


def finished(result: dict[str, Any]) -> list[tuple[float, float]]:
    """Return the (score, cost) of every finished trial."""
    return [(one["score"], one["cost"]) for one in result["trials"] if one["state"] == "complete"]


def spent(result: dict[str, Any], options: TrialOptions) -> int:
    """Return the epochs of all trials; those before the cut were always trained."""
    return sum(options.before_cut + len(one["scores"]) for one in result["trials"])


def compare(seed: int, trials: int, options: TrialOptions, folder: Path) -> dict[str, Any]:
    """Run the search, then random search for as many epochs."""
    problem = digits()
    found = tune(problem, folder / f"tune{seed}", options, SPACE, trials=trials, progress=False)
    epochs = spent(found, options)
    whole = max(epochs // (options.before_cut + options.after_cut), 1)
    with random_search():
        chance = tune(problem, folder / f"random{seed}", options, SPACE, trials=whole, progress=False)
    return {
        "seed": seed,
        "epochs": [epochs, spent(chance, options)],
        "trials": [len(found["trials"]), len(chance["trials"])],
        "tune": covered(finished(found)),
        "random": covered(finished(chance)),
        "fixed": covered(finished(found)[:2]),
    }


def page(rows: list[dict[str, Any]]) -> str:
    """Write the table and say who won."""
    lines = [
        [
            row["seed"],
            " / ".join(map(str, row["trials"])),
            " / ".join(map(str, row["epochs"])),
            *(f"{row[name]:.4f}" for name in ("tune", "random", "fixed")),
        ]
        for row in rows
    ]
    means = {name: fmean(row[name] for row in rows) for name in ("tune", "random", "fixed")}
    wins = sum(row["tune"] > row["random"] for row in rows)
    heads = ["seed", "trials, ours / random", "epochs, ours / random", "`corank tune`", "random", "fixed"]
    return (
        "Digits and the pilot's VGG; the share of the area that the front covers on dev, from "
        f"{FLOOR:.0%} to 100% accuracy and from dense's multiply-accumulates to none; more is better.\n\n"
        f"{table(heads, lines)}\n\n"
        f"Mean: {means['tune']:.4f} by `corank tune`, {means['random']:.4f} by random search, "
        f"{means['fixed']:.4f} by the fixed settings. The search was ahead of random search in {wins} of "
        f"{len(rows)} seeds."
    )


def main() -> None:
    """Compare on every seed and store the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=14)
    given = parser.parse_args()
    rows = []
    for seed in range(given.seeds):
        options = replace(OPTIONS, seeds=(seed,))
        rows.append(compare(seed, given.trials, options, RUNS / str(given.trials)))
    store("search", "Does the search pay?", page(rows), rounded(rows), describe_run(0))


if __name__ == "__main__":
    main()
