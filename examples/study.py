"""The road that the examples share: train, cut and recover; later time what is trained and write its page.

Three networks start at the same dense one and train as many further epochs each: the dense control; low
rank, which is cut on the way; and force + low rank, which trains with the force up to its cut. Choices are
made on dev; final is read once, when the page is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from benchmarks.real_network import RUNS
from benchmarks.record import say
from torch import nn

import corank
from corank.files import write_text
from corank.replay import set_seed

KEPT = RUNS / "examples"
SEED = 0
CALIBRATION_BATCHES = 8


@dataclass(frozen=True, slots=True)
class Study:
    """One task, and how its networks are made.

    Args:
        name: of the example; its page is docs/results/task_<name>.
        title, about: what the page says before its tables.
        task: makes the task from a seed, which orders the training data.
        make: builds the network, untrained.
        rules: what the cut must meet.
        epochs: to train the dense network, then up to the cut, then after it.
        learning_rate: from scratch, with AdamW.
        further_rate: of what comes after, with SGD.
        recovery_rate: after the cut, lower, since batch norm is frozen then.
        exclude: layers that are never cut.
        mark: the speedup to reach in one engine at least, where one was set.
        policy: the terms of the gate.
        arms: makes the networks to compare, dense first, and keeps what it makes in a folder.
        timed_arms: they are chosen by measured time, so they are made when it is quiet.
    """

    name: str
    title: str
    about: str
    task: Callable[[int], corank.Task]
    make: Callable[[], nn.Module]
    rules: Any
    epochs: tuple[int, int, int] = (0, 0, 0)
    learning_rate: float = 2e-3
    further_rate: float = 0.01
    recovery_rate: float = 0.001
    exclude: tuple[str, ...] = ()
    mark: float | None = None
    policy: Mapping[str, Any] | None = None
    arms: Callable[[Study, Path], dict[str, nn.Module]] | None = None
    timed_arms: bool = False


def make_arms(study: Study, folder: Path = KEPT) -> dict[str, nn.Module]:
    """Return the networks to compare by name, dense first; what is trained already is loaded."""
    set_seed(SEED)
    arms = (study.arms or train_arms)(study, folder / study.name)
    return {name: model.eval() for name, model in arms.items()}


def train_arms(study: Study, folder: Path) -> dict[str, nn.Module]:
    """Train the dense network, then on from it the control, low rank, and force + low rank."""
    first, before, after = study.epochs
    load(study, folder / "dense", lambda: train_dense(study, first, folder / "dense"))

    def further(name: str, epochs: int, model: nn.Module | None = None, **options: Any) -> nn.Module:
        model = corank.load(folder / "dense.safetensors", study.make) if model is None else model
        return load(study, folder / name, lambda: train(study, model, epochs, folder / name, **options))

    def recovered(name: str, whole: nn.Module) -> nn.Module:
        small = load(study, folder / f"{name}_cut", lambda: cut(study, whole, folder / name))
        options = {
            "learning_rate": study.recovery_rate,
            "frozen_norm": True,
        }  # the cut is fitted to the norms
        return further(f"{name}_recovered", after, small, **options)

    forced = corank.load(folder / "dense.safetensors", study.make)
    steps = before * len(study.task(SEED).train)
    strength = corank.AutoStrength(steps=steps, rank_ratio=0.6, every=max(steps // 20, 1))
    force = corank.ForceRegularizer(forced, strength, exclude=study.exclude or None)
    return {
        "dense": further("control", before + after),
        "lowrank": recovered("lowrank", further("plain", before)),
        "force": recovered("force", further("forced", before, forced, force=force)),
    }


def train_dense(study: Study, epochs: int, kept: Path) -> nn.Module:
    """Train from scratch, with AdamW on one cycle."""
    model = study.make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=study.learning_rate, weight_decay=0.01)
    steps = epochs * len(study.task(SEED).train)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, study.learning_rate, steps)
    return train(study, model, epochs, kept, optimizer=optimizer, scheduler=schedule)


def train(study: Study, model: nn.Module, epochs: int, kept: Path, **options: Any) -> nn.Module:
    """Fine-tune in place; a training that was stopped goes on."""
    task, checkpoint = study.task(SEED), kept.with_suffix(".training")
    options = {"learning_rate": study.further_rate, "precision": "bfloat16", **options}
    corank.finetune(model, task.train, epochs=epochs, loss=task.loss, checkpoint=checkpoint, **options)
    checkpoint.unlink()
    say(f"{study.name}, {kept.name}: {score(model, task):.4f} on dev")
    return model


def cut(study: Study, model: nn.Module, kept: Path) -> nn.Module:
    """Measure the outputs, plan, and split: each layer makes up for the splits before it."""
    task = study.task(SEED + 1)
    batches = list(islice(task.train, CALIBRATION_BATCHES))
    stats = corank.calibrate(model, batches, inputs=True, forward=task.loss)
    plan = corank.plan(
        model,
        study.rules,
        example=task.example,
        stats=stats,
        evaluate=lambda network: score(network, task),
        multiple=8,
        exclude=study.exclude or None,
    )
    write_text(kept.with_name(f"{kept.name}_plan.json"), plan.to_json())
    small = corank.decompose(model, plan, asymmetric=batches, forward=task.loss)
    say(f"{study.name}, {kept.name}, right after the cut: {score(small, task):.4f} on dev")
    return small


def load(study: Study, path: Path, make: Callable[[], nn.Module]) -> nn.Module:
    """Load a network that is kept, or make it and keep it."""
    path = path.with_suffix(".safetensors")
    if path.exists():
        return corank.load(path, study.make)
    path.parent.mkdir(parents=True, exist_ok=True)
    model = make()
    corank.save(model, path, reference=study.make)
    return model


def score(model: nn.Module, task: corank.Task) -> float:
    """Return the deciding metric on dev, in eval mode."""
    return next(iter(task.evaluate(model.eval(), task.dev).values())).value


def run(*studies: Study) -> None:
    """Train what is not trained yet, time it all and write the pages; or one of the two."""
    parser = argparse.ArgumentParser(description=studies[0].title if len(studies) == 1 else __doc__)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--train", action="store_true", help="train only; stop and go on as you like")
    only.add_argument("--time", action="store_true", help="time what is trained, and write the pages")
    options = parser.parse_args()
    for study in studies:
        if options.train and study.timed_arms:
            say(f"{study.name}: nothing to train, its ranks come from measured times.")
            continue
        if (
            options.time
            and not study.timed_arms
            and not (KEPT / study.name / "force_recovered.safetensors").exists()
        ):
            say(f"{study.name}: left out, it is not trained. Run it with --train first.")
            continue
        try:
            arms = make_arms(study)
        except corank.CorankError as reason:  # such as data that are not here
            say(f"{study.name}: left out. {reason}")
            continue
        if not options.train:
            from examples.page import write_page

            write_page(study, arms)
