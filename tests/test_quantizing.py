"""int8 files: made, evaluated and timed; and exported files as modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import corank

pytest.importorskip("onnxscript", reason="ONNX files come with the extra `onnx`")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that tells classes apart, decomposed, its file, and batches."""
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 4
    images = torch.randn(96, 3, 8, 8, generator=draw) * 0.5 + torch.eye(4)[labels][:, :3, None, None]
    batches = [(images[i : i + 24], labels[i : i + 24]) for i in range(0, 96, 24)]
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip
    corank.finetune(net, batches, epochs=6, learning_rate=0.1, progress=False)
    small = corank.decompose(net, corank.plan(net, corank.Energy(0.9), example=images[:2])).eval()
    path = tmp_path_factory.mktemp("int8") / "small.onnx"
    corank.export(small, images[:2], path)
    return small, path, batches


def _accuracy(model, batches):
    return corank.tasks.evaluate_accuracy(model, batches)["accuracy"].value


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_int8_file_is_evaluated_like_the_network_it_was_made_of(trained, backend, tmp_path):
    pytest.importorskip(backend, reason="an optional engine")
    small, path, batches = trained
    assert _accuracy(corank.open_exported(path, backend=backend), batches) == _accuracy(small, batches)
    made = corank.quantize(path, batches, tmp_path / "int8.onnx")
    assert made.path.exists()
    assert made.batches == 4
    assert 0 < made.error < 0.2
    assert _accuracy(small, batches) > 0.9
    assert _accuracy(corank.open_exported(made.path, backend=backend), batches) > 0.85


def test_int8_and_float_files_are_timed_side_by_side(trained, tmp_path):
    small, path, batches = trained
    made = corank.quantize(path, batches, tmp_path / "int8.onnx", max_batches=2)
    assert made.batches == 2
    models = {"float": small, "int8": corank.open_exported(made.path)}
    result = corank.bench(
        models, batches[0][0], backends=["onnxruntime"], rounds=2, min_time=1e-4, memory=False
    )
    assert result.row("int8", "onnxruntime").median_ms > 0
    assert any("int8.onnx as it is" in note for note in result.notes)
    with pytest.raises(corank.CorankError, match=r"int8: int8.onnx is a file, and torch does not run it"):
        corank.bench(models, batches[0][0], backends=["torch"])


def test_a_file_of_several_outputs_and_inputs_gives_a_tuple(tmp_path):
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b, a * b

    a, b = torch.rand(2, 3), torch.rand(2, 3)
    corank.export(Two(), (a, b), tmp_path / "two.onnx")
    total, product = corank.open_exported(tmp_path / "two.onnx")(a, b)
    torch.testing.assert_close(total, a + b)
    torch.testing.assert_close(product, a * b)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: corank.quantize(path, [], path.with_name("o.onnx")), "there is no batch"),
        (lambda path: corank.quantize("absent.onnx", [torch.ones(1)], "o.onnx"), "there is no such file"),
        (lambda path: corank.quantize(path, [torch.ones(1)], "o.pt2"), "allowed is the suffix .onnx"),
        (
            lambda path: corank.quantize(path, [{"a": torch.ones(1), "b": torch.ones(1)}], "o.onnx"),
            r"takes 1 inputs \(.*\), a batch has 2",
        ),
        (lambda path: corank.open_exported(path, backend="torch"), "files are run by onnxruntime, openvino"),
        (lambda path: corank.open_exported(path.with_suffix(".xml")), r"onnxruntime reads .onnx, got '.xml'"),
        (lambda path: corank.open_exported(path.with_name("gone.onnx")), "there is no such file"),
    ],
)
def test_bad_input_is_one_error_and_leaves_no_file(trained, call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(corank.CorankError, match=message):
        call(trained[1])
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_network_is_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("no protobuf")
    with pytest.raises(corank.FileError, match="onnxruntime cannot read it"):
        corank.open_exported(tmp_path / "text.onnx")
