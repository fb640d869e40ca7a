"""Zeros through training: they stay, they only become more, and a training goes on where it stopped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import corank
from corank.sparsity import (
    Channels,
    GroupLasso,
    SemiStructured,
    Sparsifier,
    Unstructured,
    count_zeros,
    sparsify,
)
from corank.testing.rows import same_bits

OPTIMIZERS = {
    "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda net: torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda net: torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1),
}


def _net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, groups=2), nn.Flatten(), nn.Linear(144, 4)
    )


def _batches(count=6):
    draw = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 4, 6, 6, generator=draw), torch.randint(0, 4, (8,), generator=draw))
        for _ in range(count)
    ]


def _train(net, optimizer, count=6):
    for x, y in _batches(count):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        yield


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_stay_through_momentum_and_weight_decay(name):
    net = sparsify(_net(), Unstructured(0.7), SemiStructured()).model
    zero = {one: layer == 0 for one, layer in net.state_dict().items()}
    before = net[0].weight.detach().clone()
    optimizer = OPTIMIZERS[name](net)
    sparsifier = Sparsifier(net)
    sparsifier.attach(optimizer)
    for _ in _train(net, optimizer):
        for one, tensor in net.state_dict().items():
            if one.endswith("weight"):
                assert bool((tensor[zero[one]] == 0).all())
    sparsifier.detach()
    assert not torch.equal(before, net[0].weight)
    assert int((net[0].weight == 0).sum()) == int(zero["0.weight"].sum())
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks


def test_a_share_of_zero_trains_bit_equal_to_a_training_without():
    plain, spared = _net(), _net()
    for net in (plain, spared):
        optimizer = OPTIMIZERS["sgd"](net)
        if net is spared:
            Sparsifier(net, Unstructured(0.0)).attach(optimizer)
        list(_train(net, optimizer))
    assert same_bits(list(plain.state_dict().values()), list(spared.state_dict().values()))


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_schedule_makes_zeros_that_never_come_back_and_ends_where_it_should(scope):
    net = _net()
    optimizer = OPTIMIZERS["sgd"](net)
    Sparsifier(net, Unstructured(0.8, scope=scope, steps=4, start=1)).attach(optimizer)
    counts, gone = [], torch.zeros_like(net[0].weight, dtype=torch.bool)
    for _ in _train(net, optimizer):
        now = net[0].weight == 0
        assert bool((now | ~gone).all())
        gone = now
        counts.append(sum(one.zeros for one in count_zeros(net).layers.values()))
    assert counts[0] == 0
    assert counts == sorted(counts)
    total = sum(one.weights for one in count_zeros(net).layers.values())
    assert counts[-1] == pytest.approx(0.8 * total, abs=2)


def test_two_of_four_hold_while_it_trains():
    net = _net()
    optimizer = OPTIMIZERS["adamw"](net)
    Sparsifier(net, SemiStructured()).attach(optimizer)
    list(_train(net, optimizer))
    assert bool(((net[4].weight == 0).unflatten(1, (-1, 4)).sum(2) == 2).all())
    assert bool(((net[0].weight == 0).sum(1) == 2).all())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_lasso_makes_whole_rows_and_columns_zero(name):
    net = _net()
    optimizer = OPTIMIZERS[name](net)
    Sparsifier(net, GroupLasso(rows=5.0, include=("4",)), GroupLasso(columns=5.0, include=("0", "2"))).attach(
        optimizer
    )
    list(_train(net, optimizer, 25))
    zeros = count_zeros(net).layers
    assert zeros["4"].zero_rows == zeros["4"].rows
    assert zeros["0"].zero_columns > 0
    assert zeros["2"].zero_columns > 0


def test_a_step_that_a_scaler_skips_counts_for_nothing():
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=True)
    optimizer.found_inf, optimizer.grad_scale = torch.ones(()), torch.ones(())
    sparsifier = Sparsifier(net, Unstructured(0.5))
    sparsifier.attach(optimizer)
    list(_train(net, optimizer, 1))
    assert sparsifier.state_dict()["step"] == 0


def test_finetune_keeps_zeros_and_goes_on_bit_equal_after_a_stop(tmp_path):
    def train(epochs_before_stop, path):
        net = sparsify(_net(), Unstructured(0.3)).model
        spec = Unstructured(0.6, steps=10)

        def stop(epoch):
            if epoch.number == epochs_before_stop:
                raise KeyboardInterrupt

        options = {"epochs": 3, "progress": False, "checkpoint": corank.Checkpoint(path, every=2)}
        try:
            corank.finetune(net, _batches(), sparsity=Sparsifier(net, spec), after_epoch=stop, **options)
        except KeyboardInterrupt:
            net = sparsify(_net(), Unstructured(0.3)).model
            corank.finetune(net, _batches(), sparsity=Sparsifier(net, spec), **options)
        return net

    whole, stopped = train(0, tmp_path / "a"), train(2, tmp_path / "b")
    assert same_bits(list(whole.state_dict().values()), list(stopped.state_dict().values()))
    assert count_zeros(whole).share == pytest.approx(0.6, abs=0.01)


def test_a_checkpoint_without_masks_is_that_of_another_training(tmp_path):
    corank.finetune(_net(), _batches(), epochs=1, checkpoint=tmp_path / "a", progress=False)
    net = _net()
    with pytest.raises(
        corank.CorankError, match="another training: sparsity was None, here it is the zeros that are there"
    ):
        corank.finetune(
            net, _batches(), epochs=1, checkpoint=tmp_path / "a", sparsity=Sparsifier(net), progress=False
        )


def test_frozen_layers_are_left_alone_and_what_is_masked_is_told():
    net = _net()
    net[0].weight.requires_grad_(False)
    before = net[0].weight.clone()
    sparsifier = Sparsifier(net, Unstructured(0.5, scope="layer"))
    corank.finetune(net, _batches(), epochs=1, sparsity=sparsifier, progress=False)
    assert torch.equal(net[0].weight, before)
    assert sparsifier.skipped == {"0": "its weight is frozen"}
    assert sparsifier.sparsity() == {"2": pytest.approx(0.5), "4": pytest.approx(0.5)}


def test_it_acts_after_a_force_that_moves_weights_after_the_step():
    net = sparsify(_net(), Unstructured(0.5)).model
    force = corank.ForceRegularizer(net, 0.1, coupling="decoupled")
    corank.finetune(net, _batches(), epochs=1, force=force, sparsity=Sparsifier(net), progress=False)
    assert count_zeros(net).share == pytest.approx(0.5, abs=0.001)


def test_a_layer_of_zeros_alone_is_fresh_and_trains():
    net = _net()
    nn.init.zeros_(net[4].weight)
    optimizer = OPTIMIZERS["sgd"](net)
    Sparsifier(net).attach(optimizer)
    list(_train(net, optimizer))
    assert bool((net[4].weight != 0).any())


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ((Channels(0.3),), "Channels are removed at once, by corank.sparsify"),
        ((SemiStructured(exclude=("*",)),), "SemiStructured: no layer is left"),
    ],
)
def test_a_spec_that_cannot_act_in_training_is_refused(specs, message):
    with pytest.raises(corank.CorankError, match=message):
        Sparsifier(_net(), *specs)


def test_what_cannot_be_attached_is_refused():
    net = _net()
    sparsifier = Sparsifier(net, Unstructured(0.5))
    with pytest.raises(corank.CorankError, match="LBFGS cannot keep zeros"):
        sparsifier.attach(torch.optim.LBFGS(net.parameters()))
    with pytest.raises(corank.LayerError, match="2: no optimizer given to attach owns its weight"):
        sparsifier.attach(torch.optim.SGD([*net[0].parameters(), *net[4].parameters()], lr=0.1))
    sparsifier.attach(torch.optim.SGD(net.parameters(), lr=0.1))
    with pytest.raises(corank.CorankError, match="attached already"):
        sparsifier.attach(torch.optim.SGD(net.parameters(), lr=0.1))
    with pytest.raises(corank.CorankError, match="not the state of this Sparsifier"):
        sparsifier.load_state_dict({"step": 0, "masks": {"9": torch.ones(1)}})


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (6, 1), (6, 4)])
def test_a_schedule_as_long_as_the_training_ends_with_it(steps, every):
    net = _net()
    batches = (_batches() * steps)[:steps]
    spec = Unstructured(0.8, steps=steps, every=every)
    corank.finetune(net, batches, epochs=1, sparsity=Sparsifier(net, spec), progress=False)
    assert count_zeros(net).share == pytest.approx(0.8, abs=0.002)


def test_zeros_have_no_sign():
    net = sparsify(_net(), Unstructured(0.6)).model
    lasso = Sparsifier(net, GroupLasso(columns=5.0))
    corank.finetune(net, _batches(), epochs=2, sparsity=lasso, progress=False)
    zeros = [one.weight[one.weight == 0] for one in net.modules() if hasattr(one, "weight")]
    assert sum(len(one) for one in zeros) > 0
    assert not any(bool(torch.signbit(one).any()) for one in zeros)


def test_the_sparsifier_of_another_network_is_refused():
    net = _net()
    with pytest.raises(corank.LayerError, match="owns a weight of its network"):
        corank.finetune(net, _batches(), epochs=1, sparsity=Sparsifier(_net()), progress=False)


def test_a_checkpoint_of_other_zeros_is_that_of_another_training(tmp_path):
    def train(share):
        net, path = _net(), tmp_path / "a"
        zeros = Sparsifier(net, Unstructured(share))
        corank.finetune(net, _batches(), epochs=1, sparsity=zeros, checkpoint=path, progress=False)

    train(0.5)
    with pytest.raises(corank.CorankError, match=r"sparsity was .*0\.5"):
        train(0.9)
