"""The networks of benchmarks/evidence.py, each with its data, trained weights and cuts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

import corank
from benchmarks.cifar import ResNet, resnet
from benchmarks.evidence_cuts import Rule, cut_rules
from benchmarks.real_network import make_problem
from corank.pilot.digits import digits, vgg
from corank.pilot.problem import Problem
from corank.precision import Precision
from corank.replay import set_seed


@dataclass(frozen=True, slots=True)
class Network:
    """A network with its data and trained weights.

    `caveat` is what a reader of its page must know of the start; `shared` says that the whole takes hours:
    what was trained is kept with the results, for others to go on.
    """

    make: Callable[[], nn.Module]
    problem: Callable[[int | None], Problem]
    start: Callable[[Problem, Path], nn.Module]
    cuts: dict[str, dict[str, Rule]]
    precision: Precision
    caveat: str = ""
    shared: bool = False


def _trained(depth: int) -> Network:
    return Network(
        partial(ResNet, (depth - 2) // 6),
        partial(make_problem, depth),
        lambda *_: resnet(depth),
        {"screen": cut_rules(0.5), "full": cut_rules(0.7, 0.5, 0.35, time=0.7)},
        "bfloat16",
        "The weights that all start from have seen all training images, rightly labelled, and were chosen on "
        "the test images: accuracy is a little too high, in all arms alike.",
        shared=True,
    )


def _train_digits(problem: Problem, folder: Path) -> nn.Module:
    """Train the VGG once, and keep it."""
    path = folder / "start.safetensors"
    model = problem.make_model()
    if not path.exists():
        set_seed(0)
        model, task = problem.make_model(), problem.make_task(0)
        corank.finetune(model, task.train, epochs=8, loss=task.loss, learning_rate=0.05, progress=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), path)
    model.load_state_dict(load_file(path))
    return model.eval()


NETWORKS = {
    "resnet20": _trained(20),
    "resnet56": _trained(56),
    "digits": Network(
        vgg,
        lambda files: digits(),
        _train_digits,
        {"screen": cut_rules(0.1), "full": cut_rules(0.2, 0.1, 0.05)},
        "float32",
    ),
}
