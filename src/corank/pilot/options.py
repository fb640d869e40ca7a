"""The settings of a trial, checked before any work is done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from corank.benchmarks import find_backend
from corank.cut_targets import CutTarget
from corank.errors import CorankError
from corank.force_field import KINDS, Kind, require_choice
from corank.precision import Precision, require_precision
from corank.schedules import require_strength


class ArmKind(NamedTuple):
    """What is done in an arm of a trial."""

    force: bool
    cut: bool
    toward: bool = False  # the force stops at the ranks that a plan wants


ARMS = {
    "dense": ArmKind(force=False, cut=False),
    "lowrank": ArmKind(force=False, cut=True),
    "force": ArmKind(force=True, cut=True),
    "force_plan": ArmKind(force=True, cut=True, toward=True),
}
_EPOCHS = {"shared": 0, "before_cut": 1, "after_cut": 1}  # the least of each


@dataclass(frozen=True, slots=True)
class TrialOptions:
    """How long, how strong and how deep.

    Every arm trains `shared + before_cut + after_cut` epochs; the first part is one training that all arms
    start from, and is left out where a problem brings trained weights. Learning rates fall along a cosine
    inside each part, the same for every arm. The force fades away over the share `cooldown` of the steps
    before the cut, and acts on the layers that a pattern of `force_layers` matches. `precision` is that of
    training; networks are judged and timed in float32. With `distill` every arm of a classification, dense
    too, follows its own network as it was at the cut while it trains on after it. `drift` also measures
    every arm on final images that were made worse, `energy` estimates what an inference takes, and `folds`,
    where it is not 0, trains every arm again on so many splits of train and dev. `front` are other shares for
    the target: the network that the page is about is cut to each of them, too, and recovered as it is.
    """

    arms: tuple[str, ...] = ("dense", "lowrank", "force")
    shared: int = 4
    before_cut: int = 6
    after_cut: int = 6
    learning_rate: float = 0.05
    learning_rate_before: float = 0.02
    learning_rate_after: float = 0.01
    weight_decay: float = 5e-4
    precision: Precision = "float32"
    distill: bool = True
    kind: Kind = "l2"
    strength: float = 0.2
    cooldown: float = 0.0
    force_layers: tuple[str, ...] = ("*",)
    target: CutTarget = CutTarget()  # noqa: RUF009  # frozen
    multiple: int = 8
    calibration_batches: int = 16
    backends: tuple[str, ...] = ("torch", "onnxruntime")
    threads: int | None = None
    rounds: int = 40
    seeds: tuple[int, ...] = (0,)
    checkpoint_every: int = 500
    drift: bool = False
    energy: bool = False
    folds: int = 0
    front: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, least in _EPOCHS.items():
            _require_whole(name, getattr(self, name), least, "epochs")
        for name in ("multiple", "calibration_batches", "checkpoint_every"):
            _require_whole(name, getattr(self, name), 1, "")
        for name in ("learning_rate", "learning_rate_before", "learning_rate_after"):
            if not 0 < getattr(self, name) < 10:
                raise CorankError(f"{name}: allowed is a number in (0, 10), got {getattr(self, name)}.")
        if not 0 <= self.weight_decay < 1:
            raise CorankError(f"weight_decay: allowed is a number in [0, 1), got {self.weight_decay}.")
        require_precision(self.precision, "precision")
        if self.folds != 0:
            _require_whole("folds", self.folds, 3, "folds")
        for name in ("drift", "energy"):
            if not isinstance(getattr(self, name), bool):
                raise CorankError(f"{name}: allowed is true or false, got {getattr(self, name)!r}.")
        require_strength(self.strength, "strength")
        if not 0 <= self.cooldown <= 1:
            raise CorankError(f"cooldown: allowed is a share in [0, 1], got {self.cooldown}.")
        if not self.force_layers:
            raise CorankError('force_layers: name at least one pattern; "*" is all layers.')
        if self.threads is not None:
            _require_whole("threads", self.threads, 1, "threads")
        if self.rounds < 4 or self.rounds % 2:
            raise CorankError(f"rounds: allowed is an even number from 4, got {self.rounds}.")
        if not self.seeds:
            raise CorankError("seeds: give at least one.")
        for seed in self.seeds:
            _require_whole("seeds", seed, 0, "")
        _require_unlike("seeds", self.seeds)
        _require_unlike("arms", self.arms)
        for arm in self.arms:
            require_choice("arms", arm, ARMS)
        if "dense" not in self.arms or len(self.arms) < 2:
            raise CorankError(
                f"arms: allowed are dense and one or more of {', '.join(list(ARMS)[1:])}; "
                f"got {', '.join(self.arms) or 'none'}. Every arm is compared with dense."
            )
        _require_unlike("front", self.front)
        for depth in self.front:
            if isinstance(depth, bool) or not isinstance(depth, int | float) or not 0 < depth < 1:
                raise CorankError(f"front: allowed are shares in (0, 1), got {depth!r}.")
            self.target.at(depth)
        require_choice("kind", self.kind, KINDS)
        if not self.backends:
            raise CorankError("backends: name at least one engine to time, such as torch.")
        for backend in (*self.backends, self.target.backend):
            find_backend(backend)

    @property
    def epochs(self) -> int:
        """Total epochs of each arm."""
        return self.shared + self.before_cut + self.after_cut

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = asdict(self) | {"target": self.target.to_dict()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def split_epochs(epochs: int, trained: bool) -> dict[str, int]:
    """Share out epochs over the parts of a trial; with trained weights there is no shared part.

    Raises: CorankError, for too few.

    >>> split_epochs(16, trained=False)
    {'shared': 4, 'before_cut': 6, 'after_cut': 6}
    >>> split_epochs(10, trained=True)
    {'shared': 0, 'before_cut': 5, 'after_cut': 5}
    """
    least = 2 if trained else 3
    if epochs < least:
        raise CorankError(
            f"epochs: a trial needs at least {least}, some before and some after the cut, got {epochs}."
        )
    shared = 0 if trained else max(round(epochs / 4), 1)
    before = -(-(epochs - shared) // 2)
    return {"shared": shared, "before_cut": before, "after_cut": epochs - shared - before}


def _require_whole(name: str, value: object, least: int, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CorankError(
            f"{name}: allowed is a whole number of {what or 'these'} from {least}, got {value!r}."
        )


def _require_unlike(name: str, values: tuple[object, ...]) -> None:
    if len(set(values)) != len(values):
        raise CorankError(f"{name}: each may come once, got {', '.join(map(str, values))}.")
