"""A user's problem: data, loss and metrics, in one value that training, choosing and judging share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from corank.errors import CorankError
from corank.inputs import Example, call, run_batch, to_device

Loader: TypeAlias = Iterable[Any]


@dataclass(frozen=True, slots=True)
class Classified:
    """What a classifier said of each sample, in the loader's order: three tensors (n,).

    `confidence` is the probability that it gave its prediction.
    """

    labels: Tensor
    predictions: Tensor
    confidence: Tensor


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured value, and what its statistics need.

    Args:
        value: the metric.
        higher_is_better: its direction.
        per_sample: (n,) or (n, k), one row a sample, for paired statistics.
        reduce: how the value follows from `per_sample`; None is the mean.
        classified: labels, predictions and confidences, for classes, flips and calibration.
    """

    value: float
    higher_is_better: bool = True
    per_sample: Tensor | None = None
    reduce: Callable[[Tensor], float] | None = None
    classified: Classified | None = None


@dataclass(frozen=True, slots=True)
class Pixels:
    """How inputs came from images in [0, 1]: (pixel − mean) / std, by channel.

    Args:
        mean, std: (channels,), or one number for all of them.

    >>> scale = Pixels((0.5,), (0.25,))
    >>> scale.to_unit(scale.from_unit(torch.full((1, 1, 2, 2), 0.75))).unique().item()
    0.75
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or not all(one > 0 for one in self.std):
            raise CorankError(
                f"pixels: allowed are as many means as stds, each std above 0; got {self.mean}, {self.std}."
            )

    def to_unit(self, inputs: Tensor) -> Tensor:
        """Turn inputs (n, c, h, w) back to images in [0, 1]."""
        mean, std = self._shaped(inputs)
        return (inputs * std + mean).clamp(0, 1)

    def from_unit(self, images: Tensor) -> Tensor:
        """Turn images in [0, 1] to inputs."""
        mean, std = self._shaped(images)
        return (images - mean) / std

    def _shaped(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (images.new_tensor(one).view(1, -1, 1, 1) for one in (self.mean, self.std))
        return mean, std


Loss: TypeAlias = Callable[[nn.Module, Any], Tensor]
Evaluate: TypeAlias = Callable[[nn.Module, Loader], Mapping[str, Metric]]
Slices: TypeAlias = Mapping[str, Tensor | Sequence[bool | int | str]]


@dataclass(frozen=True, slots=True)
class Task:
    """How a problem enters corank.

    Args:
        train: batches to train on; iterated once an epoch.
        dev: batches on which every choice is made.
        final: batches that are read once, for the last figures.
        loss: `(model, batch) -> scalar`.
        evaluate: `(model, loader) -> {name: Metric}`; the first metric is the one that decides.
        example: one input of the model, as it will be served.
        slices: parts of final to look at apart: `{name: flags or labels}`, one value a sample in the order of
            final. Flags make one slice; labels, texts or whole numbers, make one each, called `name=label`.
        pixels: how inputs came from images in [0, 1], where they are images; drift needs it.
    """

    train: Loader
    dev: Loader
    final: Loader
    loss: Loss
    evaluate: Evaluate
    example: Example
    slices: Slices | None = None
    pixels: Pixels | None = None


def classification(
    train: Loader,
    dev: Loader,
    final: Loader,
    example: Example,
    slices: Slices | None = None,
    pixels: Pixels | None = None,
) -> Task:
    """Make the task of batches `(input, label)`: cross-entropy, and accuracy with its samples.

    >>> batches = [(torch.eye(2), torch.tensor([0, 1]))]
    >>> task = classification(batches, batches, batches, example=torch.eye(2))
    >>> task.evaluate(nn.Identity(), task.dev)["accuracy"].value
    1.0
    """
    return Task(train, dev, final, cross_entropy, evaluate_accuracy, example, slices, pixels)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """Return the mean cross-entropy of a batch `(input, label)`.

    >>> cross_entropy(nn.Identity(), (torch.zeros(1, 2), torch.tensor([0]))).item()  # log 2
    0.6931471824645996
    """
    inputs, labels = to_device(batch, device_of(model))
    return functional.cross_entropy(run_batch(model, (inputs,)), labels)


@torch.no_grad()
def evaluate_accuracy(model: nn.Module, loader: Loader) -> dict[str, Metric]:
    """Measure top-1 accuracy on batches `(input, label)`, in eval mode; the mode is put back.

    Returns: `{"accuracy": Metric}`, a fraction, with one 0 or 1 for each sample in the loader's order,
        and what the network said of it.
    Raises: CorankError, for a loader without samples.
    """
    training, device = model.training, device_of(model)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    model.eval()
    try:
        for batch in loader:
            inputs, labels = to_device(batch, device)
            logits = call(model, inputs)
            predictions = logits.argmax(1)  # of the logits: where softmax saturates, all are alike
            confidence = logits.float().softmax(1).amax(1)
            seen.append((labels.cpu(), predictions.cpu(), confidence.cpu()))
    finally:
        model.train(training)
    if not seen:
        raise CorankError("evaluate: the loader has no samples. Give at least one batch.")
    classified = Classified(*(torch.cat(column) for column in zip(*seen, strict=True)))
    correct = (classified.predictions == classified.labels).float()
    single = classified if correct.dim() == 1 else None  # one label a sample, not one a pixel
    return {"accuracy": Metric(correct.mean().item(), per_sample=correct, classified=single)}
