"""The page of a study: every arm on final against dense, sample by sample, its times, and the gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.record import describe_run, interval, rounded, store, table
from torch import nn

import corank
from corank.cost import model_cost
from corank.decision.comparison import compare
from corank.decision.results import SCHEMA
from corank.pilot.scores import describe, is_share, measure
from examples.study import KEPT, SEED, Study

ENGINES = ("torch", "onnxruntime")
ROUNDS = 30
LABELS = {"dense": "dense", "lowrank": "low rank", "force": "force + low rank"}


def write_page(study: Study, arms: Mapping[str, nn.Module], folder: Path = KEPT) -> None:
    """Read final, time the arms, and store the page."""
    found = measure_arms(study, arms)
    plans = {
        name: corank.Plan.from_json(path.read_text())
        for name in arms
        if (path := folder / study.name / f"{name}_plan.json").exists()
    }
    store(f"task_{study.name}", study.title, body(study, found, plans), rounded(found), describe_run(SEED))


def measure_arms(
    study: Study,
    arms: Mapping[str, nn.Module],
    *,
    engines: tuple[str, ...] = ENGINES,
    rounds: int = ROUNDS,
    task: corank.Task | None = None,
) -> dict[str, Any]:
    """Return what a pilot.json would hold of these networks, so that the gate can judge them."""
    task = task or study.task(SEED)
    metrics = {name: measure(model, task, "final") for name, model in arms.items()}
    key = next(iter(metrics["dense"]))
    dense = metrics["dense"][key]
    times = corank.bench(arms, task.example, backends=engines, rounds=rounds, memory=False)
    rows = []
    for name, model in arms.items():
        metric, cost = metrics[name][key], model_cost(model, task.example)
        told = describe(metric, None if name == "dense" else dense)
        timed = {engine: times.row(name, engine) for engine in engines}
        rows.append(
            {
                "name": name,
                "accuracy": metric.value,
                "accuracy_ci": told["ci"],
                "accuracy_difference": told["difference"],
                "accuracy_difference_ci": told["difference_ci"],
                "comparison": None if name == "dense" else compare(metric, dense, {}),
                "macs": cost.macs,
                "params": cost.params,
                "latency_ms": {engine: one.median_ms for engine, one in timed.items()},
                "speedup": {engine: one.speedup for engine, one in timed.items()},
                "speedup_ci": {engine: list(one.speedup_ci) for engine, one in timed.items()},
            }
        )
    scale = {"name": key, "higher_is_better": dense.higher_is_better, "share": is_share(dense)}
    result = {"schema": SCHEMA, "protocol": {"metric": scale, "batch": times.batch}, "arms": rows}
    decision = corank.gate(result, corank.Policy(**(study.policy or {})))
    return {**result, "decision": decision.to_dict(), "notes": list(times.notes)}


def body(study: Study, found: Mapping[str, Any], plans: Mapping[str, corank.Plan]) -> str:
    """Write the page from what was measured."""
    metric, rows = found["protocol"]["metric"]["name"], found["arms"]
    parts = [
        study.about,
        f"One command: `python -m examples.{study.name}`. {_training(study)} Speed is of batches of "
        f"{found['protocol']['batch']} in float32, each network in turns with dense.",
        "## Final",
        table(
            ["network", f"{metric} (95%)", "against dense (95%)", "MACs", "parameters", *_engines(rows)],
            [_row(row, rows[0]) for row in rows],
        ),
        *_mark(study, rows),
        f"The gate (margin {found['decision']['policy']['margin']:g}): {found['decision']['sentence']}",
    ]
    for name, plan in plans.items():
        parts += [f"## The plan of {LABELS[name]}", _plan(plan)]
    return "\n\n".join(one for one in [*parts, *(f"Note: {note}." for note in found["notes"])] if one)


def _training(study: Study) -> str:
    first, before, after = study.epochs
    if not first:
        return "Nothing is trained."
    return (
        f"Dense trains {first} epochs; from there every network trains {before + after} more: low rank is "
        f"cut after {before}, and force + low rank has the force up to then. Training is in bfloat16. "
        "Dev chose; final was read for this page. One seed: the intervals are of the samples, not of "
        "the training."
    )


def _engines(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{engine}, times as fast (95%)" for engine in rows[0]["speedup"]]


def _row(row: Mapping[str, Any], dense: Mapping[str, Any]) -> list[str]:
    def between(ends: list[float] | None, sign: str = "") -> str:
        return "no interval" if ends is None else " to ".join(f"{100 * end:{sign}.1f}" for end in ends)

    first = row is dense
    gap, ends = row["accuracy_difference"], row["accuracy_difference_ci"]
    speeds = [
        f"{row['latency_ms'][engine]:.2f} ms"
        if first
        else interval({"speedup": speedup, "ci": row["speedup_ci"][engine]})
        for engine, speedup in row["speedup"].items()
    ]
    return [
        LABELS[row["name"]],
        f"{100 * row['accuracy']:.1f} ({between(row['accuracy_ci'])})",
        "" if first else f"{100 * gap:+.1f} ({between(ends, '+')})",
        *(
            f"{row[key] / dense[key]:.2f}" if not first else f"{row[key] / 1e6:.2f} M"
            for key in ("macs", "params")
        ),
        *speeds,
    ]


def _mark(study: Study, rows: list[dict[str, Any]]) -> list[str]:
    if study.mark is None:
        return []
    judged = rows[-1]
    engine, best = max(judged["speedup"].items(), key=lambda one: one[1])
    low = judged["speedup_ci"][engine][0]
    outcome = "reached" if low >= study.mark else "**missed**"
    return [f"Mark: {study.mark:g} times as fast; {outcome}, {best:.2f} in {engine} (lower end {low:.2f})."]


def _plan(plan: corank.Plan) -> str:
    rows = [
        [f"`{name}`", one.method, f"{one.rank} of {one.full_rank}", f"{one.energy:.3f}"]
        for name, one in plan.layers.items()
    ]
    left = [f"- `{name}` is left alone: {reason}" for name, reason in plan.skipped.items()]
    return "\n\n".join([table(["layer", "method", "rank", "energy kept"], rows), "\n".join(left)])
