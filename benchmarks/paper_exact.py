"""What can be checked of Wen et al. 2017 without training anything: counts, the force, what a ratio means.

Run: python -m benchmarks.paper_exact [--seed 0]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import corank
from benchmarks.alexnet_ranks import counted_speedup, group_of
from benchmarks.cifar import ResNet
from benchmarks.networks import alexnet_features
from benchmarks.record import describe_run, store, table
from corank.force import l1_force, l2_force
from corank.spectra import filter_energies, rank_at

# Table 4: the rank of conv3, conv4 and conv5, and the theoretical speedup, without force and with ℓ2
TABLE_4 = {
    "no force": {"conv3": (184, 1.79), "conv4": (201, 1.72), "conv5": (146, 1.63)},
    "ℓ2 force": {"conv3": (124, 2.65), "conv4": (106, 3.26), "conv5": (129, 1.85)},
}
# Figure 5, ResNet-20, exact by the author: the ranks of the 19 convolutions at 5% error
FIGURE_5 = {
    "no force": "8 13 13 14 14 14 13 23 26 27 28 28 28 47 54 56 55 56 31",
    "ℓ2 force": "8 9 10 10 10 9 10 8 9 9 10 9 8 2 1 1 1 1 1",
}
# derived from them: multiply-accumulates, weights, mean rank ratio
COUNTED = {"no force": (1.09, 1.12, 0.80), "ℓ2 force": (2.87, 9.13, 0.31)}


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of the paper and the same of this library; within half of the last digit given."""

    what: str
    theirs: float
    ours: float
    within: float = 0.005

    @property
    def holds(self) -> bool:
        """Whether they are the same."""
        return abs(self.theirs - self.ours) <= self.within


def check_all(seed: int = 0) -> list[Check]:
    """Return every check."""
    return [*check_table_4(), *check_figure_5(), *check_force(seed), *check_ratios(seed)]


def check_table_4() -> Iterator[Check]:
    """N·D / (M·(D + N)) of AlexNet's layers, from ranks and shapes."""
    layers = dict(alexnet_features().named_children())
    for row, columns in TABLE_4.items():
        for name, (rank, published) in columns.items():
            ours = counted_speedup(group_of(layers[name]), rank)
            yield Check(f"Table 4, {row}: theoretical speedup of {name} at rank {rank}", published, ours)


def check_figure_5() -> Iterator[Check]:
    """ResNet-20 at the published ranks, planned and counted by corank."""
    network = ResNet(3)
    convolutions = [name for name, one in network.named_modules() if isinstance(one, nn.Conv2d)]
    for row, text in FIGURE_5.items():
        ranks = dict(zip(convolutions, map(int, text.split()), strict=True))
        made = corank.plan(network, corank.Ranks(ranks), example=torch.zeros(1, 3, 32, 32))
        choices = made.layers.values()
        macs, weights, ratio = COUNTED[row]
        before, after = (sum(getattr(one, part).macs for one in choices) for part in ("before", "after"))
        yield Check(
            f"ResNet-20, ranks of Figure 5, {row}: multiply-accumulates, times fewer", macs, before / after
        )
        before, after = (sum(getattr(one, part).params for one in choices) for part in ("before", "after"))
        yield Check(f"ResNet-20, ranks of Figure 5, {row}: weights, times fewer", weights, before / after)
        mean = sum(one.rank / one.full_rank for one in choices) / len(ranks)
        yield Check(f"ResNet-20, ranks of Figure 5, {row}: mean rank ratio", ratio, mean)


def check_force(seed: int) -> Iterator[Check]:
    """ΔW_i = −(‖W_i‖² / 2) ∂R/∂W_i, with R by autograd in float64."""
    for name, force, energy in (("ℓ2", l2_force, l2_energy), ("ℓ1", l1_force, l1_energy)):
        w = torch.randn(12, 27, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        w.requires_grad_()
        (gradient,) = torch.autograd.grad(energy(w), w)
        wanted = -(w.norm(dim=1, keepdim=True) ** 2) / 2 * gradient
        error = (force(w.detach()) - wanted).norm() / wanted.norm()
        yield Check(f"{name} force: relative distance from −½‖W‖²·∂R/∂W", 0.0, error.item(), 1e-6)


def l2_energy(w: Tensor) -> Tensor:
    """½ Σ_j Σ_i ‖u_i − u_j‖², of unit filters u."""
    u = nn.functional.normalize(w)
    return 0.5 * ((u[:, None] - u[None]) ** 2).sum()


def l1_energy(w: Tensor) -> Tensor:
    """Σ_j Σ_i ‖u_i − u_j‖, of unit filters u."""
    u = nn.functional.normalize(w)
    i, j = torch.triu_indices(len(u), len(u), 1)
    return 2 * (u[i] - u[j]).norm(dim=1).sum()


def check_ratios(seed: int) -> Iterator[Check]:
    """The rank of a ratio of 0.95 by the original code's `pca` and `svd`, each done as it is there."""
    draw = torch.Generator().manual_seed(seed)
    w = torch.randn(64, 64, generator=draw, dtype=torch.float64) @ torch.randn(
        64, 144, generator=draw, dtype=torch.float64
    )
    energies = filter_energies(w[None])
    covariance = torch.linalg.eigvalsh(w @ w.T / 143).flip(0)  # of X Xᵀ / (D − 1), no mean taken off
    pca = int((covariance.cumsum(0) / covariance.sum() < 0.95).sum()) + 1
    yield Check("`pca` at 0.95 is Energy(0.95): rank", pca, rank_at(energies, 0.95), 0)
    values = torch.linalg.svdvals(w)
    svd = int(((values**2).cumsum(0).sqrt() / values.norm() < 0.95).sum()) + 1
    yield Check("`svd` at 0.95 is Energy(0.9025): rank", svd, rank_at(energies, 0.95**2), 0)
    yield Check("the two differ: ranks apart (at least one)", 1, min(pca - svd, 1), 0)


def page(checks: list[Check]) -> str:
    """Write the checks as a table."""
    rows = [
        [one.what, f"{one.theirs:g}", f"{one.ours:.3g}", "yes" if one.holds else "**no**"] for one in checks
    ]
    held = sum(one.holds for one in checks)
    return (
        f"{held} of {len(checks)} hold. Nothing is trained; CI runs the same checks.\n\n"
        + table(["what", "paper", "corank", "holds"], rows)
        + "\n\nThe ranks are those of the poster and of the author's answer to issue 29 of wenwei202/caffe; "
        "the counts of ResNet-20 are of its 19 convolutions of 3×3."
    )


def main() -> None:
    """Run every check and store the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    checks = check_all(options.seed)
    data = [{"what": one.what, "paper": one.theirs, "corank": one.ours, "holds": one.holds} for one in checks]
    store(
        "paper_exact", "The paper, checked without training", page(checks), data, describe_run(options.seed)
    )


if __name__ == "__main__":
    main()
