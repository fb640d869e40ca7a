"""`corank tune` against random search and the fixed settings, on digits, at equal trial-epochs.

The search may give trials up, the others may not: they get as many whole trials as the search's epochs pay
for. Each is judged by the area that its front covers on dev: between the cost of the dense network and none,
above a floor of accuracy. The fixed settings are a cut without force at the default learning rates, at depths
spread evenly over the space. `--seeds` takes some, so that processes of one thread may share them out.

    OMP_NUM_THREADS=1 python -m benchmarks.search
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna

from benchmarks.record import describe_run, kept, rounded, store, table
from corank.pilot.digits import digits
from corank.pilot.options import TrialOptions
from corank.tuning import Space, tune

RUNS = Path(__file__).resolve().parents[1] / "runs" / "search"
SEEDS = (0, 1, 2)
FLOOR = 0.8  # accuracy below which a trial covers nothing
OPTIONS = TrialOptions(shared=2, before_cut=1, after_cut=2, multiple=4)
SPACE = Space(cut=(0.03, 0.5))
WAYS = {"tune": "`corank tune`", "random": "random search", "fixed": "fixed settings"}


class Sweep(optuna.samplers.RandomSampler):
    """Spreads what is not fixed, the cut, evenly over its range, one place a trial."""

    def __init__(self, trials: int) -> None:
        super().__init__()
        self._trials = trials

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> float:
        """Return the place of this trial."""
        share = trial.number / max(self._trials - 1, 1)
        return float(distribution.low + share * (distribution.high - distribution.low))


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
    """Run the search, then the others for as many epochs."""
    problem = digits()
    run = partial(tune, problem, progress=False)
    found = run(folder / f"tune{seed}", options, SPACE, trials=trials)
    epochs = spent(found, options)
    whole = max(epochs // (options.before_cut + options.after_cut), 1)
    others: Callable[..., dict[str, Any]] = partial(run, trials=whole, give_up=False)
    chance = others(
        folder / f"random{seed}",
        options,
        SPACE,
        sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed),
    )
    fixed = replace(
        SPACE,
        kinds=("none",),
        learning_rate_before=(options.learning_rate_before,) * 2,
        learning_rate_after=(options.learning_rate_after,) * 2,
    )
    swept = others(folder / f"fixed{seed}", options, fixed, sampler=lambda _: Sweep(whole))
    results = {"tune": found, "random": chance, "fixed": swept}
    return {
        "seed": seed,
        "epochs": {name: spent(one, options) for name, one in results.items()},
        "trials": {name: len(one["trials"]) for name, one in results.items()},
        "area": {name: covered(finished(one)) for name, one in results.items()},
        "dense": {name: one["dense"] for name, one in results.items()},
    }


def page(rows: list[dict[str, Any]]) -> str:
    """Write the table and say who won."""
    lines = [
        [
            row["seed"],
            *(" / ".join(str(row[key][name]) for name in WAYS) for key in ("trials", "epochs")),
            *(f"{row['area'][name]:.4f}" for name in WAYS),
        ]
        for row in rows
    ]
    means = {name: fmean(row["area"][name] for row in rows) for name in WAYS}
    told = ", ".join(f"{means[name]:.4f} by {said}" for name, said in WAYS.items())
    wins = {
        name: sum(row["area"]["tune"] > row["area"][name] for row in rows) for name in WAYS if name != "tune"
    }
    ahead = " and ".join(f"of {WAYS[name]} in {count} of {len(rows)} seeds" for name, count in wins.items())
    heads = ["seed", "trials of each", "epochs of each", *WAYS.values()]
    return (
        "Digits and the pilot's VGG; the share of the area that the front covers on dev, from "
        f"{FLOOR:.0%} to 100% accuracy and from dense's multiply-accumulates to none; more is better. The "
        "others may use as many epochs as the search, which gives trials up.\n\n"
        f"{table(heads, lines)}\n\nMean: {told}. The search was ahead {ahead}."
    )


def main() -> None:
    """Compare on every seed and store the page once all are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--trials", type=int, default=30)
    given = parser.parse_args()
    folder = RUNS / str(given.trials)
    for seed in given.seeds:
        options = replace(OPTIONS, seeds=(seed,))
        kept(folder / f"{seed}.json", f"seed {seed}", partial(compare, seed, given.trials, options, folder))
    paths = [folder / f"{seed}.json" for seed in SEEDS]
    if all(path.exists() for path in paths):
        rows = [json.loads(path.read_text()) for path in paths]
        store("search", "Does the search pay?", page(rows), rounded(rows), describe_run(SEEDS[0]))


if __name__ == "__main__":
    main()
