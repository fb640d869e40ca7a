"""Built-in data: files are read as their formats say, and no two parts share an image."""

from __future__ import annotations

import gzip
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from corank.data import BUILT_IN, is_built_in, read_data
from corank.data.batches import Batches
from corank.data.cifar10 import read_cifar10
from corank.data.mnist import read_idx
from corank.data.splits import Images, content_hashes, split
from corank.data.tasks import Normalise, make_task

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def _hashes(images):
    return set(content_hashes(images.pixels))


def _disjoint(parts):
    train, dev, final = (_hashes(one) for one in (parts.train, parts.dev, parts.final))
    assert not train & dev
    assert not train & final
    assert not dev & final


def test_a_split_is_fixed_stratified_and_disjoint():
    images = Images(torch.arange(300.0).reshape(300, 1, 1, 1), torch.arange(300) % 3)
    one, two = (split(images, (0.64, 0.16, 0.2)) for _ in range(2))
    assert [len(part) for part in one] == [192, 48, 60]
    for part, again in zip(one, two, strict=True):
        assert torch.equal(part.pixels, again.pixels)
        assert set(Counter(part.labels.tolist()).values()) == {len(part) // 3}
    together = torch.cat([part.pixels.flatten() for part in one])
    assert torch.equal(together.sort().values, images.pixels.flatten())


def test_equal_images_never_part():
    pixels = (torch.arange(200.0) % 40).reshape(200, 1, 1, 1)  # each image five times
    dev, final = split(Images(pixels, torch.arange(200) % 2), (0.5, 0.5))
    assert not _hashes(dev) & _hashes(final)
    assert len(dev) + len(final) == 200
    assert len(dev) == 100


def _write_mnist(folder, packed):
    generator = np.random.default_rng(0)
    for name, count in (("train", 30), ("t10k", 20)):
        images = generator.integers(0, 256, (count, 5, 4), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 2
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
            path = folder / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)
    return images


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_from_idx(tmp_path, packed):
    last = _write_mnist(tmp_path, packed)
    parts = read_data(f"mnist:{tmp_path}")
    assert [len(part) for part in (parts.train, parts.dev, parts.final)] == [30, 10, 10]
    assert parts.train.pixels.shape == (30, 1, 5, 4)
    _disjoint(parts)
    both = _hashes(parts.dev) | _hashes(parts.final)
    assert both == set(content_hashes(torch.from_numpy(last)))
    name = "t10k-images-idx3-ubyte" + (".gz" if packed else "")
    assert torch.equal(read_idx(tmp_path / name, 3), torch.from_numpy(last))


def test_cifar10_from_the_binary_release(tmp_path):
    generator = np.random.default_rng(0)
    records = {}
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        labels = (np.arange(20) % 10).astype(np.uint8)
        pixels = generator.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
        (tmp_path / f"{name}.bin").write_bytes(np.hstack([labels[:, None], pixels.reshape(20, -1)]).tobytes())
        records[name] = pixels
    parts = read_data(f"cifar10:{tmp_path}")
    assert [len(part) for part in (parts.train, parts.dev, parts.final)] == [40, 10, 10]
    assert np.array_equal(parts.train.pixels[20:].numpy(), records["data_batch_2"])
    assert parts.classes[int(parts.train.labels[3])] == "cat"
    assert Counter(parts.dev.labels.tolist()) == Counter(range(10))
    _disjoint(parts)


@pytest.mark.shared
def test_cifar10_from_mosaics():
    if not (SHARED / "cifar10").is_dir():
        pytest.skip("../shared/data holds no CIFAR-10")
    parts = read_cifar10(SHARED / "cifar10", files=1)
    assert [len(part) for part in (parts.train, parts.dev, parts.final)] == [1000, 500, 500]
    means = parts.train.pixels.double().mean((0, 2, 3)) / 255
    assert torch.allclose(means, torch.tensor([0.4914, 0.4822, 0.4465]).double(), atol=0.02)
    assert set(Counter(parts.dev.labels.tolist()).values()) == {50}
    _disjoint(parts)


@pytest.fixture
def pictures(tmp_path):
    image_module = pytest.importorskip("PIL.Image", reason="images come with the extra `images`")
    generator = np.random.default_rng(0)

    def draw(*folders, count=25):
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                image_module.fromarray(pixels).save(tmp_path / folder / f"{number:02}.png")
        return tmp_path

    return draw


def test_a_folder_of_classes_is_split(pictures):
    parts = read_data(f"folder:{pictures('cats', 'dogs')}")
    assert parts.classes == ("cats", "dogs")
    assert [len(part) for part in (parts.train, parts.dev, parts.final)] == [32, 8, 10]
    assert parts.train.pixels.shape == (32, 3, 6, 6)
    _disjoint(parts)


def test_a_folder_with_train_and_test(pictures):
    folder = pictures("train/cats", "train/dogs", "test/cats", "test/dogs", count=10)
    parts = read_data(f"folder:{folder}")
    assert [len(part) for part in (parts.train, parts.dev, parts.final)] == [20, 10, 10]
    _disjoint(parts)
    folder = pictures("val/cats", "val/dogs", count=3)
    parts = read_data(f"folder:{folder}")
    assert [len(part) for part in (parts.train, parts.dev, parts.final)] == [20, 6, 20]


def test_training_images_are_augmented_alike_for_one_seed_and_others_never():
    parts = read_cifar10_like()
    first, again, other = (make_task(parts, seed) for seed in (0, 0, 1))
    batches = [torch.cat([x for x, _ in task.train]) for task in (first, again, other)]
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])
    assert not torch.equal(batches[0], torch.cat([x for x, _ in first.train]))  # another pass
    assert torch.equal(*(torch.cat([x for x, _ in task.final]) for task in (first, other)))


def read_cifar10_like():
    from corank.data.splits import Parts

    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (90, 3, 8, 8), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.arange(90) % 3)
    return Parts("like", ("a", "b", "c"), *split(images, (0.6, 0.2, 0.2)), augment=True)


def test_normalised_images_have_mean_0_and_deviation_1():
    task = make_task(read_cifar10_like(), 0)
    prepare = Normalise(task.final.prepare.mean, task.final.prepare.std)
    x = prepare(read_cifar10_like().train.pixels, torch.Generator())
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(x.std((0, 2, 3)), torch.ones(3), atol=1e-4)


def test_an_augmented_image_is_a_shifted_or_mirrored_one():
    x = torch.arange(1.0, 65.0).reshape(1, 1, 8, 8) / 64 * 255
    prepare = Normalise((0.0,), (1.0,), augment=True)
    generator = torch.Generator().manual_seed(0)
    padded = torch.nn.functional.pad(x / 255, (4, 4, 4, 4))
    windows = [padded[..., r : r + 8, c : c + 8] for r in range(9) for c in range(9)]
    windows += [one.flip(-1) for one in windows]
    for _ in range(20):
        made = prepare(x, generator)
        assert any(torch.equal(made, one) for one in windows)


def test_a_pass_is_repeated_from_its_state():
    loader = Batches(torch.arange(20.0)[:, None], torch.arange(20), 8, 3)
    next(iter(loader))
    state = loader.state_dict()
    wanted = [y.tolist() for _, y in loader]
    loader.load_state_dict(state)
    assert [y.tolist() for _, y in loader] == wanted


def test_names():
    assert all(is_built_in(f"{name}:folder") for name in BUILT_IN)
    assert is_built_in("digits")
    assert not is_built_in("my.project:task")
