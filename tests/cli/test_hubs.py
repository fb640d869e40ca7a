"""Networks by the names that timm and transformers give them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from corank import Plan
from corank.cli import app
from corank.cli.models import load_model, make_factory
from corank.errors import CorankError, ExtraError


@pytest.mark.filterwarnings("ignore")  # transformers warns of what it will change
class TestTransformers:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        transformers = pytest.importorskip("transformers", reason="needs the extra `transformers`")
        monkeypatch.chdir(tmp_path)
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=8,
            patch_size=4, num_labels=3,
        )  # fmt: skip
        self.model = transformers.ViTForImageClassification(config).to(torch.bfloat16)
        self.model.save_pretrained("vit")
        return tmp_path / "vit"

    def test_a_folder_gives_its_class_and_its_weights_in_float32(self, folder):
        made = load_model("transformers:vit")
        assert type(made) is type(self.model)
        assert not made.training
        for a, b in zip(made.parameters(), self.model.parameters(), strict=True):
            assert a.dtype == torch.float32
            assert torch.equal(a, b.float())

    def test_without_weights_or_on_meta_the_config_is_enough(self, folder):
        with torch.device("meta"):
            assert next(make_factory("transformers:vit")().parameters()).is_meta
        (folder / "model.safetensors").unlink()
        made = load_model("transformers:vit")
        assert not torch.equal(made.classifier.weight, self.model.classifier.weight.float())

    def test_a_pickle_of_weights_is_refused(self, folder):
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")
        with pytest.raises(CorankError, match="transformers:vit cannot be loaded.*save_pretrained"):
            load_model("transformers:vit")

    def test_what_it_cannot_make_is_said(self, folder):
        text = (folder / "config.json").read_text()
        (folder / "config.json").write_text(text.replace("ViTForImageClassification", "Mine"))
        with pytest.raises(CorankError, match=r"names no network .*got \['Mine'\]"):
            load_model("transformers:vit")
        (folder / "config.json").write_text(text.replace("ViTForImageClassification", "ViTConfig"))
        with pytest.raises(CorankError, match=r"names no network .*got \['ViTConfig'\]"):
            load_model("transformers:vit")
        with pytest.raises(CorankError, match=r"transformers:\./nowhere has no readable config.json"):
            load_model("transformers:./nowhere")


def test_timm_by_name(monkeypatch):
    def create_model(name, pretrained):
        assert (name, pretrained) == ("resnet18", False)
        return nn.Linear(2, 2)

    names = ["resnet18", "vit_tiny"]
    known = SimpleNamespace(is_model=names.__contains__, list_models=lambda: names, create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", known)
    assert isinstance(load_model("timm:resnet18"), nn.Linear)
    with pytest.raises(CorankError, match=r"timm has no 'resnet81'. Did you mean timm:resnet18\?"):
        load_model("timm:resnet81")


def test_timm_itself():
    pytest.importorskip("torchvision", reason="timm imports torchvision, which CI does not install")
    pytest.importorskip("timm", reason="needs the extra `timm`")
    assert sum(p.numel() for p in load_model("timm:resnet18").parameters()) == 11_689_512


@pytest.mark.parametrize("package", ["timm", "transformers"])
def test_without_the_package_the_extra_is_named(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExtraError, match=rf"{package} is not installed.*corank\[{package}\]"):
        load_model(f"{package}:any")


def test_timm_without_torchvision_says_so(monkeypatch, tmp_path):
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").write_text("import torchvision")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(ExtraError, match="timm needs torchvision"):
        load_model("timm:resnet18")


@pytest.mark.filterwarnings("ignore")
def test_a_text_model_is_planned_from_the_command_line(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="needs the extra `transformers`")
    monkeypatch.chdir(tmp_path)
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained("bert")
    shapes = ["--shape", "2,8:int", "--shape", "2,8:int"]
    done = CliRunner().invoke(
        app,
        ["plan", "transformers:bert", *shapes, "--target", "energy=0.5", "--out", "plan.json"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    plan = Plan.from_json((tmp_path / "plan.json").read_text())
    assert "encoder.layer.0.intermediate.dense" in plan.layers
