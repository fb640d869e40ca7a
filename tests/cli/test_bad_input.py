"""Bad input: one clear line, exit code 2, before any work, and nothing left behind."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.cli import own
from tests.cli.running import corank

__all__ = ["corank"]  # a fixture
pytest.importorskip("jinja2", reason="the report comes with the extra `report`")

OWN = "tests.cli.own"
QUICK = ["--out", "out", "--epochs", "3", "--backend", "torch", "-q"]
GOOD = [*QUICK, "--data", f"{OWN}:seeded", "--model", f"{OWN}:net", "--target", "macs=0.9"]


def _task(name, *more):
    return [*QUICK, "--data", f"{OWN}:{name}", "--model", f"{OWN}:net", "--target", "macs=0.9", *more]


def _model(name, *more):
    return [*QUICK, "--data", f"{OWN}:seeded", "--model", name if ":" in name else f"{OWN}:{name}", *more]


CASES = {
    # the network
    "model without a name": (_model("tests.cli.own:"), "model: allowed is package.module:factory"),
    "model not there": (_model(f"{OWN}:absent"), "has no 'absent'; it has"),
    "module not there": (_model("nowhere.at:all"), "there is no module 'nowhere' here"),
    "model fails": (_model("failing"), "fails (RuntimeError: no such)"),
    "model is none": (_model("nothing"), "gives a NoneType, not an nn.Module"),
    "model wants an argument": (_model("wants_argument"), "It is called without arguments"),
    "model is an instance": (_model("INSTANCE"), "is a network. Name the function or class"),
    "model is a number": (_model("NUMBER"), "is a int. Name a function"),
    "no model": ([*QUICK, "--data", f"{OWN}:seeded"], "needs a network. Give --model"),
    "nothing to force": (_model("without_convolutions"), ""),
    "layer to keep not there": (_model("net", "--keep", "conv9"), "'conv9' matches no weighted layer"),
    "layer to keep no expression": (_model("net", "--keep", "re:("), "is not a regular expression"),
    # the task
    "task not there": (_task("absent"), "has no 'absent'"),
    "task fails": (_task("failing_task"), "fails (ValueError: no data here)"),
    "task is none": (_task("no_task"), "returned a str, not a corank.Task"),
    "task is a number": (_task("NUMBER"), "is a int. Name a corank.Task"),
    "task takes no seed": (_task("without_seed"), "It is called with the seed"),
    "one class": (_task("one_class"), "train: every sample has the label 0. At least two classes"),
    "no training samples": (_task("no_train"), "train: has no samples"),
    "no dev samples": (_task("no_dev"), "dev: has no samples"),
    "NaN images": (
        _task("nan_images"),
        "dev: 1 samples of a batch are NaN or infinite, the first is number 5",
    ),
    "infinite images": (_task("nan_train"), "train: 1 samples of a batch are NaN or infinite"),
    "label too high": (_task("high_label"), "final: has the label 7, and the network puts out 3 classes"),
    "label below 0": (_task("negative_label"), "train: has the label -1"),
    "labels no numbers": (_task("float_labels"), "train: labels are whole numbers"),
    "dev and final overlap": (
        _task("overlapping"),
        "share 1 samples, such as number 4 of dev and 2 of final",
    ),
    "train and final overlap": (
        _task("trained_on_final"),
        "train and final share 1 samples, such as number 7 of train and 3 of final",
    ),
    "train and dev overlap": (_task("trained_on_dev"), "train and dev share 30 samples"),
    "split by the seed": (_task("split_by_seed"), "task of seed 1 has other samples in dev than that"),
    "split by chance": (_task("split_by_chance"), "seed 0 once more has other samples in dev"),
    "example of another shape": (_task("wrong_example"), "does not take it, shape (4, 3, 8, 8)"),
    "batches of another kind": (_task("odd_batches"), "a batch of classification is (input, label)"),
    "loader fails": (_task("broken_loader"), "dev: the loader failed (OSError: the disk is gone)"),
    "loss no number": (_task("vector_loss"), "loss: allowed is one number"),
    "loss fails": (_task("failing_loss"), "loss: it failed on the first batch (TypeError"),
    "loss NaN at once": (_task("nan_loss"), "it is nan on the first batch, before any training"),
    "no metric": (_task("no_metrics"), "allowed is {name: Metric} with at least one"),
    "metric no Metric": (_task("bare_metric"), "'accuracy' is a float. Wrap it"),
    "metric fails": (
        _task("failing_metric"),
        "evaluate: it failed on the first dev batch (ZeroDivisionError",
    ),
    "slice too short": (_task("wrong_slices"), "slices: 'early' has 10 values and final has 30 samples"),
    "slice of fractions": (_task("odd_slices"), "slices: 'early' holds 0.5"),
    "drift without a scale": (_task("seeded", "--drift"), "does not say how its inputs came from images"),
    "shifted not there": (_task("seeded", "--shifted", f"{OWN}:absent"), "has no 'absent'"),
    "shifted fails": (_task("seeded", "--shifted", f"{OWN}:failing"), "fails (RuntimeError: no such)"),
    "shifted is a number": (_task("seeded", "--shifted", f"{OWN}:NUMBER"), "is a int. Name batches"),
    "policy key": (_task("seeded", "--policy", "data/policy.yaml"), "the nearest is 'margin'"),
    "policy engine": (_task("seeded", "--policy", "data/engine.yaml"), "engines: allowed are torch, which"),
    "policy arm": (_task("seeded", "--policy", "data/arm.yaml"), "arm: allowed are lowrank, force in this"),
    "economics engine": (
        _task("seeded", "--economics", "data/costs.toml"),
        "backend: allowed are torch, which",
    ),
    "folds too few": (_task("seeded", "--folds", "2"), "folds: allowed is a whole number of folds from 3"),
    "folds of own data": (_task("seeded", "--folds", "3"), "cannot be split again. Write the factory as"),
    "folds of seen data": (
        [*QUICK, "--folds", "3", "--model", f"{OWN}:net", "--weights", "data/right.safetensors"],
        "folds: trained weights have seen the samples",
    ),
    # built-in data
    "unknown data": ([*QUICK, "--data", "imagenet"], "data: allowed is package.module:task, got 'imagenet'"),
    "digits in a folder": (_task("net", "--data", "digits:here"), "data: allowed are digits"),
    "data without a folder": (_task("net", "--data", "mnist:"), "data: allowed are digits"),
    "data folder not there": (_task("net", "--data", "mnist:absent"), "absent is no folder"),
    "MNIST not there": (_task("net", "--data", "mnist:data/empty"), "has no train-images-idx3-ubyte"),
    "MNIST damaged": (
        _task("net", "--data", "mnist:data/damaged"),
        "is no IDX file of bytes in 3 dimensions",
    ),
    "MNIST cut short": (_task("net", "--data", "mnist:data/short"), "promises 16 bytes and holds 9"),
    "MNIST packed badly": (_task("net", "--data", "mnist:data/packed"), "cannot be read"),
    "MNIST packed and torn": (_task("net", "--data", "mnist:data/torn_gz"), "cannot be read"),
    "MNIST cut in its header": (_task("net", "--data", "mnist:data/header"), "ends inside its header"),
    "MNIST does not fit": (_task("net", "--data", "mnist:data/misfit"), "has 4 images and 3 labels"),
    "CIFAR-10 not there": (_task("net", "--data", "cifar10:data/empty"), "has no data_batch_*.bin"),
    "CIFAR-10 cut short": (_task("net", "--data", "cifar10:data/damaged"), "are no whole records of 3073"),
    "CIFAR-10 label": (_task("net", "--data", "cifar10:data/label"), "has the label 11"),
    "folder of one class": (_task("net", "--data", "folder:data/one"), "has 1 classes (cats)"),
    "folder without classes": (_task("net", "--data", "folder:data/empty"), "has 0 classes"),
    "class without images": (_task("net", "--data", "folder:data/none"), "has no images"),
    "class in test alone": (
        _task("net", "--data", "folder:data/more"),
        "test: has the class birds, which data/more/train lacks",
    ),
    "broken image": (_task("net", "--data", "folder:data/broken"), "is no image that Pillow can read"),
    "images of two sizes": (_task("net", "--data", "folder:data/sizes"), "Scale all images to one size"),
    "too few images": (_task("net", "--data", "folder:data/few"), "samples are too few to split"),
    # weights
    "weights not there": (_model("net", "--weights", "absent.safetensors"), "there is no such file"),
    "weights a pickle": (_model("net", "--weights", "data/a.pth"), "weights_only=True"),
    "weights an old pickle": (_model("net", "--weights", "data/b.pkl"), "is a pickle, which can run code"),
    "weights damaged": (_model("net", "--weights", "data/text.safetensors"), "is no safetensors file"),
    "weights of other names": (
        _model("net", "--weights", "data/names.safetensors"),
        "0.weight is not in the file",
    ),
    "weights of other shapes": (
        _model("net", "--weights", "data/shapes.safetensors"),
        "0.weight is (8, 1, 5, 5) in the file and (8, 1, 3, 3) in the network",
    ),
    "weights NaN": (_model("net", "--weights", "data/nan.safetensors"), "0.bias has NaN or infinite values"),
    # targets
    "target unknown": ([*GOOD, "--target", "mac=0.5"], "target: unknown key 'mac'; the nearest is 'macs'"),
    "target no value": ([*GOOD, "--target", "macs"], "each part is key=value, got 'macs'"),
    "target twice": ([*GOOD, "--target", "macs=0.5,macs=0.6"], "macs comes twice"),
    "target no number": ([*GOOD, "--target", "macs=half"], "macs: allowed is a number, got 'half'"),
    "target in percent": (
        [*GOOD, "--target", "params=50"],
        "params: allowed is a fraction in (0, 1], got 50",
    ),
    "target latency": ([*GOOD, "--target", "latency=2"], "latency: allowed is a fraction in (0, 1], got 2"),
    "target engine": ([*GOOD, "--target", "latency=0.5,backend=tensorrt"], "got 'tensorrt'"),
    "target engine without time": ([*GOOD, "--target", "macs=0.5,backend=torch"], "no rule is about time"),
    "target two latencies": ([*GOOD, "--target", "latency=0.5,latency_ms=3"], "give one of ms and ratio"),
    "target energy": ([*GOOD, "--target", "energy=0"], "Energy: allowed is a fraction"),
    "target accuracy": ([*GOOD, "--target", "accuracy=5"], "Accuracy: max_drop is a fraction"),
    "target method": ([*GOOD, "--target", "method=svd"], "method goes with ranks"),
    "target out of reach": (
        [*GOOD, "--target", "macs=0.001"],
        "the limit on multiply-accumulates cannot be kept",
    ),
    "target and macs": ([*GOOD, "--macs", "0.5"], "it is short for --target"),
    # settings
    "no seeds": ([*GOOD, "--seeds", "0"], "seeds: give at least one, got 0"),
    "too few epochs": ([*GOOD, "--epochs", "2"], "epochs: a trial needs at least 3"),
    "arm unknown": ([*GOOD, "--arms", "dense,magic"], "magic"),
    "arms without dense": ([*GOOD, "--arms", "force"], "Every arm is compared with dense"),
    "arm twice": ([*GOOD, "--arms", "dense,force,force"], "each may come once"),
    "kind unknown": ([*GOOD, "--kind", "love"], "love"),
    "strength below 0": ([*GOOD, "--strength", "-1"], "strength: allowed is a finite number ≥ 0, got -1"),
    "strength NaN": ([*GOOD, "--strength", "nan"], "strength: allowed is a finite number"),
    "no threads": ([*GOOD, "--threads", "0"], "threads: allowed is a whole number"),
    "engine unknown": ([*GOOD, "--backend", "tensorrt"], "backend: allowed are torch"),
    # recipes
    "recipe not there": ([*GOOD, "--recipe", "absent.toml"], "absent.toml: cannot be read"),
    "recipe no TOML": ([*GOOD, "--recipe", "data/bad.toml"], "bad.toml: is no TOML"),
    "recipe key": ([*GOOD, "--recipe", "data/key.toml"], "unknown key 'epoch'; the nearest is 'epochs'"),
    "recipe target key": (
        [*GOOD, "--recipe", "data/target.toml"],
        "unknown key 'latensy'; the nearest is 'latency'",
    ),
    "recipe value": ([*GOOD, "--recipe", "data/value.toml"], "strength is a number, got 'strong'"),
    "recipe flag": ([*GOOD, "--recipe", "data/flag.toml"], "drift is a flag, true or false, got 1"),
    "recipe list": ([*GOOD, "--recipe", "data/list.toml"], "keep is a list, got 'head'"),
    "recipe list of numbers": ([*GOOD, "--recipe", "data/keeps.toml"], "keep is a list, each a text, got 1"),
    "recipe layers of numbers": (
        [*GOOD, "--recipe", "data/layers.toml"],
        "force_layers is a list, each a text, got 1",
    ),
    "recipe seeds a flag": ([*GOOD, "--recipe", "data/seeds.toml"], "seeds is a list, got True"),
    "recipe seeds of texts": ([*GOOD, "--recipe", "data/named.toml"], "seeds is a list, each a whole number"),
    "recipe epochs twice": ([*GOOD, "--recipe", "data/epochs.toml"], "it is shared out over the parts"),
    # the folder
    "out with a folder work": ([*GOOD, "--out", "data/own"], "own/work: is there already and holds no trial"),
    "out of a search": ([*GOOD, "--out", "data/search"], "holds a search of `corank tune`"),
    "out is a file": ([*GOOD, "--out", "data/a.pth"], "cannot be made (File exists)"),
    "out of another trial": (
        [*GOOD, "--out", "data/done"],
        "holds another trial: kind is l1 there and l2 here",
    ),
    "out of an old trial": ([*GOOD, "--out", "data/old"], "holds another trial: of an older corank"),
    "out of an unfinished trial": ([*GOOD, "--out", "data/half"], "holds another trial, not finished"),
    "out damaged": ([*GOOD, "--out", "data/torn"], "cannot be read"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write files that are wrong in every way that a case names."""
    folder = tmp_path_factory.mktemp("data")
    for name in (
        "empty",
        "damaged",
        "short",
        "packed",
        "misfit",
        "label",
        "done",
        "old",
        "half/work",
        "torn",
        "torn_gz",
        "header",
        "own/work",
        "search/work",
    ):
        (folder / name).mkdir(parents=True)
    (folder / "damaged" / "train-images-idx3-ubyte").write_bytes(b"not an idx file")
    (folder / "short" / "train-images-idx3-ubyte").write_bytes(
        struct.pack(">4B3I", 0, 0, 8, 3, 4, 2, 2) + b"9" * 9
    )
    (folder / "packed" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"some bytes")[:-4])
    torn = bytearray(gzip.compress(b"some bytes" * 99))
    torn[12:] = bytes(len(torn) - 12)  # inside what is packed
    (folder / "torn_gz" / "train-images-idx3-ubyte.gz").write_bytes(torn)
    (folder / "header" / "train-images-idx3-ubyte").write_bytes(bytes((0, 0, 8, 3, 0, 0)))
    (folder / "own" / "work" / "thesis.tex").write_text("years")
    (folder / "search" / "work" / "search.json").write_text("{}")
    images = struct.pack(">4B3I", 0, 0, 8, 3, 4, 2, 2) + bytes(16)
    (folder / "misfit" / "train-images-idx3-ubyte").write_bytes(images)
    (folder / "misfit" / "train-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 3) + bytes(3))
    (folder / "damaged" / "data_batch_1.bin").write_bytes(bytes(3000))
    (folder / "label" / "data_batch_1.bin").write_bytes(bytes([11]) + bytes(3072))
    _write_images(folder)
    weights = own.net().state_dict()
    torch.save(weights, folder / "a.pth")
    (folder / "b.pkl").write_bytes(pickle.dumps({"a": 1}))
    (folder / "text.safetensors").write_text("not tensors at all")
    save_file(weights, folder / "right.safetensors")
    save_file({"conv.weight": torch.ones(1)}, folder / "names.safetensors")
    save_file(weights | {"0.weight": torch.ones(8, 1, 5, 5)}, folder / "shapes.safetensors")
    save_file(weights | {"0.bias": torch.full((8,), float("nan"))}, folder / "nan.safetensors")
    for name, text in {
        "bad": "epochs = ",
        "key": "epoch = 3",
        "target": "[target]\nlatensy = 0.5",
        "value": 'strength = "strong"',
        "flag": "drift = 1",
        "list": 'keep = "head"',
        "keeps": "keep = [1]",
        "layers": "force_layers = [1]",
        "seeds": "seeds = true",
        "named": 'seeds = ["a"]',
        "epochs": "before_cut = 3",
    }.items():
        (folder / f"{name}.toml").write_text(text)
    (folder / "engine.yaml").write_text("engines: [openvino]")
    (folder / "arm.yaml").write_text("arm: force_plan")
    (folder / "costs.toml").write_text('cost_per_hour = 1\nrequests_per_day = 9\nbackend = "openvino"')
    (folder / "policy.yaml").write_text("marjin: 0.1")
    (folder / "done" / "pilot.json").write_text(json.dumps({"schema": 1, "identity": {"kind": "l1"}}))
    (folder / "old" / "pilot.json").write_text(json.dumps({"schema": 1}))
    (folder / "half" / "work" / "trial.json").write_text(json.dumps({"kind": "l1"}))
    (folder / "torn" / "pilot.json").write_text('{"schema":')
    return folder


def _write_images(folder):
    image_module = pytest.importorskip("PIL.Image", reason="images come with the extra `images`")

    def draw(path, size=4, value=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        image_module.fromarray(np.full((size, size, 3), value, np.uint8)).save(path)

    draw(folder / "one" / "cats" / "0.png")
    draw(folder / "none" / "cats" / "0.png")
    (folder / "none" / "dogs").mkdir()
    for number, place in enumerate(("train/cats", "train/dogs", "test/cats", "test/dogs", "test/birds")):
        draw(folder / "more" / place / "0.png", value=number)
    draw(folder / "broken" / "cats" / "0.png")
    (folder / "broken" / "cats" / "1.png").write_text("no image")
    draw(folder / "broken" / "dogs" / "0.png")
    draw(folder / "sizes" / "cats" / "0.png")
    draw(folder / "sizes" / "dogs" / "0.png", size=5)
    draw(folder / "few" / "cats" / "0.png", value=1)
    draw(folder / "few" / "dogs" / "0.png", value=2)


def _tree(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("case", CASES)
def test_it_is_one_line_and_exit_code_2_and_nothing_is_written(corank, data, tmp_path, case):
    words, message = CASES[case]
    (tmp_path / "data").symlink_to(data)
    before = _tree(data)
    code, out, err = corank("pilot", *words)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("corank: ")
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert _tree(data) == before


@pytest.mark.parametrize(
    ("module", "words", "extra"),
    [
        ("jinja2", GOOD, "report"),
        ("matplotlib", GOOD, "report"),
        ("onnxruntime", [*GOOD, "--backend", "onnxruntime"], "onnx"),
        ("openvino", [*GOOD, "--backend", "openvino"], "openvino"),
        ("sklearn.datasets", QUICK, "digits"),
        ("statsmodels", GOOD, "decision"),
        ("kornia", _task("pictured", "--drift"), "drift"),
        ("codecarbon", _task("seeded", "--energy"), "energy"),
        ("PIL.Image", _task("net", "--data", "folder:data/one"), "images"),
    ],
)
def test_a_missing_extra_is_named(corank, data, tmp_path, monkeypatch, module, words, extra):
    (data / "one" / "dogs").mkdir(exist_ok=True)
    (tmp_path / "data").symlink_to(data)
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = corank("pilot", *words)
    assert code == 2
    assert f"pip install 'corank[{extra}]'" in err
    assert not (tmp_path / "out").exists()


def test_a_read_only_folder(corank, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write anywhere, so this is what others meet
    code, _, err = corank("pilot", *GOOD)
    assert (code, err) == (2, "corank: out: cannot be made (Permission denied). Choose another folder.\n")


def test_a_folder_in_which_no_file_can_be_made(corank, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    code, _, err = corank("pilot", *GOOD)
    assert code == 2
    assert "trial.json: cannot be written (Permission denied)" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writes", [0, 1, 4, 12])
def test_a_full_disk_loses_nothing(corank, tmp_path, monkeypatch, writes):
    left = writes
    flush = __import__("corank.files").files._flush

    def full(path):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        flush(path)

    monkeypatch.setattr("corank.files._flush", full)
    code, _, err = corank("pilot", *GOOD)
    assert code == 2
    assert "No space left on device" in err
    assert not (tmp_path / "out" / "pilot.json").exists()
    assert list(tmp_path.rglob(".*")) == []
    if writes != 4:
        return
    monkeypatch.setattr("corank.files._flush", flush)
    code, _, err = corank("pilot", *GOOD)  # there is room again, and what was done counts
    assert code == 0, err
    assert (tmp_path / "out" / "report.html").exists()


def test_a_folder_that_another_run_holds(corank, tmp_path):
    (tmp_path / "out").mkdir()
    handle = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        code, _, err = corank("pilot", *GOOD)
    finally:
        os.close(handle)
    assert code == 2
    assert "another run is at work in this folder" in err
    assert list((tmp_path / "out").iterdir()) == []


BREAKING = [*QUICK, "--data", f"{OWN}:breaking", "--model", f"{OWN}:net", "--arms", "dense,force"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (float("nan"), "strength, 0.5 now, to 0.05"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory ran out on a batch of"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory ran out on a batch of"),
    ],
)
def test_what_breaks_while_training_with_force_keeps_the_last_good_state(
    corank, tmp_path, monkeypatch, error, message
):
    monkeypatch.setattr(own, "steps", 0)
    # 1 step of the checks, 4 of the shared epoch, 8 of dense, 4 of the first forced epoch, then it breaks
    monkeypatch.setattr(own, "LIMIT", 1 + 4 + 8 + 4 + 2)
    monkeypatch.setattr(own, "BREAK", error)
    words = [*BREAKING, "--strength", "0.5", "--target", "macs=0.9", "--epochs", "4"]
    code, _, err = corank("pilot", *words)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "finetune: " in err
    assert "epoch 1, step 3" in err or "epoch 2, step 3" in err
    assert message in err
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.safetensors")}
    assert "out/work/seed0/dense/done.safetensors" in kept
    if not isinstance(error, float):
        return
    monkeypatch.setattr(own, "LIMIT", 10**9)
    code, _, err = corank("pilot", *words)  # the same command goes on
    assert code == 0, err
    assert not (tmp_path / "out" / "work").exists()
