from __future__ import annotations

import threading

import pytest
import torch

from corank.passes import HaltedPass


def test_runs_take_turns():
    seen = []

    def work(name):
        for step in range(2):
            seen.append((name, step))
            HaltedPass.halt(f"{name}{step}", step)
        seen.append((name, "end"))

    runs = [HaltedPass(lambda name=name: work(name)) for name in "ab"]
    for run in runs:
        run.resume()
    assert [run.at for run in runs] == ["a0", "b0"]
    for _ in range(2):
        for run in reversed(runs):
            run.resume()
    assert seen == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("b", "end"), ("a", "end")]
    assert [run.at for run in runs] == [None, None]
    runs[0].resume()  # an ended run has nothing more to do
    assert len(seen) == 6


def test_what_a_run_raises_is_raised_where_it_was_resumed():
    def work():
        HaltedPass.halt("here", None)
        raise KeyError("inside")

    run = HaltedPass(work)
    run.resume()
    with pytest.raises(KeyError, match="inside"):
        run.resume()


def test_a_stopped_run_leaves_no_thread_even_where_the_network_catches_every_exception():
    reached = []

    def work():
        try:
            HaltedPass.halt("here", None)
        except Exception:
            reached.append("caught")
        reached.append("after")

    before = threading.active_count()
    run = HaltedPass(work)
    run.resume()
    assert threading.active_count() == before + 1
    run.stop()
    assert threading.active_count() == before
    assert reached == []


def test_a_run_has_no_gradients_and_outside_of_a_run_nothing_halts():
    modes = []
    HaltedPass(lambda: modes.append(torch.is_grad_enabled())).resume()
    HaltedPass.halt("nowhere", None)
    assert modes == [False]
    assert torch.is_grad_enabled()
