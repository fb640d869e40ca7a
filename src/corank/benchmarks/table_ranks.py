"""Which splits of a layer a latency table times: for each method the ranks that may pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import nn

from corank.cost import structure_cost
from corank.errors import CorankError, LayerError
from corank.layers import FilterLayer, match_names
from corank.methods import METHODS, Method
from corank.probing import Call

CONV_METHODS = ("filter_basis", "input_basis", "spatial", "tucker2")
MOST_RANKS = 8
_BEYOND = 1.15  # time can break even elsewhere than multiply-accumulates
_WIDE = 256  # from this rank on, engines fill their vectors with 16 as well as with 8

Methods: TypeAlias = Sequence[str] | Mapping[str, Sequence[str] | str] | None
RankChoice: TypeAlias = Sequence[float] | Mapping[str, Sequence[int]] | None


def default_methods(layer: FilterLayer) -> tuple[str, ...]:
    """Return the methods that are timed where none are named.

    A 1×1 convolution has one split, which the others would repeat.
    """
    if isinstance(layer, nn.Linear):
        return ("svd",)
    return CONV_METHODS[:1] if all(size == 1 for size in layer.kernel_size) else CONV_METHODS


def methods_by_layer(methods: Methods, layers: Mapping[str, FilterLayer]) -> dict[str, tuple[str, ...]]:
    """Return the methods of each layer, those left out that do not suit it.

    Raises: CorankError, for an unknown method; LayerError, for a pattern that matches no layer, or a method
        named for one layer that cannot be split so.
    """
    if methods is None:
        wanted = {name: default_methods(layer) for name, layer in layers.items()}
    elif isinstance(methods, Mapping):
        wanted = {name: default_methods(layer) for name, layer in layers.items()}
        for pattern, some in methods.items():
            chosen = (some,) if isinstance(some, str) else tuple(some)
            _check_methods(chosen)
            for name in match_names(pattern, layers):
                wanted[name] = chosen
                for method in chosen:
                    reason = METHODS[method].refusal(layers[name])
                    if reason is not None and name == pattern:
                        raise LayerError(f"{name}: {reason}.")
    else:
        chosen = (methods,) if isinstance(methods, str) else tuple(methods)
        _check_methods(chosen)
        wanted = dict.fromkeys(layers, chosen)
    return {
        name: tuple(one for one in dict.fromkeys(some) if METHODS[one].refusal(layers[name]) is None)
        for name, some in wanted.items()
    }


def _check_methods(methods: Sequence[str]) -> None:
    for method in methods:
        if method not in METHODS:
            raise CorankError(f"methods: unknown method {method!r}; allowed are {', '.join(METHODS)}.")


def ranks_by_layer(ranks: RankChoice, layers: Mapping[str, FilterLayer]) -> dict[str, Sequence[float] | None]:
    """Return the ranks that are asked for at each layer: fractions, whole numbers, or None for the default.

    Raises: CorankError, for a fraction outside (0, 1] or a rank below 1; LayerError, for a pattern that
        matches no layer.
    """
    asked: dict[str, Sequence[float] | None] = dict.fromkeys(layers)
    if isinstance(ranks, Mapping):
        for pattern, some in ranks.items():
            if not some or any(not isinstance(rank, int) or rank < 1 for rank in some):
                raise CorankError(
                    f"ranks: {pattern!r}: allowed are whole numbers from 1, got {list(some)}. For shares of "
                    "the full rank give a list instead of a dict."
                )
            asked.update(dict.fromkeys(match_names(pattern, layers), tuple(some)))
    elif ranks is not None:
        if not ranks or any(not 0 < share <= 1 for share in ranks):
            raise CorankError(
                f"ranks: allowed are shares of the full rank in (0, 1], got {list(ranks)}. "
                "For whole numbers give {pattern: [ranks]}."
            )
        asked = dict.fromkeys(layers, tuple(float(share) for share in ranks))
    return asked


def ranks_to_time(
    layer: FilterLayer,
    method: Method,
    shape: tuple[int, ...],
    asked: Sequence[float] | None = None,
    multiple: int = 8,
) -> tuple[int, ...]:
    """Return the ranks of one method that are timed, rising.

    By default at most eight multiples of `multiple` (of 16 in wide layers, of 4, 2 or 1 in narrow ones),
    evenly spread up to a little past the rank at which multiply-accumulates break even. Where no rank saves
    any, none but whole ranks that are asked for.

    Args:
        layer: the layer, on meta or not.
        method: the split.
        shape: of the layer's input.
        asked: shares of the full rank, rounded to the multiple; or whole ranks, of which those above the full
            rank are left out.
        multiple: of the ranks.

    >>> ranks_to_time(nn.Conv2d(64, 64, 3, padding=1), METHODS["filter_basis"], (1, 64, 56, 56))
    (8, 16, 24, 32, 40, 48, 56, 64)
    """
    full = method.full_rank(layer)
    if asked is not None and all(isinstance(rank, int) for rank in asked):
        return tuple(sorted({int(rank) for rank in asked if rank <= full}))
    break_even = _break_even(layer, method, shape, full)
    if break_even == 0:
        return ()
    if asked is not None:
        return tuple(sorted({_rounded(share * full, full, multiple) for share in asked}))
    last = min(round(_BEYOND * break_even), full)
    step = 2 * multiple if multiple == 8 and full >= _WIDE else multiple
    while step > 1 and last // step < 3:
        step //= 2
    count = max(last // step, 1)
    picked = torch.linspace(1, count, min(count, MOST_RANKS)).round().int().tolist()
    return tuple(sorted({min(number * step, full) for number in picked}))


def _rounded(wanted: float, full: int, multiple: int) -> int:
    """Round to a multiple, or to a finer one below it: an eighth of 16 channels is 2, not 8."""
    while multiple > 1 and wanted < multiple:
        multiple //= 2
    return min(round(wanted / multiple) * multiple or 1, full)


def _break_even(layer: FilterLayer, method: Method, shape: tuple[int, ...], full: int) -> int:
    """Return the highest rank that saves multiply-accumulates, by bisection; 0 if none does."""
    uses = (Call(shape, ()),)
    dense = structure_cost(nn.Sequential(layer), uses).macs

    def saves(rank: int) -> bool:
        return structure_cost(method.structure(layer, rank), uses).macs < dense

    if not saves(1):
        return 0
    low, high = 1, full + 1
    while high - low > 1:
        middle = (low + high) // 2
        if saves(middle):
            low = middle
        else:
            high = middle
    return low
