"""Which layers a spec acts on, and why the others are left alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import nn

from corank.errors import LayerError
from corank.layers import FilterLayer, clean_name, filter_layers, unwrap
from corank.sparsity.masks import input_channels
from corank.sparsity.specs import SemiStructured, Spec


def choose(
    model: nn.Module, spec: Spec, *, trained: bool = False
) -> tuple[dict[str, FilterLayer], dict[str, str]]:
    """Split the weighted layers into those that a spec acts on and those left alone, with the reason.

    Args:
        model: any network, wrapped or not.
        spec: what is to act.
        trained: leave frozen layers alone too.
    Raises: LayerError, for a pattern that matches nothing, a layer named in `include` that cannot be used,
        or when no layer is left.

    >>> from corank.sparsity.specs import Unstructured
    >>> used, left = choose(nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4)), Unstructured(0.5))
    >>> list(used), left
    (['0'], {'1': 'LSTM is not a convolution or a linear layer'})
    """
    model, kind = unwrap(model), type(spec).__name__
    usable, left = filter_layers(model, types=spec.types, include=spec.include, exclude=spec.exclude)
    owners = Counter(id(one) for part in model.modules() for one in part._parameters.values())
    for name, layer in list(usable.items()):
        reason = None
        if owners[id(layer.weight)] > 1:
            reason = "its weight is tied to another module's, which would get the zeros too"
        elif type(layer.weight) is not nn.Parameter:  # DTensor, quantized tensors
            reason = f"its weight is a {type(layer.weight).__name__}: make it a plain nn.Parameter first"
        elif isinstance(spec, SemiStructured) and input_channels(layer) % spec.of:
            reason = f"it has {input_channels(layer)} input channels a group, no multiple of {spec.of}"
        elif trained and not layer.weight.requires_grad:
            reason = "its weight is frozen"
        if reason is not None:
            left[name] = reason
            del usable[name]
    include: Iterable[str] = (spec.include,) if isinstance(spec.include, str) else spec.include or ()
    for pattern in include:
        if (reason := left.get(clean_name(pattern))) is not None:
            raise LayerError(f"{clean_name(pattern)}: {kind} includes it, but it cannot be used: {reason}.")
    if not usable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left.items())[:5])
        raise LayerError(
            f"{kind}: no layer is left ({reasons or 'the network has no weighted layer'}). "
            "Change types, include or exclude."
        )
    return usable, left
