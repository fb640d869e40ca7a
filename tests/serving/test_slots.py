"""Places for calls: none is lost and none is given back twice, whoever comes first."""

from __future__ import annotations

import threading

from corank.serving.slots import Slots


def test_a_call_that_is_left_before_it_begins_never_runs():
    slots, ran = Slots(2), []
    slot = slots.take(lambda: ran.append(1))
    slot.leave()
    slot.leave()
    assert (slot(), ran, slots.count) == (None, [], 0)


def test_a_call_that_has_begun_keeps_its_place_until_it_ends():
    slots, counts = Slots(1), []
    slot = slots.take(lambda: (slot.leave(), counts.append(slots.count)))
    slot()
    assert (counts, slots.count) == ([1], 0)


def test_many_threads_leave_the_count_at_zero():
    slots = Slots(8)

    def work():
        for number in range(500):
            slot = slots.take(int)
            if slot is not None:
                (slot if number % 2 else slot.leave)()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slots.count == 0
