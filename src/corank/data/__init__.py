"""Data sets by name, each cut into train, dev and final parts that share no sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from corank.data.cifar10 import read_cifar10
from corank.data.digits import read_digits
from corank.data.folder import read_folder
from corank.data.mnist import read_mnist
from corank.data.splits import Parts
from corank.errors import CorankError

__all__ = ["BUILT_IN", "Parts", "read_data"]

BUILT_IN: dict[str, Callable[[Path], Parts]] = {
    "mnist": read_mnist,
    "cifar10": read_cifar10,
    "folder": read_folder,
}


def is_built_in(text: str) -> bool:
    """Say whether a text names built-in data, such as `digits` or `mnist:/data/mnist`."""
    return text.partition(":")[0] in ("digits", *BUILT_IN)


def read_data(text: str) -> Parts:
    """Read built-in data: `digits`, `mnist:DIR`, `cifar10:DIR` or `folder:DIR`.

    Raises: CorankError, for another name or without a folder; FileError, when the files are not there.
    """
    name, _, folder = text.partition(":")
    if name == "digits" and not folder:
        return read_digits()
    if name not in BUILT_IN or not folder:
        raise CorankError(
            f"data: allowed are digits, {', '.join(f'{one}:DIR' for one in BUILT_IN)} or "
            f"package.module:task; got {text!r}."
        )
    path = Path(folder)
    if not path.is_dir():
        raise CorankError(f"data: {path} is no folder. Give the folder that holds the {name} files.")
    return BUILT_IN[name](path)
