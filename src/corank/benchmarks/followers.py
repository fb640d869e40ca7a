"""How a network calls its layers, and what directly follows each call and fuses with it in an engine.

A batch norm, then an activation: engines fold the first into the weights and run the second in the same
loop, so a layer and its splits are timed with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from corank.inputs import CHANNELS_LAST, Example, call
from corank.layers import FilterLayer
from corank.probing import unchanged


@dataclass(frozen=True, slots=True)
class Follower:
    """A stock module by its name in `torch.nn`, with the settings that make it."""

    kind: str
    settings: tuple[tuple[str, Any], ...] = ()

    def build(self) -> nn.Module:
        """Make the module, in eval mode."""
        made: nn.Module = getattr(nn, self.kind)(**dict(self.settings))
        return made.eval()


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One call of a layer: the shape and memory format of its input, and what follows."""

    shape: tuple[int, ...]
    channels_last: bool
    followers: tuple[Follower, ...]


def watch_calls(
    model: nn.Module, layers: Mapping[str, FilterLayer], example: Example
) -> dict[str, tuple[LayerCall, ...]]:
    """Run a network once in eval mode and tell each call of the layers apart, with what follows it.

    A follower is recognised by its input: the very tensor that the layer gave, unchanged since. Modules and
    functions count alike.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    >>> seen = watch_calls(net, {"0": net[0]}, torch.ones(1, 1, 5, 5))
    >>> [one.kind for one in seen["0"][0].followers]
    ['BatchNorm2d', 'ReLU']
    """
    trails: dict[str, list[_Trail]] = {name: [] for name in layers}
    with unchanged(model), torch.no_grad(), _Watch() as watch:
        handles = [layer.register_forward_hook(watch.begin(trails[name])) for name, layer in layers.items()]
        try:
            model.eval()
            call(model, example)
        finally:
            for handle in handles:
                handle.remove()
    return {
        name: tuple(LayerCall(one.shape, one.channels_last, tuple(one.followers)) for one in found)
        for name, found in trails.items()
    }


class _Trail:
    def __init__(self, given: Tensor) -> None:
        self.shape = tuple(given.shape)
        self.channels_last = is_channels_last(given)
        self.followers: list[Follower] = []


def is_channels_last(tensor: Tensor) -> bool:
    """Say whether a tensor lies in channels-last memory, and not only could be read so."""
    layout = CHANNELS_LAST.get(tensor.dim())
    return layout is not None and tensor.is_contiguous(memory_format=layout) and not tensor.is_contiguous()


class _Watch(TorchFunctionMode):
    """Follows the outputs of layers through the functions that take them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[
            int, tuple[Tensor, int, _Trail]
        ] = {}  # holds the tensor, so that its id stays its own

    def begin(self, trails: list[_Trail]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        """Make the hook that starts to follow the output of a layer."""

        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                trails.append(_Trail(args[0]))
                self._follow(output, trails[-1])

        return hook

    def _follow(self, tensor: Tensor, trail: _Trail) -> None:
        self.open[id(tensor)] = tensor, tensor._version, trail

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = args[0] if args and isinstance(args[0], Tensor) else kwargs.get("input")
        trail = self._trail(given)
        output = func(*args, **kwargs)
        if trail is None or not isinstance(output, Tensor):
            return output
        name = getattr(func, "__name__", "").rstrip("_")
        if name in _TRANSPARENT and not kwargs.get("training", _third(args)):
            self._follow(output, trail)
        elif name == "batch_norm" and not trail.followers:
            norm = _batch_norm(*args, **kwargs)
            if norm is not None:
                trail.followers.append(norm)
                self._follow(output, trail)
        elif name in ACTIVATIONS:
            self.open.pop(id(given), None)
            trail.followers.append(ACTIVATIONS[name](output is given, *args[1:], **_settings(kwargs)))
        return output

    def _trail(self, tensor: Any) -> _Trail | None:
        held = self.open.get(id(tensor))
        return held[2] if held is not None and held[1] == tensor._version else None


_TRANSPARENT = ("dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout")


def _third(args: tuple[Any, ...]) -> bool:
    return bool(args[2]) if len(args) > 2 else True


def _settings(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key not in ("input", "inplace")}


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Follower | None:
    if training or running_mean is None:  # its statistics are those of the batch: nothing to fold
        return None
    dims = max(input.dim() - 2, 1)
    settings = ("num_features", input.shape[1]), ("affine", weight is not None), ("eps", eps)
    return Follower(f"BatchNorm{dims}d", settings)


def _activation(kind: str, *names: str) -> Callable[..., Follower]:
    """Make a reader of a function's arguments, whose module takes them under the same names."""
    can_be_in_place = kind not in ("GELU", "Sigmoid", "Tanh")

    def read(in_place: bool, *args: Any, **kwargs: Any) -> Follower:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        settings = [(name, given[name]) for name in names if name in given]
        if in_place and can_be_in_place:
            settings.append(("inplace", True))
        return Follower(kind, tuple(settings))

    return read


ACTIVATIONS: dict[str, Callable[..., Follower]] = {  # by the function's name, without its underscore
    "relu": _activation("ReLU"),
    "relu6": _activation("ReLU6"),
    "hardtanh": _activation("Hardtanh", "min_val", "max_val"),
    "silu": _activation("SiLU"),
    "gelu": _activation("GELU", "approximate"),
    "hardswish": _activation("Hardswish"),
    "hardsigmoid": _activation("Hardsigmoid"),
    "mish": _activation("Mish"),
    "leaky_relu": _activation("LeakyReLU", "negative_slope"),
    "elu": _activation("ELU", "alpha"),
    "sigmoid": _activation("Sigmoid"),
    "tanh": _activation("Tanh"),
}
