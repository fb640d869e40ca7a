"""One trial: train the arms, measure them side by side, and write everything down."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from corank import store
from corank._version import __version__
from corank.decision.economics import Economics
from corank.decision.policy import Policy
from corank.decision.results import SCHEMA
from corank.errors import FileError
from corank.files import write_text
from corank.inputs import first_tensor
from corank.latency import LatencyTable
from corank.pilot.arm import Arm
from corank.pilot.arm_files import load_arm
from corank.pilot.arms import distills, first_rules
from corank.pilot.checks import check_problem
from corank.pilot.conclusion import conclude, require_terms
from corank.pilot.folder import close_work, finished, locked, trial_folder
from corank.pilot.folds import require_folds, run_folds
from corank.pilot.identity import identity_of
from corank.pilot.options import ARMS, TrialOptions
from corank.pilot.page import page_language, write_report
from corank.pilot.problem import Problem
from corank.pilot.samples import samples_to_csv
from corank.pilot.seed_run import Run, run_seed
from corank.pilot.times import measure_times
from corank.planning import plan
from corank.wording.catalogue import require_language

logger = logging.getLogger(__name__)


def run_trial(
    problem: Problem,
    out: Path,
    options: TrialOptions,
    *,
    command: str,
    progress: bool = True,
    again: bool = False,
    policy: Policy | None = None,
    economics: Economics | None = None,
    lang: str | None = None,
) -> dict[str, Any]:
    """Run all arms for every seed and write `pilot.json`, `report.html`, models, plans and samples.

    Every arm trains the same epochs on the same data in the same order at the same learning rates; the cut
    arms get the same target. Choices are made on dev; final is read once, at the end. The models, plans and
    figures are those of the first seed; further seeds give the spread.

    A run that was killed is gone on with by the same call, from its last checkpoint, and ends as if it had
    not been; a trial that is finished is not run again unless `again`.

    Args:
        problem: the task and the network.
        out: the folder; made if absent.
        options: arms, epochs, force, cut and measuring.
        command: how the trial was started, for the report.
        progress: show bars on a terminal, log lines elsewhere.
        again: replace a finished trial in the folder.
        policy: the terms of the decision; None is the default, or what a finished trial was decided by.
        economics: the user's numbers, for what it saves; None leaves money out, or keeps it.
        lang: of the page, `en` or `ja`; pilot.json stays in English. None is English, or keeps the page of a
            finished trial.
    Returns: what `pilot.json` holds.
    Raises: CorankError, before any work for what can be known then; for what cannot be trained, cut, measured
        or written; for a folder that is in use or holds another trial.
    """
    if problem.make_start is not None:
        options = replace(options, shared=0)
    require_language(lang or "en")
    identity = identity_of(problem, options.to_dict())
    if not again and (result := finished(out, identity)) is not None:
        logger.info("%s: this trial is done already; --again runs it anew", out)
        before = json.dumps(result)
        if json.dumps(conclude(result, policy, economics)) != before or lang is not None:
            with locked(out):
                write_files(result, out, lang or page_language(out / "report.html"))
        return result
    require_terms(options.arms, options.backends, policy, economics)
    require_folds(problem, options)
    counts = check_problem(problem, options)
    if not problem.samples:
        problem = replace(problem, samples=counts)
    with trial_folder(out, identity, again=again) as work:
        table = _measure_table(problem, options, work, progress)
        runs = [
            run_seed(problem, seed, options, table, work / f"seed{seed}", progress) for seed in options.seeds
        ]
        folds = run_folds(problem, options, work, table, progress)
        started = {"command": command, "identity": identity, "folds": folds}
        result = conclude(_describe(out, work, problem, options, runs, started), policy, economics)
        write_files(result, out, lang or "en")
        close_work(work)
    return result


def _measure_table(
    problem: Problem, options: TrialOptions, work: Path, progress: bool
) -> LatencyTable | None:
    """Time the splits where the target is about time, once for all arms, and check that it can be reached."""
    if not options.target.timed:
        return None
    model = (problem.make_start or problem.make_model)().eval()
    example = problem.make_task(options.seeds[0]).example
    table = measure_times(
        problem,
        options.seeds[0],
        work,
        backend=options.target.backend,
        time_budget=options.target.time_budget,
        threads=options.threads,
        progress=progress,
    )
    for target in (options.target, *map(options.target.at, options.front)):
        plan(model, first_rules(target.rules), example=example, table=table, exclude=problem.keep)
    return table


def write_files(result: dict[str, Any], out: Path, lang: str = "en") -> None:
    """Write the page, then pilot.json, by which a trial counts as finished."""
    write_report(result, out / "report.html", lang)
    write_text(out / "pilot.json", json.dumps(result, indent=1))


def _describe(
    out: Path,
    work: Path,
    problem: Problem,
    options: TrialOptions,
    runs: list[Run],
    started: Mapping[str, Any],
) -> dict[str, Any]:
    first = runs[0]
    _write_models(out, work / f"seed{options.seeds[0]}", problem, first.records)
    if first.samples:
        write_text(out / "samples.csv", samples_to_csv(first.samples))
    return {
        "schema": SCHEMA,
        "corank": __version__,
        **started,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "protocol": _protocol(problem, options, first),
        "arms": first.records,
        "front": first.front,
        "spread": _spread(options, [run.records for run in runs]) if len(runs) > 1 else None,
    }


def _write_models(out: Path, folder: Path, problem: Problem, records: list[dict[str, Any]]) -> None:
    for record in records:
        name = record["name"]
        arm = load_arm(name, folder / name, "done", problem)
        if arm is None:
            raise FileError(f"{folder / name}: a finished arm was removed. Delete {folder} and run it again.")
        _write_model(out, problem, arm, record)
    for name in ARMS.keys() - {record["name"] for record in records}:  # left by the trial before --again
        (out / _model_file(name)).unlink(missing_ok=True)
        (out / _plan_file(name)).unlink(missing_ok=True)


def _model_file(name: str) -> Path:
    return Path("models") / f"{name}.safetensors"


def _plan_file(name: str) -> Path:
    return Path("plans") / f"{name}.json"


def _write_model(out: Path, problem: Problem, arm: Arm, record: dict[str, Any]) -> None:
    model_file = _model_file(arm.name)
    (out / "models").mkdir(exist_ok=True)
    store.save(arm.model.eval(), out / model_file, reference=problem.make_model, plan=arm.plan)
    record["model_file"] = str(model_file)
    record["bytes"] = (out / model_file).stat().st_size
    record["plan_file"] = None
    if arm.plan is not None:
        record["plan_file"] = str(_plan_file(arm.name))
        write_text(out / record["plan_file"], arm.plan.to_json())


def _protocol(problem: Problem, options: TrialOptions, run: Run) -> dict[str, Any]:
    task = problem.make_task(options.seeds[0])
    return {
        "data": problem.data,
        "model": problem.model,
        "samples": dict(problem.samples),
        "classes": list(problem.classes),
        "seeds": list(options.seeds),
        "epochs": {
            "shared": options.shared,
            "before_cut": options.before_cut,
            "after_cut": options.after_cut,
            "total": options.epochs,
        },
        "optimizer": {
            "name": "SGD, Nesterov momentum 0.9, cosine to 0 in each part",
            "learning_rate_shared": options.learning_rate,
            "learning_rate_before_cut": options.learning_rate_before,
            "learning_rate_after_cut": options.learning_rate_after,
            "weight_decay": options.weight_decay,
            "precision": options.precision,
            "teacher_after_cut": "its own network at the cut" if distills(options, task) else "none",
        },
        "force": {"kind": options.kind, "strength": options.strength, "scale": "mean"},
        "metric": run.metric,
        "target": options.target.to_dict(),
        "latency_batch": int(first_tensor(task.example).shape[0]),
        **run.terms,
    }


def _spread(options: TrialOptions, runs: list[list[dict[str, Any]]]) -> dict[str, Any]:
    arms = {}
    for row in zip(*runs, strict=True):
        accuracy = [one["accuracy"] for one in row]
        speedup = {engine: [one["speedup"][engine] for one in row] for engine in row[0]["speedup"]}
        arms[row[0]["name"]] = {"accuracy": accuracy, "mean_accuracy": fmean(accuracy), "speedup": speedup}
    return {"seeds": list(options.seeds), "arms": arms}
