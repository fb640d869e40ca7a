"""The force and the sparsifier in a loop that accelerate drives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corank.force_state import load_force, save_force
from corank.integrations.file_names import FORCE_FILE, MASKS_FILE
from corank.regularizer import ForceRegularizer
from corank.sparsity import Sparsifier
from corank.state_files import read_state, write_state
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
    with _in_checkpoints(
        accelerator,
        lambda folder: save_force(force, folder / FORCE_FILE),
        lambda folder: load_force(force, folder / FORCE_FILE),
    ):
        try:
            force.attach(*optimizers)
            yield force
        finally:
            force.detach()


@contextmanager
def sparsified(sparsifier: Sparsifier, accelerator: Any, *optimizers: Any) -> Iterator[Sparsifier]:
    """Attach a sparsifier to prepared optimizers for the length of a block, and its masks to the checkpoints.

    Args: as those of `forced`; open it inside of a block of `forced`.
    """
    with _in_checkpoints(
        accelerator,
        lambda folder: write_state(folder / MASKS_FILE, sparsifier.state_dict()),
        lambda folder: sparsifier.load_state_dict(read_state(folder / MASKS_FILE)),
    ):
        try:
            sparsifier.attach(*optimizers)
            yield sparsifier
        finally:
            sparsifier.detach()


def log_force(force: ForceRegularizer, accelerator: Any, step: int) -> None:
    """Send the numbers of a force to accelerate's trackers; every process must call it."""
    accelerator.log(flat(force.stats()), step=step)


@contextmanager
def _in_checkpoints(
    accelerator: Any, write: Callable[[Path], object], read: Callable[[Path], object]
) -> Iterator[None]:
    def save(models: Any, weights: Any, directory: str) -> None:
        if accelerator.is_main_process:
            write(Path(directory))

    def load(models: Any, directory: str) -> None:
        read(Path(directory))

    hooks = accelerator.register_save_state_pre_hook(save), accelerator.register_load_state_pre_hook(load)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
