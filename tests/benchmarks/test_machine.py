from __future__ import annotations

import json
import platform

import pytest
import torch

from corank.benchmarks.machine import describe_machine, pinned, usable_threads


def test_description_survives_json_and_names_nobody():
    machine = describe_machine()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["threads"] >= machine["usable_threads"] >= 1
    assert machine["cpu"]
    assert platform.node() not in json.dumps(machine) or len(platform.node()) < 4


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc and /sys")
def test_description_on_linux_is_complete():
    machine = describe_machine()
    assert machine["ram_bytes"] > 2**27
    assert machine["cores"] is None or 1 <= machine["cores"] <= machine["threads"]
    assert isinstance(machine["flags"], list)


def test_pinning_holds_and_is_given_back_even_after_an_error():
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    cpu, cuda = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul
    cudnn = torch.backends.cudnn
    switches = [one.fp32_precision for one in (cpu, cuda, cudnn.conv, cudnn.rnn)]
    tf32 = cudnn.allow_tf32
    wanted = 1 if before[0] != 1 else 2
    seen = []
    with pytest.raises(ZeroDivisionError), pinned(wanted):
        seen.append(torch.get_num_threads() / 0)
    with pinned(wanted):
        seen.append(torch.get_num_threads())
        assert not cudnn.allow_tf32
    assert seen == [wanted]
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before
    assert [one.fp32_precision for one in (cpu, cuda, cudnn.conv, cudnn.rnn)] == switches
    assert cudnn.allow_tf32 == tf32


@pytest.mark.parametrize("switch", ["old", "new", "autocast"])
def test_pinning_computes_in_float32_whatever_was_switched_on(switch):
    """On a processor with bfloat16 each of these switches costs three digits; elsewhere this holds anyway."""
    cpu, cuda = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul
    before = torch.get_float32_matmul_precision(), cpu.fp32_precision, cuda.fp32_precision
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(256, 256, generator=generator)
    exact = a.double() @ a.double()
    try:
        if switch == "old":
            torch.set_float32_matmul_precision("medium")
        elif switch == "new":
            cpu.fp32_precision = "bf16"
        switched = cpu.fp32_precision
        with torch.autocast("cpu", enabled=switch == "autocast", dtype=torch.bfloat16), pinned(1):
            assert (a @ a - exact).abs().max() < 1e-5 * exact.abs().max()
        assert cpu.fp32_precision == switched
    finally:
        torch.set_float32_matmul_precision(before[0])
        cpu.fp32_precision, cuda.fp32_precision = before[1:]


def test_usable_threads_is_what_this_process_may_use():
    assert 1 <= usable_threads() <= (describe_machine()["threads"] or 1)
