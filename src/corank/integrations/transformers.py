"""The force and the sparsifier in a Hugging Face Trainer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from corank.extras import import_extra
from corank.force_state import load_force, save_force
from corank.integrations.file_names import FORCE_FILE, MASKS_FILE
from corank.regularizer import ForceRegularizer
from corank.sparsity import Sparsifier
from corank.state_files import read_state, write_state
from corank.tracking import flat

logger = logging.getLogger(__name__)

TrainerCallback: Any = import_extra("transformers", "transformers").TrainerCallback


class ForceCallback(TrainerCallback):  # type: ignore[misc]
    """Attach a force to the Trainer's optimizer while it trains; it acts after clipping, at any accumulation.

    Its numbers join the Trainer's log history, its state the Trainer's checkpoints.

    Args: force: made from the Trainer's model, usually with `types=("linear",)`.
    """

    def __init__(self, force: ForceRegularizer) -> None:
        self.force = force

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Take up the state of the checkpoint that training resumes from, and attach."""
        if state.global_step > 0:
            path = _checkpoint(args, state) / FORCE_FILE
            if path.exists():
                load_force(self.force, path)
            else:
                logger.warning("%s: not found, the force starts anew at step 0", path)
        self.force.detach()  # where an exception ended the training before: the Trainer tells nobody
        self.force.attach(optimizer)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Pass the loss on, and add the numbers of the force to the log."""
        if logs and "loss" in logs:
            self.force.observe_loss(logs["loss"])
            logs.update(flat(self.force.stats()))
            state.log_history[-1].update(logs)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the state of the force into the checkpoint."""
        if state.is_world_process_zero:
            save_force(self.force, _checkpoint(args, state) / FORCE_FILE)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Detach."""
        self.force.detach()


class SparsifierCallback(TrainerCallback):  # type: ignore[misc]
    """Attach a sparsifier to the Trainer's optimizer while it trains; its masks go into the checkpoints.

    Args: sparsifier: made from the Trainer's model. List it after a ForceCallback.
    """

    def __init__(self, sparsifier: Sparsifier) -> None:
        self.sparsifier = sparsifier

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Take up the masks of the checkpoint that training resumes from, and attach."""
        if state.global_step > 0:
            path = _checkpoint(args, state) / MASKS_FILE
            if path.exists():
                self.sparsifier.load_state_dict(read_state(path))
            else:
                logger.warning("%s: not found, the sparsifier starts anew at step 0", path)
        self.sparsifier.detach()  # as above
        self.sparsifier.attach(optimizer)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the step and the masks into the checkpoint."""
        if state.is_world_process_zero:
            write_state(_checkpoint(args, state) / MASKS_FILE, self.sparsifier.state_dict())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Detach."""
        self.sparsifier.detach()


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
