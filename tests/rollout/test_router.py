"""The router: who is served, what is written down, and what happens when things break."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest

from corank.errors import CorankError, ReceiptError, StoreError
from corank.rollout import Bundles, Policy, Router
from corank.rollout.beside import Beside
from corank.rollout.readings import Reading
from corank.rollout.splits import falls_under

POLICY = Policy(
    stages=(0.0, 0.5, 1.0),
    requests=30,
    seconds=0,
    reference=20,
    margin=0.05,
    slow_margin=0.9,
    input_margin=None,
)
LIVE = dataclasses.replace(POLICY, stages=(0.5, 1.0), requests=10**6, unlabelled_ceiling=0.5)


def champion(x):
    return np.eye(4)[[int(x) % 4]]


def challenger(x):
    return 0.99 * np.eye(4)[[int(x) % 4]] + 0.0025  # the same labels, another answer


def broken(x):
    raise RuntimeError("broken on purpose")


def nan(x):
    return np.full((1, 4), np.nan)


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@pytest.fixture
def make(tmp_path):
    made = []

    def router(a=champion, b=challenger, policy=POLICY, **options):
        options = {"refresh": 0.02} | options
        made.append(Router(a, b, policy, tmp_path / "rollout.db", **options))
        return made[-1]

    yield router
    for one in made:
        one.close()


def test_a_whole_roll_out(make):
    """Shadow, half, all: the labels come at once, and it is promoted."""
    router, number, served = make(), 0, set()
    while router.view.status == "running":
        number += 1
        assert number < 5000
        answer = router(np.float64(number), key=f"user-{number}")
        served.add((router.view.stage, answer.arm))
        assert router.record(answer.receipt, label=number % 4)
        if number % 20 == 0:
            time.sleep(0.01)
    assert router.view.status == "promoted"
    assert {(0, "champion"), (1, "challenger")} <= served
    assert (0, "challenger") not in served
    wait_for(lambda: router.status()["outcomes"] == number)
    status = router.status()
    assert status["shown_no_worse"]
    assert [move["action"] for move in status["moves"]] == ["next stage", "next stage", "promoted"]
    answer = router(np.float64(1), key="anyone")
    assert answer.arm == "challenger"
    np.testing.assert_array_equal(answer.output, challenger(1))


def test_shadow_serves_the_champion_and_compares(make):
    router = make(b=lambda x: champion(x + 1), policy=dataclasses.replace(POLICY, requests=10**6))
    for number in range(200):
        answer = router(np.float64(number))
        assert answer.arm == "champion"
        np.testing.assert_array_equal(answer.output, champion(number))
        time.sleep(0.0005)
        if router.view.status == "rolled back":
            break
    wait_for(lambda: router.view.status == "rolled back")
    assert router.view.reason.startswith("disagreement: ")


def test_the_split_is_by_key_and_the_same_after_a_restart(make):
    keys = [f"user-{number}" for number in range(200)]
    first = make(policy=LIVE)
    arms = [first(np.float64(1), key=key).arm for key in keys]
    assert 60 < arms.count("challenger") < 140
    assert [first(np.float64(2), key=key).arm for key in keys] == arms
    first.close()
    second = make(policy=LIVE)
    assert [second(np.float64(1), key=key).arm for key in keys] == arms


@pytest.mark.parametrize("bad", [broken, nan, lambda x: object.no_such_thing])
def test_the_champion_answers_for_a_broken_challenger_and_it_is_rolled_back(make, bad):
    router, number = make(b=bad, policy=LIVE), 0
    while router.view.status == "running":
        number += 1
        assert number < 3000
        answer = router(np.float64(number))
        np.testing.assert_array_equal(answer.output, champion(number))
        time.sleep(0.0005)
    assert router.view.status == "rolled back"
    assert router.view.reason.startswith("errors: it fails more often")
    assert {router(np.float64(n)).arm for n in range(50)} == {"champion"}


def test_what_the_champion_raises_comes_through(make):
    router = make(a=broken, policy=LIVE)
    key = next(k for k in map(str, range(99)) if not falls_under(router._terms.salt, k, 0.5))
    with pytest.raises(RuntimeError, match="on purpose"):
        router(np.float64(1), key=key)
    nan_router = make(a=nan, policy=LIVE)
    assert np.isnan(nan_router(np.float64(1), key=key).output).all()  # as it would be without a router


def test_an_input_that_both_fail_on_counts_against_neither(make):
    def picky(x):
        return broken(x) if x < 0 else champion(x)

    heard = []
    router = make(a=picky, b=picky, policy=LIVE, listener=lambda arm, run: heard.append((arm, run.failed)))
    for number in range(300):
        if number % 3:
            router(np.float64(number))
        else:
            with pytest.raises(RuntimeError, match="on purpose"):
                router(np.float64(-1), request=f"bad-{number}")  # both arms get some
        time.sleep(0.001)
    wait_for(lambda: sum(failed for _, failed in heard) == 200)  # 100 inputs, each by both
    router.close()
    totals = router.store.state().totals["errors"]
    assert router.view.status == "running"
    assert sum(one.count for one in totals) == 200
    assert [one.mean for one in totals] == [0.0, 0.0]


def test_what_only_the_champion_fails_on_is_its_failure(make):
    router, failed = make(a=broken, policy=LIVE), 0
    for number in range(60):
        try:
            router(np.float64(number))
        except RuntimeError:
            failed += 1
    router.close()
    totals = router.store.state().totals["errors"]
    assert 0 < failed == totals[0].count
    assert (totals[0].mean, totals[1].mean) == (1.0, 0.0)


@pytest.mark.parametrize("given", [np.float64, np.float16, np.uint16, ">f4", bool])
def test_inputs_are_cast_before_either_model_sees_them(make, given):
    seen = []
    router = make(a=lambda x: seen.append(x.dtype) or champion(x[0]), policy=LIVE, dtype="float32")
    for number in range(20):
        router(np.ones(1, dtype=given), key=str(number))
    assert {str(one) for one in seen} == {"float32"}
    for bad in (np.array([1e300]), np.array([1j]), np.array(["a"])):
        with pytest.raises(CorankError, match="^inputs: "):
            router(bad)
    with pytest.raises(CorankError, match="dtype is one of float32"):
        make(dtype="object")


def test_outcomes_that_do_not_fit_are_refused(make):
    router = make()
    receipt = router(np.float64(1)).receipt
    for outcome, message in (
        ({}, "give one of label, labels and score"),
        ({"label": 1, "score": 0.5}, "give one of label, labels and score"),
        ({"labels": [1, 2]}, "this answer has 1 labels, got 2"),
        ({"label": 1.5}, "a label is a whole number or a text"),
        ({"label": True}, "a label is a whole number or a text"),
        ({"label": "x" * 201}, "at most 200 characters"),
        ({"label": "1"}, "the label '1' is a text and this answer has whole numbers, such as '1'"),
        ({"score": 1.5}, "score is a number from 0 to 1, got 1.5"),
        ({"score": "good"}, "score is a number from 0 to 1, got 'good'"),
        ({"score": float("nan")}, "score is a number from 0 to 1"),
    ):
        with pytest.raises(ReceiptError, match=message):
            router.record(receipt, **outcome)
    with pytest.raises(ReceiptError, match="not one of the roll-out"):
        router.record(receipt[:-2] + "AA", label=1)
    assert router.record(receipt, label=np.int64(1))
    assert not router.record(receipt, score=0.0)


def test_answers_without_labels_take_scores(make):
    router = make(a=lambda x: "a text", b=lambda x: "a text")
    receipt = router("a question").receipt
    with pytest.raises(ReceiptError, match="no labels to compare. Give a score"):
        router.record(receipt, label=1)
    assert router.record(receipt, score=0.7)


def test_labels_are_of_the_kind_of_the_answer(make):
    router = make(read=lambda x: Reading(("cat",)))
    receipt = router(np.float64(1)).receipt
    with pytest.raises(ReceiptError, match="the label '3' is a whole number and this answer has texts"):
        router.record(receipt, label=3)
    assert router.record(receipt, label="cat")


def test_numbers_of_numpy_in_a_reading_or_a_description(make):
    router = make(
        read=lambda x: Reading((np.int64(x.argmax()),), np.float32(0.5), np.bool_(True)),
        describe=lambda x: np.array([x, 2], dtype=np.float32),
        policy=dataclasses.replace(POLICY, requests=10**6, input_margin=0.1),
    )
    for number in range(10):
        assert router.record(router(np.float64(number)).receipt, label=number % 4)
    wait_for(lambda: router.status()["outcomes"] == 10 and router.status()["seen"] == 10)
    assert router.status()["here"]["dropped"]["observations"] == 0
    assert len(router.store.state().first["input 0"]) == 10


@pytest.mark.parametrize("odd", [Reading(((1, 2),)), Reading((0.5,)), Reading((1,), "sure"), "no reading"])
def test_a_reading_that_cannot_be_kept_is_an_unreadable_answer(make, odd):
    router = make(policy=LIVE, read=lambda x: odd if x.min() > 0 else Reading())
    answers = [router(np.float64(number), key=str(number)) for number in range(40)]
    np.testing.assert_array_equal(answers[0].output, champion(0))
    router.close()
    errors = router.store.state().totals["errors"]
    assert (errors[0].mean, errors[1].mean) == (0.0, 1.0)


def test_what_cannot_be_described_is_not_watched(make):
    router = make(describe=lambda x: ("a", "b"))
    router(np.float64(1))
    wait_for(lambda: router.status()["seen"] == 1)
    assert router.status()["here"]["dropped"]["observations"] == 0


@pytest.mark.parametrize("what", ["key", "request"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", "a name is printable text, got 'a.x00b'"),
        ("a\nb", "a name is printable text"),
        ("\ud800", "a name is printable text, got '.ud800'"),
        ("x" * 201, "at most 200 characters, got 201"),
        (3, "a name is a text, got a int"),
    ],
    ids=["NUL", "line", "surrogate", "long", "number"],
)
def test_names_that_no_database_takes_are_refused(make, what, name, message):
    router = make()
    with pytest.raises(CorankError, match=f"^{what}: .*{message}"):
        router(np.float64(1), **{what: name})
    assert router(np.float64(1), **{what: "山田 7%"}).arm == "champion"


def test_a_request_that_repeats_itself_counts_once(make):
    router = make()
    first, again = (router(np.float64(1), key="me", request="r-1") for _ in range(2))
    assert (first.arm, first.request) == (again.arm, "r-1")
    assert router.record(first.receipt, label=1)
    assert not router.record(again.receipt, label=2)


def test_another_process_sees_a_move(make):
    one, other = make(policy=LIVE), make(policy=LIVE)
    one.order("roll-back")
    assert one.view.share == 0.0
    wait_for(lambda: other.view.status == "rolled back")
    assert other(np.float64(1), key="a").arm == "champion"


def test_without_the_store_the_champion_alone_answers(make, monkeypatch, caplog):
    router = make(policy=LIVE, stale=0.2)

    def refuse(*_, **__):
        raise StoreError("store: gone")

    receipt = router(np.float64(1)).receipt
    monkeypatch.setattr(router.store, "fold", refuse)
    monkeypatch.setattr(router.store, "write", refuse)
    with pytest.raises(StoreError, match="gone"):
        router.record(receipt, label=1)
    wait_for(lambda: not router.view.watching)
    assert {router(np.float64(n)).arm for n in range(50)} == {"champion"}
    assert [record.message for record in caplog.records].count("store: gone") >= 1
    monkeypatch.undo()
    wait_for(lambda: router.view.watching)  # it comes back by itself
    assert {router(np.float64(n)).arm for n in range(50)} == {"champion", "challenger"}
    assert router.record(receipt, label=1)  # it was refused, so it is new


def test_a_slow_challenger_does_not_hold_the_answers_up(make):
    gate = threading.Event()
    router = make(b=lambda x: gate.wait(30), waiting=2)
    for number in range(20):
        router(np.float64(number))
    dropped = router.status()["here"]["dropped"]["beside"]
    assert 15 <= dropped <= 18
    gate.set()


def test_a_challenger_that_hangs_is_rolled_back(make):
    gate = threading.Event()

    def hang(x):
        gate.wait(60)
        return champion(x)

    router = make(b=hang, policy=LIVE, patience=0.05)
    threads = [
        threading.Thread(target=router, args=(np.float64(n),), kwargs={"key": str(n)}) for n in range(80)
    ]
    for thread in threads:
        thread.start()
    fast = [k for k in map(str, range(200)) if not falls_under(router._terms.salt, k, 0.5)]

    def go_on():  # the champion's users
        router(np.float64(1), key=fast[0])
        return router.view.status == "rolled back"

    wait_for(go_on)
    assert router.view.reason.startswith("errors: ")
    before = router.status()["totals"]["errors"]["challenger"]["count"]
    gate.set()
    for thread in threads:
        thread.join()
    assert router(np.float64(1), key="a").arm == "champion"
    assert router.status()["totals"]["errors"]["challenger"]["count"] == before  # not counted once more


def test_a_challenger_that_hangs_in_shadow_is_rolled_back(make):
    gate, heard = threading.Event(), []

    def hang(x):
        gate.wait(60)
        return champion(x)

    listener = lambda arm, run: heard.append((arm, run.failed))  # noqa: E731
    policy = dataclasses.replace(POLICY, requests=10**6)
    router = make(b=hang, policy=policy, patience=0.05, waiting=4, listener=listener)

    def go_on():
        answer = router(np.float64(1))
        assert answer.arm == "champion"
        return router.view.status == "rolled back"

    wait_for(go_on)
    assert router.view.reason.startswith("errors: ")
    count = router.status()["totals"]["errors"]["challenger"]["count"]
    assert heard.count(("challenger", True)) >= count > 5
    gate.set()
    router.close()
    assert router.store.state().totals["errors"][1].count == count  # not counted once more


def test_closing_does_not_wait_for_what_hangs():
    gate, done, beside = threading.Event(), [], Beside(2)
    assert beside.offer(lambda: gate.wait(60))
    wait_for(lambda: beside._begun is not None)
    assert [beside.offer(lambda: done.append(1)) for _ in range(3)] == [True, True, False]
    begun = time.monotonic()
    beside.close(timeout=0.1)
    assert time.monotonic() - begun < 10
    assert not beside.offer(lambda: done.append(1))
    gate.set()
    beside._thread.join(10)
    assert (done, beside.dropped) == ([], 4)  # what waited was dropped, and said so


def test_another_thread_takes_the_work_of_one_that_hangs():
    gate, done, beside = threading.Event(), [], Beside(2)
    beside.offer(lambda: gate.wait(60))
    wait_for(lambda: beside._begun is not None)
    beside.offer(lambda: done.append(1))
    hung = beside._thread
    beside.relieve(60.0)
    assert beside._thread is hung
    beside.relieve(0.0)
    wait_for(lambda: done)
    gate.set()
    hung.join(10)
    assert not hung.is_alive()
    beside.close()


def test_a_router_that_is_closed_takes_no_outcome(make):
    router = make()
    receipt = router(np.float64(1)).receipt
    router.close()
    with pytest.raises(StoreError, match="is closed"):
        router.record(receipt, label=1)


def test_it_says_what_is_wrong_before_any_work(make, tmp_path):
    for arguments, message in (
        ({"a": 3}, "the champion is a int"),
        ({"b": None}, "the challenger is a NoneType"),
        ({"policy": {}}, "policy is a rollout.Policy, got a dict"),
        ({"refresh": 0}, "refresh is a number from 0.01, got 0"),
        ({"waiting": 0}, "waiting is a number from 1, got 0"),
        ({"patience": -1}, "patience is a number from 0.01, got -1"),
    ):
        with pytest.raises(CorankError, match=message):
            make(**arguments)
    assert list(tmp_path.iterdir()) == []
    make(bundles=Bundles("one", "two"))
    with pytest.raises(StoreError, match="it began with challenger 'two', got 'three'"):
        make(bundles=Bundles("one", "three"))
    with pytest.raises(CorankError, match="at most 200 characters, got 201"):
        make(bundles=Bundles("one", "two"))(np.float64(1), request="x" * 201)


def test_the_listener_hears_every_run(make):
    heard = []
    router = make(policy=LIVE, b=broken, listener=lambda arm, run: heard.append((arm, run.failed)))
    arms = [router(np.float64(n)).arm for n in range(40)]
    assert sorted(heard) == sorted((arm, arm == "challenger") for arm in arms)
