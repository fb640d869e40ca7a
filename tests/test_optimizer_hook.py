"""One hook in every way of training: optimizers, closures, scalers, accumulation, compiled models."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn

from corank.errors import CorankError
from corank.force import l2_force
from corank.layers import from_filters, to_filters
from corank.optimizer_hook import OptimizerHook
from corank.regularizer import ForceRegularizer

STRENGTH, LR = 0.3, 0.05


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 5)
    )


def batches(steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 3, 8, 8, generator=generator), torch.randint(0, 5, (4,), generator=generator))
        for _ in range(steps)
    ]


def loss_of(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def convs(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def pull_of(layer: nn.Conv2d, *, attract: bool = True) -> torch.Tensor:
    """ΔW on the mean scale, from the tested force itself."""
    w_GND = to_filters(layer.weight.detach(), layer)
    return from_filters(l2_force(w_GND), layer) / layer.out_channels * (1 if attract else -1)


def train_by_hand(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, *, decoupled: bool) -> None:
    """The same training with the force written out in the loop."""
    uphill = -1 if optimizer.param_groups[0].get("maximize") else 1
    for batch in batches(steps):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        if not decoupled:
            for layer in convs(model):
                layer.weight.grad -= STRENGTH * uphill * pull_of(layer)
        optimizer.step()
        if decoupled:
            with torch.no_grad():
                for layer in convs(model):
                    layer.weight += STRENGTH * float(optimizer.param_groups[0]["lr"]) * pull_of(layer)


def assert_close(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)


GRADIENT = {
    "sgd": lambda p: torch.optim.SGD(p, LR, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "sgd-foreach": lambda p: torch.optim.SGD(p, LR, momentum=0.9, foreach=True),
    "sgd-fused": lambda p: torch.optim.SGD(p, LR, momentum=0.9, fused=True),
    "sgd-maximize": lambda p: torch.optim.SGD(p, LR, momentum=0.9, maximize=True),
    "asgd": lambda p: torch.optim.ASGD(p, LR),
}
DECOUPLED = {
    "adam": lambda p: torch.optim.Adam(p, LR),
    "adam-foreach": lambda p: torch.optim.Adam(p, LR, foreach=True),
    "adam-fused": lambda p: torch.optim.Adam(p, LR, fused=True),
    "adam-capturable": lambda p: torch.optim.Adam(p, LR, capturable=True, fused=True),
    "adam-tensor-rate": lambda p: torch.optim.Adam(p, torch.tensor(LR), foreach=False),
    "adam-maximize": lambda p: torch.optim.Adam(p, LR, maximize=True),
    "adamw": lambda p: torch.optim.AdamW(p, LR, weight_decay=0.1),
    "adamw-amsgrad": lambda p: torch.optim.AdamW(p, LR, amsgrad=True),
    "nadam": lambda p: torch.optim.NAdam(p, LR),
    "radam": lambda p: torch.optim.RAdam(p, LR),
    "adamax": lambda p: torch.optim.Adamax(p, LR),
    "rmsprop": lambda p: torch.optim.RMSprop(p, LR),
    "adagrad": lambda p: torch.optim.Adagrad(p, LR),
    "adagrad-fused": lambda p: torch.optim.Adagrad(p, LR, fused=True),
    "adadelta": lambda p: torch.optim.Adadelta(p, LR),
    "adafactor": lambda p: torch.optim.Adafactor(p, LR),
    "rprop": lambda p: torch.optim.Rprop(p, LR),
}


@pytest.mark.parametrize("name", [*GRADIENT, *DECOUPLED])
def test_every_optimizer_gets_the_force_in_its_own_way(name: str, caplog: pytest.LogCaptureFixture) -> None:
    make = {**GRADIENT, **DECOUPLED}[name]
    hooked, by_hand, plain = make_net(), make_net(), make_net()
    optimizer = make(hooked.parameters())
    force = ForceRegularizer(hooked, STRENGTH)
    with caplog.at_level(logging.INFO, logger="corank"):
        force.attach(optimizer)
    assert ("decoupled" if name in DECOUPLED else "through the gradient") in caplog.text
    for batch in batches(3):
        optimizer.zero_grad()
        loss_of(hooked, batch).backward()
        optimizer.step()
    train_by_hand(by_hand, make(by_hand.parameters()), 3, decoupled=name in DECOUPLED)
    assert_close(hooked, by_hand)
    plain_optimizer = make(plain.parameters())
    for batch in batches(3):
        plain_optimizer.zero_grad()
        loss_of(plain, batch).backward()
        plain_optimizer.step()
    assert not torch.allclose(hooked[0].weight, plain[0].weight, rtol=1e-4)


def test_coupling_can_be_chosen() -> None:
    for coupling, make in (("gradient", DECOUPLED["adamw"]), ("decoupled", GRADIENT["sgd"])):
        hooked, by_hand = make_net(), make_net()
        optimizer = make(hooked.parameters())
        ForceRegularizer(hooked, STRENGTH, coupling=coupling).attach(optimizer)
        for batch in batches(3):
            optimizer.zero_grad()
            loss_of(hooked, batch).backward()
            optimizer.step()
        train_by_hand(by_hand, make(by_hand.parameters()), 3, decoupled=coupling == "decoupled")
        assert_close(hooked, by_hand)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("positional", [True, False])
def test_a_closure_gets_its_force_after_it_ran(name: str, positional: bool) -> None:
    make = {**GRADIENT, **DECOUPLED}[name]
    with_closure, without = make_net(), make_net()
    first, second = make(with_closure.parameters()), make(without.parameters())
    force = ForceRegularizer(with_closure, STRENGTH)
    force.attach(first)
    ForceRegularizer(without, STRENGTH).attach(second)
    for batch in batches(3):

        def closure(batch: tuple = batch) -> torch.Tensor:
            first.zero_grad()
            loss = loss_of(with_closure, batch)
            loss.backward()
            return loss

        loss = first.step(closure) if positional else first.step(closure=closure)
        second.zero_grad()
        expected = loss_of(without, batch)
        expected.backward()
        second.step()
        assert torch.equal(loss, expected)
    assert all(
        torch.equal(a, b) for a, b in zip(with_closure.parameters(), without.parameters(), strict=True)
    )
    assert force.state_dict()["steps"] == [3]


def test_accumulated_gradients_are_forced_once() -> None:
    hooked, by_hand = make_net(), make_net()
    first, second = GRADIENT["sgd"](hooked.parameters()), GRADIENT["sgd"](by_hand.parameters())
    ForceRegularizer(hooked, STRENGTH).attach(first)
    for model, optimizer in ((hooked, first), (by_hand, second)):
        for i, batch in enumerate(batches(6)):
            (loss_of(model, batch) / 2).backward()
            if i % 2:
                if model is by_hand:
                    for layer in convs(model):
                        layer.weight.grad -= STRENGTH * pull_of(layer)
                optimizer.step()
                optimizer.zero_grad()
    assert_close(hooked, by_hand)


@pytest.mark.parametrize("name", ["sgd", "sgd-fused", "adam", "adam-fused"])
@pytest.mark.parametrize("unscale", [False, True])
def test_gradient_scaler_and_the_steps_it_skips(name: str, unscale: bool) -> None:
    make = {**GRADIENT, **DECOUPLED}[name]
    model, by_hand = make_net(), make_net()
    optimizer, other = make(model.parameters()), make(by_hand.parameters())
    force = ForceRegularizer(model, STRENGTH)
    force.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    for i, batch in enumerate(batches(4)):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, batch)).backward()
        # Not the first: torch's fused SGD then leaves its momentum buffer uninitialised, force or no force.
        overflows = i in (1, 2)
        if overflows:
            model[0].bias.grad[0] = math.inf
        before = copy.deepcopy(model.state_dict())
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        same = all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert same == overflows
    assert force.state_dict()["steps"] == [2]
    for batch in (batches(4)[0], batches(4)[3]):
        other.zero_grad()
        loss_of(by_hand, batch).backward()
        if name in GRADIENT:
            for layer in convs(by_hand):
                layer.weight.grad -= STRENGTH * pull_of(layer)
        other.step()
        if name in DECOUPLED:
            with torch.no_grad():
                for layer in convs(by_hand):
                    layer.weight += STRENGTH * LR * pull_of(layer)
    for a, b in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_compiled_models_are_forced_the_same(name: str) -> None:
    make = {**GRADIENT, **DECOUPLED}[name]
    eager, inner = make_net(), make_net()
    compiled = torch.compile(inner, backend="eager")
    for model in (eager, compiled):
        optimizer = make(model.parameters())
        force = ForceRegularizer(model, STRENGTH, overrides={"0": 0.1})
        assert [one.name for one in force.layers] == ["0", "2"]
        force.attach(optimizer)
        for batch in batches(3):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
    assert_close(eager, inner)


def test_several_optimizers_each_force_their_own_layers() -> None:
    model, by_hand = make_net(), make_net()
    for net in (model, by_hand):
        matrix = torch.optim.Muon([net[4].weight], lr=LR)
        rest = torch.optim.AdamW([p for p in net.parameters() if p is not net[4].weight], lr=LR)
        force = ForceRegularizer(net, STRENGTH, types=("conv", "linear"))
        if net is model:
            force.attach(matrix, rest)
        for batch in batches(3):
            matrix.zero_grad()
            rest.zero_grad()
            loss_of(net, batch).backward()
            matrix.step()
            rest.step()
            if net is by_hand:
                with torch.no_grad():
                    for layer in convs(net):
                        layer.weight += STRENGTH * LR * pull_of(layer)
                    net[4].weight += STRENGTH * LR / 5 * l2_force(net[4].weight)
        if net is model:
            assert force.state_dict()["steps"] == [3, 3]
    assert_close(model, by_hand)


def test_learning_rates_of_parameter_groups_scale_a_decoupled_force() -> None:
    model = make_net()
    before = model[0].weight.clone(), model[2].weight.clone()
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[2].parameters(), "lr": 0.1}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, eps=1e8)  # moves nothing itself
    ForceRegularizer(model, STRENGTH).attach(optimizer)
    expected = before[1] + STRENGTH * 0.1 * pull_of(model[2])
    loss_of(model, batches(1)[0]).backward()
    optimizer.load_state_dict(optimizer.state_dict())  # replaces the groups
    optimizer.step()
    assert torch.equal(model[0].weight, before[0])
    torch.testing.assert_close(model[2].weight, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("direction", ["attract", "repel"])
@pytest.mark.parametrize("maximize", [False, True])
def test_components_against_the_gradient_are_dropped(direction: str, maximize: bool) -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, maximize=maximize)
    force = ForceRegularizer(model, STRENGTH, against_gradient="zero", direction=direction)  # type: ignore[arg-type]
    force.attach(optimizer)
    loss_of(model, batches(1)[0]).backward()
    before = [(layer.weight.detach().clone(), layer.weight.grad.clone()) for layer in convs(model)]
    pulls = [pull_of(layer, attract=direction == "attract") for layer in convs(model)]
    optimizer.step()
    dropped = 0
    for layer, (weight, grad), pull in zip(convs(model), before, pulls, strict=True):
        descent = grad if maximize else -grad
        kept = torch.where(pull * descent < 0, 0.0, pull)
        dropped += int((kept != pull).sum())
        torch.testing.assert_close(
            layer.weight, weight + LR * (descent + STRENGTH * kept), rtol=1e-5, atol=1e-6
        )
    assert dropped > 0


def test_every_k_steps_acts_k_times_as_strong() -> None:
    model, by_hand = make_net(), make_net()
    optimizer, other = (torch.optim.SGD(net.parameters(), lr=LR) for net in (model, by_hand))
    ForceRegularizer(model, STRENGTH, every=2).attach(optimizer)
    for i, batch in enumerate(batches(4)):
        for net, one in ((model, optimizer), (by_hand, other)):
            one.zero_grad()
            loss_of(net, batch).backward()
        if i % 2 == 0:
            for layer in convs(by_hand):
                layer.weight.grad -= 2 * STRENGTH * pull_of(layer)
        optimizer.step()
        other.step()
    assert_close(model, by_hand)


@pytest.mark.parametrize(("kind", "every"), [("subspace", 4), ("l2", 1), ("output", 1)])
def test_subspace_acts_at_every_fourth_step_by_default(kind: str, every: int) -> None:
    nets = make_net(), make_net()
    for net, options in zip(nets, ({}, {"every": every}), strict=True):
        optimizer = torch.optim.SGD(net.parameters(), lr=LR)
        ForceRegularizer(net, STRENGTH, kind=kind, **options).attach(optimizer)
        for batch in batches(3):
            optimizer.zero_grad()
            loss_of(net, batch).backward()
            optimizer.step()
    for weight, other in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(weight, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_forced_in_float32(dtype: torch.dtype) -> None:
    layer = nn.Conv2d(8, 64, 3).to(dtype)
    model = nn.Sequential(layer)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    ForceRegularizer(model, 1.0).add_grad_()
    wide = l2_force(to_filters(layer.weight.detach().float(), layer)) / 64
    expected = -from_filters(wide, layer).to(dtype)
    assert torch.equal(layer.weight.grad, expected)


def test_a_step_that_calls_its_parents_step_is_forced_once() -> None:
    class Child(torch.optim.SGD):
        def step(self, closure: Callable | None = None) -> object:
            return super().step(closure)

    calls: list[str] = []
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    torch.optim.SGD([weight], lr=0.1)  # only now is the parent's step hooked as well
    optimizer = Child([weight], lr=0.1)
    hook = OptimizerHook(optimizer, [], lambda one: calls.append("before"), lambda one: calls.append("after"))
    optimizer.step()
    optimizer.step(lambda: weight.sum())
    assert calls == ["before", "after"] * 2
    hook.remove()
    optimizer.step()
    assert len(calls) == 4


def test_a_decoupled_force_needs_a_learning_rate() -> None:
    class Plain(torch.optim.Optimizer):
        def __init__(self, params: Iterable[nn.Parameter]) -> None:
            super().__init__(params, {})

        def step(self, closure: Callable | None = None) -> None:
            for p in self.param_groups[0]["params"]:
                p.data.sub_(p.grad)

    model = make_net()
    optimizer = Plain(model.parameters())
    with pytest.raises(CorankError, match="0: Plain has no learning rate"):
        ForceRegularizer(model, STRENGTH).attach(optimizer)
    assert not optimizer._optimizer_step_pre_hooks
    ForceRegularizer(model, STRENGTH, coupling="gradient").attach(optimizer)
    expected = model[0].weight + STRENGTH * pull_of(model[0])
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(model[0].weight, expected)


def test_a_failed_step_does_not_silence_the_next() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    force = ForceRegularizer(model, STRENGTH)
    force.attach(optimizer)

    def fails() -> float:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(fails)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert force.state_dict()["steps"] == [1]
    assert model[0].weight.grad.abs().sum() > 0
