"""What a search found: tune.json, the front and what mattered as pictures, a recipe for each of the front."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from corank.extras import import_extra
from corank.files import replacing, write_text
from corank.pilot.options import TrialOptions
from corank.tuning.space import Space, options_at, recipe

SCHEMA = 2
_UNNAMED = (
    "# corank pilot --recipe this file, with data, model, weights, keep and batch_size as in the search\n"
)
ENOUGH = 20  # finished trials before a setting can be said to matter
_GOOD = 5  # of them that PED-ANOVA must have to call good, as Optuna's documentation wants


class Aim(NamedTuple):
    """The metric that decides, and 1 where higher is better, else -1."""

    metric: str
    sign: float


def write_result(
    out: Path,
    study: Any,
    identity: Mapping[str, Any],
    space: Space,
    options: TrialOptions,
    dense: float | None,
    aim: Aim,
    named: Mapping[str, Any],
    optuna: ModuleType,
) -> dict[str, Any]:
    """Write everything down and return what `tune.json` holds.

    Args:
        out: the folder.
        study: Optuna's, with its trials.
        identity: of the search.
        space, options: what was searched.
        dense: what a dense network reached on dev in the same epochs; None where that is not known yet.
        aim: of the search; the study's values have its sign.
        named: how a recipe names the task and the network.
        optuna: the package.
    """
    front = sorted(one.number for one in study.best_trials)
    trials = [one for one in study.get_trials(deepcopy=False) if one.state.name != "WAITING"]
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "identity": dict(identity),
        "metric": aim.metric,
        "higher_is_better": aim.sign > 0,
        "cost": space.cost,
        "dense": dense,
        "trials": [_row(one, aim.sign) for one in trials],
        "front": front,
        "mattered": _mattered(study, optuna),
    }
    for old in (out / "recipes").glob("*.toml"):  # of trials that have left the front
        if old.stem not in map(str, front):
            old.unlink()
    for number in front:
        found = options_at(study.trials[number].params, space, options)
        write_text(out / "recipes" / f"{number}.toml", ("" if named else _UNNAMED) + recipe(found, named))
    write_text(out / "tune.json", json.dumps(result, indent=1))
    draw_front(result, out / "front.svg")
    draw_mattered(result, out / "mattered.svg")
    return result


def _row(trial: Any, sign: float) -> dict[str, Any]:
    score, cost = trial.values or (None, trial.user_attrs.get("cost"))
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "settings": dict(trial.params),
        "score": None if score is None else sign * score,
        "cost": cost,
        "scores": [sign * one for one in trial.user_attrs.get("scores", [])],
        "failed": trial.user_attrs.get("failed"),
    }


def _mattered(study: Any, optuna: ModuleType) -> dict[str, dict[str, float]]:
    """Return for score and cost which share of what tells good trials from others lies in each setting."""
    complete = [one for one in study.trials if one.state.name == "COMPLETE"]
    if len(complete) < ENOUGH:
        return {}
    found: dict[str, dict[str, float]] = {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator
    # the evaluator looks for low values
    for name, target in (("score", lambda one: -one.values[0]), ("cost", lambda one: one.values[1])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = optuna.importance.get_param_importances(
                study, evaluator=evaluator(target_quantile=max(0.1, _GOOD / len(complete))), target=target
            )
        found[name] = {key: float(share) for key, share in shares.items()}
    return found


def front_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the trials of the front, the cheapest first."""
    found = [one for one in result["trials"] if one["number"] in result["front"]]
    return sorted(found, key=lambda one: one["cost"])


def draw_front(result: Mapping[str, Any], path: Path) -> None:
    """Draw every finished trial, score against cost, and the front among them, by the numbers of trials."""
    complete = [one for one in result["trials"] if one["state"] == "complete"]
    best = front_of(result)

    def paint(axes: Any) -> None:
        for forced, label, marker in ((False, "without force", "o"), (True, "with force", "^")):
            some = [one for one in complete if (one["settings"]["kind"] != "none") == forced]
            axes.plot([x["cost"] for x in some], [x["score"] for x in some], marker, label=label, alpha=0.6)
        costs, scores = [one["cost"] for one in best], [one["score"] for one in best]
        axes.step(costs, scores, where="post", label="front", color="black")
        for one in best:
            place = (one["cost"], one["score"])
            axes.annotate(str(one["number"]), place, xytext=(4, -10), textcoords="offset points")
        if result["dense"] is not None:
            axes.axhline(result["dense"], linestyle=":", color="grey", label="dense, same epochs")
        axes.set_xlabel(f"{result['cost']}, share of dense")
        better = "higher" if result["higher_is_better"] else "lower"
        axes.set_ylabel(f"{result['metric']} on dev, {better} is better")
        axes.legend()

    _draw(path, paint)


def draw_mattered(result: Mapping[str, Any], path: Path) -> None:
    """Draw which settings mattered, for score and cost."""
    found = result["mattered"]
    finished = sum(one["state"] == "complete" for one in result["trials"])
    names: Sequence[str] = sorted({name for shares in found.values() for name in shares})

    def paint(axes: Any) -> None:
        for at, (aim, shares) in enumerate(found.items()):
            places = [row + 0.4 * at for row in range(len(names))]
            axes.barh(places, [shares.get(name, 0.0) for name in names], height=0.4, label=aim)
        axes.set_yticks([row + 0.2 for row in range(len(names))], names)
        axes.set_xlabel("share of what tells good trials from others")
        if names:
            axes.legend()
        else:
            few = f"{finished} trials are finished: too few to say, from {ENOUGH} on"
            axes.text(0.5, 0.5, few, ha="center", transform=axes.transAxes)

    _draw(path, paint)


def _draw(path: Path, paint: Any) -> None:
    import_extra("matplotlib", "report")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    paint(figure.add_subplot())
    with replacing(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
