"""What callbacks do alike with the part that they attach, a force or a sparsifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from corank.force_state import load_force, save_force
from corank.regularizer import ForceRegularizer
from corank.sparsity import Sparsifier
from corank.state_files import read_state, write_state

Part: TypeAlias = ForceRegularizer | Sparsifier


def part_file(part: Part, folder: Path) -> Path:
    """Return the file of a part in a trainer's checkpoint, beside those of the trainer."""
    return folder / ("force.safetensors" if isinstance(part, ForceRegularizer) else "sparsifier.safetensors")


def write_part(part: Part, folder: Path) -> None:
    """Write the state of a part into a trainer's checkpoint."""
    path = part_file(part, folder)
    if isinstance(part, ForceRegularizer):
        save_force(part, path)
    else:
        write_state(path, part.state_dict())


def read_part(part: Part, folder: Path) -> None:
    """Take up the state of a part from a trainer's checkpoint.

    Raises: FileError, when it is not there; CorankError, when it is of another part.
    """
    path = part_file(part, folder)
    if isinstance(part, ForceRegularizer):
        load_force(part, path)
    else:
        part.load_state_dict(read_state(path))


def begin_again(part: Part, fresh: Mapping[str, Any] | None) -> dict[str, Any]:
    """Put a part back to how it first began, for a trainer that begins again at step 0; return that state.

    Args:
        fresh: what this returned before; None at the first beginning, which changes nothing.
    """
    if fresh is None:
        return part.state_dict()
    part.load_state_dict(fresh)
    return dict(fresh)
