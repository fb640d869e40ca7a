"""Images in folders, one folder a class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corank.data.splits import Images, Parts, split
from corank.errors import CorankError, FileError
from corank.extras import import_extra

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
SHARES = (0.64, 0.16, 0.2)  # train, dev, final
_PARTS = {"train": ("train",), "dev": ("dev", "val", "valid"), "final": ("final", "test")}


def read_folder(folder: Path, size: int | None = None) -> Parts:
    """Read `folder/<class>/*.png` and the like, or `folder/train/<class>/…` with dev (val) and final (test).

    Where there are only classes, they are split once by a fixed list into 64% train, 16% dev and 20% final;
    with train and test alone, test is split into dev and final halves. Images must have one size.

    Args:
        folder: the folder.
        size: scale each image to so many pixels on both sides.
    Raises: FileError, for images that cannot be read or differ in size; CorankError, for fewer than two
        classes, a class without images or one that train lacks; ExtraError, without Pillow.
    """
    found = {part: _first(folder, names) for part, names in _PARTS.items()}
    train = found["train"]
    if train is None:
        classes = _classes(folder)
        whole = _read(folder, classes, size)
        first, second, third = split(whole, SHARES)
        return Parts(f"{len(whole):,} images of {folder.name}", classes, first, second, third)
    classes = _classes(train)
    for path in (found["dev"], found["final"]):
        if path is not None and (more := [one for one in _folders(path) if one not in classes]):
            raise CorankError(
                f"{path}: has the class {more[0]}, which {train} lacks. Add it there, or remove it here."
            )
    parts = {part: _read(path, classes, size) for part, path in found.items() if path is not None}
    if "dev" not in parts and "final" not in parts:
        raise CorankError(f"{folder}: has train but neither dev (val) nor final (test). Add one of them.")
    if len(parts) == 2:
        parts["dev"], parts["final"] = split(parts.get("final") or parts["dev"], (0.5, 0.5))
    name = f"{sum(map(len, parts.values())):,} images of {folder.name}"
    return Parts(name, classes, parts["train"], parts["dev"], parts["final"])


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _classes(folder: Path) -> tuple[str, ...]:
    classes = _folders(folder)
    if len(classes) < 2:
        raise CorankError(
            f"{folder}: has {len(classes)} classes ({', '.join(classes) or 'no folder'}); at least 2 are "
            "needed, one folder each."
        )
    return classes


def _folders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(one.name for one in folder.iterdir() if one.is_dir() and one.name[0] != "."))


def _read(folder: Path, classes: tuple[str, ...], size: int | None) -> Images:
    images, labels = [], []
    shapes: Mapping[tuple[int, ...], Path] = {}
    image_module = import_extra("PIL.Image", "images")
    for label, name in enumerate(classes):
        paths = sorted(path for path in (folder / name).glob("*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise CorankError(
                f"{folder / name}: has no images ({', '.join(SUFFIXES)}). Add some or remove it."
            )
        for path in paths:
            image = _open(image_module, path, size)
            shapes = {**shapes, image.shape: path} if image.shape not in shapes else shapes
            if len(shapes) > 1:
                (one, first), (other, second) = list(shapes.items())
                raise FileError(
                    f"{second}: is {other[1]}×{other[0]}, {first} is {one[1]}×{one[0]}. "
                    "Scale all images to one size."
                )
            images.append(image)
            labels.append(label)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(labels))


def _open(image_module: Any, path: Path, size: int | None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    try:
        with image_module.open(path) as file:
            image = file.convert("RGB")
            return np.asarray(image if size is None else image.resize((size, size)))
    except (OSError, ValueError, SyntaxError) as error:
        raise FileError(f"{path}: is no image that Pillow can read ({error}).") from error
