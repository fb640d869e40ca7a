from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from corank.benchmarks import BACKENDS, BenchResult, bench, count_subnormal
from corank.errors import CorankError


def net(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(8, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 8, 3, padding=1)
    )


X = torch.randn(2, 8, 24, 24, generator=torch.Generator().manual_seed(0))
QUICK = {"rounds": 10, "min_time": 0.003}


def engines() -> list[str]:
    """The engines that are installed, without the compiler, which test_backends exercises."""
    missing = {name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name) is None}
    missing |= set() if torch.cuda.is_available() else {"torch_cuda"}
    return [name for name in BACKENDS if name not in missing and name != "torch_compile"]


@pytest.fixture(scope="module")
def everywhere() -> BenchResult:
    models = {"small": net(8), "large": net(128), "twin": net(8)}
    return bench(models, X, backends=engines(), threads=1, memory=False, **QUICK)


def test_sixteen_times_the_work_is_slower_beyond_doubt_in_every_engine(everywhere):
    for backend in engines():
        low, high = everywhere.row("large", backend).speedup_ci
        assert low <= high < 1.0
        assert everywhere.row("large", backend).median_ms > everywhere.row("small", backend).median_ms


def test_equal_networks_are_not_far_from_one_another(everywhere):
    for backend in engines():
        low, high = everywhere.row("twin", backend).speedup_ci
        assert low < 1.5
        assert high > 0.67


def test_the_reference_is_the_first_and_exactly_one(everywhere):
    assert everywhere.reference == "small"
    for backend in engines():
        row = everywhere.row("small", backend)
        assert (row.speedup, row.speedup_ci) == (1.0, (1.0, 1.0))


def test_the_result_says_under_which_terms(everywhere):
    assert (everywhere.threads, everywhere.precision, everywhere.batch, everywhere.rounds) == (
        1,
        "float32",
        2,
        10,
    )
    assert len(everywhere.timings) == 3 * len(engines())
    assert set(everywhere.versions) == {name.partition("_")[0] for name in engines()}
    assert everywhere.machine["versions"]["torch"] == torch.__version__
    assert BenchResult.from_json(everywhere.to_json()) == everywhere
    assert {timing.peak_memory for timing in everywhere.timings} == {None}


def test_peak_memory_is_a_number_or_a_note():
    result = bench({"a": net(8)}, X, rounds=2, min_time=1e-4)
    peak = result.row("a", "torch").peak_memory
    assert (peak is None) == any("peak memory cannot be read" in note for note in result.notes)
    assert peak is None or peak >= 4 * (2 * 8 * 8 * 9)


def test_threads_modes_and_values_are_given_back():
    threads = torch.get_num_threads()
    model = net(8).train()
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    result = bench({"a": model}, X, threads=threads + 1, memory=False, rounds=2, min_time=1e-4)
    assert torch.get_num_threads() == threads
    assert result.threads == threads + 1
    assert model.training
    assert not model[1].training
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_they_are_given_back_after_an_error_too():
    class Broken(nn.Module):
        def forward(self, x):
            raise ZeroDivisionError

    threads = torch.get_num_threads()
    model = Broken().train()
    with pytest.raises(ZeroDivisionError):
        bench({"a": model}, X, threads=threads + 1)
    assert torch.get_num_threads() == threads
    assert model.training


def test_more_threads_than_processors_is_noted():
    result = bench({"a": nn.Identity()}, X, threads=4096, memory=False, rounds=2, min_time=1e-4)
    assert any("4096 threads share" in note for note in result.notes)


def test_subnormal_weights_are_counted_and_noted():
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.weight[0] = 1e-40
        model.weight[1] = 0.0
        model.bias.fill_(2e-38)
    assert count_subnormal(model) == 4
    result = bench({"a": model}, torch.ones(1, 4), memory=False, rounds=2, min_time=1e-4)
    assert any("a: 4 weights are subnormal" in note for note in result.notes)


@pytest.mark.parametrize(
    ("models", "example", "options", "message"),
    [
        ({}, X, {}, "nothing to time"),
        ({"a": nn.Identity()}, X, {"backends": ()}, "no engine"),
        ({"a": nn.Identity()}, X, {"backends": ("torch", "tensorrt")}, "got 'tensorrt'"),
        ({"a": nn.Identity()}, X, {"threads": 0}, "1 or more"),
        ({"a": nn.Identity()}, X, {"rounds": 7}, "even number"),
        ({"a": net(8), "b": net(8).double()}, X, {}, "b: bench compares in float32"),
        ({"a": nn.Identity()}, X.half(), {}, "got torch.float16"),
        ({"a": nn.Linear(2, 2, device="meta")}, X, {}, "got meta"),
    ],
)
def test_what_cannot_be_compared_is_refused(models, example, options, message):
    with pytest.raises(CorankError, match=message):
        bench(models, example, **options)
