"""Problems from names: built-in data or the user's own task, the user's network, trained weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corank.data import read_data
from corank.data.splits import Parts, fold_parts
from corank.data.tasks import make_task
from corank.errors import CorankError, one_line
from corank.pilot.digits import digits, vgg
from corank.pilot.problem import Problem, SameTask
from corank.tasks import Task
from corank.weights import file_digest, load_weights

_BATCH, _LATENCY_BATCH = 64, 16


def make_problem(
    data: str,
    model: str,
    make_model: Callable[[], nn.Module] | None,
    *,
    task: Any = None,
    weights: Path | None = None,
    keep: tuple[str, ...] = (),
    batch_size: int = _BATCH,
    latency_batch: int = _LATENCY_BATCH,
) -> Problem:
    """Describe a problem.

    Args:
        data: the name of built-in data, or of the task.
        model: how the report calls the network.
        make_model: its factory; None for the embedded one, which is made for digits.
        task: a `Task` or a factory `seed -> Task`, where the data are the user's own.
        weights: a safetensors file that every arm starts from.
        keep: layers that are never cut.
        batch_size, latency_batch: of built-in data.
    Raises: CorankError, for data without a network, or what is no task; FileError, for weights that do not
        fit.
    """
    if batch_size < 1 or latency_batch < 1:
        raise CorankError(
            f"batch_size: allowed is a whole number from 1, got {min(batch_size, latency_batch)}."
        )
    terms = _terms(batch_size, latency_batch)
    if task is None and data == "digits" and make_model is None:
        if weights is None and not keep:
            return replace(digits(batch_size, latency_batch), terms=terms)
        make_model, model, keep = vgg, digits().model, keep or ("head",)
    if make_model is None:
        raise CorankError(f"data: {data} needs a network. Give --model package.module:factory.")
    start = None
    if weights is not None:
        load_weights(make_model, weights)  # now, so that a file that does not fit is told of at once
        start = partial(load_weights, make_model, weights)
    shared: dict[str, Any] = {
        "model": model,
        "make_model": make_model,
        "keep": keep,
        "make_start": start,
        "weights": "" if weights is None else file_digest(weights),
    }
    if task is not None:
        return Problem(
            data=data,
            samples={},
            classes=(),
            make_task=own_task(task, data),
            make_fold=own_fold(task, data),
            **shared,
        )
    parts = read_data(data)
    samples = {"train": len(parts.train), "dev": len(parts.dev), "final": len(parts.final)}
    make = partial(make_task, batch_size=batch_size, latency_batch=latency_batch)

    def make_fold(seed: int, fold: int, folds: int) -> Task:
        return make(fold_parts(parts, fold, folds), seed)

    return Problem(
        data=parts.name,
        samples=samples,
        classes=parts.classes,
        make_task=partial(make, parts),
        make_fold=make_fold,
        terms=terms if data == "digits" else {**terms, "data_digest": _digest(parts)},
        **shared,
    )


def _terms(batch_size: int, latency_batch: int) -> dict[str, int]:
    """Return the sizes that are not the defaults: a trial begun by an older version holds none of them."""
    sizes = {"batch_size": (batch_size, _BATCH), "latency_batch": (latency_batch, _LATENCY_BATCH)}
    return {name: size for name, (size, usual) in sizes.items() if size != usual}


def _digest(parts: Parts) -> str:
    """Return a hash of all images and labels: two folders may hold as many images, and not the same."""
    found = hashlib.blake2b(digest_size=8)
    for part in (parts.train, parts.dev, parts.final):
        for tensor in (part.pixels, part.labels):
            found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def own_task(task: Any, name: str) -> Callable[[int], Task]:
    """Return `seed -> Task` of a `Task`, or of a factory, whose result is checked.

    Raises: CorankError, for anything else.
    """
    if isinstance(task, Task):
        return SameTask(task)
    if not callable(task):
        raise CorankError(
            f"data: {name} is a {type(task).__name__}. Name a corank.Task or a function (seed) -> Task."
        )
    return partial(_call, task, name)


def own_fold(task: Any, name: str) -> Callable[[int, int, int], Task] | None:
    """Return `(seed, fold, folds) -> Task` of a factory that takes both by name; None for any other."""
    if isinstance(task, Task):
        return None
    try:
        taken = signature(task).parameters
    except (TypeError, ValueError):
        return None
    if "fold" not in taken or "folds" not in taken:
        return None
    return lambda seed, fold, folds: _call(task, name, seed, fold=fold, folds=folds)


def _call(task: Callable[..., Any], name: str, seed: int, **terms: int) -> Task:
    try:
        made = task(seed, **terms)
    except CorankError:
        raise
    except Exception as error:  # whatever the user's factory raises
        raise CorankError(f"data: {name} fails ({one_line(error)}). It is called with the seed.") from error
    if not isinstance(made, Task):
        raise CorankError(f"data: {name} returned a {type(made).__name__}, not a corank.Task.")
    return made
