"""Other ways of lowering the rank while training, as one step of each: they all need an SVD per layer.

Each takes the convolutions of a network, flattened to filters × weights as they flatten them, and gives a
callable that is one `optimizer.step()` with the method in it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Step = Callable[[], object]
LEARNING_RATE = 1e-12  # so small that the weights stay what they are


def sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=0.9)


def kernels(model: nn.Module) -> list[Tensor]:
    return [layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d)]


def nuclear_subgradient(weight: Tensor) -> Tensor:
    """Return U Vᵀ of the filters, in the weight's shape."""
    u, _, vh = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    return (u @ vh).view_as(weight)


def truncated(weight: Tensor, energy: float) -> Tensor:
    """Return the filters cut to the rank that keeps a share of their energy, in the weight's shape."""
    u, s, vh = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    kept = int((s.square().cumsum(0) / s.square().sum() < energy).sum()) + 1
    return ((u[:, :kept] * s[:kept]) @ vh[:kept]).view_as(weight)


@torch.no_grad()
def lower_nuclear_norm(weights: Iterable[Tensor], strength: float) -> None:
    """Add a subgradient of the nuclear norm, λ U Vᵀ, to each weight's gradient."""
    for weight in weights:
        weight.grad.add_(nuclear_subgradient(weight), alpha=strength)


@torch.no_grad()
def truncate(weights: Iterable[Tensor], energy: float) -> None:
    """Cut each weight to the rank of an energy, and rebuild it."""
    for weight in weights:
        weight.copy_(truncated(weight, energy))


def pat_groups(model: nn.Module, strength: float) -> list[dict[str, object]]:
    """Return the parameters in two groups: the convolutions with PAT's proximal step, and the rest."""
    forced = kernels(model)
    mine = {id(one) for one in forced}
    options = {"prox_type": "ProxNuclearNorm", "group_type": "SVDGrouper", "reg_lambda": strength}
    rest = [one for one in model.parameters() if id(one) not in mine]
    return [{"params": forced, **options}, {"params": rest}]


def pat_step(model: nn.Module) -> Step:
    """torchao's PAT: the proximal step of the nuclear norm on each convolution, after the optimizer's."""
    from torchao.prototype.pat.optim import PruneOptimizer

    return PruneOptimizer(sgd(pat_groups(model, 1e-4))).step


def nuclear_step(model: nn.Module, strength: float = 1e-4) -> Step:
    """A subgradient of the nuclear norm, U Vᵀ, added to the gradient of each convolution."""
    optimizer = sgd(model.parameters())

    def step() -> None:
        lower_nuclear_norm(kernels(model), strength)
        optimizer.step()

    return step


def trp_step(model: nn.Module, energy: float = 0.85) -> Step:
    """Trained Rank Pruning: after the optimizer's step each convolution is cut to its rank and rebuilt."""
    optimizer = sgd(model.parameters())

    def step() -> None:
        optimizer.step()
        truncate(kernels(model), energy)

    return step


def rivals() -> tuple[dict[str, Callable[[nn.Module], Step]], str]:
    """Return those that can run here, and a line about PAT: its version, or why it is not among them."""
    found = {"nuclear-norm subgradient": nuclear_step, "TRP truncation": trp_step}
    if importlib.util.find_spec("torchao") is None:
        return found, "torchao PAT was not measured: torchao is not installed."
    version = importlib.metadata.version("torchao")
    return {"torchao PAT, SVD step": pat_step, **found}, f"PAT is that of torchao {version}."
