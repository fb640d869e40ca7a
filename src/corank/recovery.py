"""Recover after a cut: fine-tune, with or without a teacher, and re-estimate batch norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from corank.errors import CorankError
from corank.inputs import Forward, run_batch, tensors, to_device
from corank.precision import Precision, require_precision
from corank.progress import Meter
from corank.regularizer import ForceRegularizer
from corank.tasks import Loader, Loss, cross_entropy, device_of
from corank.training import Checkpoint, Epoch, Training

if TYPE_CHECKING:
    from corank.sparsity import Sparsifier

__all__ = ["Checkpoint", "Distillation", "Epoch", "default_optimizer", "finetune", "recalibrate_batchnorm"]


@dataclass(frozen=True, slots=True)
class Distillation:
    """How much a student follows its teacher: (1 - weight) · loss + weight · T² · KL(teacher ‖ student).

    Outputs of two dimensions are taken as logits; all others are compared by mean squared error.
    Source: Hinton et al. 2015 (arXiv 1503.02531).
    """

    weight: float = 0.5
    temperature: float = 4.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise CorankError(f"Distillation: weight is a fraction in [0, 1], got {self.weight}.")
        if not self.temperature > 0:
            raise CorankError(f"Distillation: temperature is above 0, got {self.temperature}.")


def default_optimizer(
    model: nn.Module, learning_rate: float, momentum: float = 0.9, weight_decay: float = 5e-4
) -> torch.optim.SGD:
    """Make SGD with Nesterov momentum over the parameters that are not frozen."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(
        trained, lr=learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0
    )


def finetune(
    model: nn.Module,
    loader: Loader,
    *,
    epochs: int,
    loss: Loss = cross_entropy,
    teacher: nn.Module | None = None,
    distillation: Distillation | None = None,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    force: ForceRegularizer | None = None,
    sparsity: Sparsifier | None = None,
    checkpoint: Checkpoint | Path | str | None = None,
    after_epoch: Callable[[Epoch], None] | None = None,
    precision: Precision = "float32",
    frozen_norm: bool = False,
    progress: bool = True,
    label: str = "fine-tune",
) -> list[Epoch]:
    """Train a model in place for some epochs.

    Without an optimizer it is SGD with Nesterov momentum and a cosine from the learning rate to 0 over all
    steps. Keep the learning rate gentle: a good start after a cut is lost by a large one.

    Args:
        model: what to train; left in train mode or eval mode as it was.
        loader: batches, iterated once an epoch.
        epochs: how many.
        loss: `(model, batch) -> scalar`; cross-entropy of `(input, label)` by default.
        teacher: the dense model to follow, in eval mode; its outputs come from the inputs that the loss uses.
        distillation: how much to follow it; `Distillation()` with a teacher.
        learning_rate, momentum, weight_decay: of the default optimizer.
        optimizer, scheduler: your own; the scheduler steps once a batch.
        force: is attached to the optimizer, and detached at the end.
        sparsity: likewise, after the force; `corank.Sparsifier(model)` keeps the zeros that are there.
        checkpoint: a file, written after every epoch, from which the same call goes on after it was killed
            and ends bit-equal on the same machine; `Checkpoint(path, every=steps)` writes more often. It
            holds model, optimizer, scheduler, force, random states and the place in the data, no pickle. A
            finished one gives its result without training. The loader must repeat itself: `corank.replay`.
        after_epoch: called with each finished epoch.
        precision: in bfloat16 the loss is taken under `torch.autocast`; weights stay as they are.
        frozen_norm: normalise by the running statistics of batch norm and leave them as they are, for batches
            too small to take them from. It wants a lower learning rate, and did not pay on batches of 128
            (docs/results/recoveries.md).
        progress: show a bar on a terminal, log lines elsewhere.
        label: what the bar says.
    Returns: the epochs.
    Raises: CorankError, for another precision; for a loss that is not finite, with epoch, step, layer and
        what to lower, or weights that are not finite after an epoch; for an empty loader; when memory runs
        out; for a batch of one value under batch norm; for the checkpoint of another training, with what
        differs.

    >>> batches = [(torch.randn(8, 4), torch.randint(0, 2, (8,)))]
    >>> len(finetune(nn.Linear(4, 2), batches, epochs=2, progress=False))
    2
    """
    if epochs < 0:
        raise CorankError(f"finetune: epochs is a whole number from 0, got {epochs}.")
    require_precision(precision, "finetune: precision")
    if distillation is not None and teacher is None:
        raise CorankError("finetune: distillation needs a teacher; pass teacher=the dense model.")
    if teacher is not None:
        loss = _with_teacher(loss, teacher, distillation or Distillation())
    if optimizer is None:
        optimizer = default_optimizer(model, learning_rate, momentum, weight_decay)
        if scheduler is None and isinstance(loader, Sized):
            scheduler = CosineAnnealingLR(optimizer, max(epochs * len(loader), 1))
    if isinstance(checkpoint, str | Path):
        checkpoint = Checkpoint(checkpoint)
    if checkpoint is not None and sparsity is not None:
        checkpoint = replace(checkpoint, keep={**checkpoint.keep, "sparsity": sparsity})
    training = Training(
        model,
        loader,
        loss,
        optimizer,
        scheduler,
        force,
        checkpoint,
        precision,
        frozen_norm,
        teacher,
        {
            "distillation": None if teacher is None else str(distillation or Distillation()),
            "sparsity": None if sparsity is None else sparsity.told,
        },
    )
    mode = model.training
    if force is not None:
        force.attach(optimizer)
    try:
        if sparsity is not None:
            sparsity.attach(optimizer)
        with Meter(label, enabled=progress) as meter:
            return training.run(epochs, after_epoch, meter)
    finally:
        model.train(mode)
        for attached in (sparsity, force):
            if attached is not None:
                attached.detach()


def _with_teacher(loss: Loss, teacher: nn.Module, distillation: Distillation) -> Loss:
    """Wrap a loss so that the student's outputs, seen by a hook inside it, follow the teacher's."""

    def combined(model: nn.Module, batch: Any) -> Tensor:
        seen: list[tuple[Any, Any, Any]] = []
        handle = model.register_forward_hook(
            lambda _, args, kwargs, output: seen.append((args, kwargs, output)), with_kwargs=True
        )
        try:
            own = loss(model, batch)
        finally:
            handle.remove()
        args, kwargs, output = seen[-1]
        device = device_of(teacher)
        teacher.eval()
        with torch.no_grad():
            target = teacher(*to_device(args, device), **to_device(kwargs, device))
        gap = [
            _distance(mine, theirs.to(mine.device), distillation.temperature)
            for mine, theirs in zip(tensors(output), tensors(target), strict=True)
        ]
        return (1 - distillation.weight) * own + distillation.weight * torch.stack(gap).mean()

    return combined


def _distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    if student.dim() != 2:
        return functional.mse_loss(student, teacher)
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    gap = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return gap * temperature**2


@torch.no_grad()
def recalibrate_batchnorm(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    max_batches: int | None = 100,
    forward: Forward | None = None,
) -> int:
    """Measure the running mean and variance of every batch norm anew, after the layers before it changed.

    The statistics become plain averages over the batches: μ = Σ μ_b / B, likewise σ². All other layers stay
    in eval mode, so dropout stays off. Shuffle the batches: sorted classes give wrong statistics.

    Args:
        model: changed in place; a model without batch norm is left as it is.
        batches: training inputs; a few dozen batches are enough.
        max_batches: stop after so many.
        forward: `(model, batch) -> anything`; by default the first item of a batch is the input.
    Returns: the number of batches used.
    Raises: CorankError, when there was no batch; the statistics are kept then.

    >>> model = nn.Sequential(nn.BatchNorm1d(1))
    >>> recalibrate_batchnorm(model, [(torch.tensor([[1.0], [3.0]]),), (torch.tensor([[4.0], [6.0]]),)])
    2
    >>> model[0].running_mean.item()
    3.5
    """
    norms = [
        module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return 0
    iterator = iter(batches)
    try:
        first = next(iterator)
    except StopIteration:
        raise CorankError(
            "recalibrate_batchnorm: there was no batch. Give a loader with at least one."
        ) from None
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    used = 0
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
            norm.train()
        for batch in islice(chain([first], iterator), max_batches):
            (forward or run_batch)(model, to_device(batch, device_of(model)))
            used += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
    return used
