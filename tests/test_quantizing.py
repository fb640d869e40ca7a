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
            r"takes 1 inputs \(.*\), got 2 tensors",
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


class Two(nn.Module):
    """Two inputs that must not be taken for each other."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, y):
        return 10 * self.a(x) + self.b(y)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    torch.manual_seed(0)
    net, x, y = Two().eval(), torch.randn(2, 4), torch.randn(2, 4)
    path = tmp_path_factory.mktemp("two") / "two.onnx"
    corank.export(net, {"x": x, "y": y}, path)
    return net, path, x, y


def test_keywords_are_taken_by_name(two, tmp_path):
    net, path, x, y = two
    run = corank.open_exported(path)
    for got in (run(x, y), run(y=y, x=x), run(x, y=y)):
        assert torch.allclose(got, net(x, y), atol=1e-4)
    first, second = (
        corank.quantize(path, [batch], tmp_path / "int8.onnx").error
        for batch in ({"x": x, "y": 100 * y}, {"y": 100 * y, "x": x})
    )
    assert first == second < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: ((x,), {}), r"takes 2 inputs \(x, y\), got 1 tensors"),
        (lambda x, y: ((x, y, y), {}), r"takes 2 inputs \(x, y\), got 3 tensors"),
        (lambda x, y: ((x.double(), y), {}), "does not run on float64"),
        (lambda x, y: ((x[:, :3], y), {}), r"does not run on float32 \(2, 3\)"),
        (lambda x, y: ((x.bfloat16(), y), {}), "x is torch.bfloat16"),
    ],
)
def test_what_a_file_does_not_take_is_one_clear_error(two, call, message):
    _, path, x, y = two
    args, kwargs = call(x, y)
    with pytest.raises(corank.CorankError, match=message):
        corank.open_exported(path)(*args, **kwargs)


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        (lambda x: [x[:0]], {}, "is empty"),
        (lambda x: [x, x * float("nan")], {}, "not finite"),
        (lambda x: [x.double()], {}, "float64"),
        (lambda x: [x, x[:, :, :, :0]], {}, "is empty"),
        (lambda x: [x, x[:, :2]], {}, "a batch does not fit"),
        (lambda x: [x], {"max_batches": 0}, "max_batches is a whole number from 1, got 0"),
    ],
)
def test_batches_that_cannot_be_are_one_clear_error(trained, batches, options, message, tmp_path):
    _, path, made = trained
    with pytest.raises(corank.CorankError, match=message):
        corank.quantize(path, batches(made[0][0]), tmp_path / "int8.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_network_or_in_int8_already(trained, tmp_path):
    _, path, batches = trained
    made = corank.quantize(path, batches, tmp_path / "int8.onnx")
    with pytest.raises(corank.FileError, match="in int8 already"):
        corank.quantize(made.path, batches, tmp_path / "again.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(corank.FileError, match="cannot read it"):
        corank.quantize(tmp_path / "text.onnx", batches, tmp_path / "again.onnx")
