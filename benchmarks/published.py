"""LeNet on MNIST, ConvNet on CIFAR-10, by the published recipes: which ranks does the force leave?

Caffe's network is trained, then again from there with each force and without; its convolutions are cut to
the rank at 5% error by plain PCA of the weights, as the authors do, and it is fine-tuned. Learning rates,
decays, batches, forces and steps are the recipe's: nothing is chosen on the test images. `--share` shortens
all trainings alike, with their milestones; ConvNet's 480,000 steps take a day of one core.

    OMP_NUM_THREADS=1 python -m benchmarks.published lenet    # a seed takes half an hour
    OMP_NUM_THREADS=1 python -m benchmarks.published convnet --share 0.025 --seeds 1

What is done is kept in runs/published, and an epoch is the most that a kill loses.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR

import corank
from benchmarks.caffe_networks import ConvNet, LeNet
from benchmarks.cifar import SHARED
from benchmarks.evidence_page import paired
from benchmarks.real_network import RUNS
from benchmarks.record import describe_run, kept, rounded, store, table
from corank.cost import model_cost
from corank.data.cifar10 import read_cifar10
from corank.data.mnist import read_mnist
from corank.data.tasks import make_task
from corank.pilot.scores import measure
from corank.replay import set_seed
from corank.tasks import Task

NO_FORCE = "no force"
STEPS = ("baseline", "before", "cut", "after")  # after each, which test images are right
LOST = 0.002  # of accuracy, the most that a force may cost


@dataclass(frozen=True, slots=True)
class Arm:
    """A force, and whether the network is cut after it; a whole one is stronger where steps are fewer."""

    kind: str | None = None
    strength: float = 0.0  # of the sum over filters
    direction: str = "attract"
    cut: bool = True
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Training:
    """So many steps, and what is taken off the learning rate at some of them."""

    steps: int
    milestones: tuple[int, ...]
    factor: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """A network, its data and how it is trained before, with and after the force."""

    title: str
    make: Callable[[], nn.Module]
    task: Callable[[int], Task]
    published: str  # the authors' baseline
    layers: Mapping[str, int]  # the filters of each convolution
    marked: str  # the arm whose ranks must be lower
    arms: Mapping[str, Arm]
    baseline: Training
    before: Training
    after: Training
    learning_rate: float
    weight_decay: float
    decays: Mapping[str, float] = field(default_factory=dict)  # times the weight decay, of some parameters


def lenet_task(seed: int) -> Task:
    """Make the task: MNIST over 256, as the recipe scales it."""
    return make_task(read_mnist(SHARED / "mnist"), seed, mean=(0.0,), std=(256 / 255,))


def convnet_task(seed: int) -> Task:
    """Make the task: CIFAR-10 in 0 to 255 less the mean of each channel, not augmented."""
    parts = replace(read_cifar10(SHARED / "cifar10"), augment=False)
    return make_task(parts, seed, batch_size=100, std=(1 / 255,) * 3)


_TEN_THOUSAND = Training(10_000, (5_000, 7_000, 8_000, 9_000, 9_500), 0.9)
RECIPES = {
    "lenet": Recipe(
        "Caffe's LeNet, MNIST",
        LeNet,
        lenet_task,
        "99.17%",
        {"conv1": 20, "conv2": 50},
        "l1",
        {
            NO_FORCE: Arm(),
            "l1": Arm("l1", 1e-3),
            "l2": Arm("l2", 1e-3),
            "l2, repel": Arm("l2", 1e-3, "repel", cut=False),
        },
        _TEN_THOUSAND,
        _TEN_THOUSAND,
        _TEN_THOUSAND,
        0.01,
        5e-4,
    ),
    "convnet": Recipe(
        "Caffe's ConvNet (cifar10_full), CIFAR-10",
        ConvNet,
        convnet_task,
        "82.01%",
        {"conv1": 32, "conv2": 32, "conv3": 64},
        "l2",
        {
            NO_FORCE: Arm(),
            "l2": Arm("l2", 5e-5),
            "l2, whole": Arm("l2", 5e-5, whole=True),
        },
        Training(70_000, (60_000, 65_000), 0.1),
        Training(240_000, (200_000, 220_000), 0.1),
        Training(80_000, (30_000, 60_000), 0.1),
        0.001,
        4e-3,
        {"fc1.weight": 250.0, "fc1.bias": 0.0},
    ),
}


class Runner:
    """Run a recipe, or a share of its steps, with one seed; what is done is read instead."""

    def __init__(self, recipe: Recipe, share: float, seed: int, folder: Path) -> None:
        self.recipe, self.share, self.seed, self.folder = recipe, share, seed, folder

    def row(self, name: str) -> dict[str, Any]:
        """Return what an arm reaches."""
        return kept(self.folder / f"{name}.json", f"seed {self.seed}: {name}", partial(self._run, name))

    def _run(self, name: str) -> dict[str, Any]:
        """Train an arm from the baseline, cut it, fine-tune it, and read the test images at every step."""
        recipe, arm = self.recipe, self.recipe.arms[name]
        set_seed(self.seed)
        model = recipe.make()
        self._train(model, recipe.task(self.seed), recipe.baseline, "baseline")
        task = recipe.task(self.seed + 100)
        row: dict[str, Any] = {"arm": name, "seed": self.seed, "baseline": hits(model, task)}
        force = None
        if arm.kind is not None:
            strength = arm.strength / self.share if arm.whole else arm.strength
            force = corank.ForceRegularizer(
                model, strength, kind=arm.kind, direction=arm.direction, scale="sum"
            )
        self._train(model, task, recipe.before, f"{name}-before", force)
        ranks = corank.spectrum(model, types=("conv",)).rank(energy=0.95)
        row |= {"ranks": ranks, "before": hits(model, task)}
        if not arm.cut:
            return row
        order = corank.Ranks(ranks, method="filter_basis")
        small = corank.decompose(model, corank.plan(model, order, example=task.example))
        row["macs"] = model_cost(small, task.example).macs / model_cost(model, task.example).macs
        row["cut"] = hits(small, task)
        try:
            self._train(small, recipe.task(self.seed + 200), recipe.after, f"{name}-after")
        except corank.CorankError as error:  # the loss is no number any more
            return row | {"failed": str(error)}
        return row | {"after": hits(small, task)}

    def _train(
        self,
        model: nn.Module,
        task: Task,
        training: Training,
        name: str,
        force: corank.ForceRegularizer | None = None,
    ) -> None:
        optimizer = SGD(self._groups(model), self.recipe.learning_rate, momentum=0.9)
        epochs = epochs_of(training, self.share, len(task.train))
        steps = epochs * len(task.train)
        milestones = [round(one / training.steps * steps) for one in training.milestones]
        corank.finetune(
            model,
            task.train,
            epochs=epochs,
            loss=task.loss,
            optimizer=optimizer,
            scheduler=MultiStepLR(optimizer, milestones, training.factor),
            force=force,
            checkpoint=self.folder / f"{name}.safetensors",
            label=name,
        )

    def _groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Give each parameter its terms; biases learn twice as fast, as in Caffe's files."""
        recipe = self.recipe
        return [
            {
                "params": [parameter],
                "lr": recipe.learning_rate * (2 if name.endswith("bias") else 1),
                "weight_decay": recipe.weight_decay * recipe.decays.get(name, 1.0),
            }
            for name, parameter in model.named_parameters()
        ]


def epochs_of(training: Training, share: float, batches: int) -> int:
    """Return a training's whole epochs.

    >>> epochs_of(RECIPES["lenet"].before, 1.0, 938), epochs_of(RECIPES["convnet"].before, 0.1, 500)
    (11, 48)
    """
    return max(round(training.steps * share / batches), 1)


def hits(model: nn.Module, task: Task) -> str:
    """Return which test images a network gets right, 1 or 0 each."""
    found = [measure(model, task, part)["accuracy"].per_sample for part in ("dev", "final")]
    return "".join("1" if one else "0" for one in chain.from_iterable(found))


def page(recipe: Recipe, rows: list[dict[str, Any]], share: float) -> str:
    """Write the table, each arm against no force at the same step, and whether the mark is reached."""
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], []).append(row)
    plain = by_arm[NO_FORCE]
    lines = [
        [
            arm,
            *(
                f"{fmean(row['ranks'][layer] for row in some):.1f} of {full}"
                for layer, full in recipe.layers.items()
            ),
            f"{fmean(row['macs'] for row in some):.2f}" if "macs" in some[0] else "not cut",
            *(_step(some, plain, step) for step in STEPS[1:]),
        ]
        for arm, some in by_arm.items()
    ]
    heads = ["arm", *(f"rank of {one}" for one in recipe.layers), "MACs", "trained", "cut", "fine-tuned"]
    seeds = sorted({row["seed"] for row in rows})
    baseline = fmean(_accuracy(row["baseline"]) for row in plain)
    forces = ", ".join(f"{name} {arm.strength:g}" for name, arm in recipe.arms.items() if arm.kind)
    whole = "; a whole force is divided by that share, so that all steps together pull as hard"
    return (
        f"{recipe.title}, {len(seeds)} seed(s), {share:g} of the recipe's steps{whole if share < 1 else ''}. "
        f"Forces on the sum over filters: {forces}. The baseline that all start from: "
        f"{100 * baseline:.2f}% of 10,000 test images (authors, all steps: {recipe.published}). Accuracy in "
        "percent, and in brackets the difference to no force at the same step with its 95% interval, on the "
        f"same images and seeds; ranks are at 5% error.\n\n{table(heads, lines)}\n\n{_mark(recipe, by_arm)}"
    )


def _step(some: list[dict[str, Any]], plain: list[dict[str, Any]], step: str) -> str:
    if failed := [row for row in some if step not in row]:
        return f"diverged with {len(failed)} of {len(some)} seeds" if "failed" in failed[0] else ""
    told = f"{100 * fmean(_accuracy(row[step]) for row in some):.2f}"
    return told if some is plain else f"{told} [{paired(some, plain, step)}]"


def _mark(recipe: Recipe, by_arm: Mapping[str, list[dict[str, Any]]]) -> str:
    forced, plain = by_arm[recipe.marked], by_arm[NO_FORCE]
    lower = all(
        fmean(row["ranks"][layer] for row in forced) < fmean(row["ranks"][layer] for row in plain)
        for layer in recipe.layers
    )
    lost = fmean(_accuracy(row["before"]) for row in plain) - fmean(
        _accuracy(row["before"]) for row in forced
    )
    outcome = "reached" if lower and lost <= LOST else "**missed**"
    return (
        f"Mark, that the {recipe.marked} force lowers the rank of every convolution for at most "
        f"{100 * LOST:g} points: {outcome} (ranks {'lower' if lower else 'not lower'} in all, "
        f"{100 * lost:+.2f} points lost)."
    )


def _accuracy(told: str) -> float:
    return told.count("1") / len(told)


def main() -> None:
    """Run what is not done yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", choices=tuple(RECIPES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the recipe's steps")
    parser.add_argument("--print", action="store_true", help="print the page and store nothing, to try it")
    given = parser.parse_args()
    recipe, rows = RECIPES[given.recipe], []
    for seed in range(given.seeds):
        folder = RUNS / "published" / given.recipe / f"{given.share:g}" / f"{seed}"
        runner = Runner(recipe, given.share, seed, folder)
        rows += [runner.row(name) for name, arm in recipe.arms.items() if given.share < 1 or not arm.whole]
    text = page(recipe, rows, given.share)
    if given.print:
        print(text)
        return
    figures = [{key: _accuracy(one) if key in STEPS else one for key, one in row.items()} for row in rows]
    title = f"{recipe.title}, by the published recipe"
    store(f"published_{given.recipe}", title, text, rounded(figures), describe_run(0))


if __name__ == "__main__":
    main()
