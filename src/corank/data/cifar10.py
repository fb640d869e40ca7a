"""CIFAR-10, from its official binary release or from mosaics of 1,000 images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from corank.data.splits import Images, Parts, split
from corank.errors import FileError
from corank.extras import import_extra

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes


def read_cifar10(folder: Path, files: int | None = None) -> Parts:
    """Read train as it is, and test split once into dev and final halves, class by class.

    The folder holds `data_batch_1.bin` to `_5` and `test_batch.bin`, or mosaics `train_*.webp` and
    `test_*.webp` of 20 by 50 images whose labels count 0 to 9 again and again.

    Args:
        folder: where the files are.
        files: read only so many of each split.
    Raises: FileError, when files are absent or damaged; ExtraError, for mosaics without Pillow.
    """
    if any(folder.glob("*.webp")):
        train, test = (_read_mosaics(folder, name, files) for name in ("train", "test"))
    else:
        train = _read_binary(folder, "data_batch_*.bin", files)
        test = _read_binary(folder, "test_batch.bin", files)
    dev, final = split(test, (0.5, 0.5))
    name = f"CIFAR-10, {len(train):,} training and {len(test):,} test images"
    return Parts(name, CLASSES, train, dev, final, augment=True)


def _read_binary(folder: Path, pattern: str, files: int | None) -> Images:
    paths = _find(folder, pattern)[:files]
    records = []
    for path in paths:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        if not data.size or data.size % _RECORD:
            raise FileError(
                f"{path}: {data.size} bytes are no whole records of {_RECORD}. Download it again."
            )
        records.append(data.reshape(-1, _RECORD))
    whole = np.concatenate(records)
    if whole[:, 0].max() > 9:
        raise FileError(
            f"{paths[0]}: has the label {whole[:, 0].max()}, allowed are 0 to 9. Download it again."
        )
    pixels = torch.from_numpy(whole[:, 1:].reshape(-1, 3, 32, 32).copy())
    return Images(pixels, torch.from_numpy(whole[:, 0].astype(np.int64)))


def _read_mosaics(folder: Path, name: str, files: int | None) -> Images:
    open_image = import_extra("PIL.Image", "images").open
    mosaics = []
    for path in _find(folder, f"{name}_*.webp")[:files]:
        try:
            mosaics.append(np.asarray(open_image(path)).reshape(20, 32, 50, 32, 3))
        except (OSError, ValueError) as error:
            raise FileError(f"{path}: is no mosaic of 20 by 50 images of 32×32 ({error}).") from error
    pixels = np.concatenate([one.transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32) for one in mosaics])
    return Images(torch.from_numpy(pixels), torch.arange(len(pixels)) % 10)


def _find(folder: Path, pattern: str) -> list[Path]:
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise FileError(f"{folder}: has no {pattern}. Give the folder of CIFAR-10's binary version.")
    return paths
