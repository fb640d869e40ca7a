"""The force and the sparsifier in a Hugging Face Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corank.errors import FileError
from corank.extras import import_extra
from corank.force_state import load_force, save_force
from corank.integrations.file_names import FORCE_FILE, MASKS_FILE
from corank.integrations.parts import begin_again
from corank.regularizer import ForceRegularizer
from corank.sparsity import Sparsifier
from corank.state_files import read_state, write_state
from corank.tracking import flat

TrainerCallback: Any = import_extra("transformers", "transformers").TrainerCallback


class ForceCallback(TrainerCallback):  # type: ignore[misc]
    """Attach a force to the Trainer's optimizer while it trains; it acts after clipping, at any accumulation.

    Its numbers join the Trainer's log history, its state the Trainer's checkpoints.

    The Trainer's own loggers, such as TensorBoard, have written by then: give the force a `tracker=` for
    them. Where an exception may end the training, call `force.detach()`: the Trainer tells nobody.

    Args:
        force: made from the Trainer's model, usually with `types=("linear",)`.
        resume_from: the checkpoint that `train(resume_from_checkpoint=)` is given, where it is not in the
            Trainer's output folder.
    """

    def __init__(self, force: ForceRegularizer, resume_from: str | Path | None = None) -> None:
        self.force, self.resume_from = force, resume_from
        self._fresh: dict[str, Any] | None = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Take up the state of the checkpoint that training resumes from, or begin again, and attach.

        Raises: FileError, when the checkpoint holds no force.
        """
        self.force.detach()  # where an exception ended the training before
        if state.global_step > 0:
            load_force(self.force, _resumed(args, state, self.resume_from, FORCE_FILE))
        else:
            self._fresh = begin_again(self.force, self._fresh)
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

    Args:
        sparsifier: made from the Trainer's model. List it after a ForceCallback.
        resume_from: as of `ForceCallback`.
    """

    def __init__(self, sparsifier: Sparsifier, resume_from: str | Path | None = None) -> None:
        self.sparsifier, self.resume_from = sparsifier, resume_from
        self._fresh: dict[str, Any] | None = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Take up the masks of the checkpoint that training resumes from, or begin again, and attach.

        Raises: FileError, when the checkpoint holds no masks.
        """
        self.sparsifier.detach()  # as above
        if state.global_step > 0:
            path = _resumed(args, state, self.resume_from, MASKS_FILE)
            self.sparsifier.load_state_dict(read_state(path))
        else:
            self._fresh = begin_again(self.sparsifier, self._fresh)
        self.sparsifier.attach(optimizer)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the step and the masks into the checkpoint."""
        if state.is_world_process_zero:
            write_state(_checkpoint(args, state) / MASKS_FILE, self.sparsifier.state_dict())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Detach."""
        self.sparsifier.detach()


def _resumed(args: Any, state: Any, given: str | Path | None, name: str) -> Path:
    path = (Path(given) if given is not None else _checkpoint(args, state)) / name
    if not path.exists():
        raise FileError(
            f"{path}: there is no such file, and the training goes on at step {state.global_step}. Give the "
            "callback the checkpoint as resume_from=, one that was saved with it."
        )
    return path


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
