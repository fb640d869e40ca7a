"""The force and the sparsifier in a Hugging Face Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corank.errors import FileError
from corank.extras import import_extra
from corank.integrations.parts import Part, begin_again, part_file, read_part, write_part
from corank.regularizer import ForceRegularizer
from corank.sparsity import Sparsifier
from corank.tracking import flat

TrainerCallback: Any = import_extra("transformers", "transformers").TrainerCallback


class _Attached(TrainerCallback):  # type: ignore[misc]
    """Attach a force or a sparsifier while the Trainer trains, and keep its state in the checkpoints."""

    def __init__(self, part: Part, resume_from: str | Path | None) -> None:
        self._part, self.resume_from = part, resume_from
        self._fresh: dict[str, Any] | None = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Take up the state of the checkpoint that training resumes from, or begin again, and attach.

        Raises: FileError, when the checkpoint holds no such state.
        """
        self._part.detach()  # where an exception ended the training before
        if state.global_step > 0:
            read_part(self._part, self._resumed(args, state))
        else:
            self._fresh = begin_again(self._part, self._fresh)
        self._part.attach(optimizer)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the state into the checkpoint."""
        if state.is_world_process_zero:
            write_part(self._part, _checkpoint(args, state))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Detach."""
        self._part.detach()

    def _resumed(self, args: Any, state: Any) -> Path:
        folder = _checkpoint(args, state) if self.resume_from is None else Path(self.resume_from)
        path = part_file(self._part, folder)
        if not path.exists():
            raise FileError(
                f"{path}: there is no such file, and the training goes on at step {state.global_step}. Give "
                "the callback the checkpoint as resume_from=, one that was saved with it."
            )
        return folder


class ForceCallback(_Attached):
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
        super().__init__(force, resume_from)
        self.force = force

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Pass the loss on, and add the numbers of the force to the log."""
        if logs and "loss" in logs:
            self.force.observe_loss(logs["loss"])
            logs.update(flat(self.force.stats()))
            state.log_history[-1].update(logs)


class SparsifierCallback(_Attached):
    """Attach a sparsifier to the Trainer's optimizer while it trains; its masks go into the checkpoints.

    Args:
        sparsifier: made from the Trainer's model. List it after a ForceCallback.
        resume_from: as of `ForceCallback`.
    """

    def __init__(self, sparsifier: Sparsifier, resume_from: str | Path | None = None) -> None:
        super().__init__(sparsifier, resume_from)
        self.sparsifier = sparsifier


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
