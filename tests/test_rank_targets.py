"""Forces towards a subspace and towards a plan's ranks; the state they resume from."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from corank.errors import CorankError, LayerError
from corank.force import leading_directions, output_force, subspace_force
from corank.layers import from_filters, to_filters
from corank.regularizer import ForceRegularizer
from corank.spectra import filter_energies, rank_at, spectrum
from corank.strength import Adaptive, AutoStrength

PLAN = SimpleNamespace(layers={"0": SimpleNamespace(rank=3), "2": SimpleNamespace(rank=2)})


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3),
        nn.Tanh(),
        nn.Conv2d(12, 8, 3, groups=2),
        nn.Tanh(),
        nn.Conv2d(8, 8, 3),
        nn.Flatten(),
    )


def batch(step: int) -> torch.Tensor:
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(step))


def train(model: nn.Module, force: ForceRegularizer, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss = (model(batch(step)) - 1).pow(2).mean()
        loss.backward()
        force.observe_loss(loss)
        optimizer.step()


def zero_gradients(model: nn.Module) -> None:
    for p in model.parameters():
        p.grad = torch.zeros_like(p)


@pytest.mark.parametrize("scale", ["mean", "sum"])
def test_subspace_is_refreshed_every_k_steps(scale: str) -> None:
    model = make_net()
    force = ForceRegularizer(model, 0.5, kind="subspace", refresh=3, every=1, scale=scale)  # type: ignore[arg-type]
    bases: dict[int, torch.Tensor] = {}
    for step in range(7):
        for i in (0, 2, 4):
            w_GND = to_filters(model[i].weight.detach(), model[i])
            if step % 3 == 0:
                bases[i] = leading_directions(w_GND, rank_at(filter_energies(w_GND), 0.85)).float()
        zero_gradients(model)
        force.add_grad_()
        for i in (0, 2, 4):
            pull = subspace_force(to_filters(model[i].weight.detach(), model[i]), directions=bases[i])
            expected = -0.5 * from_filters(pull, model[i])  # a sum over directions: not divided by N
            torch.testing.assert_close(model[i].weight.grad, expected, rtol=1e-5, atol=1e-7)
        torch.optim.SGD(model.parameters(), lr=0.1).step()


@pytest.mark.parametrize("kind", ["subspace", "output"])
def test_a_plan_sets_the_rank_and_unnamed_layers_are_left_alone(kind: str) -> None:
    model = make_net()
    last = model[4].weight.detach().clone()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p is not model[4].weight], lr=0.05)
    force = ForceRegularizer(model, 1.0, kind=kind, toward=PLAN, refresh=10)  # type: ignore[arg-type]
    assert force.skipped == {"4": "not in the plan"}
    before = spectrum(model, types=("conv",)).rank(0.99)
    force.attach(optimizer)
    train(model, force, optimizer, range(150))
    after = spectrum(model, types=("conv",)).rank(0.99)
    assert (before["0"], before["2"]) == (12, 4)
    assert (after["0"], after["2"]) == (3, 2)  # there, and no further
    assert torch.equal(model[4].weight, last)
    assert {name: basis.shape[-1] for name, basis in force.state_dict()["targets"]["bases"].items()} == {
        "0": 3,
        "2": 2,
    }


def test_a_force_between_filters_stops_at_the_rank_of_the_plan() -> None:
    model = make_net()
    force = ForceRegularizer(model, 1.0, toward=PLAN, refresh=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(200):
        zero_gradients(model)
        force.add_grad_()
        optimizer.step()
    zero_gradients(model)
    force.add_grad_()
    assert spectrum(model).rank(0.95)["0"] == 3
    assert not model[0].weight.grad.any()
    assert force.stats()["0"].strength == 0.0
    endless = make_net()
    force = ForceRegularizer(endless, 1.0)
    optimizer = torch.optim.SGD(endless.parameters(), lr=0.1)
    for _ in range(200):
        zero_gradients(endless)
        force.add_grad_()
        optimizer.step()
    assert spectrum(endless).rank(0.95)["0"] == 1


def test_auto_strength_takes_its_target_from_a_plan() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    auto = AutoStrength(steps=100, every=5, start=0.1, ceiling=2.0, slack=1e9)
    force = ForceRegularizer(model, auto, toward=PLAN)
    force.attach(optimizer)
    train(model, force, optimizer, range(150))
    assert 2 <= spectrum(model).rank(0.95)["0"] <= 4
    with pytest.raises(LayerError, match=r"0: AutoStrength needs one target.*both"):
        ForceRegularizer(model, AutoStrength(steps=10, rank_ratio=0.5), toward=PLAN)


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(LayerError, match=r"0: the plan wants rank 40, allowed is 1 to 12"):
        ForceRegularizer(make_net(), 0.1, toward=SimpleNamespace(layers={"0": SimpleNamespace(rank=40)}))
    with pytest.raises(LayerError, match="other: the plan in toward names it"):
        ForceRegularizer(make_net(), 0.1, toward=SimpleNamespace(layers={"other": SimpleNamespace(rank=1)}))
    with pytest.raises(LayerError, match="No layer is left"):
        ForceRegularizer(make_net(), 0.1, toward=SimpleNamespace(layers={}))


def test_output_force_follows_the_covariance_of_the_outputs() -> None:
    model = nn.Sequential(nn.Conv2d(3, 12, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    force = ForceRegularizer(model, 0.5, kind="output", energy=0.9)
    force.attach(optimizer)
    x = batch(0) * torch.tensor([10.0, 1.0, 0.1])[:, None, None]  # most of the output lies along one input
    out = model(x)
    optimizer.zero_grad()
    (0 * out.sum()).backward()
    optimizer.step()
    y_NT = (out.detach() + 0).transpose(0, 1).flatten(1).double()
    vectors = torch.linalg.eigh(torch.cov(y_NT)).eigenvectors
    w_GND = to_filters(model[0].weight.detach(), model[0])
    expected = -0.5 * output_force(w_GND, vectors[None, :, -1:])
    torch.testing.assert_close(to_filters(model[0].weight.grad, model[0]), expected, rtol=1e-4, atol=1e-6)
    force.detach()
    assert not model[0]._forward_hooks


def test_output_force_ignores_validation_and_wants_to_see_outputs() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    force = ForceRegularizer(model, 0.5, kind="output")
    force.attach(optimizer)
    with torch.no_grad():
        model(batch(0))
    zero_gradients(model)
    with pytest.raises(CorankError, match=r"^0: the output force has seen no output"):
        optimizer.step()
    assert all(row.force != row.force for row in force.stats().values())  # NaN: not known yet
    force.detach()
    with pytest.raises(CorankError, match=r"^0: add_grad_ on a force that is on the outputs"):
        force.add_grad_()


# torch hides this warning of its own from users, but not from a filter that makes it an error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_output_force_in_a_compiled_model() -> None:
    eager, inner = make_net(), make_net()
    for model in (eager, torch.compile(inner, backend="eager")):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        force = ForceRegularizer(model, 0.5, kind="output", refresh=2)
        force.attach(optimizer)
        train(model, force, optimizer, range(10))
        force.detach()
    for a, b in zip(eager.parameters(), inner.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def assert_plain(state: object) -> None:
    """Only what a checkpoint can hold without a pickle of our classes."""
    if isinstance(state, dict):
        assert all(isinstance(key, str) for key in state)
        state = list(state.values())
    if isinstance(state, list):
        for one in state:
            assert_plain(one)
    else:
        assert state is None or type(state) in (bool, int, float, str, torch.Tensor)


RESUMED: dict[str, dict[str, Any]] = {
    "l2": {"strength": lambda step: 0.01 * step},
    "l1-every": {"strength": 0.1, "kind": "l1", "every": 3},
    "subspace": {"strength": 0.1, "kind": "subspace", "refresh": 4},
    "output": {"strength": 0.1, "kind": "output", "refresh": 4},
    "plan": {"strength": 0.5, "toward": PLAN, "refresh": 4},
    "adaptive": {"strength": Adaptive(0.3, ceiling=1.0)},
    "auto": {"strength": AutoStrength(steps=20, rank_ratio=0.4, every=3, start=0.1, ceiling=1.0)},
}


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("when", ["before attach", "after attach"])
def test_a_resumed_run_is_bit_exact(name: str, when: str) -> None:
    straight = make_net()
    optimizer = torch.optim.SGD(straight.parameters(), lr=0.1, momentum=0.9)
    force = ForceRegularizer(straight, **RESUMED[name])
    force.attach(optimizer)
    train(straight, force, optimizer, range(6))
    states = [copy.deepcopy(one.state_dict()) for one in (straight, optimizer, force)]
    assert_plain(states[2])
    force.stats()  # looking changes nothing
    train(straight, force, optimizer, range(6, 14))

    resumed = make_net()
    second = torch.optim.SGD(resumed.parameters(), lr=0.1, momentum=0.9)
    again = ForceRegularizer(resumed, **RESUMED[name])
    if when == "after attach":
        again.attach(second)
    for one, state in zip((resumed, second, again), states, strict=True):
        one.load_state_dict(copy.deepcopy(state))
    if when == "before attach":
        again.attach(second)
    train(resumed, again, second, range(6, 14))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    assert again.state_dict()["steps"] == [14]


def test_a_state_of_something_else_is_refused() -> None:
    model = make_net()
    force = ForceRegularizer(model, 0.1)
    with pytest.raises(CorankError, match="load_state_dict"):
        force.load_state_dict({"steps": [1]})
    state = force.state_dict()
    force.load_state_dict({**state, "steps": [4, 4]})
    with pytest.raises(CorankError, match="of 2 optimizers, got 1"):
        force.attach(torch.optim.SGD(model.parameters(), lr=0.1))
