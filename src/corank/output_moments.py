"""A running estimate of what a layer puts out, gathered while it trains, without an extra forward pass.

Shapes: G groups, N filters in a group, D weights in a filter, T positions, R rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from corank.distributed import all_reduce_
from corank.errors import CorankError
from corank.forced_layers import ForcedLayer
from corank.layers import FilterLayer, groups
from corank.spectra import rank_at

DECAY = 0.9  # of what was seen before, at each observation
OBSERVE_EVERY = 8  # forward passes; each costs N² · T multiplications
POSITIONS = 2048  # T at most, spread evenly over the samples and places of a batch


class OutputMoments:
    """Weighted sums of the outputs of some layers, from a forward hook on each.

    Only passes that record gradients count, so validation under `torch.no_grad` leaves no mark. The bias and
    any constant cancel in the covariance.
    """

    def __init__(self, layers: Iterable[ForcedLayer]) -> None:
        self._layers = {one.name: one.layer for one in layers}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._passes = dict.fromkeys(self._layers, 0)
        self._sums: dict[str, list[Tensor]] = {}  # weight of the positions (), Σy (G, N), Σyyᵀ (G, N, N)

    def watch(self) -> None:
        """Put a forward hook on each layer."""
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name)))

    def stop(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str) -> Any:
        # Not compiled: it keeps state, and a graph per count of passes would be compiled otherwise.
        @torch.compiler.disable  # type: ignore[untyped-decorator]
        def observe(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if torch.is_grad_enabled():
                self._observe(name, output.detach())

        return observe

    @torch.no_grad()
    def _observe(self, name: str, output: Tensor) -> None:
        count, self._passes[name] = self._passes[name], self._passes[name] + 1
        if count % OBSERVE_EVERY:
            return
        # Under autocast the outputs, and the product of them, would be of 8 bits.
        with torch.autocast(output.device.type, enabled=False):
            output = output if output.dtype == torch.float64 else output.float()
            y_GNT = output_columns(self._layers[name], output, POSITIONS)
            new = [torch.full_like(y_GNT[0, 0, 0], y_GNT.shape[-1]), y_GNT.sum(-1), y_GNT @ y_GNT.mT]
        if name not in self._sums:
            self._sums[name] = new
        else:
            for old, addition in zip(self._sums[name], new, strict=True):
                old.mul_(DECAY).add_(addition)

    def basis(self, name: str, w_GND: Tensor, *, energy: float, rank: int | None) -> Tensor:
        """Return the leading eigenvectors of a layer's output covariance, U (G, N, R), in float32.

        Outputs lie in the span of W, so that for N > D the covariance is reduced to that span, D × D. Sums of
        all processes are added; every process must call it.

        Args:
            name: the layer.
            w_GND: its filters.
            energy: the share of the outputs' variance that R keeps, where `rank` is None.
            rank: R.
        Raises: CorankError, when no output was seen.
        """
        if name not in self._sums:
            raise CorankError(
                f"{name}: the output force has seen no output of it. Attach before the first forward pass, "
                "and before the first call of a compiled model."
            )
        weight, first, second = (one.clone() for one in self._sums[name])
        all_reduce_((weight, first, second))
        mean_GN = (first / weight).double()
        covariance = (second / weight).double() - mean_GN[..., None] * mean_GN[..., None, :]
        span = None
        if w_GND.shape[1] > w_GND.shape[2]:
            span = torch.linalg.qr(w_GND.double()).Q
            covariance = span.mT @ covariance @ span
        variances, vectors = torch.linalg.eigh(covariance)
        if rank is None:
            rank = rank_at(variances.flip(-1).clamp(min=0), energy)
        u_GNR = vectors[..., -rank:].flip(-1)
        basis: Tensor = u_GNR if span is None else span @ u_GNR
        return basis.float()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums and the counts of passes."""
        sums = {name: [one.clone() for one in three] for name, three in self._sums.items()}
        return {"passes": dict(self._passes), "sums": sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, on the device of the weights."""
        self._passes.update(state["passes"])
        self._sums = {
            name: [one.clone().to(self._layers[name].weight.device) for one in three]
            for name, three in state["sums"].items()
        }


def output_columns(layer: FilterLayer, output: Tensor, most: int) -> Tensor:
    """Reshape a layer's output into (G, N, T) in float32 or better, at most about `most` positions of it.

    >>> output_columns(nn.Conv2d(1, 4, 3, groups=1), torch.ones(2, 4, 5, 5), 10).shape
    torch.Size([1, 4, 10])
    """
    if isinstance(layer, nn.Linear):
        y_BNS = output.reshape(-1, output.shape[-1], 1)
    else:
        y_BNS = (output if output.dim() == layer.weight.dim() else output[None]).flatten(2)
    y_BNS = _thin(y_BNS, 2, -(-most // y_BNS.shape[0]))  # fewer places of each sample first
    y_BNS = _thin(y_BNS, 0, -(-most // y_BNS.shape[2]))
    y = y_BNS.transpose(0, 1).flatten(1).to(torch.promote_types(output.dtype, torch.float32))
    return y.reshape(groups(layer), -1, y.shape[-1])


def _thin(tensor: Tensor, dim: int, most: int) -> Tensor:
    size = tensor.shape[dim]
    if size <= most:
        return tensor
    # Even steps that are no whole number, so that they do not stay in one column of a map.
    return tensor.index_select(dim, torch.linspace(0, size - 1, most, device=tensor.device).long())
