"""The store on SQLite and on a real PostgreSQL: nothing lost, nothing counted twice, one fold at a time."""

from __future__ import annotations

import dataclasses
import threading
import uuid

import pytest
import sqlalchemy as sa

from corank.errors import CorankError, ExtraError, StoreError
from corank.rollout.policy import Policy
from corank.rollout.records import Recorded
from corank.rollout.rows import CHALLENGER, CHAMPION, Observation, Run
from corank.rollout.schema import SHADOWS
from corank.rollout.store import Store

POLICY = Policy(
    stages=(0.0, 0.5, 1.0), requests=50, seconds=0, reference=20, margin=0.02, unlabelled_ceiling=1.0
)


def recorded(request, *, arm=CHAMPION, paired=False, truth=(1,), created=0.0):
    return Recorded(request, 0, arm, paired, (1,), truth, None, created)


@pytest.fixture
def name():
    return uuid.uuid4().hex


@pytest.fixture
def store(url, name):
    made = Store(url, name)
    made.open(POLICY, 1.0)
    yield made
    made.close()


def test_a_roll_out_is_found_again_with_the_same_terms(store, url, name):
    terms = store.terms()
    again = Store(url, name)
    assert again.open(POLICY, 99.0) == terms
    assert again.state().entered == 1.0
    again.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": dataclasses.replace(POLICY, margin=0.1)}, "policy: it began with margin 0.02, got 0.1"),
        ({"champion": "abc"}, "it began with champion '', got 'abc'"),
        ({"challenger": "abc"}, "it began with challenger '', got 'abc'"),
    ],
)
def test_other_terms_are_refused(store, change, message):
    with pytest.raises(StoreError) as error:
        store.open(**{"policy": POLICY, "now": 0.0} | change)
    assert message in str(error.value)


def test_an_outcome_counts_once(store):
    assert store.write([recorded("a"), recorded("a"), recorded("b")]) == {"a", "b"}
    assert store.write([recorded("b"), recorded("c")]) == {"c"}
    store.fold(POLICY, 10.0)
    store.fold(POLICY, 11.0)
    assert store.state().outcomes == 3
    assert store.state().totals["quality"][0].count == 3


def test_an_outcome_waits_for_the_answer_beside_it_but_not_for_ever(store):
    store.write([recorded("a", paired=True, created=10.0), recorded("b", paired=True, created=10.0)])
    store.fold(POLICY, 11.0)
    assert store.state().outcomes == 0
    store.write([], [], [("a", (2,), 11.0)])
    store.fold(POLICY, 12.0)
    assert store.state().evidence["no worse"].total == -1.0
    store.fold(POLICY, 69.9)
    assert store.state().outcomes == 1
    store.fold(POLICY, 70.1)
    state = store.state()
    assert state.outcomes == 2
    assert state.evidence["no worse"].count == 1
    assert state.totals["quality"][0].count == 2


def test_moves_are_made_once_and_kept(store):
    rows = [Observation(str(number), 0, CHAMPION, Run(1.0), Run(1.0), 1.0) for number in range(60)]
    store.write([], rows)
    view, move = store.fold(POLICY, 10.0)
    assert (view.stage, view.share, move.action) == (1, 0.5, "next stage")
    assert store.fold(POLICY, 11.0)[1] is None
    store.order(POLICY, "roll-back", 12.0)
    assert [one["action"] for one in store.moves()] == ["next stage", "rolled back"]
    assert store.fold(POLICY, 13.0)[0].share == 0.0


def test_more_rows_than_one_fold_takes(store):
    store.write([recorded(str(number)) for number in range(2300)])
    counts = []
    for now in range(3):
        store.fold(POLICY, float(now))
        counts.append(store.state().outcomes)
    assert counts == [2000, 2300, 2300]


def test_outcomes_that_wait_do_not_stand_before_others(store):
    store.write([recorded(f"w-{number}", paired=True, created=10.0) for number in range(2100)])
    store.write([recorded("a", created=11.0)])
    store.fold(POLICY, 12.0)
    assert store.state().outcomes == 1
    store.fold(POLICY, 71.0)
    store.fold(POLICY, 71.0)
    assert store.state().outcomes == 2101


def test_answers_beside_that_got_no_outcome_are_deleted_after_a_month(store):
    month = 30 * 86400.0
    count = sa.select(sa.func.count()).select_from(SHADOWS).where(SHADOWS.c.rollout == store.name)

    def kept():
        with store.database.reading() as connection:
            return connection.execute(count).scalar_one()

    store.fold(POLICY, 2.0)
    store.write([], [], [("a", (1,), 10.0), ("b", (1,), 20.0)])
    for now, left in ((3000.0, 2), (month + 15.0, 1), (month + 25.0, 1), (month + 3700.0, 0)):
        store.fold(POLICY, now)
        assert kept() == left


def test_several_at_once_lose_nothing_and_count_nothing_twice(url, name):
    stores = [Store(url, name) for _ in range(4)]
    terms, failed = [], []

    def work(store, number):
        try:
            terms.append(store.open(POLICY, float(number)))
            for part in range(6):
                every = [recorded(f"{part}-{row}") for row in range(20)]  # the same of all of them
                own = [recorded(f"{number}-{part}-{row}", arm=CHALLENGER) for row in range(20)]
                store.write([*every, *own])
                store.fold(POLICY, 1.0)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(stores, range(4), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len({one.salt for one in terms}) == 1
    stores[0].fold(POLICY, 2.0)
    state = stores[0].state()
    assert state.outcomes == 6 * 20 + 4 * 6 * 20
    assert state.totals["quality"][1].count == 4 * 6 * 20
    for store in stores:
        store.close()


def test_two_roll_outs_in_one_database_leave_each_other_alone(store, url):
    other = Store(url, uuid.uuid4().hex)
    other.open(POLICY, 0.0)
    store.write([recorded("a")], [Observation("a", 0, CHAMPION, Run(1.0), Run(1.0))])
    assert other.write([recorded("a")]) == {"a"}
    other.fold(POLICY, 1.0)
    store.fold(POLICY, 1.0)
    assert (store.state().seen, other.state().seen) == (1, 0)
    other.close()


def test_errors_say_what_to_do(tmp_path, monkeypatch):
    for url, message in (
        ("sqlite://", "must survive a restart"),
        ("mysql://here", "allowed are sqlite and postgresql, got 'mysql'"),
        ("://", "is no URL"),
    ):
        with pytest.raises(StoreError) as error:
            Store(url)
        assert message in str(error.value)
    with pytest.raises(StoreError, match="1 to 200 characters"):
        Store(tmp_path / "a.db", "")
    with pytest.raises(StoreError, match="Check that the database is up"):
        Store(tmp_path / "absent" / "a.db").open(POLICY, 0.0)
    with pytest.raises(StoreError, match="holds no roll-outs"):
        Store(tmp_path / "a.db").terms()
    store = Store(tmp_path / "a.db", "one")
    store.open(POLICY, 0.0)
    with pytest.raises(StoreError, match="none named 'two'; there are one"):
        Store(tmp_path / "a.db", "two").terms()
    with pytest.raises(CorankError, match="allowed are hold"):
        store.order(POLICY, "stop", 0.0)
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(ExtraError, match="corank\\[postgres\\]"):
        Store("postgresql://here/a")


def test_a_password_is_not_shown(postgres):
    store = Store("postgresql://me:secret@127.0.0.1:1/a")
    with pytest.raises(StoreError) as error:
        store.open(POLICY, 0.0)
    assert "secret" not in str(error.value)
