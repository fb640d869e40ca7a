from __future__ import annotations

import copy
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import corank.formats
from corank.engines import import_onnxruntime, import_openvino
from corank.errors import CorankError, ExtraError, FileError
from corank.exporting import export, relative_error, resize_batch

pytest.importorskip("onnxscript")


class Net(nn.Module):
    """Two convolutions with batch norm that has seen data."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.down = nn.Conv2d(6, 8, 3, stride=2, groups=2)
        self.head = nn.Linear(8, 5)
        self.drop = nn.Dropout(0.5)
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x):
        x = self.down(self.norm(self.conv(x)).relu())
        return self.head(self.drop(x.mean((2, 3))))


class Dictionary(nn.Module):
    """Keyword arguments, an integer input, a plain number, and several outputs."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, ids, mask=None, scale=1.0):
        hidden = self.embed(ids) * scale
        if mask is not None:
            hidden = hidden * mask.unsqueeze(-1)
        return {"logits": self.head(hidden), "rest": (hidden.sum(1), hidden.argmax(-1))}


class Pair(nn.Module):
    def forward(self, a, b):
        return a @ b["weight"], a + 1


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1) * 2


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 1)

    def forward(self, x, padding):
        return self.layers(x, src_key_padding_mask=padding)


class Noisy(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, training=True)


class ReadsData(nn.Module):
    def forward(self, x):
        return x * float(x.sum())


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def run_onnx(path: Path, *arrays: np.ndarray) -> list[np.ndarray]:
    """The check of the tests, on engine settings of its own."""
    session = import_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays, strict=True)})


def test_file_computes_the_same_at_other_batch_sizes(tmp_path):
    model = Net().eval()
    report = export(model, torch.randn(1, 3, 8, 8), tmp_path / "net.onnx")
    assert report.dynamic_batch
    assert report.batch_sizes == (1, 3)
    assert report.error < 1e-5
    assert report.size == (tmp_path / "net.onnx").stat().st_size
    assert not report.notes
    assert "any batch size" in str(report)
    x = torch.randn(5, 3, 8, 8)
    (got,) = run_onnx(tmp_path / "net.onnx", x.numpy())
    torch.testing.assert_close(torch.from_numpy(got), model(x).detach(), rtol=1e-4, atol=1e-5)


def test_the_model_is_given_back_as_it_was(tmp_path):
    model = Net().train()
    model.norm.eval()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    export(model, torch.randn(2, 3, 8, 8), tmp_path / "net.onnx")
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert names(tmp_path) == ["net.onnx"]


def test_keyword_arguments_and_several_outputs(tmp_path):
    model = Dictionary()
    example = {"mask": torch.ones(2, 5), "ids": torch.randint(0, 10, (2, 5)), "scale": 2.0}
    report = export(model, example, tmp_path / "net.onnx")
    assert report.dynamic_batch
    assert set(report.inputs) == {"ids", "mask"}
    assert len(report.outputs) == 3
    ids, mask = torch.randint(0, 10, (4, 5)), (torch.rand(4, 5) > 0.5).float()
    feed = {"ids": ids.numpy(), "mask": mask.numpy()}
    got = run_onnx(tmp_path / "net.onnx", *(feed[name] for name in report.inputs))
    wanted = model(ids, mask, 2.0)
    torch.testing.assert_close(torch.from_numpy(got[0]), wanted["logits"].detach())
    torch.testing.assert_close(torch.from_numpy(got[2]), wanted["rest"][1])


def test_a_tensor_without_the_batch_dimension_keeps_its_size(tmp_path):
    report = export(Pair(), (torch.randn(2, 4), {"weight": torch.randn(4, 6)}), tmp_path / "net.onnx")
    assert report.dynamic_batch
    a, weight = np.ones((3, 4), np.float32), np.ones((4, 6), np.float32)
    assert np.array_equal(run_onnx(tmp_path / "net.onnx", a, weight)[0], np.full((3, 6), 4, np.float32))


def test_a_network_for_one_batch_size_gets_a_static_file_and_a_note(tmp_path):
    report = export(FixedBatch(), torch.randn(2, 3, 4), tmp_path / "net.onnx")
    assert not report.dynamic_batch
    assert report.batch_sizes == (2,)
    assert "fixed at 2" in report.notes[0]
    assert "batch size 2 only" in str(report)


def test_a_transformer_with_a_padding_mask(tmp_path):
    """In eval mode torch has a fast path that warns, and zeroes what is padded; the file is the slow one."""
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    report = export(Encoder(), {"x": torch.randn(2, 5, 8), "padding": padding}, tmp_path / "net.pt2")
    assert report.dynamic_batch
    assert report.error < 1e-5
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_network_of_any_number_of_arguments_gets_any_batch_size(tmp_path):
    class Both(nn.Module):
        def forward(self, *parts):
            return parts[0] @ parts[1]["w"]

    example = (torch.randn(2, 4), {"w": torch.randn(4, 3)})
    assert export(Both(), example, tmp_path / "net.onnx").dynamic_batch


def test_a_static_file_on_request_has_no_note(tmp_path):
    report = export(Net(), torch.randn(1, 3, 8, 8), tmp_path / "net.onnx", dynamic_batch=False)
    assert not report.dynamic_batch
    assert not report.notes


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Noisy(), {}, "gives another output each time"),
        (ReadsData(), {}, "cannot be exported"),
        (Net(), {"tolerance": 0.0}, "differs from the model"),
    ],
)
def test_a_wrong_file_is_refused_and_the_old_one_stays(tmp_path, model, options, message):
    target = tmp_path / "net.onnx"
    target.write_bytes(b"the last good one")
    with pytest.raises(FileError, match=message) as caught:
        export(model, torch.randn(2, 3, 8, 8), target, **options)
    assert str(caught.value).startswith("net.onnx")
    assert target.read_bytes() == b"the last good one"
    assert names(tmp_path) == ["net.onnx"]


def test_a_crash_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def half_written(program, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setitem(corank.formats.WRITERS, ".onnx", half_written)
    model = Net().train()
    with pytest.raises(KeyboardInterrupt):
        export(model, torch.randn(2, 3, 8, 8), tmp_path / "net.onnx")
    assert names(tmp_path) == []
    assert model.training


def test_weights_beyond_one_file_go_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(corank.formats, "SINGLE_FILE_BYTES", 1000)
    model = nn.Linear(64, 64)
    report = export(model, torch.randn(2, 64), tmp_path / "net.onnx")
    assert names(tmp_path) == ["net.onnx", "net.onnx.data"]
    assert report.size == sum(file.stat().st_size for file in tmp_path.iterdir())
    x = torch.randn(3, 64)
    torch.testing.assert_close(
        torch.from_numpy(run_onnx(tmp_path / "net.onnx", x.numpy())[0]), model(x).detach()
    )


def test_openvino_file_in_float32(tmp_path):
    model = Net().eval()
    report = export(model, torch.randn(1, 3, 8, 8), tmp_path / "net.xml")
    assert names(tmp_path) == ["net.bin", "net.xml"]
    assert report.dynamic_batch
    read = import_openvino().Core().read_model(tmp_path / "net.xml")
    types = {output.element_type.get_type_name() for node in read.get_ops() for output in node.outputs()}
    assert "f32" in types
    assert not types & {"f16", "bf16"}


def test_what_openvino_says_is_said_without_its_source_files(tmp_path):
    circular = nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")
    with pytest.raises(FileError, match="Conversion is failed for") as caught:
        export(circular, torch.randn(2, 2, 5, 5), tmp_path / "net.xml", dynamic_batch=False)
    assert "Exception from" not in str(caught.value)


def test_torch_export_archive(tmp_path):
    model = Net().eval()
    x = torch.randn(2, 3, 8, 8)
    report = export(model, x, tmp_path / "net.pt2")
    assert report.dynamic_batch
    assert x.numpy().tobytes() not in (tmp_path / "net.pt2").read_bytes()  # the data is not in the file
    # corank never reads such a file; the test does, to see that it holds the network
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    y = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(loaded(y), model(y))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("net.pkl", "allowed suffixes are .onnx, .xml, .pt2, .pte"),
        ("folder.onnx", "is a folder"),
        ("file.txt/net.onnx", "cannot be written"),
    ],
)
def test_a_bad_path_is_refused_before_any_work(tmp_path, path, message):
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file.txt").touch()
    with pytest.raises(FileError, match=message):
        export(nn.Linear(2, 2), torch.ones(1, 2), tmp_path / path)
    assert names(tmp_path) == ["file.txt", "folder.onnx"]


def test_executorch_at_the_batch_of_the_example(tmp_path):
    pytest.importorskip("executorch", reason="needs the extra `executorch`")
    report = export(Net().eval(), torch.randn(2, 3, 12, 12), tmp_path / "net.pte")
    assert (report.dynamic_batch, report.batch_sizes) == (False, (2,))
    assert report.notes == ("the batch size is fixed at 2: ExecuTorch lays its memory out ahead",)
    assert 0 < report.error <= 1e-4  # run by its own runtime
    assert names(tmp_path) == ["net.pte"]
    ids = {"ids": torch.randint(0, 10, (2, 7)), "mask": torch.ones(2, 7)}
    report = export(Dictionary(), ids, tmp_path / "keywords.pte")
    assert (report.inputs, len(report.outputs)) == (("ids", "mask"), 3)


def test_executorch_that_is_not_installed_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch.exir", None)
    with pytest.raises(ExtraError, match=r"executorch is not installed.*corank\[executorch\]"):
        export(nn.Linear(2, 2), torch.ones(1, 2), tmp_path / "net.pte")
    assert names(tmp_path) == []


def test_a_missing_folder_is_made(tmp_path):
    export(nn.Linear(2, 2), torch.ones(1, 2), tmp_path / "a" / "b" / "net.pt2")
    assert names(tmp_path / "a" / "b") == ["net.pt2"]


def test_one_batch_size_is_not_a_check(tmp_path):
    with pytest.raises(CorankError, match="two different sizes"):
        export(nn.Linear(2, 2), torch.ones(1, 2), tmp_path / "net.onnx", batch_sizes=(2, 2))


def test_an_example_that_the_model_refuses(tmp_path):
    with pytest.raises(FileError, match="does not run at batch 2"):
        export(nn.Linear(2, 2), torch.ones(2, 3), tmp_path / "net.onnx")


def test_logging_works_again_afterwards(tmp_path, caplog):
    export(nn.Linear(2, 2), torch.ones(1, 2), tmp_path / "net.pt2")
    logging.getLogger("corank").warning("heard")
    assert "heard" in caplog.text


def test_relative_error_sees_what_a_difference_would_hide():
    ones = torch.ones(3)
    nan, inf = torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("inf")])
    assert relative_error(ones, torch.ones(4)) == float("inf")
    assert relative_error(nan, nan) == 0.0
    assert relative_error(inf, inf) == 0.0
    assert relative_error(torch.ones(2), nan) == float("inf")
    assert relative_error(nan, torch.ones(2)) == float("inf")
    assert relative_error(torch.ones(2), inf) == float("inf")
    assert relative_error(torch.zeros(2), torch.full((2,), 1e-3)) > 1.0


def test_resized_batch_has_other_values_and_leaves_the_example_alone():
    x = torch.arange(6.0).reshape(2, 3)
    kept = x.clone()
    bigger = resize_batch({"x": x, "w": torch.ones(3)}, 3)
    assert bigger["x"].shape == (3, 3)
    assert bigger["w"].shape == (3,)
    assert not torch.equal(bigger["x"][0], bigger["x"][1])
    assert torch.equal(x, kept)
