"""The force and the sparsifier in a Lightning Trainer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from corank.errors import CorankError
from corank.extras import import_extra
from corank.integrations.parts import Part, begin_again
from corank.regularizer import ForceRegularizer
from corank.sparsity import Sparsifier
from corank.tracking import flat

Callback: Any = import_extra("lightning.pytorch", "lightning").Callback


class _Attached(Callback):  # type: ignore[misc]
    """Attach a force or a sparsifier while the Trainer fits, and keep its state in the checkpoints."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._fresh: dict[str, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach; where the Trainer begins again at step 0, so does the part."""
        if trainer.global_step == 0:
            self._fresh = begin_again(self._part, self._fresh)
        self._part.attach(*trainer.optimizers)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Detach."""
        self._part.detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Detach, so that nothing stays on a model that is trained again."""
        self._part.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of what is attached."""
        return self._part.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it over."""
        self._part.load_state_dict(state_dict)


class ForceCallback(_Attached):
    """Attach a force to the Trainer's optimizers while it fits; it acts after clipping, at any accumulation.

    Args:
        force: made from the LightningModule.
        log_every: steps between two loggings of its numbers to the Trainer's loggers.
    Raises: CorankError, for another log_every than a whole number from 1.

    Its state goes into the Trainer's checkpoints and comes back from them.
    """

    def __init__(self, force: ForceRegularizer, log_every: int = 100) -> None:
        if log_every < 1:
            raise CorankError(f"ForceCallback: log_every is a whole number from 1, got {log_every}.")
        super().__init__(force)
        self.force, self.log_every = force, log_every
        self._logged = 0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Pass the loss on, and log."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self.force.observe_loss(loss * trainer.accumulate_grad_batches)  # Lightning has divided it
        step = trainer.global_step
        if step != self._logged and step % self.log_every == 0:  # several batches may share a step
            self._logged = step
            for one in trainer.loggers:
                one.log_metrics(flat(self.force.stats()), step=step)


class SparsifierCallback(_Attached):
    """Attach a sparsifier to the Trainer's optimizers while it fits; its masks go into the checkpoints.

    Args: sparsifier: made from the LightningModule. List it after a ForceCallback.
    """

    def __init__(self, sparsifier: Sparsifier) -> None:
        super().__init__(sparsifier)
        self.sparsifier = sparsifier
