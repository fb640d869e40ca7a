"""Make a network sparse, at once: a copy with zeros in its weights, or with fewer channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from corank.errors import CorankError
from corank.extras import import_extra
from corank.inputs import Example
from corank.layers import copy_network, reject_unusable_values, unwrap
from corank.sparsity.channels import prune_channels
from corank.sparsity.choice import choose
from corank.sparsity.sparsifier import masks_of
from corank.sparsity.specs import Channels, CutSpec, MaskSpec, SemiStructured, Unstructured, require_specs


@dataclass(frozen=True, slots=True)
class Sparsified:
    """A sparse network, what was done to each layer, and why the others were left alone."""

    model: nn.Module
    layers: Mapping[str, str]
    skipped: Mapping[str, str]

    def __str__(self) -> str:
        width = max((len(name) for name in (*self.layers, *self.skipped)), default=0)
        lines = [f"{name:{width}}  {done}" for name, done in self.layers.items()]
        return "\n".join(
            [*lines, *(f"{name:{width}}  left alone: {why}" for name, why in self.skipped.items())]
        )


def sparsify(model: nn.Module, *specs: CutSpec, example: Example | None = None) -> Sparsified:
    """Copy a network and make the copy sparse, one spec after the other.

    A schedule is taken at its end. Dense or decomposed networks are taken alike, and what comes out is stock
    modules with plain weights: train it on with `Sparsifier(result.model)`, which keeps the zeros, and save,
    load, export and decompose it like any other.

    Args:
        model: any network, wrapped or not; it is not touched.
        specs: `Unstructured`, `SemiStructured` and `Channels`, in the order in which they are to act.
        example: one input; `Channels` needs it.
    Returns: a Sparsified: `model`, `layers`, `skipped`.
    Raises: CorankError, for a spec that acts only in training, or no example; LayerError, when a spec has no
        layer, or for weights that are NaN, infinite or on the meta device; ExtraError, without Torch-Pruning.

    >>> result = sparsify(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), Unstructured(0.75))
    >>> sum(int((one == 0).sum()) for one in result.model.parameters())
    60
    """
    if not specs:
        raise CorankError("sparsify: there is nothing to do. Give a spec, such as corank.Unstructured(0.8).")
    require_specs(
        specs,
        (Unstructured, SemiStructured, Channels),
        "sparsify",
        "GroupLasso acts while a network trains: give it to corank.Sparsifier.",
    )
    if any(isinstance(spec, Channels) for spec in specs):
        if example is None:
            raise CorankError("sparsify: Channels follows one run of the network. Give an input as example=.")
        import_extra("torch_pruning", "prune")
    model = unwrap(model)
    for spec in specs:  # every pattern is tried before any work
        for name, layer in choose(model, spec)[0].items():
            reject_unusable_values(name, layer.weight)
    copy = copy_network(model)
    notes: dict[str, list[str]] = {}
    acted: set[str] = set()
    for spec in specs:
        if isinstance(spec, Channels):
            assert example is not None  # checked above
            copy, done, left = prune_channels(copy, spec, example)
        else:
            done, left = _zero(copy, spec)
        acted |= set(done)
        for name, text in done.items():
            notes.setdefault(name, []).append(text)
        for name, why in left.items():
            notes.setdefault(name, []).append(why if len(specs) == 1 else f"{type(spec).__name__}: {why}")
    layers: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for name, texts in notes.items():
        (layers if name in acted else skipped)[name] = "; ".join(texts)
    return Sparsified(copy, layers, skipped)


@torch.no_grad()
def _zero(model: nn.Module, spec: MaskSpec) -> tuple[dict[str, str], dict[str, str]]:
    layers, left = choose(model, spec)
    last = spec.last if isinstance(spec, Unstructured) else 0
    for name, mask in masks_of(spec, layers, last).items():
        layers[name].weight.masked_fill_(~mask, 0.0)  # times the mask, half of the zeros were −0
    shares = {name: (one.weight == 0).float().mean().item() for name, one in layers.items()}
    return {name: f"{share:.1%} zeros" for name, share in shares.items()}, left
