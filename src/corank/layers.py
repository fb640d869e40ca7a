"""Which layers hold filters, each as one matrix per group, and how a layer is replaced.

Shapes: G groups, N filters in a group, D weights in a filter.
"""

from __future__ import annotations

import copy
import difflib
import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, TypeAlias, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, is_lazy
from torch.nn.utils import parametrize

from corank.errors import LayerError

Conv: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
ConvTranspose: TypeAlias = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
FilterLayer: TypeAlias = Conv | ConvTranspose | nn.Linear
LayerType = Literal["conv", "linear"]

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_CONVS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYER_TYPES: tuple[LayerType, ...] = ("conv", "linear")
_BASES: tuple[type[nn.Module], ...] = (*CONVS, *TRANSPOSED_CONVS, nn.Linear)
_WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before a name


def clean_name(name: str) -> str:
    """Strip the parts that wrappers add to a layer's name.

    >>> clean_name("module._orig_mod.layer1.0.conv1")
    'layer1.0.conv1'
    """
    parts = name.split(".")
    return ".".join(part for part in parts if f"{part}." not in _WRAPPERS)


def layer_type(module: nn.Module) -> LayerType | None:
    """Say what kind of filters a module holds: `conv` (transposed ones too), `linear`, or None."""
    if isinstance(module, nn.Linear):
        return "linear"
    return "conv" if isinstance(module, _BASES) else None


def is_transposed(layer: nn.Module) -> TypeGuard[ConvTranspose]:
    """Say whether a layer is a transposed convolution, whose filters lie along dim 1."""
    return isinstance(layer, TRANSPOSED_CONVS)


def is_conv(layer: nn.Module) -> TypeGuard[Conv | ConvTranspose]:
    """Say whether a layer is a convolution, transposed or not."""
    return isinstance(layer, (*CONVS, *TRANSPOSED_CONVS))


def groups(layer: FilterLayer) -> int:
    """Return the number of groups G; filters of different groups see different inputs."""
    return 1 if isinstance(layer, nn.Linear) else layer.groups


def to_filters(tensor: Tensor, layer: FilterLayer) -> Tensor:
    """Reshape a tensor of the weight's shape into one row per filter, (G, N, D).

    It is a view for all but transposed convolutions, whose filters are not contiguous.

    >>> to_filters(torch.ones(8, 2, 3, 3), nn.Conv2d(4, 8, 3, groups=2)).shape
    torch.Size([2, 4, 18])
    """
    g = groups(layer)
    if is_transposed(layer):
        c, n, *kernel = tensor.shape
        return tensor.reshape(g, c // g, n, *kernel).transpose(1, 2).flatten(2)
    return tensor.reshape(g, tensor.shape[0] // g, -1)


def from_filters(w_GND: Tensor, layer: FilterLayer) -> Tensor:
    """Undo `to_filters`: (G, N, D) back to the shape of the layer's weight.

    >>> layer = nn.ConvTranspose2d(4, 6, 3, groups=2)
    >>> torch.equal(from_filters(to_filters(layer.weight, layer), layer), layer.weight)
    True
    """
    if is_transposed(layer):
        g, n, _ = w_GND.shape
        c, _, *kernel = layer.weight.shape
        return w_GND.reshape(g, n, c // g, *kernel).transpose(1, 2).reshape(layer.weight.shape)
    return w_GND.reshape(layer.weight.shape)


def filter_matrix(layer: FilterLayer) -> Tensor:
    """Return a layer's weight as one row per filter, (G, N, D)."""
    return to_filters(layer.weight, layer)


def full_rank(layer: FilterLayer) -> int:
    """Return the largest rank that the filters of one group can have, min(N, D)."""
    g = groups(layer)
    n = layer.weight.shape[1] if is_transposed(layer) else layer.weight.shape[0] // g
    return min(n, layer.weight.numel() // (g * n))


def refusal(module: nn.Module) -> str | None:
    """Say why the weight of a module cannot be read or replaced as plain filters; None where it can."""
    kind = type(module)
    if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
        return f"{kind.__name__} has no shape yet: run one forward pass first"
    if parametrize.is_parametrized(module):
        return f"{kind.__name__} is parametrized: torch.nn.utils.parametrize.remove_parametrizations it first"
    base = next((base for base in _BASES if isinstance(module, base)), None)
    if base is None and _packs_its_weight(module):
        return f"{kind.__name__} of {kind.__module__} is quantized: split the network first, then quantize it"
    if base is None:
        return f"{kind.__name__} is not a convolution or a linear layer"
    weight = module._parameters.get("weight")
    if not isinstance(weight, nn.Parameter):
        return (
            f"{kind.__name__} computes its weight (weight norm, spectral norm or pruning): remove that first"
        )
    if weight.layout != torch.strided or not weight.is_floating_point():
        return (
            f"{kind.__name__} has a weight of {weight.dtype} and {weight.layout}, not dense real numbers: "
            "convert it first"
        )
    stock = base.forward, getattr(base, "_conv_forward", None)
    if (kind.forward, getattr(kind, "_conv_forward", None)) != stock or "forward" in vars(module):
        return f"{kind.__name__} changes the forward of {base.__name__}"
    return None


def _packs_its_weight(module: nn.Module) -> bool:
    """Say whether a layer is one of torch's quantized ones: no parameter, but a method `weight`."""
    return callable(getattr(type(module), "weight", None))


def named_weighted(model: nn.Module) -> dict[str, nn.Module]:
    """Return every module that itself owns a weight of two or more dimensions, by clean name.

    A module that is used under several names appears once, under its first name.
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        name = clean_name(name)
        if "parametrizations" in name.split("."):
            continue  # the inside of a parametrized layer, which is listed itself
        own = module.parameters(recurse=False)
        # a weight behind weight norm or pruning is a plain attribute, so the type counts too
        if (
            parametrize.is_parametrized(module)
            or layer_type(module)
            or _packs_its_weight(module)
            or any(is_lazy(p) or p.dim() >= 2 for p in own)
        ):
            found[name] = module
    return found


def filter_layers(
    model: nn.Module,
    *,
    types: Collection[str] = LAYER_TYPES,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
) -> tuple[dict[str, FilterLayer], dict[str, str]]:
    """Split a network's weighted layers into those that can be used and those left alone, with the reason.

    Args:
        model: any network, wrapped by DistributedDataParallel or torch.compile or not.
        types: which kinds, of `conv` and `linear`.
        include: names or patterns; only these, where given.
        exclude: names or patterns left alone.
    Returns: `{name: layer}` and `{name: reason}`.
    Raises: LayerError, for an unknown type or a pattern that matches no weighted layer.

    >>> usable, left = filter_layers(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 2)), types=("conv",))
    >>> list(usable), left
    (['0'], {'1': 'Linear is not among the types asked for (conv)'})
    """
    unknown = [kind for kind in types if kind not in LAYER_TYPES]
    if unknown:
        raise LayerError(f"types: unknown layer type {unknown[0]!r}; allowed are {', '.join(LAYER_TYPES)}.")
    weighted = named_weighted(model)
    included = None if include is None else _match_all(include, weighted)
    excluded = _match_all(exclude or (), weighted)
    usable: dict[str, FilterLayer] = {}
    left: dict[str, str] = {}
    for name, module in weighted.items():
        if name in excluded:
            left[name] = "excluded"
        elif included is not None and name not in included:
            left[name] = "not included"
        elif (reason := refusal(module)) is not None:
            left[name] = reason
        elif layer_type(module) not in types:
            left[name] = f"{type(module).__name__} is not among the types asked for ({', '.join(types)})"
        else:
            usable[name] = cast(FilterLayer, module)
    return usable, left


def _match_all(patterns: Iterable[str], names: Mapping[str, object]) -> set[str]:
    if isinstance(patterns, str):
        patterns = (patterns,)
    return {name for pattern in patterns for name in match_names(pattern, names)}


def match_names(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that a pattern means: an exact name, a glob, or `re:` and a regular expression.

    Raises: LayerError, when none matches; it quotes the pattern and suggests the nearest name.

    >>> match_names("layer1.*", ["conv1", "layer1.0", "layer1.1"])
    ['layer1.0', 'layer1.1']
    >>> match_names("re:conv\\\\d", ["conv1", "fc"])
    ['conv1']
    """
    names = list(names)
    wanted = clean_name(pattern)
    if wanted in names:
        return [wanted]
    if pattern.startswith("re:"):
        try:
            expression = re.compile(pattern[3:])
        except re.error as error:
            raise LayerError(f"{pattern!r} is not a regular expression: {error}.") from error
        found = [name for name in names if expression.fullmatch(name)]
    else:
        found = [name for name in names if fnmatch.fnmatchcase(name, wanted)]
    if not found:
        near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.0)
        hint = f"; the nearest is {near[0]!r}" if near else "; the network has none"
        raise LayerError(
            f"{pattern!r} matches no weighted layer{hint}. "
            "Use a full name, a glob such as 'layer4.*', or 're:' and a regular expression."
        )
    return found


def replace_layer(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever `old` stands in the network, under every name it has."""
    for parent in list(model.modules()):  # a list, so that the inside of `new` is not searched
        for child, module in parent._modules.items():
            if module is old:
                parent._modules[child] = new


def reject_unusable_values(name: str, weight: Tensor) -> None:
    """Raise LayerError for a weight on the meta device, or with NaN or infinite values."""
    if weight.is_meta:
        raise LayerError(
            f"{name}: its weight is on the meta device and has no values. Load the weights first."
        )
    if weight.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(weight.detach()))).all()):
        raise LayerError(
            f"{name}: its weight has NaN or infinite values. Go back to the last good checkpoint."
        )


def copy_network(model: nn.Module, without: Iterable[nn.Parameter] = ()) -> nn.Module:
    """Copy a network inside its wrappers, also where `copy.deepcopy` refuses.

    Weight norm and pruning keep a computed weight as a plain attribute, with a gradient graph after a run;
    it is computed anew in every forward, so its value is enough. Lazy batch norm has buffers without shape.
    Parameters that the copy is to do `without` are on meta there, where they take no memory.
    """
    model = unwrap(model)
    copied: dict[int, Tensor] = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    for buffer in model.buffers():
        if isinstance(buffer, UninitializedBuffer):
            made: Any = UninitializedBuffer
            copied[id(buffer)] = made(device=buffer.device, dtype=buffer.dtype)
    for parameter in without:
        copied[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    return copy.deepcopy(model, memo=copied)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the user's own network inside torch.compile and DistributedDataParallel wrappers."""
    while True:
        inner = model._modules.get("_orig_mod")
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner
