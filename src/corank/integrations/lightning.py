"""The force and the sparsifier in a Lightning Trainer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from corank.extras import import_extra
from corank.regularizer import ForceRegularizer
from corank.sparsity import Sparsifier
from corank.tracking import flat

Callback: Any = import_extra("lightning.pytorch", "lightning").Callback


class ForceCallback(Callback):  # type: ignore[misc]
    """Attach a force to the Trainer's optimizers while it fits; it acts after clipping, at any accumulation.

    Args:
        force: made from the LightningModule.
        log_every: steps between two loggings of its numbers to the Trainer's logger.

    Its state goes into the Trainer's checkpoints and comes back from them.
    """

    def __init__(self, force: ForceRegularizer, log_every: int = 100) -> None:
        self.force, self.log_every = force, log_every

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach."""
        self.force.attach(*trainer.optimizers)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Pass the loss on, and log."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self.force.observe_loss(loss)
        if trainer.global_step % self.log_every == 0:
            pl_module.log_dict(flat(self.force.stats()))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Detach."""
        self.force.detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Detach, so that nothing stays on a model that is trained again."""
        self.force.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the force."""
        return self.force.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of the force."""
        self.force.load_state_dict(state_dict)


class SparsifierCallback(Callback):  # type: ignore[misc]
    """Attach a sparsifier to the Trainer's optimizers while it fits; its masks go into the checkpoints.

    Args: sparsifier: made from the LightningModule. List it after a ForceCallback.
    """

    def __init__(self, sparsifier: Sparsifier) -> None:
        self.sparsifier = sparsifier

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach."""
        self.sparsifier.attach(*trainer.optimizers)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Detach."""
        self.sparsifier.detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Detach, so that nothing stays on a model that is trained again."""
        self.sparsifier.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return the step and the masks."""
        return self.sparsifier.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the step and the masks."""
        self.sparsifier.load_state_dict(state_dict)
