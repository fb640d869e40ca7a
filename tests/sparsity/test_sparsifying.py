"""`sparsify` on every network of the zoo, dense and decomposed, and through files."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import corank
from corank.inputs import call, tensors
from corank.sparsity import (
    Channels,
    GroupLasso,
    SemiStructured,
    Sparsifier,
    Unstructured,
    count_zeros,
    sparsify,
)
from corank.testing import LAYERS, NETWORKS
from corank.testing.rows import same_bits

SPECS = {
    "unstructured": Unstructured(0.6),
    "by layer": Unstructured(0.6, scope="layer"),
    "2:4": SemiStructured(),
    "channels": Channels(0.4),
}


def _sparsify(model, spec, example):
    if isinstance(spec, Channels):
        pytest.importorskip("torch_pruning", reason="channels come with the extra `prune`")
    try:
        return sparsify(model, spec, example=example)
    except corank.LayerError as error:
        if "no layer is left" not in str(error):
            raise
        pytest.skip("no layer of this network can take it")


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_sparsified_or_says_why_not(name, kind):
    case = NETWORKS[name]
    model, example = case.build(), case.input()
    before = [one.detach().clone() for one in tensors(call(model, example))]
    result = _sparsify(model, SPECS[kind], example)
    assert same_bits(before, tensors(call(model, example)))  # the network itself is as it was
    call(result.model.eval(), case.input(3))
    weighted = set(corank.layers.named_weighted(result.model))
    assert set(result.layers) | set(result.skipped) == weighted
    assert not set(result.layers) & set(result.skipped)
    assert all(result.skipped.values())
    assert [one.requires_grad for one in model.parameters()] == [
        one.requires_grad for one in result.model.parameters()
    ]
    if kind == "by layer":
        zeros = count_zeros(result.model).layers
        assert all(zeros[one].zeros == round(0.6 * zeros[one].weights) for one in result.layers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_keeps_its_dtype_and_memory_and_gets_its_zeros(name, dtype):
    layer, _ = LAYERS[name].build(dtype)
    result = _sparsify(layer, Unstructured(0.5), None)
    before, after = layer.weight, result.model.weight
    assert (after.dtype, after.shape, after.stride()) == (dtype, before.shape, before.stride())
    zeros = after == 0
    assert int(zeros.sum()) == round(0.5 * after.numel())
    assert torch.equal(after[~zeros], before[~zeros])
    assert count_zeros(result.model).layers[""].zeros == int(zeros.sum())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_any_kind_trains_with_a_lasso_and_its_zeros(name):
    layer, x = LAYERS[name].build()
    layer.weight.requires_grad_(True)
    stride = layer.weight.stride()
    optimizer = torch.optim.SGD([layer.weight], lr=0.1)
    sparsifier = Sparsifier(layer, GroupLasso(rows=1e-3, columns=1e-3), Unstructured(0.5))
    sparsifier.attach(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()
    assert layer.weight.stride() == stride
    zeros = int((layer.weight == 0).sum())
    assert zeros >= round(0.5 * layer.weight.numel())
    sparsifier.detach()


@pytest.mark.parametrize("spec", [Unstructured(0.0), SemiStructured(zeros=0), Channels(0.0)])
def test_nothing_asked_for_changes_nothing(spec):
    case = NETWORKS["residual"]
    model, example = case.build(), case.input()
    result = _sparsify(model, spec, example)
    assert same_bits(list(model.state_dict().values()), list(result.model.state_dict().values()))


def _decompose(model, example):
    return corank.decompose(model, corank.plan(model, corank.Energy(0.7), example=example))


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("name", ["residual", "depthwise separable", "u-net", "volume", "attention block"])
@pytest.mark.parametrize("first", ["decompose", "sparsify"])
def test_in_either_order_with_a_decomposition_it_comes_back_from_a_file(name, kind, first, tmp_path):
    case = NETWORKS[name]
    model, example = case.build(), case.input()
    if first == "decompose":
        small = _sparsify(_decompose(model, example), SPECS[kind], example).model
    else:
        small = _decompose(_sparsify(model, SPECS[kind], example).model, example)
    corank.save(small, tmp_path / "small.safetensors", reference=case.build)
    again = corank.load(tmp_path / "small.safetensors", case.build).eval()
    assert list(small.state_dict()) == list(again.state_dict())
    assert same_bits(list(small.state_dict().values()), list(again.state_dict().values()))
    assert same_bits(tensors(call(small.eval(), example)), tensors(call(again, example)))


def test_pruned_decomposed_and_zeroed_it_is_exported(tmp_path):
    pytest.importorskip("onnxscript", reason="ONNX files come with the extra `onnx`")
    case = NETWORKS["residual"]
    model, example = case.build(), case.input()
    model = _sparsify(model, Channels(0.3, multiple=4), example).model
    model = sparsify(_decompose(model, example), Unstructured(0.5)).model
    report = corank.export(model, example, tmp_path / "small.onnx")  # checks its outputs
    assert report.dynamic_batch


def test_without_some_channels_it_computes_what_their_readers_would_without_them():
    """An oracle of its own: the middle layer's weak filters are found and zeroed by hand."""
    pytest.importorskip("torch_pruning", reason="channels come with the extra `prune`")
    model = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 5))  # sigmoid(0) is not 0
    with torch.no_grad():
        model[0].weight[[1, 4, 6]] *= 1e-3
        model[2].weight[:, [1, 4, 6]] *= 1e-3
    x = torch.randn(7, 6)
    result = sparsify(model, Channels(3 / 8), example=x)
    assert result.model[0].out_features == result.model[2].in_features == 5
    with torch.no_grad():
        model[2].weight[:, [1, 4, 6]] = 0
    torch.testing.assert_close(result.model(x), model(x))
    assert "reach the output" in result.skipped["2"]


def test_channels_that_are_all_zero_are_removed_and_no_others():
    pytest.importorskip("torch_pruning", reason="channels come with the extra `prune`")
    case = NETWORKS["residual"]
    model, example = case.build(), case.input()
    with torch.no_grad():
        model.body.conv1.weight[[0, 3, 5]] = 0
    result = sparsify(model, Channels(None), example=example)
    assert list(result.layers) == ["body.conv1"]
    assert result.model.body.conv1.out_channels == model.body.conv1.out_channels - 3
    assert not count_zeros(result.model).share


def test_a_shortcut_that_pads_keeps_its_channels():
    """What Torch-Pruning misreads is found out: half of the padded shortcut's channels would be others."""
    pytest.importorskip("torch_pruning", reason="channels come with the extra `prune`")

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.wide, self.out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.out(self.wide(x) + nn.functional.pad(x, (0, 0, 0, 0, 4, 4)))

    result = sparsify(Padded(), Channels(0.4), example=torch.randn(2, 3, 8, 8))
    assert not result.layers
    assert set(result.skipped) == {"stem", "wide", "out"}


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ((), "there is nothing to do. Give a spec"),
        ((GroupLasso(rows=1.0),), "give it to corank.Sparsifier"),
        ((0.8,), "allowed are Unstructured, SemiStructured, Channels, got 0.8"),
        ((Channels(0.3),), "Give an input as example="),
        ((Unstructured(0.5, include=("absent",)),), "'absent' matches no weighted layer"),
        ((SemiStructured(include=("0",)),), "0: SemiStructured includes it, but it cannot be used: it has 6"),
    ],
)
def test_bad_input_is_one_error_that_says_what_to_do(specs, message):
    with pytest.raises(corank.CorankError, match=message):
        sparsify(nn.Sequential(nn.Linear(6, 4)), *specs)


def test_of_several_specs_each_layer_says_what_each_did():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8))
    result = sparsify(net, SemiStructured(), Unstructured(0.6, exclude=("2",)))
    assert (
        result.layers["0"] == "SemiStructured: it has 6 input channels a group, no multiple of 4; 60.4% zeros"
    )
    assert result.layers["2"] == "50.0% zeros; Unstructured: excluded"
    assert not result.skipped


def test_without_torch_pruning_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(corank.ExtraError, match=r"pip install 'corank\[prune\]'"):
        sparsify(nn.Linear(4, 4), Channels(0.5), example=torch.ones(1, 4))


def test_weights_that_are_no_numbers_are_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(corank.LayerError, match="0: its weight has NaN"):
        sparsify(model, Unstructured(0.5))
