"""The singular values of a network's filters, and the rank that keeps a share of their energy.

Shapes: G groups, N filters in a group, D weights in a filter, R = min(N, D).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from corank.errors import CorankError
from corank.layers import filter_layers, filter_matrix, reject_unusable_values, unwrap
from corank.leading import gram


def filter_energies(w_GND: Tensor) -> Tensor:
    """Return the squared singular values of each group, (G, R), largest first, in float64.

    They are the eigenvalues of the smaller Gram matrix, W Wᵀ or Wᵀ W, clamped at 0: a fraction of the work
    of a full singular value decomposition, and exact to float64 rounding relative to the largest.

    >>> filter_energies(torch.diag(torch.tensor([3.0, 2.0]))[None]).tolist()
    [[9.0, 4.0]]
    """
    energies: Tensor = torch.linalg.eigvalsh(gram(w_GND))  # smallest first
    return energies.flip(-1).clamp(min=0)


def rank_at(energies_GR: Tensor, energy: float) -> int:
    """Return the smallest rank M that keeps a share of the energy in every group.

    min M : Σ_{m≤M} s_m² ≥ energy · Σ s_m². At energy 1 it is the numerical rank.

    Args:
        energies_GR: squared singular values, largest first, as `filter_energies` gives them.
        energy: the share to keep, in (0, 1]; 0.95 allows a squared relative error of 5%.
    Returns: the rank of the most demanding group, at least 1.
    Raises: CorankError, for an energy outside (0, 1].
    Source: Wen et al. 2017, their PCA ratio test (`pca`, not `svd`, whose 0.95 means energy 0.9025).

    >>> rank_at(torch.tensor([[8.0, 1.0, 1.0]]), 0.9)
    2
    """
    if not 0 < energy <= 1:
        raise CorankError(f"energy: allowed is a fraction in (0, 1], got {energy}. Use 0.95 for 95%.")
    total = energies_GR.sum(-1, keepdim=True)
    share = torch.where(total > 0, energies_GR.cumsum(-1) / total, 1.0)  # a group of zeros needs nothing
    # Rounding of the eigenvalues: what lies below it is no direction of the filters.
    rounding = energies_GR.shape[-1] * torch.finfo(torch.float64).eps
    needed = (share < energy - rounding).sum(-1) + 1
    return int(needed.clamp(max=energies_GR.shape[-1]).max())


@dataclass(frozen=True, slots=True)
class LayerSpectrum:
    """The singular values of one layer: (G, R), largest first."""

    layer: str
    full_rank: int
    singular_values: Tensor

    def rank(self, energy: float = 0.95) -> int:
        """Return the rank per group that keeps this share of the energy."""
        return rank_at(self.singular_values**2, energy)


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The spectra of a network's layers, in the network's order."""

    rows: tuple[LayerSpectrum, ...]

    def __iter__(self) -> Iterator[LayerSpectrum]:
        return iter(self.rows)

    def rank(self, energy: float = 0.95) -> dict[str, int]:
        """Return `{layer: rank per group}` that keeps this share of each layer's energy."""
        return {row.layer: row.rank(energy) for row in self.rows}

    def rank_ratio(self, energy: float = 0.95) -> float:
        """Return the mean over layers of rank / full rank, the paper's measure of how low the ranks are.

        Raises: CorankError, when there is no layer to average over.
        """
        if not self.rows:
            raise CorankError("spectrum: no layer to average over. Ask for other types or layers.")
        return sum(row.rank(energy) / row.full_rank for row in self.rows) / len(self.rows)

    def __str__(self) -> str:
        width = max((len(row.layer) for row in self.rows), default=5)
        lines = [f"{'layer':{width}}  full rank  rank at 95%  rank at 99%"]
        lines += [
            f"{row.layer:{width}}  {row.full_rank:9d}  {row.rank(0.95):11d}  {row.rank(0.99):11d}"
            for row in self.rows
        ]
        return "\n".join(lines)


def spectrum(
    model: nn.Module,
    *,
    types: Collection[str] = ("conv", "linear"),
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
) -> Spectrum:
    """Measure the singular values of every layer that holds filters.

    Args:
        model: any network.
        types: which kinds, of `conv` and `linear`.
        include: names or patterns; only these, where given.
        exclude: names or patterns left out.
    Returns: one row a layer; rank is per group.
    Raises: LayerError, for a pattern that matches nothing, or weights that are NaN, infinite or on meta.

    >>> spectrum(nn.Sequential(nn.Linear(4, 2))).rank(energy=1.0)
    {'0': 2}
    """
    layers, _ = filter_layers(unwrap(model), types=types, include=include, exclude=exclude)
    rows = []
    for name, layer in layers.items():
        reject_unusable_values(name, layer.weight)
        values = filter_energies(filter_matrix(layer)).sqrt().cpu()
        rows.append(LayerSpectrum(name, values.shape[-1], values))
    return Spectrum(tuple(rows))
