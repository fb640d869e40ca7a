"""The recorder's thread: folds go on under load, and nobody's outcome is lost with another's."""

from __future__ import annotations

import threading
import time

import pytest

from corank.errors import StoreError
from corank.rollout.policy import Policy
from corank.rollout.recorder import Recorder
from corank.rollout.records import Recorded
from corank.rollout.rows import CHAMPION, Observation, Run
from corank.rollout.store import Store

POLICY = Policy(seconds=0)


def recorded(request):
    return Recorded(request, 0, CHAMPION, False, (1,), (1,), None, 0.0)


def hold_a_write(store, recorder, monkeypatch):
    """Stop the recorder in a write until the gate is set, so that what comes meanwhile is one batch."""
    gate, begun, write = threading.Event(), threading.Event(), store.write

    def late(*given):
        begun.set()
        gate.wait(20)
        return write(*given)

    monkeypatch.setattr(store, "write", late)
    recorder.record(recorded("first"))
    begun.wait(20)
    return gate


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "rollout.db")
    made.open(POLICY, 0.0)
    yield made
    made.close()


@pytest.fixture
def recorder(store):
    made = Recorder(store, POLICY, 0.02)
    yield made
    made.close()


def test_a_steady_stream_of_outcomes_does_not_stop_the_folds(store, recorder, monkeypatch):
    over, folds, write, fold = threading.Event(), [], store.write, store.fold
    monkeypatch.setattr(store, "fold", lambda *given: folds.append(time.monotonic()) or fold(*given))

    def endless(*given):  # another outcome comes while one is written
        new = write(*given)
        if not over.is_set():
            recorder.record(recorded(f"more-{time.monotonic_ns()}"))
        return new

    monkeypatch.setattr(store, "write", endless)
    recorder.record(recorded("first"))
    end = time.monotonic() + 20
    while len(folds) < 5 and time.monotonic() < end:
        time.sleep(0.01)
    over.set()
    assert len(folds) >= 5


def test_an_outcome_that_nobody_waits_for_strands_no_other(store, recorder, monkeypatch):
    gate = hold_a_write(store, recorder, monkeypatch)
    given_up, other = recorder.record(recorded("a")), recorder.record(recorded("b"))
    assert given_up.cancel()
    gate.set()
    assert other.result(20)
    assert recorder.record(recorded("c")).result(20)
    assert not recorder.record(recorded("a")).result(20)  # it was written all the same


def test_a_row_that_cannot_be_written_is_refused_alone(store, recorder, monkeypatch, caplog):
    gate = hold_a_write(store, recorder, monkeypatch)
    futures = {name: recorder.record(recorded(name)) for name in ("a", "b", "\ud800", "c", "d")}
    recorder.observe(Observation("x", 0, CHAMPION, Run(1.0), Run(object())))
    recorder.observe(Observation("y", 0, CHAMPION, Run(1.0), Run(1.0)))
    gate.set()
    for name in "abcd":
        assert futures[name].result(20)
    with pytest.raises(UnicodeEncodeError):
        futures["\ud800"].result(20)
    recorder.close()
    assert (store.state().outcomes, store.state().seen, recorder.dropped) == (5, 1, 1)
    assert "a row was refused" in caplog.text


def test_what_still_waits_when_a_lost_store_is_closed_is_told(store, recorder, monkeypatch):
    gate, begun = threading.Event(), threading.Event()

    def refuse(*_):
        begun.set()
        gate.wait(20)
        raise StoreError("store: gone")

    monkeypatch.setattr(store, "write", refuse)
    monkeypatch.setattr("corank.rollout.recorder._MOST", 1)
    futures = [recorder.record(recorded("a"))]
    begun.wait(20)
    futures += [recorder.record(recorded(name)) for name in "bc"]
    with recorder._wake:
        recorder._closing = True
    gate.set()
    for future in futures:
        with pytest.raises(StoreError):
            future.result(20)
