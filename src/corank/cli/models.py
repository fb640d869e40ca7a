"""How every verb is told of a model: `package.module:factory`, its weights, and the shapes of its inputs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corank.errors import CorankError, FileError

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_model(name: str, weights: Path | None = None) -> nn.Module:
    """Import `package.module:factory`, call it, and load the weights of a safetensors file if given.

    The working folder is searched too.

    Raises: CorankError, for a name that leads nowhere, or a factory that fails or makes no network;
        FileError, for weights that do not fit.
    """
    from torch import nn

    module_name, _, factory = name.partition(":")
    if not module_name or not factory:
        raise CorankError(f"model: allowed is package.module:factory, got {name!r}.")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(module_name), factory)
    except ModuleNotFoundError as error:
        raise CorankError(f"model: {name!r}: there is no module {error.name!r} here.") from error
    except AttributeError as error:
        raise CorankError(f"model: {module_name} has no {factory!r}.") from error
    except Exception as error:  # the user's own code
        raise CorankError(f"model: importing {module_name} fails ({_said(error)}).") from error
    try:
        model = made()
    except Exception as error:  # the user's own code
        raise CorankError(
            f"model: {name} fails ({_said(error)}). It is called without arguments; wrap it in a function."
        ) from error
    if not isinstance(model, nn.Module):
        raise CorankError(f"model: {name} gives a {type(model).__name__}, not an nn.Module.")
    if weights is not None:
        _load_weights(model, weights)
    return model


def parse_shapes(shapes: Sequence[str]) -> list[tuple[int, ...]]:
    """Read shapes such as 1,3,224,224.

    Raises: CorankError, for what is none.
    """
    found = []
    for shape in shapes:
        try:
            sizes = tuple(int(part) for part in shape.replace("x", ",").split(","))
        except ValueError:
            sizes = ()
        if not sizes or any(size < 1 for size in sizes):
            raise CorankError(f"shape: allowed are whole numbers such as 1,3,224,224, got {shape!r}.")
        found.append(sizes)
    return found


def make_example(shapes: Sequence[str]) -> tuple[Tensor, ...]:
    """Make one random float32 input for each shape.

    Raises: CorankError, for no shape or for what is none.
    """
    import torch

    if not shapes:
        raise CorankError("shape: give the shape of each input, such as --shape 1,3,224,224.")
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in parse_shapes(shapes))


def _load_weights(model: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_model as load_safetensors

    try:
        load_safetensors(model, str(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise FileError(f"{path}: its weights cannot be loaded ({_said(error)}).") from error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
