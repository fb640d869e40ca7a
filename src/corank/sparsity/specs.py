"""What to make sparse: frozen numbers, each checked when it is made. Fractions, never percent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, TypeAlias

from corank.errors import CorankError
from corank.layers import LAYER_TYPES

Scope = Literal["global", "layer"]


@dataclass(frozen=True, slots=True)
class Unstructured:
    """Zero the weights of smallest magnitude, all at once or along a cubic rise while the network trains.

    s(t) = s_f + (s_i − s_f) (1 − (t − t_0) / (n − 1))³ from step t_0 on: after n steps it is s_f.

    Args:
        sparsity: the share of zeros in the end, s_f.
        scope: `global` ranks the weights of all layers together, `layer` within each.
        initial: the share at the beginning, s_i.
        start: the step t_0 before which nothing happens.
        steps: the n steps of the rise, as many as the training has if it is to end with it; 0 for all at
            once.
        every: steps between two choices of the weights.
        types, include, exclude: which layers, as in `spectrum`.
    Source: Zhu and Gupta 2017 (arXiv 1710.01878), equation 1, so that the last of n steps reaches the end.

    >>> [round(Unstructured(0.8, steps=5).share(step), 3) for step in range(6)]
    [0.0, 0.463, 0.7, 0.788, 0.8, 0.8]
    """

    sparsity: float
    scope: Scope = "global"
    initial: float = 0.0
    start: int = 0
    steps: int = 0
    every: int = 1
    types: Sequence[str] = LAYER_TYPES
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        _require_share("Unstructured: sparsity", self.sparsity)
        _require_scope("Unstructured", self.scope)
        _require_share("Unstructured: initial", self.initial)
        if self.initial > self.sparsity:
            raise CorankError(
                f"Unstructured: initial is at most sparsity, {self.sparsity}, got {self.initial}. "
                "Zeros only become more."
            )
        _require_whole("Unstructured: start", self.start, 0)
        _require_whole("Unstructured: steps", self.steps, 0)
        _require_whole("Unstructured: every", self.every, 1)

    def share(self, step: int) -> float:
        """Return the share of zeros after a step, counted from 0."""
        if step < self.start:
            return 0.0
        if step >= self.last:
            return self.sparsity
        left = 1 - (step - self.start) / (self.steps - 1)
        return self.sparsity + (self.initial - self.sparsity) * left**3

    def chooses(self, step: int) -> bool:
        """Say whether the weights are chosen anew at a step."""
        return self.start <= step <= self.last and (
            (step - self.start) % self.every == 0 or step == self.last
        )

    @property
    def last(self) -> int:
        """The step that reaches the end of the rise."""
        return self.start + max(self.steps - 1, 0)


@dataclass(frozen=True, slots=True)
class SemiStructured:
    """Zero the n smallest of every m weights that follow each other along the input channels; 2:4.

    Args:
        zeros: n.
        of: m; a layer whose input channels are no multiple of it is left alone.
        types, include, exclude: which layers, as in `spectrum`.
    Source: Mishra et al. 2021 (arXiv 2104.08378).
    """

    zeros: int = 2
    of: int = 4
    types: Sequence[str] = LAYER_TYPES
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        _require_whole("SemiStructured: of", self.of, 2)
        if not isinstance(self.zeros, int) or not 0 <= self.zeros < self.of:
            raise CorankError(
                f"SemiStructured: zeros is a whole number from 0 to {self.of - 1}, got {self.zeros!r}."
            )


@dataclass(frozen=True, slots=True)
class GroupLasso:
    """Pull whole rows and columns of each layer's filter matrix to zero while the network trains.

    R(W) = rows · Σ_i ‖W_i,:‖ + columns · Σ_j ‖W_:,j‖, over the filter matrix (N, D) of each group: a row is a
    filter, an output channel; a column is one weight of all filters.

    Args:
        rows, columns: the two strengths.
        types, include, exclude: which layers, as in `spectrum`.
    Source: Wen et al. 2016 (arXiv 1608.03665), without their weight of the group's size.
    """

    rows: float = 0.0
    columns: float = 0.0
    types: Sequence[str] = LAYER_TYPES
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            value = getattr(self, name)
            if not (_is_number(value) and isfinite(value) and value >= 0):
                raise CorankError(f"GroupLasso: {name} is a finite number ≥ 0, got {value!r}.")
        if self.rows == self.columns == 0:
            raise CorankError(
                "GroupLasso: give rows, columns or both above 0, such as GroupLasso(rows=1e-3)."
            )


@dataclass(frozen=True, slots=True)
class Channels:
    """Remove whole channels: the layers that make them and those that read them become smaller.

    A channel's importance is the mean squared norm of all that belongs to it, over the mean of its group of
    coupled layers.

    Args:
        ratio: the share of all removable channels to remove; None removes those alone whose filters are
            all zero, such as a lasso leaves.
        scope: `global` ranks the channels of all layers together, `layer` within each group of coupled ones.
        max_ratio: no group loses more than this.
        multiple: the channels that a group keeps are rounded up to a multiple of this.
        types, include, exclude: which layers may lose output channels, as in `spectrum`.
    Source: Fang et al. 2023 (arXiv 2301.12900); the graph is Torch-Pruning's.
    """

    ratio: float | None
    scope: Scope = "global"
    max_ratio: float = 0.9
    multiple: int = 1
    types: Sequence[str] = LAYER_TYPES
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.ratio is not None:
            _require_share("Channels: ratio", self.ratio)
        _require_share("Channels: max_ratio", self.max_ratio)
        _require_scope("Channels", self.scope)
        _require_whole("Channels: multiple", self.multiple, 1)


Spec: TypeAlias = Unstructured | SemiStructured | GroupLasso | Channels
MaskSpec: TypeAlias = Unstructured | SemiStructured
CutSpec: TypeAlias = MaskSpec | Channels  # acts at once
TrainSpec: TypeAlias = MaskSpec | GroupLasso  # acts while a network trains


def require_specs(specs: Sequence[object], allowed: tuple[type, ...], where: str, otherwise: str) -> None:
    """Raise CorankError for anything that is not one of the allowed specs."""
    for spec in specs:
        if not isinstance(spec, allowed):
            names = ", ".join(kind.__name__ for kind in allowed)
            raise CorankError(f"{where}: allowed are {names}, got {spec!r:.120}. {otherwise}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require_share(where: str, value: float) -> None:
    if not (_is_number(value) and 0 <= value < 1):
        raise CorankError(f"{where} is a fraction in [0, 1), got {value!r}. Use 0.8 for 80%.")


def _require_scope(where: str, scope: str) -> None:
    if scope not in ("global", "layer"):
        raise CorankError(f"{where}: scope is 'global' or 'layer', got {scope!r}.")


def _require_whole(where: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CorankError(f"{where} is a whole number from {least}, got {value!r}.")
