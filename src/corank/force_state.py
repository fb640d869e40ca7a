"""The state of a force in one safetensors file, beside the checkpoint of the model."""

from __future__ import annotations

from pathlib import Path

from corank.errors import FileError
from corank.regularizer import ForceRegularizer
from corank.state_files import read_state, write_state


def save_force(force: ForceRegularizer, path: Path | str) -> Path:
    """Write the state of a force, so that `load_force` resumes it bit-exactly; no pickle is involved.

    Args:
        force: attached or not.
        path: the file, such as `checkpoint-500/force.safetensors`.
    Returns: the path.
    Raises: FileError, when it cannot be written.

    >>> import tempfile
    >>> from torch import nn
    >>> force = ForceRegularizer(nn.Sequential(nn.Conv2d(3, 8, 3)), 0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_force(force, f"{folder}/force.safetensors").name
    'force.safetensors'
    """
    return write_state(path, {"force": force.state_dict()})


def load_force(force: ForceRegularizer, path: Path | str) -> None:
    """Load what `save_force` wrote into a force on the same network.

    Raises: FileError, when the file is not there or holds no state of a force; CorankError, when it is the
        state of another force.

    >>> import tempfile, torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
    >>> first, second = ForceRegularizer(model, 0.1), ForceRegularizer(model, 0.1)
    >>> model(torch.ones(1, 3, 3, 3)).sum().backward()
    >>> first.add_grad_()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_force(second, save_force(first, Path(folder) / "force.safetensors"))
    >>> second.state_dict()["steps"]
    [1]
    """
    try:
        state = read_state(path)["force"]
    except (FileError, KeyError, TypeError) as error:
        raise FileError(f"{path}: holds no state of a force ({error}). save_force writes one.") from error
    force.load_state_dict(state)
