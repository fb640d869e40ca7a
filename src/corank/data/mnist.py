"""MNIST, or any data set in its IDX files, packed with gzip or not."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from corank.data.splits import Images, Parts, split
from corank.errors import FileError

_NAMES = {"train": "train", "test": "t10k"}


def read_mnist(folder: Path) -> Parts:
    """Read `train-*` to train on, and `t10k-*` split once into dev and final halves, class by class.

    Raises: FileError, when a file is absent or no IDX file of bytes, or images and labels do not fit.
    """
    train, test = (_read_pair(folder, _NAMES[one]) for one in ("train", "test"))
    dev, final = split(test, (0.5, 0.5))
    classes = tuple(str(label) for label in range(int(train.labels.max()) + 1))
    return Parts(f"MNIST, {len(train):,} and {len(test):,} images", classes, train, dev, final)


def _read_pair(folder: Path, name: str) -> Images:
    images = read_idx(_find(folder, f"{name}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(_find(folder, f"{name}-labels-idx1-ubyte"), dimensions=1)
    if len(images) != len(labels) or not len(labels):
        raise FileError(
            f"{folder}: {name} has {len(images)} images and {len(labels)} labels. Give the files of one set."
        )
    return Images(images[:, None], labels.long())


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx")):
        if path.is_file():
            return path
    raise FileError(
        f"{folder}: has no {name}, packed with gzip or not. Give the folder with MNIST's four files."
    )


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an IDX file of bytes: two zeros, the type 8, the number of dimensions, each as uint32, the bytes.

    Raises: FileError, for any other file.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path}: cannot be read ({error}). Download it again.") from error
    if data[:4] != bytes((0, 0, 8, dimensions)):
        raise FileError(f"{path}: is no IDX file of bytes in {dimensions} dimensions. Download it again.")
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise FileError(f"{path}: ends inside its header, after {len(data)} bytes. Download it again.")
    shape = np.frombuffer(data, ">u4", dimensions, 4).tolist()
    if len(data) - start != prod(shape):
        raise FileError(
            f"{path}: promises {prod(shape)} bytes and holds {len(data) - start}. Download it again."
        )
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy())
