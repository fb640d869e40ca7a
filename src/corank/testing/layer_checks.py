"""What a method must do with one layer: each check takes both and returns what it found.

Shapes: G groups, N filters in a group, D weights in a filter, R directions of a spectrum.
"""

from __future__ import annotations

import copy
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from corank.layers import FilterLayer, filter_matrix
from corank.methods import METHODS, Method, default_method, fold
from corank.methods.projection import reconstruction_error
from corank.planning import plan
from corank.rules import Energy
from corank.store import load, save
from corank.testing.cases import LayerCase
from corank.testing.rows import LIMITS, Finding, difference, same_bits, within, without

LayerCheck = Callable[[Method, LayerCase], Finding]

_ROUNDING = 2e-7  # of a relative error of weights in float64: the square root of what is lost in its square

_TINY = torch.finfo(torch.float64).tiny
_ORACLE = 1e-9  # of energies, relative to the largest


def refusal(method: Method, case: LayerCase) -> Finding:
    """Check that a refusal is repeated by the plan under the layer's name, and that its way out is one."""
    layer, x = case.build()
    reason = method.refusal(layer) or ""
    problems = []
    others = [other for other in METHODS.values() if type(other).__name__ in reason.partition("use ")[2]]
    if not others:
        problems.append(f"no next step in {reason!r}")
    problems += [f"it names {o.name}, which refuses too" for o in others if o.refusal(layer) is not None]
    if METHODS.get(method.name) is method:
        network = nn.Sequential(OrderedDict(named=layer))
        made = plan(network, Energy(0.9), example=x, methods={"named": method.name})
        if made.skipped != {"named": reason}:
            problems.append(f"the plan says {dict(made.skipped)}")
    finding = without(problems)
    return finding if problems else finding._replace(note=reason)


def full_rank(method: Method, case: LayerCase, dtype: torch.dtype) -> Finding:
    """Check that the split at full rank computes what the layer does, in the layer's dtype."""
    layer, x = case.build(dtype)
    with torch.no_grad():
        split = method.factors(layer, method.full_rank(layer))
        return within(difference(split(x), layer(x)), LIMITS[dtype])


def error_per_rank(method: Method, case: LayerCase) -> Finding:
    """Check that the error of the weights never rises with the rank and is the tail of the energies.

    The figure is the largest distance from the tail. The default method's energies must be torch's own
    singular values. A method without a spectrum is held to bounds: below 1, above the truncated SVD.
    """
    layer, _ = case.build(torch.float64)
    energies_GR = method.energies(layer)
    if energies_GR is None:
        return _bounded(method, layer)
    tails = _tails(energies_GR)
    errors = [_weight_error(method, layer, rank) for rank in range(1, method.full_rank(layer) + 1)]
    apart = max(abs(error - tail) for error, tail in zip(errors, tails, strict=True))
    if method is default_method(layer):
        values = torch.linalg.svdvals(filter_matrix(layer).detach()).square()
        wrong = float((energies_GR - values).abs().max() / values.max().clamp(min=_TINY))
        if wrong > _ORACLE:
            return Finding(False, wrong, _ORACLE, "the energies are not the squared singular values")
    rise = max((after - before for before, after in pairwise(errors)), default=0.0)
    if rise > _ROUNDING:
        return Finding(False, rise, _ROUNDING, "the error rises with the rank")
    return within(apart, _ROUNDING)


def _tails(energies_GR: Tensor) -> list[float]:
    """Return √(Σ_{m>M} e_m / Σ e_m) for M = 1 to R, over all groups."""
    kept = energies_GR.sum(0).cumsum(0)
    total = kept[-1].clamp(min=_TINY)  # a layer of zeros loses nothing
    tails: list[float] = ((kept[-1] - kept) / total).clamp(min=0).sqrt().tolist()
    return tails


def _weight_error(method: Method, layer: FilterLayer, rank: int) -> float:
    return reconstruction_error(layer, fold(method.factors(layer, rank)))


def _bounded(method: Method, layer: FilterLayer) -> Finding:
    rank = max(method.full_rank(layer) // 2, 1)
    error = _weight_error(method, layer, rank)
    best = default_method(layer)  # no split whose filters span M directions has a smaller error
    bound = _weight_error(best, layer, min(rank, best.full_rank(layer)))
    if error < bound - 1e-9:
        return Finding(False, error, bound, "smaller than the error of the best approximation")
    note = f"no spectrum: at rank {rank}, between the truncated SVD's {bound:.2g} and 1"
    return Finding(error < 1, error, 1.0, note)


def folding(method: Method, case: LayerCase) -> Finding:
    """Check that any split, however trained, folds into one layer with the geometry of the original."""
    layer, x = case.build(torch.float64)
    split = method.factors(layer, method.full_rank(layer))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in split.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
        folded = fold(split)
        if repr(folded) != repr(layer):
            return Finding(False, note=f"folds into {folded}, not {layer}")
        return within(difference(folded(x), split(x)), LIMITS[torch.float64])


def structure(method: Method, case: LayerCase) -> Finding:
    """Check that the structure has no weights, and the shapes and dtypes that the factors fill."""
    layer, _ = case.build()
    problems = []
    for rank in {1, method.full_rank(layer)}:
        empty, split = method.structure(layer, rank), method.factors(layer, rank)
        if not all(parameter.is_meta for parameter in empty.parameters()):
            problems.append(f"the structure of rank {rank} has weights")
        if repr(empty) != repr(split) or _shapes(empty) != _shapes(split):
            problems.append(f"the structure of rank {rank} is {empty}, its factors are {split}")
    return without(problems)


def _shapes(module: nn.Module) -> list[tuple[object, ...]]:
    return [(name, tuple(value.shape), value.dtype) for name, value in module.named_parameters()]


def stock(method: Method, case: LayerCase) -> Finding:
    """Check that the split is an `nn.Sequential` of layers that torch itself ships."""
    layer, _ = case.build()
    split = method.factors(layer, method.full_rank(layer))
    kinds = [type(split), *(type(part) for part in split.modules())]
    foreign = {kind for kind in kinds if not kind.__module__.startswith("torch.nn.modules.")}
    problems = [f"{kind.__module__}.{kind.__qualname__} is not torch's" for kind in foreign]
    return without(problems if type(split) is nn.Sequential else [*problems, f"is a {type(split).__name__}"])


def form(method: Method, case: LayerCase) -> Finding:
    """Check that dtype, mode, frozen state and memory format of weights and outputs are the layer's."""
    problems = []
    for dtype, frozen in ((torch.float32, False), (torch.bfloat16, True)):
        layer, x = case.build(dtype)
        layer.eval()
        layer.weight.requires_grad_(layer.weight.requires_grad and not frozen)
        layout = _layout(layer.weight)
        x = x.contiguous(memory_format=layout)
        split = method.factors(layer, method.full_rank(layer))
        if any(parameter.dtype != dtype for parameter in split.parameters()):
            problems.append(f"a weight is not {dtype}")
        if any(module.training for module in split.modules()):
            problems.append("is in train mode, the layer in eval mode")
        flags = {name: value.requires_grad for name, value in layer.named_parameters()}
        own = {name: value.requires_grad for name, value in split.named_parameters()}
        if any(free != flags[name.rpartition(".")[2]] for name, free in own.items()):
            problems.append(f"the layer's parameters want gradients so: {flags}, the split's: {own}")
        weights = [value for name, value in split.named_parameters() if name.endswith("weight")]
        if not all(weight.is_contiguous(memory_format=layout) for weight in weights):
            problems.append(f"a weight is not in {layout}")
        # in three dimensions torch's own 1×1×1 convolution gives a channels_last input back as contiguous
        if x.dim() < 5 and layer(x).stride() != split(x).stride():
            problems.append("its output lies otherwise in memory")
    return without(problems)


def _layout(weight: Tensor) -> torch.memory_format:
    for layout, dims in ((torch.channels_last, 4), (torch.channels_last_3d, 5)):
        if weight.dim() == dims and weight.is_contiguous(memory_format=layout) and not weight.is_contiguous():
            return layout
    return torch.contiguous_format


def geometry(method: Method, case: LayerCase) -> Finding:
    """Check the output's shape at rank 1 and full rank, on other sizes, and on one sample without a batch."""
    layer, x = case.build()
    problems = []
    with torch.no_grad():
        larger = x if isinstance(layer, nn.Linear) else nn.functional.pad(x, [0, 1] * (x.dim() - 2))
        for rank in {1, method.full_rank(layer)}:
            split = method.factors(layer, rank)
            for value in (x, larger, torch.cat([x, x, x]), x[0]):
                wanted, got = layer(value).shape, split(value).shape
                if wanted != got:
                    problems.append(f"rank {rank} makes {tuple(got)} of {tuple(value.shape)}: {wanted}")
    return without(problems)


def training(method: Method, case: LayerCase) -> Finding:
    """Check that one step of SGD changes every parameter, but what the layer holds frozen."""
    layer, x = case.build()
    split = method.factors(layer, max(method.full_rank(layer) // 2, 1)).train()
    frozen = {name for name, value in layer.named_parameters() if not value.requires_grad}
    trained = [parameter for parameter in split.parameters() if parameter.requires_grad]
    before = copy.deepcopy(split.state_dict())
    if trained:
        (split(x) - 1).square().mean().backward()
        torch.optim.SGD(trained, lr=0.1).step()
    problems = []
    for name, value in split.named_parameters():
        still = torch.equal(value, before[name])
        if still != (name.rpartition(".")[2] in frozen):
            problems.append(f"{name} {'did not change' if still else 'changed, and is frozen'}")
    return without(problems)


def copying(method: Method, case: LayerCase) -> Finding:
    """Check that a deep copy computes the same bits and shares no memory."""
    layer, x = case.build()
    split = method.factors(layer, method.full_rank(layer))
    twin = copy.deepcopy(split)
    with torch.no_grad():
        problems = [] if same_bits(twin(x), split(x)) else ["a copy computes something else"]
        memory = {parameter.data_ptr() for parameter in split.parameters()}
    shared = any(parameter.data_ptr() in memory for parameter in twin.parameters())
    return without([*problems, "a copy shares memory"] if shared else problems)


def state_dict(method: Method, case: LayerCase) -> Finding:
    """Check that the structure, filled from the state dict, computes the same bits."""
    layer, x = case.build()
    rank = method.full_rank(layer)
    split = method.factors(layer, rank)
    twin = method.structure(layer, rank).to_empty(device="cpu")
    for mine, theirs in zip(twin.parameters(), split.parameters(), strict=True):
        mine.data = torch.empty_like(theirs)  # with its strides: another layout may round otherwise
    twin.load_state_dict(split.state_dict())
    with torch.no_grad():
        return without([] if same_bits(twin(x), split(x)) else ["computes something else"])


def saving(method: Method, case: LayerCase) -> Finding:
    """Check that the split comes back from a corank file bit by bit."""
    layer, x = case.build()
    small = nn.Sequential(method.factors(layer, method.full_rank(layer)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "split.safetensors"
        save(small, file, reference=nn.Sequential(layer))
        again = load(file, nn.Sequential(layer))
    with torch.no_grad():
        same = repr(again) == repr(small) and same_bits(again(x), small(x))
    return without([] if same else ["comes back changed"])


LAYER_CHECKS: dict[str, LayerCheck] = {
    **{f"full rank, {str(dtype)[6:]}": partial(full_rank, dtype=dtype) for dtype in LIMITS},
    "error per rank": error_per_rank,
    "folds back": folding,
    "structure": structure,
    "stock modules": stock,
    "form kept": form,
    "geometry kept": geometry,
    "trains": training,
    "deep copy": copying,
    "state dict": state_dict,
    "save and load": saving,
}
