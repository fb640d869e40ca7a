"""The embedded problem: scikit-learn's digits at 32×32, and a VGG-style network of 1.2M parameters."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

from corank.data.digits import SAMPLES, read_digits
from corank.data.splits import fold_parts
from corank.data.tasks import make_task
from corank.pilot.problem import Problem
from corank.tasks import Task

_WIDTHS = (32, 64, 128, 256)


def vgg() -> nn.Module:
    """Make the network: four stages of two 3×3 convolutions with batch norm, pooled, then a linear layer."""
    layers: dict[str, nn.Module] = {}
    channels = 1
    for stage, width in enumerate(_WIDTHS, 1):
        for half in "ab":
            layers[f"conv{stage}{half}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers[f"norm{stage}{half}"] = nn.BatchNorm2d(width)
            layers[f"relu{stage}{half}"] = nn.ReLU()
            channels = width
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(channels, 10)}
    return nn.Sequential(OrderedDict(layers))


def digits_task(seed: int, batch_size: int = 64, latency_batch: int = 16) -> Task:
    """Make the task: 1,150 digits to train on, 287 to choose on, 360 read once at the end.

    The split is one and the same for every seed; the seed decides only the order of the training data.

    Raises: ExtraError, when scikit-learn is missing.
    """
    return make_task(read_digits(), seed, batch_size=batch_size, latency_batch=latency_batch)


def digits_fold(seed: int, fold: int, folds: int, batch_size: int = 64, latency_batch: int = 16) -> Task:
    """Make the task of one fold of train and dev."""
    parts = fold_parts(read_digits(), fold, folds)
    return make_task(parts, seed, batch_size=batch_size, latency_batch=latency_batch)


def digits(batch_size: int = 64, latency_batch: int = 16) -> Problem:
    """Describe the embedded problem."""
    return Problem(
        data="scikit-learn digits, 1,797 images of 8×8, enlarged to 32×32",
        model="VGG-style, eight 3×3 convolutions, 1.2M parameters",
        samples=dict(SAMPLES),
        classes=tuple(str(digit) for digit in range(10)),
        make_task=partial(digits_task, batch_size=batch_size, latency_batch=latency_batch),
        make_fold=partial(digits_fold, batch_size=batch_size, latency_batch=latency_batch),
        make_model=vgg,
        keep=("head",),
    )
