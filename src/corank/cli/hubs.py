"""Networks by the name that timm or transformers knows them by: `timm:resnet18`, `transformers:folder`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corank.errors import CorankError, ExtraError, one_line
from corank.extras import import_extra

if TYPE_CHECKING:
    from torch import nn


def timm_model(name: str) -> nn.Module:
    """Make a network of timm, with random weights; trained ones come as a safetensors file.

    Raises: ExtraError, without timm or the torchvision that it needs; CorankError, for a name unknown to it.
    """
    try:
        timm: Any = import_extra("timm", "timm")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise ExtraError(
            "timm needs torchvision, which is not installed. Install the build that belongs to your torch; "
            "it comes with the extra `timm`: pip install 'corank[timm]'"
        ) from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 1)
        hint = f" Did you mean timm:{near[0]}?" if near else " timm.list_models() lists its names."
        raise CorankError(f"model: timm has no {name!r}.{hint}")
    made: nn.Module = timm.create_model(name, pretrained=False)
    return made


def transformers_model(name: str) -> nn.Module:
    """Make a network of transformers from a folder or a name on its hub, in float32.

    The class is the one that its config.json names. Weights are read from safetensors files; a folder with
    only a config.json, and a network that is built on meta, get none.
    Raises: ExtraError, without transformers; CorankError, for what it cannot make.
    """
    transformers: Any = import_extra("transformers", "transformers")
    import torch
    from torch import nn

    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except Exception as error:  # no such folder, no hub, a broken file: dozens of kinds
        raise CorankError(
            f"model: transformers:{name} has no readable config.json ({one_line(error)}). Give a folder that "
            "save_pretrained wrote, or a name on the hub where it can be reached."
        ) from error
    classes = config.architectures or ()
    kind = getattr(transformers, classes[0], None) if classes else None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise CorankError(
            f"model: transformers:{name}: its config.json names no network of transformers in "
            f"`architectures`, got {classes or 'nothing'!r}. Write a function that builds it: "
            "package.module:factory."
        )
    folder = Path(name)
    bare = folder.is_dir() and not any(file.suffix in _WEIGHTS for file in folder.iterdir())
    try:
        if bare or torch.get_default_device().type == "meta":
            made = kind(config)
        else:
            loads: Any = kind  # transformers itself tells of weights that are missing
            made = loads.from_pretrained(name, config=config, use_safetensors=True, dtype=torch.float32)
    except Exception as error:  # each architecture has its own kinds
        raise CorankError(
            f"model: transformers:{name} cannot be loaded ({one_line(error)}). Give a folder with a whole "
            "config.json and model.safetensors; pickled weights are not read: load them in transformers, and "
            "write them by save_pretrained(safe_serialization=True)."
        ) from error
    network: nn.Module = made.float().eval()
    return network


_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth"}
HUBS: dict[str, Callable[[str], nn.Module]] = {"timm": timm_model, "transformers": transformers_model}
