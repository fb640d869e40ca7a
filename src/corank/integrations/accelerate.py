"""The force and the sparsifier in a loop that accelerate drives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corank.integrations.parts import Part, read_part, write_part
from corank.regularizer import ForceRegularizer
from corank.sparsity import Sparsifier
from corank.tracking import flat


@contextmanager
def forced(force: ForceRegularizer, accelerator: Any, *optimizers: Any) -> Iterator[ForceRegularizer]:
    """Attach a force to prepared optimizers for the length of a block, and its state to the checkpoints.

    `accelerator.save_state` and `load_state` write and read it as well; all of it ends with the block.

    Args:
        force: made from the model that `accelerator.prepare` gave.
        accelerator: the Accelerator.
        optimizers: those that `accelerator.prepare` gave.
    """
    with _attached(force, accelerator, optimizers):
        yield force


@contextmanager
def sparsified(sparsifier: Sparsifier, accelerator: Any, *optimizers: Any) -> Iterator[Sparsifier]:
    """Attach a sparsifier to prepared optimizers for the length of a block, and its masks to the checkpoints.

    Args: as those of `forced`; open it inside of a block of `forced`.
    """
    with _attached(sparsifier, accelerator, optimizers):
        yield sparsifier


def log_force(force: ForceRegularizer, accelerator: Any, step: int) -> None:
    """Send the numbers of a force to accelerate's trackers; every process must call it."""
    accelerator.log(flat(force.stats()), step=step)


@contextmanager
def _attached(part: Part, accelerator: Any, optimizers: Sequence[Any]) -> Iterator[None]:
    def save(models: Any, weights: Any, directory: str) -> None:
        if accelerator.is_main_process:
            write_part(part, Path(directory))

    def load(models: Any, directory: str) -> None:
        read_part(part, Path(directory))

    hooks = accelerator.register_save_state_pre_hook(save), accelerator.register_load_state_pre_hook(load)
    try:
        part.attach(*optimizers)
        yield
    finally:
        part.detach()
        for hook in hooks:
            hook.remove()
