"""How every verb is told of a model: a factory or a name, its weights, and the shapes of its inputs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corank.errors import CorankError, one_line

if TYPE_CHECKING:
    from torch import Tensor, nn


def find_object(spec: str, what: str = "model") -> Any:
    """Import `package.module:name`; the working folder is searched too.

    Args:
        spec: the name.
        what: which option it was given to, for the message.
    Raises: CorankError, for text of another form, a module that cannot be imported, or a name that it lacks.

    >>> find_object("math:pi")
    3.141592653589793
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        kind = "factory" if what == "model" else "task"
        raise CorankError(f"{what}: allowed is package.module:{kind}, got {spec!r}.")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # an installed script does not look there by itself
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise CorankError(
            f"{what}: {spec!r}: there is no module {error.name!r} here. Run it from the folder that holds it."
        ) from error
    except Exception as error:  # the user's own code
        raise CorankError(f"{what}: importing {module_name} fails ({one_line(error)}).") from error
    if not hasattr(module, name):
        names = ", ".join(one for one in vars(module) if not one.startswith("_")) or "nothing"
        raise CorankError(f"{what}: {module_name} has no {name!r}; it has {names[:200]}.")
    return getattr(module, name)


def make_factory(spec: str) -> Callable[[], nn.Module]:
    """Return the factory of a network; called, it makes one or raises CorankError.

    Args: spec: `package.module:factory`, `timm:NAME`, or `transformers:FOLDER` or `:NAME`.

    Raises: CorankError, for a name that leads nowhere or to no function.
    """
    from torch import nn

    from corank.cli.hubs import HUBS

    hub, _, name = spec.partition(":")
    if hub in HUBS and name:
        return partial(HUBS[hub], name)
    factory = find_object(spec)
    if isinstance(factory, nn.Module):
        raise CorankError(f"model: {spec} is a network. Name the function or class that makes it.")
    if not callable(factory):
        raise CorankError(f"model: {spec} is a {type(factory).__name__}. Name a function without arguments.")

    def make() -> nn.Module:
        try:
            made = factory()
        except Exception as error:  # the user's own code
            raise CorankError(
                f"model: {spec} fails ({one_line(error)}). It is called without arguments; "
                "wrap it in a function."
            ) from error
        if not isinstance(made, nn.Module):
            raise CorankError(f"model: {spec} gives a {type(made).__name__}, not an nn.Module.")
        return made

    return make


def load_model(name: str, weights: Path | None = None) -> nn.Module:
    """Make the network that a name stands for, and load the weights of a safetensors file if given.

    Raises: CorankError, for a name that leads nowhere, or a factory that fails or makes no network;
        FileError, for weights that do not fit.
    """
    from corank.weights import load_weights

    make = make_factory(name)
    return make() if weights is None else load_weights(make, weights)


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
    """Make one random input for each shape: float32, or with `:int` behind it token ids or a mask, 0 and 1.

    Raises: CorankError, for no shape or for what is none.

    >>> [(tuple(one.shape), one.dtype) for one in make_example(["1,3,8,8", "1,16:int"])]
    [((1, 3, 8, 8), torch.float32), ((1, 16), torch.int64)]
    """
    import torch

    if not shapes:
        raise CorankError("shape: give the shape of each input, such as --shape 1,3,224,224.")
    generator = torch.Generator().manual_seed(0)
    whole = [shape.endswith(":int") for shape in shapes]
    sizes = parse_shapes([shape.removesuffix(":int") for shape in shapes])
    return tuple(
        torch.randint(2, size, generator=generator) if ids else torch.randn(size, generator=generator)
        for size, ids in zip(sizes, whole, strict=True)
    )
