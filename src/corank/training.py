"""One training that may be stopped at any moment and goes on bit-exactly from its last checkpoint."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.optim.lr_scheduler import LRScheduler

from corank.errors import CorankError, OutOfMemoryError
from corank.mishaps import batch_size, is_out_of_memory, memory_advice, name_culprit, strength_advice
from corank.precision import Precision, autocast
from corank.progress import Meter
from corank.regularizer import ForceRegularizer
from corank.replay import loader_state, random_state, set_loader_state, set_random_state
from corank.state_files import read_state, write_state
from corank.tasks import Loader, Loss
from corank.training_terms import describe_terms, differences

logger = logging.getLogger(__name__)
_ONE_VALUE = "Expected more than 1 value per channel"  # what torch says of batch norm on one value


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of training: its number from 1, mean loss, and seconds."""

    number: int
    loss: float
    seconds: float


class Stateful(Protocol):
    """Anything that can be taken down and put back, such as a record of what was seen on the way."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a training is kept, and how often: after every epoch, and every so many steps in between.

    Args:
        path: a safetensors file, replaced whole each time.
        every: steps; None for only after the epochs.
        keep: what else must go back to where it was, by name.
    """

    path: Path | str
    every: int | None = None
    keep: Mapping[str, Stateful] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise CorankError(f"Checkpoint: every is a whole number of steps from 1, got {self.every}.")


@dataclass
class Training:
    """What moves while a network trains, and where it stands."""

    model: nn.Module
    loader: Loader
    loss: Loss
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None = None
    force: ForceRegularizer | None = None
    checkpoint: Checkpoint | None = None
    precision: Precision = "float32"
    frozen_norm: bool = False
    teacher: nn.Module | None = None
    terms: Mapping[str, Any] = field(default_factory=dict)  # what else tells its checkpoint from others
    done: list[Epoch] = field(default_factory=list)
    _step: int = 0  # of the epoch that is under way
    _total: float = 0.0
    _seconds: float = 0.0
    _order: dict[str, Any] | None = None  # how the epoch under way began
    _identity: dict[str, Any] = field(default_factory=dict)
    _good: str = ""  # the last state on disk, in words

    def run(self, epochs: int, after_epoch: Callable[[Epoch], None] | None, meter: Meter) -> list[Epoch]:
        """Train until so many epochs are done, from the checkpoint on if there is one."""
        if self.checkpoint is not None:
            self._identity = {
                "epochs": epochs,
                "start": _digest(self.model),
                "precision": self.precision,
                "frozen_norm": self.frozen_norm,
                "batches": _length(self.loader),
                **describe_terms(self.optimizer, self.scheduler, self.force),
                "teacher": None if self.teacher is None else _digest(self.teacher),
                **self.terms,
            }
            self._resume()
        steps = _length(self.loader)
        meter.start(None if steps is None else epochs * steps, len(self.done) * (steps or 0) + self._step)
        while len(self.done) < epochs:
            self._set_mode()
            self._epoch(meter)
            self._require_finite()
            if after_epoch is not None:
                after_epoch(self.done[-1])
            self._save()
            meter.note(f"epoch {len(self.done)} of {epochs}, loss {self.done[-1].loss:.4f}")
        return self.done

    def _set_mode(self) -> None:
        self.model.train()
        if self.frozen_norm:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _epoch(self, meter: Meter) -> None:
        start = time.perf_counter() - self._seconds
        for batch in self._batches():
            self._step += 1
            try:
                self._total += self._train_on(batch)
            except (RuntimeError, MemoryError) as error:
                if is_out_of_memory(error):
                    raise OutOfMemoryError(f"finetune: {self._where()}: {memory_advice(batch)}") from error
                raise
            except ValueError as error:
                if _ONE_VALUE not in str(error):
                    raise
                raise CorankError(
                    f"finetune: {self._where()}: batch norm takes its statistics from a batch, and this one "
                    f"has {batch_size(batch)} sample for it. Leave it out (drop_last=True of a DataLoader), "
                    "or use another batch size."
                ) from error
            meter.advance()
            self._seconds = time.perf_counter() - start
            every = self.checkpoint.every if self.checkpoint is not None else None
            if every is not None and self._step % every == 0:
                self._save()
        if self._step == 0:
            raise CorankError("finetune: the loader has no batches. Give at least one.")
        self._seconds = time.perf_counter() - start
        self.done.append(Epoch(len(self.done) + 1, self._total / self._step, self._seconds))
        self._step, self._total, self._seconds = 0, 0.0, 0.0

    def _batches(self) -> Iterator[Any]:
        """Go through the loader, passing over what was trained on before a stop."""
        if self._step == 0:
            self._order = self._take_order() if self.checkpoint is not None else None
            return iter(self.loader)
        assert self._order is not None  # read with the step
        now = random_state()
        set_random_state(self._order["random"])
        set_loader_state(self.loader, self._order["loader"])
        batches = iter(self.loader)
        for _ in range(self._step):
            if next(batches, None) is None:
                raise CorankError(
                    f"finetune: the loader ended before step {self._step}, where the checkpoint stands. "
                    "Give the same data, or delete the checkpoint to start again."
                )
        set_random_state(now)
        return batches

    def _train_on(self, batch: Any) -> float:
        with autocast(self.model, self.precision):
            value = self.loss(self.model, batch)
        current: float = value.item()
        if not abs(current) < float("inf"):
            raise CorankError(self._explain(f"the loss is {current} in {self._where()}", batch))
        self.optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        if self.force is not None:
            self.force.observe_loss(current)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return current

    def _where(self) -> str:
        return f"epoch {len(self.done) + 1}, step {self._step}"

    def _explain(self, what: str, batch: Any) -> str:
        good = f" The last good state is kept in {self._good}." if self._good else ""
        rate = float(self.optimizer.param_groups[0].get("lr", 0.0))
        return (
            f"finetune: {what}: {name_culprit(self.model, self.loss, batch)}. "
            f"{strength_advice(self.force, rate)}, and start from the last good weights.{good}"
        )

    def _require_finite(self) -> None:
        """Raise CorankError where an epoch's last step broke the weights: no loss may follow to say so."""
        if not _is_finite(self.model, trained=True):
            what = f"epoch {len(self.done)} ended in weights that are not finite"
            raise CorankError(self._explain(what, None))

    def _take_order(self) -> dict[str, Any]:
        return {"random": random_state(), "loader": loader_state(self.loader)}

    def _save(self) -> None:
        if self.checkpoint is None or not _is_finite(self.model):
            return  # the next loss will say so, and the last good state must outlive it
        order = self._take_order() if self._step == 0 else self._order
        state = {
            "identity": self._identity,
            "model": _tensors(self.model),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "force": None if self.force is None else self.force.state_dict(),
            "keep": {name: one.state_dict() for name, one in self.checkpoint.keep.items()},
            "done": [asdict(one) for one in self.done],
            "step": self._step,
            "total": self._total,
            "seconds": self._seconds,
            "random": random_state(),
            "order": order,
        }
        write_state(self.checkpoint.path, state)
        self._good = f"{self.checkpoint.path}, {len(self.done)} epochs and {self._step} steps"

    def _resume(self) -> None:
        assert self.checkpoint is not None  # asked by the caller
        path = Path(self.checkpoint.path)
        if not path.exists():
            return
        state = read_state(path)
        there = state.get("identity") if isinstance(state, dict) else None
        if told := differences(there, self._identity):
            raise CorankError(
                f"{path}: is the checkpoint of another training: {told}. "
                "Choose another file, or delete it to start again."
            )
        _put(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.force is not None and state["force"] is not None:
            self.force.load_state_dict(state["force"])
        for name, one in self.checkpoint.keep.items():
            if name not in state["keep"]:
                raise CorankError(
                    f"{path}: is the checkpoint of another training: it holds no {name}. "
                    "Choose another file, or delete it to start again."
                )
            one.load_state_dict(state["keep"][name])
        self.done = [Epoch(**one) for one in state["done"]]
        self._step, self._total, self._seconds = state["step"], state["total"], state["seconds"]
        self._order = state["order"]
        if self._step == 0:
            set_loader_state(self.loader, state["order"]["loader"])
        set_random_state(state["random"])
        self._good = f"{path}, {len(self.done)} epochs and {self._step} steps"
        logger.info("%s: goes on after %d epochs and %d steps", path, len(self.done), self._step)


def _length(loader: Loader) -> int | None:
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:
        return None


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers, those that are not persistent too."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def _put(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    for name, tensor in _tensors(model).items():
        tensor.copy_(saved[name])  # in place, so that optimizer and force keep hold of it


def _is_finite(model: nn.Module, trained: bool = False) -> bool:
    """Say whether the parameters are finite, all or only those that are trained."""
    looked_at = (one for one in model.parameters() if one.is_floating_point())
    return all(bool(torch.isfinite(one).all()) for one in looked_at if one.requires_grad or not trained)


def _digest(model: nn.Module) -> str:
    """Return a hash of a network's weights, which says whether a checkpoint began from them."""
    found = hashlib.sha256()
    for name, tensor in _tensors(model).items():
        if is_lazy(tensor):
            raise CorankError(f"finetune: {name} has no shape yet. Run the network once before it trains.")
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
